"""Paths that the edge knows nothing of: the official client → edge → origin → a fake upstream."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import Any

import httpx
import openai
import pytest
from starlette.types import Receive, Scope, Send

from origin.app import create_app
from origin.engine.upstreams import Upstreams
from origin.stores.memory import MemoryStore
from shared.wire import CONTROL_REVISION, EDGE_AUTHORIZATION, EDGE_STORE
from tests.edge.local_edge import ROOT, StartEdge
from tests.edge.stack import (
    API_KEY,
    OTHER_API_KEY,
    Front,
    Stack,
    answering,
    client_of,
    documents_at_edge,
    error_of,
    origin_settings,
    status,
    variables,
)
from tests.origin.engine.fake_upstream import FakeUpstream, Reply, fake_upstream
from tests.support.control import control_store
from tests.support.serving import serving

OWN_KEY = "acme-key-77aa"
MAX_BODY_BYTES = 2_000_000
BYPASS = "encore-origin; fwd=bypass, encore-edge; fwd=bypass"
RESPONSE = {
    "id": "resp_1",
    "object": "response",
    "created_at": 1,
    "status": "completed",
    "model": "m",
    "output": [
        {
            "id": "msg_1",
            "type": "message",
            "role": "assistant",
            "status": "completed",
            "content": [{"type": "output_text", "text": "Two rooms.", "annotations": []}],
        }
    ],
    "parallel_tool_calls": True,
    "tool_choice": "auto",
    "tools": [],
}
DELTA = {
    "type": "response.output_text.delta",
    "item_id": "msg_1",
    "output_index": 0,
    "content_index": 0,
    "delta": "Two ",
    "logprobs": [],
    "sequence_number": 1,
}


@dataclass(frozen=True, kw_only=True)
class Path:
    """An edge, what it reaches as its origin, and the upstream behind that."""

    client: httpx.Client
    front: Front
    upstream: FakeUpstream

    def openai(self) -> openai.OpenAI:
        """The official client, pointed at the edge."""
        return openai.OpenAI(
            base_url=f"{self.client.base_url}/v1", api_key=API_KEY, max_retries=0, timeout=30
        )


@pytest.fixture(scope="module")
def running(start_edge: StartEdge) -> Iterator[Path]:
    """One path for the module."""
    with ExitStack() as exits:
        upstream = exits.enter_context(fake_upstream())
        settings = origin_settings(max_body_bytes=MAX_BODY_BYTES, max_cached_body_bytes=10_000)
        entry = {"base_url": upstream.url, "tenant_api_keys": {"acme": OWN_KEY}, "timeout_s": 5}
        settings = settings.replace(upstreams=[entry])
        control = control_store(API_KEY, OTHER_API_KEY)
        origin = create_app(
            settings,
            engine=Upstreams.from_settings(settings),
            store=MemoryStore(),
            control_store=control,
        )
        front = Front(origin)
        url = exits.enter_context(serving(front, lifespan=True))
        limits = {"ENCORE_MAX_BODY_BYTES": str(MAX_BODY_BYTES)}
        limits["ENCORE_MAX_CACHED_BODY_BYTES"] = "10000"
        edge = start_edge(ROOT / "wrangler.toml", variables=variables(url, **limits))
        exits.callback(edge.stop)
        documents_at_edge(edge, control)
        client = exits.enter_context(client_of(edge))
        yield Path(client=client, front=front, upstream=upstream)


@pytest.fixture
def path(running: Path) -> Path:
    """The path as new."""
    running.upstream.reset()
    running.upstream.say(RESPONSE)
    return running


def test_official_client_gets_its_response(path: Path) -> None:
    """`client.responses.create`: asked of the upstream each time, and kept nowhere."""
    with path.openai() as client:
        for count in (1, 2):
            raw = client.responses.with_raw_response.create(model="m", input="How many rooms?")
            assert raw.headers["cache-status"] == BYPASS
            assert raw.headers["cache-control"] == "private, no-store"
            assert raw.parse().output_text == "Two rooms."
            assert len(path.upstream.seen) == count
    seen = path.upstream.seen[0]
    assert seen.body == {"model": "m", "input": "How many rooms?"}
    assert seen.headers["authorization"] == f"Bearer {OWN_KEY}"


def test_official_client_hears_a_stream_as_it_is_said(path: Path) -> None:
    """The first event is there while the upstream has not gone on; leaving ends it."""
    path.upstream.stream(DELTA, end="never")
    with path.openai() as client:
        stream = client.responses.create(model="m", input="Hi", stream=True)
        first = next(iter(stream))
        assert first.type == "response.output_text.delta"
        assert first.delta == "Two "
        stream.close()
    assert path.upstream.left.wait(10)


def test_official_client_sees_the_upstreams_refusal(path: Path) -> None:
    """As its own exception, with the upstream's words."""
    path.upstream.say({"error": {"message": "no such tool", "code": "c"}}, status=400)
    with path.openai() as client, pytest.raises(openai.BadRequestError) as caught:
        client.responses.create(model="m", input="Hi")
    assert caught.value.code == "c"
    assert "no such tool" in caught.value.message


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE"])
def test_request_arrives_as_it_was_sent(path: Path, method: str) -> None:
    """Method, path, query, media type, body; nothing else of the client's."""
    body = b"" if method == "GET" else b"--x\r\n\xff\x00\r\n--x--"
    headers = {
        "content-type": "multipart/form-data; boundary=x",
        "openai-beta": "assistants=v2",
        "cookie": "a=b",
        EDGE_AUTHORIZATION: "Bearer x",
    }
    target = "/v1/files/org%2Fname?limit=2&include%5B%5D=a%20b"
    response = path.client.request(method, target, content=body, headers=headers)
    assert response.status_code == 200, response.text
    (seen,) = path.upstream.seen
    assert (seen.method, seen.target, seen.raw) == (method, target, body)
    assert seen.headers["content-type"] == "multipart/form-data; boundary=x"
    assert seen.headers["openai-beta"] == "assistants=v2"
    assert not {"cookie", EDGE_AUTHORIZATION} & set(seen.headers)


