"""`GET /cache/stats` over counters in memory."""

from __future__ import annotations

from collections.abc import Sequence

import httpx
import pytest
from origin.edge_counters import MemoryEdgeCounters
from pydantic import SecretStr
from shared.edge_counts import BUCKETS, OUTCOMES, TROUBLES, EdgeCounts, parse

from origin.app import create_app
from origin.settings import Settings
from origin.stores.memory import MemoryStore
from shared.control_document import OPERATOR_TENANT
from shared.keys import key_ring, make_api_key
from tests.support.control import control_store
from tests.support.engines import ScriptedEngine

SECRET = "a secret of the tests, long enough"
KEYS = key_ring(SECRET)
ACME = make_api_key(KEYS, "acme", bytes(15))
OTHER = make_api_key(KEYS, "other", bytes(15))
OPERATOR = make_api_key(KEYS, OPERATOR_TENANT, bytes(15))


async def ask(
    api_key: str | None, *, admins: Sequence[str] = (), tenant: str | None = None
) -> httpx.Response:
    """Ask for stats where tenant `acme` has been counted."""
    clients = {ACME, OTHER, OPERATOR} - set(admins)
    counts = EdgeCounts()
    counts.count("acme", "hit", latency_ms=1.5, body_bytes=300, trouble="put")
    counts.count("acme", "hit", latency_ms=2)
    counts.count("acme", "miss", latency_ms=900)
    counters = MemoryEdgeCounters()
    await counters.add(parse(counts.take() or b"").tenants)
    app = create_app(
        Settings(secret=SecretStr(SECRET)),
        engine=ScriptedEngine(),
        store=MemoryStore(),
        control_store=control_store(*clients, admins=admins),
        edge_counters=counters,
    )
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app), base_url="http://origin"
    ) as client:
        return await client.get(
            "/cache/stats",
            params={} if tenant is None else {"tenant": tenant},
            headers={} if api_key is None else {"authorization": f"Bearer {api_key}"},
        )


async def test_a_client_reads_its_tenants_counts() -> None:
    """Everything that was counted, said to be approximate."""
    response = await ask(ACME)
    assert response.headers["cache-control"] == "private, no-store"
    assert response.json() == {
        "tenant": "acme",
        "edge": {
            "approximate": True,
            "counts": {**dict.fromkeys(OUTCOMES, 0), "hit": 2, "miss": 1},
            "troubles": {**dict.fromkeys(TROUBLES, 0), "put": 1},
            "bytes": 300,
            "latency_ms": {
                "count": 3,
                "sum": 903.5,
                "mean": pytest.approx(903.5 / 3),
                "p50": 2,
                "p99": 1000,
                "buckets": {**dict.fromkeys(BUCKETS, 0), "2": 2, "1000": 1},
            },
        },
    }


async def test_nothing_counted_is_zeros() -> None:
    """Another tenant sees none of it; without requests there is no mean."""
    answer = (await ask(OTHER)).json()
    assert answer["tenant"] == "other"
    assert set(answer["edge"]["counts"].values()) == {0}
    latency = answer["edge"]["latency_ms"]
    assert (latency["count"], latency["mean"], latency["p50"], latency["p99"]) == (
        0,
        None,
        None,
        None,
    )


async def test_the_operators_admin_may_name_a_tenant() -> None:
    """As for a purge."""
    assert (await ask(OPERATOR, admins=[OPERATOR], tenant="acme")).json()["edge"]["bytes"] == 300


async def test_ones_own_tenant_may_be_named() -> None:
    """By any client."""
    assert (await ask(ACME, tenant="acme")).json()["tenant"] == "acme"


@pytest.mark.parametrize(
    ("api_key", "admins", "tenant", "status"),
    [
        (None, [], None, 401),
        (OTHER, [], "acme", 403),
        (OTHER, [OTHER], "acme", 403),
        (OPERATOR, [], "acme", 403),
        (OPERATOR, [OPERATOR], "No Tenant", 400),
    ],
)
async def test_others_are_refused(
    api_key: str | None, admins: list[str], tenant: str | None, status: int
) -> None:
    """Who may not, or names nothing."""
    assert (await ask(api_key, admins=admins, tenant=tenant)).status_code == status
