"""Whose turn it is: by interleaving, step by step, never by time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from origin.engine.contract import Finished
from origin.engine.turns import FEW, OrderlyEngine, Turns, step_aside
from shared.errors import InternalError
from shared.requests import Endpoint, Request, validate
from tests.support.engines import MODEL, ScriptedEngine

Turn = Callable[[], AbstractAsyncContextManager[None]]


class Actor:
    """A task that takes a turn and keeps it until told to leave."""

    def __init__(self, turn: Turn) -> None:
        self.has_turn = False
        self.over = asyncio.Event()
        self.task = asyncio.create_task(self._act(turn))

    async def _act(self, turn: Turn) -> None:
        async with turn():
            self.has_turn = True
            try:
                await self.over.wait()
            finally:
                self.has_turn = False


@asynccontextmanager
async def actors() -> AsyncIterator[Callable[[Turn], Any]]:
    """A way to start actors, who are gone after the block."""
    started: list[Actor] = []

    async def start(turn: Turn) -> Actor:
        started.append(Actor(turn))
        await settled()
        return started[-1]

    yield start
    for actor in started:
        actor.task.cancel()
    await asyncio.gather(*(actor.task for actor in started), return_exceptions=True)


async def settled() -> None:
    """Let every task run as far as it can."""
    for _ in range(10):
        await asyncio.sleep(0)


async def leave(actor: Actor) -> None:
    """End an actor's turn."""
    actor.over.set()
    await settled()


async def test_live_requests_come_in_order() -> None:
    """As many as there are places at once."""
    turns = Turns(2)
    async with actors() as start:
        first, second, third, fourth = [await start(turns.live) for _ in range(4)]
        assert [a.has_turn for a in (first, second, third, fourth)] == [True, True, False, False]
        await leave(second)
        assert (third.has_turn, fourth.has_turn) == (True, False)


async def test_tenants_take_turns() -> None:
    """One that asks for much waits for itself; its own requests come in order."""
    turns = Turns(1)
    async with actors() as start:

        def of(tenant: str) -> Turn:
            return lambda: turns.live(tenant)

        names = ["busy", "busy", "busy", "other", "third", "other"]
        everybody = [await start(of(name)) for name in names]
        order = []
        for _ in names:
            (at,) = [at for at, actor in enumerate(everybody) if actor.has_turn]
            order.append(at)
            await leave(everybody[at])
        assert order == [0, 3, 4, 1, 5, 2]


async def test_tenant_with_fewer_generations_comes_first() -> None:
    """Although it had its last place later."""
    turns = Turns(3)
    async with actors() as start:
        busy = [await start(lambda: turns.live("busy")) for _ in range(2)]
        other = await start(lambda: turns.live("other"))
        more = await start(lambda: turns.live("busy"))
        again = await start(lambda: turns.live("other"))
        await leave(other)
        assert (again.has_turn, more.has_turn) == (True, False)
        await leave(busy[0])
        assert more.has_turn


async def test_warm_up_waits_while_a_live_request_waits() -> None:
    """And until one of two places would be left for who comes next."""
    turns = Turns(2)
    async with actors() as start:
        live = [await start(turns.live) for _ in range(3)]
        warm = await start(turns.warm_up)
        for actor in live:
            assert not warm.has_turn
            await leave(actor)
        assert warm.has_turn


async def test_live_request_passes_a_warm_up_that_waits() -> None:
    """Although it came later: a warm-up that has not begun is in nobody's way."""
    turns = Turns(1)
    async with actors() as start:
        first = await start(turns.live)
        warm = await start(turns.warm_up)
        second = await start(turns.live)
        await leave(first)
        assert (second.has_turn, warm.has_turn) == (True, False)
        await leave(second)
        assert warm.has_turn


