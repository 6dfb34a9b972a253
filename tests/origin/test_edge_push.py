"""Documents pushed to the edge: what counts as taken, and how what is owed reaches it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import httpx
import pytest

from origin.audit import ORIGIN
from origin.control import Control
from origin.edge_push import TURN, EdgeDelivery, EdgePush
from origin.metrics import EDGE_PUSHES
from origin.stores.contract import StoreError
from origin.stores.memory_control import MemoryControlStore
from origin.tasks import end
from shared.control_document import ControlDocument, Purge, decode, encode, new_document, revised
from shared.errors import InternalError
from shared.keys import KeyRings, edge_bearer, key_ring
from tests.support.control import put_document
from tests.support.instruments import value_of
from tests.support.waiting import until

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


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hardly a pause."""
    monkeypatch.setattr("origin.control.MEMO_S", 0)
    monkeypatch.setattr("origin.edge_push.FIRST_PAUSE_S", 0.001)
    monkeypatch.setattr("origin.edge_push.LONGEST_PAUSE_S", 0.01)


@pytest.fixture
async def push(edge: Edge) -> AsyncIterator[EdgePush]:
    """Pushes to it."""
    push = EdgePush("http://edge/base", RINGS, transport=httpx.MockTransport(edge))
    yield push
    await push.close()


def document(revision: int = 10) -> ControlDocument:
    """A document of acme."""
    return replace(new_document("acme", 1), revision=revision)


async def test_the_edge_gets_the_document_and_our_bearer(edge: Edge, push: EdgePush) -> None:
    """The request is what the contract between the two says."""
    assert await push.push("acme", encode(document())) == "taken"
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
    assert await push.push("acme", encode(document())) == "taken"
    await push.close()


@pytest.mark.parametrize(
    ("status", "pushed"),
    [
        (200, "taken"),
        (None, "unreachable"),
        *((status, "refused") for status in (302, 401, 404, 500, 503)),
    ],
)
async def test_only_a_success_means_taken(
    edge: Edge, push: EdgePush, status: int | None, pushed: str
) -> None:
    """Whether anybody was there is told apart."""
    edge.status = status
    assert await push.push("acme", encode(document())) == pushed


@asynccontextmanager
async def delivering(store: MemoryControlStore, push: EdgePush) -> AsyncIterator[EdgeDelivery]:
    """Deliver within the block."""
    delivery = EdgeDelivery(store, push)
    task = asyncio.create_task(delivery.run())
    async with asyncio.timeout(10):
        yield delivery
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def settled(store: MemoryControlStore) -> None:
    """Wait until nothing is owed."""
    await owed_are(store, 0)


async def owed_are(store: MemoryControlStore, count: int) -> None:
    """Wait until so much is owed."""

    async def holds() -> bool:
        return len(await store.owed_to_edge()) == count

    await until(holds)


async def owing(*documents: ControlDocument) -> MemoryControlStore:
    """A store of documents that the edge is to get."""
    store = MemoryControlStore()
    for each in documents:
        await put_document(store, each)
        await store.owe_edge(each.tenant, each.revision)
    return store


@pytest.mark.parametrize("status", [None, 302, 401, 404, 500, 503])
async def test_what_is_owed_is_tried_until_it_is_taken(
    edge: Edge, push: EdgePush, status: int | None
) -> None:
    """By whoever delivers, also one who began after the change."""
    store = await owing(document())
    edge.status = status
    async with delivering(store, push):
        await edge.hears(6)
        assert await store.owed_to_edge() == {"acme": 10}
        assert value_of(EDGE_PUSHES) == 1
        edge.status = 204
        await settled(store)
    assert decode(edge.requests[-1].content, "acme") == document()


async def test_the_newest_document_is_delivered(edge: Edge, push: EdgePush) -> None:
    """Nobody goes on about what no longer rules; what came meanwhile is still owed."""
    store = await owing(document(10))
    edge.status = None
    async with delivering(store, push):
        await edge.hears(2)
        await put_document(store, document(11))
        edge.status = 204
        await settled(store)
        assert decode(edge.requests[-1].content, "acme") == document(11)
        await store.owe_edge("acme", 12)
        await edge.hears(len(edge.requests) + 2)
        assert await store.owed_to_edge() == {"acme": 12}


