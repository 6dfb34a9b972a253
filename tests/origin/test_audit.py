"""What the audit log says of requests and changes, and what it costs whoever is refused."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from origin.app import create_app
from origin.audit import MAX_FOLDED, Actor, Denials
from origin.metrics import AUDIT_DENIALS_LOST
from origin.settings import Settings
from origin.stores.contract import StoreError
from origin.stores.control_contract import COMMON_LOG
from origin.stores.memory import MemoryStore
from origin.stores.memory_control import MemoryControlStore
from shared.keys import edge_bearer, key_id, key_ring, make_api_key, tag_digest
from shared.wire import CONTROL_PATH, EDGE_AUTHORIZATION
from tests.support.control import control_store
from tests.support.engines import MODEL, ScriptedEngine
from tests.support.waiting import until

SECRET = "a secret of the tests, long enough"
KEYS = key_ring(SECRET)
CLIENT = make_api_key(KEYS, "acme", bytes(15))
ADMIN = make_api_key(KEYS, "acme", bytes([1]) * 15)
OPERATOR = make_api_key(KEYS, "operator", bytes(15))
UNLISTED = make_api_key(KEYS, "acme", bytes([9]) * 15)
HOMELESS = make_api_key(KEYS, "nobody", bytes(15))
PURGE, CHAT = "/cache/purge", "/v1/chat/completions"
ADDRESS = "127.0.0.1"


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """No waiting."""
    monkeypatch.setattr("origin.control.MEMO_S", 0)
    monkeypatch.setattr("origin.audit.FOLD_S", 0.001)


@pytest.fixture
def store() -> MemoryControlStore:
    """Documents of two tenants."""
    return control_store(CLIENT, admins=[ADMIN, OPERATOR])


@pytest.fixture
async def client(store: MemoryControlStore) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the application, without an API key."""
    app = create_app(
        Settings(secret=SecretStr(SECRET)),
        engine=ScriptedEngine(),
        store=MemoryStore(),
        control_store=store,
    )
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app), base_url="http://origin"
    ) as client:
        yield client


def by(api_key: str) -> dict[str, str]:
    """The headers of who holds this key."""
    return {"authorization": f"Bearer {api_key}"}


async def log_of(
    store: MemoryControlStore, log: str = COMMON_LOG, *, least: int = 0
) -> list[dict[str, Any]]:
    """What a log says, once it has so many records."""

    async def holds() -> bool:
        return len((await store.records({log: "0-0"})).get(log, ())) >= least

    await until(holds)
    found = await store.records({log: "0-0"})
    return [json.loads(record) for _, record in found.get(log, ())]


async def test_a_purge_is_recorded_with_who_and_what(
    client: httpx.AsyncClient, store: MemoryControlStore
) -> None:
    """Numbers of names, of tags their digests, and never a name."""
    body = {"tags": ["a-secret-tag"], "models": ["m", "n"], "keys": ["0" * 16], "older_than_s": 5}
    revision = (await client.post(PURGE, json=body, headers=by(ADMIN))).json()["revision"]
    (record,) = await log_of(store, "acme")
    assert record == {
        "action": "purge",
        "outcome": "done",
        "tenant": "acme",
        "actor": f"key:{key_id(ADMIN)[:12]}",
        "role": "admin",
        "actor_tenant": "acme",
        "path": PURGE,
        "address": ADDRESS,
        "older_than_s": 5,
        "keys": 1,
        "models": 2,
        "tags": [tag_digest(KEYS, "acme", "a-secret-tag")],
        "revision": revision,
    }


async def test_what_an_operator_does_is_recorded_with_each_tenant(
    client: httpx.AsyncClient, store: MemoryControlStore
) -> None:
    """Who did it is of another tenant."""
    body = {"everything": True, "tenant": "*"}
    assert (await client.post(PURGE, json=body, headers=by(OPERATOR))).status_code == 200
    for tenant in ("acme", "operator"):
        (record,) = await log_of(store, tenant)
        assert (record["tenant"], record["actor_tenant"]) == (tenant, "operator")
        assert record["everything"] is True


