"""Generation in a context window, beside references that keep every key unrotated or read anew."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer
from transformers.utils import logging

from origin.engine.context_window import (
    TURNS_OF_A_KEY,
    ContextWindow,
    UnsupportedWindowError,
    WindowTrimmer,
    check_window,
    window_refusal,
)
from tests.support.tiny_models import (
    CONTEXT_TOKENS,
    VOCABULARY,
    measured,
    tiny_config,
    tiny_model,
)
from tests.support.windowed import TrimmableCache, Windowed

WINDOW = ContextWindow(tokens=36, sink=4)
PROMPT = [(7 * place * place + 3) % (VOCABULARY - 1) + 1 for place in range(50)]
STEPS = 200
ROTARY = [
    "llama",
    "llama-linear",
    "llama-yarn",
    "llama-llama3",
    "mistral",
    "gemma3",
    "gptj",
    "gpt-neox",
    "qwen3",
    "phi",
    "cohere",
    "glm",
    "falcon",
]


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Single-threaded, without gradients, and without what transformers says of tiny configs."""
    torch.set_num_threads(1)
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]  # theirs
    with torch.inference_mode():
        yield


class Policy:
    """Which tokens, by their absolute number, a cache holds: the plain words of the module."""

    def __init__(self, window: ContextWindow = WINDOW) -> None:
        self.window = window
        self.kept: list[int] = []
        self.read = 0

    def add(self) -> None:
        """Make room for the next token, and take it."""
        if len(self.kept) == self.window.tokens:
            del self.kept[self.window.sink : self.window.sink + self.window.chunk]
        self.kept.append(self.read)
        self.read += 1


