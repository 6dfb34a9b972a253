"""An hour of usage as the charts have it."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from origin.dashboard.series import ANSWERS, HITS, answers_of, hit_rate, series
from origin.stores.usage_contract import RECENT_SLOTS, SLOT_S, Name, Recent
from origin.usage import SIMILARITY_BUCKETS
from shared.counts import BUCKETS, CACHED, OUTCOMES, STRATEGIES, TIERS

NOW_MS = 1_700_000_017_000
SLOT_MS = SLOT_S * 1000
LAST_MS = NOW_MS - NOW_MS % SLOT_MS


def requests(tier: str, outcome: str, strategy: str | None = None) -> Name:
    """The name of a number of requests."""
    return (None, None, "requests", tier, outcome, strategy)


def test_nothing_is_nothing() -> None:
    """Zeros, and null where there is nothing to tell; every list has all slots."""
    told = series(Recent(now_ms=NOW_MS))
    assert told["start_s"] * 1000 == LAST_MS - (RECENT_SLOTS - 1) * SLOT_MS
    assert told["hour"]["hit_rate"] is told["edge_heard_s"] is None
    assert set(told["hour"]["answers"].values()) == {0}
    for name in ANSWERS:
        assert told["answers"][name] == [0] * RECENT_SLOTS
    for latency in told["latency"].values():
        assert latency == {"p50": [None] * RECENT_SLOTS, "p99": [None] * RECENT_SLOTS}
    assert len(told["similarity_bounds"]) == len(SIMILARITY_BUCKETS)


def test_a_slot_is_in_its_place() -> None:
    """The newest is the last; what lies outside is left out."""
    one = {requests("origin", "miss"): 1}
    recent = Recent(
        now_ms=NOW_MS,
        slots={
            LAST_MS: one,
            LAST_MS - 3 * SLOT_MS: one,
            LAST_MS - RECENT_SLOTS * SLOT_MS: one,
            LAST_MS + SLOT_MS: one,
        },
    )
    generated = series(recent)["answers"]["generated"]
    assert [at for at, number in enumerate(generated) if number] == [116, 119]


def test_a_request_is_counted_once() -> None:
    """What the edge has not, the origin is asked for."""
    answers = answers_of(
        {
            requests("edge", "hit", "exact"): 1,
            requests("edge", "stale", "semantic"): 2,
            requests("edge", "miss"): 64,
            requests("edge", "bypass"): 64,
            requests("edge", "error"): 64,
            requests("origin", "hit", "exact"): 4,
            requests("origin", "hit", "normalised"): 8,
            requests("origin", "stale_if_error", "template"): 16,
            requests("origin", "hit", "semantic"): 32,
            requests("origin", "collapsed"): 5,
            requests("origin", "miss"): 6,
            requests("origin", "bypass"): 7,
            requests("origin", "refused"): 9,
            requests("origin", "error"): 10,
        }
    )
    assert answers == {
        "edge": 3,
        "exact": 28,
        "semantic": 32,
        "joined": 5,
        "generated": 6,
        "bypass": 7,
        "refused": 9,
        "error": 10,
    }
    assert hit_rate(answers) == 63 / (63 + 11)


def test_percentiles_are_of_their_tier() -> None:
    """By slot, and of the hour: upper bounds."""
    quick: Name = (None, None, "latency", "edge", "hit", "1")
    slow: Name = (None, None, "latency", "edge", "hit", "500")
    missed: Name = (None, None, "latency", "origin", "miss", "inf")
    told = series(
        Recent(
            now_ms=NOW_MS,
            slots={LAST_MS: {quick: 1, slow: 99, missed: 1}, LAST_MS - SLOT_MS: {quick: 200}},
        )
    )
    edge = told["latency"]["edge"]
    assert (edge["p50"][-2:], edge["p99"][-2:]) == ([1, 500], [1, 500])
    assert told["hour"]["latency"]["edge"] == {"p50": 1, "p90": 500, "p99": 500}
    assert told["hour"]["latency"]["origin"] == {"p50": None, "p90": None, "p99": None}
    assert told["hour"]["latency"]["generated"]["p50"] is None


def test_the_edge_was_heard_of() -> None:
    """At the end of the slot it last sent its counters in, which may not be over."""
    flush: Name = (None, None, "flush", "edge")
    slots = {LAST_MS - 4 * SLOT_MS: {flush: 1}, LAST_MS - 2 * SLOT_MS: {requests("edge", "hit"): 1}}
    heard_s = series(Recent(now_ms=NOW_MS, slots=slots))["edge_heard_s"]
    assert heard_s * 1000 == LAST_MS - 3 * SLOT_MS
    now = series(Recent(now_ms=NOW_MS, slots={**slots, LAST_MS: {flush: 2}}))
    assert now["edge_heard_s"] * 1000 == NOW_MS


NAMES = st.one_of(
    st.builds(
        requests,
        st.sampled_from(TIERS),
        st.sampled_from(OUTCOMES),
        st.sampled_from([None, *STRATEGIES]),
    ),
    st.builds(
        lambda tier, speed, bucket: (None, None, "latency", tier, speed, bucket),
        st.sampled_from(TIERS),
        st.sampled_from(["hit", "miss"]),
        st.sampled_from(BUCKETS),
    ),
    st.just((None, None, "saved", "edge", "prompt")),
)
SLOTS = st.dictionaries(
    st.integers(0, RECENT_SLOTS - 1).map(lambda back: LAST_MS - back * SLOT_MS),
    st.dictionaries(NAMES, st.integers(1, 99)),
)


@given(SLOTS)
def test_the_hour_is_the_sum_of_its_slots(slots: dict[int, dict[Name, int]]) -> None:
    """Nothing is lost, nothing is told twice."""
    told = series(Recent(now_ms=NOW_MS, slots=slots))
    assert {name: sum(told["answers"][name]) for name in ANSWERS} == told["hour"]["answers"]
    whole: Counter[Name] = Counter()
    for numbers in slots.values():
        whole.update(numbers)
    asked = sum(
        number
        for of, number in whole.items()
        if of[2] == "requests" and (of[3] == "origin" or of[4] in CACHED)
    )
    assert sum(told["hour"]["answers"].values()) == asked
    rate = told["hour"]["hit_rate"]
    assert rate is None or 0 <= rate <= 1
    hits = sum(told["hour"]["answers"][name] for name in HITS)
    assert hits == sum(n for of, n in whole.items() if of[2] == "requests" and of[4] in CACHED)
