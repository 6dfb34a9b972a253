"""The job store contract, asked of every store."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from origin.embedded_redis import embedded_redis
from origin.stores import job_contract, memory_jobs, redis_jobs
from origin.stores.contract import StoreError
from origin.stores.job_contract import JobState, JobStore
from origin.stores.memory_jobs import MemoryJobStore
from origin.stores.redis_jobs import RedisJobStore

DAY_MS = 86_400_000


@pytest.fixture
async def store(server: str | None) -> AsyncIterator[JobStore]:
    """Each store in turn, empty."""
    if server is None:
        yield MemoryJobStore()
        return
    redis_store = RedisJobStore.from_url(server, timeout_s=10.0)
    yield redis_store
    await redis_store.close()


async def add(store: JobStore, job: str = "one", **changes: Any) -> JobState | None:
    """Add a job of three requests."""
    fields: dict[str, Any] = {
        "tenant": "acme",
        "sealed": b"sealed",
        "total": 3,
        "quiet": False,
        "starts_in_ms": 0,
        "life_ms": DAY_MS,
    }
    return await store.add(job, **{**fields, **changes})


async def test_nothing_is_known_of_what_was_not_added(store: JobStore) -> None:
    """No state, and nothing to do."""
    assert await store.state("one") is None
    assert await store.claim(quiet=True) is None


async def test_a_job_is_held_with_what_it_asks_for(store: JobStore) -> None:
    """Bytes of every kind survive, and the state says who it belongs to and that it is held."""
    added = await add(store, sealed=bytes(range(256)), starts_in_ms=0)
    assert added is not None
    assert (added.tenant, added.total, added.done, added.counts) == ("acme", 3, 0, {})
    assert added.ends_ms - added.starts_ms == DAY_MS
    assert not added.is_held
    lease = await store.claim(quiet=False)
    assert lease is not None
    assert (lease.id, lease.sealed) == ("one", bytes(range(256)))
    state = await store.state("one")
    assert state is not None
    assert state.is_held
    assert lease.state == state


async def test_a_job_is_held_by_one(store: JobStore) -> None:
    """However many ask at once."""
    await add(store)
    leases = await asyncio.gather(*(store.claim(quiet=False) for _ in range(8)))
    assert sum(lease is not None for lease in leases) == 1


async def test_the_oldest_comes_first(store: JobStore) -> None:
    """And what is held or done is passed over."""
    for name in ("b", "a", "c"):
        await add(store, name, total=1)
        await asyncio.sleep(0.003)  # told apart by milliseconds
    names = []
    while (lease := await store.claim(quiet=False)) is not None:
        names.append(lease.id)
        assert await store.progress(lease, done=1)
    assert names == ["b", "a", "c"]


async def test_progress_is_counted_once(store: JobStore) -> None:
    """A repetition, after an answer was lost, changes nothing."""
    await add(store)
    lease = await store.claim(quiet=False)
    assert lease is not None
    for done, counts in ((2, {"cached": 1, "failed:x": 1}), (2, {"cached": 9}), (1, {"y": 1})):
        assert await store.progress(lease, done=done, counts=counts)
    state = await store.state("one")
    assert state is not None
    assert (state.done, state.counts) == (2, {"cached": 1, "failed:x": 1})


async def test_a_job_that_is_done_forgets_what_it_asked(store: JobStore) -> None:
    """Its state stays; nobody gets it again, and its lease is over."""
    await add(store)
    lease = await store.claim(quiet=False)
    assert lease is not None
    assert await store.progress(lease, done=3, counts={"cached": 3})
    assert await store.claim(quiet=True) is None
    assert not await store.progress(lease, done=3)
    state = await store.state("one")
    assert state is not None
    assert (state.done, state.is_held) == (3, False)


async def test_a_released_job_goes_on_where_it_was(store: JobStore) -> None:
    """With a new token, and who released it changes nothing any more."""
    await add(store)
    first = await store.claim(quiet=False)
    assert first is not None
    assert await store.progress(first, done=1)
    await store.release(first)
    second = await store.claim(quiet=False)
    assert second is not None
    assert second.token > first.token
    assert second.state.done == 1
    assert not await store.progress(first, done=2)
    await store.release(first)
    assert await store.claim(quiet=False) is None
    assert await store.progress(second, done=2)


async def test_a_dead_holder_is_followed(store: JobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once its lease has run out; then it holds nothing."""
    for module in (memory_jobs, redis_jobs):
        monkeypatch.setattr(module, "LEASE_S", 0.05)
    await add(store)
    first = await store.claim(quiet=False)
    assert first is not None
    second = None
    while second is None:
        second = await store.claim(quiet=False)
    assert not await store.progress(first, done=1)


