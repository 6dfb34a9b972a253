"""Keys for which something is not tried again at once."""

from __future__ import annotations

from collections.abc import Callable

MAX_WAITS = 10_000


class Waits:
    """Which keys still wait, by `clock_ms`. All are forgotten when `MAX_WAITS` are known.

    A clock that was ahead, or is set back, makes none wait for longer than it was told to.
    """

    def __init__(self, clock_ms: Callable[[], int]) -> None:
        self._clock_ms = clock_ms
        self._times_ms: dict[str, tuple[int, int]] = {}
        """By key: when it was told to wait, and until when."""

    def is_over(self, key: str) -> bool:
        """Whether `key` does not wait, or not any more."""
        began_ms, ends_ms = self._times_ms.get(key, (0, 0))
        return not began_ms <= self._clock_ms() < ends_ms

    def begin(self, key: str, wait_ms: int) -> None:
        """Let `key` wait from now on."""
        if len(self._times_ms) >= MAX_WAITS:
            self._times_ms.clear()
        now_ms = self._clock_ms()
        self._times_ms[key] = now_ms, now_ms + wait_ms

    def end(self, key: str) -> None:
        """Let `key` wait no more."""
        self._times_ms.pop(key, None)
