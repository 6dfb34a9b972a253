"""Documents pushed to the edge: what counts as taken, and what is tried again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import httpx
import pytest

from origin.control import Control
from origin.edge_push import EdgePush
from origin.metrics import EDGE_PUSHES
from origin.stores.memory_control import MemoryControlStore
from shared.control_document import ControlDocument, decode, new_document, revised
from shared.keys import KeyRings, edge_bearer, key_ring
from tests.support.instruments import value_of

RINGS = KeyRings(current=key_ring("0123456789abcdef0123456789abcdef"))


class Edge:
    """An edge that answers with `status` (None: not at all) and keeps what it is sent."""

    def __init__(self) -> None:
        self.status: int | None = 204
        self.requests: list[httpx.Request] = []
        self.heard = asyncio.Event()

    def __call__(self, request: httpx.Request) -> httpx.Response:
        """Answer one request."""
        self.requests.append(request)
        self.heard.set()
        if self.status is None:
            raise httpx.ConnectError("down", request=request)
        return httpx.Response(self.status)

    async def hears(self, times: int) -> None:
        """Wait until so many requests have come."""
        while len(self.requests) < times:
            self.heard.clear()
            await self.heard.wait()


@pytest.fixture
def edge() -> Edge:
    """The edge."""
    return Edge()


@pytest.fixture
async def push(edge: Edge, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[EdgePush]:
    """Pushes to it, without pauses."""
    monkeypatch.setattr("origin.edge_push.FIRST_PAUSE_S", 0)
    push = EdgePush("http://edge/base", RINGS, transport=httpx.MockTransport(edge))
    yield push
    await push.close()


def document(revision: int = 10) -> ControlDocument:
    """A document of acme."""
    return replace(new_document("acme", 1), revision=revision)


async def test_the_edge_gets_the_document_and_our_bearer(edge: Edge, push: EdgePush) -> None:
    """The request is what the contract between the two says."""
    assert await push.push(document())
    (request,) = edge.requests
    assert (request.method, str(request.url)) == (
        "PUT",
        "http://edge/base/internal/control/acme",
    )
    assert request.headers["content-type"] == "application/json"
    assert request.headers["encore-edge-authorization"] == f"Bearer {edge_bearer(RINGS.current)}"
    assert "authorization" not in request.headers
    assert decode(request.content, "acme") == document()


async def test_an_edge_that_has_the_previous_secret_only_is_told() -> None:
    """As in the first step of a rotation: the origin has both secrets, the edge the old one."""
    previous = key_ring("fedcba9876543210fedcba9876543210")

    def edge_of_before(request: httpx.Request) -> httpx.Response:
        known = request.headers["encore-edge-authorization"] == f"Bearer {edge_bearer(previous)}"
        return httpx.Response(200 if known else 404)

    push = EdgePush(
        "http://edge",
        replace(RINGS, previous=previous),
        transport=httpx.MockTransport(edge_of_before),
    )
    assert await push.push(document())
    await push.close()


@pytest.mark.parametrize("status", [None, 302, 401, 404, 500, 503])
async def test_what_is_not_taken_is_tried_until_it_is(
    edge: Edge, push: EdgePush, status: int | None
) -> None:
    """Behind the change: nobody waits for it."""
    edge.status = status
    assert not await push.push(document())
    assert value_of(EDGE_PUSHES) == 1
    await edge.hears(3)
    edge.status = 204
    retry = push._retries["acme"].task
    async with asyncio.timeout(10):
        await retry
    assert decode(edge.requests[-1].content, "acme") == document()
    assert not push._retries
    assert value_of(EDGE_PUSHES) == 0


async def test_a_newer_document_takes_the_place_of_an_older_one(edge: Edge, push: EdgePush) -> None:
    """Nobody goes on about what no longer rules, and an older one never takes a newer's place."""
    edge.status = 503
    await push.push(document(10))
    older = push._retries["acme"].task
    await push.push(document(11))
    newer = push._retries["acme"].task
    await push.push(document(10))
    assert push._retries["acme"].task is newer
    with pytest.raises(asyncio.CancelledError):
        await older
    edge.status = 204
    async with asyncio.timeout(10):
        await newer
    assert decode(edge.requests[-1].content, "acme") == document(11)


async def test_closing_ends_what_is_pending(edge: Edge, push: EdgePush) -> None:
    """The edge learns of it in its own way."""
    edge.status = None
    await push.push(document())
    retry = push._retries["acme"].task
    await push.close()
    assert retry.cancelled()


@pytest.mark.parametrize(("status", "state"), [(204, "acknowledged"), (503, "pending")])
async def test_a_change_says_what_the_edge_knows(
    edge: Edge, push: EdgePush, status: int, state: str
) -> None:
    """It is durable in either case, before the edge hears of it."""
    store = MemoryControlStore()
    control = Control(store, longest_life_ms=0, push=push)
    edge.status = status
    changed = await control.change("acme", revised, create=True)
    assert changed.edge == state
    assert decode(edge.requests[0].content, "acme") == changed.document
    assert decode(await store.load("acme") or b"", "acme") == changed.document
    await control.close()
