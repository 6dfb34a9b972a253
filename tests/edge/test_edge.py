"""The Worker in workerd with real KV, in front of an origin whose engine the test decides."""

from __future__ import annotations

import http.client
import json
import sqlite3
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from pydantic import SecretStr

from origin.app import create_app
from origin.settings import Settings
from origin.stores.memory import MemoryStore
from shared.envelope import SEGMENT_JSON, SEGMENT_SSE, decode
from shared.errors import UpstreamError
from shared.keys import key_ring, make_api_key
from tests.edge.local_edge import Edge, StartEdge
from tests.support.engines import MODEL, ScriptedEngine
from tests.support.serving import serving

SECRET = "a secret of the tests, long enough"
KEYS = key_ring(SECRET)
API_KEY = make_api_key(KEYS, "acme", bytes(15))
CHAT = "/v1/chat/completions"


@dataclass(frozen=True, kw_only=True)
class Stack:
    """An edge in production mode, and what stands behind it."""

    edge: Edge
    engine: ScriptedEngine
    store: MemoryStore
    client: httpx.Client

    def ask(
        self, text: str, headers: dict[str, str] | None = None, **fields: Any
    ) -> httpx.Response:
        """Send a chat request that no other test sends."""
        body = {"model": MODEL, "messages": [{"role": "user", "content": text}], **fields}
        return self.client.post(CHAT, json=body, headers=headers)

    def hit(
        self, text: str, headers: dict[str, str] | None = None, **fields: Any
    ) -> httpx.Response:
        """Ask until the edge answers from KV: the entry is put behind the first answer."""
        return until(
            lambda: self.ask(text, headers, **fields),
            lambda response: status(response).startswith("encore-edge; hit"),
        )


def until(
    ask: Callable[[], httpx.Response], good: Callable[[httpx.Response], bool]
) -> httpx.Response:
    """Repeat `ask` until its response is good; fail after ten seconds."""
    deadline = time.monotonic() + 10
    while not good(response := ask()):
        assert time.monotonic() < deadline, (response.status_code, response.headers, response.text)
        time.sleep(0.05)
    return response


def status(response: httpx.Response) -> str:
    """The `Cache-Status` of a response."""
    return str(response.headers.get("cache-status", ""))


def content(response: httpx.Response) -> str:
    """What a plain chat answer says."""
    text: str = response.json()["choices"][0]["message"]["content"]
    return text


def error_of(response: httpx.Response) -> dict[str, Any]:
    """The error object of a response in OpenAI's shape."""
    error: dict[str, Any] = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return error


def variables(origin_url: str, **more: str) -> dict[str, str]:
    """The variables of an edge in front of `origin_url`."""
    return {"ENCORE_SECRET": SECRET, "ENCORE_ORIGIN_URL": origin_url, **more}


def client_of(edge: Edge, api_key: str = API_KEY) -> httpx.Client:
    """An HTTP client of an edge."""
    return httpx.Client(
        base_url=edge.url, headers={"authorization": f"Bearer {api_key}"}, timeout=30
    )


def origin_settings(**changes: Any) -> Settings:
    """Settings of the origin behind the edge."""
    return Settings(secret=SecretStr(SECRET), **changes)


@pytest.fixture(scope="module")
def stack(start_edge: StartEdge) -> Iterator[Stack]:
    """One edge and one origin for the tests that leave them as they are."""
    engine, store = ScriptedEngine(), MemoryStore()
    app = create_app(origin_settings(), engine=engine, store=store)
    with serving(app) as url:
        edge = start_edge(variables=variables(url))
        with client_of(edge) as client:
            yield Stack(edge=edge, engine=engine, store=store, client=client)
        edge.stop()


def test_second_request_is_answered_by_kv(stack: Stack) -> None:
    """A miss fills KV behind the answer; after that the origin is not asked."""
    miss = stack.ask("twice")
    assert status(miss) == ("encore-origin; fwd=miss; stored, encore-edge; fwd=miss; stored")
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
    other = {"authorization": f"Bearer {make_api_key(KEYS, 'other', bytes(15))}"}
    assert "fwd=miss" in status(stack.ask("mine", other))
    assert "fwd=miss" in status(stack.ask("mine", {"encore-scope": "user-7"}))


