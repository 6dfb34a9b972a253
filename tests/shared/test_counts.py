"""What is counted of requests: adding, the bounds of a flush, its wire format, percentiles."""

from __future__ import annotations

import json
import math
from collections import Counter
from dataclasses import dataclass
from itertools import product
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.control_document import Strategy
from shared.counts import (
    BUCKETS,
    LATENCY_BOUNDS_MS,
    MAX_CELLS,
    MAX_FLUSH_BYTES,
    MAX_KEYS,
    MAX_TENANT_CELLS,
    MAX_TENANT_KEYS,
    MAX_TENANTS,
    OTHER,
    OUTCOMES,
    STRATEGIES,
    TROUBLES,
    Counts,
    Flush,
    Histogram,
    Outcome,
    Speed,
    TenantCounts,
    Trouble,
    parse,
)
from shared.envelope import TokenCounts


@dataclass(frozen=True, kw_only=True)
class Event:
    """What the edge may have to count."""

    tenant: str
    outcome: Outcome | None
    latency_ms: float
    body_bytes: int
    short_key: str | None
    trouble: Trouble | None
    strategy: Strategy | None
    model: str | None
    content_class: str | None
    saved: TokenCounts


MISSES = {"stale_if_error", "miss", "collapsed", "bypass"}

EVENTS = st.builds(
    Event,
    tenant=st.sampled_from(["acme", "other", "a"]),
    outcome=st.sampled_from([None, *OUTCOMES]),
    latency_ms=st.floats(-1, 100_000) | st.sampled_from(LATENCY_BOUNDS_MS),
    body_bytes=st.integers(0, 1 << 25),
    short_key=st.none() | st.sampled_from([f"{number:016x}" for number in range(20)]),
    trouble=st.none() | st.sampled_from(TROUBLES),
    strategy=st.none() | st.sampled_from(STRATEGIES),
    model=st.none() | st.sampled_from(["gpt-4o", "m/2:ft"]),
    content_class=st.none() | st.sampled_from(["listing", "contract"]),
    saved=st.builds(TokenCounts, prompt=st.integers(0, 99), completion=st.integers(0, 99)),
)


def add(counts: Counts, events: list[Event]) -> None:
    """Count all of them."""
    for event in events:
        if event.outcome is not None:
            counts.count(
                event.tenant,
                event.outcome,
                latency_ms=event.latency_ms,
                body_bytes=event.body_bytes,
                short_key=event.short_key,
                trouble=event.trouble,
                strategy=event.strategy,
                model=event.model,
                content_class=event.content_class,
                saved=event.saved,
            )
        elif event.trouble is not None:
            counts.note(event.tenant, event.trouble)


def taken(counts: Counts) -> Flush:
    """What the origin reads of it."""
    body = counts.take()
    return Flush(tenants={}, controls={}) if body is None else parse(body)


def counted(events: list[Event]) -> Flush:
    """What the origin reads after one isolate has counted all of them."""
    counts = Counts()
    add(counts, events)
    return taken(counts)


@given(st.lists(EVENTS, max_size=60), st.lists(st.booleans(), min_size=60, max_size=60))
def test_the_parts_of_a_split_merge_into_the_whole(events: list[Event], first: list[bool]) -> None:
    """It does not matter which isolate has counted what, nor in which order flushes arrive."""
    merged: dict[str, TenantCounts] = {}
    for chosen in (False, True):
        part = [event for event, at in zip(events, first, strict=False) if at is chosen]
        for tenant, counts in counted(part).tenants.items():
            merged.setdefault(tenant, TenantCounts()).merge(counts)
    assert merged == counted(events).tenants


