"""Purges against everything at once: generation, store, refresh, and the edge's copies.

Each seed is one interleaving of two origin processes on one store, which share generations by
leases or do not, an edge and a few purges; in half of them any question answers any other's. Every
step of engine, store, leases and clock waits until the seed's dice let it go on; leases run out at
any time. Whoever asks after a purge was acknowledged must not be answered by what was begun before
it.

Begun means: the engine was told to start, by the order of events, whatever clocks and headers say.
"""

from __future__ import annotations

import asyncio
import itertools
import json
from collections import Counter
from collections.abc import AsyncGenerator, Coroutine, Iterable, Sequence
from dataclasses import replace
from random import Random
from typing import Any

import pytest

import origin.generations
import origin.queries
from origin.encryption import open_segment
from origin.engine.contract import Chunk, Event, Finished, ModelInfo
from origin.entries import build_entry
from origin.exact_tier import Hit
from origin.generations import Generations
from origin.pipeline import Pipeline
from origin.queries import Query
from origin.relay import Part, Relay
from shared.compression import decompress
from shared.control_document import ControlDocument, Policy, Purge, objection, purged
from shared.controls import parse_controls
from shared.envelope import SEGMENT_JSON, Envelope, decode
from shared.errors import EncoreError, UpstreamError
from shared.freshness import Lifetimes
from shared.keys import key_rings, tag_digest
from shared.requests import Endpoint, Request
from shared.streams import chunks
from tests.support.engines import MODEL, chat_answer
from tests.support.matchers import VERSION, LooseMatcher
from tests.support.stepped import SteppedLeases, SteppedStore

pytestmark = pytest.mark.usefixtures("no_threads")
INTERLEAVINGS = 1000
KEYS = key_rings("a secret of the tests, long enough")
START_MS = 1_700_000_000_000
ANSWERED_BY = f"{MODEL}-2023-11-14"
TEXTS = ("One", "Two")
TAGS = ("a", "b")


