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

import origin.stores.memory
import origin.times
from shared.control_document import Policy, encode
from shared.envelope import decode_header
from shared.keys import make_api_key
from tests.edge.lab import Lab
from tests.edge.local_edge import StartEdge
from tests.edge.stack import (
    KEYS,
    Stack,
    client_of,
    content,
    documents_at_edge,
    is_hit,
    leave_document,
    origin_settings,
    stacked,
    status,
    variables,
)
from tests.support.control import document_of

STREAMS = pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])


class Clock:
    """The time of one module, which a test may set forward."""

    ahead_s = 0

    def time_ns(self) -> int:
        """See time.time_ns."""
        return time.time_ns() + self.ahead_s * 1_000_000_000


@pytest.fixture(scope="module")
def kept(start_edge: StartEdge, lab_config: Path) -> Iterator[Stack]:
    """A stack whose KV can be looked at."""
    with stacked(start_edge, config=lab_config) as stack:
        yield stack


@pytest.fixture(scope="module")
def brief(start_edge: StartEdge, lab_config: Path) -> Iterator[Stack]:
    """The same with entries that live no longer than they are fresh."""
    settings = origin_settings(stale_while_revalidate_s=0, stale_if_error_s=0)
    with stacked(start_edge, config=lab_config, settings=settings) as stack:
        yield stack


@pytest.fixture
def kv(kept: Stack) -> Lab:
    """That KV, nothing noted yet."""
    kv = Lab(edge=kept.edge)
    kv.forget()
    return kv


@STREAMS
def test_hit_is_one_read(kept: Stack, kv: Lab, stream: bool) -> None:
    """Of the entry; the control document is remembered."""
    text = f"economical {stream}"
    kept.ask(text)
    kept.hit(text)
    kv.forget()
    for _ in range(5):
        assert is_hit(kept.ask(text, stream=stream))
    assert [call["call"] for call in kv.noted()] == ["get entry"] * 5


def test_hit_without_a_memo_reads_the_document_too(start_edge: StartEdge, lab_config: Path) -> None:
    """Once, as the entry. A location remembers it for a minute at most: KV's least is 30 s."""
    with stacked(start_edge, config=lab_config, ENCORE_CONTROL_MEMO_S="0") as stack:
        kv = Lab(edge=stack.edge)
        stack.ask("no memo")
        stack.hit("no memo")
        kv.forget()
        for _ in range(5):
            assert is_hit(stack.ask("no memo"))
        assert Counter(call["call"] for call in kv.noted()) == {"get control": 5, "get entry": 5}
        assert all(30 <= call["cache_ttl_s"] <= 60 for call in kv.noted("get control"))


@STREAMS
def test_fill_is_one_read_and_one_write(kept: Stack, kv: Lab, stream: bool) -> None:
    """Of this entry, until the time at which the entry itself says that it is over."""
    kept.ask(f"fill {stream}", stream=stream)
    (write,) = kv.writes(at_least=1)
    header = decode_header(write["metadata"])
    assert write["name"] == f"e:acme:{header.key}"
    assert write["expiration_s"] == -(-header.expires_ms // 1000)
    assert header.expires_ms - write["now_ms"] >= 60_000
    kept.hit(f"fill {stream}")
    assert len(kv.writes()) == 1


def test_entries_are_remembered_for_a_minute_at_most(kept: Stack, kv: Lab) -> None:
    """By a location: KV's least is 30 s."""
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(kept.ask, (f"remembered {i}" for i in range(8))))
    reads = kv.noted("get entry")
    assert reads
    assert all(30 <= call["cache_ttl_s"] <= 60 for call in reads)