async def test_quiet_jobs_wait_for_quiet_hours(store: JobStore) -> None:
    """They are passed over until then."""
    await add(store, "quiet", quiet=True)
    await add(store, "loud")
    lease = await store.claim(quiet=False)
    assert lease is not None
    assert lease.id == "loud"
    assert await store.claim(quiet=False) is None
    lease = await store.claim(quiet=True)
    assert lease is not None
    assert lease.id == "quiet"


async def test_a_job_begins_and_ends_in_time(store: JobStore) -> None:
    """Not before its start; from its end on it is gone, done or not."""
    await add(store, "later", starts_in_ms=DAY_MS)
    await add(store, "over", life_ms=0)
    await add(store, "soon-over", life_ms=1500)
    assert await store.state("over") is None
    lease = await store.claim(quiet=True)
    assert lease is not None
    assert lease.id == "soon-over"
    await _until_gone(store, "soon-over")
    assert not await store.progress(lease, done=1)
    assert await store.claim(quiet=True) is None
    assert await store.state("later") is not None


async def test_adding_again_changes_nothing(store: JobStore) -> None:
    """The answer may have been lost."""
    added = await add(store)
    assert await add(store, sealed=b"other", total=9) == added
    lease = await store.claim(quiet=False)
    assert lease is not None
    assert (lease.sealed, lease.state.total) == (b"sealed", 3)


async def test_a_tenant_has_so_much_room_and_no_more(
    store: JobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others have theirs; what is done makes room for what is asked, what has ended for all."""
    _set_limits(monkeypatch, tenant=3000, everybody=10**6)
    assert await add(store, "a", sealed=bytes(1000)) is not None
    assert await add(store, "b", sealed=bytes(1000)) is None
    assert await store.state("b") is None
    assert await add(store, "other", sealed=bytes(1000), tenant="other") is not None
    lease = await store.claim(quiet=False)
    assert lease is not None
    assert await store.progress(lease, done=3)
    assert await add(store, "b", sealed=bytes(900)) is not None


async def test_all_tenants_together_have_so_much_room(
    store: JobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is there must not be pushed out of its Redis; what has ended takes none."""
    _set_limits(monkeypatch, tenant=3000, everybody=4000)
    assert await add(store, "a", sealed=bytes(1000), tenant="a", life_ms=1500) is not None
    assert await add(store, "b", sealed=bytes(1000), tenant="b") is None
    await _until_gone(store, "a")
    assert await add(store, "b", sealed=bytes(1000), tenant="b") is not None


async def test_nothing_is_left_of_jobs_that_have_ended(bundled_redis: str) -> None:
    """Not a key."""
    async with Redis.from_url(bundled_redis) as client:
        await client.flushall()
        store = RedisJobStore.from_url(bundled_redis, timeout_s=10.0)
        await add(store, life_ms=1)
        await asyncio.sleep(0.01)
        assert await store.claim(quiet=True) is None
        assert await client.keys() == []
        await add(store)
        # A Redis that evicts takes what has an expiry: nothing of a job has one.
        assert {await client.ttl(key) for key in await client.keys()} == {-1}
        await store.close()


async def test_an_acknowledged_job_survives_a_kill(tmp_path: Path) -> None:
    """`kill -9` of Redis right after the answer."""
    with embedded_redis(tmp_path) as url:
        store = RedisJobStore.from_url(url, timeout_s=10.0)
        await add(store)
        async with Redis.from_url(url) as client:
            pid = (await client.info("server"))["process_id"]
        os.kill(pid, signal.SIGKILL)
        await store.close()
    with embedded_redis(tmp_path) as url:
        store = RedisJobStore.from_url(url, timeout_s=10.0)
        lease = await store.claim(quiet=False)
        assert lease is not None
        assert lease.sealed == b"sealed"
        await store.close()


async def test_an_outage_is_told() -> None:
    """By every method."""
    store = RedisJobStore.from_url("redis://127.0.0.1:1")
    lease = job_contract.Lease(
        id="one",
        token=1,
        sealed=b"",
        state=JobState(
            tenant="acme",
            total=1,
            done=0,
            quiet=False,
            created_ms=0,
            starts_ms=0,
            ends_ms=0,
            is_held=True,
        ),
    )
    for call in (
        add(store),
        store.state("one"),
        store.claim(quiet=True),
        store.progress(lease, done=1),
        store.release(lease),
    ):
        with pytest.raises(StoreError):
            await call
    await store.close()


async def _until_gone(store: JobStore, job: str) -> None:
    while await store.state(job) is not None:  # noqa: ASYNC110 - the store has no event for it
        await asyncio.sleep(0.01)


def _set_limits(monkeypatch: pytest.MonkeyPatch, *, tenant: int, everybody: int) -> None:
    for module in (memory_jobs, redis_jobs):
        monkeypatch.setattr(module, "MAX_TENANT_BYTES", tenant)
        monkeypatch.setattr(module, "MAX_BYTES", everybody)
