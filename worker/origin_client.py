"""What the edge asks of the origin, and how it says who asks.

The client's own `Authorization` travels beside the edge's bearer: the origin authenticates again.
Headers are built from a list, so nothing internal that a client sent gets through. An origin that
cannot be reached raises UpstreamError, in the client's shape.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import runtime
from edge_settings import EdgeSettings
from kv import StoredEntry

from shared.envelope import MAX_PREFIX_BYTES, MEDIA_TYPE, EnvelopeError, decode_prefix
from shared.errors import UpstreamError
from shared.keys import edge_bearer
from shared.wire import (
    EDGE_AUTHORIZATION,
    ENTRY_PATH,
    FORWARDED_REQUEST_HEADERS,
    FORWARDED_RESPONSE_HEADERS,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class OriginAnswer:
    """An answer whose body is still to come. `headers` are those a client may see."""

    response: Any
    status: int
    headers: dict[str, str]
    is_entry: bool
    is_event_stream: bool


class OriginClient:
    """Holds no JavaScript object: it may live as long as the isolate."""

    def __init__(self, settings: EdgeSettings) -> None:
        self._url = settings.origin_url
        self._timeout_s = settings.origin_timeout_s
        self._bearer = f"Bearer {edge_bearer(settings.keys)}"

    async def send(
        self,
        method: str,
        path: str,
        client_headers: dict[str, str],
        body: Any = None,
        *,
        want_entry: bool = False,
    ) -> OriginAnswer:
        """Forward a client's request. `body` is a JavaScript buffer or stream, or None.

        With `want_entry` the origin may answer with an envelope instead of the plain answer.
        Raises UpstreamError 502 or 504.
        """
        headers = {
            name: client_headers[name]
            for name in FORWARDED_REQUEST_HEADERS
            if name in client_headers
        }
        headers[EDGE_AUTHORIZATION] = self._bearer
        # What is not an envelope passes through as it is, so it must not arrive compressed.
        headers["accept-encoding"] = "identity"
        if want_entry:
            headers["accept"] = f"{MEDIA_TYPE}, application/json"
        try:
            response = await runtime.fetch(
                self._url + path,
                method=method,
                headers=headers,
                body=body,
                timeout_s=self._timeout_s,
            )
        except TimeoutError:
            raise UpstreamError(
                f"The origin did not begin to answer within {self._timeout_s:g} s.",
                status=504,
                code="origin_timeout",
            ) from None
        except runtime.PlatformError as exc:
            raise UpstreamError(
                "The origin cannot be reached.", status=502, code="origin_unreachable"
            ) from exc
        received = runtime.headers_of(response)
        content_type = received.get("content-type", "").partition(";")[0].strip()
        return OriginAnswer(
            response=response,
            status=response.status,
            headers={n: received[n] for n in FORWARDED_RESPONSE_HEADERS if n in received},
            is_entry=content_type == MEDIA_TYPE,
            is_event_stream=content_type == "text/event-stream",
        )

    async def read_entry(self, answer: OriginAnswer, key: str) -> StoredEntry:
        """The entry an answer carries.

        Raises UpstreamError where it is not a whole entry of `key`.
        """
        try:
            whole = await runtime.body_of(answer.response)
            header, start = decode_prefix(runtime.to_bytes(whole.subarray(0, MAX_PREFIX_BYTES)))
        except (runtime.PlatformError, EnvelopeError) as exc:
            raise UpstreamError(
                "The origin's answer broke off or cannot be read.", code="origin_unreadable"
            ) from exc
        size = sum(header.segments.values())
        if header.key != key or whole.byteLength - start != size:
            raise UpstreamError(
                "The origin's entry is not the one asked for: do edge and origin share one "
                "ENCORE_SECRET and one version?",
                code="origin_disagrees",
            )
        return StoredEntry(header=header, value=whole.subarray(start))

    async def finished_entry(self, key: str, client_headers: dict[str, str]) -> StoredEntry | None:
        """The entry made from a stream that has just ended, or None where none was stored."""
        answer = await self.send("GET", ENTRY_PATH + key, client_headers, want_entry=True)
        return await self.read_entry(answer, key) if answer.is_entry else None
