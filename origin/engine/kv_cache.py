"""The keys and values (K/V) of one sequence in a causal model: resumed from blocks, cut into them.

Theory of operation: `KvCache` is what a model of transformers takes as `past_key_values`. It begins
with the blocks of a known prefix, held by reference. The first forward pass joins them and its own
K/V in one copy a layer; every later one joins what is there and its own. After `reserve`, for
decoding, new K/V are written behind the old ones in a buffer that grows, so that a token costs no
copy of the sequence. `KvBlock` is a copy of what one forward pass added: what a prefix tree keeps.

This module does not know token ids, trees, limits or schedules.

A position is the index of a token in its sequence. Every tensor is [1, heads, positions, dim].

Invariants
1. Before `reserve` every pass sees contiguous K/V, whether they were computed here or come from
   blocks; after it, strides that follow from positions and reserved tokens. So a pass over the same
   tokens with the same cuts gives the same bits, cold and warm.
2. What has been written at a position is never overwritten in the same storage: a block never
   changes, and a fork may share what is older than it.
3. A sliding layer holds at least the `window - 1` tokens before the last pass and all of its own.

Not thread-safe. A cache whose forward pass raised is to be thrown away.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, Self

import torch
from transformers import DynamicCache, PreTrainedConfig, PreTrainedModel
from transformers.cache_utils import (
    Cache,
    CacheLayerMixin,
    DynamicLayer,
    DynamicSlidingWindowLayer,
)

# Buffers grow by so many positions at least: the rows of every head then begin on a 64-byte line.
_STEP: Final = 64


class UnsupportedCacheError(Exception):
    """The model cannot be resumed from keys and values alone. `reason` completes "because"."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"The model's prefixes cannot be cached because {reason}.")
        self.reason = reason


@dataclass(frozen=True, slots=True)
class KvLayout:
    """What a layer attends to: everything (None), or the last `window` tokens, own included."""

    windows: tuple[int | None, ...]

    @classmethod
    def of(cls, model: PreTrainedModel | PreTrainedConfig) -> Self:
        """The layout of a model, as transformers' own dynamic cache derives it from the config.

        Raises UnsupportedCacheError where a layer keeps anything but keys and values of its own.
        """
        config = model if isinstance(model, PreTrainedConfig) else model.config
        if getattr(config, "is_encoder_decoder", False):
            raise UnsupportedCacheError("it has an encoder")
        if model is not config and not _takes_cache(model):
            raise UnsupportedCacheError("its forward pass takes no keys and values")
        try:
            layers = DynamicCache(config=config).layers
        except (KeyError, AttributeError, TypeError, ValueError) as error:
            raise UnsupportedCacheError("transformers has no cache for its layers") from error
        return cls(tuple(_window(index, layer) for index, layer in enumerate(layers)))

    @property
    def slides(self) -> bool:
        """Whether any layer has a window."""
        return any(window is not None for window in self.windows)


def _takes_cache(model: Any) -> bool:
    is_stateful = getattr(model, "_is_stateful", False)
    return not is_stateful and "past_key_values" in inspect.signature(model.forward).parameters


def _window(index: int, layer: object) -> int | None:
    if type(layer) is DynamicLayer:
        return None
    if type(layer) is DynamicSlidingWindowLayer:
        return int(layer.sliding_window)
    raise UnsupportedCacheError(f"layer {index} is neither full nor sliding attention")


@dataclass(frozen=True, eq=False)
class KvBlock:
    """The K/V of successive tokens: a pair a layer, contiguous, with storage of their own."""

    layers: tuple[tuple[torch.Tensor, torch.Tensor], ...]

    @cached_property
    def tokens(self) -> int:
        """How many tokens it holds."""
        return self.layers[0][0].shape[2]

    @cached_property
    def size_bytes(self) -> int:
        """The bytes of its storages."""
        return _storage_bytes(tensor for pair in self.layers for tensor in pair)

    def head(self, tokens: int) -> KvBlock:
        """A copy of the first `tokens`."""
        return self._copy(0, tokens)

    def tail(self, tokens: int) -> KvBlock:
        """A copy of all after the first `tokens`."""
        return self._copy(tokens, self.tokens)

    def _copy(self, start: int, end: int) -> KvBlock:
        if not 0 <= start < end <= self.tokens:
            raise ValueError(f"no tokens {start} to {end} in a block of {self.tokens}")
        return KvBlock(
            tuple(
                (_copied(k[:, :, start:end]), _copied(v[:, :, start:end])) for k, v in self.layers
            )
        )


