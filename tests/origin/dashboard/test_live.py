"""The live stream: when it tells, and when it ends."""

from __future__ import annotations

import asyncio
import json
from contextlib import aclosing
from typing import Any

import pytest
from pydantic import SecretStr

from origin.dashboard import live as live_module
from origin.dashboard.live import Live
from origin.lifetimes import Tiers
from origin.prices import Prices
from origin.semantic.matcher import Matcher
from origin.settings import Settings
from origin.stores.memory_control import MemoryControlStore
from origin.stores.memory_usage import MemoryUsageStore
from origin.stores.redis_facts import ServerFacts
from origin.usage import Recorder
from origin.usage_report import Terms
from shared.counts import Counts, parse
from shared.errors import InternalError
from tests.support.matchers import LooseMatcher

CHAT = "/v1/chat/completions"
SETTINGS = Settings(secret=SecretStr("a secret of the tests, long enough"))


class Parts:
    """In the place of the health of all parts."""

    asked = 0

    async def parts(self) -> dict[str, str]:
        """All are fine but one."""
        self.asked += 1
        return {"redis": "ok", "control": "ok", "engine": "slow", "models": "ok"}


class Facts:
    """In the place of what Redis says."""

    async def read(self) -> ServerFacts:
        """As of a server that evicts."""
        return ServerFacts(
            version="8.0.2",
            servers=1,
            policy="volatile-lru",
            used_bytes=9,
            max_bytes=10,
            evicted_keys=7,
            expired_keys=1,
            up_s=60,
        )

    async def close(self) -> None:
        """Nothing is open."""


def live_of(recorder: Recorder, **parts: Any) -> Live:
    """One that tells of this recorder."""
    with_defaults: dict[str, Any] = {
        "terms": Terms(prices=Prices(), tiers=Tiers(), lifetimes=SETTINGS.lifetimes),
        "health": Parts(),
        "control_store": MemoryControlStore(),
        "matcher": None,
        "facts": Facts(),
        "pushes": True,
    }
    return Live(recorder=recorder, **(with_defaults | parts))


def events_in(pieces: list[bytes]) -> list[tuple[str, Any]]:
    """(name, data) of each event."""
    found: list[tuple[str, Any]] = []
    for piece in pieces:
        fields = dict(line.split(": ", 1) for line in piece.decode().strip().split("\n"))
        if "event" in fields:
            found.append((fields["event"], json.loads(fields["data"])))
    return found


async def told(live: Live, count: int, *, operator: bool = False) -> list[tuple[str, Any]]:
    """So many events of a stream that goes on."""

    async def still() -> bool:
        return True

    pieces: list[bytes] = []
    async with aclosing(live.events("acme", operator=operator, still=still)) as events:
        async for piece in events:
            pieces.append(piece)
            if len(pieces) > count:
                break
    return events_in(pieces)


@pytest.fixture(autouse=True)
def _long(monkeypatch: pytest.MonkeyPatch, _quick: None) -> None:
    """Streams that go on."""
    monkeypatch.setattr(live_module, "STREAM_S", 1000)


async def test_only_what_has_changed_is_told() -> None:
    """Else it is alive, and says no more than that."""
    recorder = Recorder(MemoryUsageStore())
    live = live_of(recorder)

    async def still() -> bool:
        return True

    async with aclosing(live.events("acme", operator=False, still=still)) as events:
        assert (await anext(events)).startswith(b"retry: ")
        first, second = [(await anext(events)) for _ in range(2)]
        recorder.count(CHAT, "acme", "miss", latency_s=0.01, model="m")
        third, fourth = [(await anext(events)) for _ in range(2)]
    (one,), (beat,), (other,), (later,) = map(events_in, ([first], [second], [third], [fourth]))
    assert (one[0], beat, other[0], later) == ("state", ("beat", {}), "state", ("beat", {}))
    assert one[1]["counted"]["report"]["misses"] == 0
    assert other[1]["counted"]["report"]["misses"] == 1
    assert other[1]["counted"]["hour"]["answers"]["generated"] == 1


async def test_a_stream_ends_in_any_case(monkeypatch: pytest.MonkeyPatch) -> None:
    """The page begins the next one; it has been told the newest by then."""
    monkeypatch.setattr(live_module, "STREAM_S", 0)
    live = live_of(Recorder(MemoryUsageStore()))
    events = await told(live, 100)
    assert [name for name, _ in events] == ["state"]


async def test_a_stream_ends_when_its_process_is_to_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    """At once, and not as if the session had ended."""
    monkeypatch.setattr(live_module, "TICK_S", 1000)
    live = live_of(Recorder(MemoryUsageStore()))
    stopping = asyncio.Event()

    async def still() -> bool:
        return True

    pieces: list[bytes] = []
    async for piece in live.events("acme", operator=False, still=still, stopping=stopping):
        pieces.append(piece)
        if len(pieces) == 2:
            stopping.set()
    assert [name for name, _ in events_in(pieces)] == ["state"]


