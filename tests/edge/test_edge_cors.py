"""Cross-origin requests of browser pages: nothing by default, and what a page gets where it may."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest
from starlette.types import Receive, Scope, Send

from tests.edge.local_edge import StartEdge
from tests.edge.stack import CHAT, Stack, answering, content, error_of, is_hit, stacked, until
from tests.support.engines import MODEL

APP = "https://app.example.com"
PORT = "http://localhost:5173"
BODY = {"model": MODEL, "messages": [{"role": "user", "content": "cross"}]}
PREFLIGHT = {
    "access-control-request-method": "POST",
    "access-control-request-headers": "authorization,content-type,x-stainless-lang",
}
EXPOSED = {"age", "cache-status", "encore-key", "etag", "retry-after", "server-timing"}
EXPOSED_OF_UPSTREAMS = {"openai-processing-ms", "x-request-id"}
STRANGERS = (
    "https://app.example.com.evil.example",
    "https://evil.example/?https://app.example.com",
    "https://APP.example.com",
    "http://app.example.com",
    "https://app.example.com:444",
    "https://app.example.com/",
    "https://app.example.com, https://evil.example",
    "https://sub.app.example.com",
    "null",
    "*",
)


@pytest.fixture(scope="module")
def shared_stack(start_edge: StartEdge) -> Iterator[Stack]:
    """A stack whose answers two origins may read."""
    with stacked(start_edge, ENCORE_CORS_ORIGINS=f"{APP}, {PORT}") as stack:
        yield stack


@pytest.fixture(scope="module")
def open_stack(start_edge: StartEdge) -> Iterator[Stack]:
    """A stack whose answers any origin may read."""
    with stacked(start_edge, ENCORE_CORS_ORIGINS="*") as stack:
        yield stack


def cors_of(response: httpx.Response) -> dict[str, str]:
    """What of an answer concerns other origins."""
    return {
        name: value
        for name, value in response.headers.items()
        if name.startswith("access-control-") or (name == "vary" and "origin" in value.lower())
    }


def check_readable(response: httpx.Response, origin: str) -> None:
    """Whether a page of `origin` may read this answer and the headers that are meant for it."""
    assert response.headers["access-control-allow-origin"] == origin
    exposed = response.headers["access-control-expose-headers"].split(",")
    assert {name.strip() for name in exposed} >= EXPOSED | EXPOSED_OF_UPSTREAMS
    vary = {name.strip().lower() for name in response.headers.get_list("vary", split_commas=True)}
    assert "origin" in vary
    # The key is all there is: no cookie is asked for, none is set.
    assert "access-control-allow-credentials" not in response.headers


def test_off_by_default(stack: Stack) -> None:
    """No such header on any answer, and a preflight is a method as any other."""
    for path, method in ((CHAT, "POST"), ("/v1/models", "GET"), ("/healthz", "GET"), ("/", "GET")):
        json = BODY if method == "POST" else None
        response = stack.client.request(method, path, json=json, headers={"origin": APP})
        assert cors_of(response) == {}
        preflight = stack.client.options(path, headers={"origin": APP} | PREFLIGHT)
        assert preflight.status_code == (404 if path == "/" else 405)
        assert cors_of(preflight) == {}
        error_of(preflight)


@pytest.mark.parametrize("origin", [APP, PORT])
@pytest.mark.parametrize("path", [CHAT, "/v1/embeddings", "/v1/models", "/cache/purge"])
def test_preflight_of_a_page_is_answered(shared_stack: Stack, origin: str, path: str) -> None:
    """Without a key, for it has none; its headers are allowed; the origin is not asked."""
    asked = len(shared_stack.front.asked)
    response = httpx.options(shared_stack.edge.url + path, headers={"origin": origin} | PREFLIGHT)
    assert (response.status_code, response.content) == (204, b"")
    assert response.headers["access-control-allow-origin"] == origin
    assert "POST" in response.headers["access-control-allow-methods"]
    allowed = response.headers["access-control-allow-headers"].split(",")
    assert allowed == PREFLIGHT["access-control-request-headers"].split(",")
    assert int(response.headers["access-control-max-age"]) > 0
    assert "origin" in response.headers["vary"]
    assert len(response.headers.get_list("access-control-allow-origin")) == 1
    assert len(shared_stack.front.asked) == asked


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
def test_page_reads_misses_and_hits(shared_stack: Stack, stream: bool) -> None:
    """Headers and all; what stands in KV is the same for everybody."""
    headers = {"origin": APP}
    text = f"read {stream}"
    check_readable(shared_stack.ask(text, headers, stream=stream), APP)
    shared_stack.hit(text)
    hit = shared_stack.ask(text, headers, stream=stream)
    assert is_hit(hit)
    check_readable(hit, APP)
    check_readable(shared_stack.ask(text, {"origin": PORT}, stream=stream), PORT)
    check_readable(shared_stack.ask(text, headers | {"accept-encoding": "identity"}), APP)
    assert cors_of(shared_stack.ask(text, stream=stream)) == {}


def test_page_reads_errors(shared_stack: Stack) -> None:
    """Of the edge and of the origin: a page that cannot read them can tell nobody what is wrong."""
    page = {"origin": APP}
    client = shared_stack.client
    wrong_key = page | {"authorization": "Bearer sk-none"}
    errors = [
        (401, client.post(CHAT, json=BODY, headers=wrong_key)),
        (400, client.post(CHAT, content=b"{", headers=page)),
        (404, client.post(CHAT, json=BODY | {"model": "none"}, headers=page)),
        (404, client.get("/nothing", headers=page)),
        (405, client.get(CHAT, headers=page)),
        (403, client.post("/cache/purge", json={"everything": True}, headers=page)),
        (504, shared_stack.ask("none", page | {"cache-control": "only-if-cached"})),
    ]
    shared_stack.front.instead = answering(502, "text/html", b"")
    try:
        errors.append((502, shared_stack.ask("failing", page)))
    finally:
        shared_stack.front.instead = None
    for code, response in errors:
        assert response.status_code == code
        error_of(response)
        check_readable(response, APP)


def test_page_reads_other_routes(shared_stack: Stack) -> None:
    """The models and its statistics."""
    for path in ("/v1/models", "/cache/stats", "/healthz"):
        response = shared_stack.client.get(path, headers={"origin": APP})
        assert response.status_code == 200
        check_readable(response, APP)


@pytest.mark.parametrize("origin", STRANGERS)
def test_other_pages_get_nothing(shared_stack: Stack, origin: str) -> None:
    """Neither by preflight nor after it; the answer itself is as without a page."""
    response = shared_stack.ask("strangers", {"origin": origin})
    assert content(response).startswith("Answer")
    assert not {name for name in cors_of(response) if name.startswith("access-control")}
    preflight = shared_stack.client.options(CHAT, headers={"origin": origin} | PREFLIGHT)
    assert preflight.status_code == 204
    assert not {name for name in cors_of(preflight) if name.startswith("access-control")}
    refused = shared_stack.client.post(CHAT, content=b"{", headers={"origin": origin})
    assert not {name for name in cors_of(refused) if name.startswith("access-control")}


def test_any_page_where_the_operator_says_so(open_stack: Stack) -> None:
    """The wildcard goes out as it is: no origin is reflected, and a key still has to be shown."""
    for origin in (APP, *STRANGERS):
        response = open_stack.ask("anybody", {"origin": origin})
        check_readable(response, "*")
        preflight = httpx.options(
            open_stack.edge.url + CHAT, headers={"origin": origin} | PREFLIGHT
        )
        assert preflight.headers["access-control-allow-origin"] == "*"
    without_key = httpx.post(open_stack.edge.url + CHAT, json=BODY, headers={"origin": APP})
    assert without_key.status_code == 401
    check_readable(without_key, "*")
    until(lambda: open_stack.ask("anybody", {"origin": APP}), is_hit)


def test_origin_is_never_told_of_the_page(shared_stack: Stack) -> None:
    """What a page is decides nothing behind the edge."""
    seen: list[set[bytes]] = []

    async def noting(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append({name for name, _ in scope["headers"]})
        await shared_stack.front._origin(scope, receive, send)

    shared_stack.front.instead = noting
    try:
        shared_stack.ask("told", {"origin": APP, "referer": APP, "cookie": "a=b"})
    finally:
        shared_stack.front.instead = None
    (names,) = seen
    assert not names & {b"origin", b"referer", b"cookie"}