async def test_warm_ups_leave_a_place_free() -> None:
    """Where there are two: a live request begins at once."""
    turns = Turns(3)
    async with actors() as start:
        warm = [await start(turns.warm_up) for _ in range(3)]
        assert [actor.has_turn for actor in warm] == [True, True, False]
        assert (await start(turns.live)).has_turn
        await leave(warm[0])
        assert not warm[2].has_turn  # now there are a live one and a warm-up


async def test_without_places_live_requests_never_wait() -> None:
    """Somebody else's API has a queue of its own; warm-ups begin while few are under way."""
    turns = Turns()
    async with actors() as start:
        live = [await start(turns.live) for _ in range(FEW)]
        warm = await start(turns.warm_up)
        assert all(actor.has_turn for actor in live)
        assert (await start(turns.live)).has_turn
        assert not warm.has_turn
        await leave(live[0])
        assert not warm.has_turn
        await leave(live[1])
        assert warm.has_turn


async def test_queue_is_bounded() -> None:
    """Who is one too many is told when to come again; a warm-up that waits takes no room."""
    turns = Turns(1, queue_limit=1)
    async with actors() as start:
        await start(turns.live)
        await start(turns.warm_up)
        await start(turns.live)
        with pytest.raises(InternalError) as refused:
            async with turns.live():
                pass
    assert (refused.value.status, refused.value.code) == (503, "overloaded")
    assert refused.value.retry_after_s


async def test_who_leaves_while_waiting_is_passed_over() -> None:
    """A place is not given to who has left, be it before or as it was handed over."""
    turns = Turns(1)
    async with actors() as start:
        first, second, third = [await start(turns.live) for _ in range(3)]
        second.task.cancel()
        await settled()
        first.over.set()
        await asyncio.sleep(0)  # `first` hands its place over to `third`, which has not run yet
        third.task.cancel()
        await settled()
        assert not third.has_turn
        assert (await start(turns.live)).has_turn


async def test_last_live_request_to_give_up_lets_warm_ups_begin() -> None:
    """Nobody else would."""
    turns = Turns(3)
    async with actors() as start:
        live = [await start(turns.live) for _ in range(3)]
        waiting = await start(turns.live)
        warm = await start(turns.warm_up)
        live[0].task.cancel()
        live[1].task.cancel()
        await settled()
        assert waiting.has_turn
        waiting.task.cancel()
        await settled()
        assert warm.has_turn


async def test_what_a_warm_up_causes_has_its_place() -> None:
    """Be it in another task, which may outlive it; what comes after that is a live request."""
    turns = Turns(1)
    async with actors() as start:
        caused: list[Actor] = []

        @asynccontextmanager
        async def warm_up() -> AsyncIterator[None]:
            async with turns.warm_up():
                caused.append(Actor(turns.live))
                yield

        warm = await start(warm_up)
        live = await start(turns.live)
        assert caused[0].has_turn
        await leave(warm)
        assert not live.has_turn
        await leave(caused[0])
        assert live.has_turn


async def test_what_begins_after_its_warm_up_waits_like_others() -> None:
    """Its place has been given back."""
    turns = Turns(1)
    go = asyncio.Event()

    async def late() -> None:
        await go.wait()
        async with turns.live():
            pass

    async with actors() as start:
        async with turns.warm_up():
            task = asyncio.create_task(late())
        live = await start(turns.live)
        go.set()
        await settled()
        assert not task.done()
        await leave(live)
        await task


async def test_warm_up_that_waits_for_another_gives_its_place_back() -> None:
    """Once, however often it is said; a live request does not notice."""
    turns = Turns(1)
    joins = asyncio.Event()

    @asynccontextmanager
    async def warm_up() -> AsyncIterator[None]:
        async with turns.warm_up():
            await joins.wait()
            step_aside()
            step_aside()
            yield

    async with actors() as start:
        warm = await start(warm_up)
        live = await start(turns.live)
        assert not live.has_turn
        joins.set()
        await settled()
        assert live.has_turn
        assert not (await start(turns.live)).has_turn
        await leave(warm)
        assert turns._busy == 1
    async with turns.live():
        step_aside()
        assert turns._busy == 1


