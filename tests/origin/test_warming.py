"""Warming over a real pipeline, an in-memory store and an engine whose steps the test decides."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from origin.control import Control
from origin.engine.turns import Turns
from origin.exact_tier import Hit
from origin.pipeline import Generating, Pipeline
from origin.stores.contract import StoreError
from origin.stores.memory import MemoryStore
from origin.stores.memory_control import MemoryControlStore
from origin.warming import (
    CONCURRENCY,
    HORIZON_S,
    MAX_REMEMBERED,
    MAX_REMEMBERED_BYTES,
    MIN_HITS,
    Warming,
)
from shared.control_document import ControlDocument, Policy, Purge, new_document, revised
from shared.controls import parse_controls
from shared.envelope import Header, decode
from shared.errors import InternalError, UpstreamError
from shared.freshness import Lifetimes
from shared.keys import key_rings, short_key
from shared.requests import Endpoint
from tests.support.control import put_document
from tests.support.engines import MODEL, ScriptedEngine

START_MS = 1_700_000_000_000
TTL_S = 2000
STALE_S = 1000
LIMIT = 5
MINUTE_MS = 60_000
HOUR_MS = 60 * MINUTE_MS
LONGEST_LIFE_MS = 10 * HOUR_MS


class Bench:
    """Warming and the parts a test turns. `now_ms` passes when told to."""

    def __init__(self, *, limit: int = LIMIT) -> None:
        self.now_ms = START_MS
        self.engine = ScriptedEngine()
        self.store = MemoryStore(now_ms=self.clock)
        self.control_store = MemoryControlStore(clock_ms=self.clock)
        self.control = Control(self.control_store, longest_life_ms=LONGEST_LIFE_MS)
        self.keys = key_rings("a secret of the tests, long enough")
        self.pipeline = Pipeline(
            keys=self.keys,
            store=self.store,
            engine=self.engine,
            lifetimes=Lifetimes(
                ttl_s=TTL_S,
                stale_while_revalidate_s=STALE_S,
                stale_if_error_s=STALE_S,
                max_ttl_s=10_000,
            ),
            deadline_s=5,
            store_clock=self.control.now_ms,
            clock_ms=self.clock,
        )
        self.turns = Turns(3)
        self.warming = Warming(
            self.pipeline, self.control, limit=limit, turns=self.turns, clock_ms=self.clock
        )

    def clock(self) -> int:
        """The time."""
        return self.now_ms

    async def start(self) -> None:
        """Let there be a tenant `acme`."""
        document = replace(new_document("acme", self.now_ms - 1), longest_life_ms=LONGEST_LIFE_MS)
        await put_document(self.control_store, document)

    async def close(self) -> None:
        """Let go of everything."""
        await self.pipeline.close()
        await self.control.close()

    async def document(self) -> ControlDocument:
        """The tenant's, which rules."""
        document = await self.control.document("acme")
        assert document is not None
        return document

    async def ask(self, text: str = "Hello", **headers: str) -> Header:
        """Ask as the edge does, and tell warming what answered."""
        body = {"model": MODEL, "messages": [{"role": "user", "content": text}]}
        query = self.pipeline.query(
            Endpoint.CHAT,
            await self.document(),
            parse_controls(headers),
            json.dumps(body).encode(),
            ring=self.keys.current,
        )
        answer = await self.pipeline.answer(query)
        match answer:
            case Hit():
                header = answer.envelope.header
            case Generating():
                with answer.flight.joined():
                    await answer.flight.result()
                await answer.flight.landed()
                assert answer.flight.entry is not None
                header = answer.flight.entry.header
        self.warming.asked(query, header)
        return header

    async def ask_hot(self, text: str = "Hello", **headers: str) -> Header:
        """Ask often enough to be worth warming."""
        header = await self.ask(text, **headers)
        self.warming.hits("acme", {short_key(header.key): MIN_HITS})
        return header

    def hit(self, *headers: Header, count: int = 1) -> None:
        """Tell of hits at the edge."""
        self.warming.hits("acme", {short_key(header.key): count for header in headers})

    def expire_in(self, seconds: int) -> None:
        """Let time pass until what was made at the start is fresh for so long; be asked lately."""
        self.now_ms = START_MS + (TTL_S - seconds) * 1000
        for known in self.warming._remembered.values():
            known.hit_ms = self.now_ms

    def due(self, limit: int = 100) -> list[str]:
        """The keys that are due, hottest first."""
        return [known.header.key for known in self.warming.due(self.now_ms, limit)]

    async def stored(self, header: Header) -> Header | None:
        """The header of what is stored under the key of another."""
        encoded = await self.store.get(header.key)
        return None if encoded is None else decode(encoded).header


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    """A tenant `acme` and nothing remembered."""
    bench = Bench()
    await bench.start()
    yield bench
    await bench.close()


