"""Dry runs: what would die is told, and nothing does."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from origin.app import create_app
from origin.audit import ORIGIN
from origin.control import Control
from origin.dry_run import dry_run
from origin.entries import entry_to_be
from origin.purge_requests import purge_of
from origin.settings import Settings
from origin.stores.contract import StoreError
from origin.stores.control_contract import COMMON_LOG
from origin.stores.memory import MemoryStore
from origin.stores.memory_control import MemoryControlStore
from shared.control_document import decode, objection
from shared.envelope import Envelope, Header, encode
from shared.keys import key_ring, key_rings, make_api_key, tag_digest
from tests.support.control import control_store
from tests.support.engines import ScriptedEngine

SECRET = "a secret of the tests, long enough"
KEYS = key_ring(SECRET)
ADMIN = make_api_key(KEYS, "acme", bytes(15))
OPERATOR = make_api_key(KEYS, "operator", bytes(15))
HOUR_MS = 3_600_000
PURGE = "/cache/purge"
EVERYTHING = {"everything": True}


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """No waiting."""
    monkeypatch.setattr("origin.control.MEMO_S", 0)


@pytest.fixture
def control_documents() -> MemoryControlStore:
    """Those of two tenants."""
    return control_store(admins=[ADMIN, OPERATOR])


def key_of(number: int) -> str:
    """A cache key."""
    return f"{number:016x}" * 4


def header(tenant: str, number: int, now_ms: int, *, age_ms: int = 0) -> Header:
    """Of an entry: models, tags and keys go by its number."""
    return entry_to_be(
        key=key_of(number),
        tenant=tenant,
        model="even" if number % 2 == 0 else "odd",
        generation_started_ms=now_ms - age_ms,
        fingerprint="f",
        tags=(tag_digest(KEYS, tenant, f"tag-{number % 3}"),),
        encryption=None,
    )


@pytest.fixture
async def headers(control_documents: MemoryControlStore) -> list[Header]:
    """Of 12 entries of one tenant, 5 of another, 2 that died before and some of nobody."""
    now_ms = await control_documents.now_ms()
    return [
        *(header("acme", number, now_ms, age_ms=number * 1000) for number in range(12)),
        *(header("operator", 100 + number, now_ms) for number in range(5)),
        *(header("acme", 200 + number, now_ms, age_ms=10 * HOUR_MS) for number in range(2)),
        header("nobody", 300, now_ms),
    ]


@pytest.fixture
async def store(headers: list[Header], control_documents: MemoryControlStore) -> MemoryStore:
    """These entries, and something that is none."""
    store = MemoryStore()
    now_ms = await control_documents.now_ms()
    for each in headers:
        envelope = encode(Envelope(header=each, payload=b"x"))
        await store.put(each.key, envelope, now_ms + HOUR_MS)
    await store.put("f" * 64, b"no envelope", now_ms + HOUR_MS)
    return store


@pytest.fixture
async def client(
    store: MemoryStore, control_documents: MemoryControlStore
) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the application."""
    app = create_app(
        Settings(secret=SecretStr(SECRET)),
        engine=ScriptedEngine(),
        store=store,
        control_store=control_documents,
    )
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app), base_url="http://origin"
    ) as client:
        yield client


async def post(client: httpx.AsyncClient, api_key: str, body: dict[str, Any]) -> dict[str, Any]:
    """Purge, or as if."""
    headers = {"authorization": f"Bearer {api_key}"}
    response = await client.post(PURGE, json=body, headers=headers)
    assert response.status_code == 200, response.text
    fields: dict[str, Any] = response.json()
    return fields


async def alive(control_documents: MemoryControlStore, headers: Sequence[Header]) -> set[str]:
    """The keys of those that may answer."""
    keys = set()
    for each in headers:
        text = await control_documents.load(each.tenant)
        if text is not None and objection(decode(text, each.tenant), each) is None:
            keys.add(each.key)
    return keys