class UnrotatedLayer(DynamicLayer):  # type: ignore[no-untyped-call]  # theirs
    """Keeps the unrotated keys of every token ever; hands out the kept, rotated as they stand."""

    def __init__(self, rotate: Callable[[torch.Tensor], torch.Tensor], window: int | None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # theirs
        self.rotate = rotate
        self.policy = Policy()
        self.reach = window or 10**9

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """One token at a time; a sliding layer's own window is cut after the rotation."""
        super().update(key_states, value_states, *args, **kwargs)
        self.policy.add()
        assert self.keys is not None
        assert self.values is not None
        kept = self.policy.kept
        keys, values = self.rotate(self.keys[:, :, kept]), self.values[:, :, kept]
        return keys[:, :, -self.reach :], values[:, :, -self.reach :]

    def get_seq_length(self) -> int:
        """The position of the next token: how many will be kept before it."""
        kept, window = len(self.policy.kept), self.policy.window
        return kept - window.chunk if kept == window.tokens else kept

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """What `update` hands out, and where it begins."""
        ahead = self.get_seq_length() + query_length
        return min(ahead, self.reach), max(0, ahead - self.reach)


@contextmanager
def unrotated(model: Any) -> Iterator[DynamicCache]:
    """A cache of unrotated keys, and the model changed so that it hands over such.

    The rotation is the model's own function, applied to the keys alone.
    """
    module = sys.modules[type(model).__module__]
    rotary: Any = module.apply_rotary_pos_emb
    angles = next(each for name, each in model.named_modules() if name.endswith("rotary_emb"))
    config = model.config
    cache = DynamicCache(config=config)
    by_type = hasattr(angles, "full_attention_inv_freq")

    def rotate_of(layer_type: str | None) -> Callable[[torch.Tensor], torch.Tensor]:
        def rotate(keys: torch.Tensor) -> torch.Tensor:
            positions = torch.arange(keys.shape[-2])[None]
            arguments = (keys, positions, layer_type) if by_type else (keys, positions)
            cos, sin = angles(*arguments)
            pairs = cos.shape[-1]  # beyond them nothing turns
            turned = rotary(keys[..., :pairs], keys[..., :pairs], cos, sin)[1]
            return torch.cat((turned, keys[..., pairs:]), dim=-1)

        return rotate

    types = getattr(config, "layer_types", None) or [None] * len(cache.layers)
    cache.layers = [
        UnrotatedLayer(
            rotate_of(kind),
            layer.sliding_window if isinstance(layer, DynamicSlidingWindowLayer) else None,
        )
        for kind, layer in zip(types, cache.layers, strict=True)
    ]

    def queries_only(
        q: torch.Tensor, k: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        return rotary(q, k, *args, **kwargs)[0], k

    module.apply_rotary_pos_emb = queries_only  # type: ignore[attr-defined]
    try:
        yield cache
    finally:
        module.apply_rotary_pos_emb = rotary  # type: ignore[attr-defined]


def reference(model: Any, prompt: Sequence[int], steps: int) -> tuple[list[int], torch.Tensor]:
    """The greedy tokens after a prompt, one token at a time, and the logits of each step."""
    with unrotated(model) as cache:
        for token in prompt:
            logits = model(input_ids=torch.tensor([[token]]), past_key_values=cache).logits[0, -1]
        return greedy(
            logits,
            lambda token: model(input_ids=torch.tensor([[token]]), past_key_values=cache).logits[
                0, -1
            ],
            steps,
        )


def greedy(
    logits: torch.Tensor, step: Callable[[int], torch.Tensor], steps: int
) -> tuple[list[int], torch.Tensor]:
    """The tokens chosen, and the logits they were chosen from. Shape: [steps, vocabulary]."""
    tokens: list[int] = []
    seen = [logits]
    for _ in range(steps):
        tokens.append(int(seen[-1].argmax()))
        seen.append(step(tokens[-1]))
    return tokens, torch.stack(seen)


@pytest.mark.parametrize(
    "name", ["llama", "llama-yarn", "llama-llama3", "gpt-neox", "cohere", "gemma3", "mistral"]
)
def test_it_generates_what_unrotated_keys_would(name: str) -> None:
    """Hundreds of greedy tokens past the window, trimmed dozens of times, are the same."""
    model = tiny_model(name)
    tokens, logits = reference(model, PROMPT, STEPS)
    windowed = Windowed(model, WINDOW)
    found, seen = greedy(windowed.read(PROMPT), lambda token: windowed.read([token]), STEPS)
    assert found == tokens
    torch.testing.assert_close(seen, logits, rtol=1e-3, atol=1e-4)
    assert len(set(tokens)) > 3  # a model that says one thing would agree with anything


@pytest.mark.parametrize("counting_on", [False, True])
def test_the_naive_trim_does_not(*, counting_on: bool) -> None:
    """Dropping alone, with positions in the cache or counting on, is another model's answer."""
    model = tiny_model("llama")
    tokens, _ = reference(model, PROMPT, 100)
    cache, read = DynamicCache(config=model.config), 0

    def step(token: int) -> torch.Tensor:
        nonlocal read
        held = cache.get_seq_length()
        if held == WINDOW.tokens:
            for layer in cache.layers:
                for states in ("keys", "values"):
                    given_ = getattr(layer, states)
                    first, rest = given_[:, :, : WINDOW.sink], given_[:, :, WINDOW.sink :]
                    setattr(layer, states, torch.cat((first, rest[:, :, WINDOW.chunk :]), dim=2))
            held -= WINDOW.chunk
        at = torch.tensor([[read if counting_on else held]])
        read += 1
        ids = torch.tensor([[token]])
        logits: torch.Tensor = model(input_ids=ids, position_ids=at, past_key_values=cache).logits[
            0, -1
        ]
        return logits

    for token in PROMPT:
        logits = step(token)
    found, _ = greedy(logits, step, 100)
    assert found != tokens


@pytest.mark.parametrize("name", ROTARY)
def test_one_layer_sees_what_it_would_read_anew(name: str) -> None:
    """With one layer a key depends on its token alone: the kept tokens can be read from nothing."""
    model = tiny_model(name, **one_layer(name))
    windowed, policy = Windowed(model, WINDOW), Policy()
    ids = [(5 * place * place + 11) % (VOCABULARY - 1) + 1 for place in range(100)]
    for token in ids:
        logits = windowed.read([token])
        policy.add()
        if policy.read % 10 == 0:
            anew = torch.tensor([[ids[place] for place in policy.kept]])
            expected = model(input_ids=anew, use_cache=False).logits[0, -1]
            torch.testing.assert_close(logits, expected, rtol=1e-3, atol=1e-4)


def one_layer(name: str) -> dict[str, Any]:
    """What makes a model of one layer, which attends to all."""
    if name == "gptj":
        return {"n_layer": 1}
    if name == "gemma3":
        return {"num_hidden_layers": 1, "layer_types": ["full_attention"]}
    return {"num_hidden_layers": 1}


@pytest.mark.parametrize("name", ["llama", "gemma3"])
def test_blocks_do_not_matter(name: str) -> None:
    """A prompt beyond the window is the same read in blocks of any size, or token by token."""
    model = tiny_model(name)
    prompt = (PROMPT * 4)[:180]
    expected = Windowed(model, WINDOW, block=1).read(prompt)
    for block in (3, 17, 512):
        torch.testing.assert_close(
            Windowed(model, WINDOW, block=block).read(prompt), expected, rtol=1e-3, atol=1e-4
        )


def test_up_to_the_window_nothing_changes() -> None:
    """Bitwise as without one."""
    model = tiny_model("llama")
    ids = PROMPT[: WINDOW.tokens]
    whole = model(input_ids=torch.tensor([ids])).logits[0, -1]
    assert torch.equal(Windowed(model, WINDOW).read(ids), whole)


def test_half_precision_stays_near() -> None:
    """Keys that are turned again and again in bfloat16 are as good as ones turned once."""
    model = tiny_model("llama", torch.bfloat16)
    exact = tiny_model("llama")
    windowed, anew = Windowed(model, WINDOW), Windowed(exact, WINDOW)
    prompt = (PROMPT * 8)[:400]
    found, expected = windowed.read(prompt).float(), anew.read(prompt)
    alone = model(input_ids=torch.tensor([prompt[:30]])).logits[0, -1].float()
    usual = (alone - exact(input_ids=torch.tensor([prompt[:30]])).logits[0, -1]).abs().max()
    assert (found - expected).abs().max() < 4 * usual


@pytest.mark.parametrize("name", ["llama", "gemma3", "mistral"])
def test_memory_is_what_was_stated(name: str) -> None:
    """A cache never measures more than one that was filled to the window, however long it goes."""
    model = tiny_model(name)
    filled = DynamicCache(config=model.config)
    model(input_ids=torch.tensor([PROMPT[: WINDOW.tokens]]), past_key_values=filled)
    windowed = Windowed(model, WINDOW)
    windowed.read(PROMPT * 10)
    assert windowed.most_bytes == sum(measured(filled))


def test_layers_without_positions_only_drop() -> None:
    """What a model does not rotate is not rotated either."""
    trimmer = WindowTrimmer.of(tiny_model("smollm3"), WINDOW)
    keys = torch.randn(1, 2, 20, 8)
    assert torch.equal(trimmer.moved(1, keys), keys)
    assert not torch.equal(trimmer.moved(0, keys), keys)


@pytest.mark.parametrize("tokens", [0, WINDOW.tokens - 1, WINDOW.tokens + 1])
def test_a_cache_that_is_not_full_is_not_trimmed(tokens: int) -> None:
    """It would lose what it need not, or its keys would turn too little."""
    model = tiny_model("llama")
    cache = TrimmableCache(config=model.config)
    if tokens:
        model(input_ids=torch.ones((1, tokens), dtype=torch.long), past_key_values=cache)
    with pytest.raises(ValueError, match=f"holds {tokens} tokens, not 36"):
        WindowTrimmer.of(model, WINDOW).trim(cache)


@given(tokens=st.integers(-3, 400), sink=st.integers(-3, 60))
def test_a_key_is_turned_a_few_times_at_most(*, tokens: int, sink: int) -> None:
    """And a window is refused, or leaves room after a trim."""
    try:
        window = ContextWindow(tokens=tokens, sink=sink)
    except ValueError:
        assert sink < 0 or tokens < sink + 2
        return
    assert window.chunk >= 1
    assert sink + window.chunk < tokens
    assert window.chunk * TURNS_OF_A_KEY >= tokens - sink
    assert window.room(tokens) == 0


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("gpt2", "no rotary positions"),
        ("bloom", "ALiBi"),
        ("falcon-alibi", "ALiBi"),
        ("llama-dynamic", "'dynamic'"),
        ("llama4", "chunked"),
        ("jamba", "no rotary positions"),
    ],
)
def test_models_that_cannot_are_refused(name: str, said: str) -> None:
    """By their config alone, so before any weight is loaded."""
    refusal = window_refusal(tiny_config(name))
    assert refusal is not None
    assert said in refusal
    with pytest.raises(UnsupportedWindowError, match="no context window for this model"):
        check_window(WINDOW, tiny_config(name))