async def test_a_refused_document_keeps_no_other_back(edge: Edge) -> None:
    """An edge that is away is left alone; one that refuses a document may take the next."""
    other = replace(new_document("other", 1), revision=20)
    store = await owing(document(), other)
    taken = edge.__call__

    def picky(request: httpx.Request) -> httpx.Response:
        return httpx.Response(500) if request.url.path.endswith("acme") else taken(request)

    picking = EdgePush("http://edge", RINGS, transport=httpx.MockTransport(picky))
    async with delivering(store, picking):
        await edge.hears(1)
        await owed_are(store, 1)
    assert await store.owed_to_edge() == {"acme": 10}
    await picking.close()


async def test_one_delivers_at_a_time(edge: Edge, push: EdgePush) -> None:
    """The others begin when its turn is over."""
    store = await owing(document())
    assert await store.take_turn(TURN, "somebody", 60)
    async with delivering(store, push):
        await asyncio.sleep(0.05)
        assert edge.requests == []
        await store.take_turn(TURN, "somebody", 0)
        await settled(store)
    assert await store.take_turn(TURN, "another", 1)


async def test_what_belongs_to_nobody_any_more_is_not_owed(edge: Edge, push: EdgePush) -> None:
    """Its document was lost."""
    store = MemoryControlStore()
    await store.owe_edge("acme", 10)
    async with delivering(store, push):
        await settled(store)
    assert edge.requests == []


async def test_an_outage_of_the_store_ends_no_delivery(
    push: EdgePush, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It goes on behind it."""
    store = await owing(document())
    asked = asyncio.Semaphore(0)

    async def down() -> dict[str, int]:
        asked.release()
        raise StoreError("down")

    with monkeypatch.context() as outage:
        outage.setattr(store, "owed_to_edge", down)
        async with delivering(store, push):
            for _ in range(3):
                await asked.acquire()
            outage.undo()
            await settled(store)


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
    owed = {} if status == 204 else {"acme": changed.document.revision}
    assert await store.owed_to_edge() == owed
    assert decode(edge.requests[0].content, "acme") == changed.document
    assert decode(await store.load("acme") or b"", "acme") == changed.document
    await control.close()


async def cannot_note(*_: object) -> None:
    """What a store does that went away."""
    raise StoreError("down")


async def test_what_could_not_be_noted_is_delivered_all_the_same(
    edge: Edge, push: EdgePush, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Behind whoever made the change, which is durable."""
    store = MemoryControlStore()
    control = Control(store, longest_life_ms=0, push=push)
    with monkeypatch.context() as outage:
        outage.setattr(store, "owe_edge", cannot_note)
        with pytest.raises(InternalError):
            await control.change("acme", revised, create=True)
    assert edge.requests == []
    delivering = asyncio.create_task(control.deliver())
    async with asyncio.timeout(10):
        await edge.hears(1)
        await settled(store)
    assert decode(edge.requests[0].content, "acme") == control.known("acme")
    await end([delivering])
    await control.close()


@pytest.mark.parametrize("tenant", ["acme", "*"])
async def test_a_purge_whose_process_ended_is_told_by_the_next_try(
    push: EdgePush, monkeypatch: pytest.MonkeyPatch, tenant: str
) -> None:
    """Where an event is applied already, whoever tries it again lets the edge know."""
    store = MemoryControlStore()
    await put_document(store, document())
    heard_ms = await store.now_ms()
    purge = Purge(everything=True)
    dead = Control(store, longest_life_ms=0, push=push)
    with monkeypatch.context() as outage:
        outage.setattr(store, "owe_edge", cannot_note)
        with pytest.raises(InternalError):
            await dead.apply(tenant, purge, ORIGIN, heard_ms=heard_ms)
    control = Control(store, longest_life_ms=0, push=push)
    assert not await control.apply(tenant, purge, ORIGIN, heard_ms=heard_ms)
    assert await store.owed_to_edge() == {"acme": await store.revision("acme")}
    await control.close()


async def test_a_change_without_an_edge_is_owed_all_the_same(edge: Edge, push: EdgePush) -> None:
    """A command may not know of the edge that an origin knows."""
    store = MemoryControlStore()
    control = Control(store, longest_life_ms=0)
    assert (await control.change("acme", revised, create=True)).edge == "not configured"
    async with delivering(store, push):
        await settled(store)
    assert len(edge.requests) == 1
