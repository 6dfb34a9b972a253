"""The contract of the edge's counters, asked of memory and of a real Redis."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from origin.edge_counters import EdgeCounters, MemoryEdgeCounters, RedisEdgeCounters
from origin.stores.contract import StoreError
from origin.stores.redis_store import redis_client
from shared.edge_counts import BUCKETS, OUTCOMES, TROUBLES, TenantCounts


@pytest.fixture
async def counters(server: str | None) -> AsyncIterator[EdgeCounters]:
    """Each kind in turn, at zero."""
    if server is None:
        yield MemoryEdgeCounters()
        return
    redis_counters = RedisEdgeCounters(redis_client(server, timeout_s=10.0, max_connections=4))
    yield redis_counters
    await redis_counters.close()


def counts_of(start: int) -> TenantCounts:
    """Counts that all differ, from `start` up."""
    numbers = iter(range(start, start + 100))
    return TenantCounts(
        outcomes={outcome: next(numbers) for outcome in OUTCOMES},
        troubles={trouble: next(numbers) for trouble in TROUBLES},
        body_bytes=next(numbers),
        latency=[next(numbers) for _ in BUCKETS],
        latency_us=next(numbers),
    )


async def test_a_tenant_nobody_counted_has_zeros(counters: EdgeCounters) -> None:
    """Nothing is not an error."""
    assert await counters.read("acme") == TenantCounts()


async def test_what_is_added_adds_up(counters: EdgeCounters) -> None:
    """Field by field, also those that were zero before."""
    whole = TenantCounts()
    for start in (0, 1000, 7):
        await counters.add({"acme": counts_of(start)})
        whole.merge(counts_of(start))
    assert await counters.read("acme") == whole


async def test_tenants_are_counted_apart(counters: EdgeCounters) -> None:
    """One flush brings several."""
    await counters.add({"acme": counts_of(1), "other": counts_of(2)})
    await counters.add({"other": counts_of(3)})
    other = counts_of(2)
    other.merge(counts_of(3))
    assert await counters.read("acme") == counts_of(1)
    assert await counters.read("other") == other


async def test_hits_by_key_are_not_kept(counters: EdgeCounters) -> None:
    """They are warming's."""
    await counters.add({"acme": TenantCounts(hits={"0" * 16: 3}, other_hits=2)})
    assert await counters.read("acme") == TenantCounts()


async def test_adding_nothing_is_fine(counters: EdgeCounters) -> None:
    """A flush without tenants, and a tenant without counts."""
    await counters.add({})
    await counters.add({"acme": TenantCounts()})
    assert await counters.read("acme") == TenantCounts()


async def test_closing_twice_is_fine(counters: EdgeCounters) -> None:
    """Close is idempotent."""
    await counters.close()
    await counters.close()


async def test_the_layout_is_as_documented(bundled_redis: str) -> None:
    """One hash a tenant, without an end; what a later version added there is left alone."""
    async with Redis.from_url(bundled_redis) as client:
        await client.flushall()
        counters = RedisEdgeCounters.from_url(bundled_redis, prefix="mine")
        counts = TenantCounts(body_bytes=5)
        counts.outcomes["hit"] = 2
        counts.latency[0] = 2
        await counters.add({"acme": counts})
        name = "mine:edge:{acme}"
        assert await client.keys() == [name.encode()]
        assert await client.hgetall(name) == {
            b"outcome:hit": b"2",
            b"bytes": b"5",
            b"latency_ms:0.5": b"2",
        }
        assert await client.ttl(name) == -1
        await client.hset(name, "later", "1")
        assert await counters.read("acme") == counts
        await counters.close()


async def test_an_outage_is_told() -> None:
    """No Redis, no zeros."""
    counters = RedisEdgeCounters.from_url("redis://127.0.0.1:1")
    for operation in (counters.add({"acme": counts_of(1)}), counters.read("acme")):
        with pytest.raises(StoreError, match=r"^Redis: ConnectionError$"):
            await operation
    await counters.close()
