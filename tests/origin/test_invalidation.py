"""Events that purge: what is applied, what is put aside, what is tried again; and what is heard."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr
from redis.asyncio import Redis

from origin.app import create_app
from origin.audit import ORIGIN
from origin.control import Control, covers
from origin.embedded_redis import embedded_redis
from origin.invalidation import Invalidation
from origin.metrics import INVALIDATION_EVENTS, STORE_WRITES
from origin.settings import Settings
from origin.stores.contract import StoreError
from origin.stores.memory import MemoryStore
from origin.stores.memory_control import MemoryControlStore
from origin.stores.redis_control import RedisControlStore
from origin.stores.redis_events import RedisEvents
from origin.tasks import end
from shared.control_document import (
    ControlDocument,
    CutOffs,
    Purge,
    decode,
    encode,
    new_document,
    purged,
    revised,
)
from shared.errors import InternalError
from shared.keys import key_rings, make_api_key, tag_digest
from tests.support.control import control_store, document_of, put_document
from tests.support.engines import MODEL, ScriptedEngine
from tests.support.waiting import until

SECRET = "a secret of the tests, long enough"
KEYS = key_rings(SECRET)
CLIENT = make_api_key(KEYS.current, "acme", bytes(15))
ADMIN = make_api_key(KEYS.current, "acme", bytes([1]) * 15)
OTHER = make_api_key(KEYS.current, "other", bytes(15))
CHANNEL, STREAM = "encore:invalidate", "encore:invalidations"
REFUSED = f"{STREAM}:refused"
PATIENT_S = 10.0
EVERYTHING = Purge(everything=True)
EVENT = {"tenant": "acme", "everything": True}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real Redis."""
    with embedded_redis(tmp_path_factory.mktemp("invalidation")) as url:
        yield url


@pytest.fixture
async def redis(server: str) -> AsyncIterator[Any]:
    """A client of it, which is an application's; it is empty but for two tenants' documents."""
    async with Redis.from_url(server) as client:
        await client.flushall()
        store = RedisControlStore.from_url(server, timeout_s=PATIENT_S)
        for api_key in (CLIENT, OTHER):
            await put_document(store, document_of(api_key))
        await store.close()
        yield client


class Replica:
    """What an origin process has of all this. Its control store may be told to fail."""

    def __init__(self, url: str, *, claim_s: float = 30) -> None:
        self.store = RedisControlStore.from_url(url, timeout_s=PATIENT_S)
        self.control = Control(self.store, longest_life_ms=0)
        self.events = RedisEvents.from_url(url, timeout_s=PATIENT_S, claim_s=claim_s)
        self.invalidation = Invalidation(self.events, self.control, KEYS, claim_interval_s=0)

    async def close(self) -> None:
        """Free connections."""
        await self.events.close()
        await self.control.close()


@asynccontextmanager
async def replica(url: str, *, claim_s: float = 30) -> AsyncIterator[Replica]:
    """A replica that listens and consumes."""
    each = Replica(url, claim_s=claim_s)
    tasks = [
        asyncio.create_task(run()) for run in (each.invalidation.listen, each.invalidation.consume)
    ]
    try:
        async with Redis.from_url(url) as client:
            await until(_true_of(lambda: _listeners(client)))
        yield each
    finally:
        await end(tasks)
        await each.close()


def _true_of(asked: Callable[[], Awaitable[object]]) -> Callable[[], Awaitable[bool]]:
    async def holds() -> bool:
        return bool(await asked())

    return holds


async def _listeners(client: Any) -> int:
    ((_, count),) = await client.pubsub_numsub(CHANNEL)
    return int(count)


async def cut_offs(redis: Any, tenant: str = "acme") -> CutOffs:
    """What is purged of a tenant."""
    document = await redis.hget(f"encore:ctl:{{{tenant}}}", "document")
    return decode(document, tenant).cut_offs


async def purged_since(redis: Any, before: CutOffs, tenant: str = "acme") -> CutOffs:
    """The cut-offs once they are other ones."""
    await until(_true_of(lambda: _differ(redis, before, tenant)))
    return await cut_offs(redis, tenant)


async def _differ(redis: Any, before: CutOffs, tenant: str) -> bool:
    return await cut_offs(redis, tenant) != before


def counted(source: str, outcome: str) -> float:
    """How many events came to that."""
    return float(INVALIDATION_EVENTS.labels(source, outcome)._value.get())


async def tell(redis: Any, source: str, event: object) -> None:
    """Publish an event, as text or as JSON."""
    text = event if isinstance(event, str | bytes) else json.dumps(event)
    if source == "channel":
        await redis.publish(CHANNEL, text)
    else:
        await redis.xadd(STREAM, {"event": text})


