"""What the edge asks of the origin, and how it says who asks.

The client's own `Authorization` travels beside the edge's bearer: the origin authenticates again.
Headers are built from a list, so nothing internal that a client sent gets through. Whatever the
origin does that an origin should not do raises OriginError, in the client's shape: nothing else
that may stand at its address (a load balancer's page, a redirect) is passed on.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import runtime
from edge_settings import EdgeSettings
from kv import StoredEntry

from shared.cache_headers import ORIGIN, Forwarded
from shared.envelope import MAX_PREFIX_BYTES, MEDIA_TYPE, EnvelopeError, decode_prefix
from shared.errors import ClientError, UpstreamError
from shared.json_text import parse_object
from shared.keys import edge_bearer
from shared.wire import (
    CONTROL_PATH,
    CONTROL_REVISION,
    EDGE_AUTHORIZATION,
    EDGE_REFRESH,
    EDGE_STORE,
    ENTRY_PATH,
    FORWARDED_REQUEST_HEADERS,
    FORWARDED_RESPONSE_HEADERS,
    PASSED_REQUEST_HEADERS,
    PASSED_RESPONSE_HEADERS,
    end_to_end,
)

BEHIND_TIMEOUT_S = 10.0
"""For what is asked behind an answer: the platform ends that 30 s after it."""
_JSON = "application/json"
_EVENT_STREAM = "text/event-stream"


class OriginError(UpstreamError):
    """The origin failed. `received` is the status it answered with, None where nothing came.

    `reason` is why it was asked.
    """

    reason: Forwarded = "bypass"

    def __init__(
        self, message: str, *, code: str, status: int = 502, received: int | None = None
    ) -> None:
        super().__init__(message, status=status, code=code)
        self.received = received


@dataclass(frozen=True, kw_only=True, slots=True)
class OriginAnswer:
    """What the origin answered. `headers` are those a client may see.

    `body` is a JavaScript stream of events that are still to come, or all of the answer as an
    ArrayBuffer. `control_revision` is that of the tenant's control document, 0 where the origin
    does not say; `may_store` grants the one write of this entry to KV.
    """

    status: int
    headers: dict[str, str]
    body: Any
    is_entry: bool
    is_event_stream: bool
    control_revision: int
    may_store: bool

    async def discard(self) -> None:
        """Let go of a body that is not going to be read."""
        if self.is_event_stream:
            await runtime.cancel(self.body)


class OriginClient:
    """Holds no JavaScript object: it may live as long as the isolate."""

    def __init__(self, settings: EdgeSettings) -> None:
        self._url = settings.origin_url
        self._timeout_s = settings.origin_timeout_s
        self._bearer = f"Bearer {edge_bearer(settings.keys.current)}"

    async def send(
        self,
        method: str,
        path: str,
        client_headers: dict[str, str],
        body: Any = None,
        *,
        want_entry: bool = False,
        as_edge: bool = True,
        refresh: bool = False,
        timeout_s: float | None = None,
    ) -> OriginAnswer:
        """Forward a client's request. `body` is a JavaScript buffer or stream, or None.

        Without `as_edge` the origin hears of the client alone: where a client names the path, the
        edge's word must not go along. With `want_entry` the origin may answer with an envelope
        instead of the plain answer; a `refresh` is not counted as a request. The whole answer must
        be there in time, of an event stream its beginning. Raises OriginError 502 or 504.
        """
        headers = end_to_end(client_headers, FORWARDED_REQUEST_HEADERS)
        if as_edge:
            headers[EDGE_AUTHORIZATION] = self._bearer
        if refresh:
            headers[EDGE_REFRESH] = "1"
        # What is not an envelope passes through as it is, so it must not arrive compressed.
        headers["accept-encoding"] = "identity"
        if want_entry:
            headers["accept"] = f"{MEDIA_TYPE}, {_JSON}"
        timeout_s = timeout_s or self._timeout_s
        async with self._fetched(method, path, headers, body, timeout_s) as response:
            return await _read(response)

    async def pass_on(
        self, method: str, path: str, client_headers: dict[str, str], body: Any
    ) -> OriginAnswer:
        """Forward a request that means nothing to the edge, for the client alone.

        `body` is a JavaScript stream or None, and so is the answer's: nothing is held here. The
        answer must begin in time. Raises OriginError 502 or 504.
        """
        headers = end_to_end(client_headers, (*FORWARDED_REQUEST_HEADERS, *PASSED_REQUEST_HEADERS))
        headers["accept-encoding"] = "identity"
        async with self._fetched(method, path, headers, body, self._timeout_s) as response:
            return await _pass(response)

    @asynccontextmanager
    async def _fetched(
        self, method: str, path: str, headers: dict[str, str], body: Any, timeout_s: float
    ) -> AsyncIterator[Any]:
        """The origin's Response, for a block that reads it in time. Raises OriginError."""
        status: int | None = None
        try:
            async with runtime.deadline(timeout_s) as signal:
                response = await runtime.fetch(
                    self._url + path, method=method, headers=headers, body=body, signal=signal
                )
                status = response.status
                yield response
        except TimeoutError:
            raise OriginError(
                f"The origin did not answer within {timeout_s:g} s.",
                status=504,
                code="origin_timeout",
                received=status,
            ) from None
        except runtime.PlatformError as exc:
            if status is None:
                raise OriginError(
                    "The origin cannot be reached.", code="origin_unreachable"
                ) from exc
            raise _unreadable(status) from exc

    async def finished_entry(
        self, key: str, client_headers: dict[str, str]
    ) -> tuple[StoredEntry, bool] | None:
        """(entry made from a stream that has just ended, whether it may be stored), or None."""
        return _entry_and_grant(
            await self.send("GET", ENTRY_PATH + key, client_headers, want_entry=True), key
        )

    async def entry_of_tenant(self, tenant: str, key: str) -> tuple[StoredEntry, bool] | None:
        """The same for no client in particular: to fetch an entry ahead of requests."""
        path = f"{ENTRY_PATH}{key}?tenant={tenant}"
        return _entry_and_grant(await self.send("GET", path, {}, want_entry=True), key)

    async def control_document(self, tenant: str) -> tuple[str, bool] | None:
        """(the tenant's control document, whether it may be put into KV), or None without one."""
        answer = await self.send("GET", CONTROL_PATH + tenant, {}, timeout_s=BEHIND_TIMEOUT_S)
        if answer.status != 200 or answer.is_entry or answer.is_event_stream:
            await answer.discard()
            return None
        return runtime.to_bytes(answer.body).decode("utf-8", "replace"), answer.may_store

    async def report(self, path: str, body: bytes, *, timeout_s: float) -> dict[str, Any]:
        """Post JSON of the edge's own; what the origin says to it.

        Raises OriginError for anything but a 200, too.
        """
        headers = {"content-type": _JSON}
        answer = await self.send(
            "POST", path, headers, runtime.to_buffer(body), timeout_s=timeout_s
        )
        if answer.status != 200 or answer.is_entry or answer.is_event_stream:
            await answer.discard()
            raise OriginError(
                f"The origin does not take it: status {answer.status}.",
                code="origin_failed",
                received=answer.status,
            )
        try:
            return parse_object(runtime.to_bytes(answer.body))
        except ClientError as exc:
            raise _unreadable(answer.status) from exc


