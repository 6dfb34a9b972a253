"""What is read of a Redis for its operator, from real servers."""

from __future__ import annotations

import pytest

from origin.stores.contract import StoreError
from origin.stores.redis_facts import RedisFacts, ServerFacts, together
from origin.stores.redis_store import redis_client
from tests.support.redis_servers import NODES


async def test_every_server_tells(server: str | None) -> None:
    """Its version, its memory; of a Cluster all primaries together."""
    if server is None:
        return
    facts = RedisFacts(redis_client(server, timeout_s=10.0, max_connections=1))
    told = await facts.read()
    await facts.close()
    assert told is not None
    assert told.servers == (NODES if "cluster" in server else 1)
    assert told.version[0].isdigit()
    assert told.used_bytes > 0
    assert told.evicted_keys == 0
    assert told.policy


def test_servers_are_added_up() -> None:
    """What they count; of the rest the first, and the youngest."""
    one = {"redis_version": "8.0.2", "maxmemory_policy": "volatile-lru", "used_memory": 5}
    facts = together(
        [
            {**one, "maxmemory": 10, "evicted_keys": 3, "expired_keys": 1, "uptime_in_seconds": 9},
            {**one, "maxmemory": 20, "evicted_keys": 4, "expired_keys": 2, "uptime_in_seconds": 7},
        ]
    )
    assert facts == ServerFacts(
        version="8.0.2",
        servers=2,
        policy="volatile-lru",
        used_bytes=10,
        max_bytes=30,
        evicted_keys=7,
        expired_keys=3,
        up_s=7,
    )


async def test_evictions_are_counted(bundled_redis: str) -> None:
    """As the server evicts: what an operator watches for."""
    client = redis_client(bundled_redis, timeout_s=10.0, max_connections=1)
    facts = RedisFacts.from_url(bundled_redis)
    before = await facts.read()
    assert before is not None
    limit = (await client.config_get("maxmemory"))["maxmemory"] or "0"
    try:
        await client.flushall()
        for number in range(200):
            await client.set(f"k{number}", bytes(20_000), ex=1000)
        await client.config_set("maxmemory", before.used_bytes + 1_000_000)
        await client.set("one more", bytes(20_000), ex=1000)
        after = await facts.read()
    finally:
        await client.config_set("maxmemory", limit)
        await client.flushall()
        await client.aclose()
        await facts.close()
    assert after is not None
    assert after.evicted_keys > before.evicted_keys


async def test_an_outage_is_told() -> None:
    """Not zeros."""
    facts = RedisFacts.from_url("redis://127.0.0.1:1")
    with pytest.raises(StoreError):
        await facts.read()
    await facts.close()
