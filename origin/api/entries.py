"""`GET /internal/entries/{key}`: a finished entry, for the edge alone.

After a streamed miss the edge comes back for the entry. It is told nothing that the client whose
`Authorization` it carries could not have. When it warms, no client is there: it names the tenant
(`?tenant=NAME`), and its own bearer has to do.
"""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import parse_qs

from starlette.types import Receive, Scope, Send

from origin.api.access import Access
from origin.api.http import adding, headers_of, send_error, send_response
from origin.control import Control
from origin.pipeline import Pipeline
from origin.stores.contract import StoreError
from shared.control_document import ControlDocument
from shared.envelope import MEDIA_TYPE
from shared.errors import ClientError, EncoreError, InternalError
from shared.wire import CONTROL_REVISION, EDGE_STORE


class Entries:
    """The ASGI application of the route."""

    def __init__(self, *, pipeline: Pipeline, access: Access, control: Control) -> None:
        self._pipeline = pipeline
        self._access = access
        self._control = control

    async def __call__(self, scope: Scope, _receive: Receive, send: Send) -> None:
        """Answer one request."""
        try:
            document = await self._document(scope, headers_of(scope))
            send = adding(send, CONTROL_REVISION, str(document.revision))
            headers, encoded = await self._entry(document, scope["path_params"]["key"])
        except EncoreError as error:
            await send_error(send, error)
        else:
            await send_response(send, 200, headers, encoded)

    async def _document(self, scope: Scope, headers: Mapping[str, str]) -> ControlDocument:
        """The document of whose entry is asked for."""
        self._access.require_edge(scope, headers)
        if "authorization" in headers:
            return (await self._access.caller(scope, headers)).document
        tenants = parse_qs(scope["query_string"].decode("latin-1")).get("tenant", [])
        document = await self._control.document(tenants[0]) if len(tenants) == 1 else None
        if document is None:
            raise _no_entry()
        return document

    async def _entry(self, document: ControlDocument, key: str) -> tuple[dict[str, str], bytes]:
        """(headers, envelope) of the answer."""
        try:
            found = await self._pipeline.entry(document, key)
        except StoreError as exc:
            raise InternalError("The store cannot be asked.", status=503, retry_after_s=1) from exc
        if found is None:
            raise _no_entry()
        header, encoded = found
        headers = {"content-type": MEDIA_TYPE}
        if await self._pipeline.edge_writes.grant(document, header):
            headers[EDGE_STORE] = "1"
        return headers, encoded


def _no_entry() -> ClientError:
    return ClientError("There is no such entry.", status=404, code="no_entry")
