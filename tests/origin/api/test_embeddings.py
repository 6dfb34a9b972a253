"""`/v1/embeddings` over HTTP: what batches say of themselves, and what the edge is given."""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from origin.app import create_app
from origin.settings import Settings
from origin.stores.memory import MemoryStore
from shared.compression import decompress
from shared.envelope import MEDIA_TYPE, SEGMENT_JSON, SEGMENT_JSON_BASE64, decode
from shared.errors import UpstreamError
from shared.keys import edge_bearer, key_ring, make_api_key
from shared.wire import EDGE_AUTHORIZATION, EDGE_STORE
from tests.support.control import control_store
from tests.support.engines import MODEL, VectorEngine, vector_of

SECRET = "a secret of the tests, long enough"
KEYS = key_ring(SECRET)
API_KEY = make_api_key(KEYS, "acme", bytes(15))
EDGE = {EDGE_AUTHORIZATION: f"Bearer {edge_bearer(KEYS)}", "accept": MEDIA_TYPE}


@pytest.fixture
def engine() -> VectorEngine:
    """The engine behind the application."""
    return VectorEngine()


@pytest.fixture
async def client(engine: VectorEngine) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the application that holds a key of tenant `acme`."""
    settings = Settings(secret=SecretStr(SECRET), max_cached_body_bytes=2000)
    app = create_app(
        settings, engine=engine, store=MemoryStore(), control_store=control_store(API_KEY)
    )
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app),
        base_url="http://origin",
        headers={"authorization": f"Bearer {API_KEY}"},
    ) as client:
        yield client


async def ask(
    client: httpx.AsyncClient, given: Any, headers: dict[str, str] | None = None, **fields: Any
) -> httpx.Response:
    """One request for embeddings."""
    body = {"model": MODEL, "input": given, **fields}
    return await client.post("/v1/embeddings", json=body, headers=headers)


async def known(client: httpx.AsyncClient, given: Any, *args: Any, **named: Any) -> httpx.Response:
    """The same request, asked until it is a hit: entries are stored behind the answer."""
    for _ in range(200):
        response = await ask(client, given, *args, **named)
        if "; hit" in response.headers["cache-status"]:
            return response
    raise AssertionError("never a hit")


@pytest.mark.parametrize("coding", ["gzip", "identity"])
async def test_batches_say_how_much_was_known(client: httpx.AsyncClient, coding: str) -> None:
    """A miss, part of it known, all of it known; no key, no entity tag, kept by nobody else."""
    accept = {"accept-encoding": coding}
    miss = await ask(client, ["a", "b"], accept)
    assert miss.headers["cache-status"] == (
        'encore-origin; fwd=miss; stored; detail="elements=0/2"'
    )
    hit = await known(client, ["b", "a"], accept)
    assert hit.headers["cache-status"].startswith("encore-origin; hit; ttl=")
    assert hit.headers["cache-status"].endswith('; detail="elements=2/2"')
    partly = await ask(client, ["a", "c", "b"], accept)
    assert 'fwd=miss; stored; detail="elements=2/3"' in partly.headers["cache-status"]
    assert hit.headers["age"] == "0"
    assert hit.headers["server-timing"].startswith("l1;dur=")
    assert partly.headers["server-timing"].startswith("engine;dur=")
    for response in (miss, hit, partly):
        assert response.headers["cache-control"] == "private, no-store"
        assert response.headers.get("content-encoding", "identity") == coding
        assert response.headers["vary"] == "accept-encoding"
        assert not {"encore-key", "etag"} & response.headers.keys()
    assert [datum["embedding"] for datum in hit.json()["data"]] == [
        list(struct.unpack("<3f", struct.pack("<3f", *vector_of(text)))) for text in "ba"
    ]


async def test_edge_gets_an_entry_of_one_input_with_both_encodings(
    client: httpx.AsyncClient,
) -> None:
    """In one envelope that it may keep."""
    response = await ask(client, "a", EDGE, encoding_format="base64")
    assert response.headers["content-type"] == MEDIA_TYPE
    assert response.headers[EDGE_STORE] == "1"
    entry = decode(response.content)
    floats, encoded = (
        json.loads(decompress(entry.segment(name) or b"", max_bytes=1000))
        for name in (SEGMENT_JSON, SEGMENT_JSON_BASE64)
    )
    data = base64.b64decode(encoded["data"][0]["embedding"])
    assert data == struct.pack("<3f", *floats["data"][0]["embedding"])
    assert floats["usage"] == encoded["usage"] == {"prompt_tokens": 1, "total_tokens": 1}


async def test_edge_gets_a_batch_as_any_client_does(client: httpx.AsyncClient) -> None:
    """There is no entry of it to keep."""
    response = await ask(client, ["a", "b"], EDGE)
    assert response.headers["content-type"] == "application/json"
    assert EDGE_STORE not in response.headers


@pytest.mark.parametrize(
    ("given", "fields", "param"),
    [
        (["a", "", "c"], {}, "input[1]"),
        (["a", "b", "bad"], {}, "input[2]"),
        (["a", "b"], {"encoding_format": "hex"}, "encoding_format"),
        (["a", "b"], {"stream": True}, "stream"),
        (["a", "b"], {"dimensions": 0}, "dimensions"),
        (["a"] * 2049, {}, "input"),
    ],
)
async def test_errors_name_the_field(
    client: httpx.AsyncClient, given: Any, fields: dict[str, Any], param: str
) -> None:
    """Also where the other inputs are known already."""
    await known(client, ["a", "b"])
    response = await ask(client, given, **fields)
    assert (response.status_code, response.json()["error"]["param"]) == (400, param)


async def test_failures_keep_their_status(client: httpx.AsyncClient, engine: VectorEngine) -> None:
    """An engine's own, and 504 for who asked for nothing but the cache."""
    await known(client, ["a", "b"])
    engine.failure = UpstreamError("down", status=503, retry_after_s=3)
    failed = await ask(client, ["a", "c"])
    assert (failed.status_code, failed.headers["retry-after"]) == (503, "3")
    only = {"cache-control": "only-if-cached"}
    assert (await ask(client, ["a", "b"], only)).status_code == 200
    assert (await ask(client, ["a", "c"], only)).status_code == 504


@pytest.mark.parametrize("why", ["no-store", "too-large"])
async def test_what_is_not_cached_is_answered_as_it_comes(
    client: httpx.AsyncClient, engine: VectorEngine, why: str
) -> None:
    """In one run, in the encoding that was asked for."""
    texts = ["a", "b" * (3000 if why == "too-large" else 1)]
    headers = {"cache-control": "no-store"} if why == "no-store" else {}
    response = await ask(client, texts, headers, encoding_format="base64")
    assert response.headers["cache-status"] == f"encore-origin; fwd=bypass; detail={why}"
    data = [base64.b64decode(datum["embedding"]) for datum in response.json()["data"]]
    assert data == [struct.pack("<3f", *vector_of(text)) for text in texts]
    assert engine.asked == [texts]
