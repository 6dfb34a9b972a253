"""The origin's HTTP surface over an in-memory store and an engine whose steps the test decides."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import threading
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

import origin.api.answers
from origin.app import create_app
from origin.engine.contract import ModelInfo
from origin.settings import Settings
from origin.stores.contract import StoreError
from origin.stores.memory import MemoryStore
from origin.stores.memory_control import MemoryControlStore
from shared.compression import decompress
from shared.control_document import Policy
from shared.envelope import MEDIA_TYPE, SEGMENT_JSON, SEGMENT_SSE, Envelope, decode, encode
from shared.errors import UpstreamError
from shared.keys import edge_bearer, key_ring, make_api_key
from shared.wire import CONTROL_REVISION, EDGE_AUTHORIZATION, EDGE_STORE, ENTRY_PATH
from tests.support.control import control_store, document_of, put_document
from tests.support.engines import MODEL, ScriptedEngine
from tests.support.serving import serving

SECRET = "a secret of the tests, long enough"
KEYS = key_ring(SECRET)
API_KEY = make_api_key(KEYS, "acme", bytes(15))
OTHER_API_KEY = make_api_key(KEYS, "other", bytes(15))
CHAT = "/v1/chat/completions"
HELLO = {"model": MODEL, "messages": [{"role": "user", "content": "Hello"}]}
EDGE = {EDGE_AUTHORIZATION: f"Bearer {edge_bearer(KEYS)}", "accept": MEDIA_TYPE}


@pytest.fixture
def engine() -> ScriptedEngine:
    """The engine behind the application."""
    return ScriptedEngine()


@pytest.fixture
def store() -> MemoryStore:
    """The store behind the application."""
    return MemoryStore()


@pytest.fixture
def documents() -> MemoryControlStore:
    """The control documents behind the application."""
    return control_store(API_KEY, OTHER_API_KEY)


@pytest.fixture
async def client(
    engine: ScriptedEngine, store: MemoryStore, documents: MemoryControlStore
) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the application that holds a key of tenant `acme`."""
    settings = Settings(secret=SecretStr(SECRET), max_cached_body_bytes=2000, max_body_bytes=4000)
    transport = httpx.ASGITransport(
        create_app(settings, engine=engine, store=store, control_store=documents)
    )
    async with httpx.AsyncClient(
        transport=transport,
        base_url="http://origin",
        headers={"authorization": f"Bearer {API_KEY}"},
    ) as client:
        yield client


async def stored(client: httpx.AsyncClient) -> httpx.Response:
    """Ask until the answer is a hit, and return that."""
    for _ in range(100):
        response = await client.post(CHAT, json=HELLO)
        if "hit" in response.headers["cache-status"]:
            return response
        await asyncio.sleep(0)
    raise AssertionError("never a hit")


def error_of(response: httpx.Response) -> dict[str, Any]:
    """The error object of a response in OpenAI's shape."""
    error: dict[str, Any] = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return error


async def test_miss_says_so_and_hit_says_its_age(client: httpx.AsyncClient) -> None:
    """Every answer carries what DESIGN's headers promise."""
    miss = await client.post(CHAT, json=HELLO)
    assert miss.headers["cache-status"] == "encore-origin; fwd=miss; stored"
    assert "age" not in miss.headers
    hit = await stored(client)
    assert hit.headers["cache-status"].startswith("encore-origin; hit; ttl=")
    assert hit.headers["age"] == "0"
    assert hit.headers["cache-control"] == "private, no-store"
    assert hit.headers["encore-key"] == miss.headers["encore-key"]
    assert hit.headers["etag"] == miss.headers["etag"]
    assert hit.headers["server-timing"].startswith("l1;dur=")
    assert hit.json() == miss.json()


async def test_hit_leaves_as_the_stored_gzip_segment(
    client: httpx.AsyncClient, store: MemoryStore
) -> None:
    """The bytes on the wire are those in the store."""
    await stored(client)
    async with client.stream(
        "POST", CHAT, json=HELLO, headers={"accept-encoding": "gzip"}
    ) as response:
        wire = b"".join([piece async for piece in response.aiter_raw()])
    assert response.headers["content-encoding"] == "gzip"
    (encoded, _), *_rest = store._entries.values()
    assert wire == decode(encoded).segment(SEGMENT_JSON)


