"""Heads that are no HTTP, too large or too slow, and clients that do not read, on real sockets."""

from __future__ import annotations

import json
import re
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

import httpx
import pytest
from pydantic import SecretStr
from starlette.types import ASGIApp, Receive, Scope, Send

from origin.app import create_app
from origin.http_protocol import MAX_HEAD_BYTES, Protocol
from origin.settings import Settings
from origin.stores.memory import MemoryStore
from shared.keys import key_ring, make_api_key
from tests.support.control import control_store
from tests.support.engines import MODEL, ScriptedEngine
from tests.support.serving import serving

SECRET = "a secret of the tests, long enough"
API_KEY = make_api_key(key_ring(SECRET), "acme", bytes(15))
OTHER_API_KEY = make_api_key(key_ring(SECRET), "other", bytes(15))
BODY = json.dumps({"model": MODEL, "messages": [{"role": "user", "content": "Hello"}]}).encode()
SIZE = b"content-length: %d\r\n" % len(BODY)
START = (
    b"POST /v1/chat/completions HTTP/1.1\r\nhost: origin\r\n"
    b"authorization: Bearer %b\r\n" % API_KEY.encode()
)
HEALTH = b"GET /healthz HTTP/1.1\r\nhost: origin\r\n"
SMUGGLED = b"GET /v1/models HTTP/1.1\r\nhost: origin\r\n\r\n"


def application() -> ASGIApp:
    """The origin's, in memory."""
    return create_app(
        Settings(secret=SecretStr(SECRET)),
        engine=ScriptedEngine(),
        store=MemoryStore(),
        control_store=control_store(API_KEY, OTHER_API_KEY),
    )


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """Where it is served."""
    with serving(application(), http=Protocol) as served:
        yield served


@contextmanager
def connection(url: str) -> Iterator[socket.socket]:
    """A connection of its own."""
    host, port = url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=30) as made:
        yield made


def everything(made: socket.socket) -> bytes:
    """All that is said until the other side closes, or says nothing for a while."""
    said = b""
    with_patience = 30.0
    while True:
        made.settimeout(with_patience)
        try:
            piece = made.recv(1 << 16)
        except (TimeoutError, ConnectionResetError):
            return said
        if not piece:
            return said
        said += piece
        with_patience = 0.3


def answers(said: bytes) -> list[int]:
    """The statuses in what was said."""
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", said)]


def check_shape(said: bytes) -> None:
    """Whether the last answer is an error of OpenAI's shape."""
    error = json.loads(said.rpartition(b"\r\n\r\n")[2])["error"]
    assert set(error) == {"message", "type", "param", "code"}


