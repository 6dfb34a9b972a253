"""What is sent upstream, sent again, and not sent: against real servers on loopback."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import AsyncIterator, Iterator
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from origin.engine.breaker import FAILURES, Breaker
from origin.engine.upstream_client import (
    ATTEMPTS,
    MAX_RETRY_WAIT_S,
    Body,
    UpstreamClient,
)
from origin.metrics import UPSTREAM_SUSPENDED
from shared.errors import EncoreError
from tests.origin.engine.fake_upstream import FakeUpstream, Reply, fake_upstream
from tests.origin.engine.raw_server import raw_server
from tests.support.instruments import value_of

KEY = "upstream-key-3f9c"
OWN_KEY = "acme-key-77aa"
AGAIN = (429, 502, 503, 504)
JSON = {"content-type": "application/json"}


@pytest.fixture(scope="module")
def server() -> Iterator[FakeUpstream]:
    """One server for the module."""
    with fake_upstream() as fake:
        yield fake


@pytest.fixture
def upstream(server: FakeUpstream) -> FakeUpstream:
    """The server as new."""
    server.reset()
    server.say({"fine": True})
    return server


class Client(UpstreamClient):
    """A client that notes how long it would wait, and waits for nothing."""

    def __init__(self, url: str, **options: Any) -> None:
        self.waits_s: list[float] = []
        super().__init__(url, api_key=KEY, sleep=self._note, **options)

    async def _note(self, wait_s: float) -> None:
        self.waits_s.append(wait_s)

    async def ask(self, target: str = "/v1/x", **options: Any) -> tuple[int, bytes]:
        """Status and body of an exchange."""
        async with self.exchange("POST", target, **options) as response:
            return response.status_code, await response.aread()

    async def refusal(self, **options: Any) -> EncoreError:
        """The error of an exchange."""
        with pytest.raises(EncoreError) as caught:
            await self.ask(**options)
        return caught.value


@pytest.fixture
async def client(upstream: FakeUpstream) -> AsyncIterator[Client]:
    """A client of the server."""
    made = Client(upstream.url, timeout_s=5.0)
    yield made
    await made.close()


def refusing(status: int, **headers: str) -> Reply:
    """A refusal in OpenAI's shape."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Reply(status=status, headers=JSON | named, pieces=[b'{"error": {"message": "no"}}'])


