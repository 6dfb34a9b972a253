"""Warm-up jobs over a real pipeline, with an engine and a store whose steps the test decides."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest

from origin import warm_jobs
from origin.control import Control
from origin.embeddings import Batches
from origin.engine.turns import OrderlyEngine, Turns
from origin.exact_tier import Hit
from origin.pipeline import Pipeline
from origin.quiet_hours import QuietHours
from origin.stores.contract import StoreError
from origin.stores.job_contract import Lease
from origin.stores.memory import MemoryStore
from origin.stores.memory_control import MemoryControlStore
from origin.stores.memory_jobs import MemoryJobStore
from origin.warm_jobs import ATTEMPTS, JobView, WarmJobs
from origin.warm_requests import WarmRequest, read
from shared.control_document import Policy, new_document, revised
from shared.controls import Controls
from shared.envelope import decode
from shared.errors import ClientError, InternalError, UpstreamError
from shared.freshness import Lifetimes
from shared.keys import key_rings
from shared.requests import Endpoint
from tests.support.control import put_document
from tests.support.engines import MODEL, ScriptedEngine, VectorEngine

START_MS = 1_700_000_000_000  # 22:13:20 UTC
HOUR_MS = 3_600_000
TTL_S = 1000


class Replica:
    """An origin process's part in jobs."""

    def __init__(self, bench: Bench) -> None:
        self.turns = Turns(2)
        self.control = Control(bench.control_store, longest_life_ms=HOUR_MS * 10)
        engine = OrderlyEngine(bench.engine, self.turns)
        self.pipeline = Pipeline(
            keys=bench.keys,
            store=bench.store,
            engine=engine,
            lifetimes=Lifetimes(
                ttl_s=TTL_S, stale_while_revalidate_s=100, stale_if_error_s=100, max_ttl_s=TTL_S
            ),
            deadline_s=30,
            store_clock=self.control.now_ms,
            clock_ms=bench.clock,
        )
        self.jobs = WarmJobs(
            bench.job_store,
            pipeline=self.pipeline,
            batches=Batches(self.pipeline, engine),
            control=self.control,
            keys=bench.keys,
            turns=self.turns,
            quiet_hours=bench.quiet_hours,
            clock_ms=bench.clock,
            sleep=bench.sleep,
        )

    async def close(self) -> None:
        """Stop as a process does that is told to."""
        await self.jobs.close()
        await self.pipeline.close()
        await self.control.close()


class Bench:
    """What replicas share, and what a test turns."""

    def __init__(self) -> None:
        self.now_ms = START_MS
        self.slept_s: list[float] = []
        self.engine = ScriptedEngine()
        self.store = MemoryStore(now_ms=self.clock)
        self.job_store = MemoryJobStore(self.clock)
        self.control_store = MemoryControlStore(clock_ms=self.clock)
        self.keys = key_rings("a secret of the tests, long enough")
        self.quiet_hours: QuietHours | None = None
        self.replicas: list[Replica] = []

    def clock(self) -> int:
        """The time."""
        return self.now_ms

    async def sleep(self, seconds: float) -> None:
        """Note that somebody wanted to."""
        self.slept_s.append(seconds)
        await asyncio.sleep(0)

    def replica(self) -> Replica:
        """One more."""
        self.replicas.append(Replica(self))
        return self.replicas[-1]

    async def until_runs(self, count: int) -> None:
        """Wait until the engine has been asked so often."""
        while self.engine.runs < count:  # noqa: ASYNC110 - it has no event for it
            await asyncio.sleep(0.002)

    async def done(self, replica: Replica, job: str) -> JobView:
        """The job, once it is done."""
        while True:
            view = await replica.jobs.view("acme", job)
            if view.state.done == view.state.total:
                return view
            await asyncio.sleep(0.005)


@pytest.fixture
async def bench(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bench]:
    """A bench with the tenant `acme`."""
    monkeypatch.setattr(warm_jobs, "POLL_S", 0.01)
    bench = Bench()
    await put_document(bench.control_store, new_document("acme", START_MS - 1))
    yield bench
    for replica in bench.replicas:
        await replica.close()


def asked(*texts: str, **headers: str) -> list[WarmRequest]:
    """A chat request for each of the texts."""
    return [read({"body": chat(text), "headers": headers}) for text in texts]


def chat(text: str) -> dict[str, Any]:
    """A chat body."""
    return {"model": MODEL, "messages": [{"role": "user", "content": text}]}


async def counts(bench: Bench, requests: list[WarmRequest]) -> Mapping[str, int]:
    """What a job of these comes to."""
    replica = bench.replica()
    replica.jobs.start()
    view = await replica.jobs.add("acme", requests, quiet=False)
    return (await bench.done(replica, view.id)).state.counts


