"""The contract of the session store, asked of memory and of real Redis servers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Protocol

import pytest
from redis.asyncio import Redis

from origin.stores.contract import StoreError
from origin.stores.memory_sessions import MemorySessionStore
from origin.stores.redis_sessions import RedisSessionStore
from origin.stores.redis_store import redis_client
from origin.stores.session_contract import IDLE_S, WINDOW_S, Session, SessionStore

HOUR_MS = 3_600_000


class Clock:
    """The time, and what a test adds to it."""

    def __init__(self) -> None:
        self.ahead_ms = 0

    def __call__(self) -> int:
        """The time in Unix milliseconds."""
        return time.time_ns() // 1_000_000 + self.ahead_ms


class Make(Protocol):
    """Makes a session."""

    def __call__(self, tenant: str = "acme", key_id: str | None = "k") -> Session:
        """One of this tenant that ends in an hour."""
        ...


@pytest.fixture
def clock() -> Clock:
    """The store's clock."""
    return Clock()


@pytest.fixture
async def store(server: str | None, clock: Clock) -> AsyncIterator[SessionStore]:
    """Each kind in turn, empty."""
    if server is None:
        yield MemorySessionStore(clock_ms=clock)
        return
    client = redis_client(server, timeout_s=10.0, max_connections=4)
    redis_store = RedisSessionStore(client, clock_ms=clock)
    yield redis_store
    await redis_store.close()


@pytest.fixture
def make(clock: Clock) -> Make:
    """Sessions by the store's clock."""

    def session(tenant: str = "acme", key_id: str | None = "k") -> Session:
        return Session(tenant=tenant, key_id=key_id, ends_ms=clock() + HOUR_MS)

    return session


async def test_what_began_is_found(store: SessionStore, make: Make) -> None:
    """As it was, by its name alone, as often as it is asked for."""
    sessions = {"a" * 64: make(), "b" * 64: make("dev", None)}
    for name, session in sessions.items():
        await store.begin(name, session)
    for name, session in [*sessions.items(), *sessions.items()]:
        assert await store.find(name) == session
    assert await store.find("c" * 64) is None


async def test_what_ended_is_not_found(store: SessionStore, make: Make) -> None:
    """Nor is another one that goes on ended by it; ending nothing is fine."""
    await store.begin("a", make())
    await store.begin("b", make())
    await store.end("a")
    await store.end("a")
    assert await store.find("a") is None
    assert await store.find("b") is not None


async def test_a_session_is_over_at_its_end(store: SessionStore, clock: Clock, make: Make) -> None:
    """However often it is used."""
    await store.begin("a", make())
    for _ in range(5):
        clock.ahead_ms += 12 * 60_000 - 1000
        assert await store.find("a") is not None
    clock.ahead_ms += 12 * 60_000
    assert await store.find("a") is None


async def test_failures_are_counted_by_address(store: SessionStore) -> None:
    """At the same time too."""
    assert await store.failures("10.0.0.1") == 0
    await asyncio.gather(*(store.failed("10.0.0.1") for _ in range(9)))
    await store.failed("::1")
    assert await store.failures("10.0.0.1") == 9
    assert await store.failures("::1") == 1


async def test_closing_twice_is_fine(store: SessionStore) -> None:
    """Close is idempotent."""
    await store.close()
    await store.close()


async def test_nobody_uses_it(clock: Clock, make: Make) -> None:
    """A session ends with its idle time, which begins anew when it is found."""
    store = MemorySessionStore(clock_ms=clock)
    await store.begin("a", make())
    await store.begin("b", make())
    clock.ahead_ms += IDLE_S * 1000 - 5000
    assert await store.find("a") is not None
    clock.ahead_ms += 6000
    assert await store.find("a") is not None
    assert await store.find("b") is None


async def test_a_window_of_failures_ends(clock: Clock) -> None:
    """With it all that failed in it."""
    store = MemorySessionStore(clock_ms=clock)
    await store.failed("a")
    clock.ahead_ms += WINDOW_S * 1000 - 5000
    await store.failed("a")
    assert await store.failures("a") == 2
    clock.ahead_ms += 6000
    assert await store.failures("a") == 0
    await store.failed("a")
    assert await store.failures("a") == 1


async def test_the_layout_is_as_documented(bundled_redis: str, make: Make) -> None:
    """Two kinds of names, each with an end; a use begins the idle time anew."""
    async with Redis.from_url(bundled_redis) as client:
        await client.flushall()
        store = RedisSessionStore.from_url(bundled_redis, prefix="mine")
        await store.begin("a", make())
        await store.failed("10.0.0.1")
        await store.failed("10.0.0.1")
        assert set(await client.keys()) == {b"mine:session:a", b"mine:logins:10.0.0.1"}
        assert 0 < await client.ttl("mine:logins:10.0.0.1") <= WINDOW_S
        await client.expire("mine:session:a", 5)
        assert await store.find("a") is not None
        assert IDLE_S - 60 < await client.ttl("mine:session:a") <= IDLE_S
        await store.close()


async def test_an_outage_is_told(make: Make) -> None:
    """No Redis is not "not signed in"."""
    store = RedisSessionStore.from_url("redis://127.0.0.1:1")
    asked = (store.begin("a", make()), store.find("a"), store.end("a"))
    for operation in (*asked, store.failed("a"), store.failures("a")):
        with pytest.raises(StoreError, match=r"^Redis: ConnectionError$"):
            await operation
    await store.close()
