"""What is to be warmed: a request as a line of a file or an item of `POST /cache/warm` has it.

    {"endpoint": "/v1/chat/completions", "body": {…}, "headers": {"Encore-TTL": "3600"}}
    {"custom_id": "1", "method": "POST", "url": "/v1/embeddings", "body": {…}}

The second is a line of OpenAI's batch files. `endpoint` is that of chat where it is absent;
`headers` may be what controls the cache, and nothing else: no credentials lie in a job.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from shared import json_text
from shared.checks import missing, unknown, unsupported_value, wrong_type
from shared.controls import Controls, parse_controls
from shared.errors import ClientError
from shared.requests import Endpoint, streaming, validate

_FIELDS = frozenset({"endpoint", "body", "headers", "custom_id", "method", "url"})
_HEADERS = frozenset(
    {
        "cache-control",
        "encore-bucket",
        "encore-class",
        "encore-scope",
        "encore-semantic",
        "encore-tags",
        "encore-ttl",
    }
)
_VALUE = re.compile(r"[\t\x20-\x7e]*")
_OF_STREAMS = frozenset({"stream", "stream_options"})


@dataclass(frozen=True, kw_only=True, slots=True)
class WarmRequest:
    """A request to warm the cache by. `body` is compact JSON, of a plain answer."""

    endpoint: Endpoint
    body: bytes
    headers: Mapping[str, str]
    controls: Controls

    def as_fields(self) -> dict[str, Any]:
        """What `read` makes this of again."""
        body = json_text.parse_object(self.body)
        return {"endpoint": self.endpoint.value, "body": body, "headers": dict(self.headers)}


def read(fields: Any, path: str = "") -> WarmRequest:
    """Check a request that is to be warmed. `path` is where it stands: `requests[3]`.

    Raises ClientError as `written` does, and for one that warms nothing.
    """
    request = written(fields, path)
    directives = request.controls.directives
    if directives.no_store or directives.only_if_cached:
        raise ClientError(
            "A request with no-store or only-if-cached warms nothing.",
            param=f"{path}.headers.Cache-Control" if path else "headers.Cache-Control",
            code="invalid_header",
        )
    return request


def written(fields: Any, path: str = "") -> WarmRequest:
    """Check a request as it was written down.

    Raises ClientError naming the field, in words that quote nothing of a prompt.
    """
    if not isinstance(fields, dict):
        raise wrong_type(fields, path or "request", "an object")
    within = f"{path}." if path else ""
    for name in fields:
        if name not in _FIELDS:
            raise unknown(within + name[:40])
    if fields.get("method", "POST") != "POST":
        raise unsupported_value(f"{within}method", ["POST"])
    named: Any = Endpoint.CHAT.value
    for place in ("endpoint", "url"):
        if place in fields:
            allowed = [named] if place == "url" and "endpoint" in fields else list(Endpoint)
            named = fields[place]
            if named not in allowed:
                raise unsupported_value(within + place, allowed)
    endpoint = Endpoint(named)
    if fields.get("body") is None:
        raise missing(f"{within}body")
    body = fields["body"]
    if not isinstance(body, dict):
        raise wrong_type(body, f"{within}body", "an object")
    try:
        streaming(body)
        # One entry answers both: the plain answer says what it took.
        plain = {name: value for name, value in body.items() if name not in _OF_STREAMS}
        validate(endpoint, plain)
    except ClientError as error:
        raise _within(error, f"{within}body") from error
    headers = _headers(fields.get("headers"), f"{within}headers")
    try:
        controls = parse_controls(headers)
    except ClientError as error:
        raise _within(error, f"{within}headers") from error
    return WarmRequest(
        endpoint=endpoint, body=json_text.dumps(plain), headers=headers, controls=controls
    )


def _headers(given: Any, path: str) -> dict[str, str]:
    """The headers, names in lower case. Raises ClientError."""
    if given is None:
        return {}
    if not isinstance(given, dict):
        raise wrong_type(given, path, "an object")
    headers: dict[str, str] = {}
    for name, value in given.items():
        if name.lower() not in _HEADERS:
            raise ClientError(
                f"'{path}' may be Cache-Control and Encore-*, not '{name[:40]}'.",
                param=path,
                code="invalid_header",
            )
        if not isinstance(value, str) or _VALUE.fullmatch(value) is None:
            raise wrong_type(value, f"{path}.{name}", "a string that a header can have")
        headers[name.lower()] = value
    return headers


def _within(error: ClientError, path: str) -> ClientError:
    """The error with its field named from where the request stands."""
    return ClientError(
        error.message,
        param=path if error.param is None else f"{path}.{error.param}",
        code=error.code,
        status=error.status,
    )
