"""`GET /cache/stats`: what the cache has done for a tenant, for any of its clients."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse

from origin.api.access import Access
from origin.api.admin import check_reach
from origin.api.http import headers_of
from origin.edge_counters import EdgeCounters, counters_unavailable
from origin.stores.contract import StoreError
from shared.edge_counts import BUCKETS, TenantCounts
from shared.wire import PRIVATE


class Stats:
    """Reads counters. An admin of the operator's tenant may name another by `?tenant=`."""

    def __init__(self, *, counters: EdgeCounters, access: Access) -> None:
        self._counters = counters
        self._access = access

    async def one(self, request: Request) -> JSONResponse:
        """Answer with one tenant's."""
        caller = await self._access.caller(request.scope, headers_of(request.scope))
        tenant = request.query_params.get("tenant", caller.tenant)
        check_reach(caller, tenant)
        try:
            counts = await self._counters.read(tenant)
        except StoreError as exc:
            raise counters_unavailable() from exc
        answer = {"tenant": tenant, "edge": _edge(counts)}
        return JSONResponse(answer, headers={"cache-control": PRIVATE})


def _edge(counts: TenantCounts) -> dict[str, Any]:
    """What the edge counted. Percentiles are upper bounds, null beyond the last bound."""
    requests = sum(counts.latency)
    sum_ms = counts.latency_us / 1000
    return {
        "approximate": True,
        "counts": counts.outcomes,
        "troubles": counts.troubles,
        "bytes": counts.body_bytes,
        "latency_ms": {
            "count": requests,
            "sum": sum_ms,
            "mean": sum_ms / requests if requests else None,
            "p50": counts.latency_percentile_ms(0.5),
            "p99": counts.latency_percentile_ms(0.99),
            "buckets": dict(zip(BUCKETS, counts.latency, strict=True)),
        },
    }
