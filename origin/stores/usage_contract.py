"""The contract of the usage store: what all origin processes and all isolates of the edge counted.

Approximate, by design: a flush whose answer got lost is sent again and counts twice, and what a
process had not flushed when it was killed is lost. No request waits for it.

Invariants
1. Adding is all there is: flushes of many processes add up in any order.
2. What is kept of a tenant is bounded, by `MAX_NAMES` numbers and `MAX_KEYS` keys, whatever comes.
3. Over time, by slots of `SLOT_S`, only what no client can name is told apart (`over_time`), and
   only for the last `RECENT_SLOTS` of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from shared.counts import OTHER
from shared.errors import InternalError

Name = tuple[str | None, ...]
"""(model, content class, what, …). The first two are None where a number is of no one's in
particular, and `OTHER` where there are too many names already."""

EVERY_TENANT = "*"
"""In the place of a tenant: all of them."""
MAX_NAMES = 20_000
MAX_KEYS = 10_000
"""Of the keys hit, those hit last are known."""
SLOT_S = 30
RECENT_SLOTS = 120
"""An hour of them, the one that is under way included."""
_OVER_TIME = frozenset({"requests", "latency", "saved", "spent", "semantic", "similarity", "flush"})


@dataclass(kw_only=True, slots=True)
class Usage:
    """What there is to add to one tenant's: numbers by name, hits by short key."""

    numbers: dict[Name, int] = field(default_factory=dict)
    hits: dict[str, int] = field(default_factory=dict)

    def add(self, name: Name, number: int) -> None:
        """Add a number; 0 is not worth a name."""
        if number:
            self.numbers[name] = self.numbers.get(name, 0) + number

    def merge(self, other: Usage) -> None:
        """Add another's to this, within the store's bounds."""
        for name, number in other.numbers.items():
            is_new = name not in self.numbers and len(self.numbers) >= MAX_NAMES
            self.add(folded(name) if is_new else name, number)
        for key, hits in other.hits.items():
            if key in self.hits or len(self.hits) < MAX_KEYS:
                self.hits[key] = self.hits.get(key, 0) + hits


@dataclass(frozen=True, kw_only=True, slots=True)
class HotKey:
    """A key by its digest, how often it was hit, and when last (Unix time, ms), approximately."""

    key: str
    hits: int
    last_ms: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Kept:
    """All that was added for a tenant, the time of the first (Unix time, ms), the hottest keys."""

    numbers: Mapping[Name, int] = field(default_factory=dict)
    since_ms: int | None = None
    hottest: tuple[HotKey, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Recent:
    """What was added in the slots before `now_ms` (Unix time, the store's), by a slot's start.

    A slot in which nothing was added is left out. Names are as `over_time` gives them.
    """

    now_ms: int
    slots: Mapping[int, Mapping[Name, int]] = field(default_factory=dict)


class UsageStore(Protocol):
    """Numbers by tenant. Safe to call from many tasks of one event loop."""

    async def add(self, tenants: Mapping[str, Usage]) -> None:
        """Add to each tenant's. Raises StoreError; part of it may be added then."""
        ...

    async def read(self, tenant: str, *, top: int) -> Kept:
        """All that was added for a tenant, and its `top` keys by hits. Raises StoreError."""
        ...

    async def read_many(self, tenants: Sequence[str], *, top: int) -> list[Kept]:
        """What `read` says of each, in few round trips. Raises StoreError."""
        ...

    async def recent(self, tenant: str) -> Recent:
        """What was added for a tenant, or for `EVERY_TENANT`, of late. Raises StoreError."""
        ...

    async def tenants(self) -> frozenset[str]:
        """Those for whom anything was ever added. Raises StoreError."""
        ...

    async def close(self) -> None:
        """Free connections. Closing twice is fine; a closed store is not used again."""
        ...


def folded(name: Name) -> Name:
    """The name that takes a number whose own would be one too many."""
    model, content_class, *what = name
    return (model and OTHER, content_class and OTHER, *what)


def over_time(numbers: Mapping[Name, int]) -> dict[Name, int]:
    """What is kept of numbers over time: models and classes together, and not every kind."""
    kept: dict[Name, int] = {}
    for (_, _, what, *rest), number in numbers.items():
        if what in _OVER_TIME:
            name = (None, None, what, *rest)
            kept[name] = kept.get(name, 0) + number
    return kept


def together(tenants: Mapping[str, Usage]) -> dict[str, dict[Name, int]]:
    """What a flush adds over time: by tenant, and of `EVERY_TENANT`; without those it adds none."""
    kept = {tenant: over_time(usage.numbers) for tenant, usage in tenants.items()}
    every: dict[Name, int] = {}
    for numbers in kept.values():
        for name, number in numbers.items():
            every[name] = every.get(name, 0) + number
    return {tenant: numbers for tenant, numbers in {**kept, EVERY_TENANT: every}.items() if numbers}


def usage_unavailable() -> InternalError:
    """What a request gets where the usage store cannot be asked (503)."""
    return InternalError(
        "The counters cannot be reached.",
        status=503,
        code="counters_unavailable",
        retry_after_s=1,
    )
