"""The tiers in order: exact match in the store, then a generation, whose answer is stored.

The pipeline knows no HTTP: it is given an authenticated request, with its tenant's control document
and the keys its edge goes by, and says what answers it.

Invariants
1. The key is computed here, from the request itself; nobody can name one.
2. A store that fails costs a generation and is said (`trouble`); it fails no request.
3. What is stored began as a valid request, ended as a complete answer, and carries absolute times.
4. No request is answered by what its control document objects to, be it an entry or a generation.
   Both are known by when the generation started, by the clock that also tells cut-offs; what has
   no such time is kept nowhere.
5. A sealed entry has been opened before it is a hit.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

from origin.encryption import EncryptionError, open_segment, seal, unsealed
from origin.engine.contract import Engine, Event, Finished
from origin.entries import build_entry, entry_to_be
from origin.failures import describe
from origin.flights import Flight, FlightEvent, Flights, Landed
from origin.relay import Part, Relay
from origin.stores.contract import GRANT_INTERVAL_S, Store, StoreError
from shared import json_text
from shared.cache_headers import Forwarded
from shared.compression import decompress
from shared.control_document import ControlDocument, Objection, canonical_for, objection
from shared.controls import Controls
from shared.envelope import (
    MAX_TAGS,
    SEGMENT_JSON,
    Envelope,
    EnvelopeError,
    Header,
    decode,
    encode,
    segment_for,
)
from shared.errors import EncoreError, InternalError, not_cached
from shared.freshness import MISS, Forward, Lifetimes, Serve, decide, expiry, serve
from shared.keys import KeyRing, KeyRings, cache_key, short_key, tag_digest
from shared.requests import Endpoint, Request, streaming, validate
from shared.storability import request_storability, storability

REFRESH_BACKOFF_S = 10
"""How long a key is not refreshed again after a refresh failed, at least."""
MAX_BACKOFFS = 10_000
MIN_EDGE_LIFE_S = 60
"""What lives for less is not written to KV: the platform's shortest expiry."""
MAX_PENDING = 10_000
MAX_ANSWER_BYTES = 256 << 20
log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Query:
    """An authenticated request. `fields` is the parsed body; `key` is None for one too large.

    `document` is its tenant's as it ruled when the request came. `ring` made `key`; `other_key` is
    the same request's by the other secret, while one is being replaced.
    """

    endpoint: Endpoint
    document: ControlDocument
    ring: KeyRing
    controls: Controls
    fields: dict[str, Any]
    key: str | None
    other_key: str | None
    stream: bool
    include_usage: bool

    @property
    def tenant(self) -> str:
        """Whose request it is."""
        return self.document.tenant

    @property
    def segment(self) -> str:
        """The segment of an entry that answers this request."""
        return segment_for(stream=self.stream, include_usage=self.include_usage)


@dataclass(frozen=True, kw_only=True, slots=True)
class Hit:
    """An entry answers. `encoded` is the whole envelope as it was stored.

    `segment` is the gzip member that answers the request, opened where the entry is sealed.
    """

    envelope: Envelope
    encoded: bytes
    segment: bytes
    served: Serve
    detail: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Generating:
    """A flight answers: join it before the next `await`.

    `detail` names trouble, or why the answer is not stored.
    """

    flight: Flight
    reason: Forwarded
    joined: bool
    detail: str | None
    fallback: Hit | None
    """The stale entry that may answer should the flight fail before it says anything."""

    @property
    def collapsed(self) -> bool:
        """Whether the answer is not of a generation of its own."""
        return self.joined or self.flight.is_elsewhere


Answer = Hit | Generating


@dataclass(frozen=True, kw_only=True, slots=True)
class _Pending:
    """An entry that replaced one the edge may have. KV may be written again from `due_ms` on."""

    header: Header
    due_ms: int


