"""Decoding of several sequences in one pass of the model: more tokens a second, not the same bits.

Theory of operation: a generation asks for the pass that reads its token, gives up its turn, and
collects the answer at its next one. The first of a round to collect makes one pass for all that
have asked. A sequence has a row of the batch's keys and values, of positions from 0 on, and an
additive mask hides what is behind its end; so sequences of any lengths meet, and none is moved.

For models all of whose layers attend to everything, and whose attention takes a mask of its own:
`works_with` tries. Must not know requests. Of the engine's thread alone.

Invariants
1. Rows 0 to `len(_seats) - 1` are taken, and by position nothing beyond a sequence's end is read.
2. Lengths change only after a pass that succeeded: one that raised can be made again without who
   asked for it.
3. With no sequences there is no memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import torch
from transformers.cache_utils import Cache, CacheLayerMixin

if TYPE_CHECKING:
    from origin.engine.causal_model import CausalModel, State

_SPARE: Final = 256
"""Positions by which the rows grow."""
_LIKE_ALONE: Final = 0.05
"""How far off a trial's logits may be, in their own standard deviations: arithmetic's noise, of
bfloat16 too, is below it, a mask or position that is not heeded far above."""


@dataclass(eq=False, slots=True)
class _Seat:
    """A sequence of the batch: how many tokens its row holds, and the one it asks to be read."""

    state: State
    tokens: int
    wanted: int | None = None


class DecodeBatch:
    """The sequences of one model that are decoded together."""

    def __init__(self, model: CausalModel) -> None:
        self._model = model
        self._seats: list[_Seat] = []
        """By row."""
        self._rows = _Rows(0 if model.layout is None else len(model.layout.windows))

    def ask(self, state: State, token: int) -> None:
        """Ask for the pass that reads a token. The first time the batch takes the sequence over."""
        seat = self._seat(state)
        if seat is None:
            seat = _Seat(state, state.cache.tokens)
            self._rows.add(len(self._seats), state.cache)
            self._seats.append(seat)
            state.cache = None
        seat.wanted = token

    def collect(self, state: State) -> None:
        """Have `state.logits` those after the token that was asked for."""
        seat = self._seat(state)
        if seat is not None and seat.wanted is not None:
            self._pass()

    def leave(self, state: State) -> None:
        """Let go of a sequence; of one that is not here, nothing."""
        seat = self._seat(state)
        if seat is not None:
            row, last = self._seats.index(seat), self._seats.pop()
            if last is not seat:
                self._seats[row] = last
                self._rows.move(len(self._seats), row, last.tokens)
            if not self._seats:
                self._rows.clear()

    def _seat(self, state: State) -> _Seat | None:
        return next((seat for seat in self._seats if seat.state is state), None)

    def _pass(self) -> None:
        """One pass: a token each. Who has not asked is given any, and forgets it again."""
        lengths = [seat.tokens for seat in self._seats]
        tokens = [seat.wanted or 0 for seat in self._seats]
        self._rows.begin(lengths)
        logits = self._model.read_together(self._rows, tokens, lengths)
        for row, seat in enumerate(self._seats):
            if seat.wanted is not None:
                seat.state.logits = logits[row]
                seat.wanted = None
                seat.tokens += 1


class _Rows(Cache):
    """The keys and values of all rows, as the model asks for them."""

    layers: list[_RowsLayer]  # type: ignore[assignment]  # a list of theirs would do as well

    def __init__(self, layers: int) -> None:
        super().__init__(layers=[_RowsLayer() for _ in range(layers)])

    def add(self, row: int, cache: Any) -> None:
        """Copy what one sequence's cache holds."""
        for layer, given in zip(self.layers, cache.layers, strict=True):
            layer.put(row, given.keys, given.values)

    def begin(self, lengths: list[int]) -> None:
        """Make room for a token in each row, after so many."""
        for layer in self.layers:
            layer.lengths = lengths
            layer.grow(len(lengths), max(lengths) + 1)

    def move(self, row: int, to: int, tokens: int) -> None:
        """Copy a row's first tokens to another one."""
        for layer in self.layers:
            for held in (layer.keys, layer.values):
                assert held is not None  # noqa: S101 -- there are rows
                held[to, :, :tokens] = held[row, :, :tokens]

    def clear(self) -> None:
        """Free all."""
        for layer in self.layers:
            layer.keys = layer.values = None


