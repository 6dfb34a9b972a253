"""The cron trigger: the hottest entries are made anew and put into KV before they expire."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from shared.envelope import decode_header
from shared.wire import ENTRY_PATH, WARMING_PATH
from tests.edge.lab import Lab
from tests.edge.local_edge import StartEdge
from tests.edge.stack import (
    CRON,
    Stack,
    answering,
    content,
    documents_at_edge,
    is_hit,
    origin_settings,
    stacked,
    status,
    variables,
)

TTL_S = 6
OPERATIONS = 9
"""A fetch, a write and a look at a document, each for three entries."""


@pytest.fixture(scope="module")
def warmed(start_edge: StartEdge, lab_config: Path) -> Iterator[Stack]:
    """A stack whose entries expire soon, and are never served stale while the origin answers."""
    settings = origin_settings(stale_while_revalidate_s=0, stale_if_error_s=600)
    with stacked(
        start_edge,
        config=lab_config,
        settings=settings,
        ENCORE_WARM_OPERATIONS=str(OPERATIONS),
    ) as stack:
        yield stack


def ask_often(stack: Stack, text: str, *, hits: int, ttl_s: int = 300) -> None:
    """Let KV have an entry, and let it be hit."""
    assert not is_hit(stack.ask(text, {"encore-ttl": str(ttl_s)}))
    stack.hit(text)
    for _ in range(hits - 1):
        assert is_hit(stack.ask(text))


def test_hot_entry_is_a_hit_after_its_time(warmed: Stack) -> None:
    """The new one answers; what nobody had asked for twice has expired."""
    lab = Lab(edge=warmed.edge)
    ask_often(warmed, "cold", hits=1, ttl_s=TTL_S)
    ask_often(warmed, "hot", hits=1, ttl_s=TTL_S)
    hot = warmed.ask("hot")
    (written,) = lab.noted("put entry", f"e:acme:{hot.headers['encore-key']}")
    old = decode_header(written["metadata"])
    warmed.flush()
    time.sleep(max(0, old.created_ms / 1000 + TTL_S / 2 - time.time()))
    warmed.end_minute()
    warmed.run_cron()
    time.sleep(max(0, old.fresh_until_ms / 1000 + 0.1 - time.time()))
    asked = len(warmed.front.asked)
    new = warmed.ask("hot")
    assert is_hit(new)
    assert content(new) != content(hot)
    assert len(warmed.front.asked) == asked
    assert status(warmed.ask("cold")).split(", ")[-1].startswith("encore-edge; fwd=stale")


def test_budget_is_spent_on_the_hottest(warmed: Stack) -> None:
    """A fetch, a write and a look at a document are an operation each; the rest waits."""
    lab = Lab(edge=warmed.edge)
    hits = {"lukewarm": 4, "hottest": 9, "tepid": 5, "hotter": 8, "very warm": 7}
    for text, times in hits.items():
        ask_often(warmed, text, hits=times)
    hottest = {
        warmed.ask(text).headers["encore-key"] for text in ("hottest", "hotter", "very warm")
    }
    warmed.flush()
    warmed.end_minute()
    lab.forget()
    fetched = warmed.front.was_asked(f"GET {ENTRY_PATH}")
    warmed.run_cron()
    written = [write["name"].removeprefix("e:acme:")[:16] for write in lab.writes()]
    assert len(written) == OPERATIONS // 3
    assert set(written) == hottest
    assert warmed.front.was_asked(f"GET {ENTRY_PATH}") - fetched == OPERATIONS // 3


def test_without_a_budget_nothing_is_warmed(
    warmed: Stack, start_edge: StartEdge, lab_config: Path
) -> None:
    """The origin is not even asked for it."""
    given = variables(warmed.origin_url, ENCORE_WARM_OPERATIONS="0")
    there = replace(warmed, edge=start_edge(lab_config, variables=given))
    documents_at_edge(there.edge, there.control)
    asked = warmed.front.was_asked(f"POST {WARMING_PATH}")
    there.run_cron()
    assert warmed.front.was_asked("GET /readyz") > 0
    assert warmed.front.was_asked(f"POST {WARMING_PATH}") == asked
    assert Lab(edge=there.edge).noted(name="e:") == []
    there.edge.stop()


FAILURES = {
    "error": (
        answering(503, "application/json", b"{}"),
        "warming: The origin does not take it: status 503.",
    ),
    "no origin": (answering(200, "text/html", b"<p>Hello"), "warming: What the origin answered"),
    "no list": (answering(200, "application/json", b'{"entries": 5}'), ""),
    "no entries": (answering(200, "application/json", b'{"entries": [{}]}'), "warming: 'tenant'"),
    "no object": (
        answering(200, "application/json", b'{"entries": ["x", 5, null]}'),
        "warming: string indices",
    ),
}


@pytest.mark.parametrize("failure", FAILURES)
def test_failing_origin_is_logged(warmed: Stack, failure: str) -> None:
    """The run ends; the next one works."""
    answer, line = FAILURES[failure]
    with warmed.front.answers_instead(answer, WARMING_PATH):
        warmed.run_cron()
    warmed.edge.wait_for_log(line)
    assert "Traceback" not in warmed.edge.log()
    ask_often(warmed, f"after {failure}", hits=20 + 5 * list(FAILURES).index(failure))
    key = warmed.ask(f"after {failure}").headers["encore-key"]
    warmed.flush()
    warmed.end_minute()
    lab = Lab(edge=warmed.edge)
    lab.forget()
    warmed.run_cron()
    assert lab.noted("put entry", f"e:acme:{key}")


def test_origin_that_is_gone_is_logged(start_edge: StartEdge, lab_config: Path) -> None:
    """Nobody listens there at all."""
    edge = start_edge(lab_config, variables=variables("http://127.0.0.1:1"))
    assert httpx.get(edge.url + CRON, timeout=60).is_success
    edge.wait_for_log("origin not ready: The origin cannot be reached.")
    edge.wait_for_log("warming: The origin cannot be reached.")
    assert "Traceback" not in edge.log()
    edge.stop()
