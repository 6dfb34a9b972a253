"""A store in this process's memory: the oracle of the contract tests and a double for others.

It never evicts and loses everything with the process, so nothing but tests uses it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from origin.stores.contract import ASKED_LIFE_S, GRANT_INTERVAL_S
from origin.times import unix_ms

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Sequence


class MemoryStore:
    """The store contract on a dict. `now_ms` is the clock, Unix time in milliseconds."""

    def __init__(self, now_ms: Callable[[], int] = unix_ms) -> None:
        self.now_ms = now_ms
        self.newest_tokens: dict[str, int] = {}
        """Of the last lease given, by key: see `origin.stores.memory_leases`."""
        self._entries: dict[str, tuple[bytes, int]] = {}
        self._asked: dict[str, tuple[int, int]] = {}
        self._granted_until_ms: dict[str, int] = {}

    async def get(self, key: str) -> bytes | None:
        """See Store.get."""
        envelope, expires_at_ms = self._entries.get(key, (b"", 0))
        return envelope if expires_at_ms > self.now_ms() else None

    async def get_many(self, keys: Sequence[str]) -> list[bytes | None]:
        """See Store.get_many."""
        return [await self.get(key) for key in keys]

    async def put(
        self,
        key: str,
        envelope: bytes,
        expires_at_ms: int,
        *,
        only_new: bool = False,
        token: int | None = None,
        over: bytes | None = None,
    ) -> None:
        """See Store.put."""
        if token is not None and self.newest_tokens.get(key, 0) > token:
            return
        there = await MemoryStore.get(self, key)
        if only_new and there is not None:
            return
        if over is not None and not (there is not None and there.startswith(over)):
            return
        self._entries[key] = (bytes(envelope), expires_at_ms)

    async def delete(self, key: str) -> None:
        """See Store.delete."""
        self._entries.pop(key, None)

    async def grant(self, key: str, *, after: int) -> bool:
        """See Store.grant."""
        now_ms = self.now_ms()
        if after > 1:
            count, ends_ms = self._asked.get(key, (0, 0))
            if ends_ms <= now_ms:
                count, ends_ms = 0, now_ms + ASKED_LIFE_S * 1000
            self._asked[key] = (count + 1, ends_ms)
            if count + 1 < after:
                return False
        if self._granted_until_ms.get(key, 0) > now_ms:
            return False
        self._granted_until_ms[key] = now_ms + GRANT_INTERVAL_S * 1000
        return True

    async def openings(self, length: int) -> AsyncGenerator[Sequence[tuple[bytes, int]], None]:
        """See Store.openings."""
        for key in tuple(self._entries):
            envelope = await MemoryStore.get(self, key)
            if envelope is not None:
                yield [(envelope[:length], len(envelope))]

    async def ping(self) -> None:
        """See Store.ping."""

    async def close(self) -> None:
        """See Store.close."""
