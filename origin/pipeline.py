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
from origin.flights import Flight, Flights
from origin.stores.contract import Store, StoreError
from shared import json_text
from shared.cache_headers import Forwarded
from shared.canonical import canonical
from shared.controls import Controls
from shared.envelope import Envelope, EnvelopeError, decode, encode
from shared.errors import EncoreError, not_cached
from shared.freshness import MISS, Forward, Lifetimes, Serve, decide, expiry, serve
from shared.keys import KeyRing, cache_key, short_key, tag_digest
from shared.requests import Endpoint, Request, streaming, validate
from shared.storability import request_storability, storability

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Query:
    """An authenticated request, keyed. `fields` is the parsed body."""

    endpoint: Endpoint
    tenant: str
    controls: Controls
    fields: dict[str, Any]
    key: str
    stream: bool
    include_usage: bool


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

    def query(self, endpoint: Endpoint, tenant: str, controls: Controls, body: bytes) -> Query:
        """Read and key a request. Raises ClientError naming the field."""
        fields = json_text.parse_object(body)
        stream, include_usage = streaming(fields)
        form = canonical(
            tenant=tenant,
            scope=controls.scope,
            endpoint=endpoint.value,
            bucket=controls.bucket,
            fields=fields,
        )
        return Query(
            endpoint=endpoint,
            tenant=tenant,
            controls=controls,
            fields=fields,
            key=cache_key(self._keys, form),
            stream=stream,
            include_usage=include_usage,
        )

    async def answer(self, query: Query, *, cacheable: bool = True) -> Answer:
        """Find or start what answers `query`.

        Raises ClientError (validation) and UpstreamError (`only-if-cached`). `cacheable` is False
        for a body too large to be kept.
        """
        directives = query.controls.directives
        hit: Hit | None = None
        decision: Serve | Forward = MISS
        detail: str | None = None
        if cacheable and not directives.no_store:
            hit, decision, detail = await self._look_up(query)
            if hit is not None and isinstance(decision, Serve):
                if decision.revalidate:
                    self._refresh(query)
                return hit
        if directives.only_if_cached:
            raise not_cached()
        request = validate(query.endpoint, query.fields)
        self._engine.check(request)
        fingerprint = await self._engine.fingerprint(request.model)
        why_not = (
            "too-large"
            if not cacheable
            else "no-store"
            if directives.no_store
            else request_storability(request)
        )
        reason: Forwarded = "bypass" if why_not else _reason(decision)
        if why_not is None and not directives.no_cache:
            flight = self._flights.find(query.key)
            if flight is not None and flight.error is None:
                return Generating(
                    flight=flight, reason=reason, collapsed=True, detail=detail, fallback=None
                )
        return Generating(
            flight=self._start(query, request, fingerprint, keep=why_not is None),
            reason=reason,
            collapsed=False,
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
        """Stop every generation."""
        await self._flights.close()

    async def _look_up(self, query: Query) -> tuple[Hit | None, Serve | Forward, str | None]:
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
        now_ms = self._clock_ms()
        decision = decide(envelope.header, now_ms, query.controls.directives)
        served = decision if isinstance(decision, Serve) else serve(envelope.header, now_ms)
        return Hit(envelope=envelope, encoded=encoded, served=served), decision, None

    def _start(self, query: Query, request: Request, fingerprint: str, *, keep: bool) -> Flight:
        started_ms = self._clock_ms()

        def complete(_flight: Flight, finished: Finished) -> Envelope | None:
            reason = finished.unstorable or storability(request, finished.answer)
            created_ms = max(started_ms, self._clock_ms())  # a clock may be set back
            expiry_ms = expiry(self._lifetimes, query.controls.ttl_s, created_ms)
            if not keep or reason is not None or expiry_ms is None:
                return None
            try:
                return build_entry(
                    query.endpoint,
                    finished.answer,
                    key=query.key,
                    tenant=query.tenant,
                    generation_started_ms=started_ms,
                    created_ms=created_ms,
                    expiry_ms=expiry_ms,
                    fingerprint=fingerprint,
                    tags=tuple(
                        tag_digest(self._keys, query.tenant, tag) for tag in query.controls.tags
                    ),
                )
            except EnvelopeError as exc:
                log.warning("not stored %s: %s", short_key(query.key), exc)
                return None

        return self._flights.start(
            query.key, self._engine.run(request), shared=keep, complete=complete, store=self._keep
        )

    async def _keep(self, envelope: Envelope) -> None:
        try:
            await self._store.put(envelope.header.key, encode(envelope), envelope.header.expires_ms)
        except StoreError as exc:
            log.warning("L1: not stored %s: %s", short_key(envelope.header.key), exc)

    def _refresh(self, query: Query) -> None:
        """Make a new entry behind a stale answer: detached, once at a time per key."""
        if self._flights.find(query.key) is not None:
            return
        task = asyncio.create_task(self._run_refresh(query))
        self._refreshes.add(task)
        task.add_done_callback(self._refreshes.discard)

    async def _run_refresh(self, query: Query) -> None:
        try:
            request = validate(query.endpoint, query.fields)
            fingerprint = await self._engine.fingerprint(request.model)
            if self._flights.find(query.key) is None:
                flight = self._start(query, request, fingerprint, keep=True)
                with flight.joined():
                    await flight.result()
        except EncoreError as error:
            log.warning("refresh of %s failed: %s", short_key(query.key), error.message)


def _decoded(encoded: bytes | None, key: str) -> Envelope | None:
    if encoded is None:
        return None
    try:
        envelope = decode(encoded)
    except EnvelopeError as exc:
        log.warning("L1: undecodable entry %s: %s", short_key(key), exc)
        return None
    return envelope if envelope.header.key == key else None


def _reason(decision: Serve | Forward) -> Forwarded:
    return decision.reason if isinstance(decision, Forward) else "miss"
