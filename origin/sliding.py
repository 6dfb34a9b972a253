"""Sliding lifetimes: what is asked for stays fresh, up to the operator's maximum.

    created ────── fresh ──────> fresh-until
                      ├ last half ┤
                      hit ──────── fresh ──────> fresh-until (never past created + max_ttl)

A hit in the last half moves the end to a whole freshness from now, behind the answer: so an entry
is written at most once in half its freshness, however often it is read. `created` stays, so `Age`
is honest, and so does the start of its generation, by which purges are told.

Invariants
1. Only that very entry is moved: not one that was replaced, nor one that is gone (`Store.put`).
2. An entry moves only where its tier slides and it was given no less than the tier's freshness: a
   client that asked for less (`Encore-TTL`) gets what it asked for.
3. An entry that is purged with its source ends with it, and so never moves.

Only the origin's hits count. What the edge has in KV keeps its own end; when that is over, it asks
here, and is granted the entry with the later one.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import replace

from origin.encryption import seal, unsealed
from origin.lifetimes import Tiers
from origin.metrics import STORE_WRITES
from origin.queries import Query
from origin.stores.contract import Store, StoreError
from origin.waits import Waits
from origin.writes import head_of
from shared.envelope import Envelope, EnvelopeError, Header, encode
from shared.freshness import Dated, Lifetimes
from shared.keys import KeyRings, short_key

CONCURRENCY = 4
log = logging.getLogger(__name__)


def later_by_ms(
    header: Dated, now_ms: int, *, ttl_s: int, wish_s: int | None, max_ttl_s: int
) -> int:
    """By how much a hit at `now_ms` moves the end of an entry; 0 or less where it does not.

    `ttl_s` is the freshness that its tier gives anew, `wish_s` the request's `Encore-TTL`.
    """
    ttl_ms, left_ms = ttl_s * 1000, header.fresh_until_ms - now_ms
    if not 0 <= left_ms < ttl_ms / 2 or header.fresh_until_ms - header.created_ms < ttl_ms:
        return 0
    if wish_s is not None and wish_s < ttl_s:
        return 0
    longest_ms = header.created_ms + max_ttl_s * 1000
    return min(now_ms + ttl_ms, longest_ms) - header.fresh_until_ms


class Sliding:
    """One per process. All methods run on one event loop. By `clock_ms` entries age."""

    def __init__(
        self,
        store: Store,
        *,
        keys: KeyRings,
        tiers: Tiers,
        lifetimes: Lifetimes,
        clock_ms: Callable[[], int],
    ) -> None:
        self._store = store
        self._keys = keys
        self._tiers = tiers
        self._lifetimes = lifetimes
        self._clock_ms = clock_ms
        self._waits = Waits(clock_ms)
        """A store that takes no writes is not asked at every hit."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._room = asyncio.Semaphore(CONCURRENCY)

    def hit(self, query: Query, envelope: Envelope, encoded: bytes) -> None:
        """Note that an entry, stored as `encoded`, answered; move its end behind the answer."""
        header, now_ms = envelope.header, self._clock_ms()
        ttl_s = self._tiers.sliding_s(
            self._lifetimes,
            header.model,
            query.controls.content_class,
            lax_classes=query.document.policy.lax_classes,
        )
        if ttl_s is None or header.source is not None:
            return
        moved_ms = later_by_ms(
            header,
            now_ms,
            ttl_s=ttl_s,
            wish_s=query.controls.ttl_s,
            max_ttl_s=self._lifetimes.max_ttl_s,
        )
        if moved_ms <= 0 or not self._waits.is_over(header.key):
            return
        self._waits.begin(header.key, ttl_s * 1000 // 2)
        task = asyncio.create_task(self._move(envelope, encoded, moved_ms))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Wait for what is being written."""
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def _move(self, envelope: Envelope, encoded: bytes, moved_ms: int) -> None:
        key = envelope.header.key
        try:
            async with self._room:  # a batch has hundreds
                header, moved = await asyncio.to_thread(self._moved, envelope, moved_ms)
                await self._store.put(key, moved, header.expires_ms, over=head_of(encoded))
        except (StoreError, EnvelopeError) as exc:
            STORE_WRITES.labels("failed").inc()
            log.warning("L1: not extended %s: %s", short_key(key), exc)
        else:
            STORE_WRITES.labels("extended").inc()

    def _moved(self, envelope: Envelope, moved_ms: int) -> tuple[Header, bytes]:
        """(header, envelope) of the entry with a later end, sealed as it was.

        Blocking: sealing megabytes takes milliseconds. Raises EnvelopeError.
        """
        ring = self._keys.by_id(envelope.header.encryption or "")
        plain = unsealed(self._keys, envelope)
        later = replace(
            plain.header,
            fresh_until_ms=plain.header.fresh_until_ms + moved_ms,
            stale_until_ms=plain.header.stale_until_ms + moved_ms,
            error_until_ms=plain.header.error_until_ms + moved_ms,
        )
        moved = Envelope(header=later, payload=plain.payload)
        moved = moved if ring is None else seal(moved, ring)
        return moved.header, encode(moved)
