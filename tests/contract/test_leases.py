"""The lease contract, asked of every implementation: memory, the embedded Redis, one on PATH."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from redis.asyncio import Redis

from origin.embedded_redis import embedded_redis
from origin.stores.contract import Store, StoreError
from origin.stores.lease_contract import FIRST_PIECE, LEASE_S, LINGER_S, Lease, Leases
from origin.stores.memory import MemoryStore
from origin.stores.memory_leases import MemoryLeases
from origin.stores.redis_leases import MAX_WAIT_S, RedisLeases
from origin.stores.redis_store import RedisStore

KEY = "a" * 64
OTHER = "b" * 64
SHORT_S = 0.3
PATIENT_S = 10.0


@dataclass(frozen=True, kw_only=True)
class Parts:
    """A store, leases beside its entries, and leases that soon run out."""

    store: Store
    leases: Leases
    short: Leases


@pytest.fixture
async def parts(server: str | None) -> AsyncIterator[Parts]:
    """Each implementation in turn, empty."""
    if server is None:
        store = MemoryStore()
        leases, short = MemoryLeases(store), MemoryLeases(store, lease_s=SHORT_S)
        short._held, short._said = leases._held, leases._said
        yield Parts(store=store, leases=leases, short=short)
        return
    redis_store = RedisStore.from_url(server, timeout_s=PATIENT_S)
    of_redis = [
        RedisLeases.from_url(server, timeout_s=PATIENT_S, lease_s=lease_s)
        for lease_s in (LEASE_S, SHORT_S)
    ]
    yield Parts(store=redis_store, leases=of_redis[0], short=of_redis[1])
    for each in of_redis:
        await each.close()
    await redis_store.close()


@pytest.fixture
def leases(parts: Parts) -> Leases:
    """Leases of the usual length."""
    return parts.leases


async def taken(leases: Leases, flight: str, *, key: str = KEY, insist: bool = False) -> Lease:
    """A lease, asked for by `flight`."""
    return await leases.acquire(key, flight, f"about {flight}".encode(), insist=insist)


async def until(is_so: Callable[[], Awaitable[bool]]) -> None:
    """Ask until it is so."""
    async with asyncio.timeout(10):
        while not await is_so():  # noqa: ASYNC110 - asked of another process
            await asyncio.sleep(0.01)


async def test_one_of_many_gets_the_lease(leases: Leases) -> None:
    """All others are told of it."""
    given = await asyncio.gather(*(taken(leases, f"f{number}") for number in range(20)))
    (holder,) = {lease.flight for lease in given}
    assert {(lease.token, lease.about) for lease in given} == {
        (given[0].token, f"about {holder}".encode())
    }


async def test_asking_again_by_the_same_name_gives_the_same_lease(leases: Leases) -> None:
    """The answer may have been lost on its way."""
    assert await taken(leases, "one") == await taken(leases, "one")
    insisting = await taken(leases, "two", insist=True)
    assert await taken(leases, "two", insist=True) == insisting


async def test_keys_have_leases_of_their_own(leases: Leases) -> None:
    """One does not keep the other."""
    assert (await taken(leases, "one")).flight == "one"
    assert (await taken(leases, "two", key=OTHER)).flight == "two"


async def test_lease_that_was_given_back_is_free(leases: Leases) -> None:
    """At once, and giving it back twice is fine."""
    one = await taken(leases, "one")
    for _ in range(2):
        await leases.end(one, FIRST_PIECE, b"end")
    two = await taken(leases, "two")
    assert two.flight == "two"
    await leases.end(one, FIRST_PIECE, b"end")
    assert (await taken(leases, "three")).flight == "two"


async def test_lease_that_was_never_given_may_be_given_back(leases: Leases) -> None:
    """Who does not know whether it was given does so."""
    nobodys = Lease(key=KEY, flight="never", token=0, about=b"")
    await leases.end(nobodys, FIRST_PIECE, b"")
    assert await leases.read(nobodys, 0, wait_s=0.01) == []
    assert (await taken(leases, "one")).flight == "one"


async def test_lease_of_a_dead_holder_runs_out(parts: Parts) -> None:
    """With its pieces; it cannot be held any more then."""
    one = await taken(parts.short, "one")
    await parts.short.say(one, FIRST_PIECE, b"said")
    began_s = time.monotonic()

    async def is_over() -> bool:
        return await parts.short.follow(one, "follower", b"") is None

    assert not await is_over()
    await until(is_over)
    assert time.monotonic() - began_s > SHORT_S / 2
    assert await parts.short.say(one, FIRST_PIECE + 1, b"more") is None
    assert await parts.short.read(one, 0, wait_s=0.01) == []
    assert (await taken(parts.short, "two")).flight == "two"


async def test_holder_that_is_heard_of_keeps_it(parts: Parts) -> None:
    """For much longer than a lease, whether it says anything or not."""
    one = await taken(parts.short, "one")
    until_s = time.monotonic() + 3 * SHORT_S
    while time.monotonic() < until_s:
        assert await parts.short.say(one, FIRST_PIECE, b"") is not None
        assert (await taken(parts.short, "two")).flight == "one"
        await asyncio.sleep(0.01)


async def test_who_insists_gets_a_lease_of_its_own(leases: Leases) -> None:
    """The flight before it is followed on, and the next ones join the newer."""
    one = await taken(leases, "one")
    two = await taken(leases, "two", insist=True)
    assert (two.flight, two.entry) == ("two", None)
    assert await leases.follow(one, "follower", b"w") is not None
    assert await leases.say(one, FIRST_PIECE, b"old") == [b"w"]
    assert await leases.read(one, 0, wait_s=5) == [(FIRST_PIECE, b"old")]
    await leases.end(one, FIRST_PIECE + 1, b"end")
    assert (await taken(leases, "three")).flight == "two"


async def test_tokens_only_grow(leases: Leases) -> None:
    """Whoever insists, and across leases given back; they are a time in microseconds."""
    before_us = time.time_ns() // 1_000
    leased = [await taken(leases, f"f{number}", insist=True) for number in range(20)]
    await leases.end(leased[-1], FIRST_PIECE, b"end")
    leased.append(await taken(leases, "last"))
    tokens = [lease.token for lease in leased]
    assert tokens == sorted(set(tokens))
    assert before_us - 1_000_000 < tokens[0] <= tokens[-1] < time.time_ns() // 1_000 + 1_000_000


async def test_entry_is_found_with_the_lease(parts: Parts) -> None:
    """By who gets it, and does not insist on a new one."""
    assert (await taken(parts.leases, "one")).entry is None
    await parts.store.put(KEY, b"\x00entry", (time.time_ns() // 1_000_000) + 60_000)
    assert (await taken(parts.leases, "two")).entry is None
    assert (await taken(parts.leases, "three", insist=True)).entry is None
    await parts.leases.end(await taken(parts.leases, "three"), FIRST_PIECE, b"")
    assert (await taken(parts.leases, "four")).entry == b"\x00entry"


async def test_store_refuses_what_an_older_lease_made(parts: Parts) -> None:
    """Also after the newer one was given back; without a token, or with the newest, it takes it."""
    ends_ms = time.time_ns() // 1_000_000 + 60_000
    one = await taken(parts.leases, "one")
    await parts.store.put(KEY, b"one", ends_ms, token=one.token)
    assert await parts.store.get(KEY) == b"one"
    two = await taken(parts.leases, "two", insist=True)
    await parts.store.put(KEY, b"late", ends_ms, token=one.token)
    assert await parts.store.get(KEY) == b"one"
    await parts.leases.end(two, FIRST_PIECE, b"")
    await parts.store.put(KEY, b"later", ends_ms, token=one.token)
    assert await parts.store.get(KEY) == b"one"
    await parts.store.put(KEY, b"two", ends_ms, token=two.token)
    await parts.store.put(KEY, b"new only", ends_ms, token=two.token, only_new=True)
    assert await parts.store.get(KEY) == b"two"
    await parts.store.put(KEY, b"any", ends_ms)
    assert await parts.store.get(KEY) == b"any"
    await parts.store.put(OTHER, b"other", ends_ms, token=1, only_new=True)
    assert await parts.store.get(OTHER) == b"other"
    await parts.store.put(OTHER, b"other", 0, token=1)
    assert await parts.store.get(OTHER) is None


async def test_all_pieces_are_read_in_order(leases: Leases) -> None:
    """However late one comes, whatever they are made of, and behind any of them."""
    one = await taken(leases, "one")
    said = [bytes(range(256)) * 40, *(b"\x00%d" % number for number in range(600)), b"\r\n"]
    for number, piece in enumerate(said, FIRST_PIECE):
        assert await leases.say(one, number, piece) == []
    read: list[tuple[int, bytes]] = []
    while len(read) < len(said):
        read += await leases.read(one, read[-1][0] if read else 0, wait_s=5)
    assert read == list(enumerate(said, FIRST_PIECE))
    assert (await leases.read(one, FIRST_PIECE + 600, wait_s=5))[0][1] == b"\r\n"
    assert await leases.read(one, FIRST_PIECE + 601, wait_s=0.01) == []


async def test_piece_that_is_repeated_is_said_once(leases: Leases) -> None:
    """The first one of a number counts."""
    one = await taken(leases, "one")
    for piece in (b"first", b"again", b""):
        assert await leases.say(one, FIRST_PIECE, piece) == []
    await leases.end(one, FIRST_PIECE, b"end")
    assert await leases.read(one, 0, wait_s=5) == [(FIRST_PIECE, b"first")]


async def test_reader_waits_for_the_next_piece(leases: Leases) -> None:
    """Many at once; others are served meanwhile."""
    one = await taken(leases, "one")
    readers = [asyncio.create_task(leases.read(one, 0, wait_s=MAX_WAIT_S)) for _ in range(20)]
    await asyncio.sleep(0.05)
    assert not any(reader.done() for reader in readers)
    await leases.say(one, FIRST_PIECE, b"said")
    assert await asyncio.gather(*readers) == [[(FIRST_PIECE, b"said")]] * 20


async def test_end_can_be_read_for_a_while(leases: Leases) -> None:
    """By who comes late to read, and is followed still."""
    one = await taken(leases, "one")
    await leases.say(one, FIRST_PIECE, b"said")
    await leases.end(one, FIRST_PIECE + 1, b"end")
    left_s = await leases.follow(one, "late", b"")
    assert left_s is not None
    assert left_s > LINGER_S - 5
    assert [piece for _, piece in await leases.read(one, 0, wait_s=5)] == [b"said", b"end"]


async def test_holder_hears_of_followers(leases: Leases) -> None:
    """Of what each wishes by now, until it leaves."""
    one = await taken(leases, "one")
    assert await leases.say(one, FIRST_PIECE, b"") == []
    left_s = await leases.follow(one, "x", b"\x00 wishes of x")
    assert left_s is not None
    assert 0 < left_s <= 3
    await leases.follow(one, "y", b"")
    assert sorted(await leases.say(one, FIRST_PIECE, b"") or ()) == [b"", b"\x00 wishes of x"]
    await leases.follow(one, "y", b"more")
    await leases.leave(one, "x")
    await leases.leave(one, "x")
    assert await leases.say(one, FIRST_PIECE, b"") == [b"more"]


async def test_follower_that_dies_is_forgotten(parts: Parts) -> None:
    """One that is heard of is not."""
    one = await taken(parts.leases, "one")
    await parts.leases.follow(one, "alive", b"alive")
    await parts.short.follow(one, "dead", b"dead")
    assert sorted(await parts.leases.say(one, FIRST_PIECE, b"") or ()) == [b"alive", b"dead"]

    async def is_alone() -> bool:
        await parts.leases.follow(one, "alive", b"alive")
        return await parts.leases.say(one, FIRST_PIECE, b"") == [b"alive"]

    await until(is_alone)


async def test_followed_flight_is_not_stopped(leases: Leases) -> None:
    """When nobody follows it is: its lease is free, and nothing can be read or followed."""
    one = await taken(leases, "one")
    await leases.say(one, FIRST_PIECE, b"said")
    await leases.follow(one, "x", b"")
    assert not await leases.stop(one)
    assert (await taken(leases, "two")).flight == "one"
    await leases.leave(one, "x")
    assert await leases.stop(one)
    assert await leases.follow(one, "late", b"") is None
    assert await leases.read(one, 0, wait_s=0.01) == []
    assert await leases.say(one, FIRST_PIECE + 1, b"more") is None
    two = await taken(leases, "two")
    assert two.flight == "two"
    assert await leases.stop(one)
    assert (await taken(leases, "three")).flight == "two"


async def test_what_nobody_holds_is_not_followed(leases: Leases) -> None:
    """A flight that never was is like one that died."""
    nobodys = Lease(key=KEY, flight="never", token=0, about=b"")
    assert await leases.follow(nobodys, "x", b"") is None
    assert await leases.say(nobodys, FIRST_PIECE, b"x") is None
    await leases.leave(nobodys, "x")


async def test_closing_twice_is_fine(leases: Leases) -> None:
    """Close is idempotent."""
    await leases.close()
    await leases.close()


async def test_an_outage_is_told() -> None:
    """Every operation on a Redis that is not there raises, and quotes no key."""
    leases = RedisLeases.from_url("redis://127.0.0.1:1")
    lease = Lease(key=KEY, flight="one", token=1, about=b"")
    for operation in (
        leases.acquire(KEY, "one", b"", insist=False),
        leases.say(lease, FIRST_PIECE, b"x"),
        leases.end(lease, FIRST_PIECE, b"x"),
        leases.stop(lease),
        leases.follow(lease, "x", b""),
        leases.leave(lease, "x"),
        leases.read(lease, 0, wait_s=1),
    ):
        with pytest.raises(StoreError, match=r"^Redis: ConnectionError$"):
            await operation
    await leases.close()


async def test_readers_beyond_their_number_are_refused(bundled_redis: str) -> None:
    """Soon, and nothing else suffers."""
    leases = RedisLeases.from_url(bundled_redis, max_readers=2, timeout_s=0.5)
    one = await taken(leases, "crowded")
    readers = [asyncio.create_task(leases.read(one, 0, wait_s=MAX_WAIT_S)) for _ in range(2)]
    await asyncio.sleep(0.05)
    with pytest.raises(StoreError):
        await leases.read(one, 0, wait_s=MAX_WAIT_S)
    for reader in readers:
        reader.cancel()
    await asyncio.gather(*readers, return_exceptions=True)
    await leases.close()


async def _names(client: Redis) -> AsyncIterator[str]:
    for name in await client.keys():
        yield name.decode() if isinstance(name, bytes) else name


async def test_all_that_is_kept_ends_and_shares_a_slot(bundled_redis: str) -> None:
    """Of a whole flight; names are as documented."""
    leases = RedisLeases.from_url(bundled_redis, prefix="one", timeout_s=PATIENT_S)
    async with Redis.from_url(bundled_redis) as client:
        await client.flushall()
        lease = await taken(leases, "f")
        await leases.follow(lease, "x", b"")
        await leases.say(lease, FIRST_PIECE, b"said")
        await leases.end(lease, FIRST_PIECE + 1, b"end")
        names = {name async for name in _names(client)}
        assert names == {f"one:{{{KEY}}}:{kind}" for kind in ("lease", "said:f", "waiting:f")}
        for name in names:
            assert 0 < await client.ttl(name) <= 3600
        assert await client.hkeys(f"one:{{{KEY}}}:lease") == [b"token"]
    await leases.close()


async def test_leases_survive_a_kill_of_their_redis(tmp_path: Path) -> None:
    """A short outage is no end of a flight: pieces, lease and followers are there again."""
    with embedded_redis(tmp_path) as url:
        leases = RedisLeases.from_url(url, lease_s=60, timeout_s=PATIENT_S)
        one = await taken(leases, "one")
        await leases.say(one, FIRST_PIECE, b"said")
        await leases.follow(one, "x", b"w")
        async with Redis.from_url(url) as client:
            server = int((await client.info("server"))["process_id"])
        os.kill(server, signal.SIGKILL)
    with embedded_redis(tmp_path):

        async def is_back() -> bool:
            try:
                return await leases.say(one, FIRST_PIECE + 1, b"more") == [b"w"]
            except StoreError:
                return False

        await until(is_back)
        assert [piece for _, piece in await leases.read(one, 0, wait_s=2)] == [b"said", b"more"]
        await leases.close()