async def nothing_there() -> str:
    """An address that refuses connections."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return f"http://127.0.0.1:{listener.getsockname()[1]}"


@pytest.mark.parametrize("status", AGAIN)
@pytest.mark.parametrize("times", range(1, ATTEMPTS))
async def test_refusal_without_effect_is_overcome(
    client: Client, upstream: FakeUpstream, status: int, times: int
) -> None:
    """The same request is sent again, whole."""
    upstream.first = [refusing(status) for _ in range(times)]
    assert await client.ask(body=b'{"a": 1}') == (200, b'{"fine": true}')
    assert [seen.raw for seen in upstream.seen] == [b'{"a": 1}'] * (times + 1)
    assert len(client.waits_s) == times


@pytest.mark.parametrize("status", AGAIN)
async def test_attempts_are_few(client: Client, upstream: FakeUpstream, status: int) -> None:
    """In the end the client gets the refusal as it is."""
    upstream.reply = refusing(status)
    error = await client.refusal(body=b"{}")
    assert (error.status, error.message) == (status, "no")
    assert len(upstream.seen) == ATTEMPTS


@pytest.mark.parametrize("status", [400, 401, 404, 408, 409, 422, 500, 501, 529])
async def test_other_refusals_are_final(
    client: Client, upstream: FakeUpstream, status: int
) -> None:
    """The request is at fault, or may have had an effect."""
    upstream.first = [refusing(status)]
    await client.refusal(body=b"{}")
    assert len(upstream.seen) == 1


async def test_refused_connection_is_tried_again() -> None:
    """Nobody can have seen the request."""
    client = Client(await nothing_there())
    error = await client.refusal(body=b"{}")
    assert (error.status, error.code) == (502, "upstream_unreachable")
    assert len(client.waits_s) == ATTEMPTS - 1
    await client.close()


@pytest.mark.parametrize(
    ("says", "reset"),
    [
        (b"", True),
        (b"", False),
        (b"HTTP/1.1 200 OK\r\n", True),
        (b"SSH-2.0-OpenSSH_9.2\r\n", False),
        (b"\x00" * 100, False),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf", True),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n", False),
    ],
)
async def test_broken_connection_is_final(says: bytes, *, reset: bool) -> None:
    """The request may have been read, and paid for."""
    async with raw_server(says, reset=reset) as server:
        client = Client(server.url)
        error = await client.refusal(body=b"{}")
        assert (error.status, error.code) == (502, "upstream_interrupted")
        assert server.connections == 1
        await client.close()


async def test_silence_is_final(upstream: FakeUpstream) -> None:
    """So may one that nothing came of."""
    upstream.reply = Reply(end="never")
    client = Client(upstream.url, timeout_s=0.1)
    assert (await client.refusal(body=b"{}")).code == "upstream_timeout"
    assert len(upstream.seen) == 1
    await client.close()


async def test_nothing_is_repeated_once_something_was_said(
    client: Client, upstream: FakeUpstream
) -> None:
    """A successful status is the point of no return."""
    upstream.first = [Reply(pieces=[b'{"fi'], end="cut")]
    assert (await client.refusal(body=b"{}")).code == "upstream_interrupted"
    assert len(upstream.seen) == 1


@pytest.mark.parametrize("status", AGAIN)
async def test_body_that_has_left_is_not_sent_again(
    client: Client, upstream: FakeUpstream, status: int
) -> None:
    """It was passed on as it came, and is kept nowhere."""

    async def pieces() -> AsyncIterator[bytes]:
        yield b"one, "
        yield b"two"

    upstream.first = [refusing(status)]
    assert (await client.refusal(body=Body(pieces(), None))).status == status
    assert [seen.raw for seen in upstream.seen] == [b"one, two"]


async def test_waits_are_random_and_grow() -> None:
    """A crowd that failed together does not come back together."""
    client = Client(await nothing_there(), breaker=Breaker(failures=10_000))
    for _ in range(40):
        await client.refusal()
    first, second = client.waits_s[::2], client.waits_s[1::2]
    assert len(set(first)) > 30
    assert max(first) <= 0.5 < max(second) <= 1.0
    await client.close()


@pytest.mark.parametrize("asked_s", [0, 1, 7])
async def test_retry_after_is_waited_out(
    client: Client, upstream: FakeUpstream, asked_s: int
) -> None:
    """And a little more."""
    upstream.first = [refusing(429, retry_after=str(asked_s))]
    await client.ask(body=b"{}")
    (wait_s,) = client.waits_s
    assert asked_s <= wait_s <= asked_s + 0.5


@pytest.mark.parametrize(
    ("deadline_s", "asked_s"), [(5.0, 5), (5.0, 60), (600.0, int(MAX_RETRY_WAIT_S) + 1)]
)
async def test_wait_past_the_deadline_is_the_clients(
    upstream: FakeUpstream, deadline_s: float, asked_s: int
) -> None:
    """It is told at once, and how long to wait."""
    upstream.first = [refusing(503, retry_after=str(asked_s))]
    client = Client(upstream.url, deadline_s=deadline_s)
    error = await client.refusal(body=b"{}")
    assert (error.status, error.retry_after_s) == (503, asked_s)
    assert client.waits_s == []
    await client.close()


@pytest.mark.parametrize("status", [502, 503, 504])
async def test_failing_upstream_is_left_alone(
    client: Client, upstream: FakeUpstream, status: int
) -> None:
    """Then nothing is sent, and the client is told when to come back."""
    upstream.reply = refusing(status)
    while len(upstream.seen) < FAILURES:
        await client.refusal(body=b"{}")
    error = await client.refusal(body=b"{}")
    assert (error.status, error.code) == (503, "upstream_suspended")
    assert error.retry_after_s
    assert len(upstream.seen) == FAILURES
    with pytest.raises(EncoreError, match="left alone"):
        client.check_healthy()


async def test_silent_upstream_is_left_alone(upstream: FakeUpstream) -> None:
    """Waiting for it would cost every request its deadline."""
    upstream.reply = Reply(end="never")
    client = Client(upstream.url, timeout_s=0.05)
    for _ in range(FAILURES):
        assert (await client.refusal(body=b"{}")).code == "upstream_timeout"
    assert (await client.refusal(body=b"{}")).code == "upstream_suspended"
    await client.close()


async def test_a_connection_that_ends_as_it_begins_is_a_502(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The libraries look at a socket that is gone by then; what had been sent nobody knows."""

    async def send(*_: Any, **__: Any) -> httpx.Response:
        raise AttributeError("'NoneType' object has no attribute 'getpeername'")

    monkeypatch.setattr(httpx.AsyncClient, "send", send)
    codes = [(await client.refusal(body=b"{}")).code for _ in range(FAILURES + 1)]
    assert codes == ["upstream_interrupted"] * FAILURES + ["upstream_suspended"]


async def test_unreachable_upstream_is_left_alone() -> None:
    """Attempts at one request count one by one."""
    client = Client(await nothing_there())
    codes = [(await client.refusal()).code for _ in range(3)]
    assert codes == ["upstream_unreachable", "upstream_suspended", "upstream_suspended"]
    assert len(client.waits_s) == FAILURES - 1
    await client.close()


@pytest.mark.parametrize("status", [400, 401, 403, 404, 422, 429, 500])
async def test_refusals_of_requests_suspend_nobody(
    client: Client, upstream: FakeUpstream, status: int
) -> None:
    """One tenant's bad requests, keys or limits must not close the upstream to the others."""
    upstream.reply = refusing(status)
    for _ in range(2 * FAILURES):
        await client.refusal(body=b"{}")
    upstream.say({"fine": True})
    assert (await client.ask(body=b"{}"))[0] == 200


