"""What an hour of usage comes to: the numbers that the dashboard's charts are drawn from. Pure.

A request is counted once: what the edge has not, the origin is asked for, and says what became of
it. Lists have one value for each slot, the oldest first, null where there is nothing to tell.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from origin.metrics import SEMANTIC_OUTCOMES
from origin.stores.usage_contract import RECENT_SLOTS, SLOT_S, Name, Recent
from origin.usage import SIMILARITY_BUCKETS
from shared.counts import BUCKETS, CACHED, Histogram, Speed, Tier

ANSWERS = ("edge", "exact", "semantic", "joined", "generated", "bypass", "refused", "error")
"""What answered: an entry at the edge, in L1, of a like question; another's generation, or one's
own; the model past the cache; nobody, for it was refused, or failed."""
HITS = frozenset({"edge", "exact", "semantic"})
_OF_ORIGIN = {"collapsed": "joined", "miss": "generated"}
LATENCIES: dict[str, tuple[Tier, Speed]] = {
    "edge": ("edge", "hit"),
    "origin": ("origin", "hit"),
    "generated": ("origin", "miss"),
}
PERCENTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99}


def series(recent: Recent) -> dict[str, Any]:
    """The charts' numbers, slot by slot, and of the whole hour."""
    slot_ms = SLOT_S * 1000
    last_ms = recent.now_ms - recent.now_ms % slot_ms
    starts_ms = [last_ms - back * slot_ms for back in reversed(range(RECENT_SLOTS))]
    slots = [recent.slots.get(start_ms, {}) for start_ms in starts_ms]
    answers = [answers_of(numbers) for numbers in slots]
    whole = _sum(slots)
    return {
        "slot_s": SLOT_S,
        "start_s": starts_ms[0] // 1000,
        "answers": {name: [each[name] for each in answers] for name in ANSWERS},
        "latency": {
            name: {p: [_percentile(numbers, name, p) for numbers in slots] for p in ("p50", "p99")}
            for name in LATENCIES
        },
        "hour": {
            "answers": answers_of(whole),
            "hit_rate": hit_rate(answers_of(whole)),
            "latency": {
                name: {p: _percentile(whole, name, p) for p in PERCENTILES} for name in LATENCIES
            },
            "tokens": {
                what: sum(n for of, n in whole.items() if of[2] == what)
                for what in ("saved", "spent")
            },
            "semantic": {
                outcome: whole.get((None, None, "semantic", outcome), 0)
                for outcome in SEMANTIC_OUTCOMES
            },
            "similarity": {
                outcome: [
                    whole.get((None, None, "similarity", outcome, bucket), 0)
                    for bucket in SIMILARITY_BUCKETS
                ]
                for outcome in ("hit", "refused")
            },
        },
        "similarity_bounds": [float(bucket) for bucket in SIMILARITY_BUCKETS],
        "edge_heard_s": _edge_heard_s(recent),
    }


def answers_of(numbers: Mapping[Name, int]) -> dict[str, int]:
    """How many requests each of `ANSWERS` had."""
    answers = dict.fromkeys(ANSWERS, 0)
    for of, number in numbers.items():
        if of[2] != "requests":
            continue
        _, _, _, tier, outcome, strategy = of
        if tier == "edge":
            if outcome in CACHED:
                answers["edge"] += number
        elif outcome in CACHED:
            answers["semantic" if strategy == "semantic" else "exact"] += number
        else:
            answers[_OF_ORIGIN.get(str(outcome), str(outcome))] += number
    return answers


def hit_rate(answers: Mapping[str, int]) -> float | None:
    """Hits of what was looked up, None where nothing was."""
    hits = sum(answers[name] for name in HITS)
    asked = hits + answers["joined"] + answers["generated"]
    return hits / asked if asked else None


def _percentile(numbers: Mapping[Name, int], name: str, percentile: str) -> float | None:
    """In milliseconds, an upper bound; see `Histogram.percentile_ms`."""
    tier, speed = LATENCIES[name]
    buckets = [numbers.get((None, None, "latency", tier, speed, bucket), 0) for bucket in BUCKETS]
    return Histogram(buckets=buckets).percentile_ms(PERCENTILES[percentile])


def _edge_heard_s(recent: Recent) -> int | None:
    """The end of the last slot in which the edge sent its counters (Unix time), None for none."""
    heard_ms = [
        at for at, numbers in recent.slots.items() if (None, None, "flush", "edge") in numbers
    ]
    return min(max(heard_ms) + SLOT_S * 1000, recent.now_ms) // 1000 if heard_ms else None


def _sum(slots: Iterable[Mapping[Name, int]]) -> dict[Name, int]:
    whole: dict[Name, int] = {}
    for numbers in slots:
        for name, number in numbers.items():
            whole[name] = whole.get(name, 0) + number
    return whole
