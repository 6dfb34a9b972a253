"""What the edge counts, how it reaches the origin, and who may read it."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from starlette.types import ASGIApp

import origin.api.counters
from origin.lifetimes import Tiers
from shared.control_document import Policy
from shared.counts import Flush, TenantCounts, parse
from shared.wire import COUNTERS_PATH
from tests.edge.lab import Lab
from tests.edge.local_edge import StartEdge
from tests.edge.stack import (
    API_KEY,
    CHAT,
    OTHER_API_KEY,
    REQUESTS_OF_A_FLUSH,
    Stack,
    answering,
    error_of,
    is_hit,
    origin_settings,
    stacked,
    status,
)
from tests.support.control import control_store
from tests.support.engines import MODEL

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
    outcomes = more(after["outcomes"], before["outcomes"])
    assert outcomes.pop("refused") >= 2
    assert outcomes == {"hit": 3, "stale": 1, "miss": 2, "stale_if_error": 1, "bypass": 1}
    for speed, count in {"hit": 4, "miss": 4}.items():
        now, then = after["latency_ms"][speed], before["latency_ms"][speed]
        assert now["count"] - then["count"] == count
        assert sum(now["buckets"].values()) == now["count"]
        assert now["sum"] > then["sum"]
    sent = [*hits, failed]
    assert after["bytes"] - before["bytes"] == sum(each.num_bytes_downloaded for each in sent)
    counts = TenantCounts()
    for flush in taken:  # on a slow machine there may be one in between
        counts.merge(flush.tenants["acme"])
    by_key = {miss.headers["encore-key"]: 4, hits[-1].headers["encore-key"]: 1}
    assert counts.hits == by_key
    assert counts.troubles["put"] >= 2
    # Five answers without a generation of 3 and 2 tokens.
    by_outcome = {name: cell for name, cell in counts.cells.items() if name[0] != "refused"}
    assert by_outcome == {
        ("hit", "exact", MODEL, None): [3, 9, 6],
        ("stale", "exact", MODEL, None): [1, 3, 2],
        ("stale_if_error", "exact", MODEL, None): [1, 3, 2],
        ("miss", None, MODEL, None): [2, 0, 0],
        ("bypass", None, MODEL, None): [1, 0, 0],
    }


def test_what_made_a_hit_is_counted(
    start_edge: StartEdge, lab_config: Path, taken: list[Flush]
) -> None:
    """By the tenant's policy: a template, a profile that changed the text, or neither; by class."""
    policy = Policy(normalisation="text", templates={"area@1": "Area of {name:text}"})
    settings = origin_settings(tiers=Tiers.parse('{"classes": {"listing": {}}}'))
    control = control_store(API_KEY, policy=policy)
    with stacked(start_edge, config=lab_config, settings=settings, control=control) as stack:
        stack.hit("where is Oak Street?")
        stack.hit("Area of Oak Street", {"encore-class": "listing"})
        stack.flush()
        taken.clear()
        hits = [
            stack.ask("where is Oak Street?"),
            stack.ask("Please, where is  Oak Street?"),
            stack.ask("Area of Oak Street", {"encore-class": "listing"}),
        ]
        assert all(map(is_hit, hits))
        stack.flush()
    cells = {name: cell for each in taken for name, cell in each.tenants["acme"].cells.items()}
    assert {name: cell[0] for name, cell in cells.items() if name[0] == "hit"} == {
        ("hit", "exact", MODEL, None): 1,
        ("hit", "normalised", MODEL, None): 1,
        ("hit", "template", MODEL, "listing"): 1,
    }


def test_a_refresh_is_no_request(counting: Stack) -> None:
    """What the edge asks behind a stale answer, nobody waits for."""
    counting.ask("refreshed", {"encore-ttl": "1"})
    Lab(edge=counting.edge).writes(at_least=1)
    time.sleep(1.1)
    before, asked = counting.stats(), counting.front.was_asked(f"POST {CHAT}")
    assert is_hit(counting.ask("refreshed"))
    deadline = time.monotonic() + 10
    while counting.front.was_asked(f"POST {CHAT}") == asked:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    counting.flush()
    after = counting.stats()
    assert after["origin"]["outcomes"] == before["origin"]["outcomes"]


