"""Parts of which the dice of a test decide when each request to them arrives and is answered."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from origin.stores.lease_contract import Lease
from origin.stores.memory import MemoryStore
from origin.stores.memory_leases import MemoryLeases

Step = Callable[[], Awaitable[None]]
"""Returns when the dice say so."""


class SteppedStore(MemoryStore):
    """A store whose every request and every answer takes its time."""

    def __init__(self, step: Step, now_ms: Callable[[], int]) -> None:
        super().__init__(now_ms=now_ms)
        self._step = step

    async def get(self, key: str) -> bytes | None:
        """See Store.get."""
        await self._step()
        found = await super().get(key)
        await self._step()
        return found

    async def put(self, *args: Any, **named: Any) -> None:
        """See Store.put."""
        await self._step()
        await super().put(*args, **named)
        await self._step()


class SteppedLeases(MemoryLeases):
    """Leases whose every request and every answer takes its time."""

    def __init__(self, step: Step, store: MemoryStore) -> None:
        super().__init__(store)
        self._step = step
        self.seen: Counter[str] = Counter()

    async def acquire(self, key: str, flight: str, about: bytes, *, insist: bool) -> Lease:
        """See Leases.acquire."""
        await self._step()
        lease = await super().acquire(key, flight, about, insist=insist)
        await self._step()
        return lease

    async def say(self, lease: Lease, number: int, piece: bytes) -> Sequence[bytes] | None:
        """See Leases.say."""
        await self._step()
        wishes = await super().say(lease, number, piece)
        await self._step()
        self.seen["run out"] += wishes is None
        return wishes

    async def end(self, lease: Lease, number: int, piece: bytes) -> None:
        """See Leases.end."""
        await self._step()
        await super().end(lease, number, piece)

    async def stop(self, lease: Lease) -> bool:
        """See Leases.stop."""
        await self._step()
        is_stopped = await super().stop(lease)
        await self._step()
        return is_stopped

    async def follow(self, lease: Lease, follower: str, wishes: bytes) -> float | None:
        """See Leases.follow."""
        await self._step()
        left_s = await super().follow(lease, follower, wishes)
        await self._step()
        self.seen["leader lost"] += left_s is None
        return left_s

    async def leave(self, lease: Lease, follower: str) -> None:
        """See Leases.leave."""
        await self._step()
        await super().leave(lease, follower)

    async def read(
        self,
        lease: Lease,
        after: int,
        *,
        wait_s: float,  # noqa: ARG002 - the dice decide
    ) -> Sequence[tuple[int, bytes]]:
        """See Leases.read."""
        await self._step()
        return await super().read(lease, after, wait_s=0)
