"""Requests for the embeddings of several inputs: each input is looked up, made and kept for itself.

What is not known of a request is made in one run of the engine, and every vector of that is an
entry like any other: it has a flight, a key, a life and tags of its own, by the pipeline's rules.
The request itself has no entry, so nothing of it is left when one of its inputs is purged.

An input that is stale is made again with the missing ones, not behind the answer; should that fail,
the stale entry answers where it may.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import ExitStack, aclosing
from dataclasses import dataclass, replace

from origin.engine.contract import Engine, Event, Finished
from origin.exact_tier import Found, Hit
from origin.flights import Flight
from origin.pipeline import Pipeline
from origin.queries import Query
from origin.vectors import assemble, by_input, with_base64, without_encoding
from shared import json_text
from shared.cache_headers import Forwarded
from shared.compression import decompress
from shared.envelope import Header
from shared.errors import ClientError, EncoreError, UpstreamError, not_cached
from shared.freshness import Forward, Serve, is_failure
from shared.requests import EmbeddingRequest

_MAX_VECTOR_BYTES = 16 << 20
"""No model has a vector whose JSON comes near it."""
_INPUT = re.compile(r"\binput\[(\d+)\]")


@dataclass(frozen=True, kw_only=True, slots=True)
class BatchAnswer:
    """An answer, `body`, put together from those about each input.

    `known` of `total` inputs were answered from entries. `keys` are those of all inputs, `hits` the
    headers of the entries that answered, each once. `served` is the oldest age and the
    shortest life among those, None where not all were; then `reason` says why others were made.
    `stored` is whether these all have entries, `collapsed` whether others had begun all of them.
    """

    body: bytes
    known: int
    total: int
    keys: Sequence[str]
    hits: Sequence[Header]
    served: Serve | None
    reason: Forwarded = "miss"
    stored: bool = False
    collapsed: bool = False
    trouble: str | None = None
    failed_status: int | None = None
    """Of the failure that a stale entry answers for."""

    @property
    def detail(self) -> str:
        """What `Cache-Status` says of it."""
        parts = f"elements={self.known}/{self.total}"
        return parts if self.trouble is None else f"{self.trouble}; {parts}"


def is_batch(query: Query) -> bool:
    """Whether a request is answered here: the pipeline answers every other."""
    return (
        query.key is not None
        and query.elements is not None
        and len(query.elements) > 1
        and not query.stream
        and not query.controls.directives.no_store
    )


class Batches:
    """One per process, beside its pipeline. Safe to call from many tasks of one event loop."""

    def __init__(self, pipeline: Pipeline, engine: Engine) -> None:
        self._pipeline = pipeline
        self._engine = engine

    async def answer(self, query: Query) -> BatchAnswer:
        """Answer a request that `is_batch`. Who stops waiting stops what nobody else waits for.

        Raises ClientError (validation, naming `input[3]`), UpstreamError and what the engine does.
        """
        asked = await self._pipeline.queries_by_input(query)
        # Each different input once, in the order of their first places.
        alone = list({one.key: one for one in asked}.values())
        place_of = {one.key: place for place, one in enumerate(alone)}
        places = [place_of[one.key] for one in asked]
        found = await self._pipeline.look_up_many(alone)
        only_if_cached = query.controls.directives.only_if_cached
        missing = [p for p, one in enumerate(found) if not _suffices(one, stale=only_if_cached)]
        if missing and only_if_cached:
            raise not_cached()
        made: dict[int, _Made] = {}
        failed_status = None
        trouble = next((said for p in missing if (said := found[p][2]) is not None), None)
        if missing:
            try:
                made = await self._make(query, alone, missing, places, trouble)
            except EncoreError as error:
                stands_in = all(_may_stand_in(found[place]) for place in missing)
                if not (stands_in and is_failure(error.status)):
                    raise
                failed_status, trouble = error.status, "stale-if-error"
        known = set(range(len(alone))).difference(missing)
        hits = {p: hit for p, (hit, _, _) in enumerate(found) if p not in made and hit is not None}
        return BatchAnswer(
            body=await asyncio.to_thread(self._body, alone, hits, made, places),
            known=sum(place in known for place in places),
            total=len(places),
            keys=[one.key for one in alone if one.key is not None],
            hits=[hit.envelope.header for hit in hits.values()],
            served=None if missing else _together([hit.served for hit in hits.values()]),
            reason=_reason([found[p] for p in missing]),
            stored=bool(made) and all(one.flight.entry is not None for one in made.values()),
            collapsed=bool(made) and all(one.collapsed for one in made.values()),
            trouble=trouble,
            failed_status=failed_status,
        )

    async def _make(
        self,
        query: Query,
        alone: Sequence[Query],
        missing: Sequence[int],
        places: Sequence[int],
        trouble: str | None,
    ) -> dict[int, _Made]:
        """Make what is missing of `alone`, in one run, or wait for who makes it already."""
        request, fingerprint = await self._pipeline.admit(query)
        assert isinstance(request, EmbeddingRequest)  # noqa: S101 - no other has elements
        made: dict[int, _Made] = {}
        join = not query.controls.directives.no_cache
        while missing:
            own: list[int] = []
            refused: list[int] = []

            def begin(
                chosen: Sequence[int], own: list[int] = own, of: Sequence[int] = missing
            ) -> list[AsyncGenerator[Event, None]]:
                own += (of[place] for place in chosen)
                wanted = _asking_for(request, [alone[p] for p in own])
                run = _Run(self._engine, wanted, tenant=query.tenant)
                return [run.events(place) for place in range(len(own))]

            flights = await self._pipeline.flights_for(
                [alone[p] for p in missing],
                [_asking_for(request, [alone[p]]) for p in missing],
                fingerprint=fingerprint,
                begin=begin,
                join=join,
                store_works=trouble != "l1-error",
            )
            with ExitStack() as stack:
                for flight, _ in flights:
                    stack.enter_context(flight.joined())
                for place, (flight, collapsed) in zip(missing, flights, strict=True):
                    try:
                        await flight.result()
                    except ClientError as error:
                        if not collapsed:
                            raise _renamed(error, [places.index(p) for p in own]) from error
                        refused.append(place)  # maybe for another input, of who began it
                    else:
                        made[place] = _Made(flight=flight, collapsed=collapsed)
            missing, join = refused, False
        return made

    def _body(
        self,
        alone: Sequence[Query],
        hits: Mapping[int, Hit],
        made: Mapping[int, _Made],
        places: Sequence[int],
    ) -> bytes:
        """The answer. Blocking: it takes milliseconds to inflate a hundred vectors."""
        about = []
        for place, query in enumerate(alone):
            segment: bytes | None
            if place in made:
                flight = made[place].flight
                entry, finished = flight.entry, flight.finished
                segment = None if entry is None else self._pipeline.segment(query, entry)
                answer = {} if finished is None else finished.answer
            else:
                segment, answer = hits[place].segment, {}
            if segment is not None:
                about.append(decompress(segment, max_bytes=_MAX_VECTOR_BYTES))
            else:
                about.append(json_text.dumps(with_base64(answer) if query.base64 else answer))
        return assemble(about, places)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Made:
    """A flight that is over, and whether another request had begun it."""

    flight: Flight
    collapsed: bool


class _Run:
    """One run of the engine for several inputs, told input by input.

    It begins with the first who listens to it and stops when the last has left.
    """

    def __init__(self, engine: Engine, request: EmbeddingRequest, *, tenant: str) -> None:
        self._engine = engine
        self._request = request
        self._tenant = tenant
        self._task: asyncio.Task[list[Finished]] | None = None
        self._listeners = 0

    async def events(self, place: int) -> AsyncGenerator[Event, None]:
        """What an engine would say, asked for the input at `place` alone."""
        if self._task is None:
            self._task = asyncio.create_task(self._make())
            # Read here, too: where all have left, nobody else asks for its exception.
            self._task.add_done_callback(lambda task: task.cancelled() or task.exception())
        self._listeners += 1
        try:
            await asyncio.wait([self._task])
            yield self._task.result()[place]
        finally:
            self._listeners -= 1
            if not self._listeners:
                self._task.cancel()

    async def _make(self) -> list[Finished]:
        finished = None
        request = without_encoding(self._request)
        async with aclosing(self._engine.run(request, tenant=self._tenant)) as events:
            async for event in events:
                if isinstance(event, Finished):
                    finished = event
        if finished is None:
            raise UpstreamError("The answer broke off.", code="answer_interrupted")
        answers = await asyncio.to_thread(by_input, finished, self._request.inputs)
        return [Finished(answer=answer, unstorable=finished.unstorable) for answer in answers]


def _asking_for(request: EmbeddingRequest, alone: Sequence[Query]) -> EmbeddingRequest:
    """The request for these inputs only."""
    inputs = [query.fields["input"] for query in alone]
    return replace(request, fields={**request.fields, "input": inputs}, input=inputs)


def _suffices(found: Found, *, stale: bool) -> bool:
    """Whether the entry answers, so that nothing is made. `stale` is whether a stale one does."""
    hit, decision, _ = found
    return hit is not None and isinstance(decision, Serve) and (stale or not decision.revalidate)


def _may_stand_in(found: Found) -> bool:
    """Whether the entry may answer where a new one could not be made."""
    hit, decision, _ = found
    return hit is not None and (not isinstance(decision, Forward) or decision.stale_if_error)


def _together(served: Sequence[Serve]) -> Serve:
    return Serve(age_s=max(one.age_s for one in served), ttl_s=min(one.ttl_s for one in served))


def _reason(missing: Sequence[Found]) -> Forwarded:
    """Why these are made: what all of them say, else that some were missing."""
    reasons: set[Forwarded] = {
        decision.reason if isinstance(decision, Forward) else "stale" for _, decision, _ in missing
    }
    return reasons.pop() if len(reasons) == 1 else "miss"


def _renamed(error: ClientError, places: Sequence[int]) -> ClientError:
    """The error with inputs named as in the request; `places` are those the engine was given."""

    def name(match: re.Match[str]) -> str:
        index = int(match[1])
        return f"input[{places[index]}]" if index < len(places) else match[0]

    return ClientError(
        _INPUT.sub(name, error.message),
        param=None if error.param is None else _INPUT.sub(name, error.param),
        code=error.code,
        status=error.status,
        type=error.type,
        retry_after_s=error.retry_after_s,
    )
