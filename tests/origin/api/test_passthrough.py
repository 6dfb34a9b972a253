"""Paths that are passed through, by a real origin to a real upstream on loopback."""

from __future__ import annotations

import gzip
import http.client
import json
import logging
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

import httpx
import openai
import pytest

from origin.app import create_app
from origin.engine.breaker import FAILURES
from origin.engine.turns import Turns
from origin.engine.upstreams import Upstreams
from origin.settings import Settings
from origin.stores.memory import MemoryStore
from shared.keys import edge_bearer, key_ring, make_api_key
from shared.wire import EDGE_AUTHORIZATION
from tests.origin.engine.fake_upstream import FakeUpstream, Reply, fake_upstream
from tests.support.control import control_store
from tests.support.engines import chat_answer
from tests.support.serving import serving

SECRET = "a secret of the tests, long enough"
RING = key_ring(SECRET)
API_KEY = make_api_key(RING, "acme", bytes(15))
OTHER_API_KEY = make_api_key(RING, "other", bytes(15))
MINE = {"authorization": f"Bearer {API_KEY}"}
OTHER = {"authorization": f"Bearer {OTHER_API_KEY}"}
SHARED_KEY, OWN_KEY = "upstream-key-3f9c", "acme-key-77aa"
MAX_BODY_BYTES = 100_000
RESPONSE = {"id": "resp_1", "object": "response", "output": []}
JSON = {"content-type": "application/json"}
BYPASS = "encore-origin; fwd=bypass"


@pytest.fixture(scope="module")
def servers() -> Iterator[tuple[FakeUpstream, FakeUpstream]]:
    """Two upstreams for the module."""
    with fake_upstream() as one, fake_upstream() as two:
        yield one, two


@contextmanager
def origin(
    *upstreams: dict[str, Any], turns: Turns | None = None, **settings: Any
) -> Iterator[httpx.Client]:
    """A client of an origin in front of these upstreams; tenant acme's unless it says otherwise."""
    fields = {
        "secret": SECRET,
        "upstreams": upstreams,
        "max_body_bytes": MAX_BODY_BYTES,
        "max_cached_body_bytes": 10_000,
        **settings,
    }
    read = Settings.model_validate(fields)
    app = create_app(
        read,
        engine=Upstreams.from_settings(read),
        store=MemoryStore(),
        control_store=control_store(API_KEY, OTHER_API_KEY),
        turns=turns,
    )
    with (
        serving(app, lifespan=True) as url,
        httpx.Client(base_url=url, headers=MINE, timeout=30) as client,
    ):
        yield client


@pytest.fixture(scope="module")
def running(servers: tuple[FakeUpstream, FakeUpstream]) -> Iterator[httpx.Client]:
    """An origin in front of the first upstream."""
    upstream = {"base_url": servers[0].url, "api_key": SHARED_KEY, "timeout_s": 5}
    with origin(upstream | {"tenant_api_keys": {"acme": OWN_KEY}}) as client:
        yield client


@pytest.fixture
def upstream(servers: tuple[FakeUpstream, FakeUpstream]) -> FakeUpstream:
    """The first upstream as new, the second as well."""
    for server in servers:
        server.reset()
        server.say(RESPONSE)
    return servers[0]


def code_of(response: httpx.Response) -> tuple[int, str]:
    """Status and code of an error in OpenAI's shape."""
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return response.status_code, error["code"]


def test_official_client_gets_its_response(running: httpx.Client, upstream: FakeUpstream) -> None:
    """`client.responses.create`, and what it said arrives as it was said."""
    with openai.OpenAI(base_url=f"{running.base_url}/v1", api_key=API_KEY, max_retries=0) as client:
        raw = client.responses.with_raw_response.create(model="m", input="Hi", extra_body={"x": 1})
    assert raw.parse().id == "resp_1"
    assert raw.headers["cache-status"] == BYPASS
    assert raw.headers["cache-control"] == "private, no-store"
    (seen,) = upstream.seen
    assert (seen.method, seen.path) == ("POST", "/v1/responses")
    assert seen.body == {"model": "m", "input": "Hi", "x": 1}


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE"])
@pytest.mark.parametrize("body", [b"", b"--x\r\n\xff\x00\r\n--x--"])
def test_request_arrives_as_it_was_sent(
    running: httpx.Client, upstream: FakeUpstream, method: str, body: bytes
) -> None:
    """Method, path, query, media type and body; nothing of the client's own headers."""
    strange = {
        "content-type": "multipart/form-data; boundary=x",
        "cookie": "a=b",
        "openai-organization": "org-theirs",
        "openai-beta": "assistants=v2",
        "x-forwarded-for": "1.2.3.4",
        "te": "trailers",
        "encore-tags": "t",
        "expect": "100-continue",
    }
    path = "/v1/files/org%2Fname?limit=2&include%5B%5D=a%20b"
    assert running.request(method, path, content=body, headers=strange).status_code == 200
    (seen,) = upstream.seen
    assert (seen.method, seen.target, seen.raw) == (method, path, body)
    transport = {"host", "connection", "accept-encoding", "user-agent", "content-length"}
    passed = {"accept", "authorization", "content-type", "openai-beta"}
    assert set(seen.headers) <= transport | passed
    assert seen.headers["content-type"] == "multipart/form-data; boundary=x"
    assert seen.headers["user-agent"] == "encore-origin"
    assert seen.headers.get("content-length", "0") == str(len(body))