@pytest.mark.parametrize(
    ("body", "entries"),
    [
        (EVERYTHING, 12),
        ({"models": ["odd"]}, 6),
        ({"models": ["none"]}, 0),
        ({"tags": ["tag-0"]}, 4),
        ({"tags": ["tag-0"], "models": ["odd"]}, 8),
        ({"keys": [key_of(7), key_of(100)]}, 1),
        ({"everything": True, "older_than_s": 8}, 4),
        ({"everything": True, "tenant": "acme"}, 12),
        ({"everything": True, "tenant": "*"}, 17),
    ],
)
async def test_a_dry_run_says_what_the_purge_then_does(
    client: httpx.AsyncClient,
    control_documents: MemoryControlStore,
    headers: list[Header],
    body: dict[str, Any],
    entries: int,
) -> None:
    """No more and no less; of what is dead already, or another's, nothing."""
    api_key = OPERATOR if "tenant" in body else ADMIN
    documents = dict(control_documents._documents)
    before = await alive(control_documents, headers)
    said = await post(client, api_key, {**body, "dry_run": True})
    size = len(encode(Envelope(header=headers[0], payload=b"x")))
    assert said.pop("bytes") == pytest.approx(entries * size, abs=10 * entries)
    tenant = body.get("tenant", "acme")
    assert said == {"tenant": tenant, "dry_run": True, "entries": entries, "complete": True}
    assert dict(control_documents._documents) == documents
    await post(client, api_key, body)
    assert len(before - await alive(control_documents, headers)) == entries


async def test_a_dry_run_is_recorded_as_one(
    client: httpx.AsyncClient, control_documents: MemoryControlStore
) -> None:
    """With what it found, beside what changed nothing either."""
    await post(client, ADMIN, {"models": ["odd"], "dry_run": True})
    ((_, text),) = (await control_documents.records({COMMON_LOG: "0-0"}))[COMMON_LOG]
    record = json.loads(text)
    assert (record["action"], record["outcome"]) == ("purge", "dry-run")
    assert (record["tenant"], record["models"], record["entries"]) == ("acme", 1, 6)
    assert record["actor_tenant"] == "acme"
    assert await control_documents.records({"acme": "0-0"}) == {}


class EndlessStore(MemoryStore):
    """A store that tells of an entry again and again."""

    async def openings(self, length: int) -> AsyncGenerator[Sequence[tuple[bytes, int]], None]:
        """See Store.openings."""
        async for some in super().openings(length):
            first = some
            break
        while True:
            await asyncio.sleep(0)
            yield first


@pytest.mark.parametrize("bound", ["time", "number"])
async def test_a_dry_run_ends_and_says_that_it_is_not_complete(
    control_documents: MemoryControlStore, bound: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However much there is; what is told of twice counts once."""
    store = EndlessStore()
    now_ms = await control_documents.now_ms()
    entry = encode(Envelope(header=header("acme", 1, now_ms), payload=b"x"))
    await store.put(key_of(1), entry, now_ms + HOUR_MS)
    if bound == "number":
        monkeypatch.setattr("origin.dry_run.MAX_LOOKED_AT", 10)
    control = Control(control_documents, longest_life_ms=0)
    purge = purge_of(key_rings(SECRET), "acme", everything=True)
    max_s = 0.05 if bound == "time" else 3600
    found = await dry_run(control, store, "acme", purge, ORIGIN, max_s=max_s)
    assert (found.entries, found.size_bytes, found.is_complete) == (1, len(entry), False)


async def test_a_dry_run_of_nobody_is_a_404(client: httpx.AsyncClient) -> None:
    """As a purge would be."""
    body = {"everything": True, "tenant": "nobody", "dry_run": True}
    response = await client.post(PURGE, json=body, headers={"authorization": f"Bearer {OPERATOR}"})
    assert (response.status_code, response.json()["error"]["code"]) == (404, "no_tenant")


async def test_a_dry_run_in_an_outage_is_a_503(
    client: httpx.AsyncClient, store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Never "nothing"."""

    async def fail(_: int) -> AsyncGenerator[Sequence[tuple[bytes, int]], None]:
        raise StoreError("down")
        yield []

    monkeypatch.setattr(store, "openings", fail)
    response = await client.post(
        PURGE, json={**EVERYTHING, "dry_run": True}, headers={"authorization": f"Bearer {ADMIN}"}
    )
    assert (response.status_code, response.json()["error"]["code"]) == (503, "store_unavailable")
