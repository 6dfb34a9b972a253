"""Random models of real architectures, small enough to run in milliseconds."""

from __future__ import annotations

from typing import Any

import torch
import transformers
from transformers import AutoModelForCausalLM, PreTrainedConfig

VOCABULARY = 97
CONTEXT_TOKENS = 256
_SHAPE: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": CONTEXT_TOKENS,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
    "initializer_range": 0.4,  # so that attention decides what comes next
}
_GPT2_SHAPE: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "n_embd": 32,
    "n_layer": 3,
    "n_head": 4,
    "n_positions": CONTEXT_TOKENS,
    "initializer_range": 0.4,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_ROPE: dict[str, Any] = {"rope_theta": 10000.0, "factor": 4.0}
_SCALED = _ROPE | {"original_max_position_embeddings": 64}

# By a name of ours: the class of the config, and what it says beside the shape.
ARCHITECTURES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("LlamaConfig", {"num_key_value_heads": 2}),
    "llama-linear": ("LlamaConfig", {"rope_parameters": _ROPE | {"rope_type": "linear"}}),
    "llama-yarn": ("LlamaConfig", {"rope_parameters": _SCALED | {"rope_type": "yarn"}}),
    "llama-llama3": (
        "LlamaConfig",
        {
            "rope_parameters": _SCALED
            | {"rope_type": "llama3", "low_freq_factor": 1.0, "high_freq_factor": 4.0}
        },
    ),
    "llama-dynamic": ("LlamaConfig", {"rope_parameters": _ROPE | {"rope_type": "dynamic"}}),
    "mistral": ("MistralConfig", {"num_key_value_heads": 2, "sliding_window": 8}),
    "mixtral": ("MixtralConfig", {"num_key_value_heads": 2, "num_local_experts": 4}),
    "gemma3": (
        "Gemma3TextConfig",
        {
            "num_key_value_heads": 2,
            "head_dim": 12,
            "tie_word_embeddings": False,  # else it says one token for ever
            "sliding_window": 8,
            "layer_types": ["sliding_attention", "sliding_attention", "full_attention"],
        },
    ),
    "gemma3n": (
        "Gemma3nTextConfig",
        {
            "num_key_value_heads": 2,
            "head_dim": 8,
            "sliding_window": 8,
            "num_hidden_layers": 4,
            "intermediate_size": [48] * 4,
            "layer_types": ["sliding_attention", "full_attention"] * 2,
            "num_kv_shared_layers": 2,
            "activation_sparsity_pattern": [0.0] * 4,
            "vocab_size_per_layer_input": VOCABULARY,
        },
    ),
    "gpt2": ("GPT2Config", _GPT2_SHAPE),
    "gptj": ("GPTJConfig", _GPT2_SHAPE | {"rotary_dim": 4}),
    "gpt-neox": ("GPTNeoXConfig", {"rotary_pct": 0.5}),
    "qwen3": ("Qwen3Config", {"num_key_value_heads": 2, "head_dim": 20}),
    "phi": ("PhiConfig", {}),
    "cohere": ("CohereConfig", {"num_key_value_heads": 2}),
    "glm": ("GlmConfig", {"num_key_value_heads": 2, "head_dim": 8}),
    "smollm3": ("SmolLM3Config", {"num_key_value_heads": 2, "no_rope_layers": [1, 0, 1]}),
    "falcon": ("FalconConfig", {"multi_query": True, "new_decoder_architecture": False}),
    "falcon-alibi": ("FalconConfig", {"alibi": True}),
    "bloom": ("BloomConfig", {"n_layer": 2, "n_head": 4}),
    "llama4": (
        "Llama4TextConfig",
        {
            "num_key_value_heads": 2,
            "head_dim": 8,
            "intermediate_size_mlp": 48,
            "num_local_experts": 2,
            "attention_chunk_size": 8,
        },
    ),
    "deepseek": (
        "DeepseekV3Config",
        {
            "num_key_value_heads": 4,
            "q_lora_rank": 8,
            "kv_lora_rank": 8,
            "qk_nope_head_dim": 8,
            "qk_rope_head_dim": 4,
            "v_head_dim": 6,
            "first_k_dense_replace": 3,
        },
    ),
    "jamba": ("JambaConfig", {"num_key_value_heads": 2}),
    "mamba": ("MambaConfig", {}),
    "t5": ("T5Config", {}),
    "bert": ("BertConfig", {}),
}


def tiny_config(name: str, **changes: Any) -> PreTrainedConfig:
    """The config of one of ARCHITECTURES."""
    kind, said = ARCHITECTURES[name]
    shape = {} if said.items() >= _GPT2_SHAPE.items() else _SHAPE
    config: PreTrainedConfig = getattr(transformers, kind)(**(shape | said | changes))
    return config


def tiny_model(name: str, dtype: torch.dtype = torch.float32, **changes: Any) -> Any:
    """A model of one of ARCHITECTURES, its weights random but always the same."""
    torch.manual_seed(7)
    build: Any = AutoModelForCausalLM.from_config
    return build(tiny_config(name, **changes), dtype=dtype).eval()


def measured(cache: Any) -> list[int]:
    """The bytes of the keys and values that each layer of a cache holds."""
    return [
        0 if layer.keys is None else layer.keys.nbytes + layer.values.nbytes
        for layer in cache.layers
    ]
