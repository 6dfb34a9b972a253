"""`/healthz`: the process lives. `/readyz`: it can answer, part by part."""

from __future__ import annotations

import asyncio
import time

from starlette.requests import Request
from starlette.responses import JSONResponse

from origin.departure import Departure
from origin.engine.contract import Engine
from origin.known_models import KnownModels
from origin.stores.contract import Store, StoreError
from origin.stores.control_contract import ControlStore
from shared.errors import EncoreError
from shared.wire import PRIVATE

PATIENCE_S = 2.0
MEMORY_S = 5.0
_HEADERS = {"cache-control": PRIVATE}


class Health:
    """Asks the parts; changes nothing; needs no key, so it names no secret and no model.

    What the engine said is remembered for some seconds: behind it may be somebody else's API.
    """

    def __init__(
        self,
        *,
        store: Store,
        control_store: ControlStore,
        engine: Engine,
        known_models: KnownModels,
        departure: Departure,
    ) -> None:
        self._departure = departure
        self._known_models = known_models
        self._pings = {"redis": store.ping, "control": control_store.ping}
        self._engine = engine
        self._engine_state = ""
        self._asked_s = -MEMORY_S
        self._asking = asyncio.Lock()

    async def live(self, _request: Request) -> JSONResponse:
        """Answer 200 while the process lives."""
        return JSONResponse({"status": "ok"}, headers=_HEADERS)

    async def ready(self, _request: Request) -> JSONResponse:
        """Answer 200 when every part does, else 503 and which does not; 503, too, when it goes."""
        if self._departure.has_begun:
            going = {"status": "stopping", "parts": {"origin": "stopping"}}
            return JSONResponse(going, 503, headers=_HEADERS)
        parts = await self.parts()
        ready = all(state == "ok" for state in parts.values())
        return JSONResponse(
            {"status": "ready" if ready else "not ready", "parts": parts},
            200 if ready else 503,
            headers=_HEADERS,
        )

    async def parts(self) -> dict[str, str]:
        """How each part does, "ok" or what is wrong, as this process sees it."""
        parts: dict[str, str] = {}
        for name, ping in self._pings.items():
            try:
                await ping()
            except StoreError:
                parts[name] = "unreachable"
            else:
                parts[name] = "ok"
        async with self._asking:  # who comes meanwhile is told the same
            if time.monotonic() - self._asked_s >= MEMORY_S:
                self._engine_state = await self._ask_engine()
                self._asked_s = time.monotonic()
        parts["engine"] = self._engine_state
        # Nobody is sent here before what a model's predecessor of the same name said is purged.
        parts["models"] = "ok" if await self._known_models.compare() else "not compared"
        return parts

    async def _ask_engine(self) -> str:
        try:
            async with asyncio.timeout(PATIENCE_S):
                await self._engine.models()
        except EncoreError as error:
            return error.code or error.type
        except TimeoutError:
            return "slow"
        return "ok"