class _RowsLayer(CacheLayerMixin):  # type: ignore[no-untyped-call]  # theirs
    """One layer: shape [rows, heads, positions, dim], some of them spare."""

    is_sliding = False

    def __init__(self) -> None:
        self.keys: torch.Tensor | None = None
        self.values: torch.Tensor | None = None
        self.is_initialized = True
        self.lengths: list[int] = []

    def put(self, row: int, keys: torch.Tensor, values: torch.Tensor) -> None:
        """Write a sequence, shape [1, heads, tokens, dim], into a row."""
        tokens = keys.shape[2]
        self._reserve(row + 1, tokens, keys, values)
        assert self.keys is not None  # noqa: S101 -- just reserved
        assert self.values is not None  # noqa: S101
        self.keys[row, :, :tokens] = keys[0]
        self.values[row, :, :tokens] = values[0]

    def grow(self, rows: int, positions: int) -> None:
        """Have room for so many positions."""
        assert self.keys is not None  # noqa: S101 -- there are rows
        assert self.values is not None  # noqa: S101
        self._reserve(rows, positions, self.keys, self.values)

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_args: Any, **_options: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Add a token's to each row; return all rows up to the longest."""
        assert self.keys is not None  # noqa: S101 -- `_Rows.begin`
        assert self.values is not None  # noqa: S101
        rows, end = len(self.lengths), max(self.lengths) + 1
        for row, at in enumerate(self.lengths):
            self.keys[row, :, at] = key_states[row, :, 0]
            self.values[row, :, at] = value_states[row, :, 0]
        return self.keys[:rows, :, :end], self.values[:rows, :, :end]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """How many positions `update` will return, and the first of them."""
        return self.get_seq_length() + query_length, 0

    def get_seq_length(self) -> int:
        """Of the longest row."""
        return max(self.lengths, default=0)

    def get_max_length(self) -> int:
        """There is none."""
        return -1

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Nothing: `put` makes what it needs."""

    def _reserve(self, rows: int, positions: int, keys: torch.Tensor, values: torch.Tensor) -> None:
        if self.keys is not None and (
            rows <= self.keys.shape[0] and positions <= self.keys.shape[2]
        ):
            return
        if self.keys is not None:
            rows = max(rows, self.keys.shape[0])
            positions = max(positions, self.keys.shape[2])
        capacity = -(-positions // _SPARE) * _SPARE
        self.keys = _larger(self.keys, rows, capacity, keys)
        self.values = _larger(self.values, rows, capacity, values)


def works_with(model: CausalModel) -> bool:
    """Whether a model says the same of sequences read together, but for arithmetic's noise."""
    if model.layout is None or model.layout.slides:
        return False
    prompts = ([1, 2, 3, 4, 5, 6, 7], [3, 1])
    with torch.inference_mode():
        alone = []
        batch = DecodeBatch(model)
        states = []
        for ids in prompts:
            state = model.begin()
            model.read(state, [token % model.vocabulary for token in ids])
            states.append(state)
            twin = model.decoding(state, last=False)
            alone.append(model.read(twin, [0]).float())
        try:
            for state in states:
                batch.ask(state, 0)
            batch.collect(states[0])
        except (RuntimeError, ValueError, TypeError, NotImplementedError, IndexError):
            return False
    return all(
        state.logits is not None
        and (state.logits.float() - one).abs().max() <= _LIKE_ALONE * one.std()
        for state, one in zip(states, alone, strict=True)
    )


def _larger(
    held: torch.Tensor | None, rows: int, positions: int, like: torch.Tensor
) -> torch.Tensor:
    """A tensor of so many rows and positions that begins with what is held; zeros elsewhere."""
    # Not uninitialised memory: what a mask hides must still be a number.
    larger = like.new_zeros((rows, like.shape[1], positions, like.shape[3]))
    if held is not None:
        larger[: held.shape[0], :, : held.shape[2]] = held
    return larger
