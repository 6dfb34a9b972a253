"""`GET /metrics`: the instruments of `origin.metrics`, for an admin of the operator's tenant.

Prometheus sends the API key as a bearer (`authorization: credentials`).
"""

from __future__ import annotations

import asyncio

from starlette.requests import Request
from starlette.responses import Response

from origin.api.access import Access
from origin.api.http import headers_of
from origin.metrics import exposition
from origin.usage import Recorder
from shared.control_document import OPERATOR_TENANT
from shared.errors import ClientError
from shared.wire import PRIVATE


class Metrics:
    """Tells of all tenants together, so no tenant's own key opens it."""

    def __init__(self, *, access: Access, recorder: Recorder) -> None:
        self._access = access
        self._recorder = recorder

    async def all(self, request: Request) -> Response:
        """Answer one request."""
        headers = headers_of(request.scope)
        caller = await self._access.caller(request.scope, headers)
        if caller.tenant != OPERATOR_TENANT or caller.role != "admin":
            raise ClientError(
                f"This needs an API key of the role 'admin' of the tenant '{OPERATOR_TENANT}'.",
                status=403,
                code="operator_required",
            )
        self._recorder.settle()
        body, content_type = await asyncio.to_thread(exposition, headers.get("accept", ""))
        return Response(body, headers={"cache-control": PRIVATE, "content-type": content_type})