class World:
    """Two pipelines over one store, an edge, and the dice."""

    def __init__(self, seed: int) -> None:
        self.dice = Random(seed)  # noqa: S311 - seeded on purpose
        self.now_ms = START_MS
        self.order = itertools.count()
        self.waiting: list[asyncio.Future[None]] = []
        is_semantic = seed % 4 < 2
        self.document = ControlDocument(
            tenant="acme",
            revision=1,
            policy=Policy(encrypted=seed % 3 == 0),
            calibration=VERSION if is_semantic else "",
        )
        self.purges: list[tuple[int, Purge]] = []
        self.begun: dict[str, int] = {}
        self.kv: dict[str, bytes] = {}
        self.seen: Counter[str] = Counter()
        self.violations: list[str] = []
        self.store = SteppedStore(self.step, lambda: self.now_ms)
        self.leases = leases = SteppedLeases(self.step, self.store)
        matcher = LooseMatcher(self.step) if is_semantic else None
        relay = Relay(leases, KEYS, sleep=lambda _: self.step()) if seed % 2 else None
        self.pipelines = [
            Pipeline(
                keys=KEYS,
                store=self.store,
                engine=SteppedEngine(self),
                lifetimes=Lifetimes(
                    # Only what is fresh is promoted.
                    ttl_s=9 if is_semantic else 1,
                    stale_while_revalidate_s=2,
                    stale_if_error_s=3,
                    max_ttl_s=9,
                ),
                deadline_s=60,
                store_clock=self.store_clock,
                relay=relay,
                clock_ms=lambda: self.now_ms,
                ruling=lambda _: self.document if self.dice.random() < 0.5 else None,
                matcher=matcher,
            )
            for _ in range(2)
        ]

    async def step(self) -> None:
        """Wait for the dice."""
        turn = asyncio.get_running_loop().create_future()
        self.waiting.append(turn)
        await turn

    async def run(self) -> None:
        """Play until everyone is done."""
        actors: list[Coroutine[Any, Any, None]] = [self.request() for _ in range(10)]
        actors += [self.purge() for _ in range(3)]
        actors += [self.fetch() for _ in range(3)]
        await self.play(actors)
        await self.play([pipeline.close() for pipeline in self.pipelines])

    async def play(self, actors: Iterable[Coroutine[Any, Any, None]]) -> None:
        """Throw the dice until these are done."""
        tasks = [asyncio.create_task(actor) for actor in actors]
        idle = 0
        while not all(task.done() for task in tasks):
            for _ in range(4):
                await asyncio.sleep(0)
            idle = 0 if self.waiting else idle + 1
            assert idle < 1000, "everyone waits for somebody else"
            if self.waiting:
                self.go_on()
        for task in tasks:
            task.result()

    def go_on(self) -> None:
        """Let one of those who wait do its step. Time passes, or does not."""
        self.now_ms += self.dice.choice((0, 0, 0, 1, 1, 30, 30, 200))
        turn = self.waiting.pop(self.dice.randrange(len(self.waiting)))
        if not turn.cancelled():
            turn.set_result(None)

    async def store_clock(self) -> int:
        """The time, asked for over a network."""
        await self.step()
        now_ms = self.now_ms
        await self.step()
        return now_ms

    def query(self) -> Query:
        """Somebody's request, by the document of now."""
        body = {
            "model": MODEL,
            "messages": [{"role": "user", "content": self.dice.choice(TEXTS)}],
        }
        headers = {}
        if tags := [tag for tag in TAGS if self.dice.random() < 0.3]:
            headers["encore-tags"] = ",".join(tags)
        if self.dice.random() < 0.15:
            headers["cache-control"] = "no-cache"
        return self.pipelines[0].query(
            Endpoint.CHAT,
            self.document,
            parse_controls(headers),
            json.dumps(body).encode(),
            ring=KEYS.current,
        )

    async def request(self) -> None:
        """Ask, perhaps by the edge, as the routes do."""
        for _ in range(self.dice.randrange(20)):
            await self.step()
        acknowledged = tuple(self.purges)
        query = self.query()
        assert query.key is not None
        if self.dice.random() < 0.3 and self.ask_kv(query.key, query.document, acknowledged):
            return
        await self.step()
        answer = await self.dice.choice(self.pipelines).answer(query)
        if isinstance(answer, Hit):
            self.seen["stale" if answer.served.ttl_s < 0 else "hit"] += 1
            self.seen["promoted"] += answer.envelope.header.source is not None
            self.check(answer.envelope, acknowledged)
            return
        self.seen["joined" if answer.collapsed else "generated"] += 1
        self.seen[answer.detail or ""] += 1
        flight = answer.flight
        tags = {tag for wish in flight.wishes for tag in wish.tags}
        digests = [tag_digest(KEYS.current, "acme", tag) for tag in tags]
        digests += () if flight.to_be is None else flight.to_be.tags
        began_ms = 0 if flight.to_be is None else flight.to_be.generation_started_ms
        try:
            with flight.joined():
                finished = await flight.result()
        except EncoreError:
            self.seen["failed" if answer.fallback is None else "fallback"] += 1
            if answer.fallback is not None:
                self.check(answer.fallback.envelope, acknowledged)
            return
        self.seen["elsewhere"] += flight.is_elsewhere
        text = finished.answer["choices"][0]["message"]["content"]
        if flight.entry is not None and flight.entry.header.generation_started_ms < began_ms:
            digests = list(flight.entry.header.tags)  # as any hit, it has no other
            self.seen["landed"] += 1
        self.check_text(text, query.key, digests, acknowledged)
        if self.dice.random() < 0.3:
            await self.fetch_entry(query.key)

    async def purge(self) -> None:
        """Purge something. It is acknowledged at once, which is the hardest."""
        for _ in range(self.dice.randrange(40)):
            await self.step()
        key = self.query().key
        assert key is not None
        purge = self.dice.choice(
            (
                Purge(everything=True),
                Purge(models=(self.dice.choice((MODEL, ANSWERED_BY)),)),
                Purge(tags=(tag_digest(KEYS.current, "acme", self.dice.choice(TAGS)),)),
                Purge(keys=(key,)),
            )
        )
        self.document = purged(self.document, purge, self.now_ms)
        self.purges.append((next(self.order), purge))

    async def fetch(self) -> None:
        """Ask at the edge, and have it fetch an entry."""
        for _ in range(self.dice.randrange(40)):
            await self.step()
        key = self.query().key
        assert key is not None
        if not self.ask_kv(key, self.document, self.purges):
            await self.fetch_entry(key)

    async def fetch_entry(self, key: str) -> None:
        """Put into KV what the origin has."""
        acknowledged, document = tuple(self.purges), self.document
        found = await self.dice.choice(self.pipelines).entry(document, key)
        if found is None:
            return
        self.seen["fetched"] += 1
        self.check(decode(found[1]), acknowledged)
        await self.step()
        self.kv[key] = found[1]

    def ask_kv(
        self, key: str, document: ControlDocument, acknowledged: Iterable[tuple[int, Purge]]
    ) -> bool:
        """Whether the edge's copy answered."""
        if key not in self.kv:
            return False
        envelope = decode(self.kv[key])
        if objection(document, envelope.header) is not None:
            self.seen["dead in KV"] += 1
            return False
        self.seen["hit in KV"] += 1
        self.check(envelope, acknowledged)
        return True

    def check(self, envelope: Envelope, acknowledged: Iterable[tuple[int, Purge]]) -> None:
        """Note an entry that must not have answered."""
        segment = open_segment(KEYS, envelope, SEGMENT_JSON)
        assert segment is not None
        answer = json.loads(decompress(segment, max_bytes=10_000))
        text = answer["choices"][0]["message"]["content"]
        header = envelope.header
        self.check_text(text, header.key, header.tags, acknowledged)
        if header.source is not None:
            self.check_text(text, header.source.key, header.tags, acknowledged)

    def check_text(
        self,
        text: str,
        key: str,
        digests: Iterable[str],
        acknowledged: Iterable[tuple[int, Purge]],
    ) -> None:
        """Note an answer that was begun before a purge that names it."""
        for event, purge in acknowledged:
            named = (
                purge.everything
                or bool(purge.models)
                or any(key.startswith(purged_key) for purged_key in purge.keys)
                or not set(purge.tags).isdisjoint(digests)
            )
            if named and self.begun[text] < event:
                self.violations.append(f"{text}, begun at {self.begun[text]}: {purge} at {event}")


