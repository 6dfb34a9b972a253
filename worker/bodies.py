"""Bodies of requests: read whole within a limit, or handed on unread.

Nothing large is held: a large body is a stream, whether its size was announced or turned out. Where
it was announced the limit is kept here, else by the origin, which has its own. All raise
ClientError: 413 for a body that is too large, 400 for one that breaks off.
"""

from __future__ import annotations

from typing import Any

import runtime

from shared.errors import ClientError
from shared.wire import announced_bytes


async def read(request: Any, headers: dict[str, str], limit_bytes: int) -> Any:
    """The whole body, as a JavaScript ArrayBuffer."""
    body, is_whole = await _read(request, headers, small_bytes=limit_bytes, limit_bytes=limit_bytes)
    if not is_whole:
        await runtime.cancel(body)
        _refuse_oversized(limit_bytes + 1, limit_bytes)
    return body


async def read_small(
    request: Any, headers: dict[str, str], *, small_bytes: int, limit_bytes: int
) -> tuple[Any, bool]:
    """(body, whether it is small). A larger one is a stream."""
    return await _read(request, headers, small_bytes=small_bytes, limit_bytes=limit_bytes)


async def handed_on(
    request: Any, headers: dict[str, str], *, small_bytes: int, limit_bytes: int
) -> Any:
    """What goes along with a request that is passed on: a stream where it is large or announced.

    None where there is nothing.
    """
    if request.method == "GET":
        return None  # it could not alter what is asked for (RFC 9110 section 9.3.1)
    if announced_bytes(headers):
        small_bytes = 0
    body, is_whole = await _read(request, headers, small_bytes=small_bytes, limit_bytes=limit_bytes)
    return body if not is_whole or body.byteLength else None


async def _read(
    request: Any, headers: dict[str, str], *, small_bytes: int, limit_bytes: int
) -> tuple[Any, bool]:
    """(body, whether it is whole): an ArrayBuffer, or the stream of what is not small."""
    size_bytes = announced_bytes(headers) or 0
    _refuse_oversized(size_bytes, limit_bytes)
    if size_bytes > small_bytes:
        return request.body, False
    try:
        if size_bytes:
            return await runtime.body_of(request), True
        return await runtime.body_or_stream(request, small_bytes)
    except runtime.PlatformError as exc:  # who sent it has gone
        raise ClientError("The body is not whole.", code="incomplete_body") from exc


def _refuse_oversized(size_bytes: int, limit_bytes: int) -> None:
    if size_bytes > limit_bytes:
        raise ClientError(
            f"The body has more than {limit_bytes} bytes, which is the most that is accepted.",
            status=413,
            code="request_too_large",
        )
