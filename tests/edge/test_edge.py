"""What the Worker answers from KV and what it asks the origin, in workerd with real KV."""

from __future__ import annotations

import base64
import http.client
import json
import struct
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from origin.lifetimes import Tiers
from shared.envelope import SEGMENT_JSON, SEGMENT_SSE, Envelope, decode, encode
from shared.requests import Endpoint
from tests.edge.lab import Lab
from tests.edge.local_edge import StartEdge
from tests.edge.stack import (
    API_KEY,
    CHAT,
    OTHER_API_KEY,
    Stack,
    client_of,
    content,
    documents_at_edge,
    error_of,
    is_hit,
    origin_settings,
    stacked,
    status,
    until,
    variables,
)
from tests.support.engines import MODEL


def test_second_request_is_answered_by_kv(stack: Stack) -> None:
    """A miss fills KV behind the answer; after that the origin is not asked."""
    miss = stack.ask("twice")
    assert status(miss) == "encore-origin; fwd=miss; stored, encore-edge; fwd=miss; stored"
    engine, kv = miss.headers["server-timing"].split(", ")
    assert engine.startswith("engine;dur=")
    assert kv.startswith("kv;dur=")
    runs = stack.engine.runs
    hit = stack.hit("twice")
    assert hit.json() == miss.json()
    assert stack.engine.runs == runs
    assert int(hit.headers["age"]) >= 0
    assert hit.headers["cache-control"] == "private, no-store"
    assert hit.headers["encore-key"] == miss.headers["encore-key"]
    assert hit.headers["server-timing"].startswith("kv;dur=")


@pytest.mark.parametrize(
    ("stream", "segment"), [(False, SEGMENT_JSON), (True, SEGMENT_SSE)], ids=["plain", "streamed"]
)
def test_wire_bytes_of_a_hit_are_the_stored_segment(
    stack: Stack,
    stream: bool,
    segment: str,
) -> None:
    """What leaves the edge is the gzip member the origin made, byte for byte."""
    text = f"wire {segment}"
    stack.ask(text)
    hit = stack.hit(text, stream=stream)
    body = {"model": MODEL, "messages": [{"role": "user", "content": text}], "stream": stream}
    connection = http.client.HTTPConnection(urlsplit(stack.edge.url).netloc)
    connection.request(
        "POST",
        CHAT,
        json.dumps(body),
        {"authorization": f"Bearer {API_KEY}", "accept-encoding": "gzip"},
    )
    response = connection.getresponse()
    wire = response.read()
    connection.close()
    assert response.headers["content-encoding"] == "gzip"
    stored = [
        envelope
        for envelope in (decode(encoded) for encoded, _ in stack.store._entries.values())
        if envelope.header.key.startswith(hit.headers["encore-key"])
    ]
    assert wire == stored[0].segment(segment)


def test_client_without_gzip_gets_plain_bytes(stack: Stack) -> None:
    """The platform inflates for a client that does not accept gzip."""
    stack.ask("inflate")
    stack.hit("inflate")
    response = stack.ask("inflate", {"accept-encoding": "identity"})
    assert "content-encoding" not in response.headers
    assert content(response).startswith("Answer")


def test_streamed_miss_fills_the_entry_of_both(stack: Stack) -> None:
    """A streamed miss is fetched afterwards; then plain and streamed requests hit alike."""
    miss = stack.ask("stream first", stream=True)
    assert status(miss) == "encore-origin; fwd=miss, encore-edge; fwd=miss"
    assert miss.text.endswith("data: [DONE]\n\n")
    plain = stack.hit("stream first")
    hit = stack.hit("stream first", stream=True, stream_options={"include_usage": True})
    assert content(plain) in hit.text
    assert '"usage":{' in hit.text
    assert "usage" not in stack.hit("stream first", stream=True).text


def test_streamed_miss_passes_through_as_it_is_said(stack: Stack) -> None:
    """The first token arrives while the engine is still held back."""
    stack.engine.gate.clear()
    body = {
        "model": MODEL,
        "messages": [{"role": "user", "content": "piece by piece"}],
        "stream": True,
    }
    with stack.client.stream("POST", CHAT, json=body) as response:
        pieces = response.iter_lines()
        first = next(pieces)
        stack.engine.open_gate()
        rest = list(pieces)
    assert '"role":"assistant"' in first
    assert "data: [DONE]" in rest


