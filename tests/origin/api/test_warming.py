"""`POST /internal/warming`: what the edge is told to fetch, from its first miss on."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from origin.app import create_app
from origin.settings import Settings
from origin.stores.memory import MemoryStore
from shared.counts import Counts
from shared.envelope import MEDIA_TYPE, Header, decode
from shared.keys import edge_bearer, key_ring, make_api_key, short_key
from shared.wire import COUNTERS_PATH, EDGE_AUTHORIZATION, ENTRY_PATH, WARMING_PATH
from tests.support.control import control_store
from tests.support.engines import MODEL, ScriptedEngine

SECRET = "a secret of the tests, long enough"
KEYS = key_ring(SECRET)
API_KEY = make_api_key(KEYS, "acme", bytes(15))
EDGE = {EDGE_AUTHORIZATION: f"Bearer {edge_bearer(KEYS)}"}
CLIENT = {"authorization": f"Bearer {API_KEY}"}
CHAT = "/v1/chat/completions"


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    """A client of an application whose entries are about to expire from the start."""
    app = create_app(
        Settings(secret=SecretStr(SECRET), ttl_s=300),
        engine=ScriptedEngine(),
        store=MemoryStore(),
        control_store=control_store(API_KEY),
    )
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app), base_url="http://origin"
    ) as client:
        yield client


async def ask(client: httpx.AsyncClient, text: str = "Hello", **fields: Any) -> httpx.Response:
    """Ask for an answer as the edge does."""
    body = {"model": MODEL, "messages": [{"role": "user", "content": text}], **fields}
    return await client.post(CHAT, json=body, headers={**EDGE, **CLIENT, "accept": MEDIA_TYPE})


async def hit(client: httpx.AsyncClient, *keys: str, count: int = 2) -> None:
    """Tell of hits at the edge."""
    counts = Counts()
    for key in keys * count:
        counts.count("acme", "hit", latency_ms=1, short_key=short_key(key))
    response = await client.post(COUNTERS_PATH, content=counts.take(), headers=EDGE)
    assert response.status_code == 200


async def warm(client: httpx.AsyncClient, limit: int = 10) -> list[dict[str, str]]:
    """The entries to fetch."""
    response = await client.post(WARMING_PATH, json={"limit": limit}, headers=EDGE)
    assert response.status_code == 200
    entries: list[dict[str, str]] = response.json()["entries"]
    return entries


async def fetch(client: httpx.AsyncClient, entry: dict[str, str]) -> Header:
    """The header of an entry, fetched as the edge does that warms."""
    response = await client.get(
        ENTRY_PATH + entry["key"], params={"tenant": entry["tenant"]}, headers=EDGE
    )
    assert response.status_code == 200
    return decode(response.content).header


async def test_a_hot_entry_is_made_anew_and_can_be_fetched(client: httpx.AsyncClient) -> None:
    """From miss, over hits counted at the edge, to the new entry."""
    old = decode((await ask(client)).content).header
    await hit(client, old.key)
    entries = await warm(client)
    assert entries == [{"tenant": "acme", "key": old.key}]
    assert (await fetch(client, *entries)).created_ms > old.created_ms


async def test_a_streamed_answer_counts_too(client: httpx.AsyncClient) -> None:
    """Its entry is known when the stream has ended."""
    key = (await ask(client, stream=True)).headers["encore-key"]
    await hit(client, key)
    assert [short_key(entry["key"]) for entry in await warm(client)] == [key]


async def test_repeats_at_the_origin_are_hits(client: httpx.AsyncClient) -> None:
    """A second and a third request that the edge could not answer itself."""
    for _ in range(3):
        await ask(client)
    assert len(await warm(client)) == 1


async def test_who_asks_without_the_edge_is_not_remembered(client: httpx.AsyncClient) -> None:
    """There is nothing to warm for them: the origin's own store has their entries."""
    body = {"model": MODEL, "messages": [{"role": "user", "content": "Hello"}]}
    for _ in range(4):
        await client.post(CHAT, json=body, headers=CLIENT)
    assert await warm(client) == []


async def test_the_limit_bounds_the_answer(client: httpx.AsyncClient) -> None:
    """The hottest are told."""
    cool, hot = [decode((await ask(client, text)).content).header.key for text in ("A", "B")]
    await hit(client, cool)
    await hit(client, hot, count=5)
    assert [entry["key"] for entry in await warm(client, 1)] == [hot]


@pytest.mark.parametrize(
    "fields", [{}, {"limit": None}, {"limit": 0}, {"limit": 101}, {"limit": "1"}]
)
async def test_a_bad_limit_is_refused(client: httpx.AsyncClient, fields: dict[str, Any]) -> None:
    """By name."""
    response = await client.post(WARMING_PATH, json=fields, headers=EDGE)
    assert response.status_code == 400
    assert response.json()["error"]["param"] == "limit"


async def test_a_bad_body_is_refused(client: httpx.AsyncClient) -> None:
    """What is not JSON, and what is too much."""
    for body, status in ((b"", 400), (b" " * 2000, 413)):
        response = await client.post(WARMING_PATH, content=body, headers=EDGE)
        assert response.status_code == status


@pytest.mark.parametrize(
    ("headers", "status"),
    [({}, 404), (CLIENT, 404), ({EDGE_AUTHORIZATION: "Bearer made-up"}, 401)],
)
async def test_only_the_edge_may_ask(
    client: httpx.AsyncClient, headers: dict[str, str], status: int
) -> None:
    """For others there is no such route."""
    response = await client.post(WARMING_PATH, json={"limit": 1}, headers=headers)
    assert response.status_code == status
