"""`GET /v1/models` and `GET /v1/models/{model}`."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse

from origin.api.access import Access
from origin.api.http import headers_of
from origin.engine.contract import Engine, ModelInfo
from shared.errors import ClientError
from shared.wire import PRIVATE

_HEADERS = {"cache-control": PRIVATE}


class Models:
    """What can be asked for."""

    def __init__(self, *, engine: Engine, access: Access) -> None:
        self._engine = engine
        self._access = access

    async def list(self, request: Request) -> JSONResponse:
        """Answer with every model."""
        await self._authenticate(request)
        data = [_payload(model) for model in await self._engine.models()]
        return JSONResponse({"object": "list", "data": data}, headers=_HEADERS)

    async def one(self, request: Request) -> JSONResponse:
        """Answer with one model, or 404."""
        await self._authenticate(request)
        wanted = request.path_params["model"]
        for model in await self._engine.models():
            if model.id == wanted:
                return JSONResponse(_payload(model), headers=_HEADERS)
        raise ClientError(
            "There is no model of that name here.",
            status=404,
            param="model",
            code="model_not_found",
        )

    async def _authenticate(self, request: Request) -> None:
        await self._access.caller(request.scope, headers_of(request.scope))


def _payload(model: ModelInfo) -> dict[str, Any]:
    return {
        "id": model.id,
        "object": "model",
        "created": model.created,
        "owned_by": model.owned_by,
    }