def test_clients_key_goes_no_further(running: httpx.Client, upstream: FakeUpstream) -> None:
    """Its tenant's own goes, or the operator's."""
    for headers in (MINE, OTHER):
        assert running.post("/v1/responses", json={}, headers=headers).status_code == 200
    shown = [seen.headers["authorization"] for seen in upstream.seen]
    assert shown == [f"Bearer {OWN_KEY}", f"Bearer {SHARED_KEY}"]


@pytest.mark.parametrize("authorization", ["", "Bearer sk-proj-x", f"Bearer {API_KEY[:-1]}x"])
@pytest.mark.parametrize("path", ["/v1/responses", "/v1/files", "/v1/never-heard-of"])
def test_without_a_key_nothing_is_passed_on(
    running: httpx.Client, upstream: FakeUpstream, authorization: str, path: str
) -> None:
    """A 401, whatever the path."""
    response = running.post(path, json={}, headers={"authorization": authorization})
    assert response.status_code == 401
    assert upstream.seen == []


def test_other_tenants_account_cannot_be_looked_at(
    running: httpx.Client, upstream: FakeUpstream
) -> None:
    """What lies in the operator's account may be anybody's; in a tenant's own it is its own."""
    assert code_of(running.get("/v1/files", headers=OTHER)) == (403, "upstream_key_required")
    assert upstream.seen == []
    assert running.get("/v1/files", headers=MINE).status_code == 200


@pytest.mark.parametrize(
    "target",
    [
        "/v1/../internal",
        "/v1/%2e%2e/internal",
        "/v1/..%2finternal",
        "/v1/responses/%252e%252e/files",
        "/v1/responses/..;/files",
        "/v1/responses//x",
        "/v1/responses/",
        "/v1/responses\\..\\files",
        "/v2/responses",
        "/responses",
        "/v1",
    ],
)
def test_paths_that_may_mean_another_are_404(
    running: httpx.Client, upstream: FakeUpstream, target: str
) -> None:
    """None reaches the upstream, by whatever client it is written."""
    connection = http.client.HTTPConnection(urlsplit(str(running.base_url)).netloc, timeout=30)
    connection.request("POST", target, b"{}", MINE)
    response = connection.getresponse()
    assert (response.status, json.loads(response.read())["error"]["code"]) == (404, "unknown_url")
    connection.close()
    assert upstream.seen == []


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/v1/chat/completions"), ("DELETE", "/v1/models"), ("DELETE", "/v1/models/m")],
)
def test_cached_paths_take_what_they_took(
    running: httpx.Client, upstream: FakeUpstream, method: str, path: str
) -> None:
    """Their other methods are a 405 still, at the origin as at the edge."""
    assert code_of(running.request(method, path)) == (405, "method_not_allowed")
    assert upstream.seen == []


def test_answers_headers_are_listed(running: httpx.Client, upstream: FakeUpstream) -> None:
    """None that is for one hop, none that tells of the account, and no cookie."""
    kept = {
        "content-type": "audio/mpeg",
        "content-disposition": "attachment",
        "x-request-id": "req_1",
        "openai-processing-ms": "7",
        "retry-after": "3",
    }
    dropped = {
        "connection": "close, OpenAI-Version",
        "openai-version": "2020-10-01",
        "keep-alive": "timeout=5",
        "proxy-authenticate": "Basic",
        "trailer": "x",
        "upgrade": "h2c",
        "set-cookie": "a=b",
        "openai-organization": "org-ours",
        "x-ratelimit-remaining-requests": "5",
        "cache-control": "public, max-age=60",
        "cache-status": "encore-edge; hit",
        EDGE_AUTHORIZATION: "x",
    }
    upstream.reply = Reply(status=201, headers=kept | dropped, pieces=[b"\xff\xfb"])
    response = running.post("/v1/audio/speech", json={})
    assert (response.status_code, response.content) == (201, b"\xff\xfb")
    ours = {"cache-control": "private, no-store", "cache-status": BYPASS}
    assert {name: response.headers[name] for name in kept | ours} == kept | ours
    transport = {"date", "server", "transfer-encoding"}
    assert set(response.headers) - transport == set(kept | ours)


