"""The report: advice on lifetimes, and sums over tenants."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from origin.lifetimes import Tiers
from origin.prices import Prices
from origin.stores.usage_contract import HotKey, Kept, Name
from origin.usage import REUSE_BOUNDS_S, REUSE_BUCKETS
from origin.usage_report import COVERED, MIN_REUSES, TOP_KEYS, Terms, report
from shared.counts import OTHER
from shared.freshness import Lifetimes

TERMS = Terms(
    prices=Prices(),
    tiers=Tiers.parse('{"models": {"slow": 60}, "classes": {"listing": {"ttl_s": 600}}}'),
    lifetimes=Lifetimes(
        ttl_s=3600, stale_while_revalidate_s=0, stale_if_error_s=0, max_ttl_s=86_400
    ),
)


def reuses(model: str, content_class: str | None, counts: dict[str, int]) -> dict[Name, int]:
    """Observed intervals, by bucket."""
    return {(model, content_class, "reuse", bucket): n for bucket, n in counts.items()}


def advice(numbers: dict[Name, int]) -> list[dict[str, object]]:
    """What the report advises."""
    told: list[dict[str, object]] = report("acme", {"acme": Kept(numbers=numbers)}, TERMS)[
        "ttl_advice"
    ]
    return told


def test_advice_is_the_smallest_bound_that_covers_most() -> None:
    """Beside what the present lifetime covers, by model and class."""
    numbers = (
        reuses("fast", None, {"60": 85, "300": 10, "86400": 5})
        | reuses("fast", "listing", {"1": 50, "1200": 50})
        | reuses("slow", None, {"60": 30, "120": 100})
    )
    assert advice(numbers) == [
        {
            "model": "fast",
            "class": "listing",
            "observations": 100,
            "ttl_s": 1200,
            "present_ttl_s": 600,
            "present_share": 0.5,
        },
        {
            "model": "fast",
            "class": None,
            "observations": 100,
            "ttl_s": 300,
            "present_ttl_s": 3600,
            "present_share": 0.95,
        },
        {
            "model": "slow",
            "class": None,
            "observations": 130,
            "ttl_s": 120,
            "present_ttl_s": 60,
            "present_share": pytest.approx(30 / 130),
        },
    ]


def test_few_observations_are_no_ground_for_advice() -> None:
    """Nor is what many models have together."""
    assert advice(reuses("fast", None, {"60": MIN_REUSES - 1})) == []
    assert advice(reuses(OTHER, None, {"60": 10 * MIN_REUSES})) == []
    assert len(advice(reuses("fast", None, {"60": MIN_REUSES}))) == 1


def test_reuses_beyond_every_bound_have_no_lifetime() -> None:
    """None is advised where it would be longer than what is measured."""
    (told,) = advice(reuses("fast", None, {"60": 80, "inf": 20}))
    assert (told["ttl_s"], told["present_share"]) == (None, 0.8)


@given(
    st.lists(
        st.floats(0.01, 10**7) | st.sampled_from(REUSE_BOUNDS_S), min_size=MIN_REUSES, max_size=300
    )
)
def test_advice_covers_what_it_says(intervals_s: list[float]) -> None:
    """Nine tenths of the intervals are within it, and not within the next smaller bound."""
    counts = dict.fromkeys(REUSE_BUCKETS, 0)
    for interval_s in intervals_s:
        bound = next((b for b in REUSE_BOUNDS_S if interval_s <= b), None)
        counts["inf" if bound is None else str(bound)] += 1
    (told,) = advice(reuses("fast", None, counts))
    ttl_s = told["ttl_s"]
    covering = [
        bound
        for bound in REUSE_BOUNDS_S
        if sum(interval_s <= bound for interval_s in intervals_s) >= COVERED * len(intervals_s)
    ]
    assert ttl_s == min(covering, default=None)
    assert told["present_share"] == sum(s <= 3600 for s in intervals_s) / len(intervals_s)


def test_the_hottest_keys_of_all_tenants() -> None:
    """Each with its tenant, as many as of one."""
    kept = {
        tenant: Kept(
            since_ms=since_ms,
            hottest=tuple(
                HotKey(key=f"{number:016x}", hits=base - number, last_ms=0)
                for number in range(TOP_KEYS)
            ),
        )
        for tenant, base, since_ms in (("acme", 100, 2000), ("other", 95, 1000))
    }
    told = report("*", kept, TERMS)
    hits = [key["hits"] for key in told["top_keys"]]
    assert len(hits) == TOP_KEYS
    assert hits == sorted(hits, reverse=True)
    assert {key["tenant"] for key in told["top_keys"]} == {"acme", "other"}
    assert told["since"] == "1970-01-01T00:00:01Z"


def test_nobody_is_nothing() -> None:
    """All tenants where there are none."""
    told = report("*", {}, TERMS)
    assert (told["tenants"], told["hits"], told["hit_rate"], told["since"]) == ({}, 0, None, None)
