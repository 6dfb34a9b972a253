"""The cached endpoints: what answers a request that is authenticated and keyed.

    key → KV ── fresh ─────────────> stored gzip bytes
             └─ else → origin ─────> answer; entry into KV behind it

All decisions are `shared`'s; this module makes them happen.

Invariants
1. A request that may not be shared or stored is still answered, by the origin.
2. A body leaves as it was stored, or as the platform opened it; Python never reads it.
3. A hit is validated only where its key does not prove it valid: an entry exists only under keys of
   requests that were, and the canonical form keeps invalid ones from sharing those keys.
4. KV failing or full of junk costs a miss, which `Cache-Status` names; nothing else.
5. Nothing is read from or written to KV but by the tenant's control document.
6. Only what the origin grants is written, once.
"""

from __future__ import annotations

import time
from typing import Any, assert_never

import runtime
from control_documents import ControlDocuments
from kv import EntryStore, StoredEntry, UndecodableError, is_oversized
from origin_client import (
    BEHIND_TIMEOUT_S,
    OriginAnswer,
    OriginClient,
    OriginError,
    disagrees,
    entry_of,
)
from queries import Ask, Found, Passage, Query
from refreshes import Refreshes

from shared.cache_headers import (
    EDGE,
    entry_headers,
    forward_status,
    hit_status,
    server_timing,
    source_detail,
)
from shared.canonical import UNPROVEN
from shared.control_document import ControlDocument, objection, strategy_of
from shared.counts import TROUBLES, Counts, Outcome, Trouble
from shared.envelope import SEGMENT_JSON, SEGMENT_JSON_BASE64
from shared.errors import not_cached
from shared.freshness import (
    MISS,
    Decision,
    Forward,
    Serve,
    decide,
    is_failure,
    is_lasting,
    recency,
    serve,
)
from shared.keys import KeyRings, short_key
from shared.requests import Endpoint, Request, validate
from shared.storability import request_storability

_ACCEPTED = 202
_PLAIN = (SEGMENT_JSON, SEGMENT_JSON_BASE64)


