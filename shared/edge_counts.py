"""What an isolate of the edge counts between two flushes to the origin, and how that travels.

The counts are approximate: an isolate that the platform ends takes what it has not flushed with it,
and a flush that arrives though its answer does not is counted twice. Nothing may depend on them but
dashboards and warming.

Invariants
1. A flush is bounded whatever comes: by tenants, by keys, and so by bytes (`MAX_FLUSH_BYTES`).
2. Every count is an integer and adding is all there is: flushes merge in any order.
3. `parse` guesses nothing: what `EdgeCounts.take` cannot have written is a ValueError.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_left
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any, Literal, get_args

from shared.errors import ClientError
from shared.json_text import parse_object
from shared.keys import SHORT_KEY_HEX_CHARACTERS, check_tenant

Outcome = Literal["hit", "stale", "miss", "bypass", "stale_if_error", "error"]
"""What answered a request: `stale` within stale-while-revalidate, `error` an error of any kind."""

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

OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)
TROUBLES: tuple[Trouble, ...] = get_args(Trouble)

LATENCY_BOUNDS_MS = (0.5, 1, 2, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10_000)
"""Upper bounds, inclusive, of the histogram's buckets; one bucket more takes the rest."""
BUCKETS = (*(f"{bound:g}" for bound in LATENCY_BOUNDS_MS), "inf")
"""The buckets' names."""

MAX_TENANTS = 1000
MAX_TENANT_KEYS = 256
MAX_KEYS = 10_000
"""Keys of all tenants together: with them a flush stays below `MAX_FLUSH_BYTES`."""
MAX_FLUSH_BYTES = 1 << 20
VERSION = 1

_MAX_INTEGER = 2**53 - 1
_SHORT_KEY = re.compile(rf"[0-9a-f]{{{SHORT_KEY_HEX_CHARACTERS}}}")
_encode = json.JSONEncoder(allow_nan=False, separators=(",", ":"), check_circular=False).encode


@dataclass(kw_only=True, slots=True)
class TenantCounts:
    """One tenant's counts. All are integers, never negative.

    `body_bytes` are those sent from KV, `latency` one count a bucket, `latency_us` the sum of all
    latencies, `hits` by short key, `other_hits` those of keys beyond the bounds.
    """

    outcomes: dict[Outcome, int] = field(default_factory=lambda: dict.fromkeys(OUTCOMES, 0))
    troubles: dict[Trouble, int] = field(default_factory=lambda: dict.fromkeys(TROUBLES, 0))
    body_bytes: int = 0
    latency: list[int] = field(default_factory=lambda: [0] * len(BUCKETS))
    latency_us: int = 0
    hits: dict[str, int] = field(default_factory=dict)
    other_hits: int = 0

    def merge(self, other: TenantCounts) -> None:
        """Add another's counts to these."""
        for outcome, count in other.outcomes.items():
            self.outcomes[outcome] += count
        for trouble, count in other.troubles.items():
            self.troubles[trouble] += count
        self.body_bytes += other.body_bytes
        self.latency = [a + b for a, b in zip(self.latency, other.latency, strict=True)]
        self.latency_us += other.latency_us
        for key, count in other.hits.items():
            self.hits[key] = self.hits.get(key, 0) + count
        self.other_hits += other.other_hits

    def latency_percentile_ms(self, share: float) -> float | None:
        """An upper bound of the latency that `share` of the requests did not exceed.

        It is the bound of that request's bucket. None without requests, and beyond the last bound.
        """
        total = sum(self.latency)
        for bound_ms, below in zip(LATENCY_BOUNDS_MS, accumulate(self.latency), strict=False):
            if total and below >= share * total:
                return bound_ms
        return None


@dataclass(frozen=True, kw_only=True, slots=True)
class Flush:
    """What an isolate had gathered, and the revision of each control document that it holds."""

    tenants: Mapping[str, TenantCounts]
    controls: Mapping[str, int]


