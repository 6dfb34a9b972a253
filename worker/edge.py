"""The edge driver: from a request to an answer, by the decisions of `shared`.

    authenticate → controls → key → KV ── fresh ─────────────> stored gzip bytes
                                       └─ else → origin ─────> answer; entry into KV behind it

Invariants
1. A request that may not be shared, stored or understood is still answered: only bad input, a
   missing key and a failed origin are errors, and each is in OpenAI's shape.
2. A body leaves as it was stored; Python never reads it.
3. Validation happens on a miss only: an entry exists only under keys of requests that were valid,
   and the canonical form keeps invalid requests from sharing their keys.
4. KV failing, slow or full of junk costs a miss, which `Cache-Status` names; nothing else.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, assert_never
from urllib.parse import urlsplit

import kv
import runtime
from edge_settings import EdgeSettings
from origin_client import OriginAnswer, OriginClient

from shared.cache_headers import (
    EDGE,
    Forwarded,
    append_status,
    entry_headers,
    forward_status,
    hit_status,
    server_timing,
)
from shared.canonical import canonical
from shared.controls import Controls, parse_controls
from shared.envelope import SEGMENT_JSON, SEGMENT_SSE, SEGMENT_SSE_USAGE
from shared.errors import (
    ClientError,
    EncoreError,
    InternalError,
    UpstreamError,
    not_cached,
)
from shared.freshness import MISS, Forward, Serve, decide, serve
from shared.json_text import parse_object
from shared.keys import authenticate, cache_key
from shared.requests import Endpoint, streaming, validate
from shared.storability import request_storability
from shared.wire import accepts_gzip

WaitUntil = Callable[[Coroutine[Any, Any, None]], None]
_ENDPOINTS: dict[str, Endpoint] = {endpoint.value: endpoint for endpoint in Endpoint}
_MODELS = "/v1/models"
_LOOPBACK = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True, kw_only=True, slots=True)
class _Query:
    """A request that may be answered from the cache."""

    endpoint: Endpoint
    tenant: str
    key: str
    segment: str
    controls: Controls
    headers: dict[str, str]
    inflate: bool


class Edge:
    """One per isolate; every request goes through `fetch`. Holds bindings, no request's objects."""

    def __init__(self, settings: EdgeSettings, kv_namespace: Any) -> None:
        self._settings = settings
        self._kv = kv_namespace
        self._origin = OriginClient(settings)

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
            _require_method(method, "POST", path)
            return await self._answer(endpoint, request, url.hostname, wait_until)
        if path == "/healthz":
            _require_method(method, "GET", path)
            return runtime.respond(200, {"content-type": "application/json"}, b'{"status":"ok"}')
        if path == _MODELS or path.startswith(_MODELS + "/"):
            _require_method(method, "GET", path)
            headers = runtime.headers_of(request)
            self._authenticate(headers, url.hostname)
            return self._relay(await self._origin.send("GET", path, headers), "bypass")
        raise ClientError(f"There is no {method} {path} here.", status=404, code="unknown_url")

    def _authenticate(self, headers: dict[str, str], hostname: str | None) -> str:
        return authenticate(
            self._settings.keys,
            headers.get("authorization"),
            development=self._settings.development and hostname in _LOOPBACK,
        )

    async def _answer(
        self, endpoint: Endpoint, request: Any, hostname: str | None, wait_until: WaitUntil
    ) -> Any:
        headers = runtime.headers_of(request)
        tenant = self._authenticate(headers, hostname)
        controls = parse_controls(headers)
        announced_bytes = _content_length(headers)
        self._refuse_oversized(announced_bytes)
        if announced_bytes > self._settings.max_cached_body_bytes:
            return await self._forward_uncached(endpoint, headers, request.body, "too-large")
        body = await runtime.body_of(request)
        size_bytes = body.byteLength
        self._refuse_oversized(size_bytes)
        if size_bytes > self._settings.max_cached_body_bytes:
            return await self._forward_uncached(endpoint, headers, body, "too-large")
        fields = parse_object(runtime.to_bytes(body))
        stream, include_usage = streaming(fields)
        query = _Query(
            endpoint=endpoint,
            tenant=tenant,
            key=cache_key(
                self._settings.keys,
                canonical(
                    tenant=tenant,
                    scope=controls.scope,
                    endpoint=endpoint.value,
                    bucket=controls.bucket,
                    fields=fields,
                ),
            ),
            segment=(SEGMENT_SSE_USAGE if include_usage else SEGMENT_SSE)
            if stream
            else SEGMENT_JSON,
            controls=controls,
            headers=headers,
            inflate=not accepts_gzip(runtime.client_accept_encoding(request, headers)),
        )
        began = time.monotonic()
        entry, trouble = await self._look_up(query)
        timing = {"kv": (time.monotonic() - began) * 1000}
        decision = MISS if entry is None else decide(entry.header, _now_ms(), controls.directives)
        match decision:
            case Serve():
                if entry is not None and (view := entry.segment(query.segment)) is not None:
                    if decision.revalidate:
                        wait_until(self._refresh(query, body, entry))
                    member = hit_status(EDGE, decision)
                    return _stored(query, entry, view, decision, member, timing=timing)
                decision = MISS
            case Forward():
                pass
            case _:
                assert_never(decision)
        parsed = validate(endpoint, fields)
        if (reason := request_storability(parsed)) is not None:
            return await self._forward_uncached(endpoint, headers, body, reason)
        try:
            answer = await self._origin.send("POST", endpoint.value, headers, body, want_entry=True)
            if answer.status >= 500 and decision.stale_if_error:
                raise UpstreamError("The origin failed.", status=answer.status)
            return await self._fill(query, answer, decision.reason, trouble, wait_until)
        except UpstreamError as error:
            view = entry.segment(query.segment) if entry and decision.stale_if_error else None
            if entry is not None and view is not None:
                member = forward_status(
                    EDGE, decision.reason, status=error.status, detail="stale-if-error"
                )
                served = serve(entry.header, _now_ms())
                return _stored(query, entry, view, served, member, timing=timing)
            if controls.directives.only_if_cached:
                raise not_cached() from error
            raise

    async def _look_up(self, query: _Query) -> tuple[kv.StoredEntry | None, str | None]:
        """The entry in KV, and what was wrong where there is none because of trouble."""
        if query.controls.directives.no_store:
            return None, None
        try:
            return await kv.get(self._kv, query.tenant, query.key), None
        except kv.UndecodableError as exc:
            print(f"kv: undecodable entry {query.key[:16]}: {exc}")  # noqa: T201 - the Worker's log
            return None, "kv-undecodable"
        except runtime.PlatformError as exc:
            print(f"kv: {exc}")  # noqa: T201 - the Worker's log
            return None, "kv-error"

    async def _fill(
        self,
        query: _Query,
        answer: OriginAnswer,
        reason: Forwarded,
        trouble: str | None,
        wait_until: WaitUntil,
    ) -> Any:
        """Answer from the origin, and put its entry into KV behind the answer."""
        keep = not query.controls.directives.no_store
        if answer.is_entry:
            entry = await self._origin.read_entry(answer, query.key)
            view = entry.segment(query.segment)
            if view is None:
                raise UpstreamError("The origin's entry lacks what was asked for.")
            stored = keep and kv.worth_storing(entry.header, _now_ms())
            if stored:
                wait_until(self._put(entry))
            headers = {
                **entry_headers(entry.header, None),
                **answer.headers,
                "content-type": _content_type(query.segment),
            }
            _append(headers, forward_status(EDGE, reason, stored=stored, detail=trouble))
            return runtime.respond_gzip(headers, view, inflate=query.inflate)
        if answer.is_event_stream and answer.status == 200:
            readable, done = runtime.pass_through(answer.response.body)
            if keep:
                wait_until(self._put_after(done, query))
            headers = dict(answer.headers)
            _append(headers, forward_status(EDGE, reason, detail=trouble))
            return runtime.respond_with(answer.response, headers, readable)
        return self._relay(answer, reason, trouble)

    async def _refresh(self, query: _Query, body: Any, stale: kv.StoredEntry) -> None:
        """Have the origin make a new entry behind a stale answer, and take what it has by now.

        The origin answers from its own stale entry and refreshes detached, so this ends soon; the
        new entry is found here or by the next request after it is made.
        """
        try:
            answer = await self._origin.send(
                "POST", query.endpoint.value, query.headers, body, want_entry=True
            )
            if not answer.is_entry:
                await runtime.body_of(answer.response)
                return
            entry = await self._origin.read_entry(answer, query.key)
        except (UpstreamError, runtime.PlatformError) as exc:
            print(f"refresh: {exc}")  # noqa: T201 - the Worker's log
            return
        if entry.header.created_ms > stale.header.created_ms:
            await self._put(entry)

    async def _put(self, entry: kv.StoredEntry) -> None:
        if not kv.worth_storing(entry.header, _now_ms()):
            return
        try:
            await kv.put(self._kv, entry)
        except runtime.PlatformError as exc:
            print(f"kv: {exc}")  # noqa: T201 - the Worker's log

    async def _put_after(self, done: Any, query: _Query) -> None:
        """Store the entry of a stream, once all of it went to the client."""
        try:
            await done
        except Exception:  # noqa: BLE001 - either side broke off: there is no entry to fetch
            return
        try:
            entry = await self._origin.finished_entry(query.key, query.headers)
        except UpstreamError as error:
            print(f"origin: {error.message}")  # noqa: T201 - the Worker's log
            return
        if entry is not None:
            await self._put(entry)

    async def _forward_uncached(
        self, endpoint: Endpoint, headers: dict[str, str], body: Any, detail: str
    ) -> Any:
        answer = await self._origin.send("POST", endpoint.value, headers, body)
        return self._relay(answer, "bypass", detail)

    def _relay(self, answer: OriginAnswer, reason: Forwarded, detail: str | None = None) -> Any:
        """Pass an origin's answer on as it comes."""
        headers = dict(answer.headers)
        _append(headers, forward_status(EDGE, reason, detail=detail))
        return runtime.respond_with(answer.response, headers, answer.response.body)

    def _refuse_oversized(self, size_bytes: int) -> None:
        limit = self._settings.max_body_bytes
        if size_bytes > limit:
            raise ClientError(
                f"The body has {size_bytes} bytes; at most {limit} are accepted.",
                status=413,
                code="request_too_large",
            )


def _stored(
    query: _Query,
    entry: kv.StoredEntry,
    view: Any,
    served: Serve,
    status_member: str,
    *,
    timing: dict[str, float],
) -> Any:
    headers = entry_headers(entry.header, served)
    headers["content-type"] = _content_type(query.segment)
    headers["cache-status"] = status_member
    headers["server-timing"] = server_timing(timing)
    return runtime.respond_gzip(headers, view, inflate=query.inflate)


def _append(headers: dict[str, str], member: str) -> None:
    headers["cache-status"] = append_status(headers.get("cache-status"), member)


def _content_type(segment: str) -> str:
    return "application/json" if segment == SEGMENT_JSON else "text/event-stream; charset=utf-8"


def _require_method(method: str, wanted: str, path: str) -> None:
    if method != wanted:
        raise ClientError(
            f"{path} takes {wanted}, not {method}.",
            status=405,
            code="method_not_allowed",
            allow=wanted,
        )


def _content_length(headers: dict[str, str]) -> int:
    """The announced size in bytes, 0 where none is: then the body itself is measured."""
    value = headers.get("content-length", "")
    return int(value) if value.isascii() and value.isdigit() else 0


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
