"""The origin while a real Redis goes away and comes back."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import httpx
from pydantic import SecretStr

from origin.app import create_app
from origin.embedded_redis import embedded_redis
from origin.settings import Settings
from origin.stores.redis_control import RedisControlStore
from origin.stores.redis_store import RedisStore
from shared.control_document import ControlDocument
from shared.keys import key_ring, make_api_key
from tests.support.control import document_of, put_document
from tests.support.engines import MODEL, ScriptedEngine
from tests.support.serving import serving

SECRET = "a secret of the tests, long enough"


async def put_and_close(store: RedisControlStore, document: ControlDocument) -> None:
    """Put a document, and let go of the event loop that ends here."""
    await put_document(store, document)
    await store.close()


def test_outage_costs_generations_only_and_ends_by_itself(tmp_path: Path) -> None:
    """Once a control document is known no request fails; `Cache-Status` and `/readyz` say it."""
    engine = ScriptedEngine()
    api_key = make_api_key(key_ring(SECRET), "acme", bytes(15))
    with embedded_redis(tmp_path) as redis_url:
        store = RedisStore.from_url(redis_url)
        control_store = RedisControlStore.from_url(redis_url)
        asyncio.run(put_and_close(RedisControlStore.from_url(redis_url), document_of(api_key)))
    # The server has stopped: the origin starts without it.
    app = create_app(
        Settings(secret=SecretStr(SECRET)), engine=engine, store=store, control_store=control_store
    )
    headers = {"authorization": f"Bearer {api_key}"}
    with (
        serving(app, lifespan=True) as url,
        httpx.Client(base_url=url, headers=headers) as client,
    ):
        assert client.get("/v1/models").json()["error"]["code"] == "control_unavailable"

        def ask() -> str:
            body = {"model": MODEL, "messages": [{"role": "user", "content": "Hello"}]}
            response = client.post("/v1/chat/completions", json=body)
            assert response.status_code == 200
            return str(response.headers["cache-status"])

        for _ in range(2):
            with embedded_redis(tmp_path):
                deadline = time.monotonic() + 5
                while "hit" not in ask():
                    assert time.monotonic() < deadline
                assert client.get("/readyz").status_code == 200
            assert ask() == "encore-origin; fwd=miss; detail=l1-error"
            not_ready = client.get("/readyz")
            assert not_ready.status_code == 503
            assert not_ready.json()["parts"]["redis"] == "unreachable"
            assert not_ready.json()["parts"]["control"] == "unreachable"