async def test_client_without_gzip_gets_plain_bytes(client: httpx.AsyncClient) -> None:
    """The segment is inflated for who cannot."""
    await stored(client)
    response = await client.post(CHAT, json=HELLO, headers={"accept-encoding": "identity"})
    assert "content-encoding" not in response.headers
    assert response.json()["choices"][0]["message"]["content"] == "Answer 1"


async def test_edge_gets_the_whole_envelope(client: httpx.AsyncClient) -> None:
    """On a miss and on a hit, plain and streamed."""
    miss = await client.post(CHAT, json=HELLO, headers=EDGE)
    assert miss.headers["content-type"] == MEDIA_TYPE
    envelope = decode(miss.content)
    assert envelope.header.tenant == "acme"
    await stored(client)
    hit = await client.post(CHAT, json={**HELLO, "stream": True}, headers=EDGE)
    assert hit.content == miss.content
    sse = envelope.segment(SEGMENT_SSE)
    assert sse is not None
    assert gzip.decompress(sse).endswith(b"data: [DONE]\n\n")


async def test_nobody_but_the_edge_gets_an_envelope(client: httpx.AsyncClient) -> None:
    """Asking for the media type is not enough."""
    response = await client.post(CHAT, json=HELLO, headers={"accept": MEDIA_TYPE})
    assert response.headers["content-type"] == "application/json"


async def test_wrong_edge_bearer_is_refused(client: httpx.AsyncClient) -> None:
    """A caller that claims to be the edge and is not learns nothing but that."""
    for presented in ("Bearer nope", "", "Bearer \xff"):
        headers = {EDGE_AUTHORIZATION: presented.encode("latin-1")}
        response = await client.post(CHAT, json=HELLO, headers=headers)  # type: ignore[arg-type]
        assert response.status_code == 401
        assert error_of(response)["code"] == "edge_not_trusted"


async def test_entry_is_for_the_edge_and_its_tenant(client: httpx.AsyncClient) -> None:
    """The internal route does not exist for others, and another tenant's key finds nothing."""
    key = decode((await client.post(CHAT, json=HELLO, headers=EDGE)).content).header.key
    await stored(client)
    other = {**EDGE, "authorization": f"Bearer {OTHER_API_KEY}"}
    assert (await client.get(ENTRY_PATH + key, headers=EDGE)).status_code == 200
    assert (await client.get(ENTRY_PATH + key, headers=other)).status_code == 404
    assert (await client.get(ENTRY_PATH + key)).status_code == 404


async def test_stream_ends_in_done_without_usage_unless_asked(client: httpx.AsyncClient) -> None:
    """`stream_options.include_usage` adds a last chunk and null on the others."""
    plain = await client.post(
        CHAT, json={**HELLO, "stream": True}, headers={"cache-control": "no-store"}
    )
    events = plain.text.split("\n\n")
    assert events[-2:] == ["data: [DONE]", ""]
    assert "usage" not in plain.text
    asked = await client.post(
        CHAT,
        json={**HELLO, "stream": True, "stream_options": {"include_usage": True}},
        headers={"cache-control": "no-store"},
    )
    chunks = [json.loads(event[6:]) for event in asked.text.split("\n\n")[:-2]]
    assert [chunk["usage"] for chunk in chunks[:-1]] == [None] * (len(chunks) - 1)
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"]["total_tokens"] == 5


async def test_failure_in_a_stream_is_an_event_without_done(
    client: httpx.AsyncClient, engine: ScriptedEngine
) -> None:
    """What was said cannot be taken back; the client is told that it is not whole."""
    engine.failure_after_chunks = UpstreamError("It broke.", code="broke")
    response = await client.post(CHAT, json={**HELLO, "stream": True})
    assert "[DONE]" not in response.text
    last = json.loads(response.text.split("\n\n")[-2][6:])
    assert last["error"]["code"] == "broke"


