"""The cached endpoints: what answers a request that is authenticated and keyed.

    key → KV ── fresh ─────────────> stored gzip bytes
             └─ else → origin ─────> answer; entry into KV behind it

All decisions are `shared`'s; this module makes them happen.

Invariants
1. A request that may not be shared or stored is still answered, by the origin.
2. A body leaves as it was stored; Python never reads it.
3. A hit is validated only where its key does not prove it valid: an entry exists only under keys of
   requests that were, and the canonical form keeps invalid ones from sharing those keys.
4. KV failing or full of junk costs a miss, which `Cache-Status` names; nothing else.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, assert_never

import runtime
from kv import EntryStore, StoredEntry, UndecodableError
from origin_client import OriginAnswer, OriginClient, OriginError, entry_of

from shared.cache_headers import (
    EDGE,
    Forwarded,
    append_status,
    entry_headers,
    forward_status,
    hit_status,
    server_timing,
)
from shared.canonical import UNKEYED
from shared.controls import Controls
from shared.envelope import SEGMENT_JSON
from shared.errors import not_cached
from shared.freshness import MISS, Forward, Serve, decide, serve
from shared.keys import short_key
from shared.requests import Endpoint, validate
from shared.storability import request_storability
from shared.wire import PRIVATE

WaitUntil = Callable[[Coroutine[Any, Any, None]], None]

_UNPROVEN = UNKEYED - {"stream", "stream_options"}
"""Fields outside the key that are not checked before it is made."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Query:
    """A request that may be answered from the cache. `body` is JavaScript's, `fields` is it parsed.

    `inflate` is whether the client cannot read gzip, `segment` the form of answer it wants.
    """

    endpoint: Endpoint
    tenant: str
    key: str
    segment: str
    controls: Controls
    headers: dict[str, str]
    body: Any
    fields: dict[str, Any]
    inflate: bool


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
            forward_status(EDGE, self.reason, stored=stored, detail=self.detail),
        )
        timings = filter(None, (headers.get("server-timing"), self.timing))
        if timing := ", ".join(timings):
            headers["server-timing"] = timing
        return headers


