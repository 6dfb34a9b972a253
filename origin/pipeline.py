"""The tiers in order: exact match, semantic match, then a generation, whose answer is stored.

The pipeline knows no HTTP: it is given an authenticated request, with its tenant's control document
and the keys its edge goes by, and says what answers it.

Invariants
1. The key is computed here, from the request itself; nobody can name one.
2. A store that fails costs a generation and is said; it fails no request.
3. What is stored began as a valid request, ended as a complete answer, and carries absolute times.
4. No request is answered by what its control document objects to, be it an entry or a generation.
   Both are known by when the generation started, by the clock that also tells cut-offs.
5. Who is answered by another question's entry gets an entry of its own, judged as any other.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from origin.edge_writes import EdgeWrites
from origin.encryption import open_segment
from origin.engine.contract import Engine, Event
from origin.exact_tier import TURN_INPUTS, ExactTier, Found, Hit
from origin.explanation import Look
from origin.failures import describe
from origin.flights import Flight
from origin.generations import Generations
from origin.lifetimes import NO_TIERS, Tiers
from origin.metrics import L1_ERRORS
from origin.queries import LatestQueries, Query
from origin.relay import Relay
from origin.semantic.tier import SemanticTier
from origin.sliding import Sliding
from origin.stores.contract import Store, StoreError
from origin.times import unix_ms
from origin.tracing import span
from origin.waits import Waits
from shared import json_text
from shared.cache_headers import Forwarded
from shared.control_document import ControlDocument, Strategy, canonical_for
from shared.controls import Controls
from shared.embeddings import elements, wants_base64
from shared.envelope import Envelope, Header
from shared.errors import EncoreError, InternalError, not_cached
from shared.freshness import MISS, Forward, Lifetimes, Serve, recency
from shared.keys import KeyRing, KeyRings, cache_key, short_key
from shared.requests import Endpoint, Request, streaming, validate
from shared.storability import request_storability

if TYPE_CHECKING:
    from origin.semantic.matcher import Matcher

REFRESH_BACKOFF_S = 10
"""How long a key is not refreshed again after a refresh failed or stored nothing, at least."""
MAX_DETACHED = 100
"""Generations that go on though nobody waits: what bounds requests does not bound them."""
log = logging.getLogger(__name__)


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


class Pipeline:
    """One per process. Safe to call from many tasks of one event loop.

    `store_clock` is the clock that cut-offs are told by, in ms; it raises StoreError. By `clock_ms`
    entries age. Without `relay` generations are shared in this process alone. `admit_after` is the
    number of the edge's requests for a key from which on its entry is written to KV. For `ruling`
    and `note_model` see `Generations`. Without `matcher` nothing is matched by meaning.
    """

    def __init__(
        self,
        *,
        keys: KeyRings,
        store: Store,
        engine: Engine,
        lifetimes: Lifetimes,
        tiers: Tiers = NO_TIERS,
        max_entry_bytes: int = 8 << 20,
        deadline_s: float,
        store_clock: Callable[[], Awaitable[int]],
        relay: Relay | None = None,
        admit_after: int = 1,
        clock_ms: Callable[[], int] = unix_ms,
        ruling: Callable[[str], ControlDocument | None] = lambda _: None,
        note_model: Callable[[str, str], Awaitable[None]] | None = None,
        matcher: Matcher | None = None,
    ) -> None:
        self._keys = keys
        self._engine = engine
        self._lifetimes = lifetimes
        self._tiers = tiers
        self._store_clock = store_clock
        self._clock_ms = clock_ms
        self.edge_writes = EdgeWrites(store, admit_after=admit_after, clock_ms=clock_ms)
        self._generations = Generations(
            keys=keys,
            store=store,
            engine=engine,
            lifetimes=lifetimes,
            tiers=tiers,
            max_entry_bytes=max_entry_bytes,
            deadline_s=deadline_s,
            relay=relay,
            edge_writes=self.edge_writes,
            clock_ms=clock_ms,
            ruling=ruling,
            note_model=note_model,
            learn=None if matcher is None else matcher.learn,
        )
        self._exact = ExactTier(
            store=store,
            keys=keys,
            engine=engine,
            landed=self._generations.landed,
            clock_ms=clock_ms,
        )
        self._semantic: SemanticTier | None = None
        if matcher is not None:
            self._semantic = SemanticTier(
                matcher, store=store, keys=keys, judge=self._exact.judge, clock_ms=clock_ms
            )
        self._sliding: Sliding | None = None
        if tiers.any_slides:
            self._sliding = Sliding(
                store, keys=keys, tiers=tiers, lifetimes=lifetimes, clock_ms=clock_ms
            )
        self._latest = LatestQueries()
        self._refreshes: set[asyncio.Task[None]] = set()
        self._refreshing: set[str] = set()
        self._refresh_waits = Waits(clock_ms)
        self._detached: set[Flight] = set()

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
        if cacheable:
            known = self._latest.find(endpoint, document, controls, body, ring)
            if known is not None:
                return known
        fields = json_text.parse_object(body)
        stream, include_usage = streaming(fields)
        key = other_key = None
        strategy: Strategy = "exact"
        if cacheable:
            key, other_key, strategy = self._keys_of(endpoint, document, controls, fields, ring)
        query = Query(
            endpoint=endpoint,
            document=document,
            ring=ring,
            controls=controls,
            fields=fields,
            key=key,
            other_key=other_key,
            strategy=strategy,
            stream=stream,
            include_usage=include_usage,
            elements=elements(endpoint, fields),
            base64=wants_base64(endpoint, fields),
        )
        if cacheable:
            self._latest.keep(body, query)
        return query

    async def answer(self, query: Query) -> Answer:
        """Find or start what answers `query`.

        Raises ClientError (validation), UpstreamError (`only-if-cached`) and what the engine does.
        """
        directives = query.controls.directives
        hit: Hit | None = None
        decision: Serve | Forward = MISS
        detail: str | None = None
        if query.key is not None and not directives.no_store:
            with span("l1"):
                hit, decision, detail = await self._exact.find(query)
            if hit is not None and isinstance(decision, Serve):
                if decision.revalidate:
                    self._refresh(query, hit.envelope)
                elif self._sliding is not None:
                    self._sliding.hit(query, hit.envelope, hit.encoded)
                return hit
            # Not while the store cannot be read: there would be nothing to answer with.
            if (
                hit is None
                and self._semantic is not None
                and detail != "l1-error"
                and not directives.no_cache
            ):
                with span("semantic"):
                    match = await self._semantic.hit(query)
                if match is not None:
                    return match
        if directives.only_if_cached:
            raise not_cached()
        request, fingerprint = await self.admit(query)
        why_not = self._unstorable(query, request)
        started_ms = None
        if why_not is None and detail != "l1-error":
            started_ms = await self._generation_start_ms()
            detail = detail if started_ms is not None else "l1-error"
        # No `await` from here on: two requests would each find nothing, and start.
        flight = None
        if why_not is None and not directives.no_cache:
            flight = self._generations.joinable(query)
        joined = flight is not None
        if flight is None:
            flight = self._generations.start(
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

    async def queries_by_input(self, query: Query) -> list[Query]:
        """What would be asked for each input alone. `query` has a key, and `elements`."""
        alone: list[Query] = []
        for element in query.elements or ():
            if len(alone) % TURN_INPUTS == TURN_INPUTS - 1:
                await asyncio.sleep(0)
            fields = {**query.fields, "input": element}
            key, other_key, _ = self._keys_of(
                query.endpoint, query.document, query.controls, fields, query.ring
            )
            alone.append(
                replace(query, fields=fields, key=key, other_key=other_key, elements=[element])
            )
        return alone

    async def look_up_many(self, queries: Sequence[Query]) -> list[Found]:
        """What the store has for each of the queries, which all have keys, in one read."""
        found = await self._exact.find_many(queries)
        if self._sliding is not None:
            for query, (hit, decision, _) in zip(queries, found, strict=True):
                if hit is not None and isinstance(decision, Serve):
                    self._sliding.hit(query, hit.envelope, hit.encoded)
        return found

    async def flights_for(
        self,
        queries: Sequence[Query],
        requests: Sequence[Request],
        *,
        fingerprint: str,
        begin: Callable[[Sequence[int]], Sequence[AsyncGenerator[Event, None]]],
        join: bool,
        store_works: bool,
    ) -> list[tuple[Flight, bool]]:
        """(flight, whether it had begun) for each of the queries: join it before the next `await`.

        `begin` gives the events of those that must be generated, by their places, in one run. Only
        who comes by this method joins what such a run makes: it may fail for another's input.
        """
        started_ms = await self._generation_start_ms() if store_works else None
        # No `await` from here on: two requests would each find nothing, and start.
        joined = [
            self._generations.joinable(query, one_of_many=True) if join else None
            for query in queries
        ]
        missing = [place for place, flight in enumerate(joined) if flight is None]
        started: dict[int, Flight] = {}
        for place, events in zip(missing, begin(missing) if missing else (), strict=True):
            started[place] = self._generations.start(
                queries[place],
                requests[place],
                fingerprint,
                shared=True,
                started_ms=started_ms,
                events=events,
            )
        departed = [
            (flight or started[place], flight is not None) for place, flight in enumerate(joined)
        ]
        for query, (flight, _) in zip(queries, departed, strict=True):
            flight.ask(query.controls, query.document)
        return departed

    async def entry(self, document: ControlDocument, key: str) -> tuple[Header, bytes] | None:
        """See ExactTier.entry."""
        return await self._exact.entry(document, key)

    def segment(self, query: Query, envelope: Envelope) -> bytes | None:
        """The gzip member of a flight's entry that answers `query`, None where there is none.

        Raises EncryptionError.
        """
        return open_segment(self._keys, envelope, query.segment)

    async def refresh(self, query: Query, header: Header) -> Header | None:
        """Make the entry of `header` anew and wait for it. Who stops waiting does not stop it.

        The header of the entry there is then: the same one where that failed, or must wait. None
        where there is none (any more) that could answer `query`.
        """
        hit, _, trouble = await self._exact.find(query)
        if hit is not None and recency(hit.envelope.header) <= recency(header):
            task = self._refresh(query, hit.envelope)
            if task is not None:
                await asyncio.wait([task])
                hit, _, trouble = await self._exact.find(query)
        if trouble == "l1-error":
            return header  # an outage is not an absence
        return None if hit is None else hit.envelope.header

    def detach(self, flight: Flight) -> None:
        """Let a flight that makes an entry go on to its end though nobody waits for it.

        Raises InternalError where it makes none, or too many go on so already.
        """
        if flight in self._detached or flight.over:
            return
        if flight.to_be is None or len(self._detached) >= MAX_DETACHED:
            raise InternalError("This refresh cannot be made now.", status=503, retry_after_s=10)
        self._detached.add(flight)
        flight.go_on(partial(self._detached.discard, flight))

    async def close(self) -> None:
        """Stop every generation and refresh; wait for what is being stored."""
        for task in tuple(self._refreshes):
            task.cancel()
        if self._semantic is not None:
            await self._semantic.close()
        await self._generations.close()
        if self._sliding is not None:
            await self._sliding.close()

    def _keys_of(
        self,
        endpoint: Endpoint,
        document: ControlDocument,
        controls: Controls,
        fields: dict[str, Any],
        ring: KeyRing,
    ) -> tuple[str, str | None, Strategy]:
        """The key by `ring`, by the other secret while one is being replaced, and the strategy."""
        form = canonical_for(document, endpoint=endpoint, controls=controls, fields=fields)
        other = next((other for other in self._keys if other.id != ring.id), None)
        other_key = None if other is None else cache_key(other, form.canonical)
        return cache_key(ring, form.canonical), other_key, form.strategy

    async def admit(self, query: Query) -> tuple[Request, str]:
        """The validated request and its model's fingerprint. Raises ClientError."""
        request = validate(query.endpoint, query.fields)
        self._engine.check(request)
        return request, await self._engine.fingerprint(request.model)

    async def look(self, query: Query) -> Look:
        """What `answer` goes by, for an explanation. Makes, stores and refreshes nothing."""
        header, decision, trouble = await self._exact.look(query)
        refusal: str | None = None
        fingerprint: str | None = None
        unstorable: str | None = None
        try:
            request, fingerprint = await self.admit(query)
            unstorable = self._unstorable(query, request)
        except EncoreError as exc:
            refusal = exc.message
        return Look(
            header=header,
            decision=decision,
            trouble=trouble,
            unstorable=unstorable,
            refusal=refusal,
            fingerprint=fingerprint,
            generating=self._generations.is_under_way(query),
        )

    def _unstorable(self, query: Query, request: Request) -> str | None:
        """Why the answer to `query` would not be kept, in the words of `Cache-Status`."""
        if query.key is None:
            return "too-large"
        if query.controls.directives.no_store:
            return "no-store"
        if not self._tiers.knows(query.controls):
            return "unknown-class"
        return request_storability(request)

    async def _generation_start_ms(self) -> int | None:
        """The time by the clock that cut-offs are told by, None where it cannot be had."""
        try:
            return await self._store_clock()
        except StoreError as exc:
            L1_ERRORS.labels("clock").inc()
            log.warning("L1: no clock: %s", exc)
            return None

    def _refresh(self, query: Query, stale: Envelope) -> asyncio.Task[None] | None:
        """Make a new entry behind a stale answer: detached, once at a time per key."""
        key = stale.header.key
        if key in self._refreshing or not self._refresh_waits.is_over(key):
            return None
        self._refreshing.add(key)
        task = asyncio.create_task(self._run_refresh(query, stale))
        self._refreshes.add(task)
        task.add_done_callback(self._refreshes.discard)
        return task

    async def _run_refresh(self, query: Query, stale: Envelope) -> None:
        key = stale.header.key
        try:
            request, fingerprint = await self.admit(query)
            started_ms = await self._generation_start_ms()
            if started_ms is None:
                raise InternalError("The store cannot be asked.", status=503)
            flight = self._generations.joinable(query)
            if flight is None:
                flight = self._generations.start(
                    query,
                    request,
                    fingerprint,
                    shared=True,
                    started_ms=started_ms,
                    tag_digests=stale.header.tags,
                )
                # Who happens to ask does not change how long the next entry lives.
                ttl_s = self._tiers.refresh_ttl_s(
                    self._lifetimes,
                    request.model,
                    query.controls.content_class,
                    stale.header,
                    lax_classes=query.document.policy.lax_classes,
                )
                flight.ask(Controls(ttl_s=ttl_s), query.document)
            with flight.joined():
                await flight.result()
            await flight.landed()
            hit, _, _ = await self._exact.find(query)
            if hit is not None and hit.envelope.header != stale.header:
                self._refresh_waits.end(key)
            else:  # an answer that is not stored, or a store that takes no writes
                self._refresh_waits.begin(key, REFRESH_BACKOFF_S * 1000)
        except EncoreError as error:
            log.warning("refresh of %s failed: %s", short_key(key), describe(error))
            wait_s = max(error.retry_after_s or 0, REFRESH_BACKOFF_S)
            self._refresh_waits.begin(key, wait_s * 1000)
        finally:
            self._refreshing.discard(key)
