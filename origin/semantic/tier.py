"""The semantic tier: a request answered by the entry of a question that means the same.

The entry is read from L1, so it lives, is its tenant's, and no purge names it. The answer is put
under the request's own key too (`origin.semantic.promotion`), from where the next one is an exact
match, at the edge as well.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from origin.entries import decoded
from origin.metrics import L1_ERRORS
from origin.semantic.promotion import is_kept, promoted
from origin.stores.contract import Store, StoreError
from origin.writes import head_of
from shared.envelope import Envelope, EnvelopeError, Header, encode
from shared.freshness import Serve
from shared.keys import KeyRings, short_key

if TYPE_CHECKING:
    from origin.exact_tier import Found, Hit
    from origin.queries import Query
    from origin.semantic.matcher import Matcher

MAX_PROMOTING = 200
"""Entries being stored at once; a store that hangs holds no more of them in memory."""
log = logging.getLogger(__name__)


class SemanticTier:
    """One per process. `judge` says whether an encoded entry may answer a query."""

    def __init__(
        self,
        matcher: Matcher,
        *,
        store: Store,
        keys: KeyRings,
        judge: Callable[[Query, bytes | None], Awaitable[Found]],
        clock_ms: Callable[[], int],
    ) -> None:
        self._matcher = matcher
        self._store = store
        self._keys = keys
        self._judge = judge
        self._clock_ms = clock_ms
        self._promotions: dict[str, asyncio.Task[None]] = {}
        """By key of what is being stored."""

    async def hit(self, query: Query) -> Hit | None:
        """What answers a request that exact match has nothing for. Raises nothing."""
        matches = await self._matcher.matches(query)
        for match in matches:
            theirs = replace(query, key=match.key, other_key=None)
            try:
                source, decision, trouble = await self._judge(
                    theirs, await self._store.get(match.key)
                )
            except StoreError as exc:
                L1_ERRORS.labels("read").inc()
                log.warning("L1: %s", exc)
                break
            if trouble == "model-changed":
                continue  # or the engine cannot be asked; if it did change, a purge follows
            if source is None or source.envelope.header.source is not None:
                await self._matcher.forget(query.tenant, match.key)
            elif isinstance(decision, Serve) and not decision.revalidate:
                hit = await self._promote(query, source.envelope, match.similarity)
                if hit is not None:
                    self._matcher.count(query.tenant, "hit", match.similarity)
                    return hit
        if matches:
            self._matcher.count(query.tenant, "gone")
        return None

    async def close(self) -> None:
        """Wait for what is being stored."""
        if self._promotions:
            await asyncio.wait(self._promotions.values())

    async def _promote(self, query: Query, source: Envelope, similarity: float) -> Hit | None:
        """The hit that a source's answer is, None where it may not be one."""
        try:
            entry = promoted(
                source, query, similarity=similarity, keys=self._keys, now_ms=self._clock_ms()
            )
            encoded = encode(entry)
        except EnvelopeError as exc:
            log.warning("not promoted %s: %s", short_key(source.header.key), exc)
            return None
        hit, decision, _ = await self._judge(query, encoded)
        if hit is None or not isinstance(decision, Serve):
            return None  # a purge by the request's own key, say
        key = entry.header.key
        has_room = key not in self._promotions and len(self._promotions) < MAX_PROMOTING
        if has_room and is_kept(query):
            task = asyncio.create_task(self._put(query, entry.header, encoded))
            self._promotions[key] = task
            task.add_done_callback(lambda _: self._promotions.pop(key))
        return hit

    async def _put(self, query: Query, header: Header, encoded: bytes) -> None:
        """Store a promoted entry, but never in place of what was made for the very question."""
        try:
            there = await self._store.get(header.key)
            old = None if there is None else decoded(there, header.key)
            if old is not None and old.header.source is None and not query.objection(old.header):
                return
            await self._store.put(
                header.key,
                encoded,
                header.expires_ms,
                only_new=there is None,
                over=None if there is None else head_of(there),
            )
        except (StoreError, EnvelopeError) as exc:
            log.warning("L1: not stored %s: %s", short_key(header.key), exc)
