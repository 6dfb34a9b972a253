"""Who may do what at the origin, by control documents; their route; purges over HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from origin.app import create_app
from origin.purge_requests import MAX_NAMES
from origin.settings import Settings
from origin.stores.contract import StoreError
from origin.stores.memory import MemoryStore
from origin.stores.memory_control import MemoryControlStore
from shared.control_document import ControlDocument, decode, revised
from shared.keys import edge_bearer, key_id, key_ring, make_api_key, tag_digest
from shared.wire import CONTROL_PATH, EDGE_AUTHORIZATION, EDGE_STORE
from tests.support.control import control_store, put_document
from tests.support.engines import ScriptedEngine

SECRET = "a secret of the tests, long enough"
PREVIOUS = "the secret before it, long enough too"
KEYS = key_ring(SECRET)
OLD_KEYS = key_ring(PREVIOUS)
CLIENT = make_api_key(KEYS, "acme", bytes(15))
ADMIN = make_api_key(KEYS, "acme", bytes([1]) * 15)
OTHER = make_api_key(KEYS, "other", bytes(15))
OPERATOR = make_api_key(KEYS, "operator", bytes(15))
OPERATORS_CLIENT = make_api_key(KEYS, "operator", bytes([1]) * 15)
OLD = make_api_key(OLD_KEYS, "acme", bytes([2]) * 15)
PURGE = "/cache/purge"
EVERYTHING = {"everything": True}
EDGE = {EDGE_AUTHORIZATION: f"Bearer {edge_bearer(KEYS)}"}


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """No memo, so no waiting for one to end."""
    monkeypatch.setattr("origin.control.MEMO_S", 0)


@pytest.fixture
def store() -> MemoryControlStore:
    """Documents of three tenants."""
    return control_store(CLIENT, OLD, OPERATORS_CLIENT, admins=[ADMIN, OTHER, OPERATOR])


@pytest.fixture
async def client(store: MemoryControlStore) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the application, without an API key."""
    settings = Settings(secret=SecretStr(SECRET), previous_secret=SecretStr(PREVIOUS))
    app = create_app(settings, engine=ScriptedEngine(), store=MemoryStore(), control_store=store)
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app), base_url="http://origin"
    ) as client:
        yield client


def by(api_key: str, headers: dict[str, str] | None = None) -> dict[str, str]:
    """The headers of who holds this key."""
    return {"authorization": f"Bearer {api_key}", **(headers or {})}


def code_of(response: httpx.Response) -> tuple[int, str | None, str | None]:
    """(status, code, param) of an error in OpenAI's shape."""
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return response.status_code, error["code"], error["param"]


async def ruling(store: MemoryControlStore, tenant: str = "acme") -> ControlDocument:
    """The document in the store."""
    return decode(await store.load(tenant) or b"", tenant)


async def test_only_listed_keys_open_the_door(
    client: httpx.AsyncClient, store: MemoryControlStore
) -> None:
    """A key that we made and nobody listed, or whose tenant has no document, is not known."""
    unlisted = make_api_key(KEYS, "acme", bytes([9]) * 15)
    homeless = make_api_key(KEYS, "nobody", bytes(15))
    for api_key, status in ((CLIENT, 200), (ADMIN, 200), (unlisted, 401), (homeless, 401)):
        response = await client.get("/v1/models", headers=by(api_key))
        assert response.status_code == status
        if status == 401:
            assert code_of(response) == (401, "invalid_api_key", None)
    assert await store.tenants() == {"acme", "other", "operator"}


async def test_revoked_key_is_refused_at_once(
    client: httpx.AsyncClient, store: MemoryControlStore
) -> None:
    """The others go on."""
    assert (await client.get("/v1/models", headers=by(CLIENT))).status_code == 200
    await put_document(store, document_after_revoking(await ruling(store), CLIENT))
    for headers in (by(CLIENT), by(CLIENT, EDGE)):
        assert code_of(await client.get("/v1/models", headers=headers))[1] == "invalid_api_key"
    assert (await client.get("/v1/models", headers=by(ADMIN))).status_code == 200


