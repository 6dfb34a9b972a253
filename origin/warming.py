"""Scheduled warming: what the edge asked for lately, and what of it is made anew before it expires.

The edge's cron asks for it. What has few hits, or none in the last hour, is left to expire: whoever
asks for it next makes it again.

Invariants
1. Requests are remembered in this process's memory alone, within bounds of number and bytes.
2. What was purged, or has expired, is forgotten, never made anew: only what the store still has may
   be replaced. Nothing lives for ever by being warmed: it takes hits, which take a valid API key.
3. Nothing of a tenant whose entries stay out of the edge is remembered.
4. A refresh that fails or is late costs nothing but itself, and begins only while no live request
   waits for the engine.
"""

from __future__ import annotations

import asyncio
import heapq
import logging
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from origin.control import Control
from origin.engine.turns import Turns
from origin.failures import describe
from origin.pipeline import Pipeline
from origin.queries import Query
from origin.times import unix_ms
from shared import json_text
from shared.controls import Controls, Directives
from shared.envelope import Header
from shared.errors import ClientError, EncoreError
from shared.keys import KeyRing, short_key
from shared.requests import Endpoint

HORIZON_S = 600
"""How long before the end of its freshness an entry is due: two periods of the edge's cron."""
MIN_HITS = 2
MAX_REMEMBERED = 2000
MAX_REMEMBERED_BYTES = 16 << 20
CONCURRENCY = 2
DEADLINE_S = 20.0

_HOUR_MS = 3_600_000
log = logging.getLogger(__name__)


@dataclass(kw_only=True, slots=True)
class Remembered:
    """A request that the edge made, its body as compact JSON, and the entry that answered it.

    `hits` since it is remembered, halved every hour; `hit_ms` is the last one's time.
    """

    endpoint: Endpoint
    tenant: str
    ring: KeyRing
    controls: Controls
    body: bytes
    header: Header
    hits: float
    hit_ms: int


class Warming:
    """One per process, beside its pipeline. All methods run on one event loop."""

    def __init__(
        self,
        pipeline: Pipeline,
        control: Control,
        *,
        limit: int,
        turns: Turns | None = None,
        clock_ms: Callable[[], int] = unix_ms,
    ) -> None:
        """`limit` is the most entries that one run refreshes; 0 remembers nothing.

        `turns` are the engine's places, which live requests have first.
        """
        self._turns = turns or Turns()
        self._pipeline = pipeline
        self._control = control
        self._limit = limit
        self._clock_ms = clock_ms
        self._halved_ms = clock_ms()
        # By tenant and short key, which is what the edge counts by; least lately asked first.
        self._remembered: OrderedDict[tuple[str, str], Remembered] = OrderedDict()
        self._size_bytes = 0

    def asked(self, query: Query, header: Header) -> None:
        """Note that the edge was answered with the entry of `header`. Again, it is a hit."""
        if not self._limit or query.document.policy.residency == "origin-only":
            return
        now_ms = self._clock_ms()
        name = query.tenant, short_key(header.key)
        known = self._remembered.get(name)
        if known is not None:
            known.header = header
            self._hit(name, known, 1, now_ms)
            return
        body = json_text.dumps(query.fields)
        self._remembered[name] = Remembered(
            endpoint=query.endpoint,
            tenant=query.tenant,
            ring=query.ring,
            # What this client wanted of the old entry is not what a new one is made for.
            controls=replace(query.controls, directives=Directives()),
            body=body,
            header=header,
            hits=0,
            hit_ms=now_ms,
        )
        self._size_bytes += len(body)
        while len(self._remembered) > MAX_REMEMBERED or self._size_bytes > MAX_REMEMBERED_BYTES:
            self._forget(next(iter(self._remembered)))

    def hits(self, tenant: str, by_key: Mapping[str, int]) -> None:
        """Note hits at the edge, by short key. Those of unknown keys mean nothing here."""
        now_ms = self._clock_ms()
        for key, count in by_key.items():
            known = self._remembered.get((tenant, key))
            if known is not None:
                self._hit((tenant, key), known, count, now_ms)

    def due(self, now_ms: int, limit: int) -> list[Remembered]:
        """What is to be made anew, hottest first, at most `limit`.

        Entries with at least `MIN_HITS` that are fresh for no more than `HORIZON_S` or stale
        already. Forgets those that nobody has hit for an hour.
        """
        self._halved_ms = min(self._halved_ms, now_ms)  # a clock may be set back
        hours, rest_ms = divmod(now_ms - self._halved_ms, _HOUR_MS)
        if hours > 0:
            self._halved_ms = now_ms - rest_ms
            for known in self._remembered.values():
                known.hits *= 0.5**hours
        for name, known in list(self._remembered.items()):
            if now_ms - known.hit_ms > _HOUR_MS or now_ms > known.header.expires_ms:
                self._forget(name)
        return heapq.nlargest(
            limit,
            (
                known
                for known in self._remembered.values()
                if known.hits >= MIN_HITS
                and known.header.fresh_until_ms - now_ms <= HORIZON_S * 1000
            ),
            key=lambda known: known.hits,
        )

    async def run(self, limit: int, *, deadline_s: float = DEADLINE_S) -> list[tuple[str, str]]:
        """Refresh what is due. The (tenant, key) of at most `limit` entries new to the edge.

        They are those made anew, and those that the pipeline would have the edge write. What takes
        longer than `deadline_s` goes on behind, for the next run to tell. Raises nothing.
        """
        due = iter(self.due(self._clock_ms(), min(limit, self._limit)))
        made: list[tuple[str, str]] = []

        async def work() -> None:
            for known in due:
                if await self._refresh(known):  # at once: the deadline may end the rest
                    made.append((known.tenant, known.header.key))  # noqa: PERF401

        workers = [asyncio.create_task(work()) for _ in range(CONCURRENCY)]
        try:
            await asyncio.wait(workers, timeout=deadline_s)
        finally:
            for worker in workers:
                worker.cancel()
        for outcome in await asyncio.gather(*workers, return_exceptions=True):
            if isinstance(outcome, Exception):
                log.error("warming: %s", describe(outcome))
        # Asked for what room there is: the pipeline tells of each once.
        return made + self._pipeline.edge_writes.pending(limit - len(made))

    async def _refresh(self, known: Remembered) -> bool:
        """Whether there is a newer entry now. One that may not be replaced is forgotten."""
        header = None
        try:
            document = await self._control.document(known.tenant)
            if document is not None and document.policy.residency != "origin-only":
                # Keyed again: under another policy nobody asks by the key of then.
                query = self._pipeline.query(
                    known.endpoint, document, known.controls, known.body, ring=known.ring
                )
                if query.key == known.header.key:
                    async with self._turns.warm_up():
                        header = await self._pipeline.refresh(query, known.header)
        except EncoreError as error:
            log.warning("warming: %s", describe(error))
            if not isinstance(error, ClientError):
                return False
        if header is None:
            self._forget((known.tenant, short_key(known.header.key)))
            return False
        newer = header != known.header and header.created_ms >= known.header.created_ms
        known.header = header
        return newer

    def _hit(self, name: tuple[str, str], known: Remembered, count: int, now_ms: int) -> None:
        known.hits += count
        known.hit_ms = now_ms
        self._remembered.move_to_end(name)

    def _forget(self, name: tuple[str, str]) -> None:
        known = self._remembered.pop(name, None)
        if known is not None:
            self._size_bytes -= len(known.body)
