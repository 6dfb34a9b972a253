"""Where each key's state lies: a number a key, dense, so that the state is arrays of integers.

Memory is bounded: once there are more keys than fit, every second one is left out, told by its
hash, and what is asked for one that is left counts twice (then four times, and so on). So what is
counted stays right on average, at a fixed number of keys. A key that is left out stays left out.

Source: Waldspurger et al., "Efficient MRC Construction with SHARDS", FAST 2015, section 3 (a sample
of keys by a threshold on their hash, lowered as it fills).
"""

from __future__ import annotations


class Places:
    """Numbers for keys, which are uniform 64-bit integers, at most `limit` at a time."""

    def __init__(self, limit: int) -> None:
        self._limit = max(1, limit)
        self._places: dict[int, int] = {}
        self._free: list[int] = []
        self._mask = 0
        self.seen = 0
        """Keys that were told apart, those left out estimated."""

    @property
    def weight(self) -> int:
        """How many requests one for a key that is not left out stands for."""
        return self._mask + 1

    def __len__(self) -> int:
        return len(self._places)

    def find(self, key: int) -> int | None:
        """The place of a key that has one."""
        return self._places.get(key)

    def place(self, key: int) -> int | None:
        """The place of a key, a new one where it has none; None where it is left out."""
        place = self._places.get(key)
        if place is not None:
            return place
        if key & self._mask:
            return None
        self.seen += self.weight
        place = self._free.pop() if self._free else len(self._places)
        self._places[key] = place
        return place

    def thin(self) -> list[int]:
        """Leave out half the keys where they are too many; the places that are free by that.

        To be called after each key that is new.
        """
        if len(self._places) < self._limit:
            return []
        freed: list[int] = []
        while len(self._places) >= self._limit and self._mask < 1 << 62:
            self._mask = 2 * self._mask + 1
            left_out = [key for key in self._places if key & self._mask]
            freed += [self._places.pop(key) for key in left_out]
        self._free += freed
        return freed
