"""The store contract, asked of every store: memory, the embedded Redis, a redis-server on PATH."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import uvloop
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis.asyncio import Redis
from redis.asyncio.connection import AbstractConnection

from origin.embedded_redis import embedded_redis
from origin.stores.contract import StoreError
from origin.stores.handover import HANDOVER_S, HandoverStore
from origin.stores.memory import MemoryStore
from origin.stores.redis_store import RedisStore, outages_told
from tests.support.redis_servers import KINDS, emptied

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from origin.stores.contract import Store

KEY = "a" * 64
OTHER = "b" * 64
HOUR_MS = 3_600_000
PATIENCE_S = 10.0  # a busy machine is no outage


def now_ms() -> int:
    """Unix time in milliseconds."""
    return time.time_ns() // 1_000_000


@pytest.fixture(params=["memory", "handover", *KINDS])
async def store(
    request: pytest.FixtureRequest, redis_url: Callable[[str], str]
) -> AsyncIterator[Store]:
    """Each store in turn, empty."""
    if request.param == "memory":
        yield MemoryStore()
        return
    if request.param == "handover":
        yield HandoverStore(MemoryStore())
        return
    url = redis_url(request.param)
    async with emptied(url):
        redis_store = RedisStore.from_url(url, timeout_s=PATIENCE_S)
        yield redis_store
        await redis_store.close()


async def gone(store: Store, key: str, *, within_s: float = 5.0) -> bool:
    """Whether nothing is under `key` any more, asked until `within_s` have passed."""
    deadline_s = time.monotonic() + within_s
    while await store.get(key) is not None:
        if time.monotonic() > deadline_s:
            return False
        await asyncio.sleep(0.01)
    return True


async def test_nothing_is_under_an_unknown_key(store: Store) -> None:
    """What was never put is None."""
    assert await store.get(KEY) is None


async def test_an_envelope_comes_back_as_it_was_put(store: Store) -> None:
    """Bytes of every kind survive, an empty envelope included."""
    for envelope in (b"", b"\x00\xff\r\n", bytes(range(256)) * 8192):
        await store.put(KEY, envelope, now_ms() + HOUR_MS)
        assert await store.get(KEY) == envelope


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(envelope=st.binary(max_size=2000))
async def test_any_bytes_come_back(store: Store, envelope: bytes) -> None:
    """No byte is special."""
    await store.put(KEY, envelope, now_ms() + HOUR_MS)
    assert await store.get(KEY) == envelope


async def test_keys_do_not_touch_each_other(store: Store) -> None:
    """A put and a delete concern one key."""
    await store.put(KEY, b"one", now_ms() + HOUR_MS)
    await store.put(OTHER, b"two", now_ms() + HOUR_MS)
    await store.delete(KEY)
    assert await store.get(KEY) is None
    assert await store.get(OTHER) == b"two"


async def test_a_later_put_replaces(store: Store) -> None:
    """The last put wins, its end included."""
    await store.put(KEY, b"old", now_ms() + HOUR_MS)
    await store.put(KEY, b"new", now_ms() + HOUR_MS)
    assert await store.get(KEY) == b"new"


async def test_deleting_nothing_is_fine(store: Store) -> None:
    """Deleting is idempotent."""
    await store.delete(KEY)
    await store.delete(KEY)
    assert await store.get(KEY) is None


@pytest.mark.parametrize("age_ms", [1, HOUR_MS])
async def test_a_past_end_leaves_nothing(store: Store, age_ms: int) -> None:
    """An entry that is over is not stored, and replaces what was there."""
    await store.put(KEY, b"old", now_ms() + HOUR_MS)
    await store.put(KEY, b"over", now_ms() - age_ms)
    assert await store.get(KEY) is None


@pytest.mark.parametrize("end_ms", [0, -1, 1])
async def test_the_dawn_of_time_is_past(store: Store, end_ms: int) -> None:
    """Zero is an end like any other, not "for ever"."""
    await store.put(KEY, b"over", end_ms)
    assert await store.get(KEY) is None


async def test_an_entry_ends_at_its_end(store: Store) -> None:
    """The end is absolute, in milliseconds."""
    end_ms = now_ms() + 300
    await store.put(KEY, b"short", end_ms)
    assert await gone(store, KEY)
    assert now_ms() >= end_ms - 5  # Redis samples its clock


async def test_many_are_read_in_the_order_asked(store: Store) -> None:
    """What is there, None for what is not; a key asked for twice is answered twice."""
    keys = [f"{number:064x}" for number in range(300)]
    for key in keys[::3]:
        await store.put(key, key.encode(), now_ms() + HOUR_MS)
    await store.put(keys[0], b"over", now_ms() - 1)
    expected = [key.encode() if place % 3 == 0 else None for place, key in enumerate(keys)]
    expected[0] = None
    assert await store.get_many(keys) == expected
    assert await store.get_many([keys[3], keys[1], keys[3]]) == [expected[3], None, expected[3]]
    assert await store.get_many([]) == []


async def test_only_new_leaves_what_is_there(store: Store) -> None:
    """It is put where nothing is, or nothing any more."""
    await store.put(KEY, b"first", now_ms() + 300, only_new=True)
    await store.put(KEY, b"second", now_ms() + HOUR_MS, only_new=True)
    await store.put(KEY, b"over", now_ms() - 1, only_new=True)
    await store.put(KEY, b"over", 0, only_new=True)
    assert await store.get(KEY) == b"first"
    assert await gone(store, KEY)
    await store.put(KEY, b"third", now_ms() + HOUR_MS, only_new=True)
    assert await store.get(KEY) == b"third"


@pytest.mark.parametrize(
    ("there", "over", "stays"),
    [
        (b"old entry", b"old", False),
        (b"old entry", b"old entry", False),
        (b"\x00\xff\r\n", b"\x00\xff", False),
        (b"old entry", b"older", True),
        (b"old entry", b"old entry and more", True),
        (b"newer", b"old", True),
        (b"", b"old", True),
        (None, b"old", True),
    ],
)
async def test_put_over_replaces_that_envelope_alone(
    store: Store, there: bytes | None, over: bytes, *, stays: bool
) -> None:
    """Known by how it begins; what is gone does not come back."""
    if there is not None:
        await store.put(KEY, there, now_ms() + HOUR_MS)
    await store.put(KEY, b"moved", now_ms() + HOUR_MS, over=over)
    assert await store.get(KEY) == (there if stays else b"moved")


async def test_put_over_moves_the_end(store: Store) -> None:
    """To where it is said to be."""
    await store.put(KEY, b"old", now_ms() + 300)
    end_ms = now_ms() + HOUR_MS
    await store.put(KEY, b"old, later", end_ms, over=b"old")
    await store.put(KEY, b"old, over", now_ms() - 1, over=b"older")
    await asyncio.sleep(0.35)
    assert await store.get(KEY) == b"old, later"


async def test_of_concurrent_puts_over_the_same_one_wins(store: Store) -> None:
    """The others find another envelope."""
    await store.put(KEY, b"old", now_ms() + HOUR_MS)
    new = [b"new %d" % number for number in range(50)]
    await asyncio.gather(*(store.put(KEY, one, now_ms() + HOUR_MS, over=b"old") for one in new))
    won = await store.get(KEY)
    assert won in new
    for one in new:
        await store.put(KEY, one, now_ms() + HOUR_MS, over=b"old")
    assert await store.get(KEY) == won


@pytest.mark.parametrize("after", [1, 2, 5])
async def test_grant_comes_with_the_nth_request_and_once(store: Store, after: int) -> None:
    """Not before `after` requests were counted, and then not again for a minute."""
    granted = [await store.grant(KEY, after=after) for _ in range(after + 3)]
    assert granted == [number == after for number in range(1, after + 4)]


async def test_grants_of_keys_do_not_touch_each_other(store: Store) -> None:
    """Neither count nor interval is shared; an entry has nothing to do with it."""
    assert await store.grant(KEY, after=1)
    await store.put(OTHER, b"x", now_ms() + HOUR_MS)
    assert await store.grant(OTHER, after=1)
    assert await store.get(OTHER) == b"x"
    await store.delete(KEY)
    assert not await store.grant(KEY, after=1)


@pytest.mark.parametrize("after", [1, 7])
async def test_of_concurrent_requests_one_is_granted(store: Store, after: int) -> None:
    """However many ask at once."""
    granted = await asyncio.gather(*(store.grant(KEY, after=after) for _ in range(200)))
    assert granted.count(True) == 1


async def test_reading_and_copying_extend_nothing(store: Store) -> None:
    """Putting the same entry again with its own end does not restart its life."""
    end_ms = now_ms() + 300
    while now_ms() < end_ms:
        await store.put(KEY, b"short", end_ms)
        await store.get(KEY)
        await asyncio.sleep(0.05)
    assert await gone(store, KEY, within_s=1.0)


async def test_many_tasks_share_a_store(store: Store) -> None:
    """More tasks than connections wait for their turn; each reads its own."""

    async def turn(number: int) -> None:
        key, envelope = f"{number:064x}", b"%d" % number * 1000
        await store.put(key, envelope, now_ms() + HOUR_MS)
        assert await store.get(key) == envelope

    await asyncio.gather(*(turn(number) for number in range(200)))


async def test_a_cancelled_read_does_not_disturb_the_next(store: Store) -> None:
    """A connection whose answer nobody awaited is not handed to someone else."""
    await store.put(KEY, b"one", now_ms() + HOUR_MS)
    await store.put(OTHER, b"two", now_ms() + HOUR_MS)
    for number in range(40):
        reading: asyncio.Task[object] = asyncio.create_task(
            store.get(KEY) if number % 2 else store.get_many([KEY] * 9)
        )
        for _ in range(number // 8):
            await asyncio.sleep(0)
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
        assert await store.get(OTHER) == b"two"
        assert await store.get_many([OTHER, KEY]) == [b"two", b"one"]


async def test_a_store_that_answers_pings(store: Store) -> None:
    """A ping of a working store says nothing."""
    await store.ping()


async def test_closing_twice_is_fine(store: Store) -> None:
    """Close is idempotent."""
    await store.close()
    await store.close()


async def openings(store: Store, length: int) -> list[tuple[bytes, int]]:
    """All that are told of, each once."""
    async with contextlib.aclosing(store.openings(length)) as some:
        return sorted({opening async for part in some for opening in part})


async def test_openings_are_of_every_envelope_and_nothing_else(store: Store) -> None:
    """Their first bytes and whole sizes; counts and grants beside them are none."""
    assert await openings(store, 10) == []
    whole = [f"{number:03}".encode() + bytes(number) for number in range(450)]
    for number, envelope in enumerate(whole):
        await store.put(f"{number:064x}", envelope, now_ms() + HOUR_MS)
        await store.grant(f"{number:064x}", after=1)
    assert await openings(store, 10) == [(envelope[:10], len(envelope)) for envelope in whole]
    await store.delete(f"{0:064x}")
    await store.put(f"{1:064x}", b"past", 1)
    assert await openings(store, 3) == [(envelope[:3], len(envelope)) for envelope in whole[2:]]


async def test_openings_may_be_left_early(store: Store) -> None:
    """The store goes on working."""
    for number in range(300):
        await store.put(f"{number:064x}", b"x", now_ms() + HOUR_MS)
    async with contextlib.aclosing(store.openings(1)) as some:
        async for part in some:
            assert set(part) == {(b"x", 1)}
            break
    assert await store.get(f"{7:064x}") == b"x"


async def test_an_outage_is_not_a_miss() -> None:
    """Every operation on a Redis that is not there raises, and quotes no key."""
    store = RedisStore.from_url("redis://127.0.0.1:1")
    for operation in (
        store.get(KEY),
        store.get_many([KEY, OTHER]),
        store.put(KEY, b"x", now_ms() + HOUR_MS),
        store.delete(KEY),
        store.grant(KEY, after=1),
        store.ping(),
        openings(store, 1),
    ):
        with pytest.raises(StoreError, match=r"^Redis: ConnectionError$"):
            await operation
    await store.close()


async def test_an_outage_of_a_cluster_is_no_miss_either() -> None:
    """No node that is known can be reached."""
    store = RedisStore.from_url("redis+cluster://127.0.0.1:1")
    for operation in (store.get(KEY), store.delete(KEY), store.grant(KEY, after=1), store.ping()):
        with pytest.raises(StoreError, match=r"^Redis: "):
            await operation
    await store.close()


async def test_a_silent_redis_is_an_outage() -> None:
    """A server that never answers costs a bounded time."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        store = RedisStore.from_url(f"redis://127.0.0.1:{silent.getsockname()[1]}", timeout_s=0.05)
        async with asyncio.timeout(5):
            with pytest.raises(StoreError, match="Timeout"):
                await store.get(KEY)
        await store.close()


