"""`POST /internal/warming`: which entries the edge should fetch ahead of requests, for it alone."""

from __future__ import annotations

from typing import Any

from starlette.types import Receive, Scope, Send

from origin.api.access import Access
from origin.api.http import headers_of, read_body, send_json
from origin.warming import Warming
from shared import json_text
from shared.checks import integer, missing

MAX_LIMIT = 100
_MAX_BODY_BYTES = 1024
_LIMIT = integer(1, MAX_LIMIT)


class WarmingRuns:
    """The ASGI application of the route. Answers once the entries are made: take what time it has.

    `{"limit": N}` bounds the entries that the edge is told of.
    """

    def __init__(self, *, warming: Warming, access: Access) -> None:
        self._warming = warming
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        await send_json(send, self._run(scope, receive))

    async def _run(self, scope: Scope, receive: Receive) -> dict[str, Any]:
        headers = headers_of(scope)
        self._access.require_edge(scope, headers)
        fields = json_text.parse_object(await read_body(receive, headers, _MAX_BODY_BYTES))
        if fields.get("limit") is None:
            raise missing("limit")
        _LIMIT(fields["limit"], "limit")
        entries = await self._warming.run(fields["limit"])
        return {"entries": [{"tenant": tenant, "key": key} for tenant, key in entries]}