def test_client_that_leaves_stops_its_generation(stack: Stack) -> None:
    """A stream's connection to the origin ends with the client's, and with it the run.

    workerd on its own notices at the next write that a client has gone: the engine keeps talking.
    """
    stack.engine.gate.clear()
    stack.engine.talking = True
    before = stack.engine.cancelled
    body = {"model": MODEL, "messages": [{"role": "user", "content": "leave"}], "stream": True}
    with client_of(stack.edge) as client, client.stream("POST", CHAT, json=body) as response:
        next(response.iter_lines())
    deadline = time.monotonic() + 10
    while stack.engine.cancelled == before:
        assert time.monotonic() < deadline, "the generation goes on without anyone listening"
        time.sleep(0.05)
    stack.engine.talking = False
    stack.engine.open_gate()


def test_tenants_and_scopes_share_nothing(stack: Stack) -> None:
    """Equal requests of another tenant, and of another scope, are misses."""
    stack.ask("mine")
    stack.hit("mine")
    other = {"authorization": f"Bearer {OTHER_API_KEY}"}
    assert "fwd=miss" in status(stack.ask("mine", other))
    assert "fwd=miss" in status(stack.ask("mine", {"encore-scope": "user-7"}))


def test_no_store_leaves_nothing(stack: Stack) -> None:
    """Neither tier keeps the answer of a `no-store` request."""
    first = stack.ask("secret", {"cache-control": "no-store"})
    assert status(first) == (
        "encore-origin; fwd=bypass; detail=no-store, encore-edge; fwd=bypass; detail=no-store"
    )
    assert "fwd=miss" in status(stack.ask("secret"))


def test_no_cache_replaces_the_entry(stack: Stack) -> None:
    """A request for a new answer gets one, and so does everybody after it.

    Within a minute of the key's last write to KV that one is the old answer's: see the writes.
    """
    stack.ask("again")
    old = content(stack.hit("again"))
    stack.end_minute()
    new = stack.ask("again", {"cache-control": "no-cache"})
    assert content(new) != old
    until(lambda: stack.ask("again"), lambda response: content(response) == content(new))


def test_only_if_cached_without_an_entry_is_504(stack: Stack) -> None:
    """RFC 9111 section 5.2.1.7."""
    response = stack.ask("never asked", {"cache-control": "only-if-cached"})
    assert response.status_code == 504
    assert error_of(response)["code"] == "only_if_cached"


def test_identical_misses_at_once_are_stored_once(start_edge: StartEdge) -> None:
    """One generation, and one write to KV, though two isolates were asked."""
    with stacked(start_edge) as here:
        there = start_edge(variables=variables(here.origin_url))
        documents_at_edge(there, here.control)
        here.engine.gate.clear()
        with client_of(there) as client, ThreadPoolExecutor(12) as pool:
            stacks = [here, replace(here, edge=there, client=client)] * 6
            answers = [pool.submit(stack.ask, "all at once") for stack in stacks]
            deadline = time.monotonic() + 10
            while here.front.was_asked(f"POST {CHAT}") < len(stacks):
                assert time.monotonic() < deadline
                time.sleep(0.02)
            here.engine.open_gate()
            members = [status(answer.result()).split(", ")[-1] for answer in answers]
        there.stop()
    assert here.engine.runs == 1
    assert members.count("encore-edge; fwd=miss; stored") == 1
    assert members.count("encore-edge; fwd=miss") == len(stacks) - 1


def test_an_entry_of_the_origins_is_stored_once(start_edge: StartEdge, lab_config: Path) -> None:
    """A location that does not see its own write yet, as KV allows, does not repeat it."""
    with stacked(start_edge, config=lab_config) as stack, Lab(edge=stack.edge).failing("blind"):
        assert status(stack.ask("unseen")).endswith("encore-edge; fwd=miss; stored")
        again = stack.ask("unseen")
        assert status(again).startswith("encore-origin; hit")
        assert status(again).endswith("encore-edge; fwd=miss")
        replaced = stack.ask("unseen", {"cache-control": "no-cache"})
        assert status(replaced).endswith("encore-edge; fwd=miss")
        stack.end_minute()
        replaced = stack.ask("unseen", {"cache-control": "no-cache"})
        assert status(replaced).endswith("encore-edge; fwd=miss; stored")


def test_short_lived_entries_are_not_stored(start_edge: StartEdge) -> None:
    """With less than 60 s to live KV would refuse it: the origin answers the next request, too."""
    settings = origin_settings(ttl_s=59, stale_while_revalidate_s=0, stale_if_error_s=0)
    with stacked(start_edge, settings=settings) as stack:
        assert status(stack.ask("brief")) == (
            "encore-origin; fwd=miss; stored, encore-edge; fwd=miss"
        )
        again = stack.ask("brief")
        assert status(again).startswith("encore-origin; hit; ")
        assert status(again).endswith(", encore-edge; fwd=miss")


