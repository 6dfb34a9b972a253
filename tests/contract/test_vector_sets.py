"""What only the index in Redis 8 vector sets has to do: ends, room, outages, layout."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from redis.asyncio import Redis

from origin.semantic.vector_set_index import SPARE, Quantisation, VectorSetIndex, has_vector_sets
from origin.stores.contract import StoreError
from origin.stores.redis_store import redis_client
from tests.support.redis_servers import KINDS, emptied
from tests.support.semantic import DIMS, NOW_MS, PATIENT_S, an_entry, basis, toward


@pytest.fixture
async def url(redis_url: Callable[[str], str]) -> AsyncIterator[str]:
    """The URL of a Redis 8, empty."""
    if "redis8" not in KINDS:
        pytest.skip("Redis 8 is not there; tools/redis8.sh fetches it")
    url = redis_url("redis8")
    async with emptied(url):
        yield url


@pytest.fixture
async def index(url: str) -> AsyncIterator[VectorSetIndex]:
    """An index there, as it is by default."""
    index = VectorSetIndex.from_url(url, identity="m1", dims=DIMS, timeout_s=PATIENT_S)
    yield index
    await index.close()


@pytest.fixture
async def client(url: str) -> AsyncIterator[Any]:
    """Somebody else's client."""
    async with Redis.from_url(url) as client:
        yield client


@pytest.mark.parametrize("kind", KINDS)
async def test_it_is_known_which_redis_has_them(redis_url: Callable[[str], str], kind: str) -> None:
    """Redis 8, and a Cluster of it."""
    client = redis_client(redis_url(kind), timeout_s=PATIENT_S, max_connections=1)
    expected = kind == "redis8" or (kind == "cluster" and "redis8" in KINDS)
    assert await has_vector_sets(client) == expected
    await client.aclose()


async def test_an_outage_is_told() -> None:
    """No Redis, no misses."""
    index = VectorSetIndex.from_url("redis://127.0.0.1:1", identity="m1", dims=DIMS)
    for operation in (
        index.add(an_entry(1), now_ms=NOW_MS),
        index.find("acme", "p", "f1", now_ms=NOW_MS),
        index.search("acme", "p", basis(1), count=1, now_ms=NOW_MS),
        index.remove("acme", ["k1"]),
        index.clear(),
        index.count(),
    ):
        with pytest.raises(StoreError, match=r"^Redis: ConnectionError$"):
            await operation
    await index.add(an_entry(1), now_ms=NOW_MS, private=True)
    found = await index.search("acme", "p", basis(1), count=1, now_ms=NOW_MS, private=True)
    assert [one.key for one in found] == ["k1"]
    await index.close()


async def test_what_is_over_hides_nothing(index: VectorSetIndex) -> None:
    """However much of it lies nearer than what is not."""
    await index.add(an_entry(99, vector=toward(0, 0.1), expires_ms=NOW_MS + 90_000), now_ms=NOW_MS)
    for number in range(4 * SPARE):
        await index.add(an_entry(number, vector=basis(0)), now_ms=NOW_MS)
    for count in (1, 3):
        found = await index.search("acme", "p", basis(0), count=count, now_ms=NOW_MS + 60_000)
        assert [one.key for one in found] == ["k99"]


async def test_a_set_stays_small_as_entries_come_and_go(index: VectorSetIndex) -> None:
    """Each addition makes room."""
    for number in range(600):
        now_ms = NOW_MS + number * 1000
        text = '"\U0001f600\ud800\x00\\ \u2028' if number % 3 else "{}"
        entry = an_entry(number, text=text, expires_ms=now_ms + 20_000)  # 20 are alive
        await index.add(entry, now_ms=now_ms)
    assert await index.count() < 100


async def test_private_entries_stay_in_the_process(index: VectorSetIndex, client: Any) -> None:
    """Nothing of them is in Redis, nor is what is asked."""
    await index.add(an_entry(1), now_ms=NOW_MS, private=True)
    commands = (await client.info("commandstats")).get("cmdstat_vsim", {}).get("calls", 0)
    await index.search("acme", "p", basis(1), count=1, now_ms=NOW_MS, private=True)
    after = (await client.info("commandstats")).get("cmdstat_vsim", {}).get("calls", 0)
    assert after == commands
    assert await client.keys() == []


async def test_encoders_do_not_meet(index: VectorSetIndex, url: str) -> None:
    """Nor do quantisations: a set has one."""
    kinds: list[tuple[str, Quantisation]] = [("m2", "Q8"), ("m1", "NOQUANT")]
    others = [
        VectorSetIndex(
            redis_client(url, timeout_s=PATIENT_S, max_connections=1),
            identity=identity,
            dims=DIMS,
            quantisation=quantisation,
        )
        for identity, quantisation in kinds
    ]
    await index.add(an_entry(1), now_ms=NOW_MS)
    for other in others:
        assert await other.search("acme", "p", basis(1), count=1, now_ms=NOW_MS) == []
        await other.add(an_entry(1), now_ms=NOW_MS)
        await other.clear()
        await other.close()
    assert await index.find("acme", "p", "f1", now_ms=NOW_MS) is not None


async def test_what_was_evicted_does_no_harm(index: VectorSetIndex, client: Any) -> None:
    """A set, or where a key is; the entry may come again."""
    await index.add(an_entry(1), now_ms=NOW_MS)
    (name,) = await client.keys("*:p:p")
    await client.delete(name)
    assert await index.search("acme", "p", basis(1), count=1, now_ms=NOW_MS) == []
    await index.remove("acme", ["k1"])
    await index.add(an_entry(1), now_ms=NOW_MS)
    await client.delete(*await client.keys("*:k:*"))
    await index.remove("acme", ["k1"])
    assert await index.find("acme", "p", "f1", now_ms=NOW_MS) is not None


async def test_what_was_removed_leaves_nothing(index: VectorSetIndex, client: Any) -> None:
    """Neither a text nor a key."""
    for number in range(3):
        await index.add(an_entry(number), now_ms=NOW_MS)
    await index.remove("acme", ["k0", "k1", "k2"])
    assert await client.keys() == []


async def test_the_layout_is_as_documented(index: VectorSetIndex, client: Any) -> None:
    """A set that ends with its last entry, and a key a key."""
    for number, minutes in ((1, 1), (2, 3), (3, 2)):
        entry = an_entry(number, expires_ms=NOW_MS + minutes * 60_000)
        await index.add(entry, now_ms=NOW_MS)
    (name,) = await client.keys("*:p:*")
    assert name.startswith(b"encore:vectors:")
    assert name.endswith(b":{acme}:p:p")
    assert await client.pexpiretime(name) == NOW_MS + 180_000
    assert await client.execute_command("VCARD", name) == 3
    pointers = {key.rpartition(b":")[2]: key for key in await client.keys("*:{acme}:k:*")}
    assert set(pointers) == {b"k1", b"k2", b"k3"}
    assert await client.get(pointers[b"k3"]) == b"p f3"
    assert await client.pexpiretime(pointers[b"k3"]) == NOW_MS + 120_000
