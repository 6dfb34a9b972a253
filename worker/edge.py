"""The edge: from a request to whom and what it asks, or to the error that says what is wrong.

It knows routes, clients' keys, and how a request becomes a cache key; what answers one is
`answers`. Only bad input, a missing key and a failed origin are errors, and each of them is in
OpenAI's shape.
"""

from __future__ import annotations

import asyncio
import json
import time
import traceback
from functools import lru_cache, partial
from typing import Any
from urllib.parse import SplitResult, urlsplit

import bodies
import cors
import runtime
from answers import Answers, counted_as, relay
from behind import MAX_PULLS, Reporter, warm
from control_documents import ControlDocuments
from edge_settings import EdgeSettings
from origin_client import OriginAnswer, OriginClient, OriginError
from queries import Ask, Passage, Query, WaitUntil

from shared.cache_headers import EDGE, forward_status
from shared.control_document import (
    ControlDocument,
    ControlError,
    Strategy,
    canonical_for,
    key_profile,
)
from shared.controls import parse_controls
from shared.counts import Counts, Trouble
from shared.diagnosis import agreement
from shared.embeddings import elements, wants_base64
from shared.envelope import segment_for
from shared.errors import ClientError, EncoreError, InternalError, UpstreamError
from shared.json_text import parse_object
from shared.keys import (
    LOOPBACK_HOSTS,
    Client,
    KeyRing,
    authenticate,
    cache_key,
    check_tenant,
    ring_of_edge,
)
from shared.paths import is_plain
from shared.requests import Endpoint, streaming
from shared.wire import (
    CONTROL_PATH,
    DIAGNOSIS_PATH,
    EDGE_AUTHORIZATION,
    PASSED_METHODS,
    PRIVATE,
    accepts_gzip,
)

_ENDPOINTS: dict[str, Endpoint] = {endpoint.value: endpoint for endpoint in Endpoint}
_HEALTH = "/healthz"
_MODELS = "/v1/models"
_API = "/v1/"
_ADMIN = "/cache/"
_READING = ("GET", "HEAD")
_JSON_HEADERS = {"content-type": "application/json", "cache-control": PRIVATE}
MAX_ADMIN_BODY_BYTES = 1 << 20
MAX_DOCUMENT_BYTES = 8 << 20
"""Twice what a document with the longest names can have."""
RATE_LIMIT_PATIENCE_S = 10
MAX_REMEMBERED_CLIENTS = 256
"""`Authorization` headers found good: their HMACs are not computed again. Bad ones are not kept."""