async def test_who_is_signed_out_is_told_no_more() -> None:
    """It is the last that the stream says."""
    live = live_of(Recorder(MemoryUsageStore()))
    answers = iter([True, True, False])

    async def still() -> bool:
        return next(answers)

    pieces = [piece async for piece in live.events("acme", operator=False, still=still)]
    assert [name for name, _ in events_in(pieces)] == ["state", "beat", "beat", "signed-out"]


async def test_many_pages_ask_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that look at the same within a tick; one that is closed ends nothing for the others."""
    monkeypatch.setattr(live_module, "TICK_S", 1000)
    parts = Parts()
    live = live_of(Recorder(MemoryUsageStore()), health=parts)
    asked = [asyncio.create_task(live.state("acme", operator=False)) for _ in range(9)]
    await asyncio.sleep(0)
    asked[0].cancel()
    states = await asyncio.gather(*asked[1:])
    assert len(set(states)) == 1
    assert parts.asked == 1
    await live.state("acme", operator=True)
    await live.state("other", operator=False)
    assert parts.asked == 3


async def test_streams_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A place is free when its stream is closed."""
    monkeypatch.setattr(live_module, "MAX_STREAMS", 1)
    live = live_of(Recorder(MemoryUsageStore()))

    async def still() -> bool:
        return True

    first = live.events("acme", operator=False, still=still)
    await anext(first)
    with pytest.raises(InternalError, match="Too many pages"):
        await anext(live.events("acme", operator=False, still=still))
    await first.aclose()
    assert len(await told(live, 1)) == 1


async def test_the_operator_is_told_of_the_machines() -> None:
    """Memory and evictions of Redis, what the edge has not acknowledged, which process this is."""
    control_store = MemoryControlStore()
    await control_store.owe_edge("acme", 5)
    live = live_of(Recorder(MemoryUsageStore()), control_store=control_store)
    (_, state), *_ = await told(live, 1, operator=True)
    assert state["redis"]["evicted_keys"] == 7
    assert "process" in state["process"]
    health = {part["name"]: part for part in state["health"]}
    assert health["Edge"]["pending"] == 1
    assert health["Engine"]["state"] == "slow"
    (_, state), *_ = await told(live, 1)
    assert state["redis"] is state["process"] is None
    assert {part["name"]: part for part in state["health"]}["Edge"]["pending"] is None


async def test_the_edge_is_heard_of() -> None:
    """When it sent its counters, whichever process took them."""
    store = MemoryUsageStore()
    counts = Counts()
    counts.count("acme", "hit", latency_ms=1, model="m", strategy="exact")
    await Recorder(store).take_edge(parse(counts.take() or b"").tenants)
    (_, state), *_ = await told(live_of(Recorder(store)), 1)
    edge = {part["name"]: part for part in state["health"]}["Edge"]
    assert edge["state"] == "ok"
    assert edge["heard_s"] is not None
    assert state["counted"]["hour"]["answers"]["edge"] == 1


async def test_semantic_decisions_are_told() -> None:
    """By what came of them, and how alike the questions were."""
    recorder = Recorder(MemoryUsageStore())
    recorder.count_semantic("acme", "hit", 0.96)
    recorder.count_semantic("acme", "refused", 0.2)
    recorder.count_semantic("acme", "none", None)
    recorder.count_semantic("other", "hit", 0.99)
    (_, state), *_ = await told(live_of(recorder), 1)
    hour = state["counted"]["hour"]
    assert {name: number for name, number in hour["semantic"].items() if number} == {
        "hit": 1,
        "refused": 1,
        "none": 1,
    }
    bounds = state["counted"]["similarity_bounds"]
    placed = {
        outcome: [bounds[at] for at, number in enumerate(numbers) if number]
        for outcome, numbers in hour["similarity"].items()
    }
    assert placed == {"hit": [0.975], "refused": [0.5]}


class Checked(LooseMatcher):
    """Says how it does, and how often it was asked."""

    checks = 0

    async def check(self) -> str:
        """Late."""
        self.checks += 1
        return "late"


async def test_the_embedder_is_asked_now_and_then() -> None:
    """Not at every tick: it has questions to read."""
    matcher: Matcher = Checked()
    live = live_of(Recorder(MemoryUsageStore()), matcher=matcher)
    for _ in range(3):
        (_, state), *_ = await told(live, 2)
        assert {part["name"]: part["state"] for part in state["health"]}["Embedder"] == "late"
    assert isinstance(matcher, Checked)
    assert matcher.checks == 1
