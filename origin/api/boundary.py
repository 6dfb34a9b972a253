"""The outermost part: how much is taken on, who was refused, what nobody handled."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import suppress

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from origin.api.http import send_error
from origin.audit import Denials
from origin.failures import describe
from origin.limits import Room
from shared.errors import ClientError, EncoreError, InternalError, error_body, error_headers

PROBES = frozenset({"/healthz", "/readyz", "/metrics"})
log = logging.getLogger(__name__)


class Boundary:
    """Routes what comes, and has refusals recorded. Logs what nobody handled, without its text.

    (A text may quote a prompt.) `direct` are POST routes that answer errors themselves: Starlette's
    middleware would cost a hit a tenth more. The rest is Starlette's, which answers a failure and
    raises it again; the server would log all of it.

    More than `max_requests` at once are refused; who asks how the process is never is.
    """

    def __init__(
        self,
        app: Starlette,
        direct: Mapping[str, ASGIApp],
        denials: Denials,
        *,
        max_requests: int,
    ) -> None:
        self._app = app
        self._direct = direct
        self._denials = denials
        self._room = Room(max_requests)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or the lifespan."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        takes_room = scope["path"] not in PROBES
        try:
            self._room.take(takes_room)
        except EncoreError as error:
            await send_error(send, error)
            return
        direct = self._direct.get(scope["path"]) if scope["method"] == "POST" else None
        send = self._denials.watching(scope, send)
        try:
            await (direct or self._app)(scope, receive, send)
        except Exception as exc:  # noqa: BLE001 - the last to see it
            log.error("unexpected failure in %s: %s", scope["path"], describe(exc))  # noqa: TRY400
            if direct is not None:
                # Refused where an answer has begun; the server then closes the connection.
                with suppress(RuntimeError):
                    await send_error(send, _failed())
        finally:
            self._room.give(takes_room)


def _failed() -> InternalError:
    return InternalError("The origin failed to handle this request.")


async def _encore_error(_request: Request, exc: Exception) -> Response:
    error = exc if isinstance(exc, EncoreError) else InternalError("The request failed.")
    return Response(error_body(error), error.status, error_headers(error))


async def _http_error(request: Request, exc: Exception) -> Response:
    """Translate the router's own 404 and 405."""
    status = exc.status_code if isinstance(exc, HTTPException) else 500
    path, method = request.url.path, request.method
    if status == 405:
        error = ClientError(
            f"{path} does not take {method}.",
            status=405,
            code="method_not_allowed",
            allow=(getattr(exc, "headers", None) or {}).get("Allow"),
        )
    else:
        error = ClientError(f"There is no {method} {path} here.", status=status, code="unknown_url")
    return await _encore_error(request, error)


async def _unexpected_error(request: Request, _exc: Exception) -> Response:
    return await _encore_error(request, _failed())


HANDLERS = {
    EncoreError: _encore_error,
    HTTPException: _http_error,
    Exception: _unexpected_error,
}
"""Starlette's exception handlers: every error in OpenAI's shape."""