async def until_waiting(replica: Replica, count: int) -> None:
    """Wait until so many warm-ups want their turn."""
    while len(replica.turns._warm) < count:  # noqa: ASYNC110 - nobody but this test asks
        await asyncio.sleep(0.002)


async def test_what_is_warmed_is_a_hit(bench: Bench) -> None:
    """For whoever asks; what was known already is said to be."""
    assert await counts(bench, asked("a", "b", "a")) == {
        "generated": 2,
        "stored": 2,
        "tokens": 10,
        "cached": 1,
    }
    replica = bench.replicas[0]
    document = await replica.control.document("acme")
    assert document is not None
    query = replica.pipeline.query(
        Endpoint.CHAT,
        document,
        Controls(),
        asked("b")[0].body,
        ring=bench.keys.current,
    )
    assert isinstance(await replica.pipeline.answer(query), Hit)


async def test_what_is_stale_is_made_anew(bench: Bench) -> None:
    """Although it would still be served."""
    await counts(bench, asked("a"))
    bench.now_ms += TTL_S * 1000 + 1000
    assert (await counts(bench, asked("a")))["generated"] == 1


async def test_batches_of_embeddings_are_warmed_by_input(bench: Bench) -> None:
    """They have no entry of their own."""
    bench.engine = VectorEngine()
    fields = {"endpoint": "/v1/embeddings", "body": {"model": MODEL, "input": ["a", "b"]}}
    one = {**fields, "body": {"model": MODEL, "input": "a"}}
    result = await counts(bench, [read(fields), read(fields), read(one)])
    assert (result["generated"], result["stored"]) == (1, 1)
    assert result["cached"] == 2


async def test_failures_are_counted_by_reason(bench: Bench) -> None:
    """And the rest goes on."""
    bad = read({"body": {**chat("x"), "model": "other"}})
    result = await counts(bench, [bad, *asked("a")])
    assert (result["failed:model_not_found"], result["stored"]) == (1, 1)


async def test_retry_after_is_respected(bench: Bench) -> None:
    """So often, and then it has failed; what has no `Retry-After` is not tried again."""
    bench.engine.failure = UpstreamError("Wait.", status=503, code="busy", retry_after_s=7)
    assert await counts(bench, asked("a")) == {"failed:busy": 1}
    assert bench.slept_s == [7] * (ATTEMPTS - 1)
    bench.engine.failure = UpstreamError("No.", code="broken")
    assert await counts(bench, asked("b")) == {"failed:broken": 1}
    assert len(bench.slept_s) == ATTEMPTS - 1
    bench.engine.failure = UpstreamError("Tomorrow.", status=429, code="quota", retry_after_s=9999)
    assert await counts(bench, asked("c")) == {"failed:quota": 1}
    assert len(bench.slept_s) == ATTEMPTS - 1