def test_ttl_of_a_request(stack: Stack) -> None:
    """`Encore-TTL` reaches the entry that the edge serves."""
    stack.ask("ttl", {"encore-ttl": "100"})
    ttl_s = int(status(stack.hit("ttl")).removeprefix("encore-edge; hit; ttl="))
    assert 90 < ttl_s <= 100


def test_buckets_are_kept_apart(stack: Stack) -> None:
    """`Encore-Bucket` asks for another answer to the same question, and finds it again."""
    stack.ask("bucket")
    zero = content(stack.hit("bucket"))
    assert "fwd=miss" in status(stack.ask("bucket", {"encore-bucket": "1"}))
    assert content(stack.hit("bucket", {"encore-bucket": "1"})) != zero
    assert content(stack.hit("bucket", {"encore-bucket": "0"})) == zero


TIERS = Tiers.parse(
    """{"classes": {"page": {}, "memo": {"sensitivity": "internal"},
        "contract": {"sensitivity": "confidential"}}}"""
)


def test_content_classes_are_kept_apart(start_edge: StartEdge) -> None:
    """What is in KV for one class answers no other; what is sensitive never gets there."""
    classes = [{"encore-class": name} for name in ("page", "memo", "contract")]
    with stacked(start_edge, settings=origin_settings(tiers=TIERS)) as stack:
        stack.ask("class")
        said = [content(stack.hit("class"))]
        for headers in classes:
            first = stack.ask("class", headers)
            assert status(first).startswith("encore-origin; fwd=miss")
            said.append(content(first))
        assert len(set(said)) == len(said)
        assert content(stack.hit("class", classes[0])) == said[1]
        for headers, text in zip(classes[1:], said[2:], strict=True):
            for _ in range(3):
                again = stack.ask("class", headers)
                assert status(again).startswith("encore-origin; hit")
                assert status(again).endswith("encore-edge; fwd=miss")
                assert content(again) == text


def test_edge_gets_an_entry_that_slid_with_its_later_end(start_edge: StartEdge) -> None:
    """Once its own copy is stale, without a generation: it is the same answer."""
    with stacked(start_edge, settings=origin_settings(stale_while_revalidate_s=600)) as stack:
        stack.ask("slides", {"encore-ttl": "1"})
        copy = stack.hit("slides")
        runs = stack.engine.runs
        ((key, (encoded, _)),) = stack.store._entries.items()
        entry = decode(encoded)
        later = replace(
            entry.header,
            fresh_until_ms=entry.header.fresh_until_ms + 1_000_000,
            stale_until_ms=entry.header.stale_until_ms + 1_000_000,
            error_until_ms=entry.header.error_until_ms + 1_000_000,
        )
        slid = Envelope(header=later, payload=entry.payload)
        stack.store._entries[key] = (encode(slid), later.expires_ms)
        stack.end_minute()
        fresh = until(
            lambda: stack.ask("slides"),
            lambda answer: int(status(answer).rpartition("ttl=")[2]) > 100 and is_hit(answer),
        )
        assert fresh.content == copy.content
        assert fresh.headers["etag"] == copy.headers["etag"]
        assert stack.engine.runs == runs