def test_no_store_leaves_nothing(stack: Stack) -> None:
    """Neither tier keeps the answer of a `no-store` request."""
    first = stack.ask("secret", {"cache-control": "no-store"})
    assert "stored" not in status(first)
    assert "fwd=miss" in status(stack.ask("secret"))


def test_no_cache_replaces_the_entry(stack: Stack) -> None:
    """A request for a new answer gets one, and so does everybody after it."""
    stack.ask("again")
    old = content(stack.hit("again"))
    new = stack.ask("again", {"cache-control": "no-cache"})
    assert content(new) != old
    until(lambda: stack.ask("again"), lambda response: content(response) == content(new))


def test_only_if_cached_without_an_entry_is_504(stack: Stack) -> None:
    """RFC 9111 section 5.2.1.7."""
    response = stack.ask("never asked", {"cache-control": "only-if-cached"})
    assert response.status_code == 504
    assert error_of(response)["code"] == "only_if_cached"


@pytest.mark.parametrize(
    ("body", "status_code", "param"),
    [
        ("", 400, None),
        ("{", 400, None),
        ("[]", 400, None),
        ('{"model":"a","model":"b"}', 400, None),
        ('{"messages":[{"role":"user","content":"x"}]}', 400, "model"),
        ('{"model":"scripted","messages":"x"}', 400, "messages"),
        ('{"model":"scripted","messages":[{"role":"user"}]}', 400, "messages[0].content"),
        ('{"model":"scripted","messages":[],"stream":1}', 400, "stream"),
        ('{"model":"nope","messages":[{"role":"user","content":"x"}]}', 404, "model"),
        ('{"model":"scripted","temperature":NaN}', 400, None),
        ('{"model":"scripted","user":"\\ud800"}', 400, None),
        ("[" * 100_000, 400, None),
    ],
)
def test_bad_body_is_a_4xx_that_names_the_field(
    stack: Stack, body: str, status_code: int, param: str | None
) -> None:
    """From the edge wherever the edge can tell."""
    response = stack.client.post(CHAT, content=body)
    assert response.status_code == status_code
    error = error_of(response)
    if param is not None:
        assert error["param"] == param


@pytest.mark.parametrize("key", ["x", "sk-encore-dev", "sk-encore-acme-aaaa-bbbb", "sk-proj-x"])
def test_unknown_key_is_401(stack: Stack, key: str) -> None:
    """The development key is unknown in production."""
    response = stack.ask("hello", {"authorization": f"Bearer {key}"})
    assert response.status_code == 401
    assert error_of(response)["code"] in ("missing_api_key", "invalid_api_key")


@pytest.mark.parametrize(
    ("method", "path", "status_code"),
    [
        ("GET", CHAT, 405),
        ("POST", "/v1/models", 405),
        ("PUT", "/v1/embeddings", 405),
        ("POST", "/v1/nothing", 404),
        ("GET", "/internal/entries/x", 404),
        ("GET", "/", 404),
    ],
)
def test_wrong_method_or_path(stack: Stack, method: str, path: str, status_code: int) -> None:
    """Named, in OpenAI's shape; the origin's internal routes do not exist here."""
    response = stack.client.request(method, path)
    assert response.status_code == status_code
    assert ("allow" in response.headers) == (status_code == 405)
    error_of(response)


def test_body_over_the_limits(stack: Stack) -> None:
    """Over 1 MiB it is forwarded uncached, over 32 MiB refused."""
    large = stack.ask("x" * (1 << 20))
    assert status(large).endswith("encore-edge; fwd=bypass; detail=too-large")
    assert content(large).startswith("Answer")
    huge = stack.client.post(CHAT, content=b"x" * ((32 << 20) + 1))
    assert huge.status_code == 413
    assert error_of(huge)["code"] == "request_too_large"


def test_models_are_the_origins(stack: Stack) -> None:
    """Proxied with the client's own key."""
    assert stack.client.get("/v1/models").json()["data"][0]["id"] == MODEL
    assert stack.client.get("/v1/models", headers={"authorization": "x"}).status_code == 401


def test_health_needs_no_key(stack: Stack) -> None:
    """For monitors."""
    assert httpx.get(f"{stack.edge.url}/healthz").json() == {"status": "ok"}