@pytest.mark.parametrize("content", [b"{}", iter([b"{", b"}"])], ids=["announced", "in chunks"])
def test_body_of_a_get_stays_behind(path: Path, content: Any) -> None:
    """It means nothing (RFC 9110 section 9.3.1), and the platform sends none."""
    assert path.client.request("GET", "/v1/files", content=content).status_code == 200
    (seen,) = path.upstream.seen
    assert (seen.method, seen.raw) == ("GET", b"")


def test_edges_word_does_not_go_along(path: Path) -> None:
    """Where a client names the path, the origin hears of the client alone."""
    heads: list[dict[bytes, bytes]] = []
    origin = path.front._origin

    async def noting(scope: Scope, receive: Receive, send: Send) -> None:
        heads.append(dict(scope["headers"]))
        await origin(scope, receive, send)

    path.front.instead = noting
    try:
        assert path.client.post("/v1/responses", json={}).status_code == 200
    finally:
        path.front.instead = None
    (headers,) = heads
    assert EDGE_AUTHORIZATION.encode() not in headers
    assert headers[b"authorization"] == f"Bearer {API_KEY}".encode()


def test_binary_answer_is_passed_on(path: Path) -> None:
    """Of any media type, with the listed headers and no others."""
    kept = {"content-type": "audio/mpeg", "x-request-id": "req_1"}
    dropped = {
        "set-cookie": "a=b",
        "keep-alive": "timeout=5",
        "openai-organization": "org-ours",
        EDGE_STORE: "1",
        CONTROL_REVISION: "5",
    }
    path.upstream.reply = Reply(headers=kept | dropped, pieces=[b"\xff\xfb", b"\x00" * 100_000])
    response = path.client.post("/v1/audio/speech", json={})
    assert response.content == b"\xff\xfb" + b"\x00" * 100_000
    assert {name: response.headers[name] for name in kept} == kept
    assert not set(dropped) & set(response.headers)


