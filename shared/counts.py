"""What a process counts of requests between two flushes, and how the edge's part travels.

An isolate of the edge and an origin process count alike. The counts are approximate: what ends
takes what it has not flushed with it, and a flush that arrives though its answer does not is
counted twice. Nothing may depend on them but dashboards and warming.

Invariants
1. What gathers is bounded whatever comes: by tenants, cells and keys, and so is a flush of the edge
   in bytes (`MAX_FLUSH_BYTES`). What is beyond the bounds is counted under `OTHER`.
2. Every count is an integer and adding is all there is: flushes merge in any order.
3. `parse` guesses nothing: what `Counts.take` cannot have written is a ValueError.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any, Literal, cast, get_args

from shared.control_document import Strategy
from shared.controls import CONTENT_CLASS
from shared.envelope import TokenCounts
from shared.errors import ClientError
from shared.json_text import MAX_INTEGER, dumps, parse_object
from shared.keys import SHORT_KEY_HEX_CHARACTERS, check_tenant

Outcome = Literal[
    "hit", "stale", "stale_if_error", "miss", "collapsed", "bypass", "refused", "error"
]
"""What answered a request: `stale` within stale-while-revalidate, `collapsed` a generation that
another request had begun, `refused` an error of the client's (4xx), `error` one of ours (5xx)."""

Tier = Literal["edge", "origin"]

Trouble = Literal[
    "kv-error",
    "kv-undecodable",
    "purged",
    "oversized",
    "put",
    "put-error",
    "origin-error",
    "rate-limited",
    "no-control",
]
"""What happened besides; `put` is a write to KV, `oversized` an entry too large for one."""

Speed = Literal["hit", "miss"]
"""Whose latency: answers from an entry, or all others. Errors are not timed."""

OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)
STRATEGIES: tuple[Strategy, ...] = get_args(Strategy)
TROUBLES: tuple[Trouble, ...] = get_args(Trouble)
TIERS: tuple[Tier, ...] = get_args(Tier)
SPEEDS: tuple[Speed, ...] = get_args(Speed)
CACHED: frozenset[Outcome] = frozenset({"hit", "stale", "stale_if_error"})
"""What was answered from an entry."""
QUICK: frozenset[Outcome] = frozenset({"hit", "stale"})
"""What was answered from an entry without asking anybody else."""
UNTIMED: frozenset[Outcome] = frozenset({"refused", "error"})

LATENCY_BOUNDS_MS = (
    *(0.25, 0.5, 1, 2, 5, 10, 25, 50, 100, 250, 500),
    *(1000, 2500, 5000, 10_000, 30_000, 60_000),
)
"""Upper bounds, inclusive, of the histogram's buckets; one bucket more takes the rest."""
BUCKETS = (*(f"{bound:g}" for bound in LATENCY_BOUNDS_MS), "inf")
"""The buckets' names."""

OTHER = "(other)"
"""In the place of a model or class: one of too many, or whose name is too long."""
MAX_TENANTS = 500
MAX_TENANT_CELLS = 256
MAX_CELLS = 2000
"""Cells of all tenants together; beyond that models and classes are folded into `OTHER`, beyond
twice as many requests are told apart by outcome alone."""
MAX_TENANT_KEYS = 256
MAX_KEYS = 10_000
"""Keys of all tenants together: with them a flush stays below `MAX_FLUSH_BYTES`."""
MAX_FLUSH_BYTES = 2 << 20
VERSION = 2

_SHORT_KEY = re.compile(rf"[0-9a-f]{{{SHORT_KEY_HEX_CHARACTERS}}}")
_MODEL = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]{1,96}")
"""Visible ASCII that JSON does not escape."""
_FOLDED_CELLS = len(OUTCOMES) * (len(STRATEGIES) + 1)
NO_TOKENS = TokenCounts()

Cell = tuple[Outcome, Strategy | None, str | None, str | None]
"""(outcome, which key strategy earned a hit, model, content class)."""


