"""What an edge tells `encore doctor`, and that it tells nobody else."""

from __future__ import annotations

import asyncio

import httpx
import pytest
from pydantic import SecretStr

from origin.doctor import Finding, examine
from origin.settings import Settings
from shared.diagnosis import agreement
from shared.keys import edge_bearer, key_ring
from shared.wire import DIAGNOSIS_PATH, EDGE_AUTHORIZATION
from tests.edge.local_edge import StartEdge
from tests.edge.stack import API_KEY, KEYS, SECRET, Stack, variables

NOWHERE = "http://127.0.0.1:1"
OTHER_SECRET = "another secret, which is long enough too"


def of_edge(secret: str, url: str) -> list[Finding]:
    """What `encore doctor` finds of an edge."""

    async def run() -> list[Finding]:
        settings = Settings(
            secret=SecretStr(secret),
            semantic="off",
            upstream=NOWHERE,
            redis_url=SecretStr("redis://127.0.0.1:1"),
        )
        found = examine(settings, edge_url=url)
        return [finding async for finding in found if finding.part.startswith("edge")]

    return asyncio.run(run())


def test_edge_and_origin_make_the_same_keys(stack: Stack) -> None:
    """In Pyodide and here, of every request and profile."""
    headers = {EDGE_AUTHORIZATION: f"Bearer {edge_bearer(KEYS)}"}
    said = httpx.get(stack.edge.url + DIAGNOSIS_PATH, headers=headers).json()
    assert said["agreement"] == agreement(KEYS)
    assert [finding.state for finding in of_edge(SECRET, stack.edge.url)] == ["ok"]


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"authorization": f"Bearer {API_KEY}"},
        {EDGE_AUTHORIZATION: "Bearer"},
        {EDGE_AUTHORIZATION: f"Bearer {edge_bearer(key_ring(OTHER_SECRET))}"},
    ],
)
def test_nobody_else_finds_it(stack: Stack, headers: dict[str, str]) -> None:
    """Not a client, whoever it is."""
    answer = httpx.get(stack.edge.url + DIAGNOSIS_PATH, headers=headers)
    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "unknown_url"


def test_another_secret_is_found(stack: Stack) -> None:
    """With the command that gives the Worker the right one."""
    (finding,) = of_edge(OTHER_SECRET, stack.edge.url)
    assert finding.state == "fault"
    assert "wrangler secret put ENCORE_SECRET" in finding.fix


def test_an_origin_that_the_edge_does_not_reach_is_found(start_edge: StartEdge) -> None:
    """With the Worker's variable."""
    edge = start_edge(variables=variables(NOWHERE))
    agrees, finding = of_edge(SECRET, edge.url)
    edge.stop()
    assert agrees.state == "ok"
    assert "does not reach its origin" in finding.text
    assert "ENCORE_ORIGIN_URL" in finding.fix