async def test_hot_and_about_to_expire_is_made_anew_once(bench: Bench) -> None:
    """The edge is told of it, and the next run has nothing to do."""
    old = await bench.ask_hot()
    bench.expire_in(60)
    assert await bench.warming.run(LIMIT) == [("acme", old.key)]
    assert bench.engine.runs == 2
    new = await bench.stored(old)
    assert new is not None
    assert new.fresh_until_ms == bench.now_ms + TTL_S * 1000
    assert await bench.warming.run(LIMIT) == []
    assert bench.engine.runs == 2


async def test_what_was_hit_in_l1_is_hot_too(bench: Bench) -> None:
    """An edge that asks again counts like a hit at the edge."""
    for _ in range(1 + MIN_HITS):
        header = await bench.ask()
    bench.expire_in(60)
    assert bench.due() == [header.key]


async def test_cold_is_left_alone(bench: Bench) -> None:
    """One hit less than enough; the first request is none."""
    header = await bench.ask()
    bench.hit(header, count=MIN_HITS - 1)
    bench.expire_in(60)
    assert await bench.warming.run(LIMIT) == []
    assert bench.engine.runs == 1


@pytest.mark.parametrize(
    ("fresh_s", "due"),
    [
        (HORIZON_S + 1, False),
        (HORIZON_S, True),
        (-STALE_S, True),
        (-STALE_S - 1, False),
    ],
)
async def test_due_from_the_horizon_to_the_end(bench: Bench, fresh_s: int, *, due: bool) -> None:
    """From two periods of the cron before it is stale until nothing can use it."""
    header = await bench.ask_hot()
    # Whole seconds from the entry's own end.
    bench.expire_in(fresh_s)
    bench.now_ms = header.fresh_until_ms - fresh_s * 1000
    assert bool(bench.due()) is due


async def test_the_hottest_come_first_within_the_limit(bench: Bench) -> None:
    """Both the edge's limit and the operator's bound what is made."""
    headers = [await bench.ask_hot(f"Question {number}") for number in range(8)]
    for number, header in enumerate(headers):
        bench.hit(header, count=number)
    bench.expire_in(60)
    keys = [header.key for header in reversed(headers)]
    assert bench.due() == keys
    assert {key for _, key in await bench.warming.run(2)} == set(keys[:2])
    assert bench.engine.runs == 8 + 2
    assert {key for _, key in await bench.warming.run(100)} == set(keys[2 : 2 + LIMIT])
    assert bench.engine.runs == 8 + 2 + LIMIT


async def test_a_limit_of_zero_turns_it_off() -> None:
    """Nothing is remembered then."""
    bench = Bench(limit=0)
    await bench.start()
    await bench.ask_hot()
    assert not bench.warming._remembered
    bench.expire_in(60)
    assert await bench.warming.run(LIMIT) == []
    await bench.close()


