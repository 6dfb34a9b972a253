"""Keys turned from one position to another, beside keys that were made there."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import DynamicCache
from transformers.utils import logging

from origin.engine.rotary import Rope, UnsupportedRopeError, rerotate, ropes_of
from tests.support.tiny_models import CONTEXT_TOKENS, tiny_model

ROTARY = [
    "llama",
    "llama-linear",
    "llama-yarn",
    "llama-llama3",
    "mistral",
    "gemma3",
    "gemma3n",
    "gptj",
    "gpt-neox",
    "qwen3",
    "phi",
    "cohere",
    "glm",
    "smollm3",
    "falcon",
]


@pytest.fixture(autouse=True)
def quiet() -> None:
    """What transformers would say of the tiny configs' special tokens."""
    torch.set_num_threads(1)
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]  # theirs


def keys_at(model: Any, positions: torch.Tensor) -> list[torch.Tensor | None]:
    """The keys of every layer, each token read alone, so that only its position matters."""
    ids = torch.full((len(positions), 1), 5)
    cache = DynamicCache(config=model.config)
    with torch.inference_mode():
        model(input_ids=ids, position_ids=positions[:, None], past_key_values=cache)
    # Shape: [1, heads, tokens, head_dim], as if they had been read one after the other.
    layers: list[Any] = cache.layers
    return [None if layer.keys is None else layer.keys.transpose(0, 2) for layer in layers]


@pytest.mark.parametrize("name", ROTARY)
def test_turned_keys_are_the_ones_made_there(name: str) -> None:
    """In every layer, for near and far, forth and back."""
    model = tiny_model(name)
    ropes = ropes_of(model, positions=(1, CONTEXT_TOKENS - 1))
    old = torch.tensor([0, 3, 17, 200, CONTEXT_TOKENS - 1])
    new = torch.tensor([200, 3, 16, 0, 100])
    found = zip(ropes, keys_at(model, old), keys_at(model, new), strict=True)
    turned = 0
    for rope, before, after in found:
        if rope is None or before is None or after is None:
            assert before is None or torch.equal(before, after)  # type: ignore[arg-type]
            continue
        torch.testing.assert_close(rerotate(before, old, new, rope), after, rtol=1e-5, atol=1e-5)
        turned += 1
    assert turned > 0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_rounded_once(dtype: torch.dtype) -> None:
    """The sums are float32: the error is that of the one rounding, and of the model's own."""
    model = tiny_model("llama", dtype)
    (rope, *_) = ropes_of(model, positions=(1, CONTEXT_TOKENS - 1))
    assert rope is not None
    keys = torch.randn(1, 2, 5, 8, dtype=dtype)
    old, new = torch.arange(100, 105), torch.arange(50, 55)
    exact = rerotate(keys.double().float(), old, new, rope)
    torch.testing.assert_close(rerotate(keys, old, new, rope), exact.to(dtype), rtol=0, atol=0)


@settings(max_examples=50)
@given(
    pairs=st.integers(1, 4),
    beyond=st.integers(0, 3),
    interleaved=st.booleans(),
    positions=st.lists(
        st.tuples(st.integers(0, 5000), st.integers(0, 5000)), min_size=1, max_size=5
    ),
)
def test_it_is_a_rotation(
    *, pairs: int, beyond: int, interleaved: bool, positions: list[tuple[int, int]]
) -> None:
    """It keeps lengths and what is beyond the pairs, can be undone, and changes no argument."""
    rope = Rope(frequencies=0.7 ** torch.arange(pairs).float(), interleaved=interleaved)
    old, new = (torch.tensor(each) for each in zip(*positions, strict=True))
    keys = torch.randn(1, 2, len(positions), 2 * pairs + beyond)
    given_ = keys.clone()
    there = rerotate(keys, old, new, rope)
    torch.testing.assert_close(there.norm(dim=-1), keys.norm(dim=-1))
    assert torch.equal(there[..., 2 * pairs :], keys[..., 2 * pairs :])
    torch.testing.assert_close(rerotate(there, new, old, rope), keys, rtol=1e-5, atol=1e-5)
    assert torch.equal(keys, given_)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("gpt2", "values of layer 0 depend on their positions"),
        ("deepseek", "values of layer 0 depend on their positions"),
        ("bloom", "not rotated"),
    ],
)
def test_other_positions_are_not_taken_for_rotary_ones(name: str, said: str) -> None:
    """Learned ones, ALiBi, and a turned part among the values."""
    with pytest.raises(UnsupportedRopeError, match=said):
        ropes_of(tiny_model(name), positions=(1, 63))


def test_a_frequency_that_is_off_is_noticed() -> None:
    """What the buffers say is believed only if the keys turn so."""
    model = tiny_model("llama")
    found = ropes_of(model, positions=(1, 255))
    rotary = model.model.rotary_emb
    forward = rotary.forward

    def slower(x: torch.Tensor, position_ids: torch.Tensor) -> Any:
        return forward(x, position_ids * 0.9)

    rotary.forward = slower
    assert found[0] is not None
    with pytest.raises(UnsupportedRopeError, match="do not turn"):
        ropes_of(model, positions=(1, 255))
