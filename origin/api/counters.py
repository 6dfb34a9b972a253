"""`POST /internal/counters`: what an isolate of the edge has counted, from the edge alone.

The answer tells the edge which of the control documents it holds have a newer revision.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

from starlette.types import Receive, Scope, Send

from origin.api.access import Access
from origin.api.http import headers_of, read_body, send_json
from origin.control import Control
from origin.edge_counters import EdgeCounters, counters_unavailable
from origin.stores.contract import StoreError
from origin.warming import Warming
from shared.edge_counts import MAX_FLUSH_BYTES, parse
from shared.errors import ClientError, InternalError


class Counters:
    """The ASGI application of the route."""

    def __init__(
        self, *, counters: EdgeCounters, warming: Warming, control: Control, access: Access
    ) -> None:
        self._counters = counters
        self._warming = warming
        self._control = control
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        await send_json(send, self._take(scope, receive))

    async def _take(self, scope: Scope, receive: Receive) -> dict[str, Any]:
        headers = headers_of(scope)
        self._access.require_edge(scope, headers)
        body = await read_body(receive, headers, MAX_FLUSH_BYTES)
        try:
            flush = parse(body)
        except ValueError as exc:
            raise ClientError(f"Not a flush of counters: {exc}", code="invalid_counters") from exc
        try:
            await self._counters.add(flush.tenants)
        except StoreError as exc:
            raise counters_unavailable() from exc
        for tenant, counts in flush.tenants.items():
            self._warming.hits(tenant, counts.hits)
        return {"controls": await self._newer(flush.controls)}

    async def _newer(self, revisions: Mapping[str, int]) -> dict[str, int]:
        """The revisions that rule, where they are later than those given."""
        newer: dict[str, int] = {}
        for tenant, revision in revisions.items():
            # One that cannot be had now is told at the next flush.
            with contextlib.suppress(InternalError):
                document = await self._control.document(tenant)
                if document is not None and document.revision > revision:
                    newer[tenant] = document.revision
        return newer
