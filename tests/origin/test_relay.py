"""Generations shared by several origin processes, over a real Redis."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

import origin.relay
from origin.embedded_redis import embedded_redis
from origin.embeddings import Batches
from origin.engine.contract import Event
from origin.exact_tier import Hit
from origin.flights import Flight
from origin.pipeline import Generating, Pipeline
from origin.queries import Query
from origin.relay import Relay
from origin.semantic.promotion import promoted
from origin.stores.lease_contract import FIRST_PIECE, Lease
from origin.stores.redis_control import RedisControlStore
from origin.stores.redis_leases import RedisLeases
from origin.stores.redis_store import RedisStore
from shared.control_document import ControlDocument, Policy, Purge, purged
from shared.controls import parse_controls
from shared.envelope import Header, decode, encode
from shared.errors import EncoreError, UpstreamError
from shared.freshness import Lifetimes
from shared.keys import key_rings, tag_digest
from shared.requests import Endpoint, Request
from tests.support.engines import MODEL, ScriptedEngine, VectorEngine

KEYS = key_rings("a secret of the tests, long enough")
PATIENT_S = 10.0
LEASE_S = 0.6
DOCUMENT = ControlDocument(tenant="acme", revision=1)
NO_CACHE = {"cache-control": "no-cache"}


class NamedEngine(ScriptedEngine):
    """An engine that signs its answers, so that one knows whose they are."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    async def run(
        self, request: Request, *, tenant: str | None = None, scope: str | None = None
    ) -> AsyncGenerator[Event, None]:
        """Say the next answer."""
        self.usage = {"prompt_tokens": 3, "completion_tokens": 2, "said_by": self.name}
        async for event in super().run(request, tenant=tenant, scope=scope):
            yield event


class Replica:
    """An origin process, but for its own process."""

    def __init__(self, url: str, name: str = "") -> None:
        self.engine = NamedEngine(name)
        self.later_ms = 0
        self.store = RedisStore.from_url(url, timeout_s=PATIENT_S)
        self.control = RedisControlStore.from_url(url, timeout_s=PATIENT_S)
        self.leases = RedisLeases.from_url(url, timeout_s=PATIENT_S, lease_s=LEASE_S)
        self.pipeline = Pipeline(
            keys=KEYS,
            store=self.store,
            engine=self.engine,
            lifetimes=Lifetimes(
                ttl_s=100, stale_while_revalidate_s=50, stale_if_error_s=200, max_ttl_s=1000
            ),
            deadline_s=30,
            store_clock=self.control.now_ms,
            relay=Relay(self.leases, KEYS),
            clock_ms=lambda: time.time_ns() // 1_000_000 + self.later_ms,
        )

    def query(
        self,
        text: str = "Hello",
        *,
        document: ControlDocument = DOCUMENT,
        headers: dict[str, str] | None = None,
        stream: bool = False,
    ) -> Query:
        """A chat request as the routes would build it."""
        messages = [{"role": "user", "content": text}]
        body = {"model": MODEL, "messages": messages, "stream": stream}
        return self.pipeline.query(
            Endpoint.CHAT,
            document,
            parse_controls(headers or {}),
            json.dumps(body).encode(),
            ring=KEYS.current,
        )

    async def ask(self, *args: Any, **named: Any) -> str:
        """Ask and wait; what was said."""
        return text_of(await self.asked(*args, **named))

    async def asked(self, *args: Any, **named: Any) -> Flight | Hit:
        """What answered, after it did."""
        answer = await self.pipeline.answer(self.query(*args, **named))
        if isinstance(answer, Hit):
            return answer
        with answer.flight.joined():
            await answer.flight.result()
        return answer.flight

    async def flight(self, *args: Any, **named: Any) -> Flight:
        """The flight of somebody who asks, and has not joined it yet."""
        answer = await self.pipeline.answer(self.query(*args, **named))
        assert isinstance(answer, Generating)
        return answer.flight

    async def stored(self) -> Header | None:
        """The header of what is stored for the question that everybody asks."""
        encoded = await self.store.get(self.query().key or "")
        return None if encoded is None else decode(encoded).header

    async def close(self) -> None:
        """Let go of everything."""
        await self.pipeline.close()
        await self.leases.close()
        await self.control.close()
        await self.store.close()


