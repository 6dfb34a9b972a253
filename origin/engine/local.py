"""A language model and an embedder on this machine, behind one engine."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path

from origin.engine.context_window import ContextWindow, UnsupportedWindowError
from origin.engine.contract import Engine, Event, ModelInfo
from origin.engine.embedding_engine import EmbeddingEngine
from origin.engine.transformers_engine import TransformersEngine
from origin.failures import first_line
from origin.semantic.embedder import Embedder
from origin.settings import Settings, SettingsError, variable
from shared.errors import ClientError
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

    def run(
        self, request: Request, *, tenant: str | None = None, scope: str | None = None
    ) -> AsyncGenerator[Event, None]:
        """Run on the engine of the request's endpoint."""
        return self._engine_for(request).run(request, tenant=tenant, scope=scope)

    def forget(self, tenant: str | None = None) -> None:
        """Of the language model; the embedder keeps nothing."""
        self._text.forget(tenant)

    async def close(self) -> None:
        """Close both."""
        await self._text.close()
        await self._embeddings.close()

    def _engine_for(self, request: Request) -> Engine:
        return self._embeddings if isinstance(request, EmbeddingRequest) else self._text


def load_local_engine(settings: Settings) -> LocalEngine:
    """Load model and embedder: seconds to minutes. Raises SettingsError naming the variable."""
    pinned = _pinned_prompts(settings.pinned_prompts)
    window = _context_window(settings)
    try:
        text = TransformersEngine.load(
            settings.model,
            name=settings.model_name,
            dtype=settings.dtype,
            device=settings.device,
            chat_template=settings.chat_template,
            concurrency=settings.engine_concurrency,
            queue_limit=settings.engine_queue_limit,
            prefix_cache=settings.prefix_cache,
            prefix_cache_bytes=settings.prefix_cache_bytes,
            pinned_prompts=pinned,
            context_window=window,
            batching=settings.engine_batching == "on",
        )
    except UnsupportedWindowError as exc:
        raise _no_window(settings, exc) from exc
    except (OSError, ValueError) as exc:
        raise _cannot_load("model", settings.model, exc) from exc
    except ClientError as exc:
        raise SettingsError(
            f"{variable('pinned_prompts')}: the model's chat template takes no system message"
        ) from exc
    try:
        embedder = Embedder.load(settings.embedder, queue_limit=settings.engine_queue_limit)
    except (OSError, ValueError) as exc:
        raise _cannot_load("embedder", settings.embedder, exc) from exc
    return LocalEngine(text=text, embeddings=EmbeddingEngine(embedder))


def _pinned_prompts(path: Path | None) -> dict[str, str]:
    """The system prompts of a file, by name."""
    if path is None:
        return {}
    label = f"{variable('pinned_prompts')}={str(path)!r}"
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as exc:
        raise SettingsError(f"{label}: not a readable file of JSON") from exc
    if not isinstance(value, dict) or not all(
        isinstance(text, str) and text for text in value.values()
    ):
        raise SettingsError(f'{label}: not a JSON object of names and texts, {{"name": "You are"}}')
    return value


def _context_window(settings: Settings) -> ContextWindow | None:
    if settings.context_window is None:
        return None
    try:
        return ContextWindow(tokens=settings.context_window, sink=settings.context_sink)
    except ValueError as exc:
        raise _no_window(settings, exc) from exc


def _no_window(settings: Settings, exc: ValueError) -> SettingsError:
    return SettingsError(
        f"{variable('context_window')}={settings.context_window} with "
        f"{variable('context_sink')}={settings.context_sink}: {exc}"
    )


def _cannot_load(name: str, value: str | None, exc: Exception) -> SettingsError:
    return SettingsError(
        f"{variable(name)}={value or 'the default'!r} cannot be loaded ({first_line(exc)}); give a "
        "folder with a transformers checkpoint, or the id of one that can be downloaded"
    )