async def test_keys_and_edges_of_the_previous_secret_still_count(
    client: httpx.AsyncClient,
) -> None:
    """While it is being replaced."""
    old_edge = {EDGE_AUTHORIZATION: f"Bearer {edge_bearer(OLD_KEYS)}"}
    assert (await client.get("/v1/models", headers=by(OLD, old_edge))).status_code == 200
    assert (await client.get(f"{CONTROL_PATH}acme", headers=old_edge)).status_code == 200


async def test_one_in_a_minute_is_granted_to_put_a_revision_into_kv(
    client: httpx.AsyncClient, store: MemoryControlStore
) -> None:
    """However many isolates ask for it; the next revision is another one's to put."""
    for _ in range(2):
        asked = [await client.get(f"{CONTROL_PATH}acme", headers=EDGE) for _ in range(3)]
        assert [each.headers.get(EDGE_STORE) for each in asked] == ["1", None, None]
        await put_document(store, revised(await ruling(store), 1))


async def test_without_the_store_nobody_is_granted(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The edge gets its document all the same."""

    async def fails(*_: object, **__: object) -> bool:
        raise StoreError("no")

    monkeypatch.setattr(MemoryStore, "grant", fails)
    response = await client.get(f"{CONTROL_PATH}acme", headers=EDGE)
    assert response.status_code == 200
    assert EDGE_STORE not in response.headers


async def test_edge_gets_the_document(client: httpx.AsyncClient, store: MemoryControlStore) -> None:
    """As it is kept; where there is none it is told so."""
    response = await client.get(f"{CONTROL_PATH}acme", headers=EDGE)
    assert response.headers["content-type"] == "application/json"
    assert response.headers["cache-control"] == "private, no-store"
    assert decode(response.content, "acme") == await ruling(store)
    for tenant in ("nobody", "A_B", "%7d", "%00"):
        response = await client.get(CONTROL_PATH + tenant, headers=EDGE)
        assert code_of(response) == (404, "no_tenant", None)


@pytest.mark.parametrize("headers", [{}, by(ADMIN), by(OPERATOR)])
async def test_nobody_else_gets_the_document(
    client: httpx.AsyncClient, headers: dict[str, str]
) -> None:
    """For an admin too the route does not exist."""
    response = await client.get(f"{CONTROL_PATH}acme", headers=headers)
    assert code_of(response) == (404, "unknown_url", None)


@pytest.mark.parametrize(
    ("body", "names"),
    [
        (EVERYTHING, {}),
        ({"models": ["m", "n"], "everything": False}, {"models": {"m", "n"}}),
        ({"keys": ["0123456789abcdef" * 4]}, {"keys": {"0123456789abcdef"}}),
        (
            {"tags": ["news"], "tenant": "acme"},
            {"tags": {tag_digest(ring, "acme", "news") for ring in (KEYS, OLD_KEYS)}},
        ),
    ],
)
async def test_admin_purges_their_tenant(
    client: httpx.AsyncClient,
    store: MemoryControlStore,
    body: dict[str, Any],
    names: dict[str, set[str]],
) -> None:
    """The answer says what is durable; nobody else's document changes."""
    store.clock_ms = lambda: 2_000_000_000_000
    others = await ruling(store, "other")
    response = await client.post(PURGE, json=body, headers=by(ADMIN))
    assert response.status_code == 200
    assert response.json() == {
        "tenant": "acme",
        "revision": 2_000_000_000_000,
        "cut_off_ms": 2_000_000_000_000,
        "edge": "not configured",
    }
    assert response.headers["cache-control"] == "private, no-store"
    cut_offs = (await ruling(store)).cut_offs
    for kind in ("models", "tags", "keys"):
        at_ms = dict.fromkeys(names.get(kind, set()), 2_000_000_000_000)
        assert getattr(cut_offs, kind) == at_ms
    assert (cut_offs.all_ms == 2_000_000_000_000) == (body == EVERYTHING)
    assert await ruling(store, "other") == others


async def test_a_purge_may_spare_what_is_young(
    client: httpx.AsyncClient, store: MemoryControlStore
) -> None:
    """The cut-off is that much earlier, and the answer says so."""
    store.clock_ms = lambda: 2_000_000_000_000
    body = {"everything": True, "older_than_s": 60}
    response = await client.post(PURGE, json=body, headers=by(ADMIN))
    assert response.json()["cut_off_ms"] == 1_999_999_940_000
    assert (await ruling(store)).cut_offs.all_ms == 1_999_999_940_000
    for wrong in (-1, "7d", 1.5):
        refused = await client.post(PURGE, json=body | {"older_than_s": wrong}, headers=by(ADMIN))
        assert refused.status_code == 400
        assert refused.json()["error"]["param"] == "older_than_s"


@pytest.mark.parametrize(
    ("headers", "refusal"),
    [
        ({}, (401, "missing_api_key", None)),
        (EDGE, (401, "missing_api_key", None)),
        (by(CLIENT), (403, "admin_required", None)),
        (by(CLIENT, EDGE), (403, "admin_required", None)),
        (by(OPERATORS_CLIENT), (403, "admin_required", None)),
        (by(ADMIN, {EDGE_AUTHORIZATION: "Bearer x"}), (401, "edge_not_trusted", None)),
    ],
)
async def test_only_admins_purge(
    client: httpx.AsyncClient,
    store: MemoryControlStore,
    headers: dict[str, str],
    refusal: tuple[int, str, str | None],
) -> None:
    """By their own key: the edge's bearer adds nothing to it."""
    before = await ruling(store)
    assert code_of(await client.post(PURGE, json=EVERYTHING, headers=headers)) == refusal
    assert await ruling(store) == before


@pytest.mark.parametrize("tenant", ["other", "*", "nobody", "A_B"])
async def test_a_tenants_admin_reaches_no_other_tenant(
    client: httpx.AsyncClient, store: MemoryControlStore, tenant: str
) -> None:
    """Whether there is such a tenant is not said either."""
    before = [await ruling(store, name) for name in sorted(await store.tenants())]
    response = await client.post(PURGE, json={**EVERYTHING, "tenant": tenant}, headers=by(ADMIN))
    assert code_of(response) == (403, "operator_required", "tenant")
    assert [await ruling(store, name) for name in sorted(await store.tenants())] == before


async def test_operators_admin_purges_any_tenant(
    client: httpx.AsyncClient, store: MemoryControlStore
) -> None:
    """By name, with that tenant's own tag digests."""
    body: dict[str, Any] = {"tenant": "other", "tags": ["news"]}
    response = await client.post(PURGE, json=body, headers=by(OPERATOR))
    assert response.json()["tenant"] == "other"
    assert tag_digest(KEYS, "other", "news") in (await ruling(store, "other")).cut_offs.tags
    for tenant, refusal in (("nobody", (404, "no_tenant")), ("A_B", (400, "invalid_value"))):
        body = {**EVERYTHING, "tenant": tenant}
        response = await client.post(PURGE, json=body, headers=by(OPERATOR))
        assert code_of(response) == (*refusal, "tenant")


async def test_operators_admin_purges_all_tenants(
    client: httpx.AsyncClient, store: MemoryControlStore
) -> None:
    """Everything of them, and only that."""
    store.clock_ms = lambda: 2_000_000_000_000
    body = {**EVERYTHING, "tenant": "*"}
    response = await client.post(PURGE, json=body, headers=by(OPERATOR))
    assert response.json() == {
        "tenant": "*",
        "tenants": 3,
        "cut_off_ms": 2_000_000_000_000,
        "edge": "not configured",
    }
    for tenant in await store.tenants():
        assert (await ruling(store, tenant)).cut_offs.all_ms == 2_000_000_000_000
    response = await client.post(PURGE, json={"tenant": "*", "models": ["m"]}, headers=by(OPERATOR))
    assert code_of(response) == (400, "invalid_value", "everything")


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "everything"),
        ({"everything": False}, "everything"),
        ({"keys": [], "tags": []}, "everything"),
        ({"everything": True, "models": ["m"]}, "everything"),
        ({"everything": 1}, "everything"),
        ({"everything": None}, "everything"),
        ({"keys": ["0123456789ABCDEF"]}, "keys[0]"),
        ({"keys": ["0" * 16, "0" * 17]}, "keys[1]"),
        ({"keys": "0" * 16}, "keys"),
        ({"tags": [""]}, "tags[0]"),
        ({"tags": ["a,b"]}, "tags[0]"),
        ({"tags": [1]}, "tags[0]"),
        ({"tags": ["x"] * (MAX_NAMES + 1)}, "tags"),
        ({"models": ["a\u0000"]}, "models[0]"),
        ({"tenant": 1, "everything": True}, "tenant"),
        ({"everything": True, "dry_run": 1}, "dry_run"),
    ],
)
async def test_what_makes_no_sense_is_refused_by_field(
    client: httpx.AsyncClient, store: MemoryControlStore, body: dict[str, Any], param: str
) -> None:
    """Strictly: what a purge meant cannot be guessed."""
    before = await ruling(store)
    response = await client.post(PURGE, json=body, headers=by(ADMIN))
    assert (response.status_code, code_of(response)[2]) == (400, param)
    assert await ruling(store) == before