def text_of(answered: Flight | Hit) -> str:
    """What an answer says."""
    if isinstance(answered, Hit):
        return "hit"
    assert answered.finished is not None
    said: str = answered.finished.answer["choices"][0]["message"]["content"]
    return said


async def until(is_so: Callable[[], object]) -> None:
    """Let everybody else go on until it is so."""
    async with asyncio.timeout(20):
        while not is_so():  # noqa: ASYNC110 - several parts may change it
            await asyncio.sleep(0.005)


async def heard(flight: Flight) -> list[dict[str, Any]]:
    """All that a flight says to somebody who listens to its end."""
    with flight.joined():
        return [payload async for payload in flight.listen()]


@pytest.fixture(scope="module")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Redis for all tests here."""
    with embedded_redis(tmp_path_factory.mktemp("redis")) as url:
        yield url


@pytest.fixture
async def client(redis_url: str) -> AsyncIterator[Redis]:
    """A client of it, empty."""
    async with Redis.from_url(redis_url) as client:
        await client.flushall()
        yield client


@pytest.fixture
async def a(client: Redis, redis_url: str) -> AsyncIterator[Replica]:  # noqa: ARG001 - emptied first
    """One replica."""
    replica = Replica(redis_url, "a")
    yield replica
    await replica.close()


@pytest.fixture
async def b(client: Redis, redis_url: str) -> AsyncIterator[Replica]:  # noqa: ARG001 - emptied first
    """Another one."""
    replica = Replica(redis_url, "b")
    yield replica
    await replica.close()


async def led(a: Replica, *args: Any, **named: Any) -> asyncio.Task[Flight | Hit]:
    """Somebody who waits for a generation of `a`, which has begun and is held back."""
    a.engine.gate.clear()
    runs = a.engine.runs
    task = asyncio.create_task(a.asked(*args, **named))
    await until(lambda: a.engine.runs > runs)
    return task


async def followed(
    b: Replica, *args: Any, **named: Any
) -> tuple[asyncio.Task[Flight | Hit], Flight]:
    """Somebody at `b` who has heard the beginning of another's generation, and its flight."""
    flight = await b.flight(*args, **named)

    async def wait() -> Flight | Hit:
        with flight.joined():
            await flight.result()
        return flight

    task = asyncio.create_task(wait())
    await until(lambda: flight.is_elsewhere and flight.chunks)
    return task, flight


async def test_eight_at_once_over_two_replicas_cost_one_generation(a: Replica, b: Replica) -> None:
    """Each time, whoever comes when: streamed or not, before the end or behind it."""
    for number in range(25):
        a.engine.runs = b.engine.runs = 0
        asks = [
            replica.asked(f"Question {number}", stream=stream)
            for replica in (a, b)
            for stream in (True, False, True, False)
        ]
        answered = await asyncio.gather(*asks)
        assert a.engine.runs + b.engine.runs == 1
        assert {text_of(answer) for answer in answered} <= {"Answer 1", "hit"}


async def test_who_comes_late_elsewhere_hears_all_and_goes_on_live(a: Replica, b: Replica) -> None:
    """What was said before is there while the generation is held back; then comes the rest."""
    first = await led(a, stream=True)
    late = await b.flight(stream=True)
    listening = asyncio.create_task(heard(late))
    await until(lambda: late.chunks)
    assert late.is_elsewhere
    assert not late.over
    a.engine.gate.set()
    flight = await first
    assert isinstance(flight, Flight)
    assert await listening == flight.chunks
    assert late.finished == flight.finished
    assert late.entry == flight.entry
    assert late.entry is not None
    assert (a.engine.runs, b.engine.runs) == (1, 0)