async def test_failure_before_the_stream_has_a_status(
    client: httpx.AsyncClient, engine: ScriptedEngine
) -> None:
    """Nothing said yet: the error is a response of its own."""
    engine.failure = UpstreamError("It broke.", status=503, retry_after_s=7)
    response = await client.post(CHAT, json={**HELLO, "stream": True})
    assert response.status_code == 503
    assert response.headers["retry-after"] == "7"
    assert error_of(response)["message"] == "It broke."


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        (b"{", 400, None),
        (b"[]", 400, None),
        (b'{"model":"scripted","model":"x","messages":[]}', 400, None),
        (b'{"messages":[{"role":"user","content":"x"}]}', 400, "model"),
        (b'{"model":"scripted"}', 400, "messages"),
        (
            b'{"model":"scripted","messages":[{"role":"user","content":"x"}],"temperature":"hot"}',
            400,
            "temperature",
        ),
        (b'{"model":"nope","messages":[{"role":"user","content":"x"}]}', 404, "model"),
        (b'{"model":"scripted","stream":"yes","messages":[]}', 400, "stream"),
    ],
)
async def test_bad_body_names_the_field(
    client: httpx.AsyncClient, body: bytes, status: int, param: str | None
) -> None:
    """A 4xx in OpenAI's shape, whatever is wrong."""
    response = await client.post(CHAT, content=body)
    assert response.status_code == status
    if param is not None:
        assert error_of(response)["param"] == param


@pytest.mark.parametrize(
    "authorization",
    ["", "Bearer", "Bearer ", "Basic x", "Bearer sk-encore-dev", "Bearer sk-encore-acme-x-y"],
)
async def test_missing_or_unknown_key_is_401(client: httpx.AsyncClient, authorization: str) -> None:
    """The development key is one of the unknown ones in production."""
    response = await client.post(CHAT, json=HELLO, headers={"authorization": authorization})
    assert response.status_code == 401
    assert error_of(response)["code"] in ("missing_api_key", "invalid_api_key")
    assert response.headers["www-authenticate"].startswith("Bearer")


async def test_body_over_the_cached_limit_is_answered_uncached(client: httpx.AsyncClient) -> None:
    """And one over the hard limit is a 413."""
    body = {**HELLO, "messages": [{"role": "user", "content": "x" * 2500}]}
    response = await client.post(CHAT, json=body)
    assert response.status_code == 200
    assert response.headers["cache-status"] == "encore-origin; fwd=bypass; detail=too-large"
    body = {**HELLO, "messages": [{"role": "user", "content": "x" * 5000}]}
    response = await client.post(CHAT, json=body)
    assert response.status_code == 413
    assert error_of(response)["code"] == "request_too_large"


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", CHAT, 405, "method_not_allowed"),
        ("POST", "/v1/nothing", 404, "unknown_url"),
        ("POST", f"{CHAT}/", 404, "unknown_url"),
        ("POST", "/v1/responses", 404, "unknown_url"),
        ("DELETE", "/v1/models", 405, "method_not_allowed"),
    ],
)
async def test_wrong_method_or_path(
    client: httpx.AsyncClient, method: str, path: str, status: int, code: str
) -> None:
    """Named, in OpenAI's shape."""
    response = await client.request(method, path)
    assert response.status_code == status
    assert error_of(response)["code"] == code
    assert ("allow" in response.headers) == (status == 405)


async def test_models_need_a_key_and_can_be_had_one_by_one(client: httpx.AsyncClient) -> None:
    """`GET /v1/models` and `/v1/models/{id}`."""
    listed = (await client.get("/v1/models")).json()
    assert [model["id"] for model in listed["data"]] == [MODEL]
    assert (await client.get(f"/v1/models/{MODEL}")).json()["object"] == "model"
    assert error_of(await client.get("/v1/models/nope"))["param"] == "model"
    assert (await client.get("/v1/models", headers={"authorization": ""})).status_code == 401


async def test_health_and_readiness_need_no_key(client: httpx.AsyncClient) -> None:
    """For load balancers."""
    assert (await client.get("/healthz", headers={"authorization": ""})).status_code == 200
    ready = await client.get("/readyz", headers={"authorization": ""})
    assert ready.json() == {
        "status": "ready",
        "parts": {"redis": "ok", "control": "ok", "engine": "ok", "models": "ok"},
    }