class Pipeline:
    """One per process. Safe to call from many tasks of one event loop.

    `store_clock` is the clock that cut-offs are told by, in ms; it raises StoreError. By `clock_ms`
    entries age. Without `relay` generations are shared in this process alone. `admit_after` is the
    number of the edge's requests for a key from which on its entry is written to KV.
    """

    def __init__(
        self,
        *,
        keys: KeyRings,
        store: Store,
        engine: Engine,
        lifetimes: Lifetimes,
        deadline_s: float,
        store_clock: Callable[[], Awaitable[int]],
        relay: Relay | None = None,
        admit_after: int = 1,
        clock_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self._keys = keys
        self._store = store
        self._engine = engine
        self._lifetimes = lifetimes
        self._store_clock = store_clock
        self._admit_after = admit_after
        self._clock_ms = clock_ms
        self._relay = relay
        self._flights = Flights(deadline_s)
        self._refreshes: set[asyncio.Task[None]] = set()
        self._refreshing: set[str] = set()
        self._no_refresh_before_ms: dict[str, int] = {}
        self._pending: dict[str, _Pending] = {}

    def query(
        self,
        endpoint: Endpoint,
        document: ControlDocument,
        controls: Controls,
        body: bytes,
        *,
        ring: KeyRing,
        cacheable: bool = True,
    ) -> Query:
        """Read and key a request. Raises ClientError naming the field.

        `ring` is the one by which its edge makes keys, the current one for a request without edge.
        `cacheable` is False for a body too large to be kept; it is read all the same.
        """
        fields = json_text.parse_object(body)
        stream, include_usage = streaming(fields)
        key = other_key = None
        if cacheable:
            form = canonical_for(document, endpoint=endpoint, controls=controls, fields=fields)
            key = cache_key(ring, form)
            other = next((other for other in self._keys if other.id != ring.id), None)
            other_key = None if other is None else cache_key(other, form)
        return Query(
            endpoint=endpoint,
            document=document,
            ring=ring,
            controls=controls,
            fields=fields,
            key=key,
            other_key=other_key,
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
        started_ms = None
        if why_not is None and detail != "l1-error":
            started_ms = await self._generation_start_ms()
            detail = detail if started_ms is not None else "l1-error"
        # No `await` from here on: two requests would each find nothing, and start.
        flight = None
        if why_not is None and not directives.no_cache:
            flight = self._joinable(query)
        joined = flight is not None
        if flight is None:
            flight = self._start(
                query, request, fingerprint, shared=why_not is None, started_ms=started_ms
            )
        flight.ask(query.controls, query.document)
        return Generating(
            flight=flight,
            reason="bypass" if why_not or isinstance(decision, Serve) else decision.reason,
            joined=joined,
            detail=why_not or detail,
            fallback=hit if isinstance(decision, Forward) and decision.stale_if_error else None,
        )

    async def entry(self, document: ControlDocument, key: str) -> tuple[Header, bytes] | None:
        """(header, stored envelope) of a key, after a flight that is about to store it has done so.

        None where there is none that the document's tenant may be answered by, fresh and whole.
        Raises StoreError.
        """
        flight = self._flights.find(key)
        if flight is not None and flight.over:
            await flight.landed()
        encoded = await self._store.get(key)
        envelope = None if encoded is None else _decoded(encoded, key)
        if encoded is None or envelope is None:
            return None
        header = envelope.header
        if (
            header.tenant != document.tenant
            or objection(document, header) is not None
            or self._clock_ms() > header.fresh_until_ms
        ):
            return None
        try:
            unsealed(self._keys, envelope)
        except EncryptionError as exc:
            log.warning("L1: undecodable entry %s: %s", short_key(key), exc)
            return None
        return header, encoded

    def segment(self, query: Query, envelope: Envelope) -> bytes | None:
        """The gzip member of a flight's entry that answers `query`, None where there is none.

        Raises EncryptionError.
        """
        return open_segment(self._keys, envelope, query.segment)

    async def grant(self, document: ControlDocument, header: Header) -> bool:
        """Whether the edge, which gets this entry now, may write it to KV. Counts the request.

        A store that cannot be asked grants nothing.
        """
        now_ms = self._clock_ms()
        if (
            document.policy.residency == "origin-only"
            or now_ms > header.fresh_until_ms
            or header.expires_ms - now_ms < MIN_EDGE_LIFE_S * 1000
        ):
            return False
        try:
            granted = await self._store.grant(header.key, after=self._admit_after)
        except StoreError as exc:
            log.warning("L1: no grant: %s", exc)
            return False
        pending = self._pending.get(header.key)
        if granted and pending is not None and pending.header.created_ms <= header.created_ms:
            del self._pending[header.key]
        return granted

    def pending_edge_writes(self, limit: int) -> list[tuple[str, str]]:
        """(tenant, key) of at most `limit` entries that KV should get now, each told once.

        They replaced others at a client's wish (`no-cache`), when KV had been written to just
        before.
        """
        now_ms = self._clock_ms()
        due = [key for key, pending in self._pending.items() if pending.due_ms <= now_ms]
        return [(self._pending.pop(key).header.tenant, key) for key in due[: max(0, limit)]]

    async def refresh(self, query: Query, header: Header) -> Header | None:
        """Make the entry of `header` anew and wait for it. Who stops waiting does not stop it.

        The header of the entry there is then: the same one where that failed, or must wait. None
        where there is none (any more) that could answer `query`.
        """
        hit, _, trouble = await self._look_up(query)
        if hit is not None and hit.envelope.header.created_ms <= header.created_ms:
            task = self._refresh(query, hit.envelope)
            if task is not None:
                await asyncio.wait([task])
                hit, _, trouble = await self._look_up(query)
        if trouble == "l1-error":
            return header  # an outage is not an absence
        return None if hit is None else hit.envelope.header

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
            if encoded is None:
                encoded = await self._rekeyed(query)
        except StoreError as exc:
            log.warning("L1: %s", exc)
            return None, MISS, "l1-error"
        if encoded is None:
            return None, MISS, None
        envelope = _decoded(encoded, query.key)
        if envelope is None or envelope.header.tenant != query.tenant:
            return None, MISS, "l1-undecodable"
        header = envelope.header
        if (why_not := _objection(query, header)) is not None:
            return None, MISS, why_not
        if header.fingerprint != await self._fingerprint(query):
            return None, MISS, "model-changed"
        try:
            segment = open_segment(self._keys, envelope, query.segment)
        except EncryptionError as exc:
            log.warning("L1: undecodable entry %s: %s", short_key(query.key), exc)
            return None, MISS, "l1-undecodable"
        if segment is None:
            return None, MISS, None
        now_ms = self._clock_ms()
        decision = decide(header, now_ms, query.controls.directives)
        served = decision if isinstance(decision, Serve) else serve(header, now_ms)
        hit = Hit(envelope=envelope, encoded=encoded, segment=segment, served=served)
        return hit, decision, None

    async def _rekeyed(self, query: Query) -> bytes | None:
        """The entry under the other secret's key, as it stands under this one's from now on.

        One with tags is left there, for their digests are the other secret's; so is one that is
        purged with its source. Raises StoreError.
        """
        if query.key is None or query.other_key is None:
            return None
        encoded = await self._store.get(query.other_key)
        old = None if encoded is None else _decoded(encoded, query.other_key)
        if old is None or old.header.tenant != query.tenant:
            return None
        if old.header.tags or old.header.source is not None or _objection(query, old.header):
            return None
        try:
            plain = unsealed(self._keys, old)
            new = Envelope(header=replace(plain.header, key=query.key), payload=plain.payload)
            if old.header.encryption is not None:
                new = seal(new, query.ring)
            encoded = encode(new)
        except EnvelopeError as exc:
            log.warning("L1: not re-keyed %s: %s", short_key(query.other_key), exc)
            return None
        await self._put(new.header, encoded, only_new=True)
        return encoded

    async def _fingerprint(self, query: Query) -> str | None:
        """The fingerprint of the model asked for, or None where there is no such model now."""
        try:
            return await self._engine.fingerprint(query.fields["model"])
        except EncoreError:
            return None

    async def _generation_start_ms(self) -> int | None:
        """The time by the clock that cut-offs are told by, None where it cannot be had."""
        try:
            return await self._store_clock()
        except StoreError as exc:
            log.warning("L1: no clock: %s", exc)
            return None

    def _joinable(self, query: Query) -> Flight | None:
        """The flight that may answer `query`, if there is one."""
        flight = None if query.key is None else self._flights.find(query.key)
        if flight is None or not _may_join(query, flight.to_be, flight.revision):
            return None
        return flight

    def _start(
        self,
        query: Query,
        request: Request,
        fingerprint: str,
        *,
        shared: bool,
        started_ms: int | None,
        tag_digests: tuple[str, ...] = (),
    ) -> Flight:
        """Start a generation. Its answer is stored if it is `shared` and its start is known.

        `tag_digests` are those of the entry that it replaces.
        """
        encrypted = query.document.policy.encrypted
        to_be = None
        if shared and query.key is not None and started_ms is not None:
            try:
                to_be = entry_to_be(
                    key=query.key,
                    tenant=query.tenant,
                    model=request.model,
                    generation_started_ms=started_ms,
                    fingerprint=fingerprint,
                    tags=tag_digests,
                    encryption=query.ring.id if encrypted else None,
                )
            except EnvelopeError as exc:
                log.warning("not to be stored %s: %s", short_key(query.key), exc)

        async def complete(finished: Finished) -> Envelope | None:
            if to_be is None or finished.unstorable or storability(request, finished.answer):
                return None
            started_ms = to_be.generation_started_ms
            created_ms = max(started_ms, self._clock_ms())  # clocks differ, and may be set back
            told = () if flight.leader is None else await flight.leader.gather()
            wishes, digests_told = _read_wishes(told)
            wishes += flight.wishes
            expiries = [expiry(self._lifetimes, w.ttl_s, created_ms) for w in wishes]
            lasting = [expiry_ms for expiry_ms in expiries if expiry_ms is not None]
            digests = dict.fromkeys((*tag_digests, *_digests(query, flight.wishes), *digests_told))
            # One waiter wants no entry, or there are more tags than fit and a purge would miss it.
            if not lasting or len(lasting) < len(expiries) or len(digests) > MAX_TAGS:
                return None

            def make() -> Envelope:
                entry = build_entry(
                    query.endpoint,
                    finished.answer,
                    key=to_be.key,
                    tenant=to_be.tenant,
                    model=to_be.model,
                    generation_started_ms=started_ms,
                    created_ms=created_ms,
                    expiry_ms=min(lasting),
                    fingerprint=fingerprint,
                    tags=tuple(digests),
                )
                return seal(entry, query.ring) if encrypted else entry

            try:
                entry = await asyncio.to_thread(make)
            except EnvelopeError as exc:
                log.warning("not stored %s: %s", short_key(to_be.key), exc)
                return None
            if query.controls.directives.no_cache:
                self._expect_edge_write(query.document, entry.header)
            return entry

        async def settle(flight: Flight) -> None:
            entry, leader = flight.entry, flight.leader
            if entry is not None and not (flight.superseded or flight.is_elsewhere):
                # Without a lease it counts as one of when the generation began.
                started_us = entry.header.generation_started_ms * 1000
                token = started_us if leader is None else leader.token
                await self._put(entry.header, encode(entry), token=token)
            if leader is not None:
                await leader.end()  # not before: who gets the lease next must find the entry

        def events(flight: Flight) -> AsyncGenerator[FlightEvent, None]:
            if self._relay is None or to_be is None:
                return self._engine.run(request)
            part = self._part(query, flight, to_be, lambda: self._engine.run(request))
            return self._relay.events(flight, part)

        flight = self._flights.start(
            query.key or "",
            events,
            shared=shared,
            to_be=to_be,
            document=query.document,
            complete=complete,
            settle=settle,
        )
        return flight

    def _part(
        self,
        query: Query,
        flight: Flight,
        to_be: Header,
        run: Callable[[], AsyncGenerator[Event, None]],
    ) -> Part:
        """What this process brings to a flight that others may share."""

        def accepts(header: Header, revision: int) -> bool:
            return _same_source(header, to_be) and _may_join(
                replace(query, document=flight.document), header, revision
            )

        def serves(header: Header) -> bool:
            now_ms = self._clock_ms()
            decisions = [decide(header, now_ms, wish.directives) for wish in flight.wishes]
            return (
                _same_source(header, to_be)
                and _objection(replace(query, document=flight.document), header) is None
                and all(isinstance(d, Serve) and not d.revalidate for d in decisions)
            )

        async def read(encoded: bytes) -> Landed | None:
            envelope = _decoded(encoded, to_be.key)
            try:
                segment = envelope and open_segment(self._keys, envelope, SEGMENT_JSON)
            except EncryptionError as exc:
                log.warning("L1: undecodable entry %s: %s", short_key(to_be.key), exc)
                return None
            if not segment:
                return None
            plain = await asyncio.to_thread(decompress, segment, max_bytes=MAX_ANSWER_BYTES)
            return Landed(finished=Finished(answer=json.loads(plain)), entry=envelope)

        return Part(
            to_be=to_be,
            revision=query.document.revision,
            insist=query.controls.directives.no_cache,
            run=run,
            accepts=accepts,
            serves=serves,
            read=read,
            wishes=lambda: _wishes(query, flight.wishes),
        )

    def _expect_edge_write(self, document: ControlDocument, header: Header) -> None:
        """Remember an entry for the edge to fetch, unless it is granted a write before."""
        if document.policy.residency == "origin-only":
            return
        # The last grant, if any, was no later than now: it is over at `due_ms`.
        known = self._pending.get(header.key)
        due_ms = self._clock_ms() + GRANT_INTERVAL_S * 1000 if known is None else known.due_ms
        if known is None and len(self._pending) >= MAX_PENDING:
            del self._pending[next(iter(self._pending))]
        self._pending[header.key] = _Pending(header=header, due_ms=due_ms)

    async def _put(
        self, header: Header, encoded: bytes, *, only_new: bool = False, token: int | None = None
    ) -> None:
        try:
            await self._store.put(
                header.key, encoded, header.expires_ms, only_new=only_new, token=token
            )
        except StoreError as exc:
            log.warning("L1: not stored %s: %s", short_key(header.key), exc)

    def _refresh(self, query: Query, stale: Envelope) -> asyncio.Task[None] | None:
        """Make a new entry behind a stale answer: detached, once at a time per key."""
        key = stale.header.key
        if key in self._refreshing or self._clock_ms() < self._no_refresh_before_ms.get(key, 0):
            return None
        self._refreshing.add(key)
        task = asyncio.create_task(self._run_refresh(query, stale))
        self._refreshes.add(task)
        task.add_done_callback(self._refreshes.discard)
        return task

    async def _run_refresh(self, query: Query, stale: Envelope) -> None:
        key = stale.header.key
        try:
            request, fingerprint = await self._admit(query)
            started_ms = await self._generation_start_ms()
            if started_ms is None:
                raise InternalError("The store cannot be asked.", status=503)
            flight = self._joinable(query)
            if flight is None:
                flight = self._start(
                    query,
                    request,
                    fingerprint,
                    shared=True,
                    started_ms=started_ms,
                    tag_digests=stale.header.tags,
                )
                # Who happens to ask does not change how long the next entry lives.
                flight.ask(Controls(), query.document)
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


def _objection(query: Query, header: Header) -> Objection | None:
    """Why `query` must not be answered by an entry under its key.

    While a secret is being replaced, a purge by either key of a request means the entry.
    """
    found = objection(query.document, header)
    if found is None and query.key is not None and query.other_key is not None:
        other = query.other_key if header.key == query.key else query.key
        found = objection(query.document, replace(header, key=other))
    return found


def _may_join(query: Query, to_be: Header | None, revision: int) -> bool:
    """Whether a flight that is known by this may answer `query`."""
    if query.document.revision <= revision:
        # All of the document's cut-offs were there before the flight started.
        return True
    if to_be is None or _objection(query, to_be) is not None:
        return False
    # Not yet known of its entry: its tags, for some who wait are elsewhere, and the model that the
    # answer will name.
    cut_offs = query.document.cut_offs
    times_ms = (*cut_offs.tags.values(), *cut_offs.models.values())
    return max(times_ms, default=-1) < to_be.generation_started_ms


def _same_source(header: Header, to_be: Header) -> bool:
    """Whether both are of one tenant's one request, answered by one model."""
    return (header.key, header.tenant, header.model, header.fingerprint) == (
        to_be.key,
        to_be.tenant,
        to_be.model,
        to_be.fingerprint,
    )


def _wishes(query: Query, wishes: Iterable[Controls]) -> bytes:
    """What waiters ask of an entry, for the process that makes it."""
    lives = dict.fromkeys((wish.ttl_s, wish.content_class) for wish in wishes)
    return json_text.dumps([list(lives), _digests(query, wishes)])


def _read_wishes(told: Iterable[bytes]) -> tuple[list[Controls], list[str]]:
    """(wishes, tag digests) of `_wishes` of other processes."""
    wishes: list[Controls] = []
    digests: list[str] = []
    for lives, tags in map(json.loads, told):
        wishes += [Controls(ttl_s=ttl_s, content_class=name) for ttl_s, name in lives]
        digests += tags
    return wishes, digests


def _digests(query: Query, wishes: Iterable[Controls]) -> list[str]:
    """The digests of the tags that were asked for."""
    tags = dict.fromkeys(tag for wish in wishes for tag in wish.tags)
    return [tag_digest(query.ring, query.tenant, tag) for tag in tags]


def _decoded(encoded: bytes, key: str) -> Envelope | None:
    try:
        envelope = decode(encoded)
    except EnvelopeError as exc:
        log.warning("L1: undecodable entry %s: %s", short_key(key), exc)
        return None
    return envelope if envelope.header.key == key else None
