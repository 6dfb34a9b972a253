"""Logs from lines to requests in the order of time, in this process or by others."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing

import pytest

from origin.planning import reading
from origin.planning.generate import LogPlan, generated, line_of
from origin.planning.keying import Asked, Keying, Rules
from origin.planning.log import Bad, Reading
from origin.planning.reading import LogFacts, asked
from origin.prices import Prices
from shared.keys import key_ring

BODY = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}
RULES = Rules(
    ring=key_ring("a secret of the tests, long enough"),
    profiles=("exact", "text"),
    reading=Reading(tenant="acme", model="m"),
    prices=Prices.parse('{"gpt-4o": {"input": 1, "output": 1}}'),
    max_body_bytes=1 << 20,
    answer_tokens=100,
)


def read(*lines: bytes, processes: int = 0) -> tuple[list[Asked], LogFacts, Bad]:
    """(what these ask, what log they are, bad lines)."""
    facts, bad = LogFacts(), Bad()
    numbered = iter(list(enumerate(lines, 1)))
    found = asked(numbered, Keying(RULES), facts, bad, interval_ms=500, processes=processes)
    return list(found), facts, bad


def test_time_never_goes_back() -> None:
    """A request without one comes an interval after the one before."""
    times = (5, 3, None, 9)
    found, facts, _ = read(*(json.dumps({"body": BODY, "time": at}).encode() for at in times))
    assert [each.time_ms for each in found] == [5000, 5000, 5500, 9000]
    assert (facts.requests, facts.out_of_order, facts.untimed) == (4, 1, 1)
    assert (facts.first_ms, facts.last_ms) == (5000, 9000)
    assert (facts.estimated, facts.unpriced) == (4, 4)


def test_a_log_without_times_begins_at_once() -> None:
    """And goes on evenly."""
    found, _, _ = read(*[json.dumps(BODY).encode()] * 3)
    assert [each.time_ms for each in found] == [1, 501, 1001]


@pytest.fixture
def short_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks of which even a short log has several."""
    monkeypatch.setattr(reading, "CHUNK_LINES", 20)
    monkeypatch.setattr(reading, "CHUNKS_ALONE", 2)


@pytest.mark.usefixtures("short_chunks")
def test_other_processes_read_the_same() -> None:
    """In the same order, bad lines and all."""
    lines = [line_of(row) for row in generated(LogPlan(requests=300))]
    lines[10] = lines[200] = b"{"
    alone, together = read(*lines), read(*lines, processes=1)
    assert alone == together
    assert len(alone[0]) == 298
    assert [number for number, _ in together[2].lines] == [11, 201]


@pytest.mark.usefixtures("short_chunks")
def test_who_stops_reading_leaves_no_process() -> None:
    """And lines are not read far ahead."""
    taken = 0

    def endless() -> Iterator[tuple[int, bytes]]:
        nonlocal taken
        while True:
            taken += 1
            yield taken, json.dumps(BODY).encode()

    requests = asked(endless(), Keying(RULES), LogFacts(), Bad(), interval_ms=1, processes=1)
    with closing(requests):
        for _ in range(100):
            next(requests)
    assert taken < 400
