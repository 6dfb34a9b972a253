"""What this process has done for whom: counted on the way of each request, flushed now and then.

Counting neither waits nor fails. What gathers is flushed every `FLUSH_S`, in one round trip; what
the store did not take goes with the next flush, within bounds. So a number is approximate: a flush
whose answer got lost counts twice, and a process that is killed loses its last seconds.

Reuse: how long after a request the next one for the same key came. Each process remembers the last
request of at most `MAX_SEEN` keys and knows of the edge's hits by its flushes alone, so a reuse
after very long is missed, and of several processes each sees longer intervals than there are.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping

from origin.metrics import REQUEST_SECONDS, USAGE_FLUSHES
from origin.prices import NO_PRICES, Prices
from origin.stores.contract import StoreError
from origin.stores.usage_contract import Usage, UsageStore, usage_unavailable
from origin.tasks import kept_up
from origin.usage_metrics import UsageMetrics
from shared.control_document import Strategy
from shared.counts import (
    BUCKETS,
    NO_TOKENS,
    OTHER,
    OUTCOMES,
    Counts,
    Outcome,
    TenantCounts,
    Tier,
    known_model,
)
from shared.envelope import TokenCounts
from shared.keys import short_key
from shared.requests import Endpoint

FLUSH_S = 5.0
OTHER_ENDPOINT = "other"
"""What is passed through."""
BATCH = 64
"""Requests that are counted at one go, some 0.2 ms."""
MAX_SEEN = 20_000
"""Keys whose last request is remembered."""
MAX_NAMED = 1000
"""(tenant, model, class) that are told apart, beside what `shared.counts` bounds."""
MAX_TENANT_KEYS = 1000
"""Keys of one tenant whose hits are told apart between two flushes."""
REUSE_BOUNDS_S = (
    *(1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 14_400, 28_800, 43_200),
    *(86_400, 172_800, 345_600, 604_800, 1_209_600, 2_592_000),
)
"""Upper bounds, inclusive, of the buckets of intervals; one bucket more takes the rest."""
REUSE_BUCKETS = (*(str(bound) for bound in REUSE_BOUNDS_S), "inf")
SIMILARITY_BOUNDS = tuple(step / 40 for step in range(20, 41))
"""Upper bounds, inclusive, of the buckets of cosines: up to 0.5, then by steps of 0.025 to 1."""
SIMILARITY_BUCKETS = tuple(f"{bound:g}" for bound in SIMILARITY_BOUNDS)
log = logging.getLogger(__name__)

_What = tuple[str | None, str | None, Strategy | None, TokenCounts, int, str | None]
"""(model, content class, strategy, tokens saved, bytes, key)."""
_Answered = tuple[str, str | None, Outcome, float, float, _What]
"""(endpoint, tenant, outcome, latency and time in seconds, the rest)."""


class _Seen:
    """The last request for a key, and where its reuses are counted."""

    __slots__ = ("last_s", "reuses")

    def __init__(self, last_s: float, reuses: list[int]) -> None:
        self.last_s = last_s
        self.reuses = reuses


class Recorder:
    """One per process; owns its store. All methods are called on one event loop.

    `clock_s` is monotonic; `prices` tell monitoring what is saved.
    """

    def __init__(
        self,
        store: UsageStore,
        *,
        prices: Prices = NO_PRICES,
        clock_s: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.store = store
        self._metrics = UsageMetrics(prices)
        self._clock_s = clock_s
        self._answered: list[_Answered] = []
        self._seconds = {
            (endpoint, outcome): REQUEST_SECONDS.labels(endpoint, outcome)
            for endpoint in (*(each.value for each in Endpoint), OTHER_ENDPOINT)
            for outcome in OUTCOMES
        }
        self._counts = Counts(max_tenant_keys=MAX_TENANT_KEYS)
        self._spent: dict[tuple[str, str], list[int]] = {}
        self._semantic: dict[str, Usage] = {}
        # Keys of all tenants, the one asked for least lately first.
        self._seen: OrderedDict[tuple[str, str], _Seen] = OrderedDict()
        self._reuses: dict[tuple[str, str, str | None], list[int]] = {}
        self._pending: dict[str, Usage] = {}
        self._flushing = asyncio.Lock()
        self._closing = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._outage = False

    def count(
        self,
        endpoint: str,
        tenant: str | None,
        outcome: Outcome,
        *,
        latency_s: float,
        model: str | None = None,
        content_class: str | None = None,
        strategy: Strategy | None = None,
        saved: TokenCounts = NO_TOKENS,
        body_bytes: int = 0,
        key: str | None = None,
    ) -> None:
        """Count a request that is answered now, `latency_s` after it came.

        `tenant` is None for one that did not say whose it is. `strategy` is given for what an entry
        answered, `key` for what may be answered by one.
        """
        now_s = self._clock_s()
        what = (model, content_class, strategy, saved, body_bytes, key)
        self._answered.append((endpoint, tenant, outcome, latency_s, now_s, what))
        if len(self._answered) >= BATCH:
            self.settle()

    def settle(self) -> None:
        """Count what was put aside. Done at one go it takes half as long."""
        answered, self._answered = self._answered, []
        for endpoint, tenant, outcome, latency_s, now_s, what in answered:
            self._seconds[endpoint, outcome].observe(latency_s)
            if tenant is None:
                continue
            model, content_class, strategy, saved, body_bytes, key = what
            short = None
            if key is not None:
                short = short_key(key)
                self._note_use(tenant, short, model, content_class, now_s)
            self._counts.count(
                tenant,
                outcome,
                latency_ms=latency_s * 1000,
                model=model,
                content_class=content_class,
                strategy=strategy,
                saved=saved,
                body_bytes=body_bytes,
                short_key=None if strategy is None else short,
            )

    def count_inputs(
        self,
        tenant: str,
        model: str,
        content_class: str | None,
        *,
        keys: Iterable[str],
        hits: Iterable[str],
    ) -> None:
        """Count uses and hits of the keys of a batch's inputs; the request is counted by itself."""
        self.settle()
        now_s = self._clock_s()
        for key in keys:
            self._note_use(tenant, short_key(key), model, content_class, now_s)
        for key in hits:
            self._counts.count_hits(tenant, short_key(key), 1)

    def count_spent(self, tenant: str, model: str, tokens: TokenCounts) -> None:
        """Count the tokens of a generation, whoever it was for."""
        spent = self._spent.get((tenant, model))
        if spent is None:
            name = (tenant, known_model(model) if len(self._spent) < MAX_NAMED else OTHER)
            spent = self._spent.setdefault(name, [0, 0])
        spent[0] += tokens.prompt
        spent[1] += tokens.completion

    def count_semantic(self, tenant: str, outcome: str, similarity: float | None) -> None:
        """Count a decision of semantic match; see `origin.semantic.matcher.Tell`."""
        usage = self._semantic.setdefault(tenant, Usage())
        usage.add((None, None, "semantic", outcome), 1)
        if similarity is not None:
            place = bisect_left(SIMILARITY_BOUNDS, min(similarity, 1.0))
            usage.add((None, None, "similarity", outcome, SIMILARITY_BUCKETS[place]), 1)

    async def take_edge(self, tenants: Mapping[str, TenantCounts]) -> None:
        """Keep what an isolate of the edge has counted. Raises InternalError 503."""
        try:
            await self.store.add(
                {tenant: _edge_usage(counts) for tenant, counts in tenants.items()}
            )
        except StoreError as exc:
            raise usage_unavailable() from exc
        self.settle()
        now_s = self._clock_s()
        for tenant, counts in tenants.items():
            self._metrics.add("edge", counts)
            for key, hits in counts.hits.items():
                seen = self._seen.get((tenant, key))
                if seen is not None:  # else nobody here knows whose model it is
                    interval_s = (now_s - seen.last_s) / max(1, hits)
                    seen.reuses[bisect_left(REUSE_BOUNDS_S, interval_s)] += hits
                    seen.last_s = now_s
                    self._seen.move_to_end((tenant, key))

    def start(self) -> None:
        """Begin to flush, on the running event loop."""
        self._task = asyncio.create_task(kept_up(self._run, "usage"))

    async def flush(self) -> bool:
        """Whether the store has all that was counted before. Raises nothing."""
        async with self._flushing:
            self._gather()
            if not self._pending:
                return True
            try:
                await self.store.add(self._pending)
            except StoreError as exc:
                USAGE_FLUSHES.labels("failed").inc()
                if not self._outage:
                    log.warning("usage: %s; it is sent again", exc)
                self._outage = True
                return False
            USAGE_FLUSHES.labels("stored").inc()
            self._outage = False
            self._pending = {}
            return True

    async def close(self) -> None:
        """Flush once more, and close the store."""
        self._closing.set()
        if self._task is not None:
            await self._task  # not cancelled: what a flush has sent would be sent again
        await self.flush()
        await self.store.close()

    async def _run(self) -> None:
        while not self._closing.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(FLUSH_S):
                    await self._closing.wait()
            await self.flush()

    def _note_use(
        self, tenant: str, key: str, model: str | None, content_class: str | None, now_s: float
    ) -> None:
        name = (tenant, key)
        seen = self._seen.get(name)
        if seen is not None:
            seen.reuses[bisect_left(REUSE_BOUNDS_S, now_s - seen.last_s)] += 1
            seen.last_s = now_s
            self._seen.move_to_end(name)
        elif model is not None:
            whose = (tenant, known_model(model), content_class)
            reuses = self._reuses.get(whose)
            if reuses is None:
                if len(self._reuses) >= MAX_NAMED:
                    whose = (tenant, OTHER, None)
                reuses = self._reuses.setdefault(whose, [0] * len(REUSE_BUCKETS))
            self._seen[name] = _Seen(now_s, reuses)
            if len(self._seen) > MAX_SEEN:
                self._seen.popitem(last=False)

    def _gather(self) -> None:
        """Put what was counted since to what is pending."""
        self.settle()
        for tenant, counts in self._counts.drain().items():
            self._metrics.add("origin", counts)
            self._pend(tenant, usage_of(counts, "origin"))
        for (tenant, model), tokens in self._spent.items():
            usage = Usage()
            for what, number in zip(("prompt", "completion"), tokens, strict=True):
                usage.add((model, None, "spent", what), number)
            self._pend(tenant, usage)
        self._spent = {}
        for tenant, usage in self._semantic.items():
            self._pend(tenant, usage)
        self._semantic = {}
        for (tenant, model, content_class), reuses in self._reuses.items():
            usage = Usage()
            for bucket, number in zip(REUSE_BUCKETS, reuses, strict=True):
                usage.add((model, content_class, "reuse", bucket), number)
            reuses[:] = [0] * len(REUSE_BUCKETS)
            self._pend(tenant, usage)

    def _pend(self, tenant: str, usage: Usage) -> None:
        if usage.numbers or usage.hits:
            self._pending.setdefault(tenant, Usage()).merge(usage)


def _edge_usage(counts: TenantCounts) -> Usage:
    """With the flush itself: over time it says when the edge was heard of."""
    usage = usage_of(counts, "edge")
    usage.add((None, None, "flush", "edge"), 1)
    return usage


def usage_of(counts: TenantCounts, tier: Tier) -> Usage:
    """What a tier's counts add to a tenant's usage."""
    usage = Usage(hits=dict(counts.hits))
    for (outcome, strategy, model, content_class), cell in counts.cells.items():
        requests, prompt, completion = cell
        usage.add((model, content_class, "requests", tier, outcome, strategy), requests)
        usage.add((model, None, "saved", tier, "prompt"), prompt)
        usage.add((model, None, "saved", tier, "completion"), completion)
    for trouble, number in counts.troubles.items():
        usage.add((None, None, "trouble", tier, trouble), number)
    usage.add((None, None, "bytes", tier), counts.body_bytes)
    for speed, histogram in counts.latency.items():
        usage.add((None, None, "latency_us", tier, speed), histogram.sum_us)
        for bucket, number in zip(BUCKETS, histogram.buckets, strict=True):
            usage.add((None, None, "latency", tier, speed, bucket), number)
    return usage
