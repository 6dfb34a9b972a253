"""The contract of the usage store, asked of memory and of real Redis servers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.asyncio import Redis

from origin.stores.contract import StoreError
from origin.stores.memory_usage import MemoryUsageStore
from origin.stores.redis_store import redis_client
from origin.stores.redis_usage import TENANTS_A_READ, RedisUsageStore
from origin.stores.usage_contract import (
    EVERY_TENANT,
    RECENT_SLOTS,
    SLOT_S,
    Kept,
    Name,
    Usage,
    UsageStore,
)
from shared.counts import OTHER

MAX_NAMES = 8
MAX_KEYS = 5
A: Name = ("gpt-4o", "listing", "requests", "edge", "hit", "exact")
B: Name = ("m:[\"']{}\u00e9", None, "saved", "origin", "prompt")
BYTES: Name = (None, None, "bytes", "edge")


@pytest.fixture
async def store(server: str | None) -> AsyncIterator[UsageStore]:
    """Each kind in turn, empty, with narrow bounds."""
    if server is None:
        yield MemoryUsageStore(max_names=MAX_NAMES, max_keys=MAX_KEYS)
        return
    client = redis_client(server, timeout_s=10.0, max_connections=4)
    redis_store = RedisUsageStore(client, max_names=MAX_NAMES, max_keys=MAX_KEYS)
    yield redis_store
    await redis_store.close()


async def hits(store: UsageStore) -> dict[str, int]:
    """The hits of acme by key."""
    kept = await store.read("acme", top=100)
    return {hot.key: hot.hits for hot in kept.hottest}


async def test_a_tenant_nobody_counted_has_nothing(store: UsageStore) -> None:
    """Nothing is not an error, and asking adds nobody."""
    assert await store.read("acme", top=3) == Kept()
    assert await store.tenants() == frozenset()


async def test_numbers_add_up(store: UsageStore) -> None:
    """By name, whatever is in a name; large ones stay exact."""
    await store.add({"acme": Usage(numbers={A: 1, B: 2**53 - 2})})
    await store.add({"acme": Usage(numbers={B: 1, BYTES: 7})})
    assert (await store.read("acme", top=0)).numbers == {A: 1, B: 2**53 - 1, BYTES: 7}


async def test_tenants_are_kept_apart(store: UsageStore) -> None:
    """One flush brings several, and all are listed."""
    await store.add({"acme": Usage(numbers={A: 1}), "other": Usage(numbers={A: 2})})
    await store.add({"other": Usage(numbers={B: 3}, hits={"0" * 16: 1})})
    assert (await store.read("acme", top=9)).numbers == {A: 1}
    assert (await store.read("other", top=9)).numbers == {A: 2, B: 3}
    assert await hits(store) == {}
    assert await store.tenants() == {"acme", "other"}


async def test_the_hottest_keys_come_first(store: UsageStore) -> None:
    """As many as are asked for, with the time of their last hit."""
    began_ms = time.time_ns() // 1_000_000
    await store.add({"acme": Usage(hits={"a" * 16: 2, "b" * 16: 1})})
    await store.add({"acme": Usage(hits={"b" * 16: 4, "c" * 16: 3})})
    hottest = (await store.read("acme", top=2)).hottest
    assert [(hot.key, hot.hits) for hot in hottest] == [("b" * 16, 5), ("c" * 16, 3)]
    assert all(began_ms - 1000 <= hot.last_ms <= began_ms + 60_000 for hot in hottest)
    assert (await store.read("acme", top=0)).hottest == ()


async def test_the_keys_hit_last_are_known(store: UsageStore) -> None:
    """However often those before them were hit."""
    await store.add({"acme": Usage(hits={f"{n}": 100 for n in range(MAX_KEYS)})})
    await asyncio.sleep(0.01)  # the next millisecond
    await store.add({"acme": Usage(hits={"1": 1, "3": 1})})
    await asyncio.sleep(0.01)
    await store.add({"acme": Usage(hits={"new": 1, "newer": 2, "newest": 3})})
    assert await hits(store) == {"1": 101, "3": 101, "new": 1, "newer": 2, "newest": 3}


async def test_too_many_names_are_folded(store: UsageStore) -> None:
    """Known ones go on; a number of no model or class keeps its name."""
    names: list[Name] = [(f"m{n}", "c", "requests", "edge", "hit") for n in range(MAX_NAMES + 3)]
    await store.add({"acme": Usage(numbers=dict.fromkeys(names, 1))})
    await store.add({"acme": Usage(numbers={names[0]: 1, names[-1]: 1, BYTES: 5})})
    numbers = (await store.read("acme", top=0)).numbers
    folded = (OTHER, OTHER, "requests", "edge", "hit")
    assert numbers[names[0]] == 2
    assert numbers[BYTES] == 5
    assert names[-1] not in numbers
    assert numbers[folded] == len(names) + 1 - (len(numbers) - 2)
    assert len(numbers) <= MAX_NAMES + 1


async def test_the_time_of_the_first_is_kept(store: UsageStore) -> None:
    """Later ones do not move it."""
    began_ms = time.time_ns() // 1_000_000
    await store.add({"acme": Usage(numbers={A: 1})})
    first = (await store.read("acme", top=0)).since_ms
    assert first is not None
    assert began_ms - 1000 <= first <= began_ms + 60_000
    await asyncio.sleep(0.01)
    await store.add({"acme": Usage(numbers={A: 1})})
    assert (await store.read("acme", top=0)).since_ms == first


async def test_adding_nothing_is_fine(store: UsageStore) -> None:
    """A flush without tenants, and a tenant without numbers."""
    await store.add({})
    await store.add({"acme": Usage()})
    assert (await store.read("acme", top=5)).numbers == {}


async def test_concurrent_flushes_add_up(store: UsageStore) -> None:
    """Many processes, one number."""
    usage = Usage(numbers={A: 1}, hits={"a" * 16: 2})
    await asyncio.gather(*(store.add({"acme": usage, "other": usage}) for _ in range(20)))
    assert (await store.read("acme", top=1)).numbers == {A: 20}
    assert await hits(store) == {"a" * 16: 40}


async def test_closing_twice_is_fine(store: UsageStore) -> None:
    """Close is idempotent."""
    await store.close()
    await store.close()


async def test_the_layout_is_as_documented(bundled_redis: str) -> None:
    """A set, and three keys a tenant in one slot, without an end."""
    async with Redis.from_url(bundled_redis) as client:
        await client.flushall()
        store = RedisUsageStore.from_url(bundled_redis, prefix="mine")
        await store.add({"acme": Usage(numbers={BYTES: 5}, hits={"a" * 16: 2})})
        name = "mine:usage:{acme}"
        names = {name, f"{name}:hits", f"{name}:last", "mine:usage:tenants"}
        assert set(await client.keys()) == {each.encode() for each in names}
        assert await client.hget(name, '[null,null,"bytes","edge"]') == b"5"
        assert await client.zscore(f"{name}:hits", "a" * 16) == 2
        assert [await client.ttl(each) for each in names] == [-1] * 4
        await store.close()


async def test_many_are_read_as_each_alone(store: UsageStore) -> None:
    """In the order asked for, more of them than one round trip takes, and some nobody counted."""
    tenants = [f"t{number}" for number in range(TENANTS_A_READ + 3)]
    await store.add(
        {
            tenant: Usage(numbers={A: number + 1}, hits={"a" * 16: number + 1})
            for number, tenant in enumerate(tenants)
            if number % 3
        }
    )
    asked = tenants[::-1]
    kept = await store.read_many(asked, top=1)
    assert kept == [await store.read(tenant, top=1) for tenant in asked]
    assert [each.numbers.get(A, 0) for each in kept[:4]] == [53, 0, 51, 50]


async def test_an_outage_is_told() -> None:
    """No Redis, no zeros."""
    store = RedisUsageStore.from_url("redis://127.0.0.1:1")
    usage = {"acme": Usage(numbers={A: 1})}
    asked = (store.add(usage), store.read("acme", top=1), store.recent("acme"), store.tenants())
    for operation in asked:
        with pytest.raises(StoreError, match=r"^Redis: ConnectionError$"):
            await operation
    await store.close()


NUMBERS = st.dictionaries(st.sampled_from([A, B, BYTES]), st.integers(1, 9))
HITS = st.dictionaries(st.sampled_from(["a", "b", "c"]), st.integers(1, 9))


@given(st.lists(st.builds(Usage, numbers=NUMBERS, hits=HITS)))
def test_merging_is_adding(parts: list[Usage]) -> None:
    """What goes with the next flush is what both had."""
    whole = Usage()
    for part in parts:
        whole.merge(part)
    for name in (A, B, BYTES):
        assert whole.numbers.get(name, 0) == sum(part.numbers.get(name, 0) for part in parts)
    for key in "abc":
        assert whole.hits.get(key, 0) == sum(part.hits.get(key, 0) for part in parts)


SLOT_MS = SLOT_S * 1000
HIT: Name = (None, None, "requests", "edge", "hit", "exact")


async def test_of_late_models_and_classes_are_one(store: UsageStore) -> None:
    """By tenant, and of all of them; what is not for charts is left out."""
    began_ms = (await store.recent("acme")).now_ms
    other: Name = ("m", "c", "requests", "edge", "hit", "exact")
    await store.add({"acme": Usage(numbers={A: 1, other: 2, BYTES: 7}), "b": Usage()})
    await store.add({"b": Usage(numbers={A: 4})})
    for tenant, hits in {"acme": 3, "b": 4, EVERY_TENANT: 7, "nobody": 0}.items():
        recent = await store.recent(tenant)
        assert all(set(numbers) == {HIT} for numbers in recent.slots.values())
        assert sum(numbers[HIT] for numbers in recent.slots.values()) == hits
        for start_ms in recent.slots:
            assert start_ms % SLOT_MS == 0
            assert began_ms - SLOT_MS < start_ms <= recent.now_ms
    assert EVERY_TENANT not in await store.tenants()


async def test_slots_end(bundled_redis: str) -> None:
    """What is older than the charts is not kept."""
    async with Redis.from_url(bundled_redis) as client:
        await client.flushall()
        store = RedisUsageStore.from_url(bundled_redis)
        await store.add({"acme": Usage(numbers={A: 1})})
        names = await client.keys("encore:usage:*:at:*")
        assert len(names) == 2
        for name in names:
            assert RECENT_SLOTS * SLOT_S < await client.ttl(name) <= (RECENT_SLOTS + 1) * SLOT_S
        await store.close()


async def test_only_the_last_slots_are_told() -> None:
    """The oldest of them goes when one more begins."""
    now_ms = 1_700_000_000_000
    store = MemoryUsageStore(now_ms=lambda: now_ms)
    await store.add({"acme": Usage(numbers={A: 1})})
    for _ in range(RECENT_SLOTS - 1):
        now_ms += SLOT_MS
        await store.add({"acme": Usage(numbers={A: 1})})
    assert len((await store.recent("acme")).slots) == RECENT_SLOTS
    now_ms += SLOT_MS
    assert len((await store.recent("acme")).slots) == RECENT_SLOTS - 1
