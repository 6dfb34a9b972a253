"""A request on its way through the Worker: what is asked, what KV had, why the origin is asked."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from kv import StoredEntry
from origin_client import OriginAnswer

from shared.cache_headers import EDGE, Forwarded, append_status, forward_status
from shared.control_document import ControlDocument, Strategy
from shared.controls import Controls
from shared.requests import Endpoint
from shared.wire import PRIVATE

WaitUntil = Callable[[Coroutine[Any, Any, None]], None]


@dataclass(frozen=True, kw_only=True, slots=True)
class Ask:
    """An authenticated request. `body` is JavaScript's; `began_s` is of `time.monotonic`.

    `wait_until` lets work go on behind the answer.
    """

    endpoint: Endpoint
    tenant: str
    controls: Controls
    headers: dict[str, str]
    body: Any
    began_s: float
    wait_until: WaitUntil


@dataclass(frozen=True, kw_only=True, slots=True)
class Query(Ask):
    """A request that may be answered from the cache. `fields` is its body, parsed.

    `document` is the tenant's, None where the edge has none it may decide by; `key` is of the
    policy in it, made by `strategy`, `previous_key` the same by the secret that is being replaced,
    None where no purge could name it. `inflate` is whether the client cannot read gzip, `segment`
    the form of answer it wants.
    """

    document: ControlDocument | None
    key: str
    strategy: Strategy
    previous_key: str | None
    segment: str
    fields: dict[str, Any]
    inflate: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """What KV had: an entry, nothing, or trouble in the words of `Cache-Status`' detail."""

    entry: StoredEntry | None = None
    trouble: str | None = None
    timing: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Passage:
    """Why the origin is asked, and what the edge adds to the headers of what it answers."""

    reason: Forwarded
    detail: str | None = None
    timing: str | None = None

    def headers(self, answer: OriginAnswer, *, stored: bool = False) -> dict[str, str]:
        """The origin's headers, signed by this cache."""
        headers = dict(answer.headers)
        headers["cache-control"] = PRIVATE
        headers["cache-status"] = append_status(
            headers.get("cache-status"),
            forward_status(
                EDGE,
                self.reason,
                stored=stored,
                detail="origin-error" if answer.status >= 500 else self.detail,
            ),
        )
        timings = filter(None, (headers.get("server-timing"), self.timing))
        if timing := ", ".join(timings):
            headers["server-timing"] = timing
        return headers
