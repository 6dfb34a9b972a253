"""Generation without end in bounded memory: the first tokens and the last are kept.

Theory of operation (Xiao et al. 2023, "Efficient Streaming Language Models with Attention
Sinks"): a cache holds at most `tokens` tokens. When it is full, the oldest after the first `sink`
go, `chunk` of them at a time, and what stays moves up: positions are those within the cache, so
its keys are rotated to their new positions. Dropping without that rotation puts every token at a
wrong distance; letting positions count on leaves the range that the model was trained for.

    held before   [0 .. sink) [sink .. sink+chunk) [sink+chunk .......... tokens)
    held after    [0 .. sink)                      [sink .. tokens-chunk)

Layers that slide by themselves keep doing so: they hold their own last tokens, no sink, and only
move up. Layers without positions only drop.

What this must not know: requests, prompts, when a forward pass is due.

Invariants
1. A trim happens when exactly `tokens` are held, and no forward pass may read more than `room`.
   So trims fall on fixed absolute positions (tokens, tokens+chunk, tokens+2*chunk, ...), whatever
   blocks a prompt is read in, and a token sees the same whether it was prefilled or decoded.
2. Before the first trim all is as without a window. After it the cache is no prefix of anything.
3. A key is rotated anew at most `TURNS_OF_A_KEY` times before it goes, so rounding stays small
   in bfloat16 too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Protocol

import torch
from transformers import DynamicCache
from transformers.cache_utils import DummyLayer, DynamicLayer, DynamicSlidingWindowLayer

from origin.engine.kv_size import context_tokens
from origin.engine.rotary import Turn, UnsupportedRopeError, ropes_of

TURNS_OF_A_KEY: Final = 8
# Rotary positions whose frequencies are the same at every length.
_CONSTANT_ROPES: Final = ("default", "linear", "llama3", "yarn", "proportional")
_KNOWN_LAYERS: Final = (DynamicLayer, DynamicSlidingWindowLayer, DummyLayer)


class UnsupportedWindowError(ValueError):
    """The model cannot generate in this window. The message is one line and says why."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ContextWindow:
    """How much is held: at most `tokens`, of which the first `sink` never go.

    Raises ValueError where nothing but the sink would fit.
    """

    tokens: int
    sink: int = 4

    def __post_init__(self) -> None:
        if self.sink < 0:
            raise ValueError(f"a sink of {self.sink} tokens: it is not negative")
        if self.tokens < self.sink + 2:
            raise ValueError(
                f"a window of {self.tokens} tokens: too small for a sink of {self.sink}"
            )

    @property
    def chunk(self) -> int:
        """How many tokens a trim drops: enough that trims are rare, few of what is seen."""
        return -(-(self.tokens - self.sink) // TURNS_OF_A_KEY)

    def room(self, held: int) -> int:
        """How many tokens the next forward pass may read; 0: trim first."""
        return self.tokens - held


def window_refusal(config: Any) -> str | None:
    """Why no model of this config can generate in a context window; None where it can."""
    text = config.get_text_config(decoder=True)
    kind = config.model_type
    if getattr(text, "alibi", False) or kind in ("bloom", "mpt"):
        return f"{kind} has ALiBi positions, not rotary ones"
    parameters = getattr(text, "rope_parameters", None)
    if not parameters and not getattr(text, "rotary_dim", None):
        return f"{kind} has no rotary positions: it cannot go beyond the positions it has learned"
    for rope_type in sorted(_rope_types(parameters or {})):
        if rope_type not in _CONSTANT_ROPES:
            return f"its rotary positions are of type {rope_type!r}: they change with the length"
    try:
        layers = DynamicCache(config=config).layers
    except (AttributeError, KeyError, ValueError) as error:  # of a kind that only its model knows
        return f"its layers cannot be told ({type(error).__name__})"
    for index, layer in enumerate(layers):
        if type(layer) not in _KNOWN_LAYERS:
            return f"layer {index} has a {type(layer).__name__}, which cannot be trimmed"
    if "chunked_attention" in (getattr(text, "layer_types", None) or ()):
        return "its attention is chunked at absolute positions"
    return None


def check_window(window: ContextWindow, config: Any) -> None:
    """Raise UnsupportedWindowError where a model of this config cannot generate in `window`."""
    refusal = window_refusal(config)
    if refusal is not None:
        raise UnsupportedWindowError(f"no context window for this model: {refusal}")
    limit = context_tokens(config.get_text_config(decoder=True))
    if limit is not None and window.tokens > limit:
        raise UnsupportedWindowError(
            f"a window of {window.tokens} tokens is more than the model's context of {limit}"
        )
    for layer in DynamicCache(config=config).layers:
        if type(layer) is not DynamicSlidingWindowLayer:
            continue
        # What a trim drops must have left a layer that slides, or else it never slides.
        held = layer.sliding_window - 1
        if window.tokens - window.chunk - window.sink < held < window.tokens:
            raise UnsupportedWindowError(
                f"a window of {window.tokens} tokens: layers of this model slide over "
                f"{layer.sliding_window}; take at most {held}, or at least "
                f"{_smallest_beyond(held, window.sink)}"
            )


class Trimmable(Protocol):
    """A cache that can be trimmed."""

    @property
    def tokens(self) -> int:
        """How many tokens are held: the position of the next one."""

    def keep(
        self, first: int, last: int, moved: Callable[[int, torch.Tensor], torch.Tensor]
    ) -> None:
        """Forget all but the first and the last tokens, which close up.

        `moved(layer, keys)` returns the keys of the last tokens at their new positions. A layer
        that slides by itself keeps what it has of the last ones.
        """


class WindowTrimmer:
    """Trims the caches of one model. Made by `of`; of any thread, since it changes only caches."""

    def __init__(self, window: ContextWindow, turns: tuple[Turn | None, ...]) -> None:
        self.window = window
        self._turns = turns

    @classmethod
    def of(cls, model: Any, window: ContextWindow) -> WindowTrimmer:
        """Check and prepare a loaded model: it reads some single tokens.

        Raises UnsupportedWindowError.
        """
        check_window(window, model.config)
        try:
            ropes = ropes_of(model, positions=(1, window.tokens - 1))
        except UnsupportedRopeError as error:
            raise UnsupportedWindowError(f"no context window for this model: {error}") from error
        kept = torch.arange(window.sink + window.chunk, window.tokens)
        made: dict[int, Turn] = {}
        turns: list[Turn | None] = []
        for rope in ropes:
            if rope is None:
                turns.append(None)
                continue
            if id(rope) not in made:
                at = kept.to(rope.frequencies.device)
                made[id(rope)] = rope.turn(at, at - window.chunk)
            turns.append(made[id(rope)])
        return cls(window, tuple(turns))

    def trim(self, cache: Trimmable) -> None:
        """Drop what has to go from a full cache. Raises ValueError where it is not full."""
        window = self.window
        if cache.tokens != window.tokens:
            raise ValueError(f"the cache holds {cache.tokens} tokens, not {window.tokens}")
        last = window.tokens - window.sink - window.chunk
        cache.keep(window.sink, last, self.moved)

    def moved(self, layer: int, keys: torch.Tensor) -> torch.Tensor:
        """The keys of a full cache's last tokens as they are where a trim puts them.

        Shape: [.., tokens, head_dim]; fewer tokens than are kept where the layer slides by itself.
        """
        turn = self._turns[layer]
        if turn is None:
            return keys
        return turn.last(keys.shape[-2]).to(keys.device)(keys)


def _rope_types(parameters: dict[str, Any]) -> set[str]:
    """The types of rotary positions: of all layers, or by the layers' type."""
    if "rope_type" in parameters:
        return {parameters["rope_type"]}
    return {
        each["rope_type"]
        for each in parameters.values()
        if isinstance(each, dict) and "rope_type" in each
    }


def _smallest_beyond(held: int, sink: int) -> int:
    """The smallest window whose trims drop only what a layer that holds `held` no longer has."""
    tokens = held + sink + 1
    while tokens - ContextWindow(tokens=tokens, sink=sink).chunk - sink < held:
        tokens += 1
    return tokens
