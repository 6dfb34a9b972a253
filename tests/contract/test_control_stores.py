"""The control store contract, asked of every store: memory, the embedded Redis, one on PATH."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from origin.embedded_redis import embedded_redis
from origin.stores import redis_control
from origin.stores.contract import StoreError
from origin.stores.control_contract import COMMON_LOG, ControlStore
from origin.stores.memory_control import MemoryControlStore
from origin.stores.redis_control import RedisControlStore


@pytest.fixture
async def store(server: str | None) -> AsyncIterator[ControlStore]:
    """Each store in turn, empty."""
    if server is None:
        yield MemoryControlStore()
        return
    redis_store = RedisControlStore.from_url(server, timeout_s=10.0)
    yield redis_store
    await redis_store.close()


async def test_an_unknown_tenant_has_nothing(store: ControlStore) -> None:
    """No document, no revision, not listed."""
    assert await store.load("acme") is None
    assert await store.revision("acme") is None
    assert await store.tenants() == frozenset()


async def test_a_document_comes_back_with_its_revision(store: ControlStore) -> None:
    """Bytes of every kind survive; revisions are as large as milliseconds of our time."""
    document, revision = bytes(range(256)), 1_795_000_000_000
    assert await store.replace("acme", document, revision, expected=None)
    assert await store.load("acme") == document
    assert await store.revision("acme") == revision


@pytest.mark.parametrize("expected", [None, 4, 6])
async def test_another_revision_than_expected_is_left_alone(
    store: ControlStore, expected: int | None
) -> None:
    """Whoever decided on something else must decide anew."""
    assert await store.replace("acme", b"five", 5, expected=None)
    assert not await store.replace("acme", b"other", 7, expected=expected)
    assert (await store.revision("acme"), await store.load("acme")) == (5, b"five")


async def test_a_missing_document_is_no_revision(store: ControlStore) -> None:
    """What was there when it was read, and is lost, is not replaced."""
    assert not await store.replace("acme", b"six", 6, expected=5)
    assert await store.load("acme") is None


async def test_a_replacement_may_be_repeated(store: ControlStore) -> None:
    """Its answer may have been lost; another document of that revision is another matter."""
    for _ in range(2):
        assert await store.replace("acme", b"five", 5, expected=None)
    for _ in range(2):
        assert await store.replace("acme", b"six", 6, expected=5)
    assert not await store.replace("acme", b"also six", 6, expected=5)
    assert await store.load("acme") == b"six"


async def test_tenants_do_not_touch_each_other(store: ControlStore) -> None:
    """Each has its own document; all are listed."""
    assert await store.replace("acme", b"a", 1, expected=None)
    assert await store.replace("other", b"o", 2, expected=None)
    assert (await store.load("acme"), await store.load("other")) == (b"a", b"o")
    assert await store.tenants() == {"acme", "other"}


async def test_of_concurrent_writers_each_wins_once(store: ControlStore) -> None:
    """Twenty writers that read, change and retry: no change is lost, none is made twice."""

    async def write(number: int) -> None:
        while True:
            revision, held = await store.revision("acme"), await store.load("acme") or b""
            changed = held + bytes([number])
            if await store.replace("acme", changed, (revision or 0) + 1, expected=revision):
                return

    await asyncio.gather(*(write(number) for number in range(20)))
    assert sorted(await store.load("acme") or b"") == list(range(20))
    assert await store.revision("acme") == 20


async def test_many_tasks_ask_for_revisions(store: ControlStore) -> None:
    """More at once than there are connections: each hears of its tenant, whoever has left."""
    for number in range(1, 8):
        assert await store.replace(f"tenant-{number}", b"x", number, expected=None)
    tasks = [asyncio.create_task(store.revision(f"tenant-{n % 8}")) for n in range(200)]
    await asyncio.sleep(0)
    for task in tasks[::7]:
        task.cancel()
    heard = await asyncio.gather(*tasks, return_exceptions=True)
    assert [each for n, each in enumerate(heard) if n % 7] == [
        (n % 8) or None for n in range(200) if n % 7
    ]


async def test_the_clock_tells_unix_time(store: ControlStore) -> None:
    """In milliseconds; here it is this machine's."""
    before_ms = time.time_ns() // 1_000_000
    now_ms = await store.now_ms()
    assert before_ms <= now_ms <= time.time_ns() // 1_000_000


async def test_a_cut_off_parts_the_times_told_before_from_those_after(store: ControlStore) -> None:
    """However close they are."""
    for _ in range(3):
        before_ms = [await store.now_ms() for _ in range(5)]
        cut_off_ms = await store.cut_off_ms()
        after_ms = [await store.now_ms() for _ in range(5)]
        assert max(before_ms) <= cut_off_ms < min(after_ms)


async def test_cut_offs_hold_where_the_clock_is_set_back() -> None:
    """Times go on from the last cut-off then."""
    store = MemoryControlStore(lambda: 1000)
    assert await store.now_ms() == 1000
    store.clock_ms = lambda: 7
    assert await store.cut_off_ms() == 1000
    assert await store.now_ms() == 1001
    assert await store.cut_off_ms() == 1001
    assert await store.now_ms() == 1002
    store.clock_ms = lambda: 5000
    assert await store.now_ms() == 5000