async def test_bug_costs_one_request(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    """And says nothing of what was asked."""

    def check(_request: object) -> None:
        raise KeyError("secret words")

    bench.engine.check = check  # type: ignore[method-assign,assignment]
    assert await counts(bench, asked("a")) == {"failed:internal": 1}
    assert "KeyError" in caplog.text
    assert "secret words" not in caplog.text


async def test_tenant_that_is_gone_is_asked_nothing(bench: Bench) -> None:
    """By the documents that rule when the job runs."""
    replica = bench.replica()
    view = await replica.jobs.add("other", asked("a"), quiet=False)
    replica.jobs.start()
    while (state := (await replica.jobs.view("other", view.id)).state).done == 0:  # noqa: ASYNC110
        await asyncio.sleep(0.005)
    assert state.counts == {"failed:no_tenant": 1}
    assert bench.engine.runs == 0


async def test_policy_of_then_rules(bench: Bench) -> None:
    """An encrypted tenant's answers are sealed, although it was not when the job was added."""
    replica = bench.replica()
    view = await replica.jobs.add("acme", asked("a"), quiet=False)
    encrypted = revised(new_document("acme", START_MS - 1), START_MS, policy=Policy(encrypted=True))
    await put_document(bench.control_store, encrypted)
    replica.jobs.start()
    await bench.done(replica, view.id)
    (entry,) = bench.store._entries.values()
    assert decode(entry[0]).header.encryption == bench.keys.current.id


async def test_live_request_is_not_kept_waiting(bench: Bench) -> None:
    """No warm-up begins while live ones want the engine, however many jobs there are."""
    bench.engine.gate.clear()
    replica = bench.replica()
    async with replica.turns.live(), replica.turns.live():
        view = await replica.jobs.add("acme", asked("a", "b"), quiet=False)
        replica.jobs.start()
        await until_waiting(replica, 1)
        assert bench.engine.runs == 0
    await bench.until_runs(1)  # one of two places is left to live requests
    async with replica.turns.live():
        bench.engine.gate.set()
        await until_waiting(replica, 1)
        assert bench.engine.runs == 1
    assert (await bench.done(replica, view.id)).state.counts["stored"] == 2


async def test_live_request_joins_a_warm_up_that_has_begun(bench: Bench) -> None:
    """One generation for both."""
    bench.engine.gate.clear()
    replica = bench.replica()
    view = await replica.jobs.add("acme", asked("a"), quiet=False)
    replica.jobs.start()
    await bench.until_runs(1)
    document = await replica.control.document("acme")
    assert document is not None
    query = replica.pipeline.query(
        Endpoint.CHAT, document, Controls(), asked("a")[0].body, ring=bench.keys.current
    )
    answer = await replica.pipeline.answer(query)
    assert not isinstance(answer, Hit)
    assert answer.joined
    with answer.flight.joined():
        bench.engine.gate.set()
        await answer.flight.result()
    await bench.done(replica, view.id)
    assert bench.engine.runs == 1


async def test_warm_up_and_live_request_do_not_wait_for_each_other(bench: Bench) -> None:
    """The warm-up has the only place and joins a live request, which waits for that place."""
    replica = bench.replica()
    replica.turns._places, replica.turns.room_for_warm_ups = 1, 1
    get, looking, go_on = bench.store.get, asyncio.Event(), asyncio.Event()

    async def slow_get(key: str) -> bytes | None:
        bench.store.get = get  # type: ignore[method-assign]
        looking.set()
        await go_on.wait()
        return await get(key)

    bench.store.get = slow_get  # type: ignore[method-assign]
    view = await replica.jobs.add("acme", asked("a"), quiet=False)
    replica.jobs.start()
    await looking.wait()
    document = await replica.control.document("acme")
    assert document is not None
    query = replica.pipeline.query(
        Endpoint.CHAT, document, Controls(), asked("a")[0].body, ring=bench.keys.current
    )
    answer = await replica.pipeline.answer(query)
    assert not isinstance(answer, Hit)
    with answer.flight.joined():
        while not replica.turns._live:  # noqa: ASYNC110 - nobody but this test asks
            await asyncio.sleep(0.002)
        go_on.set()
        await answer.flight.result()
    assert (await bench.done(replica, view.id)).state.counts["stored"] == 1
    assert bench.engine.runs == 1


async def test_quiet_jobs_run_in_quiet_hours(bench: Bench) -> None:
    """They say when that is; they stop when it ends, and go on the next day."""
    bench.quiet_hours = QuietHours.parse("23:00-02:00")
    replica = bench.replica()
    replica.jobs.start()
    view = await replica.jobs.add("acme", asked("a", "b", "c"), quiet=True)
    assert view.is_early
    assert view.begins_ms == START_MS + 2_800_000  # 46 min 40 s
    await asyncio.sleep(0.05)
    assert bench.engine.runs == 0
    bench.engine.gate.clear()
    bench.now_ms = view.begins_ms + 3 * HOUR_MS - 1
    await bench.until_runs(1)
    assert not (await replica.jobs.view("acme", view.id)).is_early
    bench.now_ms += 1
    bench.engine.gate.set()
    now = view
    while now.state.done == 0 or now.state.is_held:
        await asyncio.sleep(0.005)
        now = await replica.jobs.view("acme", view.id)
    assert now.is_early
    assert (now.state.done, now.begins_ms) == (1, view.begins_ms + 24 * HOUR_MS)
    assert bench.engine.runs == 1
    bench.now_ms = now.begins_ms
    assert (await bench.done(replica, view.id)).state.counts["stored"] == 3


async def test_quiet_hours_that_are_not_set_are_refused(bench: Bench) -> None:
    """Or the job would wait for ever."""
    with pytest.raises(ClientError, match="ENCORE_QUIET_HOURS"):
        await bench.replica().jobs.add("acme", asked("a"), quiet=True)


async def test_another_goes_on_where_one_stopped(bench: Bench) -> None:
    """At once, where it was told to stop; what was done is not done again."""
    first, second = bench.replica(), bench.replica()
    view = await first.jobs.add("acme", asked("a", "b", "c"), quiet=False)
    first.jobs.start()
    await bench.until_runs(2)
    bench.engine.gate.clear()
    await first.close()
    bench.engine.gate.set()
    second.jobs.start()
    state = (await bench.done(second, view.id)).state
    assert sum(state.counts.get(name, 0) for name in ("cached", "generated")) == 3


async def test_another_goes_on_where_one_died(bench: Bench) -> None:
    """Once its lease has run out; the dead one's word counts for nothing then."""
    view = await bench.replica().jobs.add("acme", asked("a", "b"), quiet=False)
    dead = await bench.job_store.claim(quiet=False)
    assert isinstance(dead, Lease)
    await bench.job_store.progress(dead, done=1, counts={"cached": 1})
    replica = bench.replica()
    replica.jobs.start()
    await asyncio.sleep(0.03)
    assert bench.engine.runs == 0
    bench.now_ms += 60_000
    state = (await bench.done(replica, view.id)).state
    assert state.counts == {"cached": 1, "generated": 1, "stored": 1, "tokens": 5}
    assert not await bench.job_store.progress(dead, done=2)


async def test_lease_that_is_lost_ends_the_work(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another has the job by then: what is under way is left."""
    monkeypatch.setattr(warm_jobs, "LEASE_S", 0.03)
    bench.engine.gate.clear()
    replica = bench.replica()
    view = await replica.jobs.add("acme", asked("a"), quiet=False)
    replica.jobs.start()
    await bench.until_runs(1)
    bench.now_ms += 60_000
    other = await bench.job_store.claim(quiet=False)
    assert other is not None
    while bench.engine.cancelled == 0:  # noqa: ASYNC110
        await asyncio.sleep(0.005)
    assert (await replica.jobs.view("acme", view.id)).state.done == 0


async def test_outage_of_the_store_is_sat_out(bench: Bench) -> None:
    """Jobs go on when it is back; meanwhile none is acknowledged."""
    replica = bench.replica()
    claim, add = bench.job_store.claim, bench.job_store.add

    async def fail(*_args: object, **_kwargs: object) -> Any:
        raise StoreError("down")

    bench.job_store.claim = fail  # type: ignore[method-assign]
    view = await replica.jobs.add("acme", asked("a"), quiet=False)
    replica.jobs.start()
    await asyncio.sleep(0.03)
    bench.job_store.add = fail  # type: ignore[method-assign]
    with pytest.raises(InternalError) as refused:
        await replica.jobs.add("acme", asked("a"), quiet=False)
    assert (refused.value.status, refused.value.code) == (503, "jobs_unavailable")
    bench.job_store.claim, bench.job_store.add = claim, add  # type: ignore[method-assign]
    assert (await bench.done(replica, view.id)).state.counts["stored"] == 1


async def test_nothing_of_a_prompt_is_kept_in_clear(bench: Bench) -> None:
    """Sealed for the tenant and the job: what is put elsewhere does not open."""
    replica = bench.replica()
    await replica.jobs.add("acme", asked("the secret words"), quiet=False)
    view = await replica.jobs.add("acme", asked("x" * 100), quiet=False)
    first, second = (job for job in bench.job_store._jobs.values())
    assert b"secret" not in first.sealed
    assert b"xxx" not in second.sealed
    second.sealed = first.sealed
    replica.jobs.start()
    assert (await bench.done(replica, view.id)).state.counts == {"failed:unreadable": 1}


async def test_job_of_the_secret_before_is_read(bench: Bench) -> None:
    """While it counts."""
    view = await bench.replica().jobs.add("acme", asked("a"), quiet=False)
    bench.keys = key_rings(
        "another secret of the tests, long", "a secret of the tests, long enough"
    )
    replica = bench.replica()
    replica.jobs.start()
    assert (await bench.done(replica, view.id)).state.counts["stored"] == 1


async def test_too_many_jobs_are_refused(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the time after which to try again."""
    monkeypatch.setattr("origin.stores.memory_jobs.MAX_TENANT_BYTES", 1)
    with pytest.raises(ClientError) as refused:
        await bench.replica().jobs.add("acme", asked("a"), quiet=False)
    assert (refused.value.status, refused.value.code) == (429, "too_many_jobs")
    assert refused.value.retry_after_s


async def test_others_jobs_are_not_there(bench: Bench) -> None:
    """Nobody learns of another tenant's."""
    replica = bench.replica()
    view = await replica.jobs.add("acme", asked("a"), quiet=False)
    for tenant, job in (("other", view.id), ("acme", "0" * 32)):
        with pytest.raises(ClientError) as refused:
            await replica.jobs.view(tenant, job)
        assert refused.value.status == 404


async def test_a_lost_cancellation_holds_up_no_shutdown(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In Python 3.11 one is lost where it comes together with what Redis was told."""
    claim, lost = bench.job_store.claim, asyncio.Event()

    async def losing(*, quiet: bool) -> Lease | None:
        if not lost.is_set():
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                lost.set()
        return await claim(quiet=quiet)

    monkeypatch.setattr(bench.job_store, "claim", losing)
    replica = bench.replica()
    replica.jobs.start()
    await asyncio.sleep(0)
    async with asyncio.timeout(2):
        await replica.jobs.close()
    assert lost.is_set()