def test_connection_of_the_client_names_what_is_not_passed_on(
    running: httpx.Client, upstream: FakeUpstream
) -> None:
    """RFC 9110 section 7.6.1, in this direction too."""
    headers = {"connection": "keep-alive, OpenAI-Beta", "openai-beta": "x", "idempotency-key": "y"}
    assert running.post("/v1/responses", json={}, headers=headers).status_code == 200
    assert "openai-beta" not in upstream.seen[0].headers
    assert upstream.seen[0].headers["idempotency-key"] == "y"


def test_answer_comes_as_it_is_said(running: httpx.Client, upstream: FakeUpstream) -> None:
    """The first event is there while the upstream has not gone on; leaving hangs up."""
    upstream.stream({"type": "response.created"}, end="never")
    with running.stream("POST", "/v1/responses", json={"stream": True}) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        assert next(response.iter_text()) == 'data: {"type": "response.created"}\n\n'
    assert upstream.left.wait(5)


def test_leaving_before_the_answer_hangs_up(running: httpx.Client, upstream: FakeUpstream) -> None:
    """Nobody would hear it."""
    upstream.reply = Reply(end="never")
    with pytest.raises(httpx.ReadTimeout):
        running.post("/v1/responses", json={}, timeout=0.2)
    assert upstream.left.wait(5)


class Upload:
    """A body that goes on when the test says so."""

    def __init__(self) -> None:
        self.go_on = threading.Event()

    def __iter__(self) -> Iterator[bytes]:
        """One piece, and later another."""
        yield b"one, "
        assert self.go_on.wait(10)
        yield b"two"


def test_request_goes_as_it_comes(running: httpx.Client, upstream: FakeUpstream) -> None:
    """The upstream has the first piece while the client has not gone on."""
    upload, had_first = Upload(), threading.Event()
    serve = upstream.__class__.__call__

    async def watching(self: FakeUpstream, scope: Any, receive: Any, send: Any) -> None:
        async def noting() -> Any:
            message = await receive()
            if message.get("body"):
                had_first.set()
            return message

        await serve(self, scope, noting, send)

    def send() -> None:
        answers.append(running.post("/v1/audio/transcriptions", content=upload))

    answers: list[httpx.Response] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FakeUpstream, "__call__", watching)
        sender = threading.Thread(target=send)
        sender.start()
        assert had_first.wait(10)
        upload.go_on.set()
        sender.join()
    assert answers[0].status_code == 200
    assert upstream.seen[0].raw == b"one, two"


@pytest.mark.parametrize("announced", [True, False])
def test_body_over_the_limit_is_a_413(
    running: httpx.Client, upstream: FakeUpstream, *, announced: bool
) -> None:
    """Announced or found out."""
    pieces = [b"x" * 10_000] * (MAX_BODY_BYTES // 10_000 + 1)
    content = b"".join(pieces) if announced else iter(pieces)
    response = running.post("/v1/responses", content=content)
    assert code_of(response) == (413, "request_too_large")
    assert upstream.seen == []


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (400, {"error": {"message": "bad", "code": "c"}}, (400, "c")),
        (404, {"error": {"message": "gone", "code": "n"}}, (404, "n")),
        (404, None, (404, "unknown_url")),
        (405, None, (404, "unknown_url")),
        (401, {"error": {"message": f"bad key {OWN_KEY}"}}, (502, "upstream_credentials")),
        (302, None, (502, "upstream_redirect")),
        (500, {"error": {"message": f"so {OWN_KEY}", "code": "c"}}, (500, "c")),
    ],
)
def test_failures_have_openais_shape(
    running: httpx.Client,
    upstream: FakeUpstream,
    status: int,
    body: dict[str, Any] | None,
    expected: tuple[int, str],
) -> None:
    """The upstream's words, no key among them."""
    pieces = [b"<html>"] if body is None else [json.dumps(body).encode()]
    upstream.reply = Reply(status=status, headers={"location": "http://h/"}, pieces=pieces)
    response = running.post("/v1/responses", json={})
    assert code_of(response) == expected
    assert OWN_KEY not in response.text
    assert "location" not in response.headers


