"""`POST /cache/explain`: why a request is answered as it is, for a tenant's admins.

The body is a request as `POST /cache/warm` takes one: `{"endpoint", "body", "headers"}`.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from starlette.types import Receive, Scope, Send

from origin.api.access import Access, Caller
from origin.api.http import headers_of, read_body, send_json
from origin.explanation import explanation, semantic_tier
from origin.pipeline import Pipeline
from origin.queries import Query
from origin.stores.contract import StoreError
from origin.times import unix_ms
from origin.warm_requests import written
from shared import json_text
from shared.errors import EncoreError

if TYPE_CHECKING:
    from origin.semantic.matcher import Matcher, Neighbour

MAX_BODY_BYTES = 4 << 20
NEIGHBOURS = 5


class Explanations:
    """The ASGI application of the route."""

    def __init__(
        self,
        *,
        pipeline: Pipeline,
        matcher: Matcher | None,
        access: Access,
        max_cached_body_bytes: int,
    ) -> None:
        self._pipeline = pipeline
        self._matcher = matcher
        self._access = access
        self._max_cached_body_bytes = max_cached_body_bytes
        self._reading = asyncio.Semaphore()
        """Parsing megabytes takes seconds: one at a time, beside the event loop."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        await send_json(send, self._explain(scope, receive))

    async def _explain(self, scope: Scope, receive: Receive) -> dict[str, Any]:
        headers = headers_of(scope)
        caller = await self._access.admin(scope, headers)
        body = await read_body(receive, headers, MAX_BODY_BYTES)
        async with self._reading:
            query = await asyncio.to_thread(self._read, caller, body)
        look = await self._pipeline.look(query)
        semantic = semantic_tier(await self._neighbours(query))
        return explanation(
            query,
            look,
            semantic,
            now_ms=unix_ms(),
            admit_after=self._pipeline.edge_writes.admit_after,
        )

    def _read(self, caller: Caller, body: bytes) -> Query:
        asked = written(json_text.parse_object(body))
        return self._pipeline.query(
            asked.endpoint,
            caller.document,
            asked.controls,
            asked.body,
            ring=caller.ring,
            cacheable=len(asked.body) <= self._max_cached_body_bytes,
        )

    async def _neighbours(self, query: Query) -> list[Neighbour] | str:
        if self._matcher is None:
            return "it is not on at this origin (ENCORE_SEMANTIC)"
        try:
            return await self._matcher.neighbours(query, NEIGHBOURS)
        except (StoreError, EncoreError, TimeoutError) as exc:
            return f"it could not be asked ({type(exc).__name__})"