class KvCache(Cache):
    """The K/V of one sequence; `past_key_values` of a model with this layout."""

    layers: list[_KvLayer]  # type: ignore[assignment]  # a list of theirs would do as well

    def __init__(self, layout: KvLayout, parts: Sequence[tuple[KvBlock, int]] = ()) -> None:
        """Begin with `parts`: blocks in order, and how many first tokens of each. Copies nothing.

        The blocks are held until the first forward pass. Raises ValueError where they do not fit.
        """
        for block, tokens in parts:
            if not 0 < tokens <= block.tokens or len(block.layers) != len(layout.windows):
                raise ValueError(
                    f"{tokens} tokens of a block of {block.tokens} tokens, {len(block.layers)} "
                    f"layers do not fit a cache of {len(layout.windows)} layers"
                )
        seen = sum(tokens for _, tokens in parts)
        super().__init__(
            layers=[_KvLayer(i, window, parts, seen) for i, window in enumerate(layout.windows)]
        )
        self.layout = layout

    @property
    def tokens(self) -> int:
        """How many tokens of the sequence have been read; the position of the next one."""
        return self.layers[0].end

    @property
    def size_bytes(self) -> int:
        """The bytes of the storages held, spare room included; blocks not yet joined are not."""
        return _storage_bytes(
            tensor
            for layer in self.layers
            for tensor in (layer.keys, layer.values)
            if tensor is not None
        )

    @property
    def token_bytes(self) -> int:
        """What one token takes in a block. Known once a forward pass has been."""
        return sum(
            tensor.shape[1] * tensor.shape[3] * tensor.element_size()
            for layer in self.layers
            for tensor in (layer.keys, layer.values)
            if tensor is not None
        )

    def block(self, start: int, end: int) -> KvBlock:
        """A copy of positions `start` to `end`, which the last forward pass added.

        Older positions will do as long as every layer still holds them; else ValueError.
        """
        return KvBlock(tuple(layer.copied(start, end) for layer in self.layers))

    def reserve(self, tokens: int = 1) -> None:
        """Let coming passes write into a growing buffer, which has room for `tokens` at first."""
        for layer in self.layers:
            layer.reserved = layer.end + max(1, tokens)

    def fork(self) -> KvCache:
        """Another cache that continues the same sequence, independent of this one. Copies nothing.

        What both have is shared until either is next extended.
        """
        twin = KvCache(self.layout)
        twin.layers = [layer.fork() for layer in self.layers]
        return twin

    def crop(self, tokens_to_remove: int) -> None:
        """Forget the last tokens: `-tokens_to_remove` of them, a sign that is transformers'.

        Raises ValueError where there are not so many, or a sliding layer has let go of what came
        before them; the tokens of the last forward pass can always be forgotten.
        """
        if tokens_to_remove > 0:
            raise ValueError("the number of tokens to remove is given as a negative number")
        for layer in self.layers:
            layer.check_crop(-tokens_to_remove)
        for layer in self.layers:
            layer.crop(tokens_to_remove)

    def keep(
        self,
        first: int,
        last: int,
        moved: Callable[[int, torch.Tensor], torch.Tensor] = lambda _, keys: keys,
    ) -> None:
        """Forget all but the `first` and the `last` tokens, which close up: `tokens` shrinks.

        `moved(layer, keys)` returns the keys of the last tokens as they are at their new positions,
        `tokens - first - last` below the old ones: what a rotary model needs. Raises ValueError
        where there are not so many tokens, UnsupportedCacheError where a layer slides.
        """
        if self.layout.slides:
            raise UnsupportedCacheError("a layer with a window of its own lets go of first tokens")
        if first < 0 or last < 1 or first + last > self.tokens:
            raise ValueError(f"no {first} first and {last} last in {self.tokens} tokens")
        for layer in self.layers:
            layer.keep(first, last, moved)


