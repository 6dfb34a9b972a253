"""What an engine around another one passes on: all but the runs, which it does something about."""

from __future__ import annotations

from collections.abc import Sequence

from origin.engine.contract import Engine, ModelInfo
from shared.requests import Request


class EngineAround:
    """The engine contract but for `run`, by another engine, which it owns."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def models(self) -> Sequence[ModelInfo]:
        """See Engine.models."""
        return await self._engine.models()

    async def fingerprint(self, model: str) -> str:
        """See Engine.fingerprint."""
        return await self._engine.fingerprint(model)

    def check(self, request: Request) -> None:
        """See Engine.check."""
        self._engine.check(request)

    def forget(self, tenant: str | None = None) -> None:
        """See Engine.forget."""
        self._engine.forget(tenant)

    async def close(self) -> None:
        """See Engine.close."""
        await self._engine.close()
