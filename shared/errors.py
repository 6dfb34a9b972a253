"""What can go wrong, whose fault it is, and how a client is told.

Errors are raised anywhere and translated once, at the HTTP boundary, into OpenAI's shape
`{"error": {"message", "type", "param", "code"}}`. This module knows no HTTP framework and never
sees a secret: a message names a field, a limit or a part, and never quotes a prompt or a key.
"""

from __future__ import annotations

import json
from typing import Any

from shared.wire import PRIVATE

_ONLY_IF_CACHED = "only_if_cached"


class EncoreError(Exception):
    """An error a client is told of.

    `status` is the HTTP status, `type` and `code` are OpenAI's vocabulary, `param` names the
    request field (dotted, with indices: `messages[0].content`) or is None, `retry_after_s` becomes
    `Retry-After` where waiting helps, and `allow` names the methods of a 405.
    """

    status: int = 500
    type: str = "server_error"

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        status: int | None = None,
        type: str | None = None,  # noqa: A002 - OpenAI's name for it
        retry_after_s: int | None = None,
        allow: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.code = code
        self.retry_after_s = retry_after_s
        self.allow = allow
        if status is not None:
            self.status = status
        if type is not None:
            self.type = type

    @property
    def is_refusal(self) -> bool:
        """Whether the client's request is why: a mistake (4xx), or `only-if-cached` in vain."""
        return self.status < 500 or self.code == _ONLY_IF_CACHED


class ClientError(EncoreError):
    """The request is at fault (4xx)."""

    status = 400
    type = "invalid_request_error"


class UpstreamError(EncoreError):
    """The origin, a model or an API behind us is at fault (502, 504, or the upstream's status)."""

    status = 502
    type = "upstream_error"


class InternalError(EncoreError):
    """We are at fault (500), or are overloaded (503 with `retry_after_s`)."""


def not_cached() -> UpstreamError:
    """What `only-if-cached` gets where no entry may answer (RFC 9111 section 5.2.1.7)."""
    return UpstreamError(
        "No stored answer may be used, and only-if-cached asks for nothing else.",
        status=504,
        code=_ONLY_IF_CACHED,
    )


def error_payload(error: EncoreError) -> dict[str, Any]:
    """The error as OpenAI's JSON object."""
    return {
        "error": {
            "message": error.message,
            "type": error.type,
            "param": error.param,
            "code": error.code,
        }
    }


def error_body(error: EncoreError) -> bytes:
    """The error as UTF-8 JSON, whatever text a request brought into it."""
    return json.dumps(error_payload(error), ensure_ascii=False).encode("utf-8", "replace")


def error_headers(error: EncoreError) -> dict[str, str]:
    """Lower-case response headers that go with the error, content type included."""
    headers = {"content-type": "application/json", "cache-control": PRIVATE}
    if error.status == 401:
        headers["www-authenticate"] = 'Bearer realm="encore"'
    if error.retry_after_s is not None:
        headers["retry-after"] = str(error.retry_after_s)
    if error.allow is not None:
        headers["allow"] = error.allow
    return headers