class _KvLayer(CacheLayerMixin):  # type: ignore[no-untyped-call]  # theirs
    """One layer: `keys` and `values` of positions `first` to `end`, or None and `parts`.

    They are all of a contiguous tensor, or a view of a buffer of positions from `base` on.
    """

    is_croppable = True

    def __init__(
        self, index: int, window: int | None, parts: Sequence[tuple[KvBlock, int]], seen: int
    ) -> None:
        self.keys: torch.Tensor | None = None
        self.values: torch.Tensor | None = None
        self.is_initialized = True  # transformers has nothing to prepare
        self.is_sliding = window is not None
        self.index = index
        self.window = window
        self.parts = parts
        self.first = 0
        self.end = seen
        self.reserved = 0  # positions a buffer should have room for; 0: no buffer
        self.base = 0
        self.buffers: tuple[torch.Tensor, torch.Tensor] | None = None

    def update(
        self,
        key_states: torch.Tensor,
        value_states: torch.Tensor,
        *_args: Any,
        **_options: Any,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Add the K/V of new tokens; return those they may attend to, their own included."""
        if key_states.shape[0] != 1:
            raise ValueError(f"a cache of one sequence, not of {key_states.shape[0]}")
        visible = self._visible()
        if self.reserved:
            self._write(visible, key_states, value_states)
        else:
            past_keys, past_values = self._past(visible)
            self.keys = _joined([*past_keys, key_states])
            self.values = _joined([*past_values, value_states])
            self.first = visible
        self.parts = ()
        self.end += key_states.shape[2]
        assert self.keys is not None  # noqa: S101 -- just written
        assert self.values is not None  # noqa: S101
        skipped = visible - self.first
        return self.keys[:, :, skipped:], self.values[:, :, skipped:]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """How many positions `update` will return for so many new tokens, and the first of them."""
        visible = self._visible()
        return self.end - visible + query_length, visible

    def get_seq_length(self) -> int:
        """How many tokens have been read."""
        return self.end

    def get_max_length(self) -> int:
        """The window; -1 where there is none."""
        return -1 if self.window is None else self.window

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Nothing: `update` makes what it needs."""

    def copied(self, start: int, end: int) -> tuple[torch.Tensor, torch.Tensor]:
        """A contiguous copy of positions `start` to `end`. Raises ValueError where not held."""
        if self.keys is None or self.values is None or not self.first <= start < end <= self.end:
            raise ValueError(f"layer {self.index} does not hold positions {start} to {end}")
        held = slice(start - self.first, end - self.first)
        return _copied(self.keys[:, :, held]), _copied(self.values[:, :, held])

    def fork(self) -> _KvLayer:
        """A layer that shares what is held, and writes into storage of its own."""
        twin = _KvLayer(self.index, self.window, self.parts, self.end)
        twin.keys, twin.values = self.keys, self.values
        twin.first, twin.reserved = self.first, self.reserved
        return twin

    def check_crop(self, tokens: int) -> None:
        """Raise ValueError where the last `tokens` cannot be forgotten."""
        left = self.end - tokens
        if tokens and (self.keys is None or left < 0 or self.first > self._visible(left)):
            raise ValueError(f"layer {self.index} cannot forget its last {tokens} tokens")

    def crop(self, tokens_to_remove: int) -> None:
        """Forget the last `-tokens_to_remove` tokens, which `check_crop` allows."""
        if not tokens_to_remove:
            return
        self.end += tokens_to_remove
        self._hold(slice(0, self.end - self.first))

    def keep(
        self, first: int, last: int, moved: Callable[[int, torch.Tensor], torch.Tensor]
    ) -> None:
        """Forget all but the first and last tokens; see `KvCache.keep`."""
        past_keys, past_values = self._past(0)
        keys, values = _joined(past_keys), _joined(past_values)
        tail = self.end - last
        self.keys = _joined([keys[:, :, :first], moved(self.index, keys[:, :, tail:])])
        self.values = _joined([values[:, :, :first], values[:, :, tail:]])
        self.parts, self.buffers = (), None
        self.end = first + last

    def _visible(self, position: int | None = None) -> int:
        """The first position that a token at `position`, the next by default, attends to."""
        position = self.end if position is None else position
        return 0 if self.window is None else max(0, position - self.window + 1)

    def _past(self, visible: int) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """The keys and the values of positions `visible` to `end`, in order."""
        if self.keys is not None and self.values is not None:
            skipped = visible - self.first
            return [self.keys[:, :, skipped:]], [self.values[:, :, skipped:]]
        keys, values = [], []
        start = 0
        for block, tokens in self.parts:
            if start + tokens > visible:
                used = slice(max(0, visible - start), tokens)
                key, value = block.layers[self.index]
                keys.append(key[:, :, used])
                values.append(value[:, :, used])
            start += tokens
        return keys, values

    def _write(self, visible: int, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Write new tokens into the buffers, which move or grow where they must."""
        start, end = self.end, self.end + key_states.shape[2]
        # A full layer's buffer begins at 0; a sliding one's moves on in steps, which are rare.
        base = 0 if self.window is None else visible // _step(self.window) * _step(self.window)
        if self.buffers is None or self.base != base or end - base > self.buffers[0].shape[2]:
            wanted = max(end, self.reserved) if self.window is None else end
            past_keys, past_values = self._past(visible)
            self.buffers = (
                _buffer(key_states, _capacity(wanted - base), past_keys, visible - base),
                _buffer(value_states, _capacity(wanted - base), past_values, visible - base),
            )
            self.base, self.first = base, visible
        keys, values = self.buffers
        keys[:, :, start - base : end - base] = key_states
        values[:, :, start - base : end - base] = value_states
        self.keys = keys[:, :, self.first - base : end - base]
        self.values = values[:, :, self.first - base : end - base]

    def _hold(self, kept: slice) -> None:
        """Hold a range only, and no longer write behind it: a fork may share what follows."""
        assert self.keys is not None  # noqa: S101 -- `check_crop`
        assert self.values is not None  # noqa: S101
        self.keys, self.values = self.keys[:, :, kept], self.values[:, :, kept]
        self.buffers = None


def _joined(pieces: Sequence[torch.Tensor]) -> torch.Tensor:
    """A contiguous tensor of its own storage."""
    if len(pieces) == 1:
        return _copied(pieces[0])
    return torch.cat(list(pieces), dim=2).contiguous()


def _copied(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.clone(memory_format=torch.contiguous_format)


def _buffer(
    like: torch.Tensor, capacity: int, past: Sequence[torch.Tensor], at: int
) -> torch.Tensor:
    """An uninitialised buffer of `capacity` positions with `past` written from `at` on."""
    buffer = like.new_empty((1, like.shape[1], capacity, like.shape[3]))
    for piece in past:
        buffer[:, :, at : at + piece.shape[2]] = piece
        at += piece.shape[2]
    return buffer


def _capacity(positions: int) -> int:
    """Room for `positions`, with at most an eighth (or 63) to spare."""
    step = _step(positions)
    return -(-positions // step) * step


def _step(positions: int) -> int:
    """The largest power of two that is at most an eighth of `positions`; at least `_STEP`."""
    return max(_STEP, 1 << max(0, positions.bit_length() - 4))


def _storage_bytes(tensors: Iterable[torch.Tensor]) -> int:
    """The bytes of the storages behind `tensors`, each counted once."""
    storages = (tensor.untyped_storage() for tensor in tensors)
    return sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())
