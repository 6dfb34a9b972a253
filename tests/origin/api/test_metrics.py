"""`GET /metrics`: who may read it, and that requests and faults are told."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.parser import text_string_to_metric_families
from pydantic import SecretStr

from origin import metrics
from origin.app import create_app
from origin.metrics import exposition
from origin.settings import Settings
from origin.stores.redis_store import RedisStore
from shared.control_document import OPERATOR_TENANT
from shared.counts import OUTCOMES
from shared.errors import UpstreamError
from shared.keys import edge_bearer, key_ring, make_api_key
from shared.wire import COUNTERS_PATH, EDGE_AUTHORIZATION
from tests.support.control import control_store
from tests.support.engines import MODEL, ScriptedEngine

SECRET = "a secret of the tests, long enough"
KEYS = key_ring(SECRET)
ACME = make_api_key(KEYS, "acme", bytes(15))
CLIENT = make_api_key(KEYS, OPERATOR_TENANT, bytes(15))
ADMIN = make_api_key(KEYS, OPERATOR_TENANT, bytes([1] * 15))
CHAT = "/v1/chat/completions"
HELLO = {"model": MODEL, "messages": [{"role": "user", "content": "Hello"}]}
Samples = dict[tuple[str, tuple[str, ...]], float]


@pytest.fixture
def engine() -> ScriptedEngine:
    """The engine behind the application."""
    return ScriptedEngine()


@pytest.fixture
async def client(engine: ScriptedEngine) -> AsyncIterator[httpx.AsyncClient]:
    """A client of an application whose L1 is down."""
    app = create_app(
        Settings(secret=SecretStr(SECRET)),
        engine=engine,
        store=RedisStore.from_url("redis://127.0.0.1:1"),
        control_store=control_store(ACME, CLIENT, admins=[ADMIN]),
    )
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app), base_url="http://origin"
    ) as client:
        yield client


def bearer(api_key: str | None) -> dict[str, str]:
    """What Prometheus sends."""
    return {} if api_key is None else {"authorization": f"Bearer {api_key}"}


def samples(text: str) -> Samples:
    """Values by name and labels' values."""
    return {
        (sample.name, tuple(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


async def scrape(client: httpx.AsyncClient) -> Samples:
    """What Prometheus reads."""
    response = await client.get("/metrics", headers=bearer(ADMIN))
    assert response.status_code == 200
    return samples(response.text)


@pytest.mark.parametrize(
    ("api_key", "status", "code"),
    [
        (None, 401, "missing_api_key"),
        ("made-up", 401, "invalid_api_key"),
        (ACME, 403, "operator_required"),
        (CLIENT, 403, "operator_required"),
        (ADMIN, 200, None),
    ],
)
async def test_who_may_read(
    client: httpx.AsyncClient, api_key: str | None, status: int, code: str | None
) -> None:
    """An admin of the operator's tenant; the edge's word adds nothing."""
    edge = {EDGE_AUTHORIZATION: f"Bearer {edge_bearer(KEYS)}"}
    for more in ({}, edge):
        response = await client.get("/metrics", headers=bearer(api_key) | more)
        assert response.status_code == status
        assert response.headers["cache-control"] == "private, no-store"
        if code is not None:
            assert response.json()["error"]["code"] == code


@pytest.mark.parametrize(
    ("accept", "media_type"),
    [
        ("", "text/plain"),
        ("*/*", "text/plain"),
        ("application/openmetrics-text; version=1.0.0", "application/openmetrics-text"),
    ],
)
async def test_the_format_is_as_asked_for(
    client: httpx.AsyncClient, accept: str, media_type: str
) -> None:
    """Prometheus' text, or OpenMetrics."""
    response = await client.get("/metrics", headers=bearer(ADMIN) | {"accept": accept})
    assert response.headers["content-type"].startswith(media_type)
    assert "encore_request_seconds_count" in response.text


async def test_requests_and_faults_are_told(
    client: httpx.AsyncClient, engine: ScriptedEngine
) -> None:
    """By endpoint and outcome, with their latency; of L1 what could not be asked."""
    before = await scrape(client)
    assert (await client.post(CHAT, json=HELLO, headers=bearer(ACME))).status_code == 200
    assert (await client.post(CHAT, json=HELLO)).status_code == 401
    assert (await client.post(CHAT, content=b"{", headers=bearer(ACME))).status_code == 400
    engine.failure = UpstreamError("It broke.")
    assert (await client.post(CHAT, json=HELLO, headers=bearer(ACME))).status_code == 502
    edge = {EDGE_AUTHORIZATION: f"Bearer {edge_bearer(KEYS)}"}
    assert (await client.post(COUNTERS_PATH, content=b"?", headers=edge)).status_code == 400
    after = await scrape(client)
    more = {name: value - before.get(name, 0) for name, value in after.items()}
    requests = "encore_request_seconds_count"
    told = {
        labels[1]: value for (name, labels), value in more.items() if name == requests and value
    }
    assert told == {"miss": 1, "refused": 2, "error": 1}
    assert more["encore_request_seconds_sum", (CHAT, "miss")] > 0
    assert more["encore_l1_errors_total", ("read",)] == 2
    assert more["encore_edge_counters_total", ("refused",)] == 1
    assert after["encore_generations", ()] == 0


async def test_no_tenant_key_or_text_is_a_label(client: httpx.AsyncClient) -> None:
    """Series are there before their first request."""
    await client.post(CHAT, json=HELLO, headers=bearer(ACME))
    response = await client.get("/metrics", headers=bearer(ADMIN))
    told = samples(response.text)
    for outcome in OUTCOMES:
        assert ("encore_request_seconds_count", (CHAT, outcome)) in told
    for word in ("acme", ACME, "Hello"):
        assert f'"{word}"' not in response.text


def test_every_instrument_is_exposed() -> None:
    """By a name of ours."""
    text = exposition("")[0].decode()
    instruments = {each for each in vars(metrics).values() if isinstance(each, MetricWrapperBase)}
    assert len(instruments) == 29
    families = {f.name for f in text_string_to_metric_families(text) if f.name.startswith("encore")}
    assert len(families) >= len(instruments)


_WORKERS = """
import os
from multiprocessing import get_context
from origin.metrics import GENERATIONS, REQUEST_SECONDS, UPSTREAM_SUSPENDED, exposition

def work(number):
    REQUEST_SECONDS.labels("/v1/chat/completions", "hit").observe(number)
    GENERATIONS.inc()
    UPSTREAM_SUSPENDED.labels("upstream").set(number)
    here, there = ends
    here.send(1)
    here.recv()

context = get_context("fork")
ends = context.Pipe()
workers = [context.Process(target=work, args=(number,)) for number in (0, 1)]
for worker in workers:
    worker.start()
for _ in workers:
    ends[1].recv()
print(exposition("")[0].decode())
for worker in workers:
    ends[1].send(1)
for worker in workers:
    worker.join()
"""


def test_several_processes_are_one(tmp_path: Path) -> None:
    """Where Prometheus' folder is set: counters add up, gauges as each of them says."""
    result = subprocess.run(
        [sys.executable, "-c", _WORKERS],
        env={**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    told = samples(result.stdout)
    assert told["encore_request_seconds_count", ("/v1/chat/completions", "hit")] == 2
    assert told["encore_request_seconds_sum", ("/v1/chat/completions", "hit")] == 1
    assert told["encore_generations", ()] == 2
    assert told["encore_upstream_suspended", ("upstream",)] == 1