class Edge:
    """One per isolate; every request goes through `fetch`. Holds bindings, no request's objects.

    `rate_limit` is the platform's binding, or None.
    """

    def __init__(self, settings: EdgeSettings, kv_namespace: Any, rate_limit: Any = None) -> None:
        self._settings = settings
        self._rate_limit = rate_limit
        self._client_of = lru_cache(MAX_REMEMBERED_CLIENTS)(partial(authenticate, settings.keys))
        self._origin = OriginClient(settings)
        self._control = ControlDocuments(kv_namespace, self._origin, settings.control_memo_s)
        self._counts = Counts()
        self._reporter = Reporter(self._counts, origin=self._origin, control=self._control)
        self._answers = Answers(
            kv_namespace,
            keys=settings.keys,
            origin=self._origin,
            control=self._control,
            counts=self._counts,
        )

    async def fetch(self, request: Any, wait_until: WaitUntil) -> Any:
        """Answer a JavaScript Request with a JavaScript Response. Raises nothing."""
        began_s = time.monotonic()
        try:
            response = await self._route(request, began_s, wait_until)
        except EncoreError as error:
            response = runtime.respond_error(error)
            if isinstance(error, OriginError):
                status = forward_status(
                    EDGE, error.reason, status=error.received, detail="origin-error"
                )
                runtime.add_headers(response, {"cache-status": status})
        except Exception:  # noqa: BLE001 - the boundary: a client is never shown a traceback
            traceback.print_exc()
            response = runtime.respond_error(
                InternalError("The edge failed to handle this request.")
            )
        if self._settings.cors_origins:
            allowed = cors.allowed_origin(self._settings.cors_origins, runtime.headers_of(request))
            if allowed is not None and request.method != "OPTIONS":
                runtime.add_headers(response, cors.answer_headers(allowed))
        if self._reporter.is_due(began_s):
            wait_until(self._reporter.flush())
        return response

    async def run_scheduled(self) -> None:
        """What the cron trigger is for: look after the origin, and fetch entries ahead."""
        await self.check_origin()
        try:
            put = await warm(self._answers, self._origin, self._settings.warm_operations)
        except (UpstreamError, KeyError, TypeError) as exc:
            runtime.log(f"warming: {exc}")
            return
        if put:
            runtime.log(f"warming: {put} entries fetched ahead")

    async def check_origin(self) -> None:
        """Say in the Worker's log when the origin is not ready to answer."""
        try:
            answer = await self._origin.send("GET", "/readyz", {})
        except UpstreamError as error:
            runtime.log(f"origin not ready: {error.message}")
            return
        if answer.status != 200:
            runtime.log(f"origin not ready: status {answer.status}")

    async def _route(self, request: Any, began_s: float, wait_until: WaitUntil) -> Any:
        url = urlsplit(request.url)
        path, method = url.path, request.method
        if method == "OPTIONS" and self._settings.cors_origins:
            return self._preflight(request)
        endpoint = _ENDPOINTS.get(path)
        if endpoint is not None:
            _require_method(("POST",), method, path)
            return await self._answer(endpoint, request, url, began_s, wait_until)
        if path == _HEALTH:
            _require_method(_READING, method, path)
            return runtime.respond(200, _JSON_HEADERS, b'{"status":"ok"}')
        if path == _MODELS or path.startswith(_MODELS + "/"):
            _require_method(_READING, method, path)
            _require_plain(method, path)
            headers = runtime.headers_of(request)
            self._authenticate(headers, url)
            answer = await self._origin.send("GET", path, headers, as_edge=False)
            return relay(answer, Passage(reason="bypass"))
        if path.startswith(_ADMIN):
            _require_method(("GET", "POST"), method, path)
            _require_plain(method, path)
            return await self._administer(request, url)
        if path.startswith(_API) and method in PASSED_METHODS:
            _require_plain(method, path)
            return await self._pass_on(request, url, began_s)
        if path.startswith(CONTROL_PATH) and method == "PUT":
            return await self._take_document(request, path)
        if path == DIAGNOSIS_PATH and method == "GET":
            return await self._diagnose(request, path)
        raise _unknown_url(method, path)

    def _authenticate(self, headers: dict[str, str], url: SplitResult) -> Client:
        development = self._settings.development and url.hostname in LOOPBACK_HOSTS
        return self._client_of(headers.get("authorization"), development=development)

    async def _answer(
        self,
        endpoint: Endpoint,
        request: Any,
        url: SplitResult,
        began_s: float,
        wait_until: WaitUntil,
    ) -> Any:
        headers = runtime.headers_of(request)
        client = self._authenticate(headers, url)
        try:
            controls = parse_controls(headers)
            if self._rate_limit is not None:
                await self._respect_rate_limit(client)
            body, cacheable = await bodies.read_small(
                request,
                headers,
                small_bytes=self._settings.max_cached_body_bytes,
                limit_bytes=self._settings.max_body_bytes,
            )
            ask = Ask(
                endpoint=endpoint,
                tenant=client.tenant,
                controls=controls,
                headers=headers,
                body=body,
                began_s=began_s,
                wait_until=wait_until,
            )
            if not cacheable:
                return await self._answers.forward(ask, "too-large")
            inflate = not accepts_gzip(runtime.client_accept_encoding(request, headers))
            return await self._answer_keyed(client, ask, inflate=inflate)
        except EncoreError as error:
            self._count_failure(client, error, began_s)
            raise

    async def _answer_keyed(self, client: Client, ask: Ask, *, inflate: bool) -> Any:
        fields = parse_object(runtime.to_bytes(ask.body))
        stream, include_usage = streaming(fields)
        base64 = wants_base64(ask.endpoint, fields)
        if len(elements(ask.endpoint, fields) or ()) > 1:
            # Its inputs have an entry each, and only the origin can put them together.
            return await self._answers.forward(ask, "batch")
        key_of = partial(self._key, ask, fields)
        found = None
        document = self._control.remembered(ask.tenant)
        if document is None:
            # Both reads at once, by the policy that was known last.
            last = self._control.last_known(ask.tenant)
            guess = last or ControlDocument(tenant=ask.tenant, revision=0)
            key, strategy = key_of(guess)
            looking = runtime.start(self._answers.look_up(ask.tenant, key))
            document = await self._control.read(ask.tenant)
            found = await looking
            if document is not None and key_profile(document) != key_profile(guess):
                (key, strategy), found = key_of(document), None
        else:
            key, strategy = key_of(document)
        listed = client.key_id is None or document is None or document.role_of(client.key_id)
        if not listed:
            # Revoked, or so new that the document here does not list it: the origin knows.
            return await self._answers.forward(ask, "key-not-listed")
        previous, previous_key = self._settings.keys.previous, None
        if previous is not None and document is not None and document.cut_offs.keys:
            previous_key, _ = key_of(document, ring=previous)
        query = Query(
            endpoint=ask.endpoint,
            tenant=ask.tenant,
            controls=ask.controls,
            headers=ask.headers,
            body=ask.body,
            began_s=ask.began_s,
            wait_until=ask.wait_until,
            document=document,
            key=key,
            strategy=strategy,
            previous_key=previous_key,
            segment=segment_for(stream=stream, include_usage=include_usage, base64=base64),
            fields=fields,
            inflate=inflate,
        )
        return await self._answers.answer(query, found)

    def _key(
        self,
        ask: Ask,
        fields: dict[str, Any],
        document: ControlDocument,
        *,
        ring: KeyRing | None = None,
    ) -> tuple[str, Strategy]:
        form = canonical_for(document, endpoint=ask.endpoint, controls=ask.controls, fields=fields)
        return cache_key(ring or self._settings.keys.current, form.canonical), form.strategy

    async def _respect_rate_limit(self, client: Client) -> None:
        """Raise ClientError 429 where the platform says that the tenant asks too often.

        A key that is not listed (any more) has a limit of its own: it takes nothing from the
        tenant's.
        """
        limited, document = client.tenant, self._control.last_known(client.tenant)
        if document is not None:
            if not document.policy.rate_limited:
                return
            if client.key_id is not None and document.role_of(client.key_id) is None:
                limited = f"{client.tenant}:{client.key_id}"
        try:
            allowed = await runtime.is_allowed(self._rate_limit, limited)
        except runtime.PlatformError as exc:
            runtime.log(f"rate limit: {exc}")
            return
        if not allowed:
            raise ClientError(
                "Too many requests: the rate limit of this tenant is reached.",
                status=429,
                type="rate_limit_error",
                code="rate_limit_exceeded",
                retry_after_s=RATE_LIMIT_PATIENCE_S,
            )

    async def _administer(self, request: Any, url: SplitResult) -> Any:
        """Pass a request about the cache on, with the client's own credentials and no others.

        A purge is answered when this location's KV has taken it.
        """
        headers = runtime.headers_of(request)
        client = self._authenticate(headers, url)
        body = None
        if request.method == "POST":
            body = await bodies.read(request, headers, MAX_ADMIN_BODY_BYTES)
        answer = await self._origin.send(request.method, _target(url), headers, body, as_edge=False)
        if url.path == _ADMIN + "purge" and answer.status == 200:
            await self._take_purge(client, answer)
        return relay(answer, Passage(reason="bypass"))

    async def _pass_on(self, request: Any, url: SplitResult, began_s: float) -> Any:
        """Let the origin decide on a path that is unknown here, for the client alone; uncached."""
        headers = runtime.headers_of(request)
        client = self._authenticate(headers, url)
        try:
            if self._rate_limit is not None:
                await self._respect_rate_limit(client)
            body = await bodies.handed_on(
                request,
                headers,
                small_bytes=self._settings.max_cached_body_bytes,
                limit_bytes=self._settings.max_body_bytes,
            )
            answer = await self._origin.pass_on(request.method, _target(url), headers, body)
        except EncoreError as error:
            self._count_failure(client, error, began_s)
            raise
        outcome, trouble = counted_as(answer.status, "bypass")
        latency_ms = (time.monotonic() - began_s) * 1000
        self._counts.count(client.tenant, outcome, latency_ms=latency_ms, trouble=trouble)
        return relay(answer, Passage(reason="bypass"))

    def _count_failure(self, client: Client, error: EncoreError, began_s: float) -> None:
        self._counts.count(
            client.tenant,
            "refused" if error.is_refusal else "error",
            latency_ms=(time.monotonic() - began_s) * 1000,
            trouble=_trouble_of(error),
        )

    async def _take_purge(self, client: Client, answer: OriginAnswer) -> None:
        said = {} if answer.is_event_stream else parse_object(runtime.to_bytes(answer.body))
        # What the origin has left here already, it may have left with another isolate.
        keep = said.get("edge") != "acknowledged"
        tenant = said.get("tenant", client.tenant)
        tenants = [str(tenant)]
        if tenant == "*":
            tenants = list(self._control.revisions())[:MAX_PULLS]
            self._control.doubt_all()  # the others' are fetched behind their next answers
        pulls = (self._control.pull(name, at_once=True, keep=keep) for name in tenants)
        await asyncio.gather(*pulls)

    async def _take_document(self, request: Any, path: str) -> Any:
        """`PUT /internal/control/TENANT`: what the origin leaves here; to anybody else, a 404."""
        headers, _ = self._from_us("PUT", request, path)
        body = await bodies.read(request, headers, MAX_DOCUMENT_BYTES)
        try:
            tenant = check_tenant(path.removeprefix(CONTROL_PATH))
            text = runtime.to_bytes(body).decode()
            revision = await self._control.put(tenant, text)
        except (ControlError, ValueError) as exc:
            raise ClientError(f"Not a control document: {exc}.", code="invalid_document") from exc
        except runtime.PlatformError as exc:
            runtime.log(f"control document: {exc}")
            raise InternalError(
                "KV does not take the document.", status=503, retry_after_s=1
            ) from exc
        return runtime.respond(200, _JSON_HEADERS, b'{"revision":%d}' % revision)

    async def _diagnose(self, request: Any, path: str) -> Any:
        """`GET /internal/diagnosis`: the keys made here, this clock, and whether the origin is."""
        _, ring = self._from_us("GET", request, path)
        try:
            origin_status = (await self._origin.send("GET", "/readyz", {})).status
        except OriginError as error:
            origin_status = error.received or 0
        said = {
            "agreement": agreement(ring),
            "clock_ms": int(time.time() * 1000),
            "origin_status": origin_status,
        }
        return runtime.respond(200, _JSON_HEADERS, json.dumps(said).encode())

    def _from_us(self, method: str, request: Any, path: str) -> tuple[dict[str, str], KeyRing]:
        """(headers, ring) of who has our secret; to anybody else there is no such URL."""
        headers = runtime.headers_of(request)
        bearer = headers.get(EDGE_AUTHORIZATION, "").removeprefix("Bearer ")
        ring = ring_of_edge(self._settings.keys, bearer)
        if ring is None:
            raise _unknown_url(method, path)
        return headers, ring

    def _preflight(self, request: Any) -> Any:
        headers = runtime.headers_of(request)
        allowed = cors.allowed_origin(self._settings.cors_origins, headers)
        if allowed is None:
            return runtime.respond(204, {"allow": ", ".join(PASSED_METHODS), "vary": "origin"})
        return runtime.respond(204, cors.preflight_headers(allowed, headers))


def _target(url: SplitResult) -> str:
    return f"{url.path}?{url.query}" if url.query else url.path


def _trouble_of(error: EncoreError) -> Trouble | None:
    if isinstance(error, OriginError):
        return "origin-error"
    return "rate-limited" if error.code == "rate_limit_exceeded" else None


def _unknown_url(method: str, path: str) -> ClientError:
    return ClientError(f"There is no {method} {path} here.", status=404, code="unknown_url")


def _require_plain(method: str, path: str) -> None:
    """Refuse a path that a server behind this one might decode and tidy into an internal one."""
    if not is_plain(path):
        raise _unknown_url(method, path)


def _require_method(wanted: tuple[str, ...], method: str, path: str) -> None:
    if method not in wanted:
        raise ClientError(
            f"{path} takes {' and '.join(wanted)}, not {method}.",
            status=405,
            code="method_not_allowed",
            allow=", ".join(wanted),
        )
