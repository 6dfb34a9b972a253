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
from origin.metrics import EDGE_COUNTERS
from origin.usage import Recorder
from origin.warming import Warming
from shared.counts import MAX_FLUSH_BYTES, parse
from shared.errors import ClientError, InternalError


class Counters:
    """The ASGI application of the route."""

    def __init__(
        self, *, recorder: Recorder, warming: Warming, control: Control, access: Access
    ) -> None:
        self._recorder = recorder
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
            EDGE_COUNTERS.labels("refused").inc()
            raise ClientError(f"Not a flush of counters: {exc}", code="invalid_counters") from exc
        try:
            await self._recorder.take_edge(flush.tenants)
        except InternalError:
            EDGE_COUNTERS.labels("failed").inc()
            raise
        EDGE_COUNTERS.labels("stored").inc()
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
