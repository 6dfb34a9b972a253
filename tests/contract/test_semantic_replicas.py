"""Processes that share an in-process index by Redis, asked of every kind of Redis."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from redis.asyncio import Redis

from origin.semantic.local_index import LocalIndex
from origin.semantic.redis_entries import identity_digest
from origin.stores.redis_store import redis_client
from tests.support.redis_servers import KINDS, emptied
from tests.support.semantic import DIMS, NOW_MS, PATIENT_S, an_entry, basis, entries_client
from tests.support.waiting import until

STREAM = f"encore:semantic:{identity_digest('m1')}"


@pytest.fixture(params=KINDS)
async def url(
    request: pytest.FixtureRequest, redis_url: Callable[[str], str]
) -> AsyncIterator[str]:
    """The URL of each server in turn, empty."""
    url = redis_url(request.param)
    async with emptied(url):
        yield url


@pytest.fixture
async def client(url: str) -> AsyncIterator[Any]:
    """Somebody else's client."""
    client: Any = redis_client(url, timeout_s=PATIENT_S, max_connections=4)
    yield client
    await client.aclose()


@pytest.fixture
async def start(url: str) -> AsyncIterator[Callable[..., Any]]:
    """Start a process' index."""
    started: list[LocalIndex] = []

    async def start(identity: str = "m1", **options: Any) -> LocalIndex:
        entries = entries_client(url, identity, **options)
        index = LocalIndex(identity=identity, dims=DIMS, entries=entries)
        started.append(index)
        await index.start()
        return index

    yield start
    for index in started:
        await index.close()


async def finds(index: LocalIndex, number: int, tenant: str = "acme") -> bool:
    """Whether it has the entry of that number."""
    return await index.find(tenant, "p", f"f{number}", now_ms=NOW_MS) is not None


async def comes(index: LocalIndex, number: int, tenant: str = "acme") -> None:
    """Wait until it has."""

    async def has_come() -> bool:
        return await finds(index, number, tenant)

    await until(has_come)


async def goes(index: LocalIndex, number: int, tenant: str = "acme") -> None:
    """Wait until it has not any more."""

    async def has_gone() -> bool:
        return not await finds(index, number, tenant)

    await until(has_gone)


async def test_what_one_does_the_others_have(start: Any) -> None:
    """Whole entries, replaced and removed ones; a tenant's, and all."""
    here, there = await start(), await start()
    text = 'é "\U0001f600" \n \x00'
    await here.add(an_entry(1, text=text), now_ms=NOW_MS)
    await comes(there, 1)
    (found,) = await there.search("acme", "p", basis(1), count=9, now_ms=NOW_MS)
    assert (found.key, found.text, found.similarity) == ("k1", text, 1.0)
    assert found.expires_ms == NOW_MS + 60_000
    await there.add(an_entry(2, key="k1"), now_ms=NOW_MS)
    await comes(here, 2)
    assert not await finds(here, 1)
    await here.remove("acme", ["k1", "k9"])
    await goes(there, 2)
    for number, tenant in enumerate(("acme", "acme", "other")):
        await here.add(an_entry(number, tenant=tenant), now_ms=NOW_MS)
        await comes(there, number, tenant)
    await there.clear("acme")
    await goes(here, 1)
    assert not await finds(here, 0)
    assert await finds(here, 2, "other")
    await there.clear()
    await goes(here, 2, "other")


async def test_a_process_that_starts_reads_what_is_there(start: Any) -> None:
    """More than fit into a batch, and what comes next."""
    here = await start()
    for number in range(450):
        await here.add(an_entry(number, tenant=f"t{number % 3}"), now_ms=NOW_MS)
    await here.remove("t0", ["k0"])
    await here.close()
    there = await start()
    await comes(there, 449, "t2")

    async def has_read_all() -> bool:
        return bool(await there.count() == 449)

    await until(has_read_all)
    assert not await finds(there, 0, "t0")
    again = await start()
    await again.add(an_entry(500), now_ms=NOW_MS)
    await comes(there, 500)


