"""How the Worker uses Workers KV: what it reads, what it writes and how often, in real KV."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import origin.pipeline
import origin.stores.memory
from shared.control_document import Policy
from shared.envelope import decode_header
from tests.edge.counting import CountedKV, counted, flush, run_cron
from tests.edge.local_edge import StartEdge
from tests.edge.projects import Projects
from tests.edge.stack import (
    API_KEY,
    Stack,
    client_of,
    content,
    documents_at_edge,
    is_hit,
    origin_settings,
    stacked,
    status,
    variables,
)
from tests.support.control import control_store

STREAMS = pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])


class Clock:
    """The time of one module, which a test may set forward."""

    ahead_s = 0

    def time_ns(self) -> int:
        """See time.time_ns."""
        return time.time_ns() + self.ahead_s * 1_000_000_000


@pytest.fixture(scope="module")
def counting(projects: Projects) -> Path:
    """The configuration of the Worker on a KV that notes its calls."""
    return projects.of_the_worker((Path(__file__).parent / "fixtures/kv_counting.py").read_text())


@pytest.fixture(scope="module")
def counted_stack(start_edge: StartEdge, counting: Path) -> Iterator[Stack]:
    """A stack on such a KV."""
    with stacked(start_edge, config=counting) as stack:
        yield stack


@pytest.fixture(scope="module")
def brief(start_edge: StartEdge, counting: Path) -> Iterator[Stack]:
    """A stack on such a KV, whose entries live no longer than they are fresh."""
    settings = origin_settings(stale_while_revalidate_s=0, stale_if_error_s=0)
    with stacked(start_edge, config=counting, settings=settings) as stack:
        yield stack


@pytest.fixture
def kv(counted_stack: Stack) -> CountedKV:
    """That KV, nothing noted yet."""
    kv = CountedKV(edge=counted_stack.edge)
    kv.forget()
    return kv


def calls_of_entry(kv: CountedKV) -> Counter[str]:
    """How often entries were read and written, by call."""
    return Counter(str(call["call"]) for call in kv.calls(name="e:"))


@STREAMS
def test_hit_is_one_read(counted_stack: Stack, kv: CountedKV, stream: bool) -> None:
    """Of the entry; the control document is remembered."""
    text = f"economical {stream}"
    counted_stack.ask(text)
    counted_stack.hit(text)
    kv.forget()
    for _ in range(5):
        assert is_hit(counted_stack.ask(text, stream=stream))
    assert [call["call"] for call in kv.calls()] == ["get"] * 5
    assert {str(call["name"])[:7] for call in kv.calls()} == {"e:acme:"}


def test_hit_without_a_memo_reads_the_document_too(start_edge: StartEdge, counting: Path) -> None:
    """Both are read once, and no more often than once a memo."""
    with stacked(start_edge, config=counting, ENCORE_CONTROL_MEMO_S="0") as stack:
        kv = CountedKV(edge=stack.edge)
        stack.ask("no memo")
        stack.hit("no memo")
        kv.forget()
        for _ in range(5):
            assert is_hit(stack.ask("no memo"))
        assert Counter(str(call["name"])[:4] for call in kv.calls("get")) == {"ctl:": 5, "e:ac": 5}
        assert kv.calls("put") == []


@STREAMS
def test_fill_is_one_read_and_one_write(
    counted_stack: Stack, kv: CountedKV, stream: bool
) -> None:
    """Of this entry, until the time at which the entry itself says that it is over."""
    counted_stack.ask(f"fill {stream}", stream=stream)
    (write,) = kv.writes(at_least=1)
    header = decode_header(write["metadata"])
    assert write["name"] == f"e:acme:{header.key}"
    assert write["expiration_s"] == -(-header.expires_ms // 1000)
    assert header.expires_ms - write["now_ms"] >= 60_000
    counted_stack.hit(f"fill {stream}")
    assert len(kv.writes()) == 1


def test_reads_remember_for_a_minute_at_most(counted_stack: Stack, kv: CountedKV) -> None:
    """Of entries and of documents: KV's least is 30 s."""
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(counted_stack.ask, (f"remembered {i}" for i in range(8))))
    reads = kv.calls("get")
    assert reads
    assert all(30 <= call["cache_ttl_s"] <= 60 for call in reads)


def test_document_is_remembered_for_a_minute_at_most(
    start_edge: StartEdge, counting: Path
) -> None:
    """KV's least is 30 s, too."""
    with stacked(start_edge, config=counting, informed=False) as stack:
        stack.ask("document")
        reads = CountedKV(edge=stack.edge).calls("get", "ctl:")
    assert [30 <= call["cache_ttl_s"] <= 60 for call in reads] == [True]


def test_a_key_is_written_once_a_minute(
    counted_stack: Stack, kv: CountedKV, start_edge: StartEdge, counting: Path
) -> None:
    """Over two isolates, many at once, with a new answer each time; then once more."""
    there = start_edge(counting, variables=variables(counted_stack.origin_url))
    documents_at_edge(there, counted_stack.control)
    kvs = [kv, CountedKV(edge=there)]
    kvs[1].forget()
    with client_of(there) as client, ThreadPoolExecutor(6) as pool:
        stacks = [counted_stack, replace(counted_stack, edge=there, client=client)]

        for minute in (1, 2):
            asked = [
                pool.submit(stacks[i % 2].ask, "written once", {"cache-control": "no-cache"})
                for i in range(20)
            ]
            members = [status(one.result()).split(", ")[-1] for one in asked]
            assert sum(member.endswith("; stored") for member in members) == 1
            deadline = time.monotonic() + 10
            while len(writes := [write for kv in kvs for write in kv.writes()]) < minute:
                assert time.monotonic() < deadline
            assert len(writes) == minute
            assert len({str(write["name"]) for write in writes}) == 1
            counted_stack.end_minute()
    there.stop()


