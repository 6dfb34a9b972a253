"""`/healthz`: the process lives. `/readyz`: it can answer, part by part."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse

from origin.engine.contract import Engine
from origin.stores.contract import Store, StoreError
from shared.errors import EncoreError


class Health:
    """Asks the parts; changes nothing; needs no key, so it names no secret and no model."""

    def __init__(self, *, store: Store, engine: Engine) -> None:
        self._store = store
        self._engine = engine

    async def live(self, _request: Request) -> JSONResponse:
        """Answer 200 while the process lives."""
        return JSONResponse({"status": "ok"})

    async def ready(self, _request: Request) -> JSONResponse:
        """Answer 200 when every part does, else 503 and which does not."""
        parts = {"redis": "ok", "engine": "ok"}
        try:
            await self._store.ping()
        except StoreError:
            parts["redis"] = "unreachable"
        try:
            await self._engine.models()
        except EncoreError as error:
            parts["engine"] = error.code or error.type
        ready = all(state == "ok" for state in parts.values())
        return JSONResponse(
            {"status": "ready" if ready else "not ready", "parts": parts}, 200 if ready else 503
        )
