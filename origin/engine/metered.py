"""An engine that counts what another one generates: how much is under way, and the tokens spent.

Tokens are counted of runs that end: what a run that is broken off had cost, nobody says.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from origin.engine.around import EngineAround
from origin.engine.contract import Engine, Event, Finished
from origin.entries import token_counts
from origin.metrics import GENERATIONS
from origin.tracing import span_apart
from origin.usage import Recorder
from shared.requests import Request


class MeteredEngine(EngineAround):
    """The engine contract, by another engine, which it owns."""

    def __init__(self, engine: Engine, recorder: Recorder) -> None:
        super().__init__(engine)
        self._recorder = recorder

    async def run(
        self, request: Request, *, tenant: str | None = None, scope: str | None = None
    ) -> AsyncGenerator[Event, None]:
        """See Engine.run."""
        with GENERATIONS.track_inprogress(), span_apart("generate"):
            run = self._engine.run(request, tenant=tenant, scope=scope)
            async with aclosing(run) as events:
                async for event in events:
                    if isinstance(event, Finished) and tenant is not None:
                        tokens = token_counts(event.answer)
                        self._recorder.count_spent(tenant, request.model, tokens)
                    yield event
