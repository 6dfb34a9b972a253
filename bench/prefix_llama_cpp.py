"""llama.cpp answering token ids, in an environment of its own; started by `bench.prefix`.

    VENV/bin/python bench/prefix_llama_cpp.py CHECKPOINT DTYPE THREADS GGUF

Writes the weights of CHECKPOINT (a Llama's safetensors, float32) to GGUF, loads them, then answers
each line of standard input, `{"ids": [...], "tokens": n}`, by one line: the `n` greedy `tokens`, and
`wall_ms` and `cpu_ms` to the first of them. What its context already holds of the prompt it does not
compute again (`Llama.generate` does so by itself). Keys and values are float32 for float32 weights,
else float16, its default.
"""  # noqa: E501 - a line of the protocol

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from llama_cpp import GGML_TYPE_F16, GGML_TYPE_F32, Llama
from safetensors.numpy import load_file

CONTEXT_TOKENS = 8192
BLOCK = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
"""GGUF's names of what a layer holds."""


def main() -> None:
    """Convert, load, answer until the input ends."""
    folder, dtype, threads, target = sys.argv[1:]
    convert(Path(folder), dtype, Path(target))
    kind = GGML_TYPE_F32 if dtype == "float32" else GGML_TYPE_F16
    llama = Llama(
        target,
        n_ctx=CONTEXT_TOKENS,
        n_threads=int(threads),
        n_threads_batch=int(threads),
        type_k=kind,
        type_v=kind,
        verbose=False,
    )
    print("ready", flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        began_s, cpu_s = time.perf_counter(), time.process_time()
        answer = llama.generate(asked["ids"], temp=0.0)
        tokens = [next(answer)]
        report: dict[str, Any] = {
            "wall_ms": (time.perf_counter() - began_s) * 1000,
            "cpu_ms": (time.process_time() - cpu_s) * 1000,
        }
        tokens += [next(answer) for _ in range(asked["tokens"] - 1)]
        print(json.dumps(report | {"tokens": tokens}), flush=True)


def convert(folder: Path, dtype: str, target: Path) -> None:
    """Write `target`, unless it is there."""
    if target.exists():
        return
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
    words = config["vocab_size"]
    writer = gguf.GGUFWriter(target, "llama")
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv_heads)
    writer.add_rope_dimension_count(config["hidden_size"] // heads)
    writer.add_rope_freq_base(config["rope_parameters"]["rope_theta"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_vocab_size(words)
    # Some vocabulary has to be there; only ids are ever asked and answered.
    writer.add_tokenizer_model("llama")
    writer.add_token_list([f"w{token}" for token in range(words)])
    writer.add_token_scores([0.0] * words)
    writer.add_token_types([gguf.TokenType.NORMAL] * words)
    quantised = gguf.GGMLQuantizationType[{"float32": "F32", "bfloat16": "BF16"}[dtype]]
    for name, weights in load_file(folder / "model.safetensors").items():
        tensor = weights
        if "q_proj" in name or "k_proj" in name:
            tensor = rotated_in_pairs(tensor, heads if "q_proj" in name else kv_heads)
        if tensor.ndim == 1:  # norms, which llama.cpp wants in float32
            writer.add_tensor(named(name), tensor)
        else:
            raw = gguf.quants.quantize(tensor, quantised)
            writer.add_tensor(named(name), raw, raw_dtype=quantised)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def named(name: str) -> str:
    """GGUF's name of a tensor of transformers'."""
    outer = {
        "model.embed_tokens.weight": "token_embd.weight",
        "model.norm.weight": "output_norm.weight",
    }
    if name in outer:
        return outer[name]
    _, _, layer, inner = name.removesuffix(".weight").split(".", 3)
    return f"blk.{layer}.{BLOCK[inner]}.weight"


def rotated_in_pairs(weights: np.ndarray[Any, Any], heads: int) -> np.ndarray[Any, Any]:
    """Rows in the order of GGUF: it rotates neighbours where transformers rotates halves."""
    shape = weights.shape
    return weights.reshape(heads, 2, shape[0] // heads // 2, shape[1]).swapaxes(1, 2).reshape(shape)


if __name__ == "__main__":
    main()
