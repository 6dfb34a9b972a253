"""How an origin process goes: what it still owes, and for how long.

First it says that it goes (`/readyz` is 503, every answer closes its connection) and goes on
answering for the drain, so that whoever spreads requests turns away from it in time. Then it takes
no more, and finishes what it has begun: no answer is due later than the request deadline. What
follows, closing the parts, has a time of its own. Whoever stops it (a supervisor, systemd, an
orchestrator) has to wait for all three together.

It knows times and one flag, nothing of servers or signals.
"""

from __future__ import annotations

from dataclasses import dataclass

CLOSING_S = 15.0
"""For what is left to write (10 s at most, where Redis was away) and the parts' ends."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Patience:
    """Seconds for each step of the way out, none negative."""

    drain_s: float
    finish_s: float

    @property
    def total_s(self) -> float:
        """After so long it may be killed: nothing is owed any more."""
        return self.drain_s + self.finish_s + CLOSING_S


class Departure:
    """Whether this process is going. Set once, from a signal handler too; read by everyone."""

    def __init__(self) -> None:
        self.has_begun = False

    def begin(self) -> None:
        """Say that it goes."""
        self.has_begun = True