def test_reports_are_made_in_bulk(counting: Stack) -> None:
    """One for so many requests, whatever they are."""
    counting.flush()
    before, asked = counting.counted()["requests"], reports(counting)
    ask_badly(counting, 2 * REQUESTS_OF_A_FLUSH + 50)
    deadline = time.monotonic() + 10
    while counting.counted()["requests"] - before < 2 * REQUESTS_OF_A_FLUSH:
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
    """With the next report, not soon; nothing is lost, nothing counted twice."""
    counting.flush()
    before, asked = counting.counted(), reports(counting)
    with counting.front.answers_instead(refusal, COUNTERS_PATH):
        ask_badly(counting, REQUESTS_OF_A_FLUSH)
        deadline = time.monotonic() + 10
        while reports(counting) == asked:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        ask_badly(counting, REQUESTS_OF_A_FLUSH)
        assert reports(counting) - asked == 1
        assert counting.counted() == before
    with Lab(edge=counting.edge).reporting_at_once():
        ask_badly(counting, 1)
        deadline = time.monotonic() + 10
        while (after := counting.counted()) == before:
            assert time.monotonic() < deadline
            time.sleep(0.05)
    sent = more(after["outcomes"], before["outcomes"])
    assert set(sent) == {"refused"}
    # The first flush may have left some, which had come while it was sent.
    assert 0 <= sent["refused"] - (2 * REQUESTS_OF_A_FLUSH + 1) < 10


def test_tenants_are_counted_apart(counting: Stack) -> None:
    """One report carries both; each reads its own, and may name no other."""
    counting.flush()
    mine, theirs = counting.counted(), counting.counted(OTHER_API_KEY)
    ask_badly(counting, 3, OTHER)
    counting.flush()
    sent = more(counting.counted(OTHER_API_KEY)["outcomes"], theirs["outcomes"])
    assert sent == {"refused": 3}
    own = more(counting.counted()["outcomes"], mine["outcomes"])
    assert own == {"refused": REQUESTS_OF_A_FLUSH - 3}
    refused = counting.client.get("/cache/stats?tenant=acme", headers=OTHER)
    assert refused.status_code == 403
    assert error_of(refused)["code"] == "operator_required"


def test_only_if_cached_in_vain_is_no_error(counting: Stack) -> None:
    """It is what the client asked for."""
    counting.flush()
    before = counting.counted()
    refused = counting.ask("never heard", {"cache-control": "only-if-cached"})
    assert (refused.status_code, error_of(refused)["code"]) == (504, "only_if_cached")
    counting.flush()
    assert set(more(counting.counted()["outcomes"], before["outcomes"])) == {"refused"}


def test_failures_of_what_is_passed_on_are_counted(counting: Stack) -> None:
    """By whose fault they are."""
    counting.flush()
    before = counting.counted()
    with counting.front.answers_instead(answering(200, "text/html", b"<p>"), "/v1/responses"):
        assert counting.client.post("/v1/responses", json={}).status_code == 502
    counting.flush()
    after = counting.counted()
    assert more(after["outcomes"], before["outcomes"])["error"] == 1
    assert more(after["troubles"], before["troubles"])["origin-error"] == 1


def test_who_leaves_while_sending_is_refused(counting: Stack) -> None:
    """It is no error of ours: nothing of it is in the log."""
    before, said = counting.counted(OTHER_API_KEY)["outcomes"], len(counting.edge.log())
    url = httpx.URL(counting.edge.url)
    head = f"POST {CHAT} HTTP/1.1\r\nhost: {url.netloc.decode()}\r\ntransfer-encoding: chunked\r\n"
    with socket.create_connection((url.host, url.port or 80)) as connection:
        connection.sendall(f"{head}authorization: {OTHER['authorization']}\r\n\r\n1\r\n{{".encode())
        time.sleep(0.5)  # it is read until then
    deadline = time.monotonic() + 30
    while not (outcomes := more(counting.counted(OTHER_API_KEY)["outcomes"], before)):
        assert time.monotonic() < deadline
        counting.flush()
    assert outcomes == {"refused": 1}
    assert "Traceback" not in counting.edge.log()[said:]


def test_unknown_keys_are_not_counted(counting: Stack) -> None:
    """Nobody without a valid key can fill an isolate's memory, or a tenant's counts."""
    counting.flush()
    before = counting.counted()
    for number in range(20):
        nobody = {"authorization": f"Bearer sk-encore-t{number}-{'a' * 24}-{'a' * 8}"}
        assert counting.client.post(CHAT, content=b"{", headers=nobody).status_code == 401
    counting.flush()
    sent = more(counting.counted()["outcomes"], before["outcomes"])
    assert sent == {"refused": REQUESTS_OF_A_FLUSH}