@given(st.lists(EVENTS, max_size=60))
def test_a_flush_says_what_was_counted(events: list[Event]) -> None:
    """Every number, recounted naively from the events."""
    tenants = counted(events).tenants
    requests = [event for event in events if event.outcome is not None]
    for tenant, counts in tenants.items():
        own = [event for event in requests if event.tenant == tenant]
        for outcome in OUTCOMES:
            assert counts.outcomes[outcome] == sum(event.outcome == outcome for event in own)
        for trouble in TROUBLES:
            assert counts.troubles[trouble] == sum(
                event.trouble == trouble for event in events if event.tenant == tenant
            )
        assert counts.body_bytes == sum(event.body_bytes for event in own)
        timed = {
            "hit": [e.latency_ms for e in own if e.outcome in {"hit", "stale"}],
            "miss": [e.latency_ms for e in own if e.outcome in MISSES],
        }
        for speed, latencies_ms in timed.items():
            histogram = counts.latency[cast("Speed", speed)]
            assert histogram.count == len(latencies_ms)
            assert histogram.sum_us == sum(int(max(ms, 0) * 1000) for ms in latencies_ms)
        keys = [event.short_key for event in own if event.short_key is not None]
        assert counts.hits == {key: keys.count(key) for key in keys}
        names = [(e.outcome, e.strategy, e.model, e.content_class) for e in own]
        assert {name: cell[0] for name, cell in counts.cells.items()} == Counter(names)
        for part, place in (("prompt", 1), ("completion", 2)):
            saved = sum(cell[place] for cell in counts.cells.values())
            assert saved == sum(getattr(event.saved, part) for event in own)
    assert {event.tenant for event in requests} <= tenants.keys()


@given(
    st.lists(st.floats(0, 100_000) | st.sampled_from(LATENCY_BOUNDS_MS), min_size=1),
    st.sampled_from([0.5, 0.9, 0.99, 1.0]),
)
def test_a_percentile_is_the_next_bound_above_the_truth(
    latencies_ms: list[float], share: float
) -> None:
    """The true percentile (nearest rank) lies in the bucket whose upper bound is told."""
    counts = Counts()
    for latency_ms in latencies_ms:
        counts.count("acme", "hit", latency_ms=latency_ms)
    body = counts.take()
    assert body is not None
    told = parse(body).tenants["acme"].latency["hit"].percentile_ms(share)
    true = sorted(latencies_ms)[math.ceil(share * len(latencies_ms)) - 1]
    assert told == next((bound for bound in LATENCY_BOUNDS_MS if true <= bound), None)


def test_nothing_has_no_percentile() -> None:
    """Without requests there is no latency."""
    assert Histogram().percentile_ms(0.5) is None


def test_nothing_gathered_is_nothing_to_flush() -> None:
    """Before the first count and right after a flush."""
    counts = Counts()
    assert counts.take({"acme": 1}) is None
    counts.count("acme", "hit", latency_ms=1)
    assert counts.requests == 1
    assert counts.take() is not None
    assert counts.requests == 0
    assert counts.take() is None


@given(st.lists(EVENTS, max_size=60), st.integers(0, 60))
def test_what_did_not_arrive_goes_with_the_next_flush(events: list[Event], at: int) -> None:
    """Nothing is lost, nothing counted twice, and a flush is no more due than before."""
    counts = Counts()
    add(counts, events[:at])
    lost = counts.take()
    add(counts, events[at:])
    requests = counts.requests
    if lost is not None:
        counts.put_back(lost)
    assert counts.requests == requests
    assert taken(counts) == counted(events)


def test_what_did_not_arrive_stays_within_the_bounds() -> None:
    """However often: of keys, of tenants, and so of bytes."""
    counts = Counts()
    lost = b""
    for flush in range(3):
        if lost:
            counts.put_back(lost)
        for number in range(MAX_TENANTS):
            name, key = f"t{flush}-{number}", f"{flush:08x}{number:08x}"
            counts.count("acme", "hit", latency_ms=1, short_key=key)
            counts.count(name, "hit", latency_ms=1, short_key=key)
        lost = counts.take() or b""
    tenants = parse(lost).tenants
    assert len(tenants) == MAX_TENANTS
    acme = tenants["acme"]
    assert len(acme.hits) == MAX_TENANT_KEYS
    assert sum(acme.hits.values()) + acme.other_hits == 3 * MAX_TENANTS


def test_revisions_go_along() -> None:
    """The origin learns which control documents the isolate holds."""
    counts = Counts()
    counts.note("acme", "put")
    body = counts.take({"acme": 17, "other": 0})
    assert body is not None
    assert parse(body).controls == {"acme": 17, "other": 0}