class Answers:
    """One per isolate. Holds the KV binding, and no request's objects."""

    def __init__(self, kv_namespace: Any, origin: OriginClient) -> None:
        self._store = EntryStore(kv_namespace)
        self._origin = origin

    async def answer(self, query: Query, wait_until: WaitUntil) -> Any:
        """Answer from KV, else from the origin. Raises ClientError and UpstreamError."""
        directives = query.controls.directives
        request = None
        if directives.no_store or not _is_proven_by_key(query):
            request = validate(query.endpoint, query.fields)
        if directives.no_store:
            return await self._forward_query(query, "no-store")
        began_s = time.monotonic()
        entry, trouble = await self._look_up(query)
        timing = server_timing({"kv": (time.monotonic() - began_s) * 1000})
        decision = MISS if entry is None else decide(entry.header, _now_ms(), directives)
        view = None if entry is None else entry.segment(query.segment)
        match decision:
            case Serve():
                if entry is not None and view is not None:
                    if decision.revalidate:
                        wait_until(self._refresh(query, entry))
                    member = hit_status(EDGE, decision)
                    return _stored(query, entry, view, decision, member, timing=timing)
                decision = MISS
            case Forward():
                pass
            case _:
                assert_never(decision)
        unstorable = request_storability(request or validate(query.endpoint, query.fields))
        if unstorable is not None:
            return await self._forward_query(query, unstorable)
        # A request with only-if-cached gets what it accepts or its own 504, whatever fails.
        only_if_cached = directives.only_if_cached
        fallback = view if decision.stale_if_error else None
        try:
            answer = await self._origin.send(
                "POST", query.endpoint.value, query.headers, query.body, want_entry=True
            )
            if answer.status >= 500 and (only_if_cached or fallback is not None):
                await answer.discard()
                raise OriginError(
                    "The origin failed.", code="origin_failed", received=answer.status
                )
            passage = Passage(reason=decision.reason, detail=trouble, timing=timing)
            return self._fill(query, answer, passage, wait_until)
        except OriginError as error:
            if only_if_cached:
                raise not_cached() from error
            if entry is None or fallback is None:
                raise
            member = forward_status(
                EDGE, decision.reason, status=error.received, detail="stale-if-error"
            )
            served = serve(entry.header, _now_ms())
            return _stored(query, entry, fallback, served, member, timing=timing)

    async def forward(
        self, endpoint: Endpoint, headers: dict[str, str], controls: Controls, body: Any, why: str
    ) -> Any:
        """Answer past every cache, saying why."""
        if controls.directives.only_if_cached:
            raise not_cached()
        answer = await self._origin.send("POST", endpoint.value, headers, body)
        return relay(answer, Passage(reason="bypass", detail=why))

    async def _forward_query(self, query: Query, why: str) -> Any:
        return await self.forward(query.endpoint, query.headers, query.controls, query.body, why)

    async def _look_up(self, query: Query) -> tuple[StoredEntry | None, str | None]:
        """The entry in KV, and what was wrong where there is none because of trouble."""
        try:
            return await self._store.get(query.tenant, query.key), None
        except UndecodableError as exc:
            _log(f"kv: undecodable entry {short_key(query.key)}: {exc}")
            return None, "kv-undecodable"
        except runtime.PlatformError as exc:
            _log(f"kv: {exc}")
            return None, "kv-error"

    def _fill(
        self, query: Query, answer: OriginAnswer, passage: Passage, wait_until: WaitUntil
    ) -> Any:
        """Answer from the origin, and put its entry into KV behind the answer.

        Of requests that the origin answered with one generation, the one that began it does so.
        """
        keep = not _is_collapsed(answer)
        if answer.is_entry:
            entry = entry_of(answer, query.key)
            view = entry.segment(query.segment)
            if view is None:
                raise OriginError(
                    "The origin's entry lacks what was asked for.",
                    code="origin_disagrees",
                    received=answer.status,
                )
            stored = keep and self._store.claim(entry.header, _now_ms())
            if stored:
                wait_until(self._put(entry))
            headers = entry_headers(entry.header, None) | passage.headers(answer, stored=stored)
            headers["content-type"] = _content_type(query.segment)
            return runtime.respond_gzip(headers, view, inflate=query.inflate)
        if answer.is_event_stream and answer.status == 200:
            readable, done = runtime.pass_through(answer.body)
            if keep:
                wait_until(self._put_after(done, query))
            return runtime.respond_with(answer.status, passage.headers(answer), readable)
        return relay(answer, passage)

    async def _refresh(self, query: Query, stale: StoredEntry) -> None:
        """Have the origin make a new entry behind a stale answer, and take what it has by now.

        Mostly the origin answers from its own stale entry and refreshes detached, so this ends
        soon; the new entry is found here or by the next request after it is made. An origin that
        has lost its entry generates one; for a stream it is fetched afterwards.
        """
        try:
            answer = await self._origin.send(
                "POST", query.endpoint.value, query.headers, query.body, want_entry=True
            )
            if answer.is_entry:
                entry: StoredEntry | None = entry_of(answer, query.key)
            elif answer.is_event_stream and not _is_collapsed(answer):
                await runtime.drain(answer.body)
                entry = await self._origin.finished_entry(query.key, query.headers)
            else:
                await answer.discard()
                return
        except (OriginError, runtime.PlatformError) as exc:
            _log(f"refresh: {exc}")
            return
        if entry is not None and entry.header.created_ms > stale.header.created_ms:
            await self._put_claimed(entry)

    async def _put_after(self, done: Any, query: Query) -> None:
        """Store the entry of a stream, once all of it went to the client."""
        try:
            await done
        except Exception:  # noqa: BLE001 - either side broke off: there is no entry to fetch
            return
        try:
            entry = await self._origin.finished_entry(query.key, query.headers)
        except OriginError as error:
            _log(f"origin: {error.message}")
            return
        if entry is not None:
            await self._put_claimed(entry)

    async def _put_claimed(self, entry: StoredEntry) -> None:
        if self._store.claim(entry.header, _now_ms()):
            await self._put(entry)

    async def _put(self, entry: StoredEntry) -> None:
        try:
            await self._store.put(entry)
        except runtime.PlatformError as exc:
            _log(f"kv: {exc}")


def relay(answer: OriginAnswer, passage: Passage) -> Any:
    """Pass an origin's answer on as it comes."""
    return runtime.respond_with(answer.status, passage.headers(answer), answer.body)


def _is_proven_by_key(query: Query) -> bool:
    """Whether an entry under the query's key proves that its whole body is valid.

    What is outside the key is not proven, nor what only matters in a stream (legacy completions,
    embeddings).
    """
    if query.segment != SEGMENT_JSON and query.endpoint is not Endpoint.CHAT:
        return False
    return _UNPROVEN.isdisjoint(query.fields)


def _is_collapsed(answer: OriginAnswer) -> bool:
    """Whether the origin says that another request had begun the generation it answered with."""
    member = answer.headers.get("cache-status", "")
    return any(part.strip() == "collapsed" for part in member.split(";"))


def _stored(
    query: Query,
    entry: StoredEntry,
    view: Any,
    served: Serve,
    status_member: str,
    *,
    timing: str,
) -> Any:
    headers = entry_headers(entry.header, served)
    headers["content-type"] = _content_type(query.segment)
    headers["cache-status"] = status_member
    headers["server-timing"] = timing
    return runtime.respond_gzip(headers, view, inflate=query.inflate)


def _content_type(segment: str) -> str:
    return "application/json" if segment == SEGMENT_JSON else "text/event-stream; charset=utf-8"


def _log(line: str) -> None:
    print(line)  # noqa: T201 - the Worker's log


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
