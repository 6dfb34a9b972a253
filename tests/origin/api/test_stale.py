"""Stale-if-error at the origin, in front of a real upstream that fails in every way there is."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from origin.app import create_app
from origin.engine.breaker import FAILURES
from origin.engine.upstreams import Upstreams
from origin.settings import Settings
from origin.stores.memory import MemoryStore
from shared.keys import key_ring, make_api_key
from tests.origin.engine.fake_upstream import FakeUpstream, Reply, fake_upstream
from tests.support.control import control_store
from tests.support.engines import chat_answer, embeddings_answer
from tests.support.serving import serving

SECRET = "a secret of the tests, long enough"
API_KEY = make_api_key(key_ring(SECRET), "acme", bytes(15))
CHAT, EMBEDDINGS = "/v1/chat/completions", "/v1/embeddings"
HELLO: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "Hello"}]}
SOON = {"retry-after": "3600"}  # not retried: the test need not wait


def refusing(status: int, **headers: str) -> Reply:
    """A refusal in OpenAI's shape."""
    return Reply(
        status=status,
        headers={"content-type": "application/json"} | headers,
        pieces=[b'{"error": {"message": "no", "type": "t", "param": null, "code": null}}'],
    )


FAILURES_OF_UPSTREAMS = {
    "500": (refusing(500), 500),
    "502": (refusing(502, **SOON), 502),
    "503": (refusing(503, **SOON), 503),
    "504": (refusing(504, **SOON), 504),
    "529": (refusing(529), 529),
    "429": (refusing(429, **SOON), 429),
    "408": (refusing(408), 504),
    "401": (refusing(401), 502),
    "402": (refusing(402), 502),
    "redirect": (refusing(302), 502),
    "silence": (Reply(end="never"), 504),
    "cut off": (Reply(pieces=[b"{"], end="cut"), 502),
    "not JSON": (Reply(pieces=[b"<html>"]), 502),
}
REFUSALS = {str(status): refusing(status) for status in (400, 404, 413, 422)}


@pytest.fixture(scope="module")
def server() -> Iterator[FakeUpstream]:
    """The upstream."""
    with fake_upstream() as fake:
        yield fake


@contextmanager
def origin(url: str, **settings: Any) -> Iterator[httpx.Client]:
    """A client of an origin in front of the upstream."""
    read = Settings(
        secret=SecretStr(SECRET),
        upstream=url,
        upstream_timeout_s=0.5,
        stale_while_revalidate_s=0,
        **settings,
    )
    app = create_app(
        read,
        engine=Upstreams.from_settings(read),
        store=MemoryStore(),
        control_store=control_store(API_KEY),
    )
    headers = {"authorization": f"Bearer {API_KEY}"}
    with (
        serving(app, lifespan=True) as base_url,
        httpx.Client(base_url=base_url, headers=headers, timeout=30) as client,
    ):
        yield client


def until_hit(client: httpx.Client, path: str, body: dict[str, Any]) -> None:
    """Ask until the answer is a hit: it is stored behind the first."""
    deadline_s = time.monotonic() + 10
    while "; hit" not in client.post(path, json=body).headers["cache-status"]:
        assert time.monotonic() < deadline_s


STALE = {"cache-control": "max-age=0, stale-if-error=600"}
"""The entry is not accepted, but where nothing else is to be had."""
BODIES: dict[str, tuple[str, dict[str, Any]]] = {
    "plain": (CHAT, HELLO),
    "streamed": (CHAT, HELLO | {"stream": True}),
    "one input": (EMBEDDINGS, {"model": "m", "input": "a"}),
    "several inputs": (EMBEDDINGS, {"model": "m", "input": ["a", "b"]}),
}


def answer_to(body: dict[str, Any]) -> dict[str, Any]:
    """What the upstream says while it works."""
    if "input" not in body:
        return chat_answer("said once")
    given = body["input"]
    return embeddings_answer(given if isinstance(given, list) else [given])


@pytest.mark.parametrize("form", BODIES)
def test_entry_stands_in_for_every_failure_and_for_no_refusal(
    server: FakeUpstream, form: str
) -> None:
    """With what has failed in `Cache-Status`; without an entry the failure is the answer."""
    path, body = BODIES[form]
    plain = {name: value for name, value in body.items() if name != "stream"}
    for name, (reply, status) in FAILURES_OF_UPSTREAMS.items():
        server.reset()
        server.say(answer_to(body))
        with origin(server.url) as client:  # each has a closed breaker
            until_hit(client, path, plain)
            server.reply = reply
            stale = client.post(path, json=body, headers=STALE)
            assert stale.status_code == 200, (name, stale.text)
            said = stale.headers["cache-status"]
            assert f"fwd-status={status}" in said, name
            assert "stale-if-error" in said, name
            if form == "plain":
                assert stale.json()["choices"][0]["message"]["content"] == "said once"
                failed = client.post(path, json=body | {"seed": 1}, headers=STALE)
                assert failed.status_code == status, name
                refused = client.post(path, json=body, headers={"cache-control": "no-cache"})
                assert refused.status_code == status, name
    with origin(server.url) as client:
        server.say(answer_to(body))
        until_hit(client, path, plain)
        for name, server.reply in REFUSALS.items():
            refused = client.post(path, json=body, headers=STALE)
            assert refused.status_code == int(name)


def test_entry_stands_in_where_nobody_is_there_and_while_the_breaker_is_open() -> None:
    """Unreachable at first, suspended then."""
    with ExitStack() as stack:
        with fake_upstream() as gone:
            gone.say(chat_answer("said once"))
            client = stack.enter_context(origin(gone.url))
            until_hit(client, CHAT, HELLO)
        said = []
        for _ in range(FAILURES):
            stale = client.post(CHAT, json=HELLO, headers=STALE)
            assert stale.status_code == 200
            said.append(stale.headers["cache-status"])
        failed = client.post(CHAT, json=HELLO | {"seed": 1})
        assert failed.json()["error"]["code"] == "upstream_suspended"
        status = "encore-origin; fwd=request; fwd-status={}; detail=stale-if-error"
        assert said[0] == status.format(502)
        assert said[-1] == status.format(503)


def test_deadline_is_a_failure(server: FakeUpstream) -> None:
    """Also where the upstream goes on talking."""
    server.reset()
    server.say(chat_answer("said once"))
    with origin(server.url, request_deadline_s=0.2) as client:
        until_hit(client, CHAT, HELLO)
        server.reply = Reply(end="never")
        stale = client.post(CHAT, json=HELLO, headers=STALE)
        assert stale.json()["choices"][0]["message"]["content"] == "said once"
        assert "fwd-status=504; detail=stale-if-error" in stale.headers["cache-status"]