async def test_upstream_that_recovers_is_asked_again(upstream: FakeUpstream) -> None:
    """By one request at first, then by all."""
    now_s = 0.0
    client = Client(upstream.url, breaker=Breaker(clock_s=lambda: now_s))
    upstream.reply = refusing(503)
    for _ in range(FAILURES):
        await client.refusal(body=b"{}")
    upstream.say({"fine": True})
    assert (await client.refusal(body=b"{}")).code == "upstream_suspended"
    now_s = 3600.0
    assert [(await client.ask(body=b"{}"))[0] for _ in range(3)] == [200] * 3
    await client.close()


async def test_cancelled_requests_count_for_nothing(upstream: FakeUpstream) -> None:
    """Clients that leave say nothing of the upstream."""
    upstream.reply = Reply(end="never")
    client = Client(upstream.url, timeout_s=60)
    for _ in range(2 * FAILURES):
        upstream.arrived.clear()
        task = asyncio.create_task(client.ask(body=b"{}"))
        assert await asyncio.to_thread(upstream.arrived.wait, 5)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    client.check_healthy()
    await client.close()


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirects_are_not_followed(
    client: Client, upstream: FakeUpstream, status: int
) -> None:
    """Our key would go where it points."""
    upstream.reply = Reply(status=status, headers={"location": f"{upstream.url}/elsewhere"})
    assert (await client.refusal(body=b"{}")).code == "upstream_redirect"
    assert [seen.path for seen in upstream.seen] == ["/v1/x"]


async def test_cookies_are_not_kept(client: Client, upstream: FakeUpstream) -> None:
    """One tenant's would go along with the next one's request."""
    upstream.reply = Reply(headers=JSON | {"set-cookie": "session=1; Path=/"}, pieces=[b"{}"])
    await client.ask(body=b"{}")
    await client.ask(body=b"{}")
    assert not any("cookie" in seen.headers for seen in upstream.seen)


async def test_tenant_with_its_own_key_goes_by_it(upstream: FakeUpstream) -> None:
    """Everybody else by the operator's."""
    client = Client(upstream.url, tenant_api_keys={"acme": OWN_KEY})
    for tenant in ("acme", "other", None):
        await client.ask(body=b"{}", tenant=tenant)
    shown = [seen.headers["authorization"] for seen in upstream.seen]
    assert shown == [f"Bearer {OWN_KEY}", f"Bearer {KEY}", f"Bearer {KEY}"]
    assert client.has_own_key("acme")
    assert not client.has_own_key("other")
    await client.close()


async def test_no_key_is_said_or_logged(
    upstream: FakeUpstream, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither of them, by whichever request an upstream quotes them."""
    caplog.set_level(logging.DEBUG, logger="origin")
    client = Client(upstream.url, tenant_api_keys={"acme": OWN_KEY})
    words = b'{"error": {"message": "bad keys %s, %s"}}' % (KEY.encode(), OWN_KEY.encode())
    upstream.reply = Reply(status=503, headers=JSON, pieces=[words])
    error = await client.refusal(body=b"{}", tenant="acme")
    assert error.message == "bad keys [key], [key]"
    while not any("left alone" in record.getMessage() for record in caplog.records):
        await client.refusal(body=b"{}", tenant="acme")
    assert KEY not in caplog.text
    assert OWN_KEY not in caplog.text
    assert KEY not in repr(client)
    await client.close()


@pytest.mark.parametrize("base", ["", "/v1", "/openai/v1/", "/openai"])
async def test_target_is_sent_as_it_is(upstream: FakeUpstream, base: str) -> None:
    """Below the base path, escapes and query untouched."""
    client = Client(upstream.url + base)
    target = "/v1/models/org%2Fname?limit=2&include%5B%5D=a%20b&x=1%2C2"
    await client.ask(target)
    prefix = "/openai" if "openai" in base else ""
    assert upstream.seen[0].target == prefix + target
    await client.close()


async def test_monitoring_hears_of_an_upstream_left_alone(upstream: FakeUpstream) -> None:
    """By its host, until it answers again."""
    gauge = UPSTREAM_SUSPENDED.labels(urlsplit(upstream.url).netloc)
    now_s = 0.0
    client = Client(upstream.url, breaker=Breaker(failures=1, clock_s=lambda: now_s))
    assert value_of(gauge) == 0
    upstream.reply = refusing(502)
    await client.refusal(body=b"{}")
    assert value_of(gauge) == 1
    now_s = 3600.0
    upstream.say({"fine": True})
    assert (await client.ask(body=b"{}"))[0] == 200
    assert value_of(gauge) == 0
    await client.close()


async def test_so_many_requests_are_under_way_and_no_more(
    upstream: FakeUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody waits for a connection behind a thousand others."""
    monkeypatch.setattr("origin.engine.upstream_client.MAX_CONNECTIONS", 1)
    client = Client(upstream.url, timeout_s=5.0)
    async with client.exchange("POST", "/v1/x"):
        refusal = await client.refusal()
    assert (refusal.status, refusal.code) == (503, "upstream_saturated")
    assert refusal.retry_after_s
    assert (await client.ask())[0] == 200
    await client.close()
