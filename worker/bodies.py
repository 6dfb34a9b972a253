"""Bodies of requests: read whole within a limit, or handed on unread.

A body whose size is not announced is read no further than its limit. All raise ClientError: 413 for
one that is larger, 400 for one that breaks off.
"""

from __future__ import annotations

from typing import Any

import runtime

from shared.errors import ClientError
from shared.wire import announced_bytes


async def read(request: Any, headers: dict[str, str], limit_bytes: int) -> Any:
    """The whole body, as a JavaScript ArrayBuffer."""
    return await _read(request, announced_bytes(headers) or 0, limit_bytes)


async def read_small(
    request: Any, headers: dict[str, str], *, small_bytes: int, limit_bytes: int
) -> tuple[Any, bool]:
    """(body, whether it is small). One that is announced to be larger is a stream."""
    size_bytes = announced_bytes(headers) or 0
    _refuse_oversized(size_bytes, limit_bytes)
    if size_bytes > small_bytes:
        return request.body, False
    body = await _read(request, size_bytes, limit_bytes)
    return body, body.byteLength <= small_bytes


async def handed_on(request: Any, headers: dict[str, str], limit_bytes: int) -> Any:
    """What goes along with a request that is passed on: a stream where its size is announced.

    None where there is nothing.
    """
    if request.method == "GET":
        return None  # it could not alter what is asked for (RFC 9110 section 9.3.1)
    size_bytes = announced_bytes(headers) or 0
    _refuse_oversized(size_bytes, limit_bytes)
    if size_bytes:
        return request.body
    body = await _read(request, size_bytes, limit_bytes)
    return body if body.byteLength else None


async def _read(request: Any, size_bytes: int, limit_bytes: int) -> Any:
    _refuse_oversized(size_bytes, limit_bytes)
    try:
        if size_bytes:
            return await runtime.body_of(request)
        body = await runtime.body_within(request, limit_bytes)
    except runtime.PlatformError as exc:  # who sent it has gone
        raise ClientError("The body is not whole.", code="incomplete_body") from exc
    if body is None:
        _refuse_oversized(limit_bytes + 1, limit_bytes)
    return body


def _refuse_oversized(size_bytes: int, limit_bytes: int) -> None:
    if size_bytes > limit_bytes:
        raise ClientError(
            f"The body has more than {limit_bytes} bytes, which is the most that is accepted.",
            status=413,
            code="request_too_large",
        )