async def test_cut_offs_hold_where_redis_clock_is_set_back(bundled_redis: str) -> None:
    """As on a server that takes over, and is behind: it has what was noted."""
    async with Redis.from_url(bundled_redis) as client:
        await client.flushall()
        store = RedisControlStore.from_url(bundled_redis, timeout_s=5)
        ahead_ms = await store.now_ms() + 3_600_000
        await client.set("encore:ctl:clock", ahead_ms)
        assert await store.now_ms() == ahead_ms + 1
        cut_off_ms = await store.cut_off_ms()
        assert cut_off_ms > ahead_ms
        assert await store.now_ms() == cut_off_ms + 1
        await store.close()


async def test_a_store_answers_pings_and_closes_twice(store: ControlStore) -> None:
    """Neither says anything."""
    await store.ping()
    await store.close()
    await store.close()


async def test_a_double_has_the_clock_it_is_given() -> None:
    """Tests decide the time."""
    store = MemoryControlStore(lambda: 7)
    assert await store.now_ms() == 7
    store.clock_ms = lambda: 8
    assert await store.now_ms() == 8


async def all_records(store: ControlStore, log: str) -> list[bytes]:
    """Everything in a log."""
    found = await store.records({log: "0-0"})
    return [record for _, record in found.get(log, ())]


async def test_a_replacement_is_recorded_with_it(store: ControlStore) -> None:
    """Once, however often it is repeated, and not where it is not made."""
    for _ in range(2):
        assert await store.replace("acme", b"five", 5, expected=None, record=b"made five")
    assert not await store.replace("acme", b"other", 6, expected=4, record=b"made other")
    assert await store.replace("acme", b"six", 6, expected=5)
    assert await store.replace("acme", b"seven", 7, expected=6, record=b"made seven")
    assert await all_records(store, "acme") == [b"made five", b"made seven"]
    assert await all_records(store, COMMON_LOG) == []
    assert await all_records(store, "other") == []


async def test_what_changes_nothing_is_recorded_in_common(store: ControlStore) -> None:
    """In the order it came, by ids that are the store's time and that reading goes on from."""
    before_ms = await store.now_ms()
    await store.record([bytes([number]) for number in range(5)])
    await store.record([])
    found = (await store.records({COMMON_LOG: "0-0", "acme": "0-0"}))[COMMON_LOG]
    assert [record for _, record in found] == [bytes([number]) for number in range(5)]
    assert before_ms <= int(found[0][0].partition("-")[0]) <= await store.now_ms()
    rest = await store.records({COMMON_LOG: found[2][0], "acme": "0-0"})
    assert rest == {COMMON_LOG: found[3:]}
    assert await store.records({COMMON_LOG: found[4][0]}) == {}
    assert await store.records({}) == {}


async def test_a_long_log_is_read_in_pieces(store: ControlStore) -> None:
    """Every record once."""
    whole = [str(number).encode() for number in range(2500)]
    await store.record(whole)
    read: list[bytes] = []
    after = "0-0"
    while found := await store.records({COMMON_LOG: after}):
        assert len(found[COMMON_LOG]) <= 1000
        after = found[COMMON_LOG][-1][0]
        read += [record for _, record in found[COMMON_LOG]]
    assert read == whole


async def test_the_edge_is_owed_the_latest_until_it_has_it(store: ControlStore) -> None:
    """Neither an older debt nor an older payment undoes a newer one."""
    assert await store.owed_to_edge() == {}
    for revision in (5, 7, 6):
        await store.owe_edge("acme", revision)
    await store.owe_edge("other", 1_795_000_000_000)
    await store.edge_has("acme", 6)
    assert await store.owed_to_edge() == {"acme": 7, "other": 1_795_000_000_000}
    await store.edge_has("acme", 8)
    await store.edge_has("nobody", 8)
    assert await store.owed_to_edge() == {"other": 1_795_000_000_000}


async def test_a_turn_is_one_holders_until_it_ends(store: ControlStore) -> None:
    """Its holder may prolong it and give it back; nobody else may end it."""
    assert await store.take_turn("task", "a", 60)
    assert await store.take_turn("task", "a", 60)
    assert not await store.take_turn("task", "b", 60)
    assert not await store.take_turn("task", "b", 0)
    assert await store.take_turn("another", "b", 60)
    assert await store.take_turn("task", "a", 0)
    assert await store.take_turn("task", "b", 0.05)
    await asyncio.sleep(0.1)
    assert await store.take_turn("task", "a", 60)


async def test_facts_are_kept_by_name(store: ControlStore) -> None:
    """The last one of a name."""
    assert await store.facts() == {}
    for name, value in (("model:é x", "f1"), ("secret", "s"), ("model:é x", "f2")):
        await store.keep_fact(name, value)
    assert await store.facts() == {"model:é x": "f2", "secret": "s"}


