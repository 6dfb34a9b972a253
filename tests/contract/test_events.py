"""Channels and the stream of events, asked of every kind of Redis and of a Cluster."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from redis.asyncio import Redis

from origin.stores.contract import StoreError
from origin.stores.redis_control import RedisControlStore
from origin.stores.redis_events import HEARD_LIFE_S, MAX_REFUSED, Event, Heard, RedisEvents
from origin.stores.redis_store import redis_client
from tests.support.redis_servers import KINDS, emptied

PATIENT_S = 10.0
STREAM, REFUSED = "encore:invalidations", "encore:invalidations:refused"


@pytest.fixture(params=KINDS)
async def url(request: pytest.FixtureRequest, redis_url: Any) -> AsyncIterator[str]:
    """The URL of each server in turn, empty."""
    url = redis_url(request.param)
    async with emptied(url):
        yield url


@pytest.fixture
async def events(url: str) -> AsyncIterator[RedisEvents]:
    """Events there; what is not confirmed is claimed at once."""
    events = RedisEvents.from_url(url, timeout_s=PATIENT_S, claim_s=0)
    yield events
    await events.close()


@pytest.fixture
async def client(url: str) -> AsyncIterator[Any]:
    """An application's own client."""
    client: Any = redis_client(url, timeout_s=PATIENT_S, max_connections=4)
    yield client
    await client.aclose()


@asynccontextmanager
async def heard_by(events: RedisEvents) -> AsyncIterator[AsyncGenerator[Heard, None]]:
    """What is heard, once both channels are listened to."""
    heard = events.hear()
    async with asyncio.timeout(PATIENT_S):
        assert [(await anext(heard)).kind for _ in range(2)] == ["listening"] * 2
        yield heard
    await heard.aclose()


async def publish(client: Any, channel: str, text: str) -> None:
    """`PUBLISH`, by whichever node."""
    await client.execute_command("PUBLISH", channel, text)


async def test_everybody_hears_the_channel(client: Any, events: RedisEvents, url: str) -> None:
    """Each who listens, in order, whatever the bytes."""
    other = RedisEvents.from_url(url, timeout_s=PATIENT_S)
    async with heard_by(events) as here, heard_by(other) as there:
        for text in ("one", "é"):
            await publish(client, events.channel, text)
        for heard in (here, there):
            assert [await anext(heard) for _ in range(2)] == [
                Heard(kind="event", text=text.encode()) for text in ("one", "é")
            ]
    await other.close()


async def test_a_replacement_is_heard_of(events: RedisEvents, url: str) -> None:
    """By its tenant; one that is not made is not."""
    store = RedisControlStore.from_url(url, timeout_s=PATIENT_S)
    async with heard_by(events) as heard:
        assert await store.replace("acme", b"five", 5, expected=None)
        assert not await store.replace("acme", b"other", 6, expected=4)
        assert await store.replace("other", b"one", 1, expected=None)
        assert [await anext(heard) for _ in range(2)] == [
            Heard(kind="changed", text=tenant) for tenant in (b"acme", b"other")
        ]
    await store.close()


async def test_an_event_is_given_to_one(client: Any, events: RedisEvents, url: str) -> None:
    """Also one that was there before anybody ever asked."""
    other = RedisEvents.from_url(url, timeout_s=PATIENT_S)
    for number in range(10):
        await client.xadd(STREAM, {"event": str(number)})
    taken = [*await events.take(0.01), *await other.take(0.01)]
    assert [event.text for event in taken] == [str(number).encode() for number in range(10)]
    waiting = asyncio.create_task(events.take(PATIENT_S))
    await client.xadd(STREAM, {"event": "late"})
    (late,) = await waiting
    assert late.text == b"late"
    assert await other.take(0.01) == []
    await other.close()


async def test_what_is_not_confirmed_is_given_again(
    client: Any, events: RedisEvents, url: str
) -> None:
    """To whoever claims it, in turns; what is confirmed leaves nothing behind."""
    assert await events.claim() == []  # there is no stream
    ids = [await client.xadd(STREAM, {"event": str(number)}) for number in range(3)]
    taken = await events.take(0.01)
    await events.done(taken[1])
    heir = RedisEvents.from_url(url, timeout_s=PATIENT_S, claim_s=0)
    assert [event.id for event in await heir.claim()] == [ids[0].decode(), ids[2].decode()]
    for event in await heir.claim():
        await heir.done(event)
        await heir.done(event)
    assert await heir.claim() == []
    assert await client.xlen(STREAM) == 0
    patient = RedisEvents.from_url(url, timeout_s=PATIENT_S)
    await client.xadd(STREAM, {"event": "x"})
    assert len(await events.take(0.01)) == 1
    assert await patient.claim() == []
    await heir.close()
    await patient.close()


