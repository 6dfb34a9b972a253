"""Leases in this process's memory: the oracle of the contract tests and a double for others."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from origin.stores.lease_contract import FIRST_PIECE, LEASE_S, LINGER_S, Lease
from origin.stores.memory import MemoryStore


@dataclass(kw_only=True)
class _Said:
    """What one flight said, for as long as it can be read."""

    until_ms: int
    pieces: dict[int, bytes] = field(default_factory=dict)
    waiting: dict[str, tuple[int, bytes]] = field(default_factory=dict)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def add(self, number: int, piece: bytes) -> None:
        if piece and number > max(self.pieces, default=FIRST_PIECE - 1):
            self.pieces[number] = piece
            self.changed.set()
            self.changed = asyncio.Event()


class MemoryLeases:
    """The lease contract beside the entries of `store`, by its clock."""

    def __init__(self, store: MemoryStore, *, lease_s: float = LEASE_S) -> None:
        self._store = store
        self._lease_ms = round(lease_s * 1000)
        self._held: dict[str, tuple[str, int, int, bytes]] = {}
        """(flight, token, until, about) by key; without a flight once it was given back."""
        self._said: dict[str, _Said] = {}

    async def acquire(self, key: str, flight: str, about: bytes, *, insist: bool) -> Lease:
        """See Leases.acquire."""
        now_ms = self._store.now_ms()
        holder, last, until_ms, told = self._held.get(key, ("", 0, 0, b""))
        if holder == flight or (not insist and holder and until_ms > now_ms):
            return Lease(key=key, flight=holder, token=last, about=told)
        token = max(now_ms * 1000, last + 1)
        self._held[key] = (flight, token, now_ms + self._lease_ms, about)
        self._store.newest_tokens[key] = token
        self._said[flight] = _Said(until_ms=now_ms + self._lease_ms)
        # The one beneath a double that takes its time: all of this is one step.
        entry = None if insist else await MemoryStore.get(self._store, key)
        return Lease(key=key, flight=flight, token=token, about=about, entry=entry)

    async def say(self, lease: Lease, number: int, piece: bytes) -> Sequence[bytes] | None:
        """See Leases.say."""
        said = self._alive(lease)
        if said is None:
            return None
        now_ms = self._store.now_ms()
        said.add(number, piece)
        said.until_ms = now_ms + self._lease_ms
        holder, token, _, about = self._held[lease.key]
        if holder == lease.flight:
            self._held[lease.key] = (holder, token, said.until_ms, about)
        return [wishes for until_ms, wishes in said.waiting.values() if until_ms > now_ms]

    async def end(self, lease: Lease, number: int, piece: bytes) -> None:
        """See Leases.end."""
        said = self._alive(lease)
        if said is not None:
            said.add(number, piece)
            said.until_ms = self._store.now_ms() + round(LINGER_S * 1000)
        holder, token, _, _ = self._held.get(lease.key, ("", 0, 0, b""))
        if holder == lease.flight:
            self._held[lease.key] = ("", token, 0, b"")

    async def stop(self, lease: Lease) -> bool:
        """See Leases.stop."""
        said, now_ms = self._alive(lease), self._store.now_ms()
        if said is not None and any(until_ms > now_ms for until_ms, _ in said.waiting.values()):
            return False
        self._said.pop(lease.flight, None)
        await MemoryLeases.end(self, lease, FIRST_PIECE, b"")
        return True

    async def follow(self, lease: Lease, follower: str, wishes: bytes) -> float | None:
        """See Leases.follow."""
        said = self._alive(lease)
        if said is None:
            return None
        now_ms = self._store.now_ms()
        said.waiting[follower] = (now_ms + self._lease_ms, wishes)
        return (said.until_ms - now_ms) / 1000

    async def leave(self, lease: Lease, follower: str) -> None:
        """See Leases.leave."""
        if (said := self._said.get(lease.flight)) is not None:
            said.waiting.pop(follower, None)

    async def read(self, lease: Lease, after: int, *, wait_s: float) -> Sequence[tuple[int, bytes]]:
        """See Leases.read."""
        said = self._alive(lease)
        if said is not None and max(said.pieces, default=0) <= after:
            try:
                async with asyncio.timeout(wait_s):
                    await said.changed.wait()
            except TimeoutError:
                return []
            said = self._alive(lease)
        if said is None:
            return []
        return [(number, piece) for number, piece in said.pieces.items() if number > after]

    async def close(self) -> None:
        """See Leases.close."""

    def _alive(self, lease: Lease) -> _Said | None:
        said = self._said.get(lease.flight)
        return said if said is not None and said.until_ms > self._store.now_ms() else None