async def test_largest_purge_fits(client: httpx.AsyncClient) -> None:
    """All of its names, tags under both secrets, still are names."""
    body = {
        "keys": [f"{number:016x}" for number in range(MAX_NAMES)],
        "tags": [f"tag-{number}" for number in range(MAX_NAMES)],
        "models": [f"model-{number}" for number in range(MAX_NAMES)],
    }
    assert (await client.post(PURGE, json=body, headers=by(ADMIN))).status_code == 200


async def test_body_that_is_none_or_too_large_is_refused(client: httpx.AsyncClient) -> None:
    """Before anything of it is believed."""
    for body, status in ((b"", 400), (b"[]", 400), (b"{", 400), (b" " * (2 << 20), 413)):
        response = await client.post(PURGE, content=body, headers=by(ADMIN))
        assert response.status_code == status


async def test_purge_in_an_outage_is_a_503(
    client: httpx.AsyncClient, store: MemoryControlStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Never "ok", although the admin is still known."""
    await client.get("/v1/models", headers=by(ADMIN))

    async def fail(*_: object, **__: object) -> bool:
        raise StoreError("down")

    monkeypatch.setattr(store, "replace", fail)
    response = await client.post(PURGE, json=EVERYTHING, headers=by(ADMIN))
    assert code_of(response) == (503, "control_unavailable", None)
    assert response.headers["retry-after"] == "1"


async def test_development_key_may_purge_its_tenant() -> None:
    """It is an admin of `dev`, and of nothing else; the tenant is made on demand."""
    store = MemoryControlStore()
    settings = Settings(secret=SecretStr(SECRET), mode="development")
    app = create_app(settings, engine=ScriptedEngine(), store=MemoryStore(), control_store=store)
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
        headers = by("sk-encore-dev")
        assert (await client.post(PURGE, json=EVERYTHING, headers=headers)).status_code == 200
        response = await client.post(PURGE, json={**EVERYTHING, "tenant": "*"}, headers=headers)
    assert code_of(response) == (403, "operator_required", "tenant")
    assert await store.tenants() == {"dev"}


def document_after_revoking(document: ControlDocument, api_key: str) -> ControlDocument:
    """Without this key."""
    kept = {id_: key for id_, key in document.keys.items() if id_ != key_id(api_key)}
    return revised(document, 0, keys=kept)