class SteppedEngine:
    """An engine that says each new answer step by step, or fails."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def models(self) -> Sequence[ModelInfo]:
        """Nobody asks."""
        return ()

    async def fingerprint(self, model: str) -> str:
        """It never changes."""
        await self._world.step()
        return f"f-{model}"

    def check(self, request: Request) -> None:
        """Refuse nothing."""

    async def run(
        self,
        request: Request,  # noqa: ARG002
        *,
        tenant: str | None = None,  # noqa: ARG002
        scope: str | None = None,  # noqa: ARG002
    ) -> AsyncGenerator[Event, None]:
        """Say a new answer."""
        world = self._world
        text = f"Answer {len(world.begun)}"
        world.begun[text] = next(world.order)
        answer = chat_answer(text) | {"model": ANSWERED_BY}
        for payload in chunks(Endpoint.CHAT, answer):
            await world.step()
            yield Chunk(payload=payload)
        await world.step()
        if world.dice.random() < 0.2:
            raise UpstreamError("broken")
        yield Finished(answer=answer)

    def forget(self, tenant: str | None = None) -> None:
        """Nothing is kept."""

    async def close(self) -> None:
        """Nothing is held."""


async def test_no_purged_answer_comes_back() -> None:
    """Over all interleavings; everything that can happen does, or nothing would be shown."""
    seen: Counter[str] = Counter()
    for seed in range(INTERLEAVINGS):
        world = World(seed)
        await world.run()
        assert world.violations == [], f"seed {seed}"
        seen += world.seen + world.leases.seen
    happened = {name for name, count in seen.items() if count > INTERLEAVINGS / 100}
    assert happened >= {
        "hit",
        "stale",
        "generated",
        "joined",
        "elsewhere",
        "run out",
        "leader lost",
        "purged",
        "failed",
        "fallback",
        "fetched",
        "hit in KV",
        "dead in KV",
        "promoted",
        "landed",
    }, seen


async def _violations() -> int:
    """How many of some interleavings show an answer from the dead."""
    count = 0
    for seed in range(INTERLEAVINGS // 4):
        world = World(seed)
        await world.run()
        count += bool(world.violations)
    return count


async def test_entries_that_nobody_checks_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """The interleavings show it when readers do not ask about cut-offs."""
    monkeypatch.setattr(origin.queries, "objection", lambda *_, **__: None)
    assert await _violations() > 0


async def test_flights_joined_by_key_alone_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """They show it when a purged generation may still be joined."""
    monkeypatch.setattr(
        Generations, "joinable", lambda generations, query: generations._flights.find(query.key)
    )
    assert await _violations() > 0


async def test_flights_followed_by_key_alone_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """They show it when a purged generation may still be followed from elsewhere."""
    part = Generations._part

    def credulous(*args: Any) -> Part:
        return replace(part(*args), accepts=lambda *_: True)

    monkeypatch.setattr(Generations, "_part", credulous)
    assert await _violations() > 0


async def test_start_told_too_late_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """They show it when an entry counts from the end of its generation."""

    def late(*args: Any, **named: Any) -> Envelope:
        return build_entry(*args, **(named | {"generation_started_ms": named["created_ms"]}))

    monkeypatch.setattr(origin.generations, "build_entry", late)
    assert await _violations() > 0