async def test_follower_is_said_to_be_collapsed(a: Replica, b: Replica) -> None:
    """`Cache-Status` says that the answer is of another request's generation."""
    first = await led(a)
    answer = await b.pipeline.answer(b.query())
    assert isinstance(answer, Generating)
    with answer.flight.joined():
        a.engine.gate.set()
        await answer.flight.result()
    assert answer.collapsed
    await first


async def test_followers_wishes_are_the_entrys(a: Replica, b: Replica) -> None:
    """Their tags and their shorter life, as if they waited beside the leader."""
    first = await led(a, headers={"encore-tags": "a"})
    second, _ = await followed(b, headers={"encore-tags": "b", "encore-ttl": "5"})
    a.engine.gate.set()
    await asyncio.gather(first, second)
    header = await a.stored()
    assert header is not None
    assert set(header.tags) == {tag_digest(KEYS.current, "acme", tag) for tag in "ab"}
    assert header.fresh_until_ms == header.created_ms + 5_000


async def test_follower_that_wants_no_entry_keeps_all_from_it(a: Replica, b: Replica) -> None:
    """Its answer comes all the same."""
    first = await led(a)
    second, _ = await followed(b, headers={"encore-ttl": "0"})
    a.engine.gate.set()
    assert [text_of(done) for done in await asyncio.gather(first, second)] == ["Answer 1"] * 2
    assert await a.stored() is None


async def test_answer_that_is_not_stored_is_shared_all_the_same(a: Replica, b: Replica) -> None:
    """Whole, though there is no entry of it."""
    a.engine.text = ""
    first = await led(a)
    second, flight = await followed(b)
    a.engine.gate.set()
    await asyncio.gather(first, second)
    assert text_of(flight) == ""
    assert flight.entry is None
    assert await a.stored() is None
    assert b.engine.runs == 0


async def test_failure_is_shared(a: Replica, b: Replica) -> None:
    """It has its status and its words; the next request begins anew."""
    first = await led(a)
    second, _ = await followed(b)
    a.engine.failure_after_chunks = UpstreamError(
        "Broken.", status=503, code="x", param="p", retry_after_s=7
    )
    a.engine.gate.set()
    failures = await asyncio.gather(first, second, return_exceptions=True)
    told = [
        (e.message, e.status, e.code, e.param, e.retry_after_s)
        for e in failures
        if isinstance(e, EncoreError)
    ]
    assert told == [("Broken.", 503, "x", "p", 7)] * 2
    assert b.engine.runs == 0
    assert await b.ask() == "Answer 1"


async def test_leaders_client_may_leave(a: Replica, b: Replica) -> None:
    """Who follows elsewhere is waited for; whoever comes then joins."""
    first = await led(a)
    second, _ = await followed(b)
    await until(lambda: leader_of(a)._wishes)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    await asyncio.sleep(2 * origin.relay.BEAT_S)
    third = asyncio.create_task(a.ask())
    a.engine.gate.set()
    assert text_of(await second) == "Answer 1"
    assert await third in ("Answer 1", "hit")
    assert (a.engine.runs, a.engine.cancelled, b.engine.runs) == (1, 0, 0)


