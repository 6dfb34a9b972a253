"""A language model and an embedder on this machine, behind one engine."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence

from origin.engine.contract import Engine, Event, ModelInfo
from shared.requests import EmbeddingRequest, Request


class LocalEngine:
    """Sends embeddings to one engine, everything else to another."""

    def __init__(self, *, text: Engine, embeddings: Engine) -> None:
        self._text = text
        self._embeddings = embeddings

    async def models(self) -> Sequence[ModelInfo]:
        """Both engines' models."""
        return [*await self._text.models(), *await self._embeddings.models()]

    async def fingerprint(self, model: str) -> str:
        """The fingerprint of `model`, whichever engine has it. Raises ClientError 404."""
        embedding_models = {info.id for info in await self._embeddings.models()}
        engine = self._embeddings if model in embedding_models else self._text
        return await engine.fingerprint(model)

    def check(self, request: Request) -> None:
        """Refuse what the engine of the request's endpoint cannot honour."""
        self._engine_for(request).check(request)

    def run(self, request: Request) -> AsyncGenerator[Event, None]:
        """Run on the engine of the request's endpoint."""
        return self._engine_for(request).run(request)

    async def close(self) -> None:
        """Close both."""
        await self._text.close()
        await self._embeddings.close()

    def _engine_for(self, request: Request) -> Engine:
        return self._embeddings if isinstance(request, EmbeddingRequest) else self._text