async def test_when_what_failed_was_heard_is_known_to_all(
    client: Any, events: RedisEvents, url: str
) -> None:
    """For a day. Another event's time, and a damaged one, are none."""
    other = RedisEvents.from_url(url, timeout_s=PATIENT_S)
    first, second, third = (Event(id=f"{number}-0", text=b"") for number in range(3))
    assert await other.heard_ms([]) == await other.heard_ms([first]) == {}
    await events.failed(first, 5000)
    assert await other.heard_ms([first, second]) == {"0-0": 5000}
    name = f"{STREAM}:heard:"
    assert 0 < await client.ttl(f"{name}0-0") <= HEARD_LIFE_S
    noted = await client.get(f"{name}0-0")
    await client.set(f"{name}1-0", noted)
    await client.set(f"{name}2-0", noted.replace(b"0-0 5", b"2-0 4"))
    assert await other.heard_ms([first, second, third]) == {"0-0": 5000}
    await other.close()


async def test_more_than_are_claimed_at_a_time_all_get_their_turn(
    client: Any, events: RedisEvents
) -> None:
    """Those that fail again and again keep no others from theirs."""
    for number in range(250):
        await client.xadd(STREAM, {"event": str(number)})
    while await events.take(0.01):
        pass
    claimed = [event.text for _ in range(3) for event in await events.claim()]
    assert claimed == [str(number).encode() for number in range(250)]


async def test_what_is_refused_is_put_aside(client: Any, events: RedisEvents) -> None:
    """With its id, and not without bounds."""
    await client.xadd(STREAM, {"event": "bad"})
    await client.xadd(STREAM, {"another": "field"})
    bad, without = await events.take(0.01)
    assert without.text is None
    await events.refuse(bad)
    await events.refuse(without)
    put_aside = [fields for _, fields in await client.xrange(REFUSED)]
    assert put_aside == [
        {b"id": bad.id.encode(), b"event": b"bad"},
        {b"id": without.id.encode(), b"event": b""},
    ]
    assert await events.claim() == []
    pipeline = client.pipeline()
    for _ in range(3 * MAX_REFUSED):
        pipeline.xadd(REFUSED, {"event": "old"})
    await pipeline.execute()
    await events.refuse(bad)
    assert await client.xlen(REFUSED) < 2 * MAX_REFUSED


async def test_what_was_removed_unconfirmed_is_no_event(client: Any, events: RedisEvents) -> None:
    """A publisher may bound the stream."""
    for number in range(3):
        await client.xadd(STREAM, {"event": str(number)})
    await events.take(0.01)
    await client.xtrim(STREAM, maxlen=1, approximate=False)
    assert [event.text for event in await events.claim()] == [b"2"]


async def test_a_group_that_was_lost_is_made_anew(client: Any, events: RedisEvents) -> None:
    """Redis was emptied, or restored from before."""
    await client.xadd(STREAM, {"event": "one"})
    assert len(await events.take(0.01)) == 1
    await client.delete(STREAM)
    await client.xadd(STREAM, {"event": "two"})
    assert [event.text for event in await events.take(0.01)] == [b"two"]


async def test_a_listener_that_was_cut_off_listens_again_and_says_so(bundled_redis: str) -> None:
    """Without its caller's doing; what was published between is lost to it."""
    async with Redis.from_url(bundled_redis) as client:
        await client.flushall()
        events = RedisEvents.from_url(bundled_redis, timeout_s=PATIENT_S)
        async with heard_by(events) as heard:
            await client.client_kill_filter(_type="pubsub")
            while (await anext(heard)).kind != "listening":
                pass
            await client.publish(events.channel, "after")
            while (each := await anext(heard)).kind == "listening":
                pass
            assert each == Heard(kind="event", text=b"after")
        await events.close()


async def test_a_silent_redis_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection that died without a word is noticed."""
    monkeypatch.setattr("origin.stores.redis_events.SILENCE_S", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"redis://127.0.0.1:{silent.getsockname()[1]}"
        events = RedisEvents.from_url(url, timeout_s=0.05)
        async with asyncio.timeout(30):
            with pytest.raises(StoreError, match=r"^Redis: "):
                await anext(events.hear())
        await events.close()


async def test_an_outage_is_told() -> None:
    """No Redis, no silence."""
    events = RedisEvents.from_url("redis://127.0.0.1:1")
    for operation in (anext(events.hear()), events.take(0.01), events.claim()):
        with pytest.raises(StoreError, match=r"^Redis: ConnectionError$"):
            await operation
    await events.close()