async def test_a_late_reply_goes_to_nobody(bundled_redis: str) -> None:
    """Replies are paired by order: one that came too late must not answer the next read."""
    store = RedisStore.from_url(bundled_redis, timeout_s=0.2)
    await store.put(KEY, b"one", now_ms() + HOUR_MS)
    await store.put(OTHER, b"two", now_ms() + HOUR_MS)
    assert await store.get(KEY) == b"one"
    async with Redis.from_url(bundled_redis) as client:
        await client.client_pause(1000, all=True)
        with pytest.raises(StoreError, match="Timeout"):
            await store.get(KEY)
        await client.client_unpause()
    while True:
        with contextlib.suppress(StoreError):
            assert await store.get(OTHER) == b"two"
            break
    await store.close()


async def test_a_broken_connection_is_replaced_at_once(bundled_redis: str) -> None:
    """Reads after Redis hung up are answered, however many there are; none gets another's value."""
    store = RedisStore.from_url(bundled_redis, timeout_s=PATIENCE_S)
    keys = [f"{number:064x}" for number in range(50)]
    for key in keys:
        await store.put(key, key.encode(), now_ms() + HOUR_MS)
    async with Redis.from_url(bundled_redis) as client:
        for _ in range(5):
            await client.client_kill_filter(skipme=True)
            answers = await asyncio.gather(*(store.get(key) for key in keys))
            assert answers == [key.encode() for key in keys]
    await store.close()


