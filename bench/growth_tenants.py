"""How cost grows with the tenants: 1 to 1,000, each with an API key, a policy and an entry.

Requests are of all tenants in turn. At the origin a document is looked at again every 250 ms: of
many tenants each is asked for less often than that, so every hit may look at one.
"""

from __future__ import annotations

import asyncio
import time

import httpx

from bench.growth_stack import (
    EDGE_BEARER,
    EDGE_HIT,
    KEYS,
    OPERATOR_API_KEY,
    ORIGIN_HIT,
    Cost,
    Row,
    Server,
    Timer,
    put_documents,
    stacked,
)
from bench.origin_hit import body_of
from shared.control_document import ControlDocument, Policy
from shared.keys import make_api_key
from shared.wire import CONTROL_PATH
from tests.support.control import document_of

SIZES = (1, 10, 100, 1_000)
POLICY = Policy(
    normalisation="text",
    templates={
        "listing@1": "Describe the house at {address:address}",
        "greeting@1": "Greet {name:text}",
    },
    lax_classes=("news", "weather"),
)
READS = 50


def measure(upstream_url: str, count: int, requests: int, *, at_edge: bool = True) -> Row:
    """Everything with so many tenants. Hits at the origin are `requests`, at the edge fewer."""
    api_keys = [make_api_key(KEYS, f"tenant-{n}", bytes(15)) for n in range(count)]
    documents = [document_of(api_key, policy=POLICY) for api_key in api_keys]
    operator = document_of(admins=[OPERATOR_API_KEY])
    with stacked(upstream_url) as stack:
        asyncio.run(put_documents(stack.redis_url, [operator, *documents]))
        with stack.origin() as (origin, ready_s), Timer(origin) as timer:
            hits = asyncio.run(_at_origin(origin, api_keys, requests))
            row = {
                "origin ready after (s)": ready_s,
                **hits.row("hit at the origin"),
                "origin, RSS (MB)": origin.rss_mb(),
                "control document read (ms)": _read_ms(origin, documents),
            }
            if at_edge:
                began_s = time.monotonic()
                edge = stack.edge(origin, documents)
                row["edge ready, with all documents, after (s)"] = time.monotonic() - began_s
                hits = asyncio.run(_at_edge(edge, api_keys, max(1, requests // 4)))
                row |= hits.row("hit at the edge")
            metrics = timer.call("/metrics", "GET", "/metrics", api_key=OPERATOR_API_KEY)
            row["/metrics (bytes)"] = len(metrics.content)
            _administrate(timer, documents[0].tenant)
            return row | timer.row


def _read_ms(origin: Server, documents: list[ControlDocument]) -> float:
    """The mean of some reads by the edge, of tenants in turn."""
    with httpx.Client(base_url=origin.url, headers=EDGE_BEARER) as client:
        began_s = time.perf_counter()
        for number in range(READS):
            tenant = documents[number % len(documents)].tenant
            client.get(CONTROL_PATH + tenant).raise_for_status()
        return (time.perf_counter() - began_s) * 1000 / READS


async def _at_origin(origin: Server, api_keys: list[str], requests: int) -> Cost:
    cost = Cost()
    body = body_of(0)
    await origin.warm_up(body, ORIGIN_HIT, api_keys=api_keys)
    await origin.load([body] * requests, ORIGIN_HIT, cost, api_keys=api_keys)
    return cost


async def _at_edge(edge: Server, api_keys: list[str], requests: int) -> Cost:
    cost = Cost()
    body = body_of(0)
    await edge.warm_up(body, EDGE_HIT, api_keys=api_keys)
    await edge.load([body] * requests, EDGE_HIT, cost, api_keys=api_keys)
    return cost


def _administrate(timer: Timer, tenant: str) -> None:
    """What the operator does, and looks at."""
    as_operator = {"api_key": OPERATOR_API_KEY}
    timer.call("statistics of all", "GET", "/cache/stats?tenant=*", **as_operator)
    timer.dashboard(OPERATOR_API_KEY)
    one = {"tenant": tenant, "tags": ["growth"]}
    timer.call("purge of one tenant's tag", "POST", "/cache/purge", json=one, **as_operator)
    every = {"tenant": "*", "everything": True}
    timer.call("purge of all tenants", "POST", "/cache/purge", json=every, **as_operator)