def test_hits_of_keys_beyond_the_bound_are_other_hits() -> None:
    """A tenant that hits very many keys costs bounded memory, and no hit is lost."""
    counts = Counts()
    for number in (*range(MAX_TENANT_KEYS + 5), 0):
        counts.count("acme", "hit", latency_ms=1, short_key=f"{number:016x}")
    body = counts.take()
    assert body is not None
    told = parse(body).tenants["acme"]
    assert len(told.hits) == MAX_TENANT_KEYS
    assert told.hits[f"{0:016x}"] == 2
    assert told.other_hits == 5


def test_the_largest_flush_fits() -> None:
    """Tenants, keys and revisions at their bounds, with large counts, stay below the limit."""
    counts = Counts()
    tenants = [f"t{number:031d}" for number in range(MAX_TENANTS + 1)]
    for tenant in tenants:
        for outcome in OUTCOMES:
            counts.count(tenant, outcome, latency_ms=1, body_bytes=10**12)
        for trouble in TROUBLES:
            counts.note(tenant, trouble)
        for number in range(MAX_KEYS // MAX_TENANTS + 1):
            counts.count(tenant, "hit", latency_ms=1, short_key=f"{number:016x}")
        for number in range(MAX_CELLS // MAX_TENANTS + 1):
            for content_class in (None, "c" * 32):
                for outcome, strategy in product(OUTCOMES, STRATEGIES):
                    counts.count(
                        tenant,
                        outcome,
                        latency_ms=1,
                        model=f"{number:096}",
                        content_class=content_class,
                        strategy=strategy,
                        saved=TokenCounts(prompt=10**9, completion=10**9),
                    )
    for held in counts._tenants.values():
        held.troubles = dict.fromkeys(held.troubles, 1_000_000)
        for histogram in held.latency.values():
            histogram.buckets = [1_000_000] * len(BUCKETS)
    body = counts.take(dict.fromkeys(tenants, 1_700_000_000_000))
    assert body is not None
    assert len(body) <= MAX_FLUSH_BYTES
    flush = parse(body)
    assert len(flush.tenants) == len(flush.controls) == MAX_TENANTS
    assert sum(len(told.hits) for told in flush.tenants.values()) == MAX_KEYS


def test_too_many_models_are_one() -> None:
    """So is one whose name is long or odd; no request and no token is lost."""
    counts = Counts()
    many = [f"m{number}" for number in range(MAX_TENANT_CELLS + 5)]
    odd = ["m" * 97, "m odel", 'm"', "\u00e9", "\x00"]
    for model in (*many, *odd, many[0], many[-1]):
        saved = TokenCounts(prompt=2, completion=1)
        counts.count("acme", "hit", latency_ms=1, model=model, content_class="c", saved=saved)
    cells = taken(counts).tenants["acme"].cells
    assert len(cells) == MAX_TENANT_CELLS + 1
    assert cells["hit", None, many[0], "c"] == [2, 4, 2]
    others = 5 + len(odd) + 1
    assert cells["hit", None, OTHER, OTHER] == [others, 2 * others, others]


def valid() -> dict[str, Any]:
    """A flush as an isolate writes it."""
    counts = Counts()
    counts.count(
        "acme", "hit", latency_ms=3, short_key="0" * 16, trouble="put", model="m", strategy="exact"
    )
    fields: dict[str, Any] = json.loads(counts.take({"acme": 1}) or b"")
    return fields


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("v",), 1),
        (("v",), True),
        (("more",), 1),
        (("tenants",), []),
        (("tenants",), {"No Tenant": {}}),
        (("tenants",), {f"t{number}": {} for number in range(MAX_TENANTS + 1)}),
        (("tenants", "acme"), None),
        (("tenants", "acme", "more"), 1),
        (("tenants", "acme", "bytes"), -1),
        (("tenants", "acme", "bytes"), 1.5),
        (("tenants", "acme", "bytes"), True),
        (("tenants", "acme", "bytes"), 2**53),
        (("tenants", "acme", "cells"), {}),
        (("tenants", "acme", "cells"), [[]]),
        (("tenants", "acme", "cells"), [["hit", None, None, None, 1, 0]]),
        (("tenants", "acme", "cells"), [["eaten", None, None, None, 1, 0, 0]]),
        (("tenants", "acme", "cells"), [[["hit"], None, None, None, 1, 0, 0]]),
        (("tenants", "acme", "cells"), [["hit", "luck", None, None, 1, 0, 0]]),
        (("tenants", "acme", "cells"), [["hit", None, "a prompt", None, 1, 0, 0]]),
        (("tenants", "acme", "cells"), [["hit", None, 1, None, 1, 0, 0]]),
        (("tenants", "acme", "cells"), [["hit", None, None, "A prompt", 1, 0, 0]]),
        (("tenants", "acme", "cells"), [["hit", None, None, None, -1, 0, 0]]),
        (("tenants", "acme", "cells"), [["hit", None, None, None, "1", 0, 0]]),
        (("tenants", "acme", "cells"), [["hit", None, None, None, 1, 0, 0]] * 2),
        (
            ("tenants", "acme", "cells"),
            [["hit", None, f"m{n}", None, 1, 0, 0] for n in range(MAX_TENANT_CELLS * 2)],
        ),
        (("tenants", "acme", "troubles", "hit"), 1),
        (("tenants", "acme", "latency"), [1]),
        (("tenants", "acme", "latency"), {}),
        (("tenants", "acme", "latency", "hit"), []),
        (("tenants", "acme", "latency", "hit"), [0] * len(BUCKETS)),
        (("tenants", "acme", "latency", "hit"), [None] * (len(BUCKETS) + 1)),
        (("tenants", "acme", "hits", "a prompt"), 1),
        (("tenants", "acme", "hits", "A" * 16), 1),
        (("tenants", "acme", "hits"), {f"{n:016x}": 1 for n in range(MAX_TENANT_KEYS + 1)}),
        (("controls", "acme"), None),
        (("controls", "../x"), 1),
    ],
)
def test_what_no_isolate_writes_is_refused(path: tuple[str, ...], value: object) -> None:
    """Each place of a flush is checked."""
    fields = valid()
    assert parse(json.dumps(fields).encode()).tenants
    *parents, name = path
    place: Any = fields
    for parent in parents:
        place = place[parent]
    place[name] = value
    with pytest.raises(ValueError, match=r"counts|tenant's name"):
        parse(json.dumps(fields).encode())


