"""The edge's counters over HTTP: its flushes come in, and what they tell goes on."""

from __future__ import annotations

import json
from collections.abc import Mapping

import httpx
import pytest
from pydantic import SecretStr

from origin.app import create_app
from origin.settings import Settings
from origin.stores.memory import MemoryStore
from origin.stores.memory_usage import MemoryUsageStore
from origin.stores.redis_usage import RedisUsageStore
from origin.stores.usage_contract import Kept, UsageStore
from shared.counts import MAX_FLUSH_BYTES, Counts
from shared.keys import edge_bearer, key_ring, make_api_key
from shared.wire import COUNTERS_PATH, EDGE_AUTHORIZATION
from tests.support.control import control_store, document_of
from tests.support.engines import MODEL, ScriptedEngine

SECRET = "a secret of the tests, long enough"
KEYS = key_ring(SECRET)
API_KEY = make_api_key(KEYS, "acme", bytes(15))
EDGE = {EDGE_AUTHORIZATION: f"Bearer {edge_bearer(KEYS)}"}


def client_of(store: UsageStore) -> httpx.AsyncClient:
    """A client of an application over this store and one tenant."""
    app = create_app(
        Settings(secret=SecretStr(SECRET)),
        engine=ScriptedEngine(),
        store=MemoryStore(),
        control_store=control_store(API_KEY),
        usage_store=store,
    )
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://origin")


def flush(controls: Mapping[str, int] | None = None) -> bytes:
    """What an isolate sends that has answered one request of `acme` from KV."""
    counts = Counts()
    counts.count("acme", "hit", latency_ms=3, body_bytes=100, short_key="0" * 16)
    return counts.take(controls) or b""


async def test_flushes_add_up() -> None:
    """Each is added once."""
    store = MemoryUsageStore()
    async with client_of(store) as client:
        for _ in range(3):
            response = await client.post(COUNTERS_PATH, content=flush(), headers=EDGE)
            assert response.status_code == 200
            assert response.json() == {"controls": {}}
            assert response.headers["cache-control"] == "private, no-store"
    kept = await store.read("acme", top=1)
    assert kept.numbers[None, None, "requests", "edge", "hit", None] == 3
    assert kept.numbers[None, None, "bytes", "edge"] == 300
    assert [(hot.key, hot.hits) for hot in kept.hottest] == [("0" * 16, 3)]


async def test_the_edge_hears_of_newer_documents() -> None:
    """Of those it has an older revision of, and of no others."""
    revision = document_of(API_KEY).revision
    async with client_of(MemoryUsageStore()) as client:
        told = []
        for held in ({"acme": 5, "unknown": 5}, {"acme": revision + 10**6}, {}):
            response = await client.post(COUNTERS_PATH, content=flush(held), headers=EDGE)
            told.append(response.json()["controls"])
    assert [set(controls) for controls in told] == [{"acme"}, set(), set()]
    assert told[0]["acme"] > 5


@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        ({}, 404, "unknown_url"),
        ({"authorization": f"Bearer {API_KEY}"}, 404, "unknown_url"),
        ({EDGE_AUTHORIZATION: "Bearer made-up"}, 401, "edge_not_trusted"),
    ],
)
async def test_nobody_else_is_heard(headers: dict[str, str], status: int, code: str) -> None:
    """The route does not exist for clients."""
    store = MemoryUsageStore()
    async with client_of(store) as client:
        response = await client.post(COUNTERS_PATH, content=flush(), headers=headers)
    assert response.status_code == status
    assert response.json()["error"]["code"] == code
    assert await store.read("acme", top=1) == Kept()


@pytest.mark.parametrize(
    "body", [b"", b"{}", b"\xff", b"[1]", flush().replace(b'"hit"', b'"eaten"')]
)
async def test_what_is_no_flush_is_refused(body: bytes) -> None:
    """Nothing of it is counted."""
    store = MemoryUsageStore()
    async with client_of(store) as client:
        response = await client.post(COUNTERS_PATH, content=body, headers=EDGE)
    assert response.status_code == 400
    assert response.json()["error"]["code"] == "invalid_counters"
    assert await store.read("acme", top=1) == Kept()


async def test_too_large_a_flush_is_refused() -> None:
    """Without being read."""
    async with client_of(MemoryUsageStore()) as client:
        body = b" " * (MAX_FLUSH_BYTES + 1)
        response = await client.post(COUNTERS_PATH, content=body, headers=EDGE)
    assert response.status_code == 413


async def test_an_outage_costs_the_counts_and_nothing_else() -> None:
    """A 503 for the flush and for who reads; requests are answered."""
    async with client_of(RedisUsageStore.from_url("redis://127.0.0.1:1")) as client:
        authorization = {"authorization": f"Bearer {API_KEY}"}
        for response in (
            await client.post(COUNTERS_PATH, content=flush(), headers=EDGE),
            await client.get("/cache/stats", headers=authorization),
        ):
            assert response.status_code == 503
            assert response.json()["error"]["code"] == "counters_unavailable"
            assert response.headers["retry-after"] == "1"
        response = await client.post(
            "/v1/chat/completions",
            content=json.dumps({"model": MODEL, "messages": [{"role": "user", "content": "Hi"}]}),
            headers=authorization,
        )
        assert response.status_code == 200
