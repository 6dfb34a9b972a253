"""The store of an origin without L1: entries on their way to Workers KV, and who may write there.

Entries are in this process's memory, for as long as the edge may take to fetch them: at once after
a stream, or with its next cron run where KV had been written to just before. Who asks meanwhile is
answered by them. Counts and grants are kept in a store that all origin processes share.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable, Sequence

from origin.stores.contract import GRANT_INTERVAL_S, Store
from origin.times import unix_ms

CRON_INTERVAL_S = 300
"""As in wrangler.toml."""
HANDOVER_S = GRANT_INTERVAL_S + CRON_INTERVAL_S
MAX_BYTES = 64 << 20


class HandoverStore:
    """The store contract, without leases. It owns `grants`, where all but entries is kept.

    By `now_ms` (Unix time in milliseconds) entries end, at the latest after `HANDOVER_S`; those put
    first end sooner where all of them would have more than `max_bytes`.
    """

    def __init__(
        self,
        grants: Store,
        *,
        max_bytes: int = MAX_BYTES,
        now_ms: Callable[[], int] = unix_ms,
    ) -> None:
        self._grants = grants
        self._max_bytes = max_bytes
        self._now_ms = now_ms
        self._entries: OrderedDict[str, tuple[bytes, int]] = OrderedDict()
        self._size_bytes = 0

    async def get(self, key: str) -> bytes | None:
        """See Store.get."""
        envelope, ends_ms = self._entries.get(key, (b"", 0))
        return envelope if ends_ms > self._now_ms() else None

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
        token: int | None = None,  # noqa: ARG002 - there are no leases here
        over: bytes | None = None,
    ) -> None:
        """See Store.put."""
        there = await self.get(key)
        if only_new and there is not None:
            return
        if over is not None and not (there is not None and there.startswith(over)):
            return
        self._forget(key)
        ends_ms = min(expires_at_ms, self._now_ms() + HANDOVER_S * 1000)
        self._entries[key] = (bytes(envelope), ends_ms)
        self._size_bytes += len(envelope)
        while self._entries and (self._size_bytes > self._max_bytes or self._is_oldest_over()):
            self._forget(next(iter(self._entries)))

    async def delete(self, key: str) -> None:
        """See Store.delete."""
        self._forget(key)

    async def grant(self, key: str, *, after: int) -> bool:
        """See Store.grant."""
        return await self._grants.grant(key, after=after)

    async def openings(self, length: int) -> AsyncGenerator[Sequence[tuple[bytes, int]], None]:
        """See Store.openings."""
        for key in tuple(self._entries):
            envelope = await self.get(key)
            if envelope is not None:
                yield [(envelope[:length], len(envelope))]

    async def ping(self) -> None:
        """See Store.ping."""
        await self._grants.ping()

    async def close(self) -> None:
        """See Store.close."""
        await self._grants.close()

    def _is_oldest_over(self) -> bool:
        _, ends_ms = next(iter(self._entries.values()))
        return ends_ms <= self._now_ms()

    def _forget(self, key: str) -> None:
        envelope, _ = self._entries.pop(key, (b"", 0))
        self._size_bytes -= len(envelope)
