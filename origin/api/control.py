"""`GET /internal/control/{tenant}`: a tenant's control document, for the edge alone."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from origin.api.access import Access
from origin.api.http import headers_of
from origin.control import Control
from origin.stores.contract import Store, StoreError
from shared.control_document import ControlDocument, encode
from shared.errors import ClientError
from shared.wire import EDGE_STORE, PRIVATE

_HEADERS = {"cache-control": PRIVATE}


class ControlDocuments:
    """Hands documents out as they are kept.

    Of all isolates that ask for one revision, one in a minute is granted to put it into KV, which
    takes a write a second of a name.
    """

    def __init__(self, *, control: Control, access: Access, store: Store) -> None:
        self._control = control
        self._access = access
        self._store = store

    async def one(self, request: Request) -> Response:
        """Answer with the document; 404 for who is not the edge, and where there is none."""
        self._access.require_edge(request.scope, headers_of(request.scope))
        document = await self._control.document(request.path_params["tenant"])
        if document is None:
            raise ClientError("There is no such tenant here.", status=404, code="no_tenant")
        headers = {**_HEADERS, EDGE_STORE: "1"} if await self._is_granted(document) else _HEADERS
        return Response(encode(document), 200, headers, media_type="application/json")

    async def _is_granted(self, document: ControlDocument) -> bool:
        try:
            return await self._store.grant(f"ctl:{document.tenant}:{document.revision}", after=1)
        except StoreError:
            return False
