"""`GET /cache/stats`: what the cache has done for a tenant, for any of its clients."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse

from origin.api.access import Access
from origin.api.admin import check_reach
from origin.api.http import headers_of
from origin.stores.contract import StoreError
from origin.stores.usage_contract import usage_unavailable
from origin.usage import Recorder
from origin.usage_report import Terms, read_report
from shared.errors import ClientError
from shared.wire import PRIVATE


class Stats:
    """An admin of the operator's tenant may name another by `?tenant=`, or all by `?tenant=*`."""

    def __init__(self, *, recorder: Recorder, access: Access, terms: Terms) -> None:
        self._recorder = recorder
        self._access = access
        self._terms = terms

    async def one(self, request: Request) -> JSONResponse:
        """Answer one request."""
        caller = await self._access.caller(request.scope, headers_of(request.scope))
        for name in request.query_params:
            if name != "tenant":
                raise ClientError(
                    f"Unknown parameter: '{name[:40]}'.", param=name[:40], code="unknown_parameter"
                )
        tenant = request.query_params.get("tenant", caller.tenant)
        check_reach(caller, tenant, or_every=True)
        # What this process has counted so far; others' last seconds are missing.
        await self._recorder.flush()
        try:
            answer = await read_report(self._recorder.store, tenant, self._terms)
        except StoreError as exc:
            raise usage_unavailable() from exc
        return JSONResponse(answer, headers={"cache-control": PRIVATE})