REFUSED: dict[str, bytes] = {
    "no HTTP": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    "no method": b"FETCH_ / HTTP/1.1\r\n\r\n",
    "HTTP/2 without TLS": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "a space before the colon": HEALTH + b"x-a : b\r\n\r\n",
    "a NUL in a value": HEALTH + b"x-a: b\0c\r\n\r\n",
    "a bare CR in a value": HEALTH + b"x-a: b\rc: d\r\n\r\n",
    "a folded line": START + SIZE + b"x-a: b\r\n\x0bencore-scope: x\r\n\r\n" + BODY,
    "two lengths": START + SIZE + b"content-length: 0\r\n\r\n" + BODY + SMUGGLED,
    "two lengths in one": START + b"content-length: 0, 5\r\n\r\n" + BODY + SMUGGLED,
    "a length and chunks": START + SIZE + b"transfer-encoding: chunked\r\n\r\n0\r\n\r\n" + SMUGGLED,
    "chunks and a length": START
    + b"transfer-encoding: chunked\r\n"
    + SIZE
    + b"\r\n0\r\n\r\n"
    + SMUGGLED,
    "chunks that are not last": START + b"transfer-encoding: chunked, identity\r\n\r\n" + BODY,
    "a negative length": START + b"content-length: -1\r\n\r\n" + SMUGGLED,
    "a signed length": START + b"content-length: +5\r\n\r\n" + BODY + SMUGGLED,
    "a length of letters": START + b"content-length: 0x10\r\n\r\n" + BODY,
    "a length beyond 64 bits": START + b"content-length: 18446744073709551617\r\n\r\n" + BODY,
    "a coding that is none": START + b"transfer-encoding: gzip\r\n\r\n" + BODY,
    "a chunk of letters": START + b"transfer-encoding: chunked\r\n\r\nxyz\r\n" + BODY,
    "a path that is none": b"GET \\..\\ HTTP/1.1\r\nhost: a\r\n\r\n",
    "a path beyond ASCII": "GET /v1/modèles HTTP/1.1\r\nhost: a\r\n\r\n".encode(),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_could_be_read_in_two_ways_is_refused(url: str, case: str) -> None:
    """In OpenAI's shape; nothing behind it is taken for another request."""
    with connection(url) as made:
        made.sendall(REFUSED[case])
        said = everything(made)
    assert len(answers(said)) == 1, said
    assert answers(said)[0] in (400, 404, 413), said
    check_shape(said)


READ: dict[str, tuple[bytes, int]] = {
    "zeros before a length": (
        START + b"content-length: " + b"0" * 5000 + b"%d\r\n\r\n" % len(BODY) + BODY,
        200,
    ),
    "chunks": (
        START
        + b"transfer-encoding: chunked\r\nconnection: close\r\n\r\n%x;a=b\r\n" % len(BODY)
        + BODY
        + b"\r\n0\r\nencore-scope: trailer\r\n\r\n",
        200,
    ),
    "a huge chunk": (
        START + b"transfer-encoding: chunked\r\n\r\n7fffffffffffffff\r\n" + b"x" * (33 << 20),
        413,
    ),
    "a length that is too large": (START + b"content-length: 99999999999\r\n\r\n", 413),
    "two keys": (
        START
        + b"authorization: Bearer "
        + OTHER_API_KEY.encode()
        + b"\r\n"
        + SIZE
        + b"\r\n"
        + BODY,
        401,
    ),
    "gzip that nobody opens": (START + b"content-encoding: gzip\r\n" + SIZE + b"\r\n" + BODY, 200),
    "WebSocket": (HEALTH + b"connection: upgrade\r\nupgrade: websocket\r\n\r\n", 200),
    "no tunnel": (b"CONNECT origin:443 HTTP/1.1\r\nhost: origin:443\r\n\r\n" + SMUGGLED, 400),
    "a value in Latin-1": (START + b"encore-scope: \xff\r\n" + SIZE + b"\r\n" + BODY, 400),
    "a double slash": (START.replace(b"/v1/", b"/v1//") + SIZE + b"\r\n" + BODY, 404),
    "a slash at the end": (START.replace(b"ions ", b"ions/ ") + SIZE + b"\r\n" + BODY, 404),
    "a dotted path": (START.replace(b"/v1/", b"/v1/./") + SIZE + b"\r\n" + BODY, 404),
    "an encoded letter": (START.replace(b"/v1/", b"/v%31/") + SIZE + b"\r\n" + BODY, 200),
    "a name in capitals": (
        START.replace(b"authorization", b"AUTHORIZATION") + SIZE + b"\r\n" + BODY,
        200,
    ),
}


@pytest.mark.parametrize("case", READ)
def test_what_is_odd_is_one_request(url: str, case: str) -> None:
    """Answered once, by what it says."""
    sent, status = READ[case]
    with connection(url) as made:
        with suppress(BrokenPipeError, ConnectionResetError):  # refused before all of it had come
            made.sendall(sent)
        said = everything(made)
    assert answers(said) == [status], said
    if status != 200:
        check_shape(said.partition(b"HTTP/1.1 ")[2])


OFFER = b"connection: Upgrade, HTTP2-Settings\r\nupgrade: h2c\r\nhttp2-settings: AAEAAEAAAAI\r\n"
"""What Java's `HttpClient` says in each request over plain HTTP."""
FRAMED = {name: sent for name, (sent, _) in READ.items()} | REFUSED


@pytest.mark.parametrize("case", [case for case, sent in FRAMED.items() if sent.startswith(START)])
def test_an_offer_of_another_protocol_changes_nothing(url: str, case: str) -> None:
    """The request is read, or refused, as it is without one, and answered once."""
    sent, said = FRAMED[case], []
    for each in (sent, START + OFFER + sent.removeprefix(START)):
        with connection(url) as made:
            with suppress(BrokenPipeError, ConnectionResetError):
                made.sendall(each)
            said.append(answers(everything(made)))
    assert said[0] == said[1] != []


@pytest.mark.parametrize("piece_bytes", [1, 7, 1 << 20])
@pytest.mark.parametrize(
    "framed",
    [
        SIZE + b"\r\n" + BODY,
        b"transfer-encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY),
    ],
    ids=["length", "chunks"],
)
def test_requests_follow_each_other_behind_offers(
    url: str, framed: bytes, piece_bytes: int
) -> None:
    """On one connection, however it is cut, with a body or without."""
    sent = (START + OFFER + framed + HEALTH + OFFER + b"\r\n") * 2 + HEALTH + b"\r\n"
    with connection(url) as made:
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for start in range(0, len(sent), piece_bytes):
            made.sendall(sent[start : start + piece_bytes])
        said = everything(made)
    assert answers(said) == [200] * 5
    assert said.count(b'"object":"chat.completion"') == 2


def test_a_body_behind_an_offer_is_no_request(url: str) -> None:
    """Though httptools would take it for one: that is how requests are smuggled past proxies."""
    with connection(url) as made:
        made.sendall(START + OFFER + b"content-length: %d\r\n\r\n" % len(SMUGGLED))
        time.sleep(0.05)
        made.sendall(SMUGGLED)
        assert answers(everything(made)) == [400]
        made.sendall(HEALTH + b"\r\n")
        assert answers(everything(made)) == [200]


def test_a_head_has_a_largest_size(url: str) -> None:
    """However many names are in it, and however it is cut."""
    with connection(url) as made:
        made.sendall(HEALTH)
        try:
            for number in range(1 << 16):
                made.sendall(b"x-%d: %b\r\n" % (number, b"a" * 1000))
        except (BrokenPipeError, ConnectionResetError):
            assert number * 1000 < MAX_HEAD_BYTES + (4 << 20)  # what the kernel buffers
        else:
            pytest.fail("all of it was taken")
    assert httpx.get(url + "/healthz").status_code == 200


@pytest.mark.parametrize("sent", [b"", HEALTH, HEALTH + b"\r\n" + b"GET /"], ids=["", "a", "next"])
def test_a_head_has_a_longest_time(monkeypatch: pytest.MonkeyPatch, sent: bytes) -> None:
    """A connection that begins no request is closed; one that does not end it is told."""
    monkeypatch.setattr("origin.http_protocol.HEAD_S", 0.2)
    with serving(application(), http=Protocol) as url:
        began_s = time.monotonic()  # before the connection, with which the waiting begins
        with connection(url) as made:
            made.sendall(sent)
            said = b"".join(iter(lambda: made.recv(1 << 16), b""))
        assert time.monotonic() - began_s > 0.1
    assert answers(said) == {0: [], len(HEALTH): [408]}.get(len(sent), [200, 408])
    if sent:
        check_shape(said)


@pytest.mark.parametrize(
    "pieces",
    [
        [HEALTH + b"\r\n"],
        [HEALTH + b"\r\n", b"\r\n"],
        [
            b"POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\n",
            b"x",
            b"yz",
        ],
        [HEALTH + OFFER + b"\r\n", b"\r\n"],
    ],
    ids=["answered", "an empty line", "answered before its body", "an offer"],
)
def test_an_idle_connection_has_a_longest_time(pieces: list[bytes]) -> None:
    """Whatever came last on it."""
    with serving(application(), http=Protocol, keep_alive_s=1) as url, connection(url) as made:
        for piece in pieces:
            made.sendall(piece)
            time.sleep(0.1)
        made.settimeout(10)
        said = b"".join(iter(lambda: made.recv(1 << 16), b""))
    assert len(answers(said)) == 1


def test_a_body_before_a_head_is_none_of_it(url: str) -> None:
    """A piece may have the end of a large body and the beginning of the next head."""
    large = json.dumps({"model": MODEL, "messages": [], "x": "a" * (MAX_HEAD_BYTES + 1)}).encode()
    with connection(url) as made:
        made.sendall(START + b"content-length: %d\r\n\r\n" % len(large) + large + b"GET /")
        time.sleep(0.1)
        made.sendall(HEALTH.removeprefix(b"GET /") + b"\r\n")
        assert answers(everything(made)) == [400, 200]


def test_a_body_that_nobody_waits_for_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who was refused at once, and goes on sending without end, is cut off."""
    monkeypatch.setattr("origin.http_protocol.HEAD_S", 0.2)
    with serving(application(), http=Protocol) as url, connection(url) as made:
        made.sendall(
            b"POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n"
        )
        with suppress(BrokenPipeError, ConnectionResetError):
            for _ in range(1000):
                made.sendall(b"1\r\nx\r\n")
                time.sleep(0.01)
            pytest.fail("all of it was taken")


async def long_answer(scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG001
    """An application that has more to say than sockets hold."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    for _ in range(3000):
        await send({"type": "http.response.body", "body": b"x" * 10_000, "more_body": True})
    await send({"type": "http.response.body", "body": b"the end"})


def test_a_client_that_does_not_read_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that reads slowly, but reads, is not."""
    monkeypatch.setattr("origin.http_protocol.READ_S", 0.5)
    with ExitStack() as stack:
        url = stack.enter_context(serving(long_answer, http=Protocol))
        idle, slow = (stack.enter_context(connection(url)) for _ in range(2))
        for made in (idle, slow):
            made.sendall(HEALTH + b"connection: close\r\n\r\n")
        read = b""
        ends_s = time.monotonic() + 2
        while piece := slow.recv(1 << 18):
            read = piece if len(piece) > 100 else read + piece
            time.sleep(0.02 if time.monotonic() < ends_s else 0)
        assert b"the end" in read
        left = b""
        with suppress(ConnectionResetError):
            while piece := idle.recv(1 << 20):
                left = piece
        assert b"the end" not in left


def test_many_idle_connections_keep_nobody_out(url: str) -> None:
    """Nor half-sent requests."""
    with ExitStack() as stack:
        for number in range(300):
            made = stack.enter_context(connection(url))
            made.sendall(START[: number % len(START)])
        for _ in range(20):
            response = httpx.post(
                url + "/v1/chat/completions",
                content=BODY,
                headers={"authorization": f"Bearer {API_KEY}"},
            )
            assert response.status_code == 200
