"""Where a prompt is cut for prefill, and so where its prefixes may be reused: at fixed positions.

A block between two cuts is one forward pass, whether the blocks before it were computed or found.
Must not know: models, caches, what a block costs.

Invariants
1. A cut depends on its position alone, never on the prompt's length or content.
2. Position 0 is a cut, and there is always a next one.
"""

from __future__ import annotations

from dataclasses import dataclass

STEPS = ((0, 64), (1024, 128), (2048, 256))
"""From which position on, a cut every how many tokens: small first, so that a short system prompt
is reused; larger later, so that a long prefill costs little more than an uncut one."""


@dataclass(frozen=True)
class Cuts:
    """A schedule of cuts; rows of `steps` are (first position, tokens a step), ascending from 0."""

    steps: tuple[tuple[int, int], ...] = STEPS

    def __post_init__(self) -> None:
        """Refuse steps that do not meet (ValueError): each row must end where the next begins."""
        starts = [start for start, _ in self.steps]
        if not starts or starts[0] != 0 or any(step < 1 for _, step in self.steps):
            raise ValueError(f"steps: begin at 0, of one token or more, not {self.steps!r}")
        for (start, step), end in zip(self.steps, starts[1:], strict=False):
            if end <= start or (end - start) % step:
                raise ValueError(f"steps: {end} is not a whole number of {step} beyond {start}")

    @property
    def identity(self) -> str:
        """What tells this schedule from any other: part of a prefix's identity."""
        return ",".join(f"{start}:{step}" for start, step in self.steps)

    def next(self, position: int) -> int:
        """The first cut beyond a position."""
        start, step = self._row(position)
        return position - (position - start) % step + step

    def floor(self, position: int) -> int:
        """The last cut at or before a position."""
        start, step = self._row(position)
        return position - (position - start) % step

    def _row(self, position: int) -> tuple[int, int]:
        for row in reversed(self.steps):
            if row[0] <= position:
                return row
        raise ValueError(f"position: {position} lies before 0")
