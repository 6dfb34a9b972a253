"""More than there is room for, and what never ends: refused in OpenAI's shape, on real sockets."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from origin.api.http import read_body
from origin.app import create_app
from origin.engine.turns import Turns
from origin.settings import Settings
from origin.stores.memory import MemoryStore
from shared.errors import ClientError
from shared.keys import key_ring, make_api_key
from tests.support.control import control_store
from tests.support.engines import MODEL, ScriptedEngine
from tests.support.serving import serving

SECRET = "a secret of the tests, long enough"
API_KEY = make_api_key(key_ring(SECRET), "acme", bytes(15))
CHAT = "/v1/chat/completions"


class Origin:
    """A served application and its engine."""

    def __init__(self, stack: ExitStack, turns: Turns | None = None, **settings: Any) -> None:
        self.engine = ScriptedEngine()
        app = create_app(
            Settings(secret=SecretStr(SECRET), **settings),
            engine=self.engine,
            store=MemoryStore(),
            control_store=control_store(API_KEY),
            turns=turns,
        )
        self.url = stack.enter_context(serving(app))
        stack.callback(self.engine.open_gate)

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection of its own."""
        host, port = self.url.removeprefix("http://").split(":")
        return await asyncio.open_connection(host, int(port))

    def head(self, size_bytes: int) -> bytes:
        """The head of a request whose body is announced to be so large."""
        return (
            f"POST {CHAT} HTTP/1.1\r\nhost: origin\r\nauthorization: Bearer {API_KEY}\r\n"
            f"content-length: {size_bytes}\r\n\r\n"
        ).encode()

    async def ask(self, text: str) -> httpx.Response:
        """Ask on a connection of its own."""
        body = {"model": MODEL, "messages": [{"role": "user", "content": text}]}
        async with httpx.AsyncClient(base_url=self.url, timeout=30) as client:
            return await client.post(
                CHAT, json=body, headers={"authorization": f"Bearer {API_KEY}"}
            )

    async def until_running(self, count: int) -> None:
        """Wait until the engine has been asked so often."""
        while self.engine.runs < count:  # noqa: ASYNC110 - the engine runs in another thread
            await asyncio.sleep(0.005)


@contextmanager
def origin(turns: Turns | None = None, **settings: Any) -> Iterator[Origin]:
    """An origin for the length of the block."""
    with ExitStack() as stack:
        yield Origin(stack, turns, **settings)


def check_refusal(response: httpx.Response, status: int, code: str) -> None:
    """Whether it is an error of OpenAI's shape that says when to come again."""
    assert (response.status_code, response.json()["error"]["code"]) == (status, code)
    assert int(response.headers["retry-after"]) >= 1


async def test_body_that_never_ends_is_ended() -> None:
    """At the deadline, however steadily it drips; then the connection is closed."""
    with origin(request_deadline_s=0.3) as running:
        began_s = time.monotonic()
        reader, writer = await running.connect()
        writer.write(running.head(1000))

        async def drip() -> None:
            while not writer.is_closing():
                writer.write(b" ")
                await asyncio.sleep(0.02)

        dripping = asyncio.create_task(drip())
        said = await asyncio.wait_for(reader.read(), 30)
        dripping.cancel()
        writer.close()
        head, _, body = said.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 408")
        assert b"connection: close" in head.lower()
        assert json.loads(body)["error"]["code"] == "request_timeout"
        assert time.monotonic() - began_s > 0.15
        assert (await running.ask("Hello")).status_code == 200


async def test_requests_beyond_the_limit_are_refused() -> None:
    """Until one is over; who asks for the process's health is answered all the same."""
    with origin(max_requests=2) as running:
        running.engine.gate.clear()
        asks = [asyncio.create_task(running.ask(f"Question {number}")) for number in range(2)]
        await running.until_running(2)
        check_refusal(await running.ask("One more"), 503, "overloaded")
        async with httpx.AsyncClient(base_url=running.url) as client:
            assert (await client.get("/healthz")).status_code == 200
            assert (await client.get("/readyz")).status_code == 200
            assert (await client.get("/v1/models")).status_code == 503
        running.engine.open_gate()
        assert [(await ask).status_code for ask in asks] == [200, 200]
        assert (await running.ask("One more")).status_code == 200


async def test_generations_beyond_the_queue_are_refused() -> None:
    """What is known is answered meanwhile, and who waits is not forgotten."""
    with origin(Turns(1, queue_limit=1)) as running:
        assert (await running.ask("Known")).status_code == 200
        running.engine.gate.clear()
        first = asyncio.create_task(running.ask("First"))
        await running.until_running(2)
        more = [asyncio.create_task(running.ask(text)) for text in ("Second", "Third")]
        refused, waiting = await asyncio.wait(more, return_when=asyncio.FIRST_COMPLETED)
        check_refusal(refused.pop().result(), 503, "overloaded")
        assert len(waiting) == 1
        assert (await running.ask("Known")).headers["cache-status"].startswith("encore-origin; hit")
        running.engine.open_gate()
        assert (await first).status_code == 200
        assert (await waiting.pop()).status_code == 200


async def test_large_bodies_beyond_the_room_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted in bytes that are there, not announced; a client that leaves makes room again."""
    monkeypatch.setattr("origin.api.http.LARGEST_BODIES", 1)
    with origin(max_body_bytes=100_000, max_cached_body_bytes=1000) as running:
        _, writer = await running.connect()
        writer.write(running.head(90_000) + b" " * 80_000)
        await writer.drain()
        large = "x" * 50_000
        while (response := await running.ask(large)).status_code == 200:
            pass  # until the other one has arrived
        check_refusal(response, 503, "overloaded")
        assert (await running.ask("small")).status_code == 200
        writer.close()
        while (response := await running.ask(large)).status_code == 503:
            pass  # until it is seen that the other one has left
        assert response.status_code == 200
        for _ in range(5):  # what was read makes room
            assert (await running.ask(large)).status_code == 200


async def test_rare_routes_read_no_endless_body() -> None:
    """What an admin sends ends in time, too."""

    async def receive() -> Any:
        await asyncio.Event().wait()

    with pytest.raises(ClientError) as refused:
        await read_body(receive, {}, 1000, deadline_s=0.01)
    assert refused.value.status == 408