async def test_lost_cancellation_holds_up_no_shutdown(
    a: Replica, b: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In Python 3.11 one is lost where it comes together with what Redis was told."""
    first = await led(a)
    second, flight = await followed(b)
    follow, lost = b.leases.follow, asyncio.Event()

    async def losing(*args: Any) -> float | None:
        if not lost.is_set():
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                lost.set()
        return await follow(*args)

    monkeypatch.setattr(b.leases, "follow", losing)
    await asyncio.sleep(origin.relay.FOLLOWER_BEAT_S + 0.2)
    async with asyncio.timeout(5):
        await b.pipeline.close()
    assert lost.is_set()
    assert flight.stopped
    a.engine.gate.set()
    assert text_of(await first) == "Answer 1"
    await asyncio.gather(second, return_exceptions=True)


async def test_wishes_of_who_comes_to_a_follower_late_are_the_entrys(
    a: Replica, b: Replica
) -> None:
    """The follower says them at once, not with its next beat."""
    first = await led(a)
    second, flight = await followed(b)
    await until(lambda: leader_of(a)._wishes)
    third = await b.flight(headers={"encore-tags": "late", "encore-ttl": "5"})
    assert third is flight
    with third.joined():
        await asyncio.sleep(2 * origin.relay.BATCH_S)
        a.engine.gate.set()
        await asyncio.gather(first, second, third.result())
    header = await a.stored()
    assert header is not None
    assert header.tags == (tag_digest(KEYS.current, "acme", "late"),)
    assert header.fresh_until_ms == header.created_ms + 5_000


async def test_evicted_stream_is_not_asked_for_again_and_again(
    client: Redis, a: Replica, b: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A Redis that runs full evicts what ends soonest: the lease is there, what is said is not."""
    first = await led(a)
    second, flight = await followed(b)
    asked, acquire = 0, b.leases.acquire

    async def counting(*args: Any, **named: Any) -> Lease:
        nonlocal asked
        asked += 1
        return await acquire(*args, **named)

    monkeypatch.setattr(b.leases, "acquire", counting)
    async for name in client.scan_iter(match="*:said:*"):
        await client.unlink(name)
    await until(lambda: b.engine.runs)
    a.engine.gate.set()
    await asyncio.gather(first, second)
    assert not flight.is_elsewhere
    assert asked <= LEASE_S / origin.relay.BEAT_S + 3


async def test_batch_that_began_before_no_cache_does_not_replace_what_that_made(
    a: Replica, b: Replica
) -> None:
    """Batches of embeddings have no leases: it is told by when the generations started."""
    body = json.dumps({"model": MODEL, "input": ["x", "y"]}).encode()

    def asked(replica: Replica, headers: dict[str, str]) -> Query:
        controls = parse_controls(headers)
        return replica.pipeline.query(
            Endpoint.EMBEDDINGS, DOCUMENT, controls, body, ring=KEYS.current
        )

    async def started_ms(key: str) -> int:
        encoded = await a.store.get(key)
        return -1 if encoded is None else decode(encoded).header.generation_started_ms

    engines = [VectorEngine(), VectorEngine()]
    batches = [Batches(r.pipeline, e) for r, e in zip((a, b), engines, strict=True)]
    (key, _) = [one.key or "" for one in await a.pipeline.queries_by_input(asked(a, {}))]
    engines[0].gate.clear()
    older = asyncio.create_task(batches[0].answer(asked(a, {})))
    await engines[0].begun.acquire()
    await asyncio.sleep(0.01)  # another millisecond
    await batches[1].answer(asked(b, NO_CACHE))
    await b.pipeline.close()  # what is being stored is
    newer_ms = await started_ms(key)
    assert newer_ms > 0
    engines[0].gate.set()
    await older
    await a.pipeline.close()
    assert await started_ms(key) == newer_ms


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_bug_behind_the_answer_does_not_hold_the_lease(
    a: Replica, b: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who asks elsewhere would wait for what is never said."""

    async def crash(*_: Any, **__: Any) -> None:
        raise LookupError("a bug")

    monkeypatch.setattr(a.store, "put", crash)
    flight = await a.asked()
    assert isinstance(flight, Flight)
    await flight.landed()
    async with asyncio.timeout(5):
        assert await b.ask() == "Answer 1"
    leader: Any = flight.leader
    assert leader._mute


def leader_of(replica: Replica) -> Any:
    """What tells others of the only flight of a replica."""
    (flight,) = replica.pipeline._generations._flights._tasks
    return flight.leader


async def test_last_waiter_stops_the_generation(a: Replica, b: Replica) -> None:
    """Wherever it waits: first the leader's client leaves, then the follower's."""
    first = await led(a)
    second, _ = await followed(b)
    await until(lambda: leader_of(a)._wishes)
    first.cancel()
    await asyncio.sleep(origin.relay.BEAT_S)
    assert a.engine.cancelled == 0
    second.cancel()
    await until(lambda: a.engine.cancelled)
    await asyncio.gather(first, second, return_exceptions=True)
    await a.pipeline.close()
    a.engine.gate.set()
    assert await b.ask() == "Answer 1"


async def test_only_waiter_stops_the_generation(a: Replica, b: Replica) -> None:
    """Its lease is free at once, and nobody waits for it to run out."""
    first = await led(a)
    first.cancel()
    await until(lambda: a.engine.cancelled)
    await asyncio.gather(first, return_exceptions=True)
    await a.pipeline.close()
    assert await b.ask() == "Answer 1"


async def test_follower_that_dies_is_not_waited_for(a: Replica) -> None:
    """Its mark runs out; then nobody is left."""
    first = await led(a)
    lease = leader_of(a)._lease
    wishes = origin.relay._Checked(lease.key, lease.flight).seal(origin.relay._WISHES, b"[[],[]]")
    assert await a.leases.follow(lease, "dies", wishes) is not None
    await until(lambda: leader_of(a)._wishes)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    assert a.engine.cancelled == 0
    await until(lambda: a.engine.cancelled)


async def test_replica_that_shuts_down_hands_over_at_once(a: Replica, b: Replica) -> None:
    """Who has been passed nothing on gets an answer, without waiting for a lease to run out."""
    first = await led(a)
    second, flight = await followed(b)
    await a.pipeline.close()
    assert text_of(await second) == "Answer 1"
    assert b.engine.runs == 1
    assert not flight.is_elsewhere
    await asyncio.gather(first, return_exceptions=True)
    assert await b.ask() == "hit"


async def test_who_was_passed_something_on_is_told_of_the_end(
    a: Replica, b: Replica, client: Redis
) -> None:
    """The leader is gone: a stream breaks off honestly, others at the same flight get an answer."""
    first = await led(a)
    flight = await b.flight(stream=True)
    pieces: list[dict[str, Any]] = []

    async def listen() -> None:
        with flight.joined():
            async for payload in flight.listen():
                pieces.append(payload)  # noqa: PERF401 - what came before the failure counts

    listening = asyncio.create_task(listen())
    await until(lambda: pieces)
    plain = asyncio.create_task(b.ask())
    await client.delete(*await client.keys("*:said:*"))
    with pytest.raises(UpstreamError) as caught:
        await listening
    assert caught.value.code == "answer_interrupted"
    assert await plain == "Answer 1"
    assert b.engine.runs == 1
    a.engine.gate.set()
    assert text_of(await first) == "Answer 1"


async def test_late_store_of_a_leader_that_lost_its_lease_is_refused(
    a: Replica, b: Replica, client: Redis
) -> None:
    """Its waiters get its answer; what is kept is the later one's."""
    first = await led(a)
    (lease_name,) = await client.keys("*:lease")
    await client.hdel(lease_name, "flight")
    assert await b.ask() == "Answer 1"
    await until(lambda: not b.pipeline._generations._flights._tasks)
    kept = await b.stored()
    a.engine.gate.set()
    flight = await first
    assert isinstance(flight, Flight)
    await flight.landed()
    assert kept is not None
    assert await a.stored() == kept


async def test_no_cache_joins_nothing_older_and_is_not_stored_over(a: Replica, b: Replica) -> None:
    """Whichever of the two ends last; who comes then joins the newer one."""
    first = await led(a)
    b.engine.gate.clear()
    newer = asyncio.create_task(b.asked(headers=NO_CACHE))
    await until(lambda: b.engine.runs)
    late = asyncio.create_task(a.asked(headers={"encore-tags": "x"}))
    b.engine.gate.set()
    newest = await newer
    assert isinstance(newest, Flight)
    await newest.landed()
    kept = await b.stored()
    a.engine.gate.set()
    older = await first
    assert isinstance(older, Flight)
    await asyncio.gather(older.landed(), late)
    assert older.finished is not None
    assert older.finished.answer["usage"]["said_by"] == "a"
    assert newest.finished is not None
    assert newest.finished.answer["usage"]["said_by"] == "b"
    assert kept is not None
    assert await a.stored() == kept


@pytest.mark.parametrize(
    ("named", "follows"),
    [
        ({"everything": True}, False),
        ({"models": (MODEL,)}, False),
        ({"models": ("another",)}, False),
        ({"tags": ("0123456789ab",)}, False),
        ({"keys": ("f" * 64,)}, True),
    ],
    ids=str,
)
async def test_purge_keeps_from_following_what_began_before(
    a: Replica, b: Replica, named: Any, follows: bool
) -> None:
    """Unless it cannot mean this entry. What began before is not stored over what began behind."""
    first = await led(a)
    document = purged(DOCUMENT, Purge(**named), await a.control.now_ms())
    asking = asyncio.create_task(b.asked(document=document))
    await until(
        lambda: b.engine.runs or (b.pipeline._generations._flights._tasks and flight_of(b).chunks)
    )
    assert b.engine.runs == (not follows)
    kept = None
    if not follows:
        await asking
        await until(lambda: not b.pipeline._generations._flights._tasks)
        kept = await b.stored()
        assert kept is not None
    a.engine.gate.set()
    await asyncio.gather(first, asking)
    await until(lambda: not a.pipeline._generations._flights._tasks)
    assert kept in (None, await a.stored())


def flight_of(replica: Replica) -> Flight:
    """The only flight of a replica."""
    (flight,) = replica.pipeline._generations._flights._tasks
    return flight


async def test_other_model_under_the_same_name_is_not_followed(a: Replica, b: Replica) -> None:
    """As between two releases; each replica's requests are answered by its own."""
    first = await led(a)
    b.engine.model_fingerprint = "f2"
    assert await b.ask() == "Answer 1"
    assert b.engine.runs == 1
    a.engine.gate.set()
    await first


async def test_stale_entry_is_refreshed_by_one_replica(redis_url: str, client: Redis) -> None:
    """However many notice; who comes behind the end finds the new entry with the lease."""
    await client.ping()
    replicas = [Replica(redis_url) for _ in range(3)]
    first = replicas[0]
    await first.ask()
    await until(lambda: not first.pipeline._generations._flights._tasks)
    for replica in replicas:
        replica.later_ms = 120_000
    assert [await replica.ask() for replica in replicas * 3] == ["hit"] * 9
    await until(lambda: not any(replica.pipeline._refreshes for replica in replicas))
    assert sum(replica.engine.runs for replica in replicas) == 2
    header = await first.stored()
    assert header is not None
    assert header.fresh_until_ms > await first.control.now_ms() + first.later_ms
    for replica in replicas:
        await replica.close()


class Held:
    """A call of a replica's leases that waits, from when it `began` until it may `go_on`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, replica: Replica, name: str) -> None:
        self.began, self.go_on = asyncio.Event(), asyncio.Event()
        self._call = getattr(replica.leases, name)
        monkeypatch.setattr(replica.leases, name, self)

    async def __call__(self, *args: Any, **named: Any) -> Any:
        """The call, held."""
        self.began.set()
        await self.go_on.wait()
        return await self._call(*args, **named)


async def test_entry_stored_meanwhile_is_found_with_the_lease(
    a: Replica, b: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who looked before it was stored, and asks for the lease after it was given back."""
    acquire = Held(monkeypatch, b, "acquire")
    asking = asyncio.create_task(b.asked(stream=True))
    picky = asyncio.create_task(b.asked("Other", headers={"cache-control": "min-fresh=101"}))
    await acquire.began.wait()
    for text in ("Hello", "Other"):
        await a.ask(text)
    await until(lambda: not a.pipeline._generations._flights._tasks)
    acquire.go_on.set()
    flight = await asking
    assert isinstance(flight, Flight)
    assert flight.is_elsewhere
    assert flight.entry is not None
    assert text_of(flight) == "Answer 1"
    assert text_of(await picky) == "Answer 1"
    assert (a.engine.runs, b.engine.runs) == (2, 1)


MATCHED = replace(DOCUMENT, calibration="0123456789ab")


async def promote(replica: Replica) -> None:
    """Put an answer to another question under the key of the one that everybody asks."""
    other = replica.query("Another", document=MATCHED)
    await replica.ask("Another", document=MATCHED)
    await until(lambda: not replica.pipeline._generations._flights._tasks)
    encoded = await replica.store.get(other.key or "")
    assert encoded is not None
    query = replica.query(document=MATCHED)
    entry = promoted(
        decode(encoded), query, similarity=0.9, keys=KEYS, now_ms=time.time_ns() // 1_000_000
    )
    await replica.store.put(query.key or "", encode(entry), entry.header.expires_ms)


@pytest.mark.parametrize("semantic", ["off", "0.95", "0.5"])
async def test_matched_entry_found_with_the_lease_answers_only_who_may_have_it(
    a: Replica, b: Replica, monkeypatch: pytest.MonkeyPatch, semantic: str
) -> None:
    """Of those who wait by then."""
    acquire = Held(monkeypatch, b, "acquire")
    asking = asyncio.create_task(b.asked(document=MATCHED))
    await acquire.began.wait()
    flight = flight_of(b)
    strict = asyncio.create_task(b.asked(document=MATCHED, headers={"encore-semantic": semantic}))
    await until(lambda: len(flight.wishes) > 1)
    await promote(a)
    acquire.go_on.set()
    assert set(await asyncio.gather(asking, strict)) == {flight}
    assert flight.entry is not None
    assert (flight.entry.header.source is not None) == (semantic == "0.5")


async def test_nobody_joins_what_found_a_matched_entry_who_may_not_have_it(
    a: Replica, b: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While its lease is given back, though no purge speaks against it."""
    acquire, end = (Held(monkeypatch, b, name) for name in ("acquire", "end"))
    asking = asyncio.create_task(b.asked(document=MATCHED))
    await acquire.began.wait()
    await promote(a)
    acquire.go_on.set()
    await end.began.wait()
    flight = flight_of(b)
    wishes = ("off", "0.95", "0.5")
    joined = [
        b.pipeline._generations.joinable(
            b.query(document=MATCHED, headers={"encore-semantic": wish})
        )
        for wish in wishes
    ]
    end.go_on.set()
    await asking
    assert joined == [None, None, flight]


async def test_follower_has_a_matched_entry_only_if_it_may(
    a: Replica, b: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its leader may, and finds one whose generation began after its own would have."""
    acquire, end = (Held(monkeypatch, a, name) for name in ("acquire", "end"))
    asking = asyncio.create_task(a.asked(document=MATCHED))
    await acquire.began.wait()
    await promote(b)
    acquire.go_on.set()
    await end.began.wait()
    flight = await b.flight(document=MATCHED, headers={"encore-semantic": "off"})
    following = asyncio.create_task(flight.landed())
    with flight.joined():
        await until(lambda: flight.is_elsewhere)
        end.go_on.set()
        await flight.result()
    await asyncio.gather(asking, following)
    assert flight.entry is not None
    assert flight.entry.header.source is None


async def test_what_goes_through_redis_for_an_encrypted_tenant_is_sealed(
    a: Replica, b: Replica, client: Redis
) -> None:
    """Pieces of the answer and its end; they are followed all the same."""
    document = ControlDocument(tenant="acme", revision=1, policy=Policy(encrypted=True))
    for text, doc in (("sealed", document), ("open", DOCUMENT)):
        first = await led(a, text, document=doc)
        second, flight = await followed(b, text, document=doc)
        a.engine.gate.set()
        await asyncio.gather(first, second)
        assert flight.chunks
        (name,) = await client.keys("*:said:*")
        rows: Any = await client.xrange(name)
        said: list[bytes] = [fields[b"p"] for _, fields in rows]
        kinds = {piece[4:5] for piece in said[1:]}  # behind its checksum
        assert (kinds == {b"c", b"e"}) == (text == "open")
        if text == "sealed":
            joined = b"".join(said)
            assert b"Answer" not in joined
            assert b"ENCE" not in joined.upper()
        await until(lambda: not a.pipeline._generations._flights._tasks)
        await client.flushall()
    assert b.engine.runs == 0


async def test_flight_that_says_too_much_is_not_shared(
    a: Replica, b: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who follows generates; who waits here gets its answer."""
    monkeypatch.setattr(origin.relay, "MAX_SAID_BYTES", 400)
    first = await led(a)
    second, _ = await followed(b)
    flight = flight_of(a)
    flight.chunks += [{"noise": f"{number * 7919 % 10_007}"} for number in range(2000)]
    assert text_of(await second) == "Answer 1"
    assert b.engine.runs == 1
    a.engine.gate.set()
    assert text_of(await first) == "Answer 1"


async def test_junk_from_others_costs_a_generation(a: Replica, b: Replica, client: Redis) -> None:
    """Whatever stands in the stream or in the lease."""
    for number, junk in enumerate((b"c\x00", b"?", b"x{}", b"x[]", b"a[1]", b"e", b"cnull")):
        query = b.query(f"Question {number}")
        lease = await a.leases.acquire(
            query.key or "", f"junk{number}", about_of(b, query), insist=False
        )
        await a.leases.say(lease, FIRST_PIECE, junk)
        assert await b.ask(f"Question {number}") == f"Answer {number + 1}"
        await a.leases.end(lease, FIRST_PIECE + 1, b"")
    await a.leases.acquire(b.query("about").key or "", "about", b"\xff", insist=False)
    assert await b.ask("about") == f"Answer {b.engine.runs}"
    await client.ping()


def about_of(replica: Replica, query: Query) -> bytes:
    """What a leader would say of itself."""
    from origin.entries import entry_to_be  # noqa: PLC0415
    from shared.envelope import header_json  # noqa: PLC0415

    header = entry_to_be(
        key=query.key or "",
        tenant="acme",
        model=MODEL,
        generation_started_ms=1,
        fingerprint=replica.engine.model_fingerprint,
        tags=(),
        encryption=None,
    )
    return b"1 " + header_json(header)


async def test_redis_that_dies_costs_generations_only(tmp_path: Path) -> None:
    """In the midst of a shared flight: leader and follower both get an answer, each its own."""
    with embedded_redis(tmp_path) as url:
        a, b = Replica(url), Replica(url)
        first = await led(a)
        second, _ = await followed(b)
    a.engine.gate.set()
    assert [text_of(done) for done in await asyncio.gather(first, second)] == ["Answer 1"] * 2
    assert (a.engine.runs, b.engine.runs) == (1, 1)
    assert [await replica.ask("during") for replica in (a, b)] == ["Answer 2"] * 2
    with embedded_redis(tmp_path):
        answers = await asyncio.gather(*(replica.ask("behind") for replica in (a, b, a, b)))
        assert set(answers) <= {"Answer 3", "hit"}
        assert a.engine.runs + b.engine.runs == 5
        await a.close()
        await b.close()


async def test_what_a_miss_and_a_hit_cost_of_redis(a: Replica, client: Redis) -> None:
    """A hit is one command. A miss adds five: clock, lease, what was said, the store, the end."""

    async def commands() -> Counter[str]:
        stats = await client.info("commandstats")
        ours = ("cmdstat_get", "cmdstat_set", "cmdstat_time", "cmdstat_evalsha", "cmdstat_xread")
        return Counter({name[8:]: stats[name]["calls"] for name in ours if name in stats})

    await a.ask("warm up: scripts are loaded")
    await until(lambda: not a.pipeline._generations._flights._tasks)
    before = await commands()
    await a.ask()
    await until(lambda: not a.pipeline._generations._flights._tasks)
    after_miss = await commands()
    assert await a.ask() == "hit"
    scripts = (after_miss - before)["evalsha"]
    assert scripts == 5
    assert await commands() - after_miss == Counter(get=1)