async def test_connection_that_closes_unnoticed_is_replaced(
    bundled_redis: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is sent then is refused by uvloop: the read is made again; others never hear of it."""
    store = RedisStore.from_url(bundled_redis, timeout_s=PATIENCE_S)
    await store.put(KEY, b"one", now_ms() + HOUR_MS)
    assert await store.get(KEY) == b"one"
    send = AbstractConnection.send_packed_command
    refused = 0

    async def refuse_once(connection: Any, *command: Any, **how: Any) -> None:
        nonlocal refused
        refused += 1
        if refused == 1:
            await connection.disconnect(nowait=True)
            raise RuntimeError("unable to perform operation on <TCP>; the handler is closed")
        await send(connection, *command, **how)

    monkeypatch.setattr(AbstractConnection, "send_packed_command", refuse_once)
    assert await asyncio.gather(*(store.get(KEY) for _ in range(3))) == [b"one"] * 3
    await store.close()


async def test_nothing_is_sent_on_a_connection_that_was_given_up(bundled_redis: str) -> None:
    """redis-py would connect it again, and nobody would read there, or close it."""
    store = RedisStore.from_url(bundled_redis, timeout_s=PATIENCE_S)
    await store.put(KEY, b"one", now_ms() + HOUR_MS)
    assert await store.get(KEY) == b"one"
    assert store._reads is not None
    line = store._reads._line
    assert line is not None
    read = asyncio.create_task(store.get(KEY))
    line._reader.cancel()  # between the asking and the sending
    await asyncio.sleep(0)
    sender = line._sender
    assert sender is not None
    assert await read == b"one"
    await sender
    assert not line._connection.is_connected
    await store.close()


async def test_a_store_that_closes_while_it_connects_leaves_no_connection(
    bundled_redis: str,
) -> None:
    """Who asked has left; what was under way for it ends with the store."""
    store = RedisStore.from_url(bundled_redis, timeout_s=PATIENCE_S)
    read = asyncio.create_task(store.get(KEY))
    await asyncio.sleep(0)
    read.cancel()
    await store.close()
    assert store._reads is not None
    assert store._reads._line is None
    assert store._reads._connecting is not None
    assert store._reads._connecting.done()


def test_what_uvloop_says_of_a_closed_connection_is_an_outage() -> None:
    """So is what redis-py fails with where another task has closed it."""

    async def write_to_closed() -> None:
        server = await asyncio.start_server(lambda _reader, writer: writer.close(), "127.0.0.1", 0)
        host, port = server.sockets[0].getsockname()
        _, writer = await asyncio.open_connection(host, port)
        writer.transport.abort()
        await asyncio.sleep(0)
        server.close()
        with outages_told():
            writer.writelines([b"x"])

    with (
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
        pytest.raises(StoreError, match=r"^Redis: RuntimeError$"),
    ):
        runner.run(write_to_closed())
    nothing: Any = None
    with pytest.raises(StoreError), outages_told():
        nothing.writelines(())


async def test_reads_that_are_given_up_in_any_pattern_leave_the_rest_right(
    bundled_redis: str,
) -> None:
    """Whoever stays gets its own value."""
    store = RedisStore.from_url(bundled_redis, timeout_s=PATIENCE_S)
    keys = [f"{number:064x}" for number in range(100)]
    for key in keys:
        await store.put(key, key.encode(), now_ms() + HOUR_MS)
    for step in range(2, 7):
        reads = [asyncio.create_task(store.get(key)) for key in keys]
        await asyncio.sleep(0)
        for read in reads[::step]:
            read.cancel()
        answers = await asyncio.gather(*reads, return_exceptions=True)
        for number, (key, answer) in enumerate(zip(keys, answers, strict=True)):
            assert isinstance(answer, asyncio.CancelledError) or answer == key.encode()
            assert number % step == 0 or answer == key.encode()
    await store.close()


async def test_another_type_under_a_key_is_an_outage(bundled_redis: str) -> None:
    """What is not an entry of ours is never served as one."""
    async with Redis.from_url(bundled_redis) as client:
        await client.flushall()
        await client.lpush(f"encore:{{{KEY}}}:entry", b"x")
    store = RedisStore.from_url(bundled_redis, timeout_s=5)
    for operation in (store.get(KEY), store.get_many([OTHER, KEY])):
        with pytest.raises(StoreError, match=r"^Redis: ResponseError$"):
            await operation
    await store.close()


async def test_a_store_survives_a_restart_of_its_redis(tmp_path: Path) -> None:
    """Pooled connections to a server that went away are replaced at the next use; data stays."""
    with embedded_redis(tmp_path) as url:
        store = RedisStore.from_url(url, timeout_s=5)
        await store.put(KEY, b"kept", now_ms() + HOUR_MS)
    with pytest.raises(StoreError):
        await store.get(KEY)
    with embedded_redis(tmp_path):
        assert await store.get(KEY) == b"kept"
        await store.close()


async def test_prefixes_keep_caches_apart(bundled_redis: str) -> None:
    """Two caches on one Redis do not see each other's entries; the layout is as documented."""
    one = RedisStore.from_url(bundled_redis, prefix="one", timeout_s=5)
    two = RedisStore.from_url(bundled_redis, prefix="two", timeout_s=5)
    await one.put(KEY, b"mine", now_ms() + HOUR_MS)
    assert await two.get(KEY) is None
    async with Redis.from_url(bundled_redis) as client:
        assert await client.get(f"one:{{{KEY}}}:entry") == b"mine"
    await one.close()
    await two.close()


async def test_a_hit_is_one_round_trip(bundled_redis: str) -> None:
    """One command reaches Redis for a hit."""
    store = RedisStore.from_url(bundled_redis, timeout_s=5)
    await store.put(KEY, b"x", now_ms() + HOUR_MS)
    await store.get(KEY)  # connects
    async with Redis.from_url(bundled_redis) as client:
        before = await client.info("commandstats")
        await store.get(KEY)
        after = await client.info("commandstats")
    calls = {
        name: stats["calls"] - before.get(name, {"calls": 0})["calls"]
        for name, stats in after.items()
    }
    assert {name: count for name, count in calls.items() if count and "info" not in name} == {
        "cmdstat_get": 1
    }
    await store.close()


async def test_nothing_is_counted_where_the_first_request_counts(bundled_redis: str) -> None:
    """A count would outlive most entries."""
    async with Redis.from_url(bundled_redis) as client:
        await client.flushall()
        store = RedisStore.from_url(bundled_redis, prefix="one", timeout_s=10)
        assert await store.grant(KEY, after=1)
        assert await client.keys() == [f"one:{{{KEY}}}:granted".encode()]
        await store.close()


async def test_grants_are_shared_by_processes_and_have_an_end(bundled_redis: str) -> None:
    """Two clients of one Redis get one grant a minute; counts last a day. As documented."""
    stores = [RedisStore.from_url(bundled_redis, prefix="one", timeout_s=5) for _ in range(2)]
    asked, granted = f"one:{{{KEY}}}:asked", f"one:{{{KEY}}}:granted"
    async with Redis.from_url(bundled_redis) as client:
        await client.flushall()
        given = await asyncio.gather(*(store.grant(KEY, after=3) for store in stores * 20))
        assert given.count(True) == 1
        assert await client.get(asked) == b"40"
        assert 86_390 < await client.ttl(asked) <= 86_400
        assert 50 < await client.ttl(granted) <= 60
        await client.delete(granted)
        assert await stores[0].grant(KEY, after=3)
    for store in stores:
        await store.close()


async def test_memory_grants_again_after_a_minute_and_forgets_after_a_day() -> None:
    """By its own clock, to the millisecond."""
    time_ms = 1_000_000
    store = MemoryStore(now_ms=lambda: time_ms)
    assert [await store.grant(KEY, after=2) for _ in range(2)] == [False, True]
    time_ms += 59_999
    assert not await store.grant(KEY, after=2)
    time_ms += 1
    assert await store.grant(KEY, after=2)
    time_ms += 86_400_000
    assert [await store.grant(KEY, after=2) for _ in range(2)] == [False, True]


async def test_entries_on_their_way_to_the_edge_have_a_last_moment_and_a_largest_size() -> None:
    """The oldest go first; what replaces another counts once; what is over makes room."""
    time_ms = now_ms()
    store = HandoverStore(MemoryStore(), max_bytes=25, now_ms=lambda: time_ms)
    keys = [f"{number:064x}" for number in range(4)]
    for key in keys:
        for _ in range(3):
            await store.put(key, b"x" * 10, time_ms + 10 * HOUR_MS)
    assert await store.get_many(keys) == [None, None, b"x" * 10, b"x" * 10]
    await store.put(KEY, b"x" * 26, time_ms + HOUR_MS)
    assert await store.get_many([*keys, KEY]) == [None] * 5
    await store.put(KEY, b"x" * 20, time_ms + HOUR_MS)
    time_ms += HANDOVER_S * 1000 - 1
    assert await store.get(KEY) is not None
    time_ms += 1
    assert await store.get(KEY) is None
    await store.put(OTHER, b"x" * 20, time_ms + HOUR_MS)
    assert store._size_bytes == 20
