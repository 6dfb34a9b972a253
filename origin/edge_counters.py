"""What all isolates of the edge have counted, added up: the contract, Redis, and a test double.

Approximate: what an isolate loses is lost, and a flush whose answer got lost may count twice.

Layout in Redis: one hash `PREFIX:edge:{TENANT}` without an end, a field a count: `outcome:hit`,
`trouble:put`, `bytes`, `latency_ms:0.5` (a bucket, by its upper bound), `latency_us`. Hits by key
are not kept: warming alone wants them, while they are new.
"""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from typing import Protocol, Self, cast

from origin.stores.redis_store import DEFAULT_TIMEOUT_S, RedisClient, outages_told, redis_client
from shared.edge_counts import BUCKETS, TenantCounts
from shared.errors import InternalError

DEFAULT_MAX_CONNECTIONS = 4


def counters_unavailable() -> InternalError:
    """What a request gets where counters cannot be asked (503)."""
    return InternalError(
        "The counters cannot be reached.",
        status=503,
        code="counters_unavailable",
        retry_after_s=1,
    )


class EdgeCounters(Protocol):
    """Counts by tenant. Safe to call from many tasks of one event loop."""

    async def add(self, tenants: Mapping[str, TenantCounts]) -> None:
        """Add to each tenant's counts. Raises StoreError; part of it may be added then."""
        ...

    async def read(self, tenant: str) -> TenantCounts:
        """All that was added for a tenant, without hits by key. Raises StoreError."""
        ...

    async def close(self) -> None:
        """Free connections. Closing twice is fine; closed counters are not used again."""
        ...


class RedisEdgeCounters:
    """The contract on one `redis.asyncio` client, which it owns."""

    def __init__(self, client: RedisClient, *, prefix: str = "encore") -> None:
        self._client = client
        self._prefix = prefix

    @classmethod
    def from_url(cls, url: str, *, prefix: str = "encore") -> Self:
        """Build counters on `url`; see `redis_client`."""
        client = redis_client(
            url, timeout_s=DEFAULT_TIMEOUT_S, max_connections=DEFAULT_MAX_CONNECTIONS
        )
        return cls(client, prefix=prefix)

    async def add(self, tenants: Mapping[str, TenantCounts]) -> None:
        """See EdgeCounters.add. One round trip (in a Cluster one to each node concerned)."""
        with outages_told():
            async with self._client.pipeline(transaction=False) as pipeline:
                for tenant, counts in tenants.items():
                    for name, count in _fields(counts).items():
                        if count:
                            pipeline.hincrby(self._name(tenant), name, count)
                await pipeline.execute()

    async def read(self, tenant: str) -> TenantCounts:
        """See EdgeCounters.read."""
        with outages_told():
            stored = await cast(
                "Awaitable[dict[bytes, bytes]]", self._client.hgetall(self._name(tenant))
            )
        return _counts({name.decode(): int(count) for name, count in stored.items()})

    async def close(self) -> None:
        """See EdgeCounters.close."""
        with outages_told():
            await self._client.aclose()

    def _name(self, tenant: str) -> str:
        return f"{self._prefix}:edge:{{{tenant}}}"


class MemoryEdgeCounters:
    """The contract on a dict: for tests."""

    def __init__(self) -> None:
        self._tenants: dict[str, TenantCounts] = {}

    async def add(self, tenants: Mapping[str, TenantCounts]) -> None:
        """See EdgeCounters.add."""
        for tenant, counts in tenants.items():
            self._tenants.setdefault(tenant, TenantCounts()).merge(counts)

    async def read(self, tenant: str) -> TenantCounts:
        """See EdgeCounters.read."""
        return _counts(_fields(self._tenants.get(tenant, TenantCounts())))

    async def close(self) -> None:
        """See EdgeCounters.close."""


def _fields(counts: TenantCounts) -> dict[str, int]:
    return {
        **{f"outcome:{name}": count for name, count in counts.outcomes.items()},
        **{f"trouble:{name}": count for name, count in counts.troubles.items()},
        **{
            f"latency_ms:{name}": count for name, count in zip(BUCKETS, counts.latency, strict=True)
        },
        "bytes": counts.body_bytes,
        "latency_us": counts.latency_us,
    }


def _counts(fields: Mapping[str, int]) -> TenantCounts:
    """The counts in a hash; fields that this version does not know are another's business."""
    counts = TenantCounts()
    return TenantCounts(
        outcomes={name: fields.get(f"outcome:{name}", 0) for name in counts.outcomes},
        troubles={name: fields.get(f"trouble:{name}", 0) for name in counts.troubles},
        body_bytes=fields.get("bytes", 0),
        latency=[fields.get(f"latency_ms:{name}", 0) for name in BUCKETS],
        latency_us=fields.get("latency_us", 0),
    )
