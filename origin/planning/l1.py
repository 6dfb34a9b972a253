"""L1 by a key's place: when its entry was made and until when it is fresh, its size, its grants.

Whether an entry may answer is not decided here (`shared.freshness`), nor for how long it is kept
(`origin.lifetimes`). Sizes are estimates of envelopes and what Redis needs beside them.
"""

from __future__ import annotations

from array import array

from origin.stores.contract import ASKED_LIFE_S, GRANT_INTERVAL_S

ENTRY_BYTES = 1200
"""Header, three packed segments' beginnings, key, and what Redis keeps beside each."""
BYTES_A_TOKEN = 8.0
"""Of an answer, in all three segments, packed. English of 4 characters a token, measured."""
VECTOR_BYTES = 20_000
"""The vector of 1,536 numbers, in both encodings, packed."""
_MINUTE_MS = 60_000


class L1Model:
    """Times are ms and never go back; `weight` is how many keys a key stands for."""

    def __init__(self) -> None:
        self.created = array("q")
        self.fresh = array("q")
        self._expires = array("q")
        self._size = array("L")
        self._asked = array("L")
        self._asked_until = array("q")
        self._granted_until = array("q")
        self.live_bytes = 0
        self.peak_bytes = 0
        # Bytes by the minute in which they expire.
        self._ends: dict[int, int] = {}
        self._minute = 0

    def __len__(self) -> int:
        return len(self.created)

    def grow(self) -> None:
        """Make room for one place more."""
        for each in self._arrays():
            each.append(0)

    def forget(self, place: int) -> None:
        """Leave nothing there. Its bytes stay until their end: they stand for another's, too."""
        for each in self._arrays():
            each[place] = 0

    def put(
        self,
        place: int,
        now_ms: int,
        *,
        created_ms: int,
        fresh_ms: int,
        expires_ms: int,
        size_bytes: int,
        weight: int,
    ) -> None:
        """Put an entry in the place of what is there."""
        self.sweep(now_ms)
        old_expires_ms = self._expires[place]
        if old_expires_ms // _MINUTE_MS >= self._minute:  # it is counted still
            self._count(old_expires_ms, -self._size[place] * weight)
        self.created[place], self.fresh[place] = created_ms, fresh_ms
        self._expires[place] = expires_ms
        self._size[place] = size_bytes
        self._count(expires_ms, size_bytes * weight)
        self.peak_bytes = max(self.peak_bytes, self.live_bytes)

    def grant(self, place: int, now_ms: int, *, after: int) -> bool:
        """What `Store.grant` says, for a key that stands here."""
        if self._asked_until[place] <= now_ms:
            self._asked[place] = 0
            self._asked_until[place] = now_ms + ASKED_LIFE_S * 1000
        self._asked[place] += 1
        if self._asked[place] < after or self._granted_until[place] > now_ms:
            return False
        self._granted_until[place] = now_ms + GRANT_INTERVAL_S * 1000
        return True

    def size_of(self, place: int) -> int:
        """The size of the entry there, in bytes."""
        return self._size[place]

    def sweep(self, now_ms: int) -> None:
        """Let what has ended by now go from the count of bytes."""
        minute = now_ms // _MINUTE_MS
        if minute == self._minute:
            return
        if minute - self._minute > len(self._ends):
            ended = [end for end in self._ends if end < minute]
        else:
            ended = [end for end in range(self._minute, minute) if end in self._ends]
        for end in ended:
            self.live_bytes -= self._ends.pop(end)
        self._minute = minute

    def _count(self, expires_ms: int, size_bytes: int) -> None:
        end = max(expires_ms // _MINUTE_MS, self._minute)
        self._ends[end] = self._ends.get(end, 0) + size_bytes
        self.live_bytes += size_bytes

    def _arrays(self) -> tuple[array[int], ...]:
        return (
            self.created,
            self.fresh,
            self._expires,
            self._size,
            self._asked,
            self._asked_until,
            self._granted_until,
        )