@dataclass(kw_only=True, slots=True)
class Histogram:
    """Latencies: one count a bucket, and their sum in microseconds."""

    buckets: list[int] = field(default_factory=lambda: [0] * len(BUCKETS))
    sum_us: int = 0

    @property
    def count(self) -> int:
        """How many there are."""
        return sum(self.buckets)

    def merge(self, other: Histogram) -> None:
        """Add another's to these."""
        self.buckets = [a + b for a, b in zip(self.buckets, other.buckets, strict=True)]
        self.sum_us += other.sum_us

    def percentile_ms(self, share: float) -> float | None:
        """An upper bound of the latency that `share` of the requests did not exceed.

        It is the bound of that request's bucket. None without requests, and beyond the last bound.
        """
        total = self.count
        for bound_ms, below in zip(LATENCY_BOUNDS_MS, accumulate(self.buckets), strict=False):
            if total and below >= share * total:
                return bound_ms
        return None


@dataclass(kw_only=True, slots=True)
class TenantCounts:
    """One tenant's counts. All are integers, never negative.

    `cells` hold (requests, prompt tokens saved, completion tokens saved), `body_bytes` are those
    sent from entries, `hits` are by short key, `other_hits` those of keys beyond the bounds.
    """

    cells: dict[Cell, list[int]] = field(default_factory=dict)
    troubles: dict[Trouble, int] = field(default_factory=lambda: dict.fromkeys(TROUBLES, 0))
    body_bytes: int = 0
    latency: dict[Speed, Histogram] = field(
        default_factory=lambda: {speed: Histogram() for speed in SPEEDS}
    )
    hits: dict[str, int] = field(default_factory=dict)
    other_hits: int = 0

    @property
    def outcomes(self) -> dict[Outcome, int]:
        """Requests by outcome."""
        outcomes = dict.fromkeys(OUTCOMES, 0)
        for (outcome, *_), (requests, *_) in self.cells.items():
            outcomes[outcome] += requests
        return outcomes

    def merge(self, other: TenantCounts) -> None:
        """Add another's counts to these."""
        for name, counted in other.cells.items():
            cell = self.cells.setdefault(name, [0, 0, 0])
            cell[:] = [a + b for a, b in zip(cell, counted, strict=True)]
        for trouble, count in other.troubles.items():
            self.troubles[trouble] += count
        self.body_bytes += other.body_bytes
        for speed, histogram in other.latency.items():
            self.latency[speed].merge(histogram)
        for key, count in other.hits.items():
            self.hits[key] = self.hits.get(key, 0) + count
        self.other_hits += other.other_hits


@dataclass(frozen=True, kw_only=True, slots=True)
class Flush:
    """What an isolate had gathered, and the revision of each control document that it holds."""

    tenants: Mapping[str, TenantCounts]
    controls: Mapping[str, int]


