"""A job store in this process's memory: the oracle of the contract tests, a double for others.

It loses everything with the process, so nothing but tests uses it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from origin.stores.job_contract import (
    LEASE_S,
    MAX_BYTES,
    MAX_TENANT_BYTES,
    OVERHEAD_BYTES,
    JobState,
    Lease,
)
from origin.times import unix_ms


@dataclass(kw_only=True, slots=True)
class _Job:
    state: JobState
    sealed: bytes
    token: int = 0
    held_until_ms: float = 0


class MemoryJobStore:
    """The job store contract on a dict. `clock_ms` is the clock, Unix time in milliseconds."""

    def __init__(self, clock_ms: Callable[[], int] = unix_ms) -> None:
        self._clock_ms = clock_ms
        self._jobs: dict[str, _Job] = {}

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
        """See JobStore.add."""
        self._sweep()
        if job in self._jobs:
            return await self.state(job)
        sizes = [(one.state.tenant, _size(one.sealed)) for one in self._jobs.values()]
        ours = _size(sealed) + sum(size for of, size in sizes if of == tenant)
        everybodys = _size(sealed) + sum(size for _, size in sizes)
        if ours > MAX_TENANT_BYTES or everybodys > MAX_BYTES:
            return None
        now_ms = self._clock_ms()
        state = JobState(
            tenant=tenant,
            total=total,
            done=0,
            quiet=quiet,
            created_ms=now_ms,
            starts_ms=now_ms + starts_in_ms,
            ends_ms=now_ms + starts_in_ms + life_ms,
            is_held=False,
        )
        self._jobs[job] = _Job(state=state, sealed=sealed)
        return state

    async def state(self, job: str) -> JobState | None:
        """See JobStore.state."""
        held = self._jobs.get(job)
        now_ms = self._clock_ms()
        if held is None or held.state.ends_ms <= now_ms:
            return None
        return replace(held.state, is_held=held.held_until_ms > now_ms)

    async def claim(self, *, quiet: bool) -> Lease | None:
        """See JobStore.claim."""
        self._sweep()
        now_ms = self._clock_ms()
        for name, job in self._jobs.items():
            if (
                job.state.done < job.state.total
                and job.state.starts_ms <= now_ms
                and job.held_until_ms <= now_ms
                and (quiet or not job.state.quiet)
            ):
                job.token += 1
                job.held_until_ms = now_ms + LEASE_S * 1000
                state = replace(job.state, is_held=True)
                return Lease(id=name, token=job.token, state=state, sealed=job.sealed)
        return None

    async def progress(
        self, lease: Lease, *, done: int, counts: Mapping[str, int] | None = None
    ) -> bool:
        """See JobStore.progress."""
        self._sweep()
        job = self._held(lease)
        if job is None:
            return False
        if done > job.state.done:
            added = {n: job.state.counts.get(n, 0) + c for n, c in (counts or {}).items()}
            job.state = replace(job.state, done=done, counts={**job.state.counts, **added})
        if job.state.done >= job.state.total:
            job.sealed, job.held_until_ms = b"", 0
        else:
            job.held_until_ms = self._clock_ms() + LEASE_S * 1000
        return True

    async def release(self, lease: Lease) -> None:
        """See JobStore.release."""
        job = self._held(lease)
        if job is not None:
            job.held_until_ms = 0

    async def close(self) -> None:
        """See JobStore.close."""

    def _held(self, lease: Lease) -> _Job | None:
        job = self._jobs.get(lease.id)
        if job is None or job.token != lease.token or job.held_until_ms <= self._clock_ms():
            return None
        return job

    def _sweep(self) -> None:
        now_ms = self._clock_ms()
        for name in [name for name, job in self._jobs.items() if job.state.ends_ms <= now_ms]:
            del self._jobs[name]


def _size(sealed: bytes) -> int:
    return len(sealed) + OVERHEAD_BYTES