def test_request_without_a_body_is_sent_again(
    running: httpx.Client, upstream: FakeUpstream
) -> None:
    """Where the upstream has done nothing with it; one whose body has left is not."""
    upstream.first = [Reply(status=503, headers=JSON | {"retry-after": "0"}, pieces=[b"{}"])]
    assert running.get("/v1/responses/resp_1").status_code == 200
    upstream.first = [Reply(status=503, headers=JSON | {"retry-after": "0"}, pieces=[b"{}"])]
    assert running.post("/v1/responses", json={}).status_code == 503
    assert len(upstream.seen) == 3


@pytest.mark.parametrize("kind", ["text/event-stream", "application/json"])
def test_answer_that_breaks_off_is_cut_off(
    running: httpx.Client,
    upstream: FakeUpstream,
    caplog: pytest.LogCaptureFixture,
    kind: str,
) -> None:
    """What has been sent cannot be taken back, and must not look whole."""
    caplog.set_level(logging.WARNING, logger="origin")
    upstream.reply = Reply(headers={"content-type": kind}, pieces=[b"private words"], end="cut")
    with pytest.raises(httpx.RemoteProtocolError):
        running.post("/v1/responses", json={})
    assert "upstream_interrupted" in caplog.text
    assert "private words" not in caplog.text


@pytest.mark.parametrize(
    ("coding", "body", "expected"),
    [
        ("gzip", gzip.compress(b"{}", mtime=0), (200, b"{}")),
        ("Identity", b"{}", (200, b"{}")),
        ("br", b"{}", (502, None)),
        ("gzip, gzip", b"{}", (502, None)),
    ],
)
def test_coded_answer_is_decoded_or_refused(
    running: httpx.Client,
    upstream: FakeUpstream,
    coding: str,
    body: bytes,
    expected: tuple[int, bytes | None],
) -> None:
    """None was asked for."""
    upstream.reply = Reply(headers=JSON | {"content-encoding": coding}, pieces=[body])
    response = running.post("/v1/responses", json={})
    assert response.status_code == expected[0]
    assert expected[1] in (None, response.content)
    assert "content-encoding" not in response.headers
    assert upstream.seen[0].headers["accept-encoding"] == "identity"


def test_silence_past_the_deadline_is_a_504(servers: tuple[FakeUpstream, FakeUpstream]) -> None:
    """Before the answer has begun; afterwards it is cut off."""
    upstream = servers[0]
    upstream.reset()
    with origin({"base_url": upstream.url}, request_deadline_s=0.3) as client:
        upstream.reply = Reply(end="never")
        assert code_of(client.post("/v1/responses", json={}))[0] == 504
        upstream.reply = Reply(headers=JSON, pieces=[b"{"], end="never")
        with pytest.raises(httpx.RemoteProtocolError):
            client.post("/v1/responses", json={})


def test_only_if_cached_is_a_504(running: httpx.Client, upstream: FakeUpstream) -> None:
    """Nothing here is ever cached."""
    headers = {"cache-control": "only-if-cached"}
    response = running.post("/v1/responses", json={}, headers=headers)
    assert code_of(response) == (504, "only_if_cached")
    assert upstream.seen == []


def test_word_of_an_edge_makes_no_difference(running: httpx.Client, upstream: FakeUpstream) -> None:
    """It is not passed on, and a wrong one is refused as anywhere."""
    headers = {EDGE_AUTHORIZATION: f"Bearer {edge_bearer(RING)}"}
    assert running.post("/v1/responses", json={}, headers=headers).status_code == 200
    assert EDGE_AUTHORIZATION not in upstream.seen[0].headers
    headers = {EDGE_AUTHORIZATION: "Bearer x"}
    response = running.post("/v1/responses", json={}, headers=headers)
    assert code_of(response) == (401, "edge_not_trusted")


@pytest.fixture(scope="module")
def routed(servers: tuple[FakeUpstream, FakeUpstream]) -> Iterator[httpx.Client]:
    """An origin in front of both."""
    one, two = ({"base_url": server.url} for server in servers)
    with origin(one | {"models": ["a*"]}, two | {"models": ["b*"]}) as client:
        yield client