@pytest.mark.parametrize("source", ["channel", "stream"])
async def test_an_event_purges_what_it_names(server: str, redis: Any, source: str) -> None:
    """As a purge over HTTP would, and it is recorded as an event's."""
    before = await cut_offs(redis)
    others = await cut_offs(redis, "other")
    event = {"tenant": "acme", "tags": ["news"], "models": ["m"], "keys": ["0" * 64]}
    async with replica(server):
        await tell(redis, source, event)
        after = await purged_since(redis, before)
    assert set(after.models) == {"m"}
    assert set(after.tags) == {tag_digest(KEYS.current, "acme", "news")}
    assert set(after.keys) == {"0" * 16}
    assert await cut_offs(redis, "other") == others
    ((_, fields),) = await redis.xrange("encore:audit:{acme}")
    record = json.loads(fields[b"record"])
    assert (record["action"], record["actor"]) == ("purge", "event")
    assert record["path"] == (CHANNEL if source == "channel" else STREAM)


@pytest.mark.parametrize("source", ["channel", "stream"])
async def test_an_event_may_mean_every_tenant(server: str, redis: Any, source: str) -> None:
    """Everything of each."""
    before = [await cut_offs(redis, tenant) for tenant in ("acme", "other")]
    async with replica(server):
        await tell(redis, source, {"tenant": "*", "everything": True})
        for tenant, cut_off in zip(("acme", "other"), before, strict=True):
            assert (await purged_since(redis, cut_off, tenant)).all_ms > cut_off.all_ms


async def test_an_event_may_spare_what_is_young(server: str, redis: Any) -> None:
    """By `older_than_s`."""
    before = await cut_offs(redis)
    seconds, _ = await redis.time()
    async with replica(server):
        event = {"tenant": "acme", "models": ["m"], "older_than_s": 20}
        await tell(redis, "stream", event)
        after = await purged_since(redis, before)
    assert seconds * 1000 - 20_000 <= after.models["m"] <= seconds * 1000 - 10_000


BAD_EVENTS = [
    b"",
    b"\xff",
    "no JSON",
    "[]",
    {},
    {"everything": True},
    {"tenant": "acme"},
    {"tenant": "acme", "everything": True, "dry_run": True},
    {"tenant": "acme", "everything": False},
    {"tenant": "acme", "everything": True, "tags": ["x"]},
    {"tenant": "acme", "tags": "x"},
    {"tenant": "acme", "tag": ["x"]},
    {"tenant": "nobody", "everything": True},
    {"tenant": "{", "everything": True},
    {"tenant": "*", "tags": ["x"]},
    {"tenant": "acme", "tags": ["x" * 100]},
    {"tenant": "acme", "tags": ["a,b"]},
    '{"tenant": "acme", "everything": true, "everything": true}',
    "[" * 100_000,
    " " * (2 << 20),
]


