"""A 135 M Llama of random weights, written like any checkpoint; for `bench.prefix`.

The shape is SmolLM-135M's (grouped-query attention, tied embeddings, its own spread of the initial
weights). No tokenizer of that size is at hand, nor needed: every token is a word of its own, so
that each one decodes to whole text at once.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

VOCABULARY: Final = 49_152
SEED: Final = 1


def config() -> LlamaConfig:
    """SmolLM-135M's, as its `config.json` has it, with room for 8,192 tokens."""
    return LlamaConfig(
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=30,
        num_attention_heads=9,
        num_key_value_heads=3,
        vocab_size=VOCABULARY,
        max_position_embeddings=8192,
        rope_parameters={"rope_type": "default", "rope_theta": 100_000.0},
        rms_norm_eps=1e-5,
        initializer_range=1 / 24,
        tie_word_embeddings=True,
        bos_token_id=0,
        eos_token_id=None,
        dtype=torch.float32,
    )


def write(folder: Path) -> None:
    """Write a checkpoint of 540 MB with its tokenizer; the weights are the same each time."""
    torch.manual_seed(SEED)
    model = LlamaForCausalLM(config())
    # Ends nowhere: an answer has as many tokens as are asked for.
    model.generation_config = GenerationConfig(do_sample=False, bos_token_id=0)  # type: ignore[no-untyped-call]  # theirs
    model.save_pretrained(folder)
    words = {f"w{token}": token for token in range(VOCABULARY)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="w0"))  # noqa: S106 - a word
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast: Any = PreTrainedTokenizerFast
    fast(tokenizer_object=tokenizer, bos_token="w0").save_pretrained(folder)  # noqa: S106
