"""The contract of a semantic index: answered questions by partition, found by their vectors.

An index proposes and decides nothing. Whoever asks it reads the candidate's entry from L1
afterwards, which says whether the answer is alive (expiry, purges, stricter requests): an entry
that should be gone costs a look-up, never a wrong answer. It knows no model, no request and no
clock: times come in as arguments, in Unix milliseconds.

Invariants
1. What is found has exactly the tenant and the partition that were asked for.
2. An entry is never returned at or after its `expires_ms`.
3. Vectors of two encoders never meet: `identity` is part of every name in Redis.
4. What is `private` stays in this process's memory: no vector, text or digest of it is in Redis.
5. Entries may vanish at any time (a bound, eviction, a lost Redis). One that was removed may be
   found once more where a replica has not heard of it yet.
6. One key has one entry, and one form of a partition has one: the one added last replaces those
   before.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float32]
"""Shape [dims], of unit length."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Entry:
    """An answered question that may be matched.

    `partition` is a hex digest of all of the request but its last user message; `key` the hex L1
    key of the answer; `text` the last user message as it was asked; `form` a hex digest of the
    normalised text; from `expires_ms` on the entry does not count.
    """

    tenant: str
    partition: str
    key: str
    text: str
    form: str
    vector: Vector
    expires_ms: int

    def __post_init__(self) -> None:
        if self.vector.dtype != np.float32 or self.vector.ndim != 1:
            raise ValueError("a vector is float32 of one dimension")


@dataclass(frozen=True, kw_only=True, slots=True)
class Candidate:
    """An entry that was found. `similarity` is its cosine to the vector that was asked for.

    It is 1.0 where the form was asked for. Where `SemanticIndex.is_exact` is False it is rounded
    (to about 0.01): compute it anew before a decision rests on it.
    """

    key: str
    text: str
    similarity: float
    expires_ms: int


class SemanticIndex(Protocol):
    """Safe to call from many tasks of one event loop, not from several threads.

    StoreError is raised by indexes that lie in Redis, never by the one in memory.
    """

    @property
    def identity(self) -> str:
        """The encoder's: model and precision."""
        ...

    @property
    def is_exact(self) -> bool:
        """Whether `search` misses nothing, and its similarities are exact to float32."""
        ...

    async def start(self) -> None:
        """Begin to follow what others do, in the background. Raises nothing; call it once."""
        ...

    async def close(self) -> None:
        """Stop, and free connections. Closing twice is fine; it is not used again."""
        ...

    async def add(self, entry: Entry, *, now_ms: int, private: bool = False) -> None:
        """Put an entry in, instead of that of its key and of that of its form in its partition.

        It is found from the return on, in this process. One that is over at `now_ms` replaces, and
        is not found. With `private` (an encrypted tenant's) nothing of it leaves the process; a
        tenant that was not private before is cleared first, by the caller. Raises StoreError; it
        may be in then. Redis ends entries by its own clock, too.
        """
        ...

    async def find(
        self, tenant: str, partition: str, form: str, *, now_ms: int, private: bool = False
    ) -> Candidate | None:
        """Return the entry whose normalised text is the same, if any. Raises StoreError.

        `private` is said of a tenant at every call, or at none: see `add`. So it is in `search`.
        """
        ...

    async def search(
        self,
        tenant: str,
        partition: str,
        vector: Vector,
        *,
        count: int,
        now_ms: int,
        private: bool = False,
    ) -> list[Candidate]:
        """Return the nearest entries of a partition, at most `count`, the best first.

        Raises StoreError.
        """
        ...

    async def remove(self, tenant: str, keys: Sequence[str]) -> None:
        """Leave no entry under `keys`; nothing there is fine. Raises StoreError."""
        ...

    async def clear(self, tenant: str | None = None) -> None:
        """Leave nothing of a tenant, or of anybody. Takes seconds in Redis. Raises StoreError."""
        ...

    async def sweep(self, now_ms: int) -> None:
        """Free memory of entries that are over; call it each minute or so. Raises StoreError."""
        ...

    async def count(self, tenant: str | None = None) -> int:
        """How many entries there are, of a tenant or of all; some of them may be over.

        Takes seconds in Redis. Raises StoreError.
        """
        ...