class Answers:
    """One per isolate. Holds the KV binding, and no request's objects."""

    def __init__(
        self,
        kv_namespace: Any,
        *,
        keys: KeyRings,
        origin: OriginClient,
        control: ControlDocuments,
        counts: Counts,
    ) -> None:
        self._store = EntryStore(kv_namespace)
        self._keys = keys
        self._origin = origin
        self._control = control
        self._counts = counts
        self._refreshes = Refreshes()

    async def answer(self, query: Query, found: Found | None = None) -> Any:
        """Answer from KV, else from the origin. Raises ClientError and UpstreamError.

        `found` is what `look_up` gave, where the caller has looked already.
        """
        directives = query.controls.directives
        request = None
        if directives.no_store or not _is_proven_by_key(query):
            request = validate(query.endpoint, query.fields)
        if directives.no_store:
            return await self.forward(query, "no-store")
        document = query.document
        if document is None:
            return await self._answer_uncached(query)
        if document.policy.residency == "origin-only":
            return await self.forward(query, "origin-only")
        if found is None:
            found = await self.look_up(query.tenant, query.key)
        entry, trouble = found.entry, found.trouble
        if entry is not None and (
            why_not := objection(
                document, entry.header, query.previous_key, controls=query.controls
            )
        ):
            entry, trouble = None, why_not
        decision = MISS if entry is None else decide(entry.header, _now_ms(), directives)
        view = None if entry is None else entry.segment(query.segment)
        if entry is not None and entry.header.encryption is not None and _is_usable(decision):
            try:
                view = await entry.opened(query.segment, self._keys)
            except UndecodableError as exc:
                _log_undecodable(query.key, exc)
                entry, view, decision, trouble = None, None, MISS, "kv-undecodable"
        if isinstance(decision, Serve):
            if entry is not None and view is not None:
                if decision.revalidate and self._refreshes.begin(query.key, time.monotonic()):
                    query.wait_until(self._refresh(query, entry))
                self._count_entry(query, entry, "stale" if decision.ttl_s < 0 else "hit")
                member = hit_status(EDGE, decision, source_detail(entry.header))
                return _stored(query, entry, view, decision, member, timing=found.timing)
            decision = MISS
        passage = Passage(reason=decision.reason, detail=trouble, timing=found.timing)
        fallback = (entry, view) if entry is not None and decision.stale_if_error else None
        return await self._miss(query, request, passage, fallback)

    async def forward(self, ask: Ask, why: str) -> Any:
        """Answer past this cache, saying why."""
        only_if_cached = ask.controls.directives.only_if_cached
        try:
            answer = await self._origin.send("POST", ask.endpoint.value, ask.headers, ask.body)
        except OriginError as error:
            if only_if_cached:
                raise not_cached() from error
            raise
        if only_if_cached and answer.status >= 500:
            await answer.discard()
            raise not_cached()
        self._follow(ask, answer)
        self._count_answer(ask, answer, "bypass")
        return relay(answer, Passage(reason="bypass", detail=why))

    async def look_up(self, tenant: str, key: str) -> Found:
        """One read of KV."""
        began_s = time.monotonic()
        entry, trouble = None, None
        try:
            entry = await self._store.get(tenant, key)
        except UndecodableError as exc:
            _log_undecodable(key, exc)
            trouble = "kv-undecodable"
        except runtime.PlatformError as exc:
            runtime.log(f"kv: {exc}")
            trouble = "kv-error"
        timing = server_timing({"kv": (time.monotonic() - began_s) * 1000})
        return Found(entry=entry, trouble=trouble, timing=timing)

    async def put_ahead(self, tenant: str, key: str) -> bool:
        """Fetch an entry from the origin and put it into KV, before anybody asks for it."""
        fetched = await self._origin.entry_of_tenant(tenant, key)
        if fetched is None or not fetched[1]:
            return False
        document = self._control.remembered(tenant) or await self._control.read(tenant)
        return await self._put(fetched[0], document)

    async def _miss(
        self,
        query: Query,
        request: Request | None,
        passage: Passage,
        fallback: tuple[StoredEntry, Any] | None,
    ) -> Any:
        """Answer from the origin, else from the stale entry that may answer then."""
        unstorable = request_storability(request or validate(query.endpoint, query.fields))
        if unstorable is not None:
            return await self.forward(query, unstorable)
        # A request with only-if-cached gets what it accepts or its own 504, whatever fails.
        only_if_cached = query.controls.directives.only_if_cached
        try:
            answer = await self._origin.send(
                "POST", query.endpoint.value, query.headers, query.body, want_entry=True
            )
            if is_failure(answer.status) and (only_if_cached or fallback is not None):
                await answer.discard()
                raise OriginError(
                    "The origin failed.", code="origin_failed", received=answer.status
                )
            return await self._fill(query, answer, passage)
        except OriginError as error:
            if only_if_cached:
                raise not_cached() from error
            if fallback is None or fallback[1] is None:
                error.reason = passage.reason
                raise
            entry, view = fallback
            self._count_entry(query, entry, "stale_if_error")
            member = forward_status(
                EDGE, passage.reason, status=error.received, detail="stale-if-error"
            )
            served = serve(entry.header, _now_ms())
            return _stored(query, entry, view, served, member, timing=passage.timing)

    async def _answer_uncached(self, query: Query) -> Any:
        """Answer without a document: nothing is read from KV; what comes may be stored once the
        document is here.
        """  # noqa: D205 - one sentence
        passage = Passage(reason="bypass", detail="no-control")
        return await self._miss(query, None, passage, None)

    async def _fill(self, query: Query, answer: OriginAnswer, passage: Passage) -> Any:
        """Answer from the origin, and put its entry into KV behind the answer."""
        document = query.document
        if document is not None or not (answer.is_entry and answer.may_store):
            self._follow(query, answer)  # else what is put behind the answer gets the document
        if answer.is_entry:
            entry = entry_of(answer)
            header = entry.header
            if header.tenant != query.tenant:
                raise disagrees(answer, "belongs to another tenant")
            view = entry.segment(query.segment)
            if header.encryption is not None:
                try:
                    view = await entry.opened(query.segment, self._keys)
                except UndecodableError as exc:
                    raise disagrees(answer, "does not open") from exc
            if view is None:
                raise disagrees(answer, "lacks what was asked for")
            # Another key than ours: the origin goes by a later policy or secret than this isolate.
            may_store = answer.may_store and (document is None or header.key == query.key)
            stored = False
            if may_store:
                stored = document is not None and self._may_put(document, entry)
                query.wait_until(self._put_behind(query.tenant, document, entry))
            self._count_passage(query, answer, passage)
            headers = entry_headers(header, None) | passage.headers(answer, stored=stored)
            headers["content-type"] = _content_type(query.segment)
            return runtime.respond_gzip(headers, view, inflate=query.inflate)
        self._count_passage(query, answer, passage)
        is_stream = answer.is_event_stream and answer.status == 200
        if is_stream and document is not None and not _is_collapsed(answer):
            readable, done = runtime.pass_through(answer.body)
            query.wait_until(self._put_after(done, query))
            return runtime.respond_with(answer.status, passage.headers(answer), readable)
        return relay(answer, passage)

    async def _refresh(self, query: Query, stale: StoredEntry) -> None:
        """Have the origin make a new entry behind a stale answer, and take what it has by now.

        The origin makes it detached, and answers soon: from its own stale entry, or that it makes
        one (202). The new entry is found here or by a later request after it is made.
        """
        key = query.key
        # What a client accepts of a cache, such as only-if-cached, is no word on what is made anew.
        headers = {name: value for name, value in query.headers.items() if name != "cache-control"}
        try:
            answer = await self._origin.send(
                "POST",
                query.endpoint.value,
                headers,
                query.body,
                want_entry=True,
                refresh=True,
                timeout_s=BEHIND_TIMEOUT_S,
            )
            entry = entry_of(answer) if answer.is_entry else None
        except OriginError as exc:
            runtime.log(f"refresh: {exc}")
            self._refreshes.failed(key, time.monotonic())
            return
        await answer.discard()
        if entry is not None and recency(entry.header) > recency(stale.header):
            self._refreshes.found_newer(key, time.monotonic())
            await self._put_granted(query, (entry, answer.may_store))
        elif entry is not None or answer.status == _ACCEPTED:
            self._refreshes.found_none(key, time.monotonic())
        else:
            self._refreshes.failed(key, time.monotonic())

    async def _put_after(self, done: Any, query: Query) -> None:
        """Store the entry of a stream, once all of it went to the client."""
        try:
            await done
        except Exception:  # noqa: BLE001 - either side broke off: there is no entry to fetch
            return
        try:
            fetched = await self._origin.finished_entry(query.key, query.headers)
        except OriginError as error:
            runtime.log(f"origin: {error.message}")
            return
        await self._put_granted(query, fetched)

    async def _put_granted(self, query: Query, fetched: tuple[StoredEntry, bool] | None) -> None:
        if fetched is not None and fetched[1] and fetched[0].header.key == query.key:
            await self._put(fetched[0], query.document)

    async def _put_behind(
        self, tenant: str, document: ControlDocument | None, entry: StoredEntry
    ) -> None:
        """Write an entry. Without a document one is fetched now: the grant is for once."""
        document = document or self._control.remembered(tenant)
        await self._put(entry, document or await self._control.pull(tenant, at_once=True))

    async def _put(self, entry: StoredEntry, document: ControlDocument | None) -> bool:
        """Write a granted entry, if it may be."""
        tenant = entry.header.tenant
        if is_oversized(entry.header):
            self._counts.note(tenant, "oversized")
        if document is None or document.tenant != tenant or not self._may_put(document, entry):
            return False
        try:
            await self._store.put(entry)
        except runtime.PlatformError as exc:
            runtime.log(f"kv: {exc}")
            self._counts.note(tenant, "put-error")
            return False
        self._counts.note(tenant, "put")
        return True

    def _may_put(self, document: ControlDocument, entry: StoredEntry) -> bool:
        header = entry.header
        # A purge or another policy may have come while the answer was made.
        document = self._control.last_known(header.tenant) or document
        return (
            document.policy.residency == "edge"
            and not header.origin_only
            and not is_oversized(header)
            and objection(document, header) is None
            and is_lasting(header, _now_ms())
        )

    def _follow(self, ask: Ask, answer: OriginAnswer) -> None:
        """Get the control document that the origin says is newer, behind the answer."""
        if answer.control_revision > self._control.revision(ask.tenant):
            ask.wait_until(self._pull(ask.tenant))

    async def _pull(self, tenant: str) -> None:
        await self._control.pull(tenant)

    def _count_entry(self, query: Query, entry: StoredEntry, outcome: Outcome) -> None:
        header = entry.header
        self._counts.count(
            query.tenant,
            outcome,
            latency_ms=_elapsed_ms(query.began_s),
            model=header.model,
            content_class=query.controls.content_class,
            strategy=strategy_of(query.strategy, header),
            saved=header.tokens,
            body_bytes=header.segments[query.segment],
            short_key=short_key(query.key),
        )

    def _count_passage(self, query: Query, answer: OriginAnswer, passage: Passage) -> None:
        outcome: Outcome = "bypass" if passage.reason == "bypass" else "miss"
        trouble: str | None = passage.detail
        if trouble == "not-encrypted":
            trouble = "purged"
        known = next((name for name in TROUBLES if name == trouble), None)
        self._count_answer(query, answer, outcome, known)

    def _count_answer(
        self, ask: Ask, answer: OriginAnswer, outcome: Outcome, trouble: Trouble | None = None
    ) -> None:
        outcome, trouble = counted_as(answer.status, outcome, trouble)
        model = ask.fields.get("model") if isinstance(ask, Query) else None
        if outcome == "refused" or type(model) is not str:
            model = None  # perhaps there is none of that name
        self._counts.count(
            ask.tenant,
            outcome,
            latency_ms=_elapsed_ms(ask.began_s),
            model=model,
            content_class=ask.controls.content_class,
            trouble=trouble,
        )


