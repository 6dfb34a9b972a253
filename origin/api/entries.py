"""`GET /internal/entries/{key}`: a finished entry, for the edge alone.

After a streamed miss the edge comes back for the entry. It is told nothing that the client whose
`Authorization` it carries could not have.
"""

from __future__ import annotations

from starlette.types import Receive, Scope, Send

from origin.api.access import Access
from origin.api.http import headers_of, send_error, send_response
from origin.pipeline import Pipeline
from origin.stores.contract import StoreError
from shared.envelope import MEDIA_TYPE
from shared.errors import ClientError, EncoreError, InternalError


class Entries:
    """The ASGI application of the route."""

    def __init__(self, *, pipeline: Pipeline, access: Access) -> None:
        self._pipeline = pipeline
        self._access = access

    async def __call__(self, scope: Scope, _receive: Receive, send: Send) -> None:
        """Answer one request."""
        try:
            encoded = await self._entry(scope)
        except EncoreError as error:
            await send_error(send, error)
        else:
            await send_response(send, 200, {"content-type": MEDIA_TYPE}, encoded)

    async def _entry(self, scope: Scope) -> bytes:
        headers = headers_of(scope)
        if not self._access.is_edge(headers):
            raise ClientError(f"There is no {scope['path']} here.", status=404, code="unknown_url")
        tenant = (await self._access.caller(scope, headers)).tenant
        try:
            encoded = await self._pipeline.entry(tenant, scope["path_params"]["key"])
        except StoreError as exc:
            raise InternalError("The store cannot be asked.", status=503, retry_after_s=1) from exc
        if encoded is None:
            raise ClientError("There is no such entry.", status=404, code="no_entry")
        return encoded