async def test_an_outage_is_not_an_absence() -> None:
    """Every operation on a Redis that is not there raises, and quotes nothing."""
    store = RedisControlStore.from_url("redis://127.0.0.1:1")
    for operation in (
        store.now_ms(),
        store.revision("acme"),
        store.load("acme"),
        store.replace("acme", b"x", 1, expected=None),
        store.record([b"x"]),
        store.records({COMMON_LOG: "0-0"}),
        store.owe_edge("acme", 1),
        store.edge_has("acme", 1),
        store.owed_to_edge(),
        store.take_turn("task", "a", 1),
        store.facts(),
        store.keep_fact("a", "b"),
        store.tenants(),
        store.ping(),
    ):
        with pytest.raises(StoreError, match=r"^Redis: ConnectionError$"):
            await operation
    await store.close()


async def only_record(client: Redis, name: str) -> dict[bytes, bytes]:
    """The fields of a stream's one entry."""
    found: Any = await client.xrange(name)
    ((_, fields),) = found
    return dict(fields)


async def test_documents_stay_and_are_where_it_says(bundled_redis: str) -> None:
    """The layout is as documented, nothing of it ever expires, and prefixes keep caches apart."""
    async with Redis.from_url(bundled_redis) as client:
        await client.flushall()
        one = RedisControlStore.from_url(bundled_redis, prefix="one", timeout_s=5)
        two = RedisControlStore.from_url(bundled_redis, prefix="two", timeout_s=5)
        assert await one.replace("acme", b"document", 5, expected=None, record=b"record")
        await one.record([b"denied"])
        await one.owe_edge("acme", 5)
        await one.keep_fact("model:m", "f")
        assert await client.hgetall("one:ctl:{acme}") == {
            b"revision": b"5",
            b"document": b"document",
        }
        assert await client.smembers("one:ctl:tenants") == {b"acme"}
        assert await only_record(client, "one:audit:{acme}") == {b"record": b"record"}
        assert await only_record(client, "one:audit") == {b"record": b"denied"}
        assert await client.hgetall("one:ctl:edge") == {b"acme": b"5"}
        assert await client.hgetall("one:ctl:facts") == {b"model:m": b"f"}
        assert [await client.ttl(key) for key in await client.keys()] == [-1] * 6
        assert await two.load("acme") is None
        await one.close()
        await two.close()


@pytest.mark.parametrize("held", ["string", "no-number"])
async def test_what_is_no_document_of_ours_is_an_outage(bundled_redis: str, held: str) -> None:
    """It is neither read as one nor overwritten."""
    async with Redis.from_url(bundled_redis) as client:
        await client.flushall()
        if held == "string":
            await client.set("encore:ctl:{acme}", "x")
        else:
            await client.hset("encore:ctl:{acme}", "revision", "x")
        before = await client.dump("encore:ctl:{acme}")
        store = RedisControlStore.from_url(bundled_redis, timeout_s=5)
        with pytest.raises(StoreError, match=r"^Redis: "):
            await store.revision("acme")
        if held == "string":
            with pytest.raises(StoreError, match=r"^Redis: "):
                await store.replace("acme", b"x", 1, expected=None)
        else:
            assert not await store.replace("acme", b"x", 1, expected=None)
        assert await client.dump("encore:ctl:{acme}") == before
        await store.close()


async def test_what_was_damaged_on_its_way_is_neither_written_nor_read(
    bundled_redis: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would be another document, or another time, that is as good as the right one."""
    async with Redis.from_url(bundled_redis) as client:
        await client.flushall()
    store = RedisControlStore.from_url(bundled_redis, timeout_s=5)
    assert await store.replace("acme", b"first", 1, expected=None)
    with monkeypatch.context() as patched:
        patched.setattr(redis_control, "_sum", lambda _data: b"0" * 40)
        with pytest.raises(StoreError, match=r"^Redis: "):
            await store.replace("acme", b"second", 2, expected=1)
        with pytest.raises(StoreError, match=r"^Redis: "):
            await store.replace("new", b"first", 1, expected=None)
        for reading in (store.revision("acme"), store.load("acme"), store.load("new")):
            with pytest.raises(StoreError, match=r"^Redis: damaged$"):
                await reading
        with pytest.raises(StoreError, match=r"^Redis: damaged$"):
            await store.now_ms()
    assert (await store.revision("acme"), await store.load("acme")) == (1, b"first")
    assert (await store.revision("new"), await store.load("new")) == (None, None)
    await store.close()


async def test_what_was_confirmed_survives_a_kill(tmp_path: Path) -> None:
    """The embedded Redis syncs its file at every write: kill -9 loses nothing."""
    with embedded_redis(tmp_path) as url:
        store = RedisControlStore.from_url(url, timeout_s=5)
        assert await store.replace("acme", b"kept", 5, expected=None, record=b"kept")
        async with Redis.from_url(url) as client:
            server = int((await client.info("server"))["process_id"])
        os.kill(server, signal.SIGKILL)
        await asyncio.gather(store.close(), return_exceptions=True)
    with embedded_redis(tmp_path) as url:
        store = RedisControlStore.from_url(url, timeout_s=5)
        assert await store.load("acme") == b"kept"
        assert await all_records(store, "acme") == [b"kept"]
        await store.close()