def test_a_key_is_written_once_a_minute(
    kept: Stack, kv: Lab, start_edge: StartEdge, lab_config: Path
) -> None:
    """Over two isolates, many at once, with a new answer each time; then once more."""
    there = start_edge(lab_config, variables=variables(kept.origin_url))
    documents_at_edge(there, kept.control)
    kvs = [kv, Lab(edge=there)]
    kvs[1].forget()
    with client_of(there) as client, ThreadPoolExecutor(6) as pool:
        stacks = [kept, replace(kept, edge=there, client=client)]

        for minute in (1, 2):
            asked = [
                pool.submit(stacks[i % 2].ask, "written once", {"cache-control": "no-cache"})
                for i in range(20)
            ]
            members = [status(one.result()).split(", ")[-1] for one in asked]
            assert sum(member.endswith("; stored") for member in members) == 1
            deadline = time.monotonic() + 10
            while len(writes := [write for one in kvs for write in one.writes()]) < minute:
                assert time.monotonic() < deadline
            assert len(writes) == minute
            assert len({str(write["name"]) for write in writes}) == 1
            kept.end_minute()
    there.stop()


def test_one_hit_wonders_are_not_written(start_edge: StartEdge, lab_config: Path) -> None:
    """With ENCORE_ADMIT_AFTER=3 the first two requests write nothing, the third does."""
    with stacked(start_edge, config=lab_config, settings=origin_settings(admit_after=3)) as stack:
        kv = Lab(edge=stack.edge)
        members = [status(stack.ask("wonder")).split(", ")[-1] for _ in range(3)]
        assert members == ["encore-edge; fwd=miss"] * 2 + ["encore-edge; fwd=miss; stored"]
        assert len(kv.writes(at_least=1)) == 1
        stack.hit("wonder")
        assert kv.calls("put entry") == 1


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
    kv = Lab(edge=brief.edge)
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


def test_origin_only_tenant_is_not_in_kv(kept: Stack, kv: Lab) -> None:
    """Its entries are neither written nor, once its policy is known, looked for."""
    api_key = make_api_key(KEYS, "resident", bytes(15))
    headers = {"authorization": f"Bearer {api_key}"}
    document = document_of(api_key, policy=Policy(residency="origin-only"))
    kept.control._documents["resident"] = (document.revision, encode(document))
    assert leave_document(kept.edge, document).status_code == 200
    for stream in (False, True, False):
        assert "detail=origin-only" in status(kept.ask("resident", headers, stream=stream))
    kept.run_cron()
    assert kv.noted(name="e:resident:") == []


def test_refused_write_is_counted_and_made_up_for(kept: Stack, kv: Lab) -> None:
    """An error of KV fails no request; the next minute's write fills the entry."""
    kv.refuse("put entry", times=2)
    assert kept.ask("refused").is_success
    assert kept.ask("refused too", stream=True).is_success
    kv.writes(at_least=2)
    kept.flush()
    assert kept.counted()["troubles"]["put-error"] == 2
    kept.end_minute()
    kept.ask("refused")
    kept.hit("refused")


@STREAMS
def test_oversized_value_is_skipped_and_counted(kept: Stack, kv: Lab, stream: bool) -> None:
    """The answer reaches the client; KV does not get it, and one fill counts once."""
    kept.flush()
    before = kept.counted()["troubles"]
    with kv.limit_values(100):
        answer = kept.ask(f"too large {stream}", stream=stream)
        assert answer.is_success
        assert "stored" not in status(answer).split(", ")[-1]
        kept.flush()
    assert kept.counted()["troubles"] == before | {"oversized": before["oversized"] + 1}
    assert kv.writes() == []


def test_replacement_that_had_to_wait_comes_with_the_cron(
    kept: Stack, kv: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A `no-cache` whose write was refused within the minute is in KV soon after it."""
    clock = Clock()
    monkeypatch.setattr(origin.times, "time", clock)
    kept.ask("replaced")
    old = content(kept.hit("replaced"))
    replaced = kept.ask("replaced", {"cache-control": "no-cache"})
    new = content(replaced)
    name = f"e:acme:{replaced.headers['encore-key']}"
    assert new != old
    assert status(replaced).endswith("encore-edge; fwd=request")
    kept.run_cron()
    assert content(kept.ask("replaced")) == old
    assert len(kv.noted("put entry", name)) == 1
    clock.ahead_s = 61
    kept.run_cron()
    asked = len(kept.front.asked)
    hit = kept.ask("replaced")
    assert is_hit(hit)
    assert content(hit) == new
    assert len(kept.front.asked) == asked
    assert len(kv.noted("put entry", name)) == 2
    kept.run_cron()
    assert len(kv.noted("put entry", name)) == 2