@pytest.mark.parametrize(("size_bytes", "is_beside"), [(100, False), (200_000, True)])
async def test_large_answers_are_inflated_beside_the_event_loop(
    client: httpx.AsyncClient,
    store: MemoryStore,
    monkeypatch: pytest.MonkeyPatch,
    size_bytes: int,
    is_beside: bool,
) -> None:
    """For clients without gzip; others wait for none of it."""
    await stored(client)
    envelope = decode(next(iter(store._entries.values()))[0])
    answer = json.dumps({"said": os.urandom(size_bytes // 2).hex()}).encode()
    packed = gzip.compress(answer, mtime=0)
    header = replace(envelope.header, segments={SEGMENT_JSON: len(packed)})
    entry = encode(Envelope(header=header, payload=packed))
    await store.put(header.key, entry, header.expires_ms)
    threads: list[int] = []

    def noting(data: bytes, *, max_bytes: int) -> bytes:
        threads.append(threading.get_ident())
        return decompress(data, max_bytes=max_bytes)

    monkeypatch.setattr(origin.api.answers, "decompress", noting)
    hit = await client.post(CHAT, json=HELLO, headers={"accept-encoding": "identity"})
    assert hit.content == answer
    (thread,) = threads
    assert (thread != threading.get_ident()) == is_beside


async def test_probes_that_come_together_are_told_the_same(
    client: httpx.AsyncClient, engine: ScriptedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The engine is asked once; nobody is told of it before it has answered."""
    models, asked = engine.models, 0

    async def models_later() -> Sequence[ModelInfo]:
        nonlocal asked
        asked += 1
        await asyncio.sleep(0.01)
        return await models()

    monkeypatch.setattr(engine, "models", models_later)
    probes = await asyncio.gather(*(client.get("/readyz") for _ in range(3)))
    assert [probe.status_code for probe in probes] == [200] * 3
    assert asked == 1


async def test_engine_that_does_not_answer_is_not_ready(
    client: httpx.AsyncClient, engine: ScriptedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who asks does not wait for it."""
    monkeypatch.setattr("origin.api.health.PATIENCE_S", 0.01)
    monkeypatch.setattr(engine, "models", asyncio.Event().wait)
    ready = await client.get("/readyz")
    assert ready.status_code == 503
    assert ready.json()["parts"]["engine"] == "slow"


async def test_entry_in_an_outage_is_a_503(
    client: httpx.AsyncClient, store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The edge is not told that there is none."""

    async def fails(_key: str) -> bytes:
        raise StoreError("no")

    monkeypatch.setattr(store, "get", fails)
    response = await client.get(ENTRY_PATH + "0" * 64, headers=EDGE)
    assert response.status_code == 503
    assert response.headers["retry-after"] == "1"


async def test_bug_is_a_500_in_openais_shape_and_its_text_is_not_logged(
    client: httpx.AsyncClient,
    store: MemoryStore,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What an exception says may quote a prompt: neither client nor log is told."""

    async def fail(_key: str) -> None:
        raise RuntimeError("prompt: s3cret")

    monkeypatch.setattr(store, "get", fail)
    response = await client.post(CHAT, json=HELLO)
    assert response.status_code == 500
    assert "s3cret" not in error_of(response)["message"]
    assert "RuntimeError" in caplog.text
    assert "s3cret" not in caplog.text


async def test_development_key_needs_loopback_and_a_loopback_host(engine: ScriptedEngine) -> None:
    """Neither another machine nor a page with a rebound name may use the well-known key."""
    settings = Settings(secret=SecretStr(SECRET), mode="development")
    app = create_app(
        settings, engine=engine, store=MemoryStore(), control_store=MemoryControlStore()
    )
    key = {"authorization": "Bearer sk-encore-dev"}
    statuses = []
    for peer, host in (
        ("127.0.0.1", "127.0.0.1:8000"),
        ("::1", "[::1]:8000"),
        ("127.0.0.1", "localhost"),
        ("127.0.0.1", "rebound.example:8000"),
        ("10.0.0.9", "127.0.0.1:8000"),
    ):
        transport = httpx.ASGITransport(app, client=(peer, 1))
        async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
            response = await client.get("/v1/models", headers={**key, "host": host})
        statuses.append(response.status_code)
    assert statuses == [200, 200, 200, 401, 401]


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
async def test_client_that_leaves_stops_its_generation(
    engine: ScriptedEngine, stream: bool
) -> None:
    """Over a real connection: closing it ends the run."""
    app = create_app(
        Settings(secret=SecretStr(SECRET)),
        engine=engine,
        store=MemoryStore(),
        control_store=control_store(API_KEY, OTHER_API_KEY),
    )
    engine.gate.clear()
    headers = {"authorization": f"Bearer {API_KEY}"}
    with serving(app) as url, pytest.raises(httpx.ReadTimeout):
        async with (
            httpx.AsyncClient(base_url=url, headers=headers, timeout=0.5) as client,
            client.stream("POST", CHAT, json={**HELLO, "stream": stream}) as response,
        ):
            await response.aread()
    assert engine.cancelled == 1


async def test_streamed_request_for_an_answer_that_cannot_be_streamed_is_an_error(
    client: httpx.AsyncClient, engine: ScriptedEngine
) -> None:
    """An upstream that ignores `stream` and answers nonsense gets a status, no broken stream."""
    engine.whole = {"choices": [{"index": 0}]}
    response = await client.post(CHAT, json={**HELLO, "stream": True})
    assert response.status_code == 502
    assert error_of(response)["code"] == "answer_not_streamable"


async def test_readiness_asks_the_engine_rarely(
    client: httpx.AsyncClient, engine: ScriptedEngine
) -> None:
    """Behind the engine may be somebody else's API."""
    for _ in range(10):
        assert (await client.get("/readyz")).status_code == 200
    assert engine.listings == 1


async def test_malformed_control_names_the_header(client: httpx.AsyncClient) -> None:
    """`Encore-Bucket: many` is a 400."""
    response = await client.post(CHAT, json=HELLO, headers={"encore-bucket": "many"})
    assert response.status_code == 400
    assert error_of(response)["param"] == "Encore-Bucket"


async def test_edge_is_told_the_revision_and_clients_are_not(
    client: httpx.AsyncClient, documents: MemoryControlStore, engine: ScriptedEngine
) -> None:
    """On every answer after authentication: miss, stream, hit, error, entry and no entry."""
    revision = str(await documents.revision("acme"))
    miss = await client.post(CHAT, json=HELLO, headers=EDGE)
    key = decode(miss.content).header.key
    assert CONTROL_REVISION not in (await stored(client)).headers
    answers = [
        miss,
        await client.post(CHAT, json=HELLO, headers=EDGE),
        await client.post(CHAT, json={**HELLO, "stream": True, "seed": 1}, headers=EDGE),
        await client.post(CHAT, content=b"{", headers=EDGE),
        await client.get(ENTRY_PATH + key, headers=EDGE),
        await client.get(ENTRY_PATH + "0" * 64, headers=EDGE),
    ]
    engine.failure = UpstreamError("It broke.")
    answers.append(await client.post(CHAT, json={**HELLO, "seed": 2}, headers=EDGE))
    assert [a.status_code for a in answers] == [200, 200, 200, 400, 200, 404, 502]
    assert {a.headers.get(CONTROL_REVISION) for a in answers} == {revision}
    refused = await client.post(CHAT, json=HELLO, headers={**EDGE, "authorization": "Bearer x"})
    assert CONTROL_REVISION not in refused.headers


async def test_edge_is_granted_one_write(client: httpx.AsyncClient) -> None:
    """With the first answer that carries the entry; a direct client is granted and counts nothing.

    `Cache-Status` says nothing of it.
    """
    assert EDGE_STORE not in (await client.post(CHAT, json=HELLO)).headers
    assert EDGE_STORE not in (await stored(client)).headers
    first = await client.post(CHAT, json=HELLO, headers=EDGE)
    second = await client.post(CHAT, json=HELLO, headers=EDGE)
    assert first.headers[EDGE_STORE] == "1"
    assert EDGE_STORE not in second.headers
    assert "stored" not in first.headers["cache-status"]
    other = await client.post(CHAT, json={**HELLO, "seed": 1}, headers=EDGE)
    assert other.headers[EDGE_STORE] == "1"


async def test_edge_is_granted_the_entry_that_it_comes_back_for(
    client: httpx.AsyncClient, store: MemoryStore
) -> None:
    """After a streamed miss, whose answer carries no entry."""
    streamed = await client.post(CHAT, json={**HELLO, "stream": True}, headers=EDGE)
    assert EDGE_STORE not in streamed.headers
    await stored(client)
    (key,) = store._entries
    fetched = [await client.get(ENTRY_PATH + key, headers=EDGE) for _ in range(2)]
    assert [answer.headers.get(EDGE_STORE) for answer in fetched] == ["1", None]


async def test_origin_only_entries_are_granted_to_nobody(
    client: httpx.AsyncClient, documents: MemoryControlStore
) -> None:
    """By residency; the answer is the same."""
    await put_document(documents, document_of(API_KEY, policy=Policy(residency="origin-only")))
    answer = await client.post(CHAT, json=HELLO, headers=EDGE)
    assert answer.status_code == 200
    assert EDGE_STORE not in answer.headers


async def test_edge_warms_by_its_bearer_and_a_tenants_name(client: httpx.AsyncClient) -> None:
    """Without a client: what the tenant has that it names, and nobody but the edge may."""
    key = decode((await client.post(CHAT, json=HELLO, headers=EDGE)).content).header.key
    await stored(client)
    del client.headers["authorization"]
    path = ENTRY_PATH + key
    warmed = await client.get(path, params={"tenant": "acme"}, headers=EDGE)
    assert warmed.status_code == 200
    assert decode(warmed.content).header.key == key
    for query in ("tenant=other", "tenant=nobody", "tenant=", "", "tenant=acme&tenant=other"):
        assert (await client.get(f"{path}?{query}", headers=EDGE)).status_code == 404
    unknown = await client.get(path, params={"tenant": "acme"})
    assert error_of(unknown)["code"] == "unknown_url"
    wrong = {EDGE_AUTHORIZATION: "Bearer nope"}
    answer = await client.get(path, params={"tenant": "acme"}, headers=wrong)
    assert answer.status_code == 401


async def test_client_cannot_name_another_tenant(client: httpx.AsyncClient) -> None:
    """Where an API key is shown, it alone says whose entry may be had."""
    key = decode((await client.post(CHAT, json=HELLO, headers=EDGE)).content).header.key
    await stored(client)
    for authorization, status in ((f"Bearer {OTHER_API_KEY}", 404), ("", 401), ("Bearer x", 401)):
        headers = {**EDGE, "authorization": authorization}
        answer = await client.get(ENTRY_PATH + key, params={"tenant": "acme"}, headers=headers)
        assert answer.status_code == status


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
@pytest.mark.parametrize("encoding", ["gzip", "identity"])
async def test_encrypted_tenants_client_gets_plain_answers(
    client: httpx.AsyncClient, documents: MemoryControlStore, stream: bool, encoding: str
) -> None:
    """A miss and a hit alike; the edge gets what the store holds, sealed."""
    await put_document(documents, document_of(API_KEY, policy=Policy(encrypted=True)))
    body, headers = {**HELLO, "stream": stream}, {"accept-encoding": encoding}
    miss = await client.post(CHAT, json=body, headers=headers)
    assert "Answer" in miss.text
    await stored(client)
    hit = await client.post(CHAT, json=body, headers=headers)
    assert "hit" in hit.headers["cache-status"]
    assert "Answer 1" in hit.text
    sealed = decode((await client.post(CHAT, json=body, headers=EDGE)).content)
    assert sealed.header.encryption == KEYS.id
    assert not sealed.payload.startswith(b"\x1f\x8b")


async def test_damage_to_a_sealed_entry_costs_no_client_anything(
    client: httpx.AsyncClient, documents: MemoryControlStore, store: MemoryStore
) -> None:
    """It is a miss, replaced."""
    await put_document(documents, document_of(API_KEY, policy=Policy(encrypted=True)))
    await stored(client)
    ((key, (encoded, expires_at_ms)),) = store._entries.items()
    envelope = decode(encoded)
    damaged = Envelope(header=envelope.header, payload=bytes(len(envelope.payload)))
    await store.put(key, encode(damaged), expires_at_ms)
    answer = await client.post(CHAT, json=HELLO)
    assert answer.status_code == 200
    assert answer.headers["cache-status"] == (
        "encore-origin; fwd=miss; stored; detail=l1-undecodable"
    )
