"""What the edge counts, how it reaches the origin, and who may read it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from shared.edge_counts import Flush, parse
from starlette.types import ASGIApp

import origin.api.counters
from shared.wire import COUNTERS_PATH
from tests.edge.lab import Lab
from tests.edge.local_edge import StartEdge
from tests.edge.stack import (
    CHAT,
    OTHER_API_KEY,
    REQUESTS_OF_A_FLUSH,
    Stack,
    answering,
    error_of,
    is_hit,
    stacked,
    status,
)

OTHER = {"authorization": f"Bearer {OTHER_API_KEY}"}


@pytest.fixture(scope="module")
def counting(start_edge: StartEdge, lab_config: Path) -> Iterator[Stack]:
    """A stack of this module's own: counts are never set back."""
    with stacked(start_edge, config=lab_config) as stack:
        yield stack


def reports(stack: Stack) -> int:
    """How often the edge has reported."""
    return stack.front.was_asked(f"POST {COUNTERS_PATH}")


def more(after: dict[str, int], before: dict[str, int]) -> dict[str, int]:
    """What has come since."""
    return {name: count - before[name] for name, count in after.items() if count > before[name]}


def ask_badly(stack: Stack, times: int, headers: dict[str, str] | None = None) -> None:
    """Errors are quick, and counted as all else."""
    for _ in range(times):
        assert stack.client.post(CHAT, content=b"{", headers=headers).status_code == 400


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[Flush]:
    """What the origin has taken of the edge since the test began."""
    taken: list[Flush] = []

    def noted(body: bytes) -> Flush:
        taken.append(parse(body))
        return taken[-1]

    monkeypatch.setattr(origin.api.counters, "parse", noted)
    return taken


def test_every_outcome_is_counted(counting: Stack, taken: list[Flush]) -> None:
    """Also the bytes, the latency, the hits by key, and the write to KV."""
    counting.flush()
    before = counting.counted()
    taken.clear()
    miss = counting.ask("counted")
    Lab(edge=counting.edge).writes(at_least=1)
    hits = [counting.ask("counted", stream=stream) for stream in (False, True, False)]
    counting.ask("counted, soon stale", {"encore-ttl": "1"})
    Lab(edge=counting.edge).writes(at_least=2)
    time.sleep(1.1)
    hits.append(counting.ask("counted, soon stale"))
    assert all(map(is_hit, hits))
    with counting.front.answers_instead(answering(503, "application/json", b"{}"), CHAT):
        failed = counting.ask("counted", {"cache-control": "max-age=0"})
    assert "stale-if-error" in status(failed)
    counting.ask("counted", {"cache-control": "no-store"})
    ask_badly(counting, 2)
    counting.flush()
    after = counting.counted()
    assert after["approximate"] is True
    counts = more(after["counts"], before["counts"])
    errors = counts.pop("error")
    assert counts == {"hit": 3, "stale": 1, "miss": 2, "stale_if_error": 1, "bypass": 1}
    assert after["latency_ms"]["count"] - before["latency_ms"]["count"] == errors + 8
    assert sum(after["latency_ms"]["buckets"].values()) == after["latency_ms"]["count"]
    assert after["latency_ms"]["sum"] > before["latency_ms"]["sum"]
    assert after["bytes"] - before["bytes"] == sum(hit.num_bytes_downloaded for hit in hits)
    (flush,) = taken
    by_key = {miss.headers["encore-key"]: 3, hits[-1].headers["encore-key"]: 1}
    assert flush.tenants["acme"].hits == by_key
    assert flush.tenants["acme"].troubles["put"] >= 2


def test_reports_are_made_in_bulk(counting: Stack) -> None:
    """One for so many requests, whatever they are."""
    counting.flush()
    before, asked = counting.counted()["latency_ms"]["count"], reports(counting)
    ask_badly(counting, 2 * REQUESTS_OF_A_FLUSH + 50)
    deadline = time.monotonic() + 10
    while counting.counted()["latency_ms"]["count"] - before < 2 * REQUESTS_OF_A_FLUSH:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert reports(counting) - asked == 2


@pytest.mark.parametrize(
    "refusal",
    [
        answering(503, "application/json", b"{}"),
        answering(404, "application/json", b"{}"),
        answering(502, "text/html", b"<p>Bad gateway"),
    ],
    ids=["503", "404", "no origin"],
)
def test_what_the_origin_refuses_is_sent_again(counting: Stack, refusal: ASGIApp) -> None:
    """With the next report, no sooner; nothing is lost, nothing counted twice."""
    counting.flush()
    before, asked = counting.counted(), reports(counting)
    with counting.front.answers_instead(refusal, COUNTERS_PATH):
        ask_badly(counting, REQUESTS_OF_A_FLUSH)
        deadline = time.monotonic() + 10
        while reports(counting) == asked:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        ask_badly(counting, 50)
        assert reports(counting) - asked == 1
        assert counting.counted() == before
    counting.flush()
    after = counting.counted()
    assert more(after["counts"], before["counts"]) == {"error": 2 * REQUESTS_OF_A_FLUSH}
    assert after["latency_ms"]["count"] - before["latency_ms"]["count"] == 2 * REQUESTS_OF_A_FLUSH


def test_tenants_are_counted_apart(counting: Stack) -> None:
    """One report carries both; each reads its own, and may name no other."""
    counting.flush()
    mine, theirs = counting.counted(), counting.counted(OTHER_API_KEY)
    ask_badly(counting, 3, OTHER)
    counting.flush()
    sent = more(counting.counted(OTHER_API_KEY)["counts"], theirs["counts"])
    assert sent == {"error": 3}
    own = more(counting.counted()["counts"], mine["counts"])
    assert own == {"error": REQUESTS_OF_A_FLUSH - 3}
    refused = counting.client.get("/cache/stats?tenant=acme", headers=OTHER)
    assert refused.status_code == 403
    assert error_of(refused)["code"] == "operator_required"


def test_unknown_keys_are_not_counted(counting: Stack) -> None:
    """Nobody without a valid key can fill an isolate's memory, or a tenant's counts."""
    counting.flush()
    before = counting.counted()
    for number in range(20):
        nobody = {"authorization": f"Bearer sk-encore-t{number}-{'a' * 24}-{'a' * 8}"}
        assert counting.client.post(CHAT, content=b"{", headers=nobody).status_code == 401
    counting.flush()
    sent = more(counting.counted()["counts"], before["counts"])
    assert sent == {"error": REQUESTS_OF_A_FLUSH}