class Counts:
    """What has gathered since the last `take`. `requests` is how many requests that are.

    `max_tenant_keys` is the most keys of one tenant whose hits are told apart.
    """

    __slots__ = ("_cells", "_keys", "_max_tenant_keys", "_tenants", "requests")

    def __init__(self, *, max_tenant_keys: int = MAX_TENANT_KEYS) -> None:
        self._max_tenant_keys = max_tenant_keys
        self._start()

    def count(
        self,
        tenant: str,
        outcome: Outcome,
        *,
        latency_ms: float,
        model: str | None = None,
        content_class: str | None = None,
        strategy: Strategy | None = None,
        saved: TokenCounts = NO_TOKENS,
        body_bytes: int = 0,
        short_key: str | None = None,
        trouble: Trouble | None = None,
    ) -> None:
        """Count a request. `short_key` and `strategy` are given for what an entry answered.

        A latency below 0 counts as 0. `saved` are the tokens of a generation that this request did
        not take.
        """
        self.requests += 1
        counts = self._tenants.get(tenant) or self._new(tenant)
        name = (outcome, strategy, model, content_class)
        cell = counts.cells.get(name) or self._new_cell(counts, name)
        cell[0] += 1
        cell[1] += saved.prompt
        cell[2] += saved.completion
        counts.body_bytes += body_bytes
        if outcome not in UNTIMED:
            # Without functions of their own: each call less is worth it on a hit's way.
            histogram = counts.latency["hit" if outcome in QUICK else "miss"]
            histogram.buckets[bisect_left(LATENCY_BOUNDS_MS, latency_ms)] += 1
            if latency_ms > 0:
                histogram.sum_us += int(latency_ms * 1000)
        if short_key is not None:
            if short_key in counts.hits:
                counts.hits[short_key] += 1
            else:
                self.count_hits(tenant, short_key, 1)
        if trouble is not None:
            counts.troubles[trouble] += 1

    def count_hits(self, tenant: str, short_key: str, count: int) -> None:
        """Count hits of a key, of requests that are counted otherwise."""
        counts = self._tenants.get(tenant) or self._new(tenant)
        hits = counts.hits
        if short_key in hits:
            hits[short_key] += count
        elif len(hits) < self._max_tenant_keys and self._keys < MAX_KEYS:
            hits[short_key] = count
            self._keys += 1
        else:
            counts.other_hits += count

    def note(self, tenant: str, trouble: Trouble) -> None:
        """Count what happened behind an answer, such as a write to KV."""
        counts = self._tenants.get(tenant) or self._new(tenant)
        counts.troubles[trouble] += 1

    def drain(self) -> dict[str, TenantCounts]:
        """What has gathered, by tenant; start anew."""
        tenants = self._tenants
        self._start()
        return tenants

    def take(self, controls: Mapping[str, int] | None = None) -> bytes | None:
        """What has gathered, as JSON, and start anew. None where that is nothing.

        `controls` are the revisions of the control documents held; those of the first
        `MAX_TENANTS` go along.
        """
        if not self._tenants:
            return None
        fields = {
            "v": VERSION,
            "tenants": {tenant: _fields(counts) for tenant, counts in self.drain().items()},
            "controls": dict(list((controls or {}).items())[:MAX_TENANTS]),
        }
        return dumps(fields)

    def put_back(self, taken: bytes) -> None:
        """Count what `take` gave once more: it did not arrive. Alone it is no reason to flush."""
        for tenant, counts in parse(taken).tenants.items():
            known = self._tenants.get(tenant) or self._new(tenant)
            for name, counted in counts.cells.items():
                cell = known.cells.get(name) or self._new_cell(known, name)
                cell[:] = [a + b for a, b in zip(cell, counted, strict=True)]
            for key, count in counts.hits.items():
                self.count_hits(tenant, key, count)
            counts.cells, counts.hits = {}, {}
            known.merge(counts)

    def _start(self) -> None:
        self.requests = 0
        self._keys = 0
        self._cells = 0
        self._tenants: dict[str, TenantCounts] = {}

    def _new(self, tenant: str) -> TenantCounts:
        """The counts of a tenant not seen yet; of one too many they are thrown away."""
        counts = TenantCounts()
        if len(self._tenants) < MAX_TENANTS:
            self._tenants[tenant] = counts
        return counts

    def _new_cell(self, counts: TenantCounts, name: Cell) -> list[int]:
        """The cell of a name not seen yet, or the one that it is folded into."""
        outcome, strategy, model, content_class = name
        model = model and known_model(model)
        if len(counts.cells) >= MAX_TENANT_CELLS or self._cells >= MAX_CELLS:
            model = model and OTHER
            content_class = content_class and OTHER
        name = (outcome, strategy, model, content_class)
        if self._cells >= 2 * MAX_CELLS:
            name = (outcome, None, None, None)
        cell = counts.cells.get(name)
        if cell is None:
            cell = counts.cells[name] = [0, 0, 0]
            self._cells += 1
        return cell


def known_model(model: str) -> str:
    """What a model's answers are counted under: its name, where that is short and plain."""
    return model if _MODEL.fullmatch(model) else OTHER