def test_one_hit_wonders_are_not_written(start_edge: StartEdge, counting: Path) -> None:
    """With ENCORE_ADMIT_AFTER=3 the first two requests write nothing, the third does."""
    with stacked(start_edge, config=counting, settings=origin_settings(admit_after=3)) as stack:
        kv = CountedKV(edge=stack.edge)
        members = [status(stack.ask("wonder")).split(", ")[-1] for _ in range(3)]
        assert members == ["encore-edge; fwd=miss"] * 2 + ["encore-edge; fwd=miss; stored"]
        assert len(kv.writes(at_least=1)) == 1
        stack.hit("wonder")
        assert calls_of_entry(kv)["put"] == 1


@pytest.mark.parametrize(
    ("headers", "fields"),
    [
        ({"encore-ttl": "59"}, {}),
        ({"encore-ttl": "59"}, {"stream": True}),
        ({"cache-control": "no-store"}, {}),
        ({}, {"tools": [{"type": "web_search"}]}),
    ],
    ids=["short-lived", "short-lived stream", "no-store", "unstorable"],
)
def test_what_may_not_be_written_is_not(
    brief: Stack, headers: dict[str, str], fields: dict[str, Any]
) -> None:
    """Neither at its first request nor at the next, which the origin may answer from its store."""
    kv = CountedKV(edge=brief.edge)
    kv.forget()
    for _ in range(2):
        assert brief.ask("unwritten", headers, **fields).is_success
        brief.end_minute()
    text = f"written {headers} {fields}"
    brief.ask(text)
    (write,) = kv.writes(at_least=1)  # all that was before is over
    assert write["name"].endswith(key_of(brief, text))


def key_of(stack: Stack, text: str) -> str:
    """The cache key of a chat request."""
    short = stack.ask(text).headers["encore-key"]
    (key,) = (key for key in stack.store._entries if key.startswith(short))
    return key


def test_origin_only_tenant_is_not_in_kv(start_edge: StartEdge, counting: Path) -> None:
    """Its entries are neither written nor, once its policy is known, looked for."""
    control = control_store(API_KEY, policy=Policy(residency="origin-only"))
    with stacked(start_edge, config=counting, control=control) as stack:
        kv = CountedKV(edge=stack.edge)
        for stream in (False, True, False):
            assert "detail=origin-only" in status(stack.ask("resident", stream=stream))
        run_cron(stack)
        assert kv.calls(name="e:") == []


def test_refused_write_is_counted_and_made_up_for(counted_stack: Stack, kv: CountedKV) -> None:
    """A 429 of KV fails no request; the next minute's write fills the entry."""
    kv.refuse_writes(2)
    assert counted_stack.ask("refused").is_success
    assert counted_stack.ask("refused too", stream=True).is_success
    kv.writes(at_least=2)
    flush(counted_stack)
    assert counted(counted_stack)["troubles"]["put-error"] == 2
    counted_stack.end_minute()
    counted_stack.ask("refused")
    counted_stack.hit("refused")


@STREAMS
def test_oversized_value_is_skipped_and_counted(
    start_edge: StartEdge, counting: Path, stream: bool
) -> None:
    """The answer reaches the client; KV does not get it, and one fill counts once."""
    with stacked(start_edge, config=counting) as stack:
        kv = CountedKV(edge=stack.edge)
        kv.limit_values(100)
        answer = stack.ask("too large", stream=stream)
        assert answer.is_success
        assert "stored" not in status(answer).split(", ")[-1]
        flush(stack)
        assert counted(stack)["troubles"]["oversized"] == 1
        assert counted(stack)["troubles"]["put"] == 0
        assert kv.writes() == []


def test_replacement_that_had_to_wait_comes_with_the_cron(
    counted_stack: Stack, kv: CountedKV, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A `no-cache` whose write was refused within the minute is in KV soon after it."""
    clock = Clock()
    for module in (origin.pipeline, origin.stores.memory):
        monkeypatch.setattr(module, "time", clock)
    counted_stack.ask("replaced")
    old = content(counted_stack.hit("replaced"))
    replaced = counted_stack.ask("replaced", {"cache-control": "no-cache"})
    new = content(replaced)
    assert new != old
    assert status(replaced).endswith("encore-edge; fwd=miss")
    run_cron(counted_stack)
    assert content(counted_stack.ask("replaced")) == old
    assert len(kv.writes()) == 1
    clock.ahead_s = 61
    run_cron(counted_stack)
    asked = len(counted_stack.front.asked)
    hit = counted_stack.ask("replaced")
    assert is_hit(hit)
    assert content(hit) == new
    assert len(counted_stack.front.asked) == asked
    assert len(kv.writes()) == 2
    run_cron(counted_stack)
    assert len(kv.writes()) == 2
