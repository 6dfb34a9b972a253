"""Generations: which of them a request may join, how one starts, and what is kept of its answer.

Invariants
1. A request joins a generation only if no purge that it knows of can name its entry.
2. An entry is what all who waited for it agreed to: all of their tags, the shortest of the lives.
   They are of one content class (`origin.lifetimes`).
3. What has no time by the clock that cut-offs are told by is kept nowhere.
4. What is known to be purged when it would be stored is dropped. (Were it not known yet, it would
   be stored, and be dead.)
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from contextlib import nullcontext
from dataclasses import replace
from functools import partial

from origin.edge_writes import EdgeWrites
from origin.encryption import EncryptionError, open_segment, seal
from origin.engine.contract import Engine, Event, Finished
from origin.engine.turns import step_aside
from origin.entries import build_entry, decoded, entry_to_be
from origin.flights import Flight, FlightEvent, Flights, Landed
from origin.lifetimes import Tiers
from origin.metrics import STORE_WRITES
from origin.queries import Query
from origin.relay import Part, Relay
from origin.stores.contract import Store, StoreError
from origin.vectors import single_vector_events
from origin.writes import Writes
from shared import json_text
from shared.compression import decompress
from shared.control_document import ControlDocument
from shared.controls import Controls
from shared.envelope import (
    MAX_TAGS,
    SEGMENT_JSON,
    Envelope,
    EnvelopeError,
    Header,
)
from shared.freshness import MAX_AHEAD_MS, Lifetimes, Serve, decide
from shared.keys import KeyRings, short_key
from shared.requests import Request
from shared.storability import exact_only, storability

MAX_ANSWER_BYTES = 256 << 20
BATCH_CONCURRENCY = 4
"""How many entries of batches are built, or stored, at once: hundreds leave others no room."""
log = logging.getLogger(__name__)


class Generations:
    """One per process. Without `relay` generations are shared in this process alone.

    `lifetimes` hold where `tiers` say nothing. By `clock_ms` entries age. `ruling` is what is known
    of a tenant's document without asking; `note_model` is told a model and its fingerprint before
    an entry is stored, and raises StoreError; `learn` is told of what was stored, if others may be
    answered by it whose question means the same.
    """

    def __init__(
        self,
        *,
        keys: KeyRings,
        store: Store,
        engine: Engine,
        lifetimes: Lifetimes,
        tiers: Tiers,
        max_entry_bytes: int,
        deadline_s: float,
        relay: Relay | None,
        edge_writes: EdgeWrites,
        clock_ms: Callable[[], int],
        ruling: Callable[[str], ControlDocument | None],
        note_model: Callable[[str, str], Awaitable[None]] | None,
        learn: Callable[[Query, Header], None] | None = None,
    ) -> None:
        self._keys = keys
        self._store = store
        self._engine = engine
        self._lifetimes = lifetimes
        self._tiers = tiers
        self._max_entry_bytes = max_entry_bytes
        self._relay = relay
        self._edge_writes = edge_writes
        self._writes = Writes(store)
        self._clock_ms = clock_ms
        self._ruling = ruling
        self._note_model = note_model
        self._learn = learn
        self._flights = Flights(deadline_s)
        self._room_for_batches = asyncio.Semaphore(BATCH_CONCURRENCY)

    def joinable(self, query: Query, *, one_of_many: bool = False) -> Flight | None:
        """The flight that may answer `query`, if there is one; see `Pipeline.flights_for`.

        Who asks joins it.
        """
        flight = None if query.key is None else self._flights.find(query.key)
        if flight is None or (flight.one_of_many and not one_of_many):
            return None
        if not query.may_join(flight.to_be, flight.revision):
            return None
        step_aside()
        return flight

    def is_under_way(self, query: Query) -> bool:
        """Whether the answer to `query` is being made in this process."""
        return query.key is not None and self._flights.find(query.key) is not None

    async def landed(self, key: str) -> bool:
        """Wait for the flight that is storing the entry of `key`; whether there was one."""
        flight = self._flights.find(key)
        if flight is None or not flight.over:
            return False
        await flight.landed()
        return True

    async def close(self) -> None:
        """Stop every generation; wait for what is being stored."""
        await self._flights.close()
        await self._writes.close()

    def start(
        self,
        query: Query,
        request: Request,
        fingerprint: str,
        *,
        shared: bool,
        started_ms: int | None,
        tag_digests: tuple[str, ...] = (),
        events: AsyncGenerator[Event, None] | None = None,
    ) -> Flight:
        """Start a generation; join it before the next `await`.

        Its answer is stored if it is `shared` and its start is known. `tag_digests` are those of
        the entry that it replaces; `events` are the engine's, where it has begun for many.
        """
        to_be = None
        if shared and query.key is not None and started_ms is not None:
            is_secret = self._tiers.sensitivity(query.controls) == "confidential"
            is_sealed = query.document.policy.encrypted or is_secret
            try:
                to_be = entry_to_be(
                    key=query.key,
                    tenant=query.tenant,
                    model=request.model,
                    generation_started_ms=started_ms,
                    fingerprint=fingerprint,
                    tags=tag_digests,
                    encryption=query.ring.id if is_sealed else None,
                )
            except EnvelopeError as exc:
                log.warning("not to be stored %s: %s", short_key(query.key), exc)

        def run() -> AsyncGenerator[Event, None]:
            if shared and query.is_of_one_input:
                return single_vector_events(self._engine, request, tenant=query.tenant)
            return self._engine.run(request, tenant=query.tenant, scope=query.controls.scope)

        def said_by(flight: Flight) -> AsyncGenerator[FlightEvent, None]:
            if events is not None:
                return events
            if self._relay is None or to_be is None:
                return run()
            return self._relay.events(flight, self._part(query, flight, to_be, run))

        async def complete(finished: Finished) -> Envelope | None:
            if to_be is None or finished.unstorable:
                return None
            return await self._entry(query, request, flight, to_be=to_be, finished=finished)

        async def settle(flight: Flight) -> None:
            try:
                await keep(flight)
            finally:
                # Not before: see origin.writes. But whatever happens, or it is held for ever.
                if flight.leader is not None:
                    await flight.leader.end()

        async def keep(flight: Flight) -> None:
            entry, leader = flight.entry, flight.leader
            if entry is None or flight.superseded or flight.is_elsewhere:
                return
            if self._is_purged(query, flight, entry.header):
                STORE_WRITES.labels("purged").inc()
                return
            # Without a lease it counts as one of when the generation began.
            started_us = entry.header.generation_started_ms * 1000
            token = started_us if leader is None else leader.token
            then = None
            if (
                self._learn is not None
                and flight.finished is not None
                and not exact_only(flight.finished.answer)
            ):
                then = partial(self._learn, query, entry.header)
            async with self._room(flight):
                await self._writes.put(entry, token=token, leased=leader is not None, then=then)

        flight = self._flights.start(
            query.key or "",
            said_by,
            shared=shared,
            to_be=to_be,
            document=query.document,
            complete=complete,
            settle=settle,
        )
        flight.one_of_many = events is not None
        return flight

    async def _entry(
        self,
        query: Query,
        request: Request,
        flight: Flight,
        *,
        to_be: Header,
        finished: Finished,
    ) -> Envelope | None:
        """The entry of an answer, None where there is to be none."""
        started_ms = to_be.generation_started_ms
        created_ms = now_ms = self._clock_ms()
        if now_ms < started_ms <= now_ms + MAX_AHEAD_MS:  # clocks differ, and may be set back
            created_ms = started_ms
        told = () if flight.leader is None else await flight.leader.gather()
        ttls_s, digests_told = _read_wishes(told)
        storing = self._tiers.storing(
            self._lifetimes,
            request.model,
            query.controls.content_class,
            [*ttls_s, *(wish.ttl_s for wish in flight.wishes)],
            created_ms,
            lax_classes=query.document.policy.lax_classes,
        )
        digests = dict.fromkeys((*to_be.tags, *query.digests(flight.wishes), *digests_told))
        # One waiter wants no entry, or there are more tags than fit and a purge would miss it.
        if storing is None or len(digests) > MAX_TAGS:
            return None

        def make() -> Envelope | None:
            if storability(request, finished.answer) is not None:
                return None
            entry = build_entry(
                query.endpoint,
                finished.answer,
                key=to_be.key,
                tenant=to_be.tenant,
                model=to_be.model,
                generation_started_ms=started_ms,
                created_ms=created_ms,
                expiry_ms=storing.expiry_ms,
                fingerprint=to_be.fingerprint,
                tags=tuple(digests),
                in_both_encodings=query.is_of_one_input,
                origin_only=not storing.edge,
            )
            is_sealed = to_be.encryption is not None or storing.sealed
            return seal(entry, query.ring) if is_sealed else entry

        try:
            async with self._room(flight):
                entry = await asyncio.to_thread(make)
        except EnvelopeError as exc:
            log.warning("not stored %s: %s", short_key(to_be.key), exc)
            return None
        if entry is None:
            return None
        if len(entry.payload) > self._max_entry_bytes:
            STORE_WRITES.labels("too-large").inc()
            log.warning("not stored %s: %d bytes", short_key(to_be.key), len(entry.payload))
            return None
        if self._note_model is not None:
            try:
                await self._note_model(to_be.model, to_be.fingerprint)
            except StoreError as exc:  # then nobody has it
                log.warning("not stored %s: %s", short_key(to_be.key), exc)
                return None
        if query.controls.directives.no_cache:
            self._edge_writes.expect(query.document, entry.header)
        return entry

    def _is_purged(self, query: Query, flight: Flight, header: Header) -> bool:
        """Whether a purge that this process knows of names an entry."""
        known = (flight.document, self._ruling(query.tenant))
        return any(
            document is not None and replace(query, document=document).objection(header) is not None
            for document in known
        )

    def _room(self, flight: Flight) -> asyncio.Semaphore | nullcontext[None]:
        return self._room_for_batches if flight.one_of_many else nullcontext()

    def _part(
        self,
        query: Query,
        flight: Flight,
        to_be: Header,
        run: Callable[[], AsyncGenerator[Event, None]],
    ) -> Part:
        """What this process brings to a flight that others may share."""

        def as_of_now() -> Query:
            return replace(query, document=flight.document)

        def accepts(header: Header, revision: int) -> bool:
            return _same_source(header, to_be) and as_of_now().may_join(header, revision)

        def serves(header: Header) -> bool:
            now_ms = self._clock_ms()
            decisions = [decide(header, now_ms, wish.directives) for wish in flight.wishes]
            return (
                _same_source(header, to_be)
                and as_of_now().objection(header) is None
                and not any(
                    header.source is not None and wish.refuses(header.source.similarity)
                    for wish in flight.wishes
                )
                and all(isinstance(d, Serve) and not d.revalidate for d in decisions)
            )

        async def read(encoded: bytes) -> Landed | None:
            envelope = decoded(encoded, to_be.key)
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
            wishes=lambda: _told_wishes(query, flight.wishes),
        )


def _same_source(header: Header, to_be: Header) -> bool:
    """Whether both are of one tenant's one request, answered by one model."""
    return (header.key, header.tenant, header.model, header.fingerprint) == (
        to_be.key,
        to_be.tenant,
        to_be.model,
        to_be.fingerprint,
    )


def _told_wishes(query: Query, wishes: Iterable[Controls]) -> bytes:
    """What waiters ask of an entry, for the process that makes it."""
    ttls_s = dict.fromkeys(wish.ttl_s for wish in wishes)
    return json_text.dumps([list(ttls_s), query.digests(wishes)])


def _read_wishes(told: Iterable[bytes]) -> tuple[list[int | None], list[str]]:
    """(wishes for a life in seconds, tag digests) of `_told_wishes` of other processes."""
    ttls_s: list[int | None] = []
    digests: list[str] = []
    for lives, tags in map(json.loads, told):
        ttls_s += lives
        digests += tags
    return ttls_s, digests