async def test_an_engine_that_fails_costs_nothing_else(bench: Bench) -> None:
    """Nothing is told, the old entry stays, and a later run tries again."""
    old = await bench.ask_hot()
    bench.engine.failure = UpstreamError("down")
    bench.expire_in(60)
    assert await bench.warming.run(LIMIT) == []
    assert await bench.stored(old) == old
    bench.engine.failure = None
    bench.now_ms += MINUTE_MS
    assert await bench.warming.run(LIMIT) == [("acme", old.key)]


async def test_a_bug_in_one_refresh_does_not_end_the_others(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What nobody expected is logged, and what is made is told."""
    bad, *good = [await bench.ask_hot(f"Question {number}") for number in range(3)]
    bench.hit(bad)
    refresh = bench.pipeline.refresh

    async def failing(query: Any, header: Header) -> Header | None:
        if header.key == bad.key:
            raise RuntimeError
        return await refresh(query, header)

    monkeypatch.setattr(bench.pipeline, "refresh", failing)
    bench.expire_in(60)
    assert {key for _, key in await bench.warming.run(LIMIT)} == {header.key for header in good}


async def test_what_was_purged_is_not_made_anew(bench: Bench) -> None:
    """Nor is it remembered any longer."""
    purged, kept = await bench.ask_hot("One"), await bench.ask_hot("Two")
    bench.expire_in(60)
    await bench.control.purge("acme", Purge(keys=(purged.key,)))
    assert await bench.warming.run(LIMIT) == [("acme", kept.key)]
    assert bench.engine.runs == 3
    assert purged.key not in {known.header.key for known in bench.warming._remembered.values()}


async def test_what_the_store_lost_is_not_made_anew(bench: Bench) -> None:
    """Only what is there may be replaced."""
    header = await bench.ask_hot()
    await bench.store.delete(header.key)
    bench.expire_in(60)
    assert await bench.warming.run(LIMIT) == []
    assert bench.engine.runs == 1


async def test_an_outage_of_the_store_forgets_nothing(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not an absence: when the store is back, what is due is made."""
    old = await bench.ask_hot()
    bench.expire_in(60)

    async def failing(_key: str) -> bytes | None:
        raise StoreError("Redis: ConnectionError")

    with monkeypatch.context() as patched:
        patched.setattr(bench.store, "get", failing)
        assert await bench.warming.run(LIMIT) == []
    assert await bench.warming.run(LIMIT) == [("acme", old.key)]


async def test_a_tenant_kept_out_of_the_edge_is_not_remembered(bench: Bench) -> None:
    """`origin-only` says where answers may be; requests are no less private."""
    policy = Policy(residency="origin-only")
    await bench.control.change("acme", lambda document, ms: revised(document, ms, policy=policy))
    await bench.ask_hot()
    assert not bench.warming._remembered


async def test_a_tenant_taken_out_of_the_edge_is_forgotten(bench: Bench) -> None:
    """The policy that rules at the run counts."""
    await bench.ask_hot()
    policy = Policy(residency="origin-only")
    await bench.control.change("acme", lambda document, ms: revised(document, ms, policy=policy))
    bench.expire_in(60)
    assert await bench.warming.run(LIMIT) == []
    assert bench.engine.runs == 1
    assert not bench.warming._remembered


async def test_a_request_that_is_keyed_otherwise_by_now_is_forgotten(bench: Bench) -> None:
    """After a change of the normalisation profile the new key is warmed, and the old one is not."""
    old = await bench.ask_hot("  Hello  there ")
    policy = Policy(normalisation="text")
    await bench.control.change("acme", lambda document, ms: revised(document, ms, policy=policy))
    bench.expire_in(60)
    new = await bench.ask("  Hello  there ")
    assert new.key != old.key
    assert await bench.warming.run(LIMIT) == []
    assert [known.header.key for known in bench.warming._remembered.values()] == [new.key]


async def test_an_outage_of_the_control_store_forgets_nothing(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a tenant's document nothing is made for it, until it is there again."""
    old = await bench.ask_hot()
    bench.expire_in(60)

    async def failing(_tenant: str) -> ControlDocument | None:
        raise InternalError("unavailable", status=503)

    with monkeypatch.context() as patched:
        patched.setattr(bench.control, "document", failing)
        assert await bench.warming.run(LIMIT) == []
    assert await bench.warming.run(LIMIT) == [("acme", old.key)]


async def test_what_the_edge_was_given_since_is_not_due(bench: Bench) -> None:
    """Somebody's `no-cache` has replaced the entry already."""
    await bench.ask_hot()
    bench.expire_in(60)
    await bench.ask(**{"cache-control": "no-cache"})
    assert bench.due() == []


async def test_who_insisted_on_a_new_answer_does_not_insist_at_each_run(bench: Bench) -> None:
    """What is made anew is told once, not again as a write that waits."""
    old = await bench.ask_hot(**{"cache-control": "no-cache"})
    bench.now_ms += 2 * MINUTE_MS
    assert await bench.warming.run(LIMIT) == [("acme", old.key)]
    bench.expire_in(60)
    assert await bench.warming.run(LIMIT) == [("acme", old.key)]
    bench.now_ms += 2 * MINUTE_MS
    assert await bench.warming.run(LIMIT) == []


async def test_what_nobody_hits_for_an_hour_is_forgotten(bench: Bench) -> None:
    """A client whose key was revoked cannot keep entries alive."""
    life = {"encore-ttl": "4000"}
    await bench.ask_hot("One", **life)
    hit = await bench.ask_hot("Two", **life)
    bench.now_ms += HOUR_MS - MINUTE_MS
    bench.hit(hit, count=100)
    bench.now_ms += 2 * MINUTE_MS
    assert bench.due() == [hit.key]
    assert [known.header.key for known in bench.warming._remembered.values()] == [hit.key]


async def test_hits_fade_by_the_hour(bench: Bench) -> None:
    """Halved every hour, what was hot long ago comes after what is hot now."""
    life = {"encore-ttl": "5000"}
    then, now = await bench.ask_hot("One", **life), await bench.ask_hot("Two", **life)
    bench.hit(then, count=10)
    bench.now_ms += HOUR_MS
    for _ in range(10):  # runs alone do not make hits fade
        assert bench.due() == []
    bench.hit(now, count=8)
    bench.now_ms = then.fresh_until_ms
    bench.hit(then)
    assert bench.due() == [now.key, then.key]


async def test_hits_fade_by_the_hour_after_a_clock_was_set_back(bench: Bench) -> None:
    """It was years ahead when hits were halved last."""
    years_ms = 100_000 * HOUR_MS
    bench.now_ms += years_ms
    assert bench.due() == []
    bench.now_ms -= years_ms
    assert bench.due() == []
    life = {"encore-ttl": "5000"}
    then, now = await bench.ask_hot("One", **life), await bench.ask_hot("Two", **life)
    bench.hit(then, count=10)
    bench.now_ms += HOUR_MS
    assert bench.due() == []
    bench.hit(now, count=8)
    bench.now_ms = then.fresh_until_ms
    bench.hit(then)
    assert bench.due() == [now.key, then.key]


async def test_years_without_a_run_are_survived(bench: Bench) -> None:
    """More halvings than a float has room for."""
    await bench.ask_hot()
    bench.now_ms += 100_000 * HOUR_MS
    assert bench.due() == []


async def test_the_least_lately_asked_is_forgotten_first(bench: Bench) -> None:
    """The number of requests remembered is bounded; a hit counts as being asked for."""
    first, second = await bench.ask("First"), await bench.ask("Second")
    bench.hit(first)
    (known,) = [k for k in bench.warming._remembered.values() if k.header.key == first.key]
    query = bench.pipeline.query(
        Endpoint.CHAT, await bench.document(), known.controls, known.body, ring=known.ring
    )
    for number in range(MAX_REMEMBERED - 1):
        bench.warming.asked(query, replace(first, key=f"{number:016x}" + 48 * "0"))
    keys = {known.header.key for known in bench.warming._remembered.values()}
    assert len(keys) == MAX_REMEMBERED
    assert first.key in keys
    assert second.key not in keys


async def test_bodies_are_bounded_in_bytes(bench: Bench) -> None:
    """Long requests push others out, and are counted off when they go."""
    first = await bench.ask("First")
    for number in range(5):
        await bench.ask(f"{number}" * (MAX_REMEMBERED_BYTES // 4))
    remembered = bench.warming._remembered.values()
    sizes = [len(known.body) for known in remembered]
    assert sum(sizes) == bench.warming._size_bytes <= MAX_REMEMBERED_BYTES
    assert len(sizes) == 3
    assert first.key not in {known.header.key for known in remembered}


async def test_few_refreshes_run_at_once(bench: Bench) -> None:
    """Live requests must get their turn."""
    for number in range(4):
        await bench.ask_hot(f"Question {number}")
    bench.expire_in(60)
    bench.engine.gate.clear()
    run = asyncio.create_task(bench.warming.run(LIMIT))
    for _ in range(1000):
        await asyncio.sleep(0)
    assert bench.engine.runs == 4 + CONCURRENCY
    bench.engine.gate.set()
    assert len(await run) == 4


async def test_what_is_late_is_told_by_the_next_run(bench: Bench) -> None:
    """At the deadline the run answers; the refresh goes on, and is not started twice."""
    old = await bench.ask_hot()
    bench.expire_in(60)
    bench.engine.gate.clear()
    assert await bench.warming.run(LIMIT, deadline_s=0.01) == []
    bench.engine.gate.set()
    flight = bench.pipeline._generations._flights.find(old.key)
    assert flight is not None
    await flight.landed()
    assert await bench.warming.run(LIMIT) == [("acme", old.key)]
    assert bench.engine.runs == 2


async def test_what_a_client_wanted_of_the_old_entry_holds_for_the_new(bench: Bench) -> None:
    """Its short life, and its tags."""
    old = await bench.ask_hot(**{"encore-ttl": "1500", "encore-tags": "a"})
    bench.expire_in(TTL_S - 1500 + 60)
    assert await bench.warming.run(LIMIT) == [("acme", old.key)]
    new = await bench.stored(old)
    assert new is not None
    assert new.fresh_until_ms == bench.now_ms + 1_500_000
    assert new.tags == old.tags != ()


async def test_entries_that_wait_for_a_write_to_kv_are_told_too(bench: Bench) -> None:
    """After those made anew, as far as the limit goes, and each once."""
    hot = await bench.ask_hot("One")
    bench.expire_in(60)
    replaced = await bench.ask("Two", **{"cache-control": "no-cache"})
    bench.now_ms += 2 * MINUTE_MS
    assert await bench.warming.run(1) == [("acme", hot.key)]
    assert await bench.warming.run(1) == [("acme", replaced.key)]
    assert await bench.warming.run(1) == []


async def test_hits_of_unknown_keys_mean_nothing(bench: Bench) -> None:
    """Another process may have answered them; another tenant's are its own."""
    header = await bench.ask()
    bench.warming.hits("other", {short_key(header.key): 100})
    bench.warming.hits("acme", {"0" * 16: 100})
    bench.expire_in(60)
    assert bench.due() == []
    assert len(bench.warming._remembered) == 1


async def test_live_requests_come_first(bench: Bench) -> None:
    """Nothing is made anew while one has the engine; what is late is due the next time."""
    old = await bench.ask_hot()
    bench.expire_in(60)
    async with bench.turns.live(), bench.turns.live():
        assert await bench.warming.run(LIMIT, deadline_s=0.05) == []
        assert bench.engine.runs == 1
    assert await bench.warming.run(LIMIT) == [("acme", old.key)]
