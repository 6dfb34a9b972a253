"""Models that have changed under their names: purged before the origin is ready."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import httpx
import pytest
from pydantic import SecretStr

from origin.app import create_app
from origin.control import Control
from origin.known_models import KnownModels
from origin.settings import Settings
from origin.stores.contract import StoreError
from origin.stores.control_contract import COMMON_LOG
from origin.stores.memory import MemoryStore
from origin.stores.memory_control import MemoryControlStore
from shared.control_document import MAX_CUT_OFFS, ControlDocument, decode
from shared.keys import key_ring, key_rings, make_api_key
from tests.support.control import control_store
from tests.support.engines import MODEL, ScriptedEngine
from tests.support.waiting import until

SECRET = "a secret of the tests, long enough"
OTHER_SECRET = "another secret of the tests, long enough"
KEYS = key_ring(SECRET)
CLIENT = make_api_key(KEYS, "acme", bytes(15))
OTHER = make_api_key(KEYS, "other", bytes(15))


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """No waiting."""
    monkeypatch.setattr("origin.control.MEMO_S", 0)
    monkeypatch.setattr("origin.tasks.FIRST_PAUSE_S", 0.001)


class FailingStore(MemoryControlStore):
    """A store whose facts cannot be had, or kept, at will."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0
        self.failures = 0
        self.keeps = True

    async def facts(self) -> dict[str, str]:
        """See ControlStore.facts."""
        self.asked += 1
        if self.failures:
            self.failures -= 1
            raise StoreError("down")
        return dict(self._facts)

    async def keep_fact(self, name: str, value: str) -> None:
        """See ControlStore.keep_fact."""
        if not self.keeps:
            raise StoreError("down")
        await super().keep_fact(name, value)


@pytest.fixture
def store() -> FailingStore:
    """Documents of two tenants."""
    store = FailingStore()
    store._documents = control_store(CLIENT, OTHER)._documents
    return store


@pytest.fixture
def engine() -> ScriptedEngine:
    """An engine of one model."""
    return ScriptedEngine()


def known_models(
    store: MemoryControlStore, engine: ScriptedEngine, secret: str = SECRET
) -> KnownModels:
    """As a process that starts has them."""
    control = Control(store, longest_life_ms=0)
    return KnownModels(store=store, control=control, engine=engine, keys=key_rings(secret))


async def cut_off(store: MemoryControlStore, tenant: str) -> set[str]:
    """The models that are purged of a tenant."""
    document: ControlDocument = decode(await store.load(tenant) or b"", tenant)
    return set(document.cut_offs.models)


async def test_a_changed_model_is_purged_for_every_tenant(
    store: FailingStore, engine: ScriptedEngine
) -> None:
    """Once, by the process that finds it; who starts later finds nothing."""
    await known_models(store, engine).note(MODEL, "f1")
    assert await known_models(store, engine).compare()
    assert await cut_off(store, "acme") == set()
    engine.model_fingerprint = "f2"
    assert await known_models(store, engine).compare()
    for tenant in ("acme", "other"):
        assert await cut_off(store, tenant) == {MODEL}
        ((_, record),) = (await store.records({tenant: "0-0"}))[tenant]
        assert json.loads(record)["actor"] == "origin"
    revision = await store.revision("acme")
    assert await known_models(store, engine).compare()
    assert await store.revision("acme") == revision


async def test_what_another_origin_answers_for_is_left_alone(
    store: FailingStore, engine: ScriptedEngine
) -> None:
    """A model that this process does not serve has not changed."""
    await known_models(store, engine).note("elsewhere", "f9")
    assert await known_models(store, engine).compare()
    assert await cut_off(store, "acme") == set()
    assert (await store.facts())["model:elsewhere"] == "f9"


async def test_who_dies_after_the_purge_purges_again(
    store: FailingStore, engine: ScriptedEngine
) -> None:
    """A fingerprint is not kept before what it replaces is dead."""
    await known_models(store, engine).note(MODEL, "f1")
    engine.model_fingerprint = "f2"
    store.keeps = False
    assert not await known_models(store, engine).compare()
    assert await cut_off(store, "acme") == {MODEL}
    assert (await store.facts())[f"model:{MODEL}"] == "f1"


async def test_an_outage_puts_it_off(store: FailingStore, engine: ScriptedEngine) -> None:
    """It is done behind it, once."""
    store.failures = 3
    models = known_models(store, engine)
    await models.compare_until_done()
    assert store.asked == 4
    assert await models.compare()
    assert store.asked == 4