@pytest.mark.parametrize(
    ("body", "index"),
    [
        ({"model": "a1"}, 0),
        ({"model": "b1"}, 1),
        ({"input": "no model"}, 0),
        ({"model": "b1", "input": "x" * 50_000}, 1),
    ],
)
def test_model_tells_who_is_asked(
    routed: httpx.Client,
    upstream: FakeUpstream,
    servers: tuple[FakeUpstream, FakeUpstream],
    body: dict[str, Any],
    index: int,
) -> None:
    """And the first upstream is asked where no model is named; the body is the client's."""
    assert not upstream.seen
    text = json.dumps(body, indent=3).encode()
    assert routed.post("/v1/responses", content=text, headers=JSON).status_code == 200
    assert [[seen.raw for seen in server.seen] for server in servers] == (
        [[text], []] if index == 0 else [[], [text]]
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b'{"model": "c1"}', (404, "model_not_found")),
        (b'{"model": "a1", "model": "b1"}', (400, "duplicate_key")),
        (b"{", (400, "bad_json")),
    ],
)
def test_request_for_nobody_is_refused(
    routed: httpx.Client,
    upstream: FakeUpstream,
    text: bytes,
    expected: tuple[int, str],
) -> None:
    """It is not for the first upstream to guess."""
    assert code_of(routed.post("/v1/responses", content=text, headers=JSON)) == expected
    assert upstream.seen == []


def test_stale_answer_serves_while_an_upstream_is_left_alone(
    servers: tuple[FakeUpstream, FakeUpstream],
) -> None:
    """An open breaker is a failure like any other; without an entry it is a 503."""
    upstream = servers[0]
    upstream.reset()
    upstream.say(chat_answer("said once"))
    body = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}
    with origin({"base_url": upstream.url}, ttl_s=1, stale_while_revalidate_s=0) as client:
        assert client.post("/v1/chat/completions", json=body).status_code == 200
        upstream.say({"error": {"message": "down"}}, status=503, retry_after="3600")
        for i in range(FAILURES):
            refused = client.post("/v1/chat/completions", json=body | {"seed": i})
            assert refused.status_code == 503
        asked = len(upstream.seen)
        refused = client.post("/v1/chat/completions", json=body | {"seed": -1})
        assert code_of(refused) == (503, "upstream_suspended")
        assert int(refused.headers["retry-after"]) > 0
        while True:
            stale = client.post("/v1/chat/completions", json=body)
            if "hit" not in stale.headers["cache-status"]:
                break
            time.sleep(0.1)
        assert stale.json()["choices"][0]["message"]["content"] == "said once"
        status = "encore-origin; fwd=stale; fwd-status=503; detail=stale-if-error"
        assert stale.headers["cache-status"] == status
        ready = client.get("/readyz")
        assert ready.status_code == 503
        assert ready.json()["parts"]["engine"] == "upstream_suspended"
        # A try each time that the breaker let one through, at most: a second later, and two more.
        assert len(upstream.seen) <= asked + 2


def test_readiness_asks_seldom(servers: tuple[FakeUpstream, FakeUpstream]) -> None:
    """However often it is asked for."""
    upstream = servers[0]
    upstream.reset()
    upstream.say({"data": []})
    with origin({"base_url": upstream.url}) as client:
        assert [client.get("/readyz").status_code for _ in range(20)] == [200] * 20
    assert [seen.path for seen in upstream.seen] == ["/v1/models"]


def test_what_is_passed_through_is_counted(running: httpx.Client, upstream: FakeUpstream) -> None:
    """As bypassing the cache, or by how it failed; in the statistics and for monitoring."""

    def outcomes() -> dict[str, int]:
        told: dict[str, int] = running.get("/cache/stats").json()["origin"]["outcomes"]
        return told

    before = outcomes()
    assert running.post("/v1/responses", json={"model": "m"}).status_code == 200
    upstream.say({"error": {"message": "no"}}, status=400)
    assert running.post("/v1/responses", json={"model": "m"}).status_code == 400
    upstream.say({"error": {"message": "no"}}, status=500)
    assert running.post("/v1/responses", json={"model": "m"}).status_code >= 500
    assert running.get("/v1/files", headers={"authorization": "Bearer none"}).status_code == 401
    after = outcomes()
    more = {name: after[name] - before[name] for name in after if after[name] != before[name]}
    assert more == {"bypass": 1, "refused": 1, "error": 1}


def test_warm_ups_see_that_the_upstream_is_busy(upstream: FakeUpstream) -> None:
    """What is passed through counts for as long as it lasts."""
    turns = Turns()
    upstream.reply = replace(upstream.reply, waits=True)
    with (
        origin({"base_url": upstream.url}, turns=turns) as client,
        ThreadPoolExecutor(1) as pool,
    ):
        asked = pool.submit(client.post, "/v1/responses", json={"model": "m", "input": "Hi"})
        assert upstream.arrived.wait(30)
        assert turns._beside == 1
        upstream.go_on.set()
        assert asked.result().status_code == 200
        deadline_s = time.monotonic() + 10
        while turns._beside:  # the answer is there before its exchange is over
            assert time.monotonic() < deadline_s
            time.sleep(0.01)