@pytest.mark.parametrize("name", ["v", "tenants", "controls"])
def test_what_is_missing_is_refused(name: str) -> None:
    """Every member is required."""
    fields = valid()
    del fields[name]
    with pytest.raises(ValueError, match="counts: fields"):
        parse(json.dumps(fields).encode())


def test_too_many_keys_are_refused() -> None:
    """The bound on all keys holds for the reader, too."""
    fields = valid()
    fields["tenants"]["acme"]["hits"] = {f"{n:016x}": 1 for n in range(MAX_TENANT_KEYS)}
    fields["tenants"] = {f"t{n}": fields["tenants"]["acme"] for n in range(40)}
    with pytest.raises(ValueError, match="counts: keys"):
        parse(json.dumps(fields).encode())


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=10,
)


@given(st.binary() | JSON.map(lambda value: json.dumps(value).encode()))
def test_any_bytes_are_counts_or_a_value_error(body: bytes) -> None:
    """No body brings any other error."""
    with pytest.raises(ValueError, match=r"."):
        parse(body)


@given(st.sampled_from(["cells", "troubles", "bytes", "latency", "other_hits", "hits"]), JSON, JSON)
def test_any_values_are_counts_or_a_value_error(name: str, value: Any, controls: Any) -> None:
    """Nor does any value in the place of a good one."""
    fields = valid()
    fields["tenants"]["acme"][name] = value
    fields["controls"] = controls
    try:
        flush = parse(json.dumps(fields).encode())
    except ValueError:
        return
    assert flush.tenants.keys() == {"acme"}


def test_a_body_beyond_the_limit_is_not_read() -> None:
    """Its size is looked at first."""
    with pytest.raises(ValueError, match="counts: size"):
        parse(b" " * (MAX_FLUSH_BYTES + 1))