def test_completions_are_cached(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    """A miss, then a hit, then the same text streamed; what cannot be streamed is refused."""
    usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
    choice = {"index": 0, "text": "said", "logprobs": None, "finish_reason": "stop"}
    answer = {
        "id": "cmpl-1",
        "object": "text_completion",
        "created": 1,
        "model": MODEL,
        "choices": [choice],
        "usage": usage,
    }
    monkeypatch.setattr(stack.engine, "whole", answer)
    body: dict[str, Any] = {"model": MODEL, "prompt": "say", "best_of": 2}
    path = Endpoint.COMPLETIONS
    assert "encore-edge; fwd=miss" in status(stack.client.post(path, json=body))
    hit = until(lambda: stack.client.post(path, json=body), is_hit)
    assert hit.json()["choices"] == [choice]
    refused = stack.client.post(path, json=body | {"stream": True})
    assert (refused.status_code, error_of(refused)["param"]) == (400, "best_of")

    stack.client.post(path, json={"model": MODEL, "prompt": "stream"})
    streamed = {"model": MODEL, "prompt": "stream", "stream": True}
    hit = until(lambda: stack.client.post(path, json=streamed), is_hit)
    assert '"text":"said"' in hit.text
    assert hit.text.endswith("data: [DONE]\n\n")


def test_embeddings_are_cached_and_never_streamed(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A miss, then a hit; `stream` is a 400 before and after."""
    answer = {
        "object": "list",
        "data": [{"object": "embedding", "index": 0, "embedding": [0.5, -0.25]}],
        "model": MODEL,
        "usage": {"prompt_tokens": 1, "total_tokens": 1},
    }
    monkeypatch.setattr(stack.engine, "whole", answer)
    body: dict[str, Any] = {"model": MODEL, "input": "embed this"}
    path = Endpoint.EMBEDDINGS

    def check_stream_is_refused() -> None:
        refused = stack.client.post(path, json=body | {"stream": True})
        assert (refused.status_code, error_of(refused)["param"]) == (400, "stream")

    check_stream_is_refused()
    assert "encore-edge; fwd=miss" in status(stack.client.post(path, json=body))
    hit = until(lambda: stack.client.post(path, json=body), is_hit)
    assert hit.json()["data"] == answer["data"]
    check_stream_is_refused()


def embeddings_of(*vectors: list[float]) -> dict[str, Any]:
    """An upstream's plain answer with these vectors."""
    data = [
        {"object": "embedding", "index": index, "embedding": vector}
        for index, vector in enumerate(vectors)
    ]
    usage = {"prompt_tokens": len(vectors), "total_tokens": len(vectors)}
    return {"object": "list", "data": data, "model": MODEL, "usage": usage}


def test_one_entry_in_kv_serves_both_encodings(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever filled it, and however the one input is wrapped; no other encoding is served."""
    monkeypatch.setattr(stack.engine, "whole", embeddings_of([0.1, -0.7]))
    path, runs = Endpoint.EMBEDDINGS, stack.engine.runs
    body: dict[str, Any] = {"model": MODEL, "input": "one vector"}
    encoded = body | {"encoding_format": "base64"}
    first = stack.client.post(path, json=encoded)
    hit = until(lambda: stack.client.post(path, json=encoded), is_hit)
    assert hit.json() == first.json()
    data = base64.b64decode(hit.json()["data"][0]["embedding"])
    assert data == struct.pack("<2f", 0.1, -0.7)
    for floats in (body, body | {"encoding_format": "float", "input": ["one vector"]}):
        again = stack.client.post(path, json=floats)
        assert is_hit(again)
        assert again.headers["content-type"] == "application/json"
        assert again.headers["encore-key"] == hit.headers["encore-key"]
        assert tuple(again.json()["data"][0]["embedding"]) == struct.unpack("<2f", data)
    assert stack.engine.runs == runs + 1
    refused = stack.client.post(path, json=body | {"encoding_format": "hex"})
    assert (refused.status_code, error_of(refused)["param"]) == (400, "encoding_format")


def test_batch_is_answered_by_the_origin_from_its_inputs(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing of it is kept in KV, where a purge of one input would not reach it."""
    path = Endpoint.EMBEDDINGS
    body: dict[str, Any] = {"model": MODEL, "input": ["left", "right"]}
    monkeypatch.setattr(stack.engine, "whole", embeddings_of([0.5], [0.25]))
    miss = stack.client.post(path, json=body)
    assert status(miss) == (
        'encore-origin; fwd=miss; stored; detail="elements=0/2", encore-edge; fwd=bypass; '
        "detail=batch"
    )
    hit = until(
        lambda: stack.client.post(path, json=body),
        lambda response: status(response).startswith("encore-origin; hit"),
    )
    assert status(hit).endswith('; detail="elements=2/2", encore-edge; fwd=bypass; detail=batch')
    assert hit.json() == miss.json() == embeddings_of([0.5], [0.25])
    alone = {"model": MODEL, "input": "right"}
    assert status(stack.client.post(path, json=alone)).startswith("encore-origin; hit")
    only = {"cache-control": "only-if-cached"}
    unknown = {"model": MODEL, "input": ["left", "unknown"]}
    assert stack.client.post(path, json=unknown, headers=only).status_code == 504


def test_edge_without_a_document_keeps_its_first_answer(start_edge: StartEdge) -> None:
    """It gets the document behind the answer, and puts the entry long before the next grant."""
    with stacked(start_edge, informed=False) as stack:
        assert status(stack.ask("before any document")).endswith("detail=no-control")
        stack.hit("before any document")
