"""What usage comes to: the one document that `GET /cache/stats` and `encore stats` show.

Its shape, `VERSION` 1, is stable: members are added, never changed or removed. docs/operations.md
says what each of them means. Everything in it is approximate (see `origin.usage`).
"""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import accumulate
from typing import Any

from origin.lifetimes import Tiers
from origin.metrics import SEMANTIC_OUTCOMES
from origin.prices import Prices
from origin.stores.usage_contract import EVERY_TENANT, Kept, Name, UsageStore
from origin.usage import REUSE_BOUNDS_S, REUSE_BUCKETS, SIMILARITY_BUCKETS
from shared.counts import (
    BUCKETS,
    CACHED,
    OTHER,
    OUTCOMES,
    SPEEDS,
    STRATEGIES,
    TIERS,
    TROUBLES,
    Histogram,
    Speed,
    Tier,
)
from shared.envelope import TokenCounts
from shared.freshness import Lifetimes

VERSION = 1
TOP_KEYS = 20
MIN_REUSES = 100
"""Fewer observed reuses are no ground for advice."""
COVERED = 0.9
"""The share of the observed reuses that advice is about."""
_LOOKED_UP = CACHED | {"miss", "collapsed"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Terms:
    """What the operator decided that numbers are told by: prices, and how long answers live."""

    prices: Prices
    tiers: Tiers
    lifetimes: Lifetimes


async def read_report(store: UsageStore, tenant: str, terms: Terms) -> dict[str, Any]:
    """The report on a tenant, or on all of them (`EVERY_TENANT`). Raises StoreError."""
    tenants = sorted(await store.tenants()) if tenant == EVERY_TENANT else [tenant]
    kept = dict(zip(tenants, await store.read_many(tenants, top=TOP_KEYS), strict=True))
    # Thousands of numbers take milliseconds.
    return await asyncio.to_thread(report, tenant, kept, terms)


def report(tenant: str, kept: Mapping[str, Kept], terms: Terms) -> dict[str, Any]:
    """The report on what is kept of these tenants; `tenant` is the name for all of it."""
    numbers: Counter[Name] = Counter()
    for each in kept.values():
        numbers.update(each.numbers)
    whole = _Requests.of(numbers)
    starts_ms = [each.since_ms for each in kept.values() if each.since_ms is not None]
    models = {
        model: _model(model, own, terms.prices) for model, own in _grouped(numbers, 0).items()
    }
    answer = {
        "version": VERSION,
        "tenant": tenant,
        "since": _utc(min(starts_ms)) if starts_ms else None,
        "approximate": True,
        **whole.summary(),
        "edge": _tier("edge", numbers),
        "origin": _tier("origin", numbers),
        "models": models,
        "classes": {
            name: _Requests.of(own).by_tier() for name, own in _grouped(numbers, 1).items()
        },
        "strategies": {
            strategy: {
                tier: sum(n for of, n in whole.cells if of[3] == tier and of[5] == strategy)
                for tier in TIERS
            }
            for strategy in STRATEGIES
        },
        "semantic": _semantic(numbers),
        "tokens": _tokens(numbers),
        "usd": _usd(models),
        "top_keys": _top_keys(kept),
        "ttl_advice": list(_advice(numbers, terms)),
    }
    if tenant == EVERY_TENANT:
        answer["tenants"] = {
            name: _Requests.of(each.numbers).summary() for name, each in kept.items()
        }
    return answer


@dataclass(frozen=True, kw_only=True, slots=True)
class _Requests:
    """Numbers of requests, each with its name (…, "requests", tier, outcome, strategy)."""

    cells: list[tuple[Name, int]] = field(default_factory=list)

    @classmethod
    def of(cls, numbers: Mapping[Name, int]) -> _Requests:
        return cls(cells=[(of, n) for of, n in numbers.items() if of[2] == "requests"])

    def outcomes(self, tier: Tier) -> dict[str, int]:
        return {
            outcome: sum(n for of, n in self.cells if of[3] == tier and of[4] == outcome)
            for outcome in OUTCOMES
        }

    def by_tier(self) -> dict[str, Any]:
        """Outcomes at each tier, and how much of what was looked up they answered together."""
        return {**self.summary(), **{tier: self.outcomes(tier) for tier in TIERS}}

    def summary(self) -> dict[str, Any]:
        """What both tiers together had, of what they were asked for.

        What the edge has not, the origin is asked for: it alone says what became of it.
        """
        edge, origin = self.outcomes("edge"), self.outcomes("origin")
        hits = sum(edge[outcome] + origin[outcome] for outcome in CACHED)
        misses = origin["miss"] + origin["collapsed"]
        return {"hits": hits, "misses": misses, "hit_rate": _share(hits, hits + misses)}


def _tier(tier: Tier, numbers: Mapping[Name, int]) -> dict[str, Any]:
    outcomes = _Requests.of(numbers).outcomes(tier)
    hits = sum(outcomes[outcome] for outcome in CACHED)
    troubles = {name: numbers.get((None, None, "trouble", tier, name), 0) for name in TROUBLES}
    return {
        "requests": sum(outcomes.values()),
        "outcomes": outcomes,
        "hit_rate": _share(hits, sum(outcomes[outcome] for outcome in _LOOKED_UP)),
        "bytes": numbers.get((None, None, "bytes", tier), 0),
        "latency_ms": {speed: _latency(tier, speed, numbers) for speed in SPEEDS},
        **({"troubles": troubles} if tier == "edge" else {}),
    }


def _latency(tier: Tier, speed: Speed, numbers: Mapping[Name, int]) -> dict[str, Any]:
    """Percentiles are upper bounds, null beyond the last bound."""
    histogram = Histogram(
        buckets=[numbers.get((None, None, "latency", tier, speed, name), 0) for name in BUCKETS],
        sum_us=numbers.get((None, None, "latency_us", tier, speed), 0),
    )
    count, sum_ms = histogram.count, histogram.sum_us / 1000
    return {
        "count": count,
        "sum": sum_ms,
        "mean": _share(sum_ms, count),
        "p50": histogram.percentile_ms(0.5),
        "p90": histogram.percentile_ms(0.9),
        "p99": histogram.percentile_ms(0.99),
        "buckets": dict(zip(BUCKETS, histogram.buckets, strict=True)),
    }


def _model(model: str, own: Mapping[Name, int], prices: Prices) -> dict[str, Any]:
    tokens = _tokens(own)
    price = None if model == OTHER else prices.of(model)
    usd = None
    if price is not None:
        usd = {what: round(price.of(TokenCounts(**tokens[what])), 6) for what in tokens}
    return {**_Requests.of(own).by_tier(), "tokens": tokens, "usd": usd}


def _tokens(numbers: Mapping[Name, int]) -> dict[str, dict[str, int]]:
    """Tokens that answers from entries, and from others' generations, did not take; and taken."""
    return {
        what: {
            part: sum(n for of, n in numbers.items() if of[2] == what and of[-1] == part)
            for part in ("prompt", "completion")
        }
        for what in ("saved", "spent")
    }


def _semantic(numbers: Mapping[Name, int]) -> dict[str, Any]:
    """What came of its decisions, and how like the likest question was, by an upper bound."""
    return {
        "outcomes": {
            outcome: numbers.get((None, None, "semantic", outcome), 0)
            for outcome in SEMANTIC_OUTCOMES
        },
        "similarity": {
            outcome: {
                bucket: numbers.get((None, None, "similarity", outcome, bucket), 0)
                for bucket in SIMILARITY_BUCKETS
            }
            for outcome in ("hit", "refused")
        },
    }


def _usd(models: Mapping[str, Mapping[str, Any]]) -> dict[str, Any] | None:
    """The sum over the models that have a price, and which have none; None where none has one."""
    priced = [model["usd"] for model in models.values() if model["usd"] is not None]
    if not priced:
        return None
    return {
        **{what: round(sum(usd[what] for usd in priced), 6) for what in ("saved", "spent")},
        "models_without_price": [name for name, model in models.items() if model["usd"] is None],
    }


def _top_keys(kept: Mapping[str, Kept]) -> list[dict[str, Any]]:
    keys = [
        {"tenant": tenant, "key": hot.key, "hits": hot.hits, "last": _utc(hot.last_ms)}
        for tenant, each in kept.items()
        for hot in each.hottest
    ]
    return sorted(keys, key=lambda key: -int(str(key["hits"])))[:TOP_KEYS]


def _advice(numbers: Mapping[Name, int], terms: Terms) -> Iterable[dict[str, Any]]:
    """By model and class, where there are reuses enough."""
    whose = {(of[0], of[1]) for of in numbers if of[2] == "reuse" and of[0] not in {None, OTHER}}
    for model, content_class in sorted(whose, key=str):
        observed = [
            numbers.get((model, content_class, "reuse", bucket), 0) for bucket in REUSE_BUCKETS
        ]
        total = sum(observed)
        if total < MIN_REUSES:
            continue
        below = list(accumulate(observed))
        advised_s = next(
            (b for b, n in zip(REUSE_BOUNDS_S, below, strict=False) if n >= COVERED * total), None
        )
        present_s = terms.tiers.default_ttl_s(terms.lifetimes, model or "", content_class)
        covered = max(
            (n for b, n in zip(REUSE_BOUNDS_S, below, strict=False) if b <= present_s), default=0
        )
        yield {
            "model": model,
            "class": content_class,
            "observations": total,
            "ttl_s": advised_s,
            "present_ttl_s": present_s,
            "present_share": covered / total,
        }


def _grouped(numbers: Mapping[Name, int], place: int) -> dict[str, dict[Name, int]]:
    """The numbers by their model (place 0) or class (1), in order; those of none are left out."""
    groups: defaultdict[str, dict[Name, int]] = defaultdict(dict)
    for name, number in numbers.items():
        of = name[place]
        if of is not None:
            groups[of][name] = number
    return dict(sorted(groups.items()))


def _share(part: float, whole: float) -> float | None:
    return part / whole if whole else None


def _utc(time_ms: int) -> str:
    return datetime.fromtimestamp(time_ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
