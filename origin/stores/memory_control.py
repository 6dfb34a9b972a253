"""A control store in this process's memory: the oracle of the contract tests, a double for others.

It loses everything with the process, so nothing but tests uses it.
"""

from __future__ import annotations

import time
from collections.abc import Callable


class MemoryControlStore:
    """The control store contract on a dict. `clock_ms` is the clock, Unix time in milliseconds."""

    def __init__(self, clock_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000) -> None:
        self.clock_ms = clock_ms
        self._documents: dict[str, tuple[int, bytes]] = {}

    async def now_ms(self) -> int:
        """See ControlStore.now_ms."""
        return self.clock_ms()

    async def revision(self, tenant: str) -> int | None:
        """See ControlStore.revision."""
        held = self._documents.get(tenant)
        return None if held is None else held[0]

    async def load(self, tenant: str) -> bytes | None:
        """See ControlStore.load."""
        held = self._documents.get(tenant)
        return None if held is None else held[1]

    async def replace(
        self, tenant: str, document: bytes, revision: int, *, expected: int | None
    ) -> bool:
        """See ControlStore.replace."""
        held = self._documents.get(tenant)
        if held == (revision, document):
            return True
        if (None if held is None else held[0]) != expected:
            return False
        self._documents[tenant] = (revision, document)
        return True

    async def tenants(self) -> frozenset[str]:
        """See ControlStore.tenants."""
        return frozenset(self._documents)

    async def ping(self) -> None:
        """See ControlStore.ping."""

    async def close(self) -> None:
        """See ControlStore.close."""
