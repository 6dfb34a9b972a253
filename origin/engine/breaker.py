"""A circuit breaker: an upstream that fails again and again is left alone for a while.

Closed, every request goes. After some failures in a row it is open: none goes. After a pause one
request goes as a probe, and after each further pause another, until one is answered. The first
pause is short, for most failures are; each is twice the one before, up to a longest one.

Ours, because none of the libraries does that for asyncio: purgatory and circuitbreaker let every
request through once half open, a stampede onto an upstream that is just getting up; pybreaker's
coroutines are Tornado's; aiobreaker's last release is of 2021. A probe that is cancelled needs no
care here: it took its turn, and the next one comes a pause later.
"""

from __future__ import annotations

import time
from collections.abc import Callable

FAILURES = 5
FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 10.0


class Breaker:
    """One per upstream. No method waits; all are called on one event loop."""

    def __init__(
        self,
        *,
        failures: int = FAILURES,
        first_pause_s: float = FIRST_PAUSE_S,
        longest_pause_s: float = LONGEST_PAUSE_S,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """Opens at `failures` in a row; then at most one request goes in each pause."""
        self._limit = failures
        self._first_pause_s = first_pause_s
        self._longest_pause_s = longest_pause_s
        self._clock_s = clock_s
        self._failures = 0
        self._pause_s = first_pause_s
        self._next_s = 0.0

    @property
    def wait_s(self) -> float:
        """Seconds until a request may go, 0 where one may go now. Changes nothing."""
        if self._failures < self._limit:
            return 0.0
        return max(0.0, self._next_s - self._clock_s())

    def admit(self) -> float:
        """Take leave to send a request: 0 where it may go, else the seconds until one may."""
        wait_s = self.wait_s
        if not wait_s and self._failures >= self._limit:
            self._pause_s = min(2 * self._pause_s, self._longest_pause_s)
            self._next_s = self._clock_s() + self._pause_s
        return wait_s

    def succeeded(self) -> None:
        """The upstream answered."""
        self._failures = 0

    def failed(self) -> None:
        """It did not. What was under way when the breaker opened does not prolong the pause."""
        self._failures += 1
        if self._failures == self._limit:
            self._pause_s = self._first_pause_s
            self._next_s = self._clock_s() + self._pause_s
