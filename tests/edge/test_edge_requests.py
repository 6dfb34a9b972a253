"""Which requests the Worker accepts, and what it says of the others."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from shared.keys import DEVELOPMENT_API_KEY
from tests.edge.local_edge import StartEdge
from tests.edge.stack import (
    API_KEY,
    CHAT,
    Stack,
    content,
    error_of,
    origin_settings,
    stacked,
    status,
)
from tests.support.engines import MODEL


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


@pytest.mark.parametrize("fault", [{"user": 5}, {"metadata": []}, {"store": "yes"}])
def test_a_field_outside_the_key_is_checked_on_a_hit(stack: Stack, fault: dict[str, Any]) -> None:
    """What the key says nothing of is as wrong on a hit as on a miss."""
    text = f"unkeyed {fault}"
    stack.ask(text)
    stack.hit(text, user="me", metadata={"a": "b"}, store=True)
    refused = stack.ask(text, **fault)
    assert (refused.status_code, error_of(refused)["param"]) == (400, next(iter(fault)))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("Encore-TTL", "soon"),
        ("Encore-Bucket", "-1"),
        ("Encore-Tags", "not a tag"),
        ("Encore-Semantic", "2"),
        ("Encore-Scope", ""),
    ],
)
def test_malformed_control_is_named(stack: Stack, name: str, value: str) -> None:
    """What it meant to keep apart or to forbid cannot be guessed."""
    refused = stack.ask("controls", {name: value})
    assert (refused.status_code, error_of(refused)["param"]) == (400, name)


def test_missing_authorization_is_401(stack: Stack) -> None:
    """The answer says what to send."""
    response = httpx.post(stack.edge.url + CHAT, json={})
    assert response.status_code == 401
    assert error_of(response)["code"] == "missing_api_key"
    assert response.headers["www-authenticate"] == 'Bearer realm="encore"'


def test_development_key_is_for_loopback_alone(start_edge: StartEdge) -> None:
    """In development mode it opens the edge of this machine, under this machine's name."""
    settings = origin_settings(mode="development")
    with stacked(start_edge, settings=settings, ENCORE_MODE="development") as stack:
        key = {"authorization": f"Bearer {DEVELOPMENT_API_KEY}"}
        assert stack.ask("develop", key).status_code == 200
        refused = stack.ask("develop", key | {"host": "edge.example.com"})
    assert refused.status_code == 401
    assert error_of(refused)["code"] == "invalid_api_key"


def _pieces(body: bytes) -> Iterator[bytes]:
    for start in range(0, len(body), 1 << 16):
        yield body[start : start + (1 << 16)]


def test_chunked_body_over_the_limits(stack: Stack) -> None:
    """Without a Content-Length the body itself is measured."""
    request = {"model": MODEL, "messages": [{"role": "user", "content": "y" * (1 << 20)}]}
    large = stack.client.post(CHAT, content=_pieces(json.dumps(request).encode()))
    assert status(large).endswith("encore-edge; fwd=bypass; detail=too-large")
    assert content(large).startswith("Answer")
    huge = stack.client.post(CHAT, content=_pieces(b"x" * ((32 << 20) + 1)))
    assert huge.status_code == 413
    assert error_of(huge)["code"] == "request_too_large"


@pytest.mark.parametrize("path", [CHAT, "/v1/responses"])
def test_large_chunked_body_is_handed_on_while_it_comes(stack: Stack, path: str) -> None:
    """The edge has no room for many of them; what the origin gets is whole."""
    request = {"model": MODEL, "messages": [{"role": "user", "content": "z" * (3 << 20)}]}
    body = json.dumps(request).encode()
    asked = stack.front.was_asked(f"POST {path}")

    def pieces() -> Iterator[bytes]:
        yield from _pieces(body[: 2 << 20])
        wait_for(lambda: stack.front.was_asked(f"POST {path}") > asked)
        yield from _pieces(body[2 << 20 :])

    response = stack.client.post(path, content=pieces())
    if path == CHAT:
        assert content(response).startswith("Answer")
    else:
        assert error_of(response)["code"] == "unknown_url"  # there is no upstream


def test_large_chunked_body_that_breaks_off_is_let_go(stack: Stack) -> None:
    """The origin hears of it, and the edge goes on."""
    url = httpx.URL(stack.edge.url)
    head = f"POST {CHAT} HTTP/1.1\r\nhost: {url.netloc.decode()}\r\ntransfer-encoding: chunked\r\n"
    piece = b"x" * (2 << 20)
    asked = f"POST {CHAT}"
    with socket.create_connection((url.host, url.port or 80)) as connection:
        connection.sendall(f"{head}authorization: Bearer {API_KEY}\r\n\r\n".encode())
        connection.sendall(b"%x\r\n%s\r\n" % (len(piece), piece))
        wait_for(lambda: asked in stack.front.under_way)
    wait_for(lambda: asked not in stack.front.under_way)
    assert stack.ask("after it broke off").status_code == 200
    assert "Traceback" not in stack.edge.log()


def wait_for(is_so: Callable[[], bool]) -> None:
    """Return when it is so."""
    deadline = time.monotonic() + 10
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_large_body_is_never_in_the_cache(stack: Stack) -> None:
    """`only-if-cached` has its answer without anyone being asked."""
    response = stack.ask("x" * (1 << 20), {"cache-control": "only-if-cached"})
    assert (response.status_code, error_of(response)["code"]) == (504, "only_if_cached")


@pytest.mark.parametrize("path", ["/healthz", "/v1/models", f"/v1/models/{MODEL}"])
def test_reading_routes(stack: Stack, path: str) -> None:
    """GET and HEAD; no other cache keeps the answer."""
    answer = stack.client.get(path)
    assert (answer.status_code, answer.headers["cache-control"]) == (200, "private, no-store")
    head = stack.client.head(path)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-type"] == answer.headers["content-type"]
    assert stack.client.put(path).headers["allow"] == "GET, HEAD"