def test_internal_headers_of_a_client_go_nowhere(stack: Stack) -> None:
    """A client cannot speak as the edge."""
    response = stack.ask("forged", {"encore-edge-authorization": "Bearer forged"})
    assert response.status_code == 200


def test_origin_that_is_down_is_a_502(start_edge: StartEdge) -> None:
    """In OpenAI's shape, naming no address."""
    edge = start_edge(variables=variables("http://127.0.0.1:9"))
    with client_of(edge) as client:
        response = client.post(
            CHAT, json={"model": MODEL, "messages": [{"role": "user", "content": "x"}]}
        )
    assert response.status_code == 502
    assert error_of(response)["code"] == "origin_unreachable"
    edge.stop()


def test_missing_secret_is_named(start_edge: StartEdge) -> None:
    """Without its settings the edge answers nothing but what is missing."""
    edge = start_edge(variables={"ENCORE_ORIGIN_URL": "http://127.0.0.1:9"})
    response = httpx.post(edge.url + CHAT)
    assert response.status_code == 500
    assert "ENCORE_SECRET" in error_of(response)["message"]
    edge.stop()


def corrupt(persist: Path) -> None:
    """Overwrite the metadata of every KV entry on disk."""
    changed = 0
    for path in persist.rglob("*.sqlite"):
        with sqlite3.connect(path) as database:
            tables = {row[0] for row in database.execute("SELECT name FROM sqlite_master")}
            if "_mf_entries" in tables:
                changed += database.execute(
                    "UPDATE _mf_entries SET metadata = ?", (json.dumps({"v": 99}),)
                ).rowcount
        database.close()
    assert changed


def test_entries_survive_a_restart_and_corrupt_ones_are_replaced(start_edge: StartEdge) -> None:
    """Restarting keeps KV; an entry that cannot be decoded is a named miss, then a hit again."""
    engine, store = ScriptedEngine(), MemoryStore()
    with serving(create_app(origin_settings(), engine=engine, store=store)) as url:
        edge = start_edge(variables=variables(url))

        def stack_of(edge: Edge, client: httpx.Client) -> Stack:
            return Stack(edge=edge, engine=engine, store=store, client=client)

        with client_of(edge) as client:
            stack_of(edge, client).ask("kept")
            kept = stack_of(edge, client).hit("kept")
        edge.stop()
        edge = start_edge(variables=variables(url), persist=edge.persist)
        with client_of(edge) as client:
            response = stack_of(edge, client).ask("kept")
            assert status(response).startswith("encore-edge; hit")
            assert response.content == kept.content
        edge.stop()
        corrupt(edge.persist)
        edge = start_edge(variables=variables(url), persist=edge.persist)
        with client_of(edge) as client:
            assert "detail=kv-undecodable" in status(stack_of(edge, client).ask("kept"))
            stack_of(edge, client).hit("kept")
        edge.stop()


def test_stale_entries(start_edge: StartEdge) -> None:
    """Stale-while-revalidate has the origin refresh; stale-if-error answers for a failing one."""
    engine, store = ScriptedEngine(), MemoryStore()
    settings = origin_settings(ttl_s=1, stale_while_revalidate_s=600, stale_if_error_s=600)
    with serving(create_app(settings, engine=engine, store=store)) as url:
        edge = start_edge(variables=variables(url, ENCORE_ORIGIN_TIMEOUT_S="2"))
        with client_of(edge) as client:
            stack = Stack(edge=edge, engine=engine, store=store, client=client)
            first = content(stack.ask("stale"))
            stack.hit("stale")
            until(lambda: stack.ask("stale"), lambda response: content(response) != first)

            engine.failure = UpstreamError("broken")
            strict = {"cache-control": "max-age=0"}
            time.sleep(1.1)  # an age above 0
            failed = stack.ask("stale", strict)
            assert failed.status_code == 200
            assert "detail=stale-if-error" in status(failed)
            assert "fwd-status=502" in status(failed)
            refused = stack.ask("stale", {"cache-control": "max-age=0, stale-if-error=0"})
            assert refused.status_code == 502
            assert error_of(refused)["message"] == "broken"

            engine.failure = None
            engine.gate.clear()
            slow = stack.ask("too slow")
            assert slow.status_code == 504
            assert error_of(slow)["code"] == "origin_timeout"
            engine.open_gate()
        edge.stop()