@pytest.mark.parametrize("name", [*ROTARY, "smollm3", "gemma3n", "mixtral"])
def test_rotary_models_are_not(name: str) -> None:
    """Whatever scales their positions, if it does so at every length alike."""
    assert window_refusal(tiny_config(name)) is None
    check_window(WINDOW, tiny_config(name))


def test_keys_that_turn_in_an_unknown_way_are_refused() -> None:
    """Though the config says rotary: DeepSeek caches the turned part among its values."""
    assert window_refusal(tiny_config("deepseek")) is None
    with pytest.raises(UnsupportedWindowError, match="values of layer 0 depend on their positions"):
        WindowTrimmer.of(tiny_model("deepseek"), WINDOW)


def test_longrope_is_refused() -> None:
    """Its frequencies change beyond the original length."""
    rope = {
        "rope_type": "longrope",
        "rope_theta": 1e4,
        "short_factor": [1.0] * 4,
        "long_factor": [2.0] * 4,
        "original_max_position_embeddings": 64,
        "factor": 4.0,
    }
    assert "'longrope'" in str(window_refusal(tiny_config("llama", rope_parameters=rope)))


def test_a_window_beyond_the_context_is_refused() -> None:
    """Its positions would be ones that the model never saw."""
    check_window(ContextWindow(tokens=CONTEXT_TOKENS), tiny_config("llama"))
    with pytest.raises(UnsupportedWindowError, match="more than the model's context of 256"):
        check_window(ContextWindow(tokens=CONTEXT_TOKENS + 1), tiny_config("llama"))


@pytest.mark.parametrize("own", [8, 21, 100])
def test_windows_fit_to_the_layers_own(own: int) -> None:
    """A layer that slides either never does so, or has lost before what a trim drops."""
    config = tiny_config("gemma3", sliding_window=own)
    refused = []
    for tokens in range(6, CONTEXT_TOKENS + 1):
        try:
            check_window(ContextWindow(tokens=tokens), config)
        except UnsupportedWindowError as error:
            refused.append((tokens, str(error)))
    assert [tokens for tokens, _ in refused] == list(range(own, refused[-1][0] + 1))
    assert f"at most {own - 1}, or at least {refused[-1][0] + 1}" in refused[0][1]
    model = tiny_model("gemma3", sliding_window=own)
    for tokens in (own - 1, refused[-1][0] + 1):
        window = ContextWindow(tokens=tokens)
        Windowed(model, window).read(PROMPT * 3)
