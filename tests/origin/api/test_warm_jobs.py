"""`POST /cache/warm` and `GET /cache/warm/{id}`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from origin.api.warm_jobs import MAX_REQUESTS
from origin.app import create_app
from origin.settings import Settings
from origin.stores.memory import MemoryStore
from origin.stores.memory_jobs import MemoryJobStore
from shared.keys import key_ring, make_api_key
from tests.support.control import control_store
from tests.support.engines import MODEL, ScriptedEngine

SECRET = "a secret of the tests, long enough"
KEYS = key_ring(SECRET)
ADMIN, OTHER = (make_api_key(KEYS, tenant, bytes(15)) for tenant in ("acme", "other"))
CLIENT = make_api_key(KEYS, "acme", bytes(14) + b"x")
CHAT = {"model": MODEL, "messages": [{"role": "user", "content": "secret words"}]}


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    """A client of an application that works on its jobs, with the admin's key."""
    app = create_app(
        Settings(secret=SecretStr(SECRET), max_cached_body_bytes=2000),
        engine=ScriptedEngine(),
        store=MemoryStore(),
        control_store=control_store(CLIENT, admins=[ADMIN, OTHER]),
        job_store=MemoryJobStore(),
    )
    messages: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    sent: asyncio.Queue[Any] = asyncio.Queue()
    lifespan = asyncio.ensure_future(app({"type": "lifespan"}, messages.get, sent.put))
    messages.put_nowait({"type": "lifespan.startup"})
    assert (await sent.get())["type"] == "lifespan.startup.complete"
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app),
        base_url="http://origin",
        headers={"authorization": f"Bearer {ADMIN}"},
    ) as client:
        yield client
    messages.put_nowait({"type": "lifespan.shutdown"})
    await lifespan


async def test_job_is_accepted_and_done(client: httpx.AsyncClient) -> None:
    """Its status has counts and times, and nothing of what was asked; the next request is a hit."""
    response = await client.post("/cache/warm", json={"requests": [{"body": CHAT}]})
    assert response.status_code == 202
    job = response.json()
    assert (job["status"], job["requests"], job["done"]) == ("waiting", 1, 0)
    while job["status"] != "done":
        await asyncio.sleep(0.005)
        status = await client.get(f"/cache/warm/{job['id']}")
        assert status.status_code == 200
        assert "secret" not in status.text
        job = status.json()
    assert {name: job[name] for name in ("done", "generated", "stored", "cached", "failed")} == {
        "done": 1,
        "generated": 1,
        "stored": 1,
        "cached": 0,
        "failed": {},
    }
    hit = await client.post("/v1/chat/completions", json=CHAT)
    assert hit.headers["cache-status"].startswith("encore-origin; hit")


async def test_only_admins_warm(client: httpx.AsyncClient) -> None:
    """A client's key, or none, does not."""
    for key, status in ((CLIENT, 403), ("sk-encore-acme-x-y", 401)):
        headers = {"authorization": f"Bearer {key}"}
        body = {"requests": [{"body": CHAT}]}
        assert (await client.post("/cache/warm", json=body, headers=headers)).status_code == status
        assert (await client.get("/cache/warm/x", headers=headers)).status_code == status


async def test_jobs_are_their_tenants(client: httpx.AsyncClient) -> None:
    """Another tenant's admin does not see them."""
    job = (await client.post("/cache/warm", json={"requests": [{"body": CHAT}]})).json()["id"]
    headers = {"authorization": f"Bearer {OTHER}"}
    response = await client.get(f"/cache/warm/{job}", headers=headers)
    assert (response.status_code, response.json()["error"]["code"]) == (404, "no_job")


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "requests"),
        ({"requests": []}, "requests"),
        ({"requests": [{"body": CHAT}] * (MAX_REQUESTS + 1)}, "requests"),
        ({"requests": [1]}, "requests[0]"),
        ({"requests": [{"body": CHAT}, {"body": {"model": 1}}]}, "requests[1].body.messages"),
        ({"requests": [{"body": {**CHAT, "user": "x" * 3000}}]}, "requests[0].body"),
        ({"requests": [{"body": CHAT}], "when": "soon"}, "when"),
        ({"requests": [{"body": CHAT}], "when": "quiet"}, "when"),
        ({"requests": [{"body": CHAT}], "tenant": "other"}, "tenant"),
    ],
)
async def test_what_is_wrong_is_named(client: httpx.AsyncClient, body: Any, param: str) -> None:
    """By its field; nothing of it is begun."""
    response = await client.post("/cache/warm", json=body)
    assert response.status_code == 400
    error = response.json()["error"]
    assert error["param"] == param
    assert "secret" not in response.text