async def test_the_embedder_is_counted_and_takes_no_place() -> None:
    """It has a queue of its own, in which batches take turns."""
    turns = Turns(1)
    async with actors() as start:
        embedding = await start(turns.beside)
        warm = await start(turns.warm_up)
        assert not warm.has_turn
        live = await start(turns.live)
        assert live.has_turn
        await leave(live)
        assert not warm.has_turn
        await leave(embedding)
        assert warm.has_turn


@given(
    places=st.none() | st.integers(1, 4),
    steps=st.lists(st.tuples(st.sampled_from(["live", "warm", "leave", "cancel"]), st.integers(0))),
)
def test_whatever_happens(places: int | None, steps: list[tuple[str, int]]) -> None:
    """No place is lost or given twice, and nobody waits for nothing."""

    async def play() -> None:
        turns = Turns(places, queue_limit=1000)
        live: list[Actor] = []
        warm: list[Actor] = []
        tenants: dict[Actor, int] = {}
        last_served: dict[int, int] = {}
        async with actors() as start:
            for time, (step, number) in enumerate(steps):
                everybody = live + warm
                waited = [actor for actor in live if not actor.has_turn]
                if step == "live":
                    live.append(await start(partial(turns.live, str(number % 3))))
                    tenants[live[-1]] = number % 3
                elif step == "warm":
                    warm.append(await start(turns.warm_up))
                elif everybody:
                    actor = everybody[number % len(everybody)]
                    (live if actor in live else warm).remove(actor)
                    actor.task.cancel() if step == "cancel" else actor.over.set()
                    await settled()
                running = [actor for actor in live if actor.has_turn]
                warming = [actor for actor in warm if actor.has_turn]
                busy = len(running) + len(warming)
                assert places is None or busy <= places
                if len(running) < len(live):
                    assert busy == places
                elif len(warming) < len(warm):
                    assert busy >= turns.room_for_warm_ups
                served = [actor for actor in waited if actor in running]
                if served:  # the naive rule: by tenant, then in the order they came
                    others = [tenants[actor] for actor in running if actor not in served]
                    still = [actor for actor in waited if actor in live]
                    first = min(
                        still,
                        key=lambda actor: (
                            others.count(tenants[actor]),
                            last_served.get(tenants[actor], -1),
                        ),
                    )
                    assert served == [first]
                for actor in running:
                    if actor in served or (step == "live" and actor is live[-1]):
                        last_served[tenants[actor]] = time
        await settled()
        async with turns.live(), turns.beside():
            pass
        async with turns.warm_up():  # all places are free again
            pass

    asyncio.run(play())


def chat() -> Request:
    """A chat request."""
    messages = [{"role": "user", "content": "Hello"}]
    return validate(Endpoint.CHAT, {"model": MODEL, "messages": messages})


async def test_engine_is_asked_in_turn() -> None:
    """Its run begins when there is a place, and gives it back when it is closed."""
    engine = ScriptedEngine()
    orderly = OrderlyEngine(engine, Turns(1))
    async with aclosing(orderly.run(chat())) as first:
        await anext(first)

        async def second() -> object:
            async with aclosing(orderly.run(chat())) as events:
                return [event async for event in events][-1]

        task = asyncio.create_task(second())
        await settled()
        assert engine.runs == 1
    assert isinstance(await task, Finished)
    assert engine.runs == 2


async def test_embeddings_do_not_wait_for_a_place() -> None:
    """That a text is being generated is nothing to the embedder."""
    orderly = OrderlyEngine(ScriptedEngine(), turns := Turns(1))
    async with turns.live():
        request = validate(Endpoint.EMBEDDINGS, {"model": MODEL, "input": "Hello"})
        async with aclosing(orderly.run(request)) as events:
            assert isinstance(await anext(events), Finished)
