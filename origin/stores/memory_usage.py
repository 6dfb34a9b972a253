"""A usage store in this process's memory: the oracle of the contract tests and a double for others.

It loses everything with the process, so nothing but tests uses it.
"""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable, Mapping, Sequence

from origin.stores.usage_contract import (
    MAX_KEYS,
    MAX_NAMES,
    RECENT_SLOTS,
    SLOT_S,
    HotKey,
    Kept,
    Name,
    Recent,
    Usage,
    folded,
    together,
)


class MemoryUsageStore:
    """The contract on dicts. `now_ms` is the clock, Unix time in milliseconds."""

    def __init__(
        self,
        *,
        max_names: int = MAX_NAMES,
        max_keys: int = MAX_KEYS,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self._max_names = max_names
        self._max_keys = max_keys
        self._now_ms = now_ms
        self._tenants: dict[str, Usage] = {}
        self._since_ms: dict[str, int] = {}
        self._last_ms: dict[str, dict[str, int]] = {}
        self._slots: dict[str, dict[int, dict[Name, int]]] = {}

    async def add(self, tenants: Mapping[str, Usage]) -> None:
        """See UsageStore.add."""
        for tenant, usage in tenants.items():
            kept = self._tenants.setdefault(tenant, Usage())
            self._since_ms.setdefault(tenant, self._now_ms())
            for name, number in usage.numbers.items():
                # The time of the first counts as a number in Redis.
                is_full = len(kept.numbers) + 1 >= self._max_names
                kept.add(folded(name) if is_full and name not in kept.numbers else name, number)
            last_ms = self._last_ms.setdefault(tenant, {})
            for key, hits in usage.hits.items():
                kept.hits[key] = kept.hits.get(key, 0) + hits
                last_ms[key] = self._now_ms()
            for key in sorted(last_ms, key=lambda key: (last_ms[key], key))[: -self._max_keys]:
                del last_ms[key], kept.hits[key]
        now_ms = self._now_ms()
        for tenant, numbers in together(tenants).items():
            slots = self._slots[tenant] = self._recent(tenant, now_ms)
            slot = slots.setdefault(_slot_ms(now_ms), {})
            for name, number in numbers.items():
                slot[name] = slot.get(name, 0) + number

    async def read(self, tenant: str, *, top: int) -> Kept:
        """See UsageStore.read."""
        usage = self._tenants.get(tenant, Usage())
        hottest = heapq.nlargest(top, usage.hits, key=lambda key: (usage.hits[key], key))
        return Kept(
            numbers=dict(usage.numbers),
            since_ms=self._since_ms.get(tenant),
            hottest=tuple(
                HotKey(key=key, hits=usage.hits[key], last_ms=self._last_ms[tenant][key])
                for key in hottest
            ),
        )

    async def read_many(self, tenants: Sequence[str], *, top: int) -> list[Kept]:
        """See UsageStore.read_many."""
        return [await self.read(tenant, top=top) for tenant in tenants]

    async def recent(self, tenant: str) -> Recent:
        """See UsageStore.recent."""
        now_ms = self._now_ms()
        slots = self._recent(tenant, now_ms)
        return Recent(now_ms=now_ms, slots={at: dict(numbers) for at, numbers in slots.items()})

    async def tenants(self) -> frozenset[str]:
        """See UsageStore.tenants."""
        return frozenset(self._tenants)

    async def close(self) -> None:
        """See UsageStore.close."""

    def _recent(self, tenant: str, now_ms: int) -> dict[int, dict[Name, int]]:
        first_ms = _slot_ms(now_ms) - (RECENT_SLOTS - 1) * SLOT_S * 1000
        slots = self._slots.get(tenant, {})
        return {at_ms: numbers for at_ms, numbers in slots.items() if at_ms >= first_ms}


def _slot_ms(now_ms: int) -> int:
    return now_ms - now_ms % (SLOT_S * 1000)