def parse(body: bytes) -> Flush:
    """Read what `Counts.take` wrote. Raises ValueError."""
    _require(len(body) <= MAX_FLUSH_BYTES, "size")
    try:
        fields = parse_object(body)
    except ClientError as error:
        raise ValueError(error.message) from None
    _require(fields.keys() == {"v", "tenants", "controls"}, "fields")
    _require(type(fields["v"]) is int and fields["v"] == VERSION, "version")
    tenants = {tenant: _counts(value) for tenant, value in _by_tenant(fields["tenants"])}
    controls = {tenant: _integer(value) for tenant, value in _by_tenant(fields["controls"])}
    _require(sum(len(counts.hits) for counts in tenants.values()) <= MAX_KEYS, "keys")
    return Flush(tenants=tenants, controls=controls)


def _fields(counts: TenantCounts) -> dict[str, Any]:
    return {
        "cells": [[*name, *cell] for name, cell in counts.cells.items()],
        "troubles": {name: count for name, count in counts.troubles.items() if count},
        "bytes": counts.body_bytes,
        "latency": {
            speed: [*histogram.buckets, histogram.sum_us]
            for speed, histogram in counts.latency.items()
        },
        "hits": counts.hits,
        "other_hits": counts.other_hits,
    }


_FIELDS = _fields(TenantCounts()).keys()


def _counts(value: Any) -> TenantCounts:
    fields = _object(value)
    _require(fields.keys() == _FIELDS, "fields")
    counts = TenantCounts(
        cells=dict(map(_cell, _array(fields["cells"]))),
        body_bytes=_integer(fields["bytes"]),
        hits={_short_key(key): _integer(count) for key, count in _object(fields["hits"]).items()},
        other_hits=_integer(fields["other_hits"]),
    )
    _require(len(counts.cells) == len(fields["cells"]), "repeated cell")
    # Folded cells come on top of the bound.
    _require(len(counts.cells) <= MAX_TENANT_CELLS + 4 * _FOLDED_CELLS, "cells")
    for name, count in _object(fields["troubles"]).items():
        _require(name in counts.troubles, "name")
        counts.troubles[cast("Trouble", name)] = _integer(count)
    latency = _object(fields["latency"])
    _require(latency.keys() == counts.latency.keys(), "latency")
    for speed, histogram in counts.latency.items():
        *histogram.buckets, histogram.sum_us = map(_integer, _array(latency[speed]) or [None])
        _require(len(histogram.buckets) == len(BUCKETS), "latency")
    _require(len(counts.hits) <= MAX_TENANT_KEYS, "keys")
    return counts


def _cell(value: Any) -> tuple[Cell, list[int]]:
    row = _array(value)
    _require(len(row) == 7, "cell")
    outcome, strategy, model, content_class, *counted = row
    _require(outcome in OUTCOMES and (strategy is None or strategy in STRATEGIES), "name")
    _require(model is None or (type(model) is str and bool(_MODEL.fullmatch(model))), "model")
    _require(
        content_class is None
        or (type(content_class) is str and bool(CONTENT_CLASS.fullmatch(content_class)))
        or content_class == OTHER,
        "class",
    )
    return (outcome, strategy, model, content_class), [_integer(count) for count in counted]


def _by_tenant(value: Any) -> Iterator[tuple[str, Any]]:
    fields = _object(value)
    _require(len(fields) <= MAX_TENANTS, "tenants")
    for tenant, member in fields.items():
        yield check_tenant(tenant), member


def _object(value: Any) -> dict[str, Any]:
    if type(value) is not dict:
        raise ValueError("counts: not an object")
    return value


def _array(value: Any) -> list[Any]:
    if type(value) is not list:
        raise ValueError("counts: not an array")
    return value


def _integer(value: Any) -> int:
    if type(value) is not int or not 0 <= value <= MAX_INTEGER:
        raise ValueError("counts: not a count")
    return value


def _short_key(key: str) -> str:
    _require(_SHORT_KEY.fullmatch(key) is not None, "short key")
    return key


def _require(condition: bool, what: str) -> None:  # noqa: FBT001 - reads as a sentence
    if not condition:
        raise ValueError(f"counts: {what}")