async def test_a_model_is_noted_once(store: FailingStore, engine: ScriptedEngine) -> None:
    """The store is asked once in a process; what another has noted stays."""
    models = known_models(store, engine)
    await asyncio.gather(*(models.note(MODEL, "f1") for _ in range(5)))
    assert store.asked == 1
    await known_models(store, engine).note(MODEL, "f2")
    assert (await store.facts())[f"model:{MODEL}"] == "f1"


async def test_names_are_bounded(
    store: FailingStore, engine: ScriptedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An upstream may answer for any."""
    monkeypatch.setattr("origin.known_models.MAX_MODELS", 3)
    models = known_models(store, engine)
    for number in range(10):
        await models.note(f"m-{number}", "f")
    assert len(await store.facts()) == 3
    assert len(models._noted) <= 3


async def test_another_secret_is_recorded(store: FailingStore, engine: ScriptedEngine) -> None:
    """By ids that tell nothing; the first one is no change."""
    for secret in (SECRET, SECRET, OTHER_SECRET):
        assert await known_models(store, engine, secret).compare()
    ((_, record),) = (await store.records({COMMON_LOG: "0-0"}))[COMMON_LOG]
    said = json.loads(record)
    assert said["action"] == "secret-change"
    assert (said["from"], said["to"]) == (KEYS.id, key_ring(OTHER_SECRET).id)


@pytest.fixture
async def client(store: FailingStore, engine: ScriptedEngine) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the application."""
    app = create_app(
        Settings(secret=SecretStr(SECRET)),
        engine=engine,
        store=MemoryStore(),
        control_store=store,
    )
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app), base_url="http://origin"
    ) as client:
        yield client


async def test_the_origin_is_not_ready_before(
    client: httpx.AsyncClient, store: FailingStore, engine: ScriptedEngine
) -> None:
    """Nobody is sent to it while the edge may have what a model's predecessor said."""
    await known_models(store, engine).note(MODEL, "f1")
    engine.model_fingerprint = "f2"
    store.failures = 1
    ready = await client.get("/readyz")
    assert (ready.status_code, ready.json()["parts"]["models"]) == (503, "not compared")
    assert await cut_off(store, "acme") == set()
    assert (await client.get("/readyz")).status_code == 200
    assert await cut_off(store, "acme") == {MODEL}


async def test_a_model_is_noted_before_its_first_entry_is_stored(
    client: httpx.AsyncClient, store: FailingStore
) -> None:
    """Or none is: it could not be purged."""
    body = {"model": MODEL, "messages": [{"role": "user", "content": "Hello"}]}
    headers = {"authorization": f"Bearer {CLIENT}"}

    async def ask() -> str:
        response = await client.post("/v1/chat/completions", json=body, headers=headers)
        assert response.status_code == 200
        return response.headers["cache-status"]

    store.keeps = False
    assert "fwd=miss" in await ask()
    assert "fwd=miss" in await ask()
    store.keeps = True

    async def is_hit() -> bool:
        return "; hit" in await ask()

    await until(is_hit)
    assert (await store.facts())[f"model:{MODEL}"] == "f1"


async def test_more_models_than_one_purge_can_name_are_purged(
    store: FailingStore, engine: ScriptedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With everything else, so that the origin gets ready."""
    process = known_models(store, engine)
    for number in range(MAX_CUT_OFFS + 1):
        await process.note(f"m-{number}", "f1")
    before = decode(await store.load("acme") or b"", "acme").cut_offs.all_ms

    async def fingerprint(_: str) -> str:
        return "f2"

    monkeypatch.setattr(engine, "fingerprint", fingerprint)  # an upstream that moved
    assert await known_models(store, engine).compare()
    assert decode(await store.load("acme") or b"", "acme").cut_offs.all_ms > before


async def test_a_damaged_document_costs_the_other_tenants_nothing(
    store: FailingStore, engine: ScriptedEngine
) -> None:
    """They are purged once, and served; its own tenant is not served before it is repaired."""
    await known_models(store, engine).note(MODEL, "f1")
    engine.model_fingerprint = "f2"
    repaired = store._documents["other"]
    store._documents["other"] = repaired[0], b"damaged"
    models = known_models(store, engine)
    assert await models.compare()
    revision = await store.revision("acme")
    assert await models.compare()
    assert await cut_off(store, "acme") == {MODEL}
    assert await store.revision("acme") == revision
    assert (await store.facts())[f"model:{MODEL}"] == "f1"
    store._documents["other"] = repaired
    await models.compare_until_done()
    assert await cut_off(store, "other") == {MODEL}
    assert await store.revision("acme") == revision
    assert (await store.facts())[f"model:{MODEL}"] == "f2"
