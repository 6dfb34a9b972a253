"""Refreshes behind stale answers: how often the edge asks for them, and what it takes."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import origin.api.answers
from tests.edge.lab import Lab
from tests.edge.local_edge import StartEdge
from tests.edge.stack import (
    CHAT,
    Stack,
    answering,
    content,
    is_hit,
    origin_settings,
    stacked,
    until,
)

_ASKED = f"POST {CHAT}"


@pytest.fixture(scope="module")
def lasting(start_edge: StartEdge, lab_config: Path) -> Iterator[Stack]:
    """A stack whose entries may be served stale for long."""
    settings = origin_settings(stale_while_revalidate_s=600)
    with stacked(start_edge, config=lab_config, settings=settings) as stack:
        yield stack


def become_stale(stack: Stack, text: str) -> str:
    """Let KV have an answer that is stale; what it says."""
    lab = Lab(edge=stack.edge)
    lab.forget()
    first = stack.ask(text, {"encore-ttl": "1"})
    lab.writes(at_least=1)
    time.sleep(1.1)
    stack.end_minute()
    return content(first)


def ask_stale(stack: Stack, text: str, wanted: str) -> None:
    """Ask for longer than the pauses between refreshes would be; KV answers each time."""
    for _ in range(15):
        answer = stack.ask(text)
        assert is_hit(answer)
        assert content(answer) == wanted
        time.sleep(0.1)


@pytest.mark.parametrize("case", ["hangs", "fails", "refuses"])
def test_origin_that_does_not_refresh_is_not_asked_on(lasting: Stack, case: str) -> None:
    """Not while it is silent, nor just after it has failed."""
    wanted = become_stale(lasting, case)
    left = threading.Event()
    refusal = b'{"error":{"message":"no"}}'
    origin = {
        "hangs": answering(None, None, left=left),
        "fails": answering(503, "application/json", refusal),
        "refuses": answering(429, "application/json", refusal),
    }[case]
    asked = lasting.front.was_asked(_ASKED)
    with lasting.front.answers_instead(origin, CHAT):
        ask_stale(lasting, case, wanted)
        assert lasting.front.was_asked(_ASKED) == asked + 1
        if case == "hangs":
            assert left.wait(20), "behind an answer nobody waits for so long"


def test_newer_entry_is_fetched_once(lasting: Stack) -> None:
    """Though KV shows the old one for a while after, as it may."""
    lab = Lab(edge=lasting.edge)
    wanted = become_stale(lasting, "newer")
    name = lab.writes()[-1]["name"]
    value, metadata = lab.value(name) or (b"", "")
    until(lambda: lasting.ask("newer"), lambda answer: content(answer) != wanted)
    assert lab.writes()[-1]["name"] == name
    asked = lasting.front.was_asked(_ASKED)
    lab.put(name, value, metadata)
    ask_stale(lasting, "newer", wanted)
    assert lasting.front.was_asked(_ASKED) == asked


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
@pytest.mark.parametrize("is_slow", [False, True], ids=["quick", "slow"])
def test_entry_that_the_origin_lost_is_made_anew(
    lasting: Stack, monkeypatch: pytest.MonkeyPatch, *, is_slow: bool, stream: bool
) -> None:
    """By one generation. The edge waits for a quick one, and comes back for a slow one."""
    monkeypatch.setattr(origin.api.answers, "REFRESH_WAIT_S", 0.1 if is_slow else 5)
    text, engine = f"lost {is_slow} {stream}", lasting.engine
    old = become_stale(lasting, text)
    lasting.store._entries.clear()
    asked, runs = lasting.front.was_asked(_ASKED), engine.runs
    if is_slow:
        engine.gate.clear()
    try:
        assert old in lasting.ask(text, stream=stream).text
        if is_slow:
            until(lambda: lasting.ask(text), lambda _: lasting.front.was_asked(_ASKED) > asked + 1)
    finally:
        engine.open_gate()
    new = until(lambda: lasting.ask(text), lambda answer: content(answer) != old)
    assert is_hit(new)
    assert (engine.runs, engine.cancelled) == (runs + 1, 0)


def test_who_wants_no_generation_causes_a_refresh_as_others_do(lasting: Stack) -> None:
    """`only-if-cached` is said of its own answer, which is there."""
    old = become_stale(lasting, "cached")
    lasting.store._entries.clear()
    asking = {"cache-control": "only-if-cached"}
    assert content(lasting.ask("cached", asking)) == old
    until(lambda: lasting.ask("cached", asking), lambda answer: content(answer) != old)
