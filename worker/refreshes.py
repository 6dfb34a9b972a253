"""When an entry that was served stale may be asked for again behind an answer.

A hot entry is asked for often, the platform ends what runs behind an answer without a word, and KV
goes on showing an old entry for a while after a new one was written. So this isolate remembers, for
each key, when its next refresh may begin. Pure: it is told the time, in seconds of
`time.monotonic`.
"""

from __future__ import annotations

from dataclasses import dataclass

IN_FLIGHT_S = 30.0
"""The longest a refresh can take: the platform ends what runs behind an answer then."""
FIRST_PAUSE_S = 0.2
"""After one that found the new entry not made yet; doubled each time, for each one fetches the old
entry whole."""
LONGEST_PAUSE_S = 10.0
"""The most of that, and what follows a failure."""
NEWER_PAUSE_S = 60.0
"""After one that found a newer entry: so long KV may show the old one (`kv.CACHE_TTL_S`), and
so long the origin grants no other write."""
MAX_KEYS = 1000


@dataclass(slots=True)
class _Key:
    next_s: float
    pause_s: float = FIRST_PAUSE_S


class Refreshes:
    """Of one isolate. Knows `MAX_KEYS` keys, and forgets first what was asked for longest ago."""

    def __init__(self) -> None:
        self._keys: dict[str, _Key] = {}

    def begin(self, key: str, now_s: float) -> bool:
        """Whether a refresh of the key may begin. It has begun then."""
        known = self._keys.pop(key, None) or _Key(now_s)
        if len(self._keys) >= MAX_KEYS:
            del self._keys[next(iter(self._keys))]
        self._keys[key] = known
        if now_s < known.next_s:
            return False
        known.next_s = now_s + IN_FLIGHT_S
        return True

    def found_newer(self, key: str, now_s: float) -> None:
        """It has ended with a newer entry."""
        self._end(key, now_s, NEWER_PAUSE_S, FIRST_PAUSE_S)

    def found_none(self, key: str, now_s: float) -> None:
        """It has ended, and the new entry is still being made."""
        known = self._keys.get(key)
        pause_s = FIRST_PAUSE_S if known is None else known.pause_s
        self._end(key, now_s, pause_s, min(2 * pause_s, LONGEST_PAUSE_S))

    def failed(self, key: str, now_s: float) -> None:
        """It has ended, and there will be none."""
        self._end(key, now_s, LONGEST_PAUSE_S, FIRST_PAUSE_S)

    def _end(self, key: str, now_s: float, pause_s: float, next_pause_s: float) -> None:
        if key in self._keys:
            self._keys[key] = _Key(now_s + pause_s, next_pause_s)
