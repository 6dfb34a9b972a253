"""Single-flight against everything at once: three origin processes, waiters that come and leave.

Each seed is one interleaving. Every step of engine, store and leases waits until the seed's dice
let it go on; no lease runs out. However it goes, the next generation begins only when the one
before was stopped, none is stopped while somebody waits, and nobody hears less than all of it.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import suppress
from random import Random
from typing import Any

import pytest

from origin.engine.contract import Chunk, Event, Finished
from origin.exact_tier import Hit
from origin.flights import Flights
from origin.generations import Generations
from origin.pipeline import Pipeline
from origin.relay import Leader, Relay
from origin.writes import Writes
from shared.control_document import ControlDocument
from shared.controls import Controls
from shared.envelope import Envelope
from shared.errors import EncoreError
from shared.freshness import Lifetimes
from shared.keys import key_rings
from shared.requests import Endpoint, Request
from shared.streams import chunks
from tests.support.engines import MODEL, ScriptedEngine, chat_answer
from tests.support.stepped import SteppedLeases, SteppedStore

pytestmark = pytest.mark.usefixtures("no_threads")
INTERLEAVINGS = 600
KEYS = key_rings("a secret of the tests, long enough")
BODY = json.dumps({"model": MODEL, "messages": [{"role": "user", "content": "Hi"}]}).encode()


class World:
    """Three pipelines over one store, and the dice."""

    def __init__(self, seed: int) -> None:
        self.dice = Random(seed)  # noqa: S311 - seeded on purpose
        self.waiting: list[asyncio.Future[None]] = []
        self.seen: Counter[str] = Counter()
        store = SteppedStore(self.step, lambda: 1_700_000_000_000)
        relay_parts = SteppedLeases(self.step, store)
        self.pipelines = [
            Pipeline(
                keys=KEYS,
                store=store,
                engine=SteppedEngine(self),
                lifetimes=Lifetimes(
                    ttl_s=9, stale_while_revalidate_s=0, stale_if_error_s=0, max_ttl_s=9
                ),
                deadline_s=60,
                store_clock=self.clock,
                relay=Relay(relay_parts, KEYS, sleep=lambda _: self.step()),
                clock_ms=lambda: 1_700_000_000_000,
            )
            for _ in range(3)
        ]

    async def clock(self) -> int:
        """The time, asked for over a network: it stands still."""
        await self.step()
        return 1_700_000_000_000

    async def step(self) -> None:
        """Wait for the dice."""
        turn = asyncio.get_running_loop().create_future()
        self.waiting.append(turn)
        await turn

    async def run(self) -> None:
        """Play until everyone is done."""
        tasks = [asyncio.create_task(self.waiter()) for _ in range(8)]
        leaving = [task for task in tasks if self.dice.random() < 0.4]
        try:
            idle = 0
            while not all(task.done() for task in tasks):
                for _ in range(4):
                    await asyncio.sleep(0)
                if leaving and self.dice.random() < 0.05:
                    leaving.pop().cancel()
                idle = 0 if self.waiting else idle + 1
                assert idle < 1000, "everyone waits for somebody else"
                self.go_on()
            for task in tasks:
                if not task.cancelled():
                    task.result()
        finally:
            closing = asyncio.gather(*(pipeline.close() for pipeline in self.pipelines))
            while not closing.done():
                await asyncio.sleep(0)
                self.go_on()

    def go_on(self) -> None:
        """Let one of those who wait do its step."""
        if self.waiting:
            turn = self.waiting.pop(self.dice.randrange(len(self.waiting)))
            if not turn.cancelled():
                turn.set_result(None)

    async def waiter(self) -> None:
        """Ask for the answer, perhaps as a stream."""
        for _ in range(self.dice.randrange(20)):
            await self.step()
        pipeline = self.dice.choice(self.pipelines)
        document = ControlDocument(tenant="acme", revision=1)
        query = pipeline.query(Endpoint.CHAT, document, Controls(), BODY, ring=KEYS.current)
        answer = await pipeline.answer(query)
        if isinstance(answer, Hit):
            self.seen["hit"] += 1
            return
        with answer.flight.joined():
            said = ""
            if self.dice.random() < 0.5:
                async for payload in answer.flight.listen():
                    said += payload["choices"][0]["delta"].get("content") or ""
            finished = await answer.flight.result()
        text = finished.answer["choices"][0]["message"]["content"]
        assert said in ("", text)
        self.seen["heard elsewhere" if answer.flight.is_elsewhere and said else "answered"] += 1


class SteppedEngine(ScriptedEngine):
    """An engine that says each new answer step by step."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self._world = world

    async def run(
        self,
        request: Request,  # noqa: ARG002
        *,
        tenant: str | None = None,  # noqa: ARG002
        scope: str | None = None,  # noqa: ARG002
    ) -> AsyncGenerator[Event, None]:
        """Say a new answer."""
        world = self._world
        world.seen["generated"] += 1
        answer = chat_answer(f"Answer {world.seen['generated']}")
        try:
            for payload in chunks(Endpoint.CHAT, answer):
                await world.step()
                yield Chunk(payload=payload)
            await world.step()
            yield Finished(answer=answer)
        except (asyncio.CancelledError, GeneratorExit):
            world.seen["stopped"] += 1
            raise


async def test_one_generation_at_a_time_and_none_in_vain() -> None:
    """Over all interleavings: each generation but the last was stopped, as nobody waited."""
    seen: Counter[str] = Counter()
    for seed in range(INTERLEAVINGS):
        world = World(seed)
        await world.run()
        assert world.seen["generated"] <= world.seen["stopped"] + 1, f"seed {seed}"
        seen += world.seen
    happened = {name for name, count in seen.items() if count > INTERLEAVINGS / 50}
    assert happened >= {"hit", "answered", "heard elsewhere", "generated", "stopped"}, seen


async def _vain() -> int:
    """In how many of some interleavings a generation was in vain."""
    count = 0
    for seed in range(INTERLEAVINGS // 4):
        world = World(seed)
        with suppress(AssertionError, EncoreError):
            await world.run()
            count -= world.seen["generated"] <= world.seen["stopped"] + 1
        count += 1
    return count


async def test_leader_that_stops_with_its_own_client_is_seen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The interleavings show it when followers are forgotten."""
    monkeypatch.setattr(Leader, "deserted", lambda leader: leader._flight.stop())
    stopped = 0
    for seed in range(INTERLEAVINGS // 4):
        world = World(seed)
        await world.run()
        stopped += world.seen["stopped"]
    assert stopped > 0


async def test_lease_given_back_before_the_entry_is_stored_is_seen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """They show it when who gets the next lease may miss the entry."""
    init, put = Generations.__init__, Writes.put
    flights: dict[Writes, Flights] = {}

    def noted(generations: Generations, **parts: Any) -> None:
        init(generations, **parts)
        flights[generations._writes] = generations._flights

    async def late(writes: Writes, entry: Envelope, **named: Any) -> None:
        for flight in flights[writes]._tasks:
            if flight.entry is not None and flight.leader is not None:
                await flight.leader.end()
        await put(writes, entry, **named)

    monkeypatch.setattr(Generations, "__init__", noted)
    monkeypatch.setattr(Writes, "put", late)
    assert await _vain() > 0