class EdgeCounts:
    """What has gathered since the last `take`. `requests` is how many requests that are."""

    __slots__ = ("_keys", "_tenants", "requests")

    def __init__(self) -> None:
        self._start()

    def count(
        self,
        tenant: str,
        outcome: Outcome,
        *,
        latency_ms: float,
        body_bytes: int = 0,
        short_key: str | None = None,
        trouble: Trouble | None = None,
    ) -> None:
        """Count a request. `short_key` is given for a hit; a latency below 0 counts as 0."""
        self.requests += 1
        counts = self._tenants.get(tenant) or self._new(tenant)
        counts.outcomes[outcome] += 1
        counts.body_bytes += body_bytes
        counts.latency[bisect_left(LATENCY_BOUNDS_MS, latency_ms)] += 1
        if latency_ms > 0:
            counts.latency_us += int(latency_ms * 1000)
        if short_key is not None:
            hits = counts.hits
            if short_key in hits:
                hits[short_key] += 1
            elif len(hits) < MAX_TENANT_KEYS and self._keys < MAX_KEYS:
                hits[short_key] = 1
                self._keys += 1
            else:
                counts.other_hits += 1
        if trouble is not None:
            counts.troubles[trouble] += 1

    def note(self, tenant: str, trouble: Trouble) -> None:
        """Count what happened behind an answer, such as a write to KV."""
        counts = self._tenants.get(tenant) or self._new(tenant)
        counts.troubles[trouble] += 1

    def take(self, controls: Mapping[str, int] | None = None) -> bytes | None:
        """What has gathered, as JSON, and start anew. None where that is nothing.

        `controls` are the revisions of the control documents held; those of the first
        `MAX_TENANTS` go along.
        """
        if not self._tenants:
            return None
        fields = {
            "v": VERSION,
            "tenants": {tenant: _fields(counts) for tenant, counts in self._tenants.items()},
            "controls": dict(list((controls or {}).items())[:MAX_TENANTS]),
        }
        self._start()
        return _encode(fields).encode()

    def put_back(self, taken: bytes) -> None:
        """Count what `take` gave once more: it did not arrive. Alone it is no reason to flush."""
        for tenant, counts in parse(taken).tenants.items():
            known = self._tenants.get(tenant) or self._new(tenant)
            for key, count in counts.hits.items():
                if key in known.hits or (
                    len(known.hits) < MAX_TENANT_KEYS and self._keys < MAX_KEYS
                ):
                    self._keys += key not in known.hits
                    known.hits[key] = known.hits.get(key, 0) + count
                else:
                    known.other_hits += count
            counts.hits = {}
            known.merge(counts)

    def _start(self) -> None:
        self.requests = 0
        self._keys = 0
        self._tenants: dict[str, TenantCounts] = {}

    def _new(self, tenant: str) -> TenantCounts:
        """The counts of a tenant not seen yet; of one too many they are thrown away."""
        counts = TenantCounts()
        if len(self._tenants) < MAX_TENANTS:
            self._tenants[tenant] = counts
        return counts


def parse(body: bytes) -> Flush:
    """Read what `EdgeCounts.take` wrote. Raises ValueError."""
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
        "outcomes": {name: count for name, count in counts.outcomes.items() if count},
        "troubles": {name: count for name, count in counts.troubles.items() if count},
        "bytes": counts.body_bytes,
        "latency": counts.latency,
        "latency_us": counts.latency_us,
        "hits": counts.hits,
        "other_hits": counts.other_hits,
    }


_FIELDS = _fields(TenantCounts()).keys()


def _counts(value: Any) -> TenantCounts:
    fields = _object(value)
    _require(fields.keys() == _FIELDS, "fields")
    counts = TenantCounts(
        body_bytes=_integer(fields["bytes"]),
        latency_us=_integer(fields["latency_us"]),
        hits={_short_key(key): _integer(count) for key, count in _object(fields["hits"]).items()},
        other_hits=_integer(fields["other_hits"]),
    )
    _add_named(counts.outcomes, fields["outcomes"])
    _add_named(counts.troubles, fields["troubles"])
    latency = fields["latency"]
    _require(type(latency) is list and len(latency) == len(BUCKETS), "latency")
    counts.latency = [_integer(count) for count in latency]
    _require(len(counts.hits) <= MAX_TENANT_KEYS, "keys")
    return counts


def _add_named(counts: dict[Any, int], value: Any) -> None:
    for name, count in _object(value).items():
        _require(name in counts, "name")
        counts[name] = _integer(count)


def _by_tenant(value: Any) -> Iterator[tuple[str, Any]]:
    fields = _object(value)
    _require(len(fields) <= MAX_TENANTS, "tenants")
    for tenant, member in fields.items():
        yield check_tenant(tenant), member


def _object(value: Any) -> dict[str, Any]:
    if type(value) is not dict:
        raise ValueError("edge counts: not an object")
    return value


def _integer(value: Any) -> int:
    if type(value) is not int or not 0 <= value <= _MAX_INTEGER:
        raise ValueError("edge counts: not a count")
    return value


def _short_key(key: str) -> str:
    _require(_SHORT_KEY.fullmatch(key) is not None, "short key")
    return key


def _require(condition: bool, what: str) -> None:  # noqa: FBT001 - reads as a sentence
    if not condition:
        raise ValueError(f"edge counts: {what}")
