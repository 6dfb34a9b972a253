"""OpenTelemetry traces, for who has `encore[otel]` and an `OTEL_EXPORTER_OTLP_ENDPOINT`.

A request's trace goes on where its client's `traceparent` (W3C Trace Context) says, through the
edge as well. Spans have names, times, statuses and the short key; never content, keys or tenants'
words. Without an endpoint nothing of OpenTelemetry is imported.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, Final

from origin.api.http import headers_of
from shared.requests import Endpoint

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

_ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
_ROUTES: Final = frozenset(Endpoint)
_NOTHING: Final[AbstractContextManager[None]] = nullcontext()
_tracer: Any = None
"""OpenTelemetry's own is of the process too."""
log = logging.getLogger(__name__)


def span(name: str) -> AbstractContextManager[Any]:
    """A span of the request under way within the block; nothing where there are no traces."""
    return _NOTHING if _tracer is None else _tracer.start_as_current_span(name)


@contextmanager
def span_apart(name: str) -> Iterator[None]:
    """A span that others are not put under: for what is not ended where it began."""
    if _tracer is None:
        yield
        return
    begun = _tracer.start_span(name)
    try:
        yield
    finally:
        begun.end()


def traced(app: ASGIApp, processor: SpanProcessor | None = None) -> ASGIApp:
    """`app`, with a trace of each request where an endpoint is set; else `app` itself.

    `processor` is given the spans in the exporter's place.
    """
    if processor is None and not any(os.environ.get(name) for name in _ENDPOINTS):
        return app
    try:
        return _Traced(app, _provider(processor))
    except ImportError:
        log.warning("no traces: %s is set; install encore[otel]", " or ".join(_ENDPOINTS))
        return app


def _provider(processor: SpanProcessor | None) -> TracerProvider:
    from opentelemetry.sdk.resources import SERVICE_NAME, Resource  # noqa: PLC0415 - optional
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415

    name = os.environ.get("OTEL_SERVICE_NAME") or "encore-origin"
    provider = TracerProvider(resource=Resource.create({SERVICE_NAME: name}))
    if processor is None:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import (  # noqa: PLC0415
            OTLPSpanExporter,
        )
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415

        processor = BatchSpanProcessor(OTLPSpanExporter())
    provider.add_span_processor(processor)
    return provider


class _Traced:
    """An application whose requests are spans."""

    def __init__(self, app: ASGIApp, provider: TracerProvider) -> None:
        from opentelemetry.trace import SpanKind, Status, StatusCode  # noqa: PLC0415 - optional
        from opentelemetry.trace.propagation.tracecontext import (  # noqa: PLC0415
            TraceContextTextMapPropagator,
        )

        global _tracer  # noqa: PLW0603 - one of the process, as OpenTelemetry's
        _tracer = provider.get_tracer("encore")
        self._app = app
        self._provider = provider
        self._tracer = _tracer
        self._propagator = TraceContextTextMapPropagator()
        self._server = SpanKind.SERVER
        self._failed = Status(StatusCode.ERROR)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or the lifespan."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            if scope["type"] == "lifespan":
                self._provider.shutdown()
            return
        parent = self._propagator.extract(headers_of(scope))
        with self._tracer.start_as_current_span(
            f"{scope['method']} {_route(scope['path'])}",
            context=parent,
            kind=self._server,
            attributes={"http.request.method": scope["method"], "url.scheme": scope["scheme"]},
        ) as request:

            async def noting(message: Message) -> None:
                if message["type"] == "http.response.start":
                    status = message["status"]
                    request.set_attribute("http.response.status_code", status)
                    if status >= 500:
                        request.set_status(self._failed)
                    for name, value in message["headers"]:
                        if name in {b"cache-status", b"encore-key"}:
                            key = name.decode().replace("-", ".")
                            request.set_attribute(key, value.decode("latin-1"))
                await send(message)

            await self._app(scope, receive, noting)


def _route(path: str) -> str:
    """A span's name takes few values: what clients put into a path is left out."""
    return path if path in _ROUTES else "/" + path.removeprefix("/").partition("/")[0]