def counted_as(
    status: int, outcome: Outcome, trouble: Trouble | None = None
) -> tuple[Outcome, Trouble | None]:
    """What the origin's answer of a status counts as: its error, the client's, or as given."""
    if status >= 500:
        return "error", "origin-error"
    return ("refused" if status >= 400 else outcome), trouble


def relay(answer: OriginAnswer, passage: Passage) -> Any:
    """Pass an origin's answer on as it comes."""
    return runtime.respond_with(answer.status, passage.headers(answer), answer.body)


def _is_proven_by_key(query: Query) -> bool:
    """Whether an entry under the query's key proves that its whole body is valid.

    What is outside the key is not proven, nor what only matters in a stream (legacy completions,
    embeddings).
    """
    if query.segment not in _PLAIN and query.endpoint is not Endpoint.CHAT:
        return False
    return UNPROVEN.isdisjoint(query.fields)


def _is_usable(decision: Decision) -> bool:
    match decision:
        case Serve():
            return True
        case Forward():
            return decision.stale_if_error
        case _:
            assert_never(decision)


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
    timing: str | None,
) -> Any:
    headers = entry_headers(entry.header, served)
    headers["content-type"] = _content_type(query.segment)
    headers["cache-status"] = status_member
    if timing is not None:
        headers["server-timing"] = timing
    return runtime.respond_gzip(headers, view, inflate=query.inflate)


def _content_type(segment: str) -> str:
    return "application/json" if segment in _PLAIN else "text/event-stream; charset=utf-8"


def _log_undecodable(key: str, exc: Exception) -> None:
    runtime.log(f"kv: undecodable entry {short_key(key)}: {exc}")


def _elapsed_ms(began_s: float) -> float:
    return (time.monotonic() - began_s) * 1000


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
