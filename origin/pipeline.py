"""The tiers in order: exact match in the store, then a generation, whose answer is stored.

The pipeline knows no HTTP: it is given an authenticated request and says what answers it.

Invariants
1. The key is computed here, from the request itself; nobody can name one.
2. A store that fails costs a generation and is said (`trouble`); it fails no request.
3. What is stored began as a valid request, ended as a complete answer, and carries absolute times.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from origin.engine.contract import Engine, Finished
from origin.entries import build_entry
from origin.failures import describe
from origin.flights import Flight, Flights
from origin.stores.contract import Store, StoreError
from shared import json_text
from shared.cache_headers import Forwarded
from shared.canonical import canonical
from shared.controls import Controls
from shared.envelope import (
    MAX_TAGS,
    Envelope,
    EnvelopeError,
    decode,
    encode,
    segment_for,
)
from shared.errors import EncoreError, not_cached
from shared.freshness import MISS, Forward, Lifetimes, Serve, decide, expiry, serve
from shared.keys import KeyRing, cache_key, short_key, tag_digest
from shared.requests import Endpoint, Request, streaming, validate
from shared.storability import request_storability, storability

REFRESH_BACKOFF_S = 10
"""How long a key is not refreshed again after a refresh failed, at least."""
MAX_BACKOFFS = 10_000
log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Query:
    """An authenticated request. `fields` is the parsed body; `key` is None for one too large."""

    endpoint: Endpoint
    tenant: str
    controls: Controls
    fields: dict[str, Any]
    key: str | None
    stream: bool
    include_usage: bool

    @property
    def segment(self) -> str:
        """The segment of an entry that answers this request."""
        return segment_for(stream=self.stream, include_usage=self.include_usage)


@dataclass(frozen=True, kw_only=True, slots=True)
class Hit:
    """An entry answers. `encoded` is the whole envelope as it was stored."""

    envelope: Envelope
    encoded: bytes
    served: Serve
    detail: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Generating:
    """A flight answers: join it before the next `await`.

    `detail` names trouble, or why the answer is not stored.
    """

    flight: Flight
    reason: Forwarded
    collapsed: bool
    detail: str | None
    fallback: Hit | None
    """The stale entry that may answer should the flight fail before it says anything."""


Answer = Hit | Generating


class Pipeline:
    """One per process. Safe to call from many tasks of one event loop."""

    def __init__(
        self,
        *,
        keys: KeyRing,
        store: Store,
        engine: Engine,
        lifetimes: Lifetimes,
        deadline_s: float,
        clock_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self._keys = keys
        self._store = store
        self._engine = engine
        self._lifetimes = lifetimes
        self._clock_ms = clock_ms
        self._flights = Flights(deadline_s)
        self._refreshes: set[asyncio.Task[None]] = set()
        self._refreshing: set[str] = set()
        self._no_refresh_before_ms: dict[str, int] = {}

    def query(
        self,
        endpoint: Endpoint,
        tenant: str,
        controls: Controls,
        body: bytes,
        *,
        cacheable: bool = True,
    ) -> Query:
        """Read and key a request. Raises ClientError naming the field.

        `cacheable` is False for a body too large to be kept; it is read all the same.
        """
        fields = json_text.parse_object(body)
        stream, include_usage = streaming(fields)
        key = None
        if cacheable:
            form = canonical(
                tenant=tenant,
                scope=controls.scope,
                endpoint=endpoint.value,
                bucket=controls.bucket,
                fields=fields,
            )
            key = cache_key(self._keys, form)
        return Query(
            endpoint=endpoint,
            tenant=tenant,
            controls=controls,
            fields=fields,
            key=key,
            stream=stream,
            include_usage=include_usage,
        )

    async def answer(self, query: Query) -> Answer:
        """Find or start what answers `query`.

        Raises ClientError (validation), UpstreamError (`only-if-cached`) and what the engine does.
        """
        directives = query.controls.directives
        hit: Hit | None = None
        decision: Serve | Forward = MISS
        detail: str | None = None
        if query.key is not None and not directives.no_store:
            hit, decision, detail = await self._look_up(query)
            if hit is not None and isinstance(decision, Serve):
                if decision.revalidate:
                    self._refresh(query, hit.envelope)
                return hit
        if directives.only_if_cached:
            raise not_cached()
        request, fingerprint = await self._admit(query)
        why_not = (
            "too-large"
            if query.key is None
            else "no-store"
            if directives.no_store
            else request_storability(request)
        )
        flight = None
        if query.key is not None and why_not is None and not directives.no_cache:
            flight = self._flights.find(query.key)
        collapsed = flight is not None
        if flight is None:
            flight = self._start(query, request, fingerprint, keep=why_not is None)
        flight.wishes.append(query.controls)
        return Generating(
            flight=flight,
            reason="bypass" if why_not or isinstance(decision, Serve) else decision.reason,
            collapsed=collapsed,
            detail=why_not or detail,
            fallback=hit if isinstance(decision, Forward) and decision.stale_if_error else None,
        )

    async def entry(self, tenant: str, key: str) -> bytes | None:
        """The stored envelope of a key, after a flight that is about to store it has done so.

        None where there is none, or it belongs to another tenant. Raises StoreError.
        """
        flight = self._flights.find(key)
        if flight is not None and flight.over:
            await flight.landed()
        encoded = await self._store.get(key)
        envelope = _decoded(encoded, key)
        if envelope is None or envelope.header.tenant != tenant:
            return None
        return encoded if self._clock_ms() <= envelope.header.fresh_until_ms else None

    async def close(self) -> None:
        """Stop every generation and refresh; wait for what is being stored."""
        for task in tuple(self._refreshes):
            task.cancel()
        await self._flights.close()

    async def _admit(self, query: Query) -> tuple[Request, str]:
        """The validated request and its model's fingerprint. Raises ClientError."""
        request = validate(query.endpoint, query.fields)
        self._engine.check(request)
        return request, await self._engine.fingerprint(request.model)

    async def _look_up(self, query: Query) -> tuple[Hit | None, Serve | Forward, str | None]:
        """(entry, decision, trouble). What cannot answer this request is a miss."""
        if query.key is None:
            return None, MISS, None
        try:
            encoded = await self._store.get(query.key)
        except StoreError as exc:
            log.warning("L1: %s", exc)
            return None, MISS, "l1-error"
        if encoded is None:
            return None, MISS, None
        envelope = _decoded(encoded, query.key)
        if envelope is None or envelope.header.tenant != query.tenant:
            return None, MISS, "l1-undecodable"
        if query.segment not in envelope.header.segments:
            return None, MISS, None
        if envelope.header.fingerprint != await self._fingerprint(query):
            return None, MISS, "model-changed"
        now_ms = self._clock_ms()
        decision = decide(envelope.header, now_ms, query.controls.directives)
        served = decision if isinstance(decision, Serve) else serve(envelope.header, now_ms)
        return Hit(envelope=envelope, encoded=encoded, served=served), decision, None

    async def _fingerprint(self, query: Query) -> str | None:
        """The fingerprint of the model asked for, or None where there is no such model now."""
        try:
            return await self._engine.fingerprint(query.fields["model"])
        except EncoreError:
            return None

    def _start(
        self,
        query: Query,
        request: Request,
        fingerprint: str,
        *,
        keep: bool,
        tag_digests: tuple[str, ...] = (),
    ) -> Flight:
        """Start a generation. `tag_digests` are those of the entry that it replaces."""
        started_ms = self._clock_ms()

        async def complete(finished: Finished) -> Envelope | None:
            if not keep or query.key is None:
                return None
            if finished.unstorable or storability(request, finished.answer):
                return None
            created_ms = max(started_ms, self._clock_ms())  # a clock may be set back
            expiries = [expiry(self._lifetimes, w.ttl_s, created_ms) for w in flight.wishes]
            lasting = [expiry_ms for expiry_ms in expiries if expiry_ms is not None]
            digests = dict.fromkeys(tag_digests)
            for tag in (tag for wish in flight.wishes for tag in wish.tags):
                digests[tag_digest(self._keys, query.tenant, tag)] = None
            # One waiter wants no entry, or there are more tags than fit and a purge would miss it.
            if not lasting or len(lasting) < len(expiries) or len(digests) > MAX_TAGS:
                return None
            try:
                return await asyncio.to_thread(
                    build_entry,
                    query.endpoint,
                    finished.answer,
                    key=query.key,
                    tenant=query.tenant,
                    generation_started_ms=started_ms,
                    created_ms=created_ms,
                    expiry_ms=min(lasting),
                    fingerprint=fingerprint,
                    tags=tuple(digests),
                )
            except EnvelopeError as exc:
                log.warning("not stored %s: %s", short_key(query.key), exc)
                return None

        flight = self._flights.start(
            query.key or "",
            self._engine.run(request),
            shared=keep,
            complete=complete,
            store=self._keep,
        )
        return flight

    async def _keep(self, envelope: Envelope) -> None:
        header = envelope.header
        try:
            await self._store.put(header.key, encode(envelope), header.expires_ms)
        except StoreError as exc:
            log.warning("L1: not stored %s: %s", short_key(header.key), exc)

    def _refresh(self, query: Query, stale: Envelope) -> None:
        """Make a new entry behind a stale answer: detached, once at a time per key."""
        key = stale.header.key
        if key in self._refreshing or self._clock_ms() < self._no_refresh_before_ms.get(key, 0):
            return
        self._refreshing.add(key)
        task = asyncio.create_task(self._run_refresh(query, stale))
        self._refreshes.add(task)
        task.add_done_callback(self._refreshes.discard)

    async def _run_refresh(self, query: Query, stale: Envelope) -> None:
        key = stale.header.key
        try:
            request, fingerprint = await self._admit(query)
            flight = self._flights.find(key)
            if flight is None:
                flight = self._start(
                    query, request, fingerprint, keep=True, tag_digests=stale.header.tags
                )
                # Who happens to ask does not change how long the next entry lives.
                flight.wishes.append(Controls())
            with flight.joined():
                await flight.result()
            await flight.landed()
            self._no_refresh_before_ms.pop(key, None)
        except EncoreError as error:
            log.warning("refresh of %s failed: %s", short_key(key), describe(error))
            if len(self._no_refresh_before_ms) >= MAX_BACKOFFS:
                self._no_refresh_before_ms.clear()
            wait_s = max(error.retry_after_s or 0, REFRESH_BACKOFF_S)
            self._no_refresh_before_ms[key] = self._clock_ms() + wait_s * 1000
        finally:
            self._refreshing.discard(key)


def _decoded(encoded: bytes | None, key: str) -> Envelope | None:
    if encoded is None:
        return None
    try:
        envelope = decode(encoded)
    except EnvelopeError as exc:
        log.warning("L1: undecodable entry %s: %s", short_key(key), exc)
        return None
    return envelope if envelope.header.key == key else None