def test_answer_without_a_body_is_passed_on(path: Path) -> None:
    """A 204 has none, and may have none."""
    path.upstream.reply = Reply(status=204, headers={})
    response = path.client.delete("/v1/files/file-1")
    assert (response.status_code, response.content, status(response)) == (204, b"", BYPASS)


@pytest.mark.parametrize("announced", [True, False])
@pytest.mark.parametrize("size_bytes", [100_000, MAX_BODY_BYTES + 1])
def test_large_body_goes_up_to_the_limit(path: Path, size_bytes: int, *, announced: bool) -> None:
    """Whether it is announced or found out by the origin."""
    body = b"x" * size_bytes

    def ask() -> httpx.Response | None:
        content = body if announced else iter([body[:60_000], body[60_000:]])
        # workerd may hang up on who is refused while the body is still coming.
        with suppress(httpx.RemoteProtocolError, httpx.WriteError):
            return path.client.post("/v1/audio/transcriptions", content=content)
        return None

    response = next(filter(None, (ask() for _ in range(20))))
    if size_bytes > MAX_BODY_BYTES:
        assert (response.status_code, error_of(response)["code"]) == (413, "request_too_large")
        assert path.upstream.seen == []
    else:
        assert response.status_code == 200
        assert path.upstream.seen[0].raw == body


def test_only_the_tenants_own_account_is_open(path: Path) -> None:
    """The origin's refusals come through."""
    headers = {"authorization": f"Bearer {OTHER_API_KEY}"}
    refused = path.client.get("/v1/files", headers=headers)
    assert (refused.status_code, error_of(refused)["code"]) == (403, "upstream_key_required")
    headers = {"authorization": f"Bearer {API_KEY[:-1]}x"}
    assert path.client.get("/v1/files", headers=headers).status_code == 401
    assert path.upstream.seen == []


def test_refusal_comes_before_the_body_has_gone(path: Path) -> None:
    """The origin need not read what it refuses."""
    headers = {"authorization": f"Bearer {OTHER_API_KEY}"}
    for _ in range(5):
        body = b"x" * MAX_BODY_BYTES
        refused = path.client.post("/v1/files", content=body, headers=headers)
        assert (refused.status_code, error_of(refused)["code"]) == (403, "upstream_key_required")


@pytest.mark.parametrize(
    "instead",
    [
        answering(200, "application/json", b"{}"),
        answering(200, "text/html", b"<html>"),
        answering(302, "text/html", location="http://elsewhere/"),
        answering(503, "text/html", b"<html>"),
        answering(101, "application/json"),
    ],
    ids=["another API", "a page", "a redirect", "a balancer", "a switch"],
)
def test_what_is_no_origins_answer_is_a_502(path: Path, instead: Any) -> None:
    """Whatever else stands at its address is not passed on."""
    path.front.instead = instead
    try:
        refused = path.client.post("/v1/responses", json={})
    finally:
        path.front.instead = None
    assert refused.status_code == 502
    assert error_of(refused)["code"] in ("origin_unreadable", "origin_unreachable")


def test_silent_origin_is_given_up(stack: Stack) -> None:
    """Leaving it hangs up there."""
    left = threading.Event()
    stack.front.instead = answering(None, None, left=left)
    try:
        with pytest.raises(httpx.ReadTimeout):
            stack.client.post("/v1/responses", json={}, timeout=0.5)
    finally:
        stack.front.instead = None


@pytest.mark.parametrize("target", ["/v1/responses", "/v1/files?limit=2", "/v1/never/heard/of"])
def test_without_an_upstream_it_is_a_404_by_name(stack: Stack, target: str) -> None:
    """The origin decides; the edge asks it each time."""
    before = len(stack.front.asked)
    refused = stack.client.post(target, content=json.dumps({}))
    path = target.partition("?")[0]
    assert (refused.status_code, error_of(refused)["code"]) == (404, "unknown_url")
    assert error_of(refused)["message"] == f"There is no POST {path} here."
    assert f"POST {path}" in stack.front.asked[before:]
