"""The contract of the job store: warm-ups that were acknowledged, until they are done or too old.

A job store must not know what a job asks for: that is sealed. One process at a time works on a job,
by a lease with a token; who has lost the lease changes nothing any more.

Invariants
1. What `add` has confirmed is as durable as the store is (an append-only file, always synced).
2. A job ends at `ends_ms`, done or not: from then on it is not there. What it asks for is forgotten
   as soon as it is done.
3. A tenant's jobs take at most `MAX_TENANT_BYTES`, all of them `MAX_BYTES`: they share a Redis with
   what must not be lost.
4. All times are the store's own clock.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

LEASE_S = 15.0
"""How long a job whose worker was killed waits for another one."""
MAX_TENANT_BYTES = 16 << 20
MAX_BYTES = 64 << 20
OVERHEAD_BYTES = 1024
"""What a job takes beside what it asks for, until it ends."""


@dataclass(frozen=True, kw_only=True, slots=True)
class JobState:
    """How far a job is.

    `done` of `total` requests are; `counts` says what became of them. It may begin at `starts_ms`.
    `quiet` ones wait for quiet hours. `is_held` is whether somebody works on it.
    """

    tenant: str
    total: int
    done: int
    counts: Mapping[str, int] = field(default_factory=dict)
    quiet: bool
    created_ms: int
    starts_ms: int
    ends_ms: int
    is_held: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Lease:
    """A job that somebody works on. `token` grows with every lease; `sealed` is what it asks."""

    id: str
    token: int
    state: JobState
    sealed: bytes


class JobStore(Protocol):
    """Jobs by id. Safe to call from many tasks of one event loop.

    Every method raises `origin.stores.contract.StoreError` where the store cannot be asked.
    """

    async def add(
        self,
        job: str,
        *,
        tenant: str,
        sealed: bytes,
        total: int,
        quiet: bool,
        starts_in_ms: int,
        life_ms: int,
    ) -> JobState | None:
        """Keep a job, from `starts_in_ms` on for `life_ms`. None, and nothing kept: no room.

        Adding a job again that is there changes nothing.
        """
        ...

    async def state(self, job: str) -> JobState | None:
        """How far a job is, None where there is none (any more). Changes nothing."""
        ...

    async def claim(self, *, quiet: bool) -> Lease | None:
        """Hold the oldest job that may begin and that nobody holds, for `LEASE_S`.

        With `quiet` those that wait for quiet hours are among them.
        """
        ...

    async def progress(
        self, lease: Lease, *, done: int, counts: Mapping[str, int] | None = None
    ) -> bool:
        """Note that the first `done` requests are, and hold the job for `LEASE_S` from now.

        `counts` are added once, where `done` is news. False, with nothing changed, where the lease
        or the job is gone. With the last request what the job asks for and the lease go.
        """
        ...

    async def release(self, lease: Lease) -> None:
        """Let another one hold the job, if this is still its lease."""
        ...

    async def close(self) -> None:
        """Free connections. Closing twice is fine; a closed store is not used again."""
        ...