async def test_what_is_no_purge_is_put_aside(
    server: str, redis: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Once, by its id; nobody is disturbed, and its text is nowhere in the log."""
    before = await cut_offs(redis)
    bad = counted("stream", "bad"), counted("channel", "bad")
    async with replica(server):
        for event in BAD_EVENTS:
            await tell(redis, "stream", event)
            await tell(redis, "channel", event)
        await redis.xadd(STREAM, {"another": "field"})
        await tell(redis, "stream", {"tenant": "acme", "models": ["after"]})
        assert set((await purged_since(redis, before)).models) == {"after"}
        await tell(redis, "channel", {"tenant": "acme", "models": ["and after"]})
        await until(_true_of(lambda: _names(redis, "and after")))
        await until(_true_of(lambda: _is_empty(redis)))
    assert (await cut_offs(redis)).all_ms == before.all_ms
    assert await redis.xlen(REFUSED) == len(BAD_EVENTS) + 1
    assert counted("stream", "bad") - bad[0] == len(BAD_EVENTS) + 1
    assert counted("channel", "bad") - bad[1] == len(BAD_EVENTS)
    assert "it names no tenant; it is in encore:invalidations:refused" in caplog.text
    assert "no JSON" not in caplog.text
    assert "nobody" not in caplog.text


async def _names(redis: Any, model: str) -> bool:
    return model in (await cut_offs(redis)).models


async def _is_empty(redis: Any) -> bool:
    return int(await redis.xlen(STREAM)) == 0


async def test_what_fails_is_tried_again(
    server: str, redis: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It stays in the stream until the purge is durable; others are not held up."""
    before = await cut_offs(redis)
    failed = counted("stream", "failed")
    async with replica(server, claim_s=0) as each:
        load = each.store.load

        async def fail_for_acme(tenant: str) -> bytes | None:
            if tenant == "acme":
                raise StoreError("down")
            return await load(tenant)

        with monkeypatch.context() as outage:
            outage.setattr(each.store, "load", fail_for_acme)
            await tell(redis, "stream", EVENT)
            await tell(redis, "stream", {"tenant": "other", "models": ["m"]})
            await until(_true_of(lambda: _is_cut_off(redis, "other", "m")))

            async def has_failed_thrice() -> bool:
                return counted("stream", "failed") - failed >= 3

            await until(has_failed_thrice)
            assert await cut_offs(redis) == before
            assert await redis.xlen(STREAM) == 1
        assert (await purged_since(redis, before)).all_ms > before.all_ms
        await until(_true_of(lambda: _is_empty(redis)))


async def test_what_fails_for_one_tenant_is_not_repeated_for_the_others(
    server: str, redis: Any
) -> None:
    """A document that nobody can read must not have everybody purged by each process there is."""
    before = await cut_offs(redis)
    await redis.hset("encore:ctl:{other}", "document", "damaged")
    await tell(redis, "stream", {"tenant": "*", "everything": True})
    for _ in range(2):
        failed = counted("stream", "failed")
        async with replica(server, claim_s=0):

            async def has_failed_thrice(failed: float = failed) -> bool:
                return counted("stream", "failed") - failed >= 3

            await until(has_failed_thrice)
    assert (await cut_offs(redis)).all_ms > before.all_ms
    assert await redis.xlen("encore:audit:{acme}") == 1
    assert await redis.xlen(STREAM) == 1


async def _is_cut_off(redis: Any, tenant: str, model: str) -> bool:
    return model in (await cut_offs(redis, tenant)).models


async def test_a_bug_is_met_once(server: str, redis: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """What raises the unforeseen is put aside, like what is no purge."""
    async with replica(server, claim_s=0) as each:

        async def crash(*_: object) -> bool:
            raise LookupError("a bug")

        monkeypatch.setattr(each.control, "apply", crash)
        await tell(redis, "stream", EVENT)
        await until(_true_of(lambda: redis.xlen(REFUSED)))
        await until(_true_of(lambda: _is_empty(redis)))


async def test_what_a_dead_replica_had_taken_is_applied(server: str, redis: Any) -> None:
    """By one that lives."""
    before = await cut_offs(redis)
    dead = Replica(server)
    await dead.events.take(0.01)
    await tell(redis, "stream", EVENT)
    assert len(await dead.events.take(1)) == 1
    await dead.close()
    async with replica(server, claim_s=0):
        assert (await purged_since(redis, before)).all_ms > before.all_ms
        await until(_true_of(lambda: _is_empty(redis)))


async def test_a_replica_that_was_cut_off_hears_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By itself, with what it remembers looked at anew: a change may have gone unheard."""
    monkeypatch.setattr("origin.control.MEMO_S", 3600)
    with embedded_redis(tmp_path) as url:
        writer = RedisControlStore.from_url(url, timeout_s=PATIENT_S)
        await put_document(writer, document_of(CLIENT))
        async with replica(url) as each:
            known = await each.control.document("acme")
            assert known is not None
            document = await _unheard_change(url, known)
            assert await each.control.document("acme") == known
            async with Redis.from_url(url) as client:
                for kind in ("pubsub", "normal"):
                    await client.client_kill_filter(_type=kind, skipme=True)

                async def has_looked() -> bool:
                    return each.control.known("acme") == document

                await until(has_looked)
                await until(_true_of(lambda: _listeners(client)))
                await client.publish(CHANNEL, json.dumps(EVENT))

                async def has_purged() -> bool:
                    now = each.control.known("acme")
                    return now is not None and now.cut_offs.all_ms > document.cut_offs.all_ms

                await until(has_purged)
        await writer.close()


async def _unheard_change(url: str, document: ControlDocument) -> ControlDocument:
    """A change that nobody is told of."""
    changed = revised(document, document.revision + 1)
    async with Redis.from_url(url) as client:
        fields: dict[Any, Any] = {"revision": changed.revision, "document": encode(changed)}
        await client.hset("encore:ctl:{acme}", mapping=fields)
    return changed


async def test_a_change_is_known_before_memos_end(
    server: str, redis: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At every replica that remembers the document."""
    monkeypatch.setattr("origin.control.MEMO_S", 3600)
    async with replica(server) as here, replica(server) as there:
        await until(_true_of(lambda: _both_listen(redis)))
        for each in (here, there):
            assert await each.control.document("acme") is not None
        assert await here.control.apply("acme", EVERYTHING, ORIGIN)
        purged_here = here.control.known("acme")

        async def is_known() -> bool:
            return there.control.known("acme") == purged_here

        await until(is_known)
        assert there.control.known("other") is None


async def _both_listen(redis: Any) -> bool:
    return await _listeners(redis) == 2


async def test_of_many_who_hear_an_event_one_acts() -> None:
    """Where they hear it before the purge; who hears it later may purge once more."""
    store = MemoryControlStore(lambda: 5000)
    controls = [Control(store, longest_life_ms=0) for _ in range(3)]
    await put_document(store, new_document("acme", 1))
    heard_ms = await store.now_ms()
    acted = await asyncio.gather(
        *(each.apply("acme", EVERYTHING, ORIGIN, heard_ms=heard_ms) for each in controls)
    )
    assert sorted(acted) == [False, False, True]
    assert len((await store.records({"acme": "0-0"}))["acme"]) == 1
    store.clock_ms = lambda: 5001
    assert await controls[0].apply("acme", EVERYTHING, ORIGIN)


async def test_one_tenants_failure_leaves_no_other_out() -> None:
    """It is raised once the rest are purged: the event is tried again."""
    store = MemoryControlStore(lambda: 5000)
    for tenant in ("acme", "other"):
        await put_document(store, new_document(tenant, 1))
    store._documents["acme"] = (1, b"damaged")
    with pytest.raises(InternalError) as refused:
        await Control(store, longest_life_ms=0).apply("*", EVERYTHING, ORIGIN)
    assert refused.value.code == "control_unreadable"
    assert decode(await store.load("other") or b"", "other").cut_offs.all_ms == 5000


names = st.lists(st.sampled_from(["0" * 16, "1" * 16, "2" * 16]), unique=True).map(tuple)
digests = st.lists(st.sampled_from(["0" * 12, "1" * 12]), unique=True).map(tuple)
models = st.lists(st.sampled_from(["m", "n", "o"]), unique=True).map(tuple)
purges = st.one_of(
    st.integers(0, 3).map(lambda age_s: Purge(everything=True, older_than_s=age_s)),
    st.tuples(names, digests, models, st.integers(0, 3))
    .filter(lambda parts: any(parts[:3]))
    .map(lambda parts: Purge(keys=parts[0], tags=parts[1], models=parts[2], older_than_s=parts[3])),
)


@given(st.lists(st.tuples(purges, st.integers(0, 9000)), max_size=4), purges, st.integers(0, 9000))
def test_covered_is_what_a_purge_would_not_change(
    earlier: list[tuple[Purge, int]], purge: Purge, at_ms: int
) -> None:
    """A purge covers itself; where it is covered it moves no cut-off, and else it does."""
    document = new_document("acme", 0)
    for each, time_ms in earlier:
        document = purged(document, each, time_ms)
    after = purged(document, purge, at_ms)
    assert covers(after.cut_offs, purge, at_ms)
    assert covers(document.cut_offs, purge, at_ms) == (after.cut_offs == document.cut_offs)


async def test_a_purge_drops_what_is_being_made() -> None:
    """Who waits is answered, and nothing is stored."""
    store, engine = MemoryStore(), ScriptedEngine()
    app = create_app(
        Settings(secret=SecretStr(SECRET)),
        engine=engine,
        store=store,
        control_store=control_store(CLIENT, admins=[ADMIN]),
    )
    dropped = STORE_WRITES.labels("purged")._value.get()
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app), base_url="http://origin"
    ) as client:

        async def ask() -> httpx.Response:
            return await client.post(
                "/v1/chat/completions",
                json={"model": MODEL, "messages": [{"role": "user", "content": "Hello"}]},
                headers={"authorization": f"Bearer {CLIENT}"},
            )

        async def is_running() -> bool:
            return engine.runs == 1

        async def is_dropped() -> bool:
            return bool(STORE_WRITES.labels("purged")._value.get() > dropped)

        engine.gate.clear()
        asking = asyncio.create_task(ask())
        await until(is_running)
        body, headers = {"everything": True}, {"authorization": f"Bearer {ADMIN}"}
        assert (await client.post("/cache/purge", json=body, headers=headers)).status_code == 200
        engine.gate.set()
        assert _text(await asking) == "Answer 1"
        await until(is_dropped)
        assert store._entries == {}
        assert _text(await ask()) == "Answer 2"


def _text(response: httpx.Response) -> str:
    return str(response.json()["choices"][0]["message"]["content"])
