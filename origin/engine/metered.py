"""An engine that counts what another one generates: how much is under way, and the tokens spent.

Tokens are counted of runs that end: what a run that is broken off had cost, nobody says.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from origin.engine.contract import Engine, Event, Finished, ModelInfo
from origin.entries import token_counts
from origin.metrics import GENERATIONS
from origin.usage import Recorder
from shared.requests import Request


class MeteredEngine:
    """The engine contract, by another engine, which it owns."""

    def __init__(self, engine: Engine, recorder: Recorder) -> None:
        self._engine = engine
        self._recorder = recorder

    async def models(self) -> Sequence[ModelInfo]:
        """See Engine.models."""
        return await self._engine.models()

    async def fingerprint(self, model: str) -> str:
        """See Engine.fingerprint."""
        return await self._engine.fingerprint(model)

    def check(self, request: Request) -> None:
        """See Engine.check."""
        self._engine.check(request)

    async def run(
        self, request: Request, *, tenant: str | None = None
    ) -> AsyncGenerator[Event, None]:
        """See Engine.run."""
        with GENERATIONS.track_inprogress():
            async with aclosing(self._engine.run(request, tenant=tenant)) as events:
                async for event in events:
                    if isinstance(event, Finished) and tenant is not None:
                        tokens = token_counts(event.answer)
                        self._recorder.count_spent(tenant, request.model, tokens)
                    yield event

    async def close(self) -> None:
        """See Engine.close."""
        await self._engine.close()