async def test_a_lost_redis_is_followed_anew(start: Any, client: Any, url: str) -> None:
    """What it has lost is dropped; what is written next comes to all."""
    here, there = await start(), await start()
    await here.add(an_entry(1), now_ms=NOW_MS)
    await there.add(an_entry(5), now_ms=NOW_MS, private=True)
    await comes(there, 1)
    async with emptied(url):
        pass
    await goes(there, 1)
    await goes(here, 1)
    await here.add(an_entry(2), now_ms=NOW_MS)
    await comes(there, 2)
    await there.add(an_entry(3), now_ms=NOW_MS)
    await comes(here, 3)
    assert await finds(there, 5)
    assert await client.exists(STREAM)


async def test_who_has_missed_events_reads_all_anew(
    start: Any, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stream was cut beyond where it was."""
    here, there = await start(), await start()
    for number in range(3):
        await here.add(an_entry(number), now_ms=NOW_MS)
        await comes(there, number)
    entries = there._replica._entries
    read, may_read = entries.changed, asyncio.Event()

    async def read_later(*arguments: Any) -> Any:
        await may_read.wait()
        return await read(*arguments)

    monkeypatch.setattr(entries, "changed", read_later)
    await here.add(an_entry(3), now_ms=NOW_MS)  # the last that it reads as it comes
    await comes(there, 3)
    await here.remove("acme", ["k1"])
    await here.add(an_entry(4), now_ms=NOW_MS)
    await here.close()
    await client.xtrim(STREAM, maxlen=1, approximate=False)
    may_read.set()
    await comes(there, 4)
    await goes(there, 1)
    assert await finds(there, 0)


async def test_a_stream_of_the_past_is_read_anew(start: Any, client: Any) -> None:
    """A Redis that was restored knows less than who follows it."""
    here, there = await start(), await start()
    await here.add(an_entry(1), now_ms=NOW_MS)
    await comes(there, 1)
    for name in (STREAM, f"{STREAM}:{{acme}}:k1"):
        await client.delete(name)
    await client.xadd(STREAM, {"new": ""}, id="1-1")
    await goes(there, 1)
    await goes(here, 1)


async def test_what_is_not_written_yet_stays(
    start: Any, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though all is read anew, and it is not there."""
    here = await start()
    await here.add(an_entry(1), now_ms=NOW_MS)
    there = await start()
    await comes(there, 1)
    entries = here._replica._entries
    write, may_write = entries.write, asyncio.Event()

    async def write_later(*arguments: Any) -> None:
        await may_write.wait()
        await write(*arguments)

    monkeypatch.setattr(entries, "write", write_later)
    await here.add(an_entry(2), now_ms=NOW_MS)
    await here.remove("acme", ["k3"])
    await there.add(an_entry(3), now_ms=NOW_MS)
    await there.close()
    await client.xtrim(STREAM, maxlen=0, approximate=False)
    await client.delete(f"{STREAM}:{{acme}}:k1")
    await client.xadd(STREAM, {"new": ""})
    await goes(here, 1)
    assert await finds(here, 2)
    assert not await finds(here, 3)
    may_write.set()
    third = await start()
    await comes(third, 2)


async def test_what_is_removed_while_it_is_read_stays_removed(
    start: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was read is older."""
    here, there = await start(), await start()
    entries = here._replica._entries
    read, has_read, may_go_on = entries.read, asyncio.Event(), asyncio.Event()

    async def read_slowly(names: Any) -> Any:
        found = await read(names)
        if ("acme", "k1") in names:
            has_read.set()
            await may_go_on.wait()
        return found

    monkeypatch.setattr(entries, "read", read_slowly)
    await there.add(an_entry(1), now_ms=NOW_MS)
    await has_read.wait()
    await here.remove("acme", ["k1"])
    may_go_on.set()

    async def has_gone() -> bool:
        assert not await finds(here, 1)
        return not await finds(there, 1)

    await until(has_gone)


async def test_what_follows_a_clearing_stays(start: Any) -> None:
    """In the process itself at any moment, and in the others in the end."""
    here, there = await start(), await start()
    for number in range(20):
        await here.add(an_entry(number), now_ms=NOW_MS)
        await here.clear("acme" if number % 2 else None)
        await here.add(an_entry(number + 20), now_ms=NOW_MS)

        async def has_come(number: int = number) -> bool:
            assert await finds(here, number + 20)
            assert not await finds(here, number)
            return await finds(there, number + 20)

        await until(has_come)
    assert await here.count() == 1


async def test_the_stream_is_bounded(start: Any, client: Any) -> None:
    """About as long as it may be."""
    here = await start(stream_length=100)
    for number in range(1000):
        await here.add(an_entry(number), now_ms=NOW_MS)
    await here.close()
    assert await client.xlen(STREAM) < 500


async def test_private_entries_stay_in_the_process(start: Any, client: Any) -> None:
    """Nothing of them is in Redis, and no other process finds them; they are removed everywhere."""
    here, there = await start(), await start()
    await here.add(an_entry(1), now_ms=NOW_MS, private=True)
    await here.add(an_entry(2), now_ms=NOW_MS)
    await comes(there, 2)
    assert not await finds(there, 1)
    assert [name async for name in client.scan_iter(match="*k1*")] == []
    assert all(fields.get(b"key") != b"k1" for _, fields in await client.xrange(STREAM))
    await there.remove("acme", ["k1"])
    await goes(here, 1)


async def test_encoders_do_not_meet(start: Any) -> None:
    """Neither entries nor events."""
    one, other = await start(), await start("m2")
    await one.add(an_entry(1), now_ms=NOW_MS)
    await other.add(an_entry(2), now_ms=NOW_MS)
    third = await start("m2")
    await comes(third, 2)
    assert not await finds(third, 1)
    assert not await finds(other, 1)


BROKEN = {
    "empty": b"",
    "a time that is none": b"@",
    "no JSON": b"[\n" + basis(1).tobytes(),
    "no object": b"3\n" + basis(1).tobytes(),
    "fields missing": b"{}\n" + basis(1).tobytes(),
    "not unit": b"1.0",
    "a vector of another length": b"+\x00\x00\x00\x00",
}


@pytest.mark.parametrize("kind", BROKEN)
async def test_what_cannot_be_read_is_passed_over(start: Any, client: Any, kind: str) -> None:
    """At the start and later; the next entry is read."""
    here = await start()
    await here.add(an_entry(1), now_ms=NOW_MS)
    await here.close()
    name = f"{STREAM}:{{acme}}:k1"
    good = await client.get(name)
    broken = BROKEN[kind]
    if broken[:1] == b"1":
        broken = good[:-4] + b"\x00\x00\x80\x7f"
    elif broken[:1] == b"+":
        broken = good + broken[1:]
    elif broken == b"@":
        broken = good.replace(str(NOW_MS + 60_000).encode(), b"1" + b"0" * 20)
    await client.set(name, broken)
    await client.set(f"{STREAM}:{{acme}}:\xff", broken)
    await client.xadd(STREAM, {b"tenant": b"\xff", b"key": b"\xff", b"by": b"\xff"})
    await client.set(f"{STREAM}:{{acme}}:k2", good)  # under a name of another
    there = await start()
    other = await start()
    await other.add(an_entry(3), now_ms=NOW_MS)
    await comes(there, 3)
    assert await there.count() == 1


async def test_concurrent_processes_agree(start: Any) -> None:
    """Whoever wrote last."""
    indexes = [await start() for _ in range(3)]
    for round_number in range(20):
        for place, index in enumerate(indexes):
            await index.add(an_entry(1, text=f"{round_number} {place}"), now_ms=NOW_MS)
            if round_number % 5 == place:
                await index.remove("acme", ["k1"])
            await index.add(an_entry(place + 2), now_ms=NOW_MS)
        await asyncio.sleep(0)

    async def agree() -> bool:
        found = [await index.find("acme", "p", "f1", now_ms=NOW_MS) for index in indexes]
        counts = [await index.count() for index in indexes]
        return counts == [4] * 3 and len({one and one.text for one in found}) == 1

    await until(agree)


async def test_the_layout_is_as_documented(bundled_redis: str) -> None:
    """An entry with its end, and a stream without one."""
    async with Redis.from_url(bundled_redis) as client:
        await client.flushall()
        index = LocalIndex.from_url(bundled_redis, identity="m1", dims=DIMS, prefix="mine")
        await index.start()
        await index.add(an_entry(1), now_ms=NOW_MS)
        await index.close()
        stream = STREAM.replace("encore", "mine", 1)
        name = f"{stream}:{{acme}}:k1"
        assert set(await client.keys()) == {name.encode(), stream.encode()}
        assert await client.ttl(stream) == -1
        assert await client.ttl(name) > 0
        value: Any = await client.get(name)
        head, _, numbers = value.partition(b"\n")
        assert b'"question 1?"' in head
        assert numbers == basis(1).tobytes()
