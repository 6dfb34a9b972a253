"""The edge: from a request to whom and what it asks, or to the error that says what is wrong.

It knows routes, clients' keys, sizes, and how a request becomes a cache key; what answers one is
`answers`. Only bad input, a missing key and a failed origin are errors, and each of them is in
OpenAI's shape.
"""

from __future__ import annotations

import traceback
from functools import lru_cache, partial
from typing import Any
from urllib.parse import SplitResult, urlsplit

import runtime
from answers import Answers, Passage, Query, WaitUntil, relay
from edge_settings import EdgeSettings
from origin_client import OriginClient

from shared.canonical import canonical
from shared.controls import parse_controls
from shared.envelope import segment_for
from shared.errors import ClientError, EncoreError, InternalError, UpstreamError
from shared.json_text import parse_object
from shared.keys import LOOPBACK_HOSTS, authenticate, cache_key
from shared.requests import Endpoint, streaming
from shared.wire import PRIVATE, accepts_gzip

_ENDPOINTS: dict[str, Endpoint] = {endpoint.value: endpoint for endpoint in Endpoint}
_HEALTH = "/healthz"
_MODELS = "/v1/models"
_READING = ("GET", "HEAD")
MAX_REMEMBERED_CLIENTS = 256
"""`Authorization` headers found good: their HMACs are not computed again. Bad ones are not kept."""


class Edge:
    """One per isolate; every request goes through `fetch`. Holds bindings, no request's objects."""

    def __init__(self, settings: EdgeSettings, kv_namespace: Any) -> None:
        self._settings = settings
        self._client_of = lru_cache(MAX_REMEMBERED_CLIENTS)(partial(authenticate, settings.keys))
        self._origin = OriginClient(settings)
        self._answers = Answers(kv_namespace, self._origin)

    async def fetch(self, request: Any, wait_until: WaitUntil) -> Any:
        """Answer a JavaScript Request with a JavaScript Response. Raises nothing."""
        try:
            return await self._route(request, wait_until)
        except EncoreError as error:
            return runtime.respond_error(error)
        except Exception:  # noqa: BLE001 - the boundary: a client is never shown a traceback
            traceback.print_exc()
            return runtime.respond_error(InternalError("The edge failed to handle this request."))

    async def check_origin(self) -> None:
        """Say in the Worker's log when the origin is not ready to answer."""
        try:
            answer = await self._origin.send("GET", "/readyz", {})
        except UpstreamError as error:
            print(f"origin not ready: {error.message}")  # noqa: T201 - the Worker's log
            return
        if answer.status != 200:
            print(f"origin not ready: status {answer.status}")  # noqa: T201 - the Worker's log

    async def _route(self, request: Any, wait_until: WaitUntil) -> Any:
        url = urlsplit(request.url)
        path, method = url.path, request.method
        endpoint = _ENDPOINTS.get(path)
        if endpoint is not None:
            _require_method(("POST",), method, path)
            return await self._answer(endpoint, request, url, wait_until)
        if path == _HEALTH:
            _require_method(_READING, method, path)
            headers = {"content-type": "application/json", "cache-control": PRIVATE}
            return runtime.respond(200, headers, b'{"status":"ok"}')
        if path == _MODELS or path.startswith(_MODELS + "/"):
            _require_method(_READING, method, path)
            headers = runtime.headers_of(request)
            self._authenticate(headers, url)
            answer = await self._origin.send("GET", path, headers)
            return relay(answer, Passage(reason="bypass"))
        raise ClientError(f"There is no {method} {path} here.", status=404, code="unknown_url")

    def _authenticate(self, headers: dict[str, str], url: SplitResult) -> str:
        development = self._settings.development and url.hostname in LOOPBACK_HOSTS
        return self._client_of(headers.get("authorization"), development=development).tenant

    async def _answer(
        self, endpoint: Endpoint, request: Any, url: SplitResult, wait_until: WaitUntil
    ) -> Any:
        headers = runtime.headers_of(request)
        tenant = self._authenticate(headers, url)
        controls = parse_controls(headers)
        size_bytes = _content_length(headers)
        self._refuse_oversized(size_bytes)
        if size_bytes > self._settings.max_cached_body_bytes:
            body = request.body
        else:
            body = await runtime.body_of(request)
            size_bytes = size_bytes or body.byteLength
            self._refuse_oversized(size_bytes)
        if size_bytes > self._settings.max_cached_body_bytes:
            return await self._answers.forward(endpoint, headers, controls, body, "too-large")
        fields = parse_object(runtime.to_bytes(body))
        stream, include_usage = streaming(fields)
        form = canonical(
            tenant=tenant,
            scope=controls.scope,
            endpoint=endpoint.value,
            bucket=controls.bucket,
            fields=fields,
        )
        query = Query(
            endpoint=endpoint,
            tenant=tenant,
            key=cache_key(self._settings.keys.current, form),
            segment=segment_for(stream=stream, include_usage=include_usage),
            controls=controls,
            headers=headers,
            body=body,
            fields=fields,
            inflate=not accepts_gzip(runtime.client_accept_encoding(request, headers)),
        )
        return await self._answers.answer(query, wait_until)

    def _refuse_oversized(self, size_bytes: int) -> None:
        limit = self._settings.max_body_bytes
        if size_bytes > limit:
            raise ClientError(
                f"The body has {size_bytes} bytes; at most {limit} are accepted.",
                status=413,
                code="request_too_large",
            )


def _require_method(wanted: tuple[str, ...], method: str, path: str) -> None:
    if method not in wanted:
        raise ClientError(
            f"{path} takes {' and '.join(wanted)}, not {method}.",
            status=405,
            code="method_not_allowed",
            allow=", ".join(wanted),
        )


def _content_length(headers: dict[str, str]) -> int:
    """The announced size in bytes, 0 where none is: then the body itself is measured."""
    value = headers.get("content-length", "")
    return int(value) if value.isascii() and value.isdigit() else 0