def _entry_and_grant(answer: OriginAnswer, key: str) -> tuple[StoredEntry, bool] | None:
    if not answer.is_entry:
        return None
    entry = entry_of(answer)
    return (entry, answer.may_store) if entry.header.key == key else None


def entry_of(answer: OriginAnswer) -> StoredEntry:
    """The entry an answer carries. Raises OriginError where it is not a whole one."""
    try:
        size_bytes: int = answer.body.byteLength
        prefix = runtime.view(answer.body, 0, min(size_bytes, MAX_PREFIX_BYTES))
        header, start = decode_prefix(runtime.to_bytes(prefix))
    except EnvelopeError as exc:
        raise _unreadable(answer.status) from exc
    if size_bytes - start != sum(header.segments.values()):
        raise _unreadable(answer.status)
    return StoredEntry(header=header, buffer=answer.body, start=start)


def disagrees(answer: OriginAnswer, what: str) -> OriginError:
    """The origin answered well, and not what was asked."""
    return OriginError(
        f"The origin's entry {what}: do edge and origin share one ENCORE_SECRET and one version?",
        code="origin_disagrees",
        received=answer.status,
    )


async def _read(response: Any) -> OriginAnswer:
    """Read what an origin may answer. Raises OriginError and PlatformError."""
    status: int = response.status
    received = runtime.headers_of(response)
    media_type = received.get("content-type", "").partition(";")[0].strip().lower()
    # An origin answers 200, 202 (it has taken a job) or an error, nothing in between.
    is_answer = status in (200, 202) or status >= 400
    if media_type not in (_JSON, _EVENT_STREAM, MEDIA_TYPE) or not is_answer:
        await runtime.cancel(response.body)
        raise _unreadable(status)
    is_event_stream = media_type == _EVENT_STREAM
    body = response.body if is_event_stream else await runtime.body_of(response)
    # The origin's 401 for a client is the client's to see; the one for this edge is not. Neither
    # quotes anything a client sent.
    if status == 401 and not is_event_stream and b'"edge_not_trusted"' in runtime.to_bytes(body):
        raise OriginError(
            "The origin does not trust this edge: do both have the same ENCORE_SECRET?",
            code="edge_not_trusted",
            received=status,
        )
    return OriginAnswer(
        status=status,
        headers=end_to_end(received, FORWARDED_RESPONSE_HEADERS),
        body=body,
        is_entry=media_type == MEDIA_TYPE,
        is_event_stream=is_event_stream,
        control_revision=_revision(received.get(CONTROL_REVISION, "")),
        may_store=received.get(EDGE_STORE) == "1",
    )


async def _pass(response: Any) -> OriginAnswer:
    """Take what an origin passes on, its body unread, or its refusal. Raises OriginError."""
    status: int = response.status
    received = runtime.headers_of(response)
    media_type = received.get("content-type", "").partition(";")[0].strip().lower()
    by_origin = received.get("cache-status", "").startswith(ORIGIN)
    if not ((200 <= status < 300 and by_origin) or (status >= 400 and media_type == _JSON)):
        await runtime.cancel(response.body)
        raise _unreadable(status)
    return OriginAnswer(
        status=status,
        headers=end_to_end(received, (*FORWARDED_RESPONSE_HEADERS, *PASSED_RESPONSE_HEADERS)),
        body=response.body,
        is_entry=False,
        is_event_stream=media_type == _EVENT_STREAM,
        control_revision=0,
        may_store=False,
    )


def _revision(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 17 else 0


def _unreadable(status: int) -> OriginError:
    return OriginError(
        "What the origin answered broke off or is not an origin's answer: does ENCORE_ORIGIN_URL "
        "lead to one?",
        code="origin_unreadable",
        received=status,
    )
