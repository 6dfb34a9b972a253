"""A control store in this process's memory: the oracle of the contract tests, a double for others.

It loses everything with the process, so nothing but tests uses it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

from origin.stores.control_contract import COMMON_LOG, Record
from origin.times import unix_ms


class MemoryControlStore:
    """The control store contract on a dict. `clock_ms` is the clock, Unix time in milliseconds."""

    def __init__(self, clock_ms: Callable[[], int] = unix_ms) -> None:
        self.clock_ms = clock_ms
        self._told_ms = self._cut_off_ms = 0
        self._documents: dict[str, tuple[int, bytes]] = {}
        self._logs: dict[str, list[Record]] = {}
        self._owed: dict[str, int] = {}
        self._turns: dict[str, tuple[str, float]] = {}
        self._facts: dict[str, str] = {}

    async def now_ms(self) -> int:
        """See ControlStore.now_ms."""
        now_ms = max(self.clock_ms(), self._cut_off_ms + 1)
        self._told_ms = max(now_ms, self._told_ms)
        return now_ms

    async def cut_off_ms(self) -> int:
        """See ControlStore.cut_off_ms."""
        self._cut_off_ms = max(self.clock_ms(), self._told_ms)
        self._told_ms = self._cut_off_ms
        return self._cut_off_ms

    async def revision(self, tenant: str) -> int | None:
        """See ControlStore.revision."""
        held = self._documents.get(tenant)
        return None if held is None else held[0]

    async def load(self, tenant: str) -> bytes | None:
        """See ControlStore.load."""
        held = self._documents.get(tenant)
        return None if held is None else held[1]

    async def replace(
        self,
        tenant: str,
        document: bytes,
        revision: int,
        *,
        expected: int | None,
        record: bytes | None = None,
    ) -> bool:
        """See ControlStore.replace."""
        held = self._documents.get(tenant)
        if held == (revision, document):
            return True
        if (None if held is None else held[0]) != expected:
            return False
        self._documents[tenant] = (revision, document)
        if record is not None:
            self._append(tenant, record)
        return True

    async def record(self, records: Sequence[bytes]) -> None:
        """See ControlStore.record."""
        for record in records:
            self._append(COMMON_LOG, record)

    async def records(self, after: Mapping[str, str]) -> Mapping[str, Sequence[Record]]:
        """See ControlStore.records."""
        found = {
            log: [record for record in self._logs.get(log, ()) if _place(record[0]) > _place(id_)]
            for log, id_ in after.items()
        }
        return {log: records[:1000] for log, records in found.items() if records}

    async def owe_edge(self, tenant: str, revision: int) -> None:
        """See ControlStore.owe_edge."""
        self._owed[tenant] = max(revision, self._owed.get(tenant, 0))

    async def edge_has(self, tenant: str, revision: int) -> None:
        """See ControlStore.edge_has."""
        if self._owed.get(tenant, 0) <= revision:
            self._owed.pop(tenant, None)

    async def owed_to_edge(self) -> Mapping[str, int]:
        """See ControlStore.owed_to_edge."""
        return dict(self._owed)

    async def take_turn(self, task: str, holder: str, life_s: float) -> bool:
        """See ControlStore.take_turn."""
        now_s = time.monotonic()
        other, until_s = self._turns.get(task, (holder, 0.0))
        if other != holder and until_s > now_s:
            return False
        self._turns[task] = (holder, now_s + life_s)
        return True

    async def facts(self) -> Mapping[str, str]:
        """See ControlStore.facts."""
        return dict(self._facts)

    async def keep_fact(self, name: str, value: str) -> None:
        """See ControlStore.keep_fact."""
        self._facts[name] = value

    async def tenants(self) -> frozenset[str]:
        """See ControlStore.tenants."""
        return frozenset(self._documents)

    async def ping(self) -> None:
        """See ControlStore.ping."""

    async def close(self) -> None:
        """See ControlStore.close."""

    def _append(self, log: str, record: bytes) -> None:
        records = self._logs.setdefault(log, [])
        records.append((f"{self.clock_ms()}-{len(records)}", record))


def _place(id_: str) -> tuple[int, ...]:
    return tuple(map(int, id_.split("-")))
