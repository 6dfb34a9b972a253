"""Workers KV, as far as times go: one value a key, and what each location remembers of it.

    write ──> the value, at once; the location that wrote sees it
    read  ──> what this location read within the last 60 s (nothing, too, is remembered), else the
              value, which it then remembers

So a location that looked in vain sees another's write up to a minute later, as the platform says:
https://developers.cloudflare.com/kv/concepts/how-kv-works/. A read that the location answers from
memory is billed all the same.
"""

from __future__ import annotations

from array import array

CACHE_TTL_S = 60
"""How long a location answers from its memory: what `worker/kv.py` asks for."""
MAX_LOCATIONS = 1 << 10
NOTHING = (0, 0)
_CACHE_TTL_MS = CACHE_TTL_S * 1000


class Locations:
    """Numbers for names of locations; what is too much to tell apart has the last one."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._numbers)

    def number(self, name: str) -> int:
        """The number of a location."""
        number = self._numbers.get(name)
        if number is None:
            if len(self._numbers) >= MAX_LOCATIONS:
                return MAX_LOCATIONS - 1
            number = self._numbers[name] = len(self._numbers)
        return number


class KvModel:
    """Entries as (created, fresh until) in ms, by a key's place. Times never go back."""

    def __init__(self) -> None:
        self._created = array("q")
        self._fresh = array("q")
        # What locations have read lately: (until when they go by it, created, fresh until).
        self._recent: dict[int, tuple[int, int, int]] = {}
        self._before: dict[int, tuple[int, int, int]] = {}
        self._turn_ms = 0

    def grow(self) -> None:
        """Make room for one place more."""
        self._created.append(0)
        self._fresh.append(0)

    def forget(self, place: int) -> None:
        """Leave nothing there."""
        self._created[place] = self._fresh[place] = 0

    def forget_reads(self) -> None:
        """Let no location remember anything: places are given to other keys."""
        self._recent, self._before = {}, {}

    def read(self, place: int, location: int, now_ms: int) -> tuple[int, int]:
        """What the location is told, `NOTHING` where that is nothing."""
        at = place * MAX_LOCATIONS + location
        remembered = self._recent.get(at) or self._before.get(at)
        if remembered is not None and now_ms < remembered[0]:
            return remembered[1:]
        created_ms, fresh_ms = self._created[place], self._fresh[place]
        if created_ms > now_ms:  # it is being made
            created_ms = fresh_ms = 0
        self._remember(at, now_ms, created_ms, fresh_ms)
        return created_ms, fresh_ms

    def write(self, place: int, location: int, now_ms: int, created_ms: int, fresh_ms: int) -> None:
        """Put an entry in the place of what is there; it was made at `created_ms`, maybe soon."""
        self._created[place], self._fresh[place] = created_ms, fresh_ms
        at = place * MAX_LOCATIONS + location
        if created_ms <= now_ms:
            self._remember(at, now_ms, created_ms, fresh_ms)
        else:  # it has read nothing there; from when it is written on, it looks again
            self._recent[at] = (created_ms, 0, 0)

    def _remember(self, at: int, now_ms: int, created_ms: int, fresh_ms: int) -> None:
        if now_ms >= self._turn_ms:
            # What is older than two turns is remembered by no location any more.
            is_next = now_ms < self._turn_ms + _CACHE_TTL_MS
            self._before = self._recent if is_next else {}
            self._recent = {}
            self._turn_ms = now_ms + _CACHE_TTL_MS
        self._recent[at] = (now_ms + _CACHE_TTL_MS, created_ms, fresh_ms)
