"""The size of a cache, told from a config, beside what a real cache measures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import DynamicCache
from transformers.utils import logging

from origin.engine.demo import DEMO_NAME
from origin.engine.kv_size import KvSize, KvSizeError
from tests.support.tiny_models import CONTEXT_TOKENS, measured, tiny_config, tiny_model

MEASURED = [
    "llama",
    "mistral",
    "mixtral",
    "gemma3",
    "gemma3n",
    "gpt2",
    "gptj",
    "gpt-neox",
    "qwen3",
    "phi",
    "cohere",
    "falcon",
    "bloom",
    "llama4",
    "deepseek",
]


@pytest.fixture(autouse=True)
def quiet() -> None:
    """What transformers would say of the tiny configs' special tokens."""
    torch.set_num_threads(1)
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]  # theirs


def saved(folder: Path, config: Any) -> str:
    """A folder with nothing but a config."""
    config.save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize("name", MEASURED)
def test_a_real_cache_measures_the_same(tmp_path: Path, name: str) -> None:
    """Byte for byte, in all and by layer, below and beyond the layers' own windows of 8."""
    size = KvSize.of(saved(tmp_path, tiny_config(name)), torch.float32)
    model = tiny_model(name)
    for batch, tokens in ((1, 1), (2, 7), (1, 8), (3, 9), (1, 40)):
        cache = DynamicCache(config=model.config)
        with torch.inference_mode():
            model(torch.ones((batch, tokens), dtype=torch.long), past_key_values=cache)
        told = [size.layer_bytes(layer, tokens, batch) for layer in size.layers]
        assert told == measured(cache)
        assert size.size_bytes(tokens, batch) == sum(told) > 0


def test_it_is_the_same_token_by_token(tmp_path: Path) -> None:
    """A cache that was grown by decoding holds no more than one that was prefilled."""
    size = KvSize.of(saved(tmp_path, tiny_config("gemma3")), torch.float32)
    model = tiny_model("gemma3")
    cache = DynamicCache(config=model.config)
    with torch.inference_mode():
        for tokens in range(1, 20):
            model(torch.ones((1, 1), dtype=torch.long), past_key_values=cache)
            assert sum(measured(cache)) == size.size_bytes(tokens)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_the_bits_take_half_the_bytes(tmp_path: Path, dtype: torch.dtype) -> None:
    """As the cache of a model of that type does."""
    folder = saved(tmp_path, tiny_config("llama"))
    half = KvSize.of(folder, dtype)
    assert 2 * half.size_bytes(10) == KvSize.of(folder, torch.float32).size_bytes(10)
    model = tiny_model("llama", dtype)
    cache = DynamicCache(config=model.config)
    with torch.inference_mode():
        model(torch.ones((1, 10), dtype=torch.long), past_key_values=cache)
    assert half.size_bytes(10) == sum(measured(cache))


def test_a_window_of_one_token_holds_all(tmp_path: Path) -> None:
    """As transformers does it, which keeps what follows the last token but minus none."""
    size = KvSize.of(saved(tmp_path, tiny_config("mistral", sliding_window=1)), torch.float32)
    model = tiny_model("mistral", sliding_window=1)
    cache = DynamicCache(config=model.config)
    with torch.inference_mode():
        model(torch.ones((1, 5), dtype=torch.long), past_key_values=cache)
    assert size.size_bytes(5) == sum(measured(cache))


def test_a_large_model_takes_no_memory(tmp_path: Path) -> None:
    """Llama 3 of 405 billion weights: only shapes are made."""
    config = tiny_config(
        "llama",
        vocab_size=128256,
        hidden_size=16384,
        intermediate_size=53248,
        num_hidden_layers=126,
        num_attention_heads=128,
        num_key_value_heads=8,
        max_position_embeddings=131072,
    )
    size = KvSize.of(saved(tmp_path, config), torch.bfloat16)
    assert size.size_bytes(1) == 126 * 2 * 8 * 128 * 2
    assert size.context_tokens == 131072


@pytest.mark.parametrize("name", ["llama", "gpt2", "falcon"])
def test_the_longest_context_is_told(tmp_path: Path, name: str) -> None:
    """Under whichever name the config has it."""
    folder = saved(tmp_path, tiny_config(name))
    assert KvSize.of(folder, torch.float32).context_tokens == CONTEXT_TOKENS


def test_the_demo_model_has_a_name() -> None:
    """Its folder need not be known."""
    size = KvSize.of(DEMO_NAME)
    assert size.size_bytes(1) > 0
    assert size.dtype is torch.float32 or torch.cuda.is_available()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("jamba", "LinearAttentionLayer"),
        ("mamba", "LinearAttentionLayer"),
        ("bert", "cannot be measured|no key-value cache"),
        ("t5", "'t5' is not a causal language model"),
    ],
)
def test_what_is_not_keys_and_values_is_refused(tmp_path: Path, name: str, said: str) -> None:
    """By name, never guessed at."""
    with pytest.raises(KvSizeError, match=said):
        KvSize.of(saved(tmp_path, tiny_config(name)))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "no folder with a config.json"),
        ("{", "no config can be read"),
        ("[]", "no config can be read"),
        ("{}", "no config can be read"),
        ('{"model_type": "none"}', "no config can be read"),
        ('{"model_type": "llama", "num_attention_heads": 0}', "cannot be measured|can be read"),
        ('{"model_type": "llama", "hidden_size": "many"}', "no config can be read"),
        ('{"model_type": "x", "auto_map": {"AutoConfig": "c.C"}}', "no config can be read"),
    ],
)
def test_a_broken_config_is_refused(tmp_path: Path, text: str | None, said: str) -> None:
    """In one line."""
    if text is not None:
        (tmp_path / "config.json").write_text(text)
    with pytest.raises(KvSizeError, match=said) as caught:
        KvSize.of(str(tmp_path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("source", ["/nowhere/at/all", "no/such/folder", "", "~", "a b"])
def test_what_is_neither_folder_nor_id_is_refused(source: str) -> None:
    """Before anything is asked of a hub."""
    with pytest.raises(KvSizeError, match=r"no such folder|no folder with"):
        KvSize.of(source)