async def test_a_change_that_is_not_made_is_not_recorded(
    client: httpx.AsyncClient, store: MemoryControlStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is one step for both."""

    async def fail(*_: object, **__: object) -> bool:
        raise StoreError("down")

    monkeypatch.setattr(store, "replace", fail)
    response = await client.post(PURGE, json={"everything": True}, headers=by(ADMIN))
    assert response.status_code == 503
    assert await log_of(store, "acme") == []


@pytest.mark.parametrize(
    ("request_", "reason", "actor"),
    [
        (("GET", "/v1/models", {}), "missing_api_key", "unknown"),
        (("POST", CHAT, {}), "missing_api_key", "unknown"),
        (("POST", CHAT, by("sk-somebody-elses")), "invalid_api_key", "unknown"),
        (("POST", CHAT, by(UNLISTED)), "invalid_api_key", f"key:{key_id(UNLISTED)[:12]}"),
        (("POST", CHAT, by(HOMELESS)), "invalid_api_key", f"key:{key_id(HOMELESS)[:12]}"),
        (("POST", PURGE, by(CLIENT)), "admin_required", f"key:{key_id(CLIENT)[:12]}"),
        (
            ("GET", "/cache/stats?tenant=operator", by(ADMIN)),
            "operator_required",
            f"key:{key_id(ADMIN)[:12]}",
        ),
        (
            ("GET", CONTROL_PATH + "acme", {EDGE_AUTHORIZATION: "Bearer x"}),
            "edge_not_trusted",
            "unknown",
        ),
        (
            ("POST", CHAT, {**by(CLIENT), EDGE_AUTHORIZATION: "Bearer x"}),
            "edge_not_trusted",
            "unknown",
        ),
    ],
)
async def test_a_refusal_is_recorded(
    client: httpx.AsyncClient,
    store: MemoryControlStore,
    request_: tuple[str, str, dict[str, str]],
    reason: str,
    actor: str,
) -> None:
    """By its code; of a key that is ours who holds it, of another nothing."""
    method, path, headers = request_
    response = await client.request(method, path, headers=headers)
    assert response.status_code in (401, 403)
    assert response.json()["error"]["code"] == reason
    (record,) = await log_of(store, least=1)
    assert (record["action"], record["outcome"]) == ("request", "denied")
    assert (record["reason"], record["actor"], record["count"]) == (reason, actor, 1)
    assert (record["path"], record["address"]) == (path.partition("?")[0], ADDRESS)
    assert "tenant" not in record
    assert ("actor_tenant" in record) == (actor != "unknown")


async def test_what_is_not_refused_is_not_recorded(
    client: httpx.AsyncClient, store: MemoryControlStore
) -> None:
    """Neither an answer, nor a mistake, nor what is hidden."""
    body = {"model": MODEL, "messages": [{"role": "user", "content": "Hello"}]}
    edge = {EDGE_AUTHORIZATION: f"Bearer {edge_bearer(KEYS)}"}
    statuses = [
        (await client.post(CHAT, json=body, headers=by(CLIENT))).status_code,
        (await client.post(CHAT, json={}, headers=by(CLIENT))).status_code,
        (await client.get(CONTROL_PATH + "acme", headers=edge)).status_code,
        (await client.get(CONTROL_PATH + "acme")).status_code,
        (await client.get("/nowhere")).status_code,
    ]
    assert statuses == [200, 400, 200, 404, 404]
    assert (await client.get("/v1/models")).status_code == 401
    assert len(await log_of(store, least=1)) == 1


class SlowStore(MemoryControlStore):
    """A store that waits to be told to go on, or to fail."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = asyncio.Event()
        self.down = False
        self.batches = 0

    async def record(self, records: Sequence[bytes]) -> None:
        """See ControlStore.record."""
        self.batches += 1
        await self.gate.wait()
        if self.down:
            raise StoreError("down")
        await super().record(records)


async def test_equal_refusals_are_one_record(monkeypatch: pytest.MonkeyPatch) -> None:
    """Equal but for the path; whoever asks a thousand times costs one write."""
    monkeypatch.setattr("origin.audit.FOLD_S", 0.05)
    store = SlowStore()
    store.gate.set()
    denials = Denials(store)
    for number in range(1000):
        denials.note("invalid_api_key", Actor(name="unknown", path=f"/{number}", address="a"))
    denials.note("invalid_api_key", Actor(name="unknown", path="/0", address="b"))
    denials.note("admin_required", Actor(name="unknown", path="/0", address="a"))
    records = await log_of(store, least=3)
    assert [(each["reason"], each["address"], each["count"]) for each in records] == [
        ("invalid_api_key", "a", 1000),
        ("invalid_api_key", "b", 1),
        ("admin_required", "a", 1),
    ]
    assert records[0]["path"] == "/0"
    assert store.batches == 1
    await denials.close()


def lost() -> float:
    """How many refusals have no record."""
    return float(AUDIT_DENIALS_LOST._value.get())


async def test_a_flood_of_refusals_is_bounded_and_counted() -> None:
    """While the store takes nothing, no more wait than are allowed to."""
    store = SlowStore()
    denials = Denials(store)
    before = lost()
    for number in range(MAX_FOLDED + 7):
        denials.note("invalid_api_key", Actor(name="unknown", address=str(number)))
    assert lost() - before == 7
    store.gate.set()
    assert len(await log_of(store)) == 0
    await denials.close()
    assert len(await log_of(store)) == MAX_FOLDED


async def test_an_outage_loses_refusals_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    """Nobody is refused any differently, and those that come later are recorded."""
    store = SlowStore()
    store.gate.set()
    store.down = True
    denials = Denials(store)
    before = lost()
    for _ in range(3):
        denials.note("invalid_api_key", Actor(name="unknown"))

    async def is_lost() -> bool:
        return lost() - before == 3

    await until(is_lost)
    assert "3 refusals not recorded" in caplog.text
    store.down = False
    denials.note("invalid_api_key", Actor(name="unknown"))
    assert len(await log_of(store, least=1)) == 1
    await denials.close()


async def test_closing_records_what_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """At once."""
    monkeypatch.setattr("origin.audit.FOLD_S", 3600)
    store = MemoryControlStore()
    denials = Denials(store)
    denials.note("invalid_api_key", Actor(name="unknown"))
    await denials.close()
    assert len(await log_of(store)) == 1
