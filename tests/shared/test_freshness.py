"""Freshness: RFC 9111 and RFC 5861 at the boundaries. More cases are in the golden vectors."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.controls import Directives
from shared.envelope import Header
from shared.freshness import (
    MAX_AHEAD_MS,
    MISS,
    Forward,
    Lifetimes,
    Serve,
    age_seconds,
    decide,
    expiry,
    is_lasting,
    recency,
    serve,
    usable_on_error,
)

DELTAS = st.none() | st.integers(0, 200)
DIRECTIVES = st.builds(
    Directives,
    no_cache=st.booleans(),
    no_store=st.booleans(),
    max_age_s=DELTAS,
    max_stale_s=DELTAS | st.just(-1),
    min_fresh_s=DELTAS,
    stale_if_error_s=DELTAS,
)
TIMES = st.integers(0, 250_000)


def entry(created_ms: int, fresh_ms: int, stale_ms: int, error_ms: int) -> Header:
    """The header of an entry with these windows, each after the one before but the last."""
    return Header(
        key="0" * 64,
        tenant="acme",
        generation_started_ms=created_ms,
        created_ms=created_ms,
        fresh_until_ms=created_ms + fresh_ms,
        stale_until_ms=created_ms + fresh_ms + stale_ms,
        error_until_ms=created_ms + fresh_ms + error_ms,
        etag="e",
        model="m",
        fingerprint="f",
        segments={"json": 1},
    )


ENTRIES = st.builds(
    entry,
    *(st.integers(0, 60_000) for _ in range(4)),
)
ENTRY = entry(1000, 60_000, 60_000, 300_000)
PLAIN = Directives()


@given(ENTRIES, DIRECTIVES, TIMES, TIMES)
def test_what_was_refused_is_never_served_later(
    header: Header, directives: Directives, one: int, other: int
) -> None:
    """Neither from the cache nor after a failure, under the same directives."""
    earlier, later = sorted((one, other))
    if isinstance(decide(header, earlier, directives), Forward):
        assert isinstance(decide(header, later, directives), Forward)
    if not usable_on_error(header, earlier, directives):
        assert not usable_on_error(header, later, directives)


@given(ENTRIES, DIRECTIVES, TIMES)
def test_no_directive_revives_an_entry(header: Header, directives: Directives, now_ms: int) -> None:
    """Past its last window it is as if it were not there; its makers set its end."""
    if now_ms > header.expires_ms:
        assert decide(header, now_ms, directives) == MISS
        assert not usable_on_error(header, now_ms, directives)


@given(ENTRIES, DIRECTIVES, TIMES)
def test_nothing_is_served_against_a_directive(
    header: Header, directives: Directives, now_ms: int
) -> None:
    """Each directive alone is kept, whatever the others say."""
    decision = decide(header, now_ms, directives)
    if isinstance(decision, Forward):
        assert decision.stale_if_error == usable_on_error(header, now_ms, directives)
        assert decision.reason != "request" or now_ms <= header.fresh_until_ms
        return
    stale_ms = now_ms - header.fresh_until_ms
    assert not directives.no_cache
    assert not directives.no_store
    if directives.max_age_s is not None:
        assert now_ms - header.created_ms <= directives.max_age_s * 1000
        assert stale_ms <= 0 or directives.max_stale_s is not None
    if directives.min_fresh_s is not None:
        assert -stale_ms >= directives.min_fresh_s * 1000
    if directives.max_stale_s not in {None, -1}:
        assert stale_ms <= (directives.max_stale_s or 0) * 1000


@given(ENTRIES, TIMES)
def test_without_directives_the_entrys_windows_decide(header: Header, now_ms: int) -> None:
    """Fresh: serve. Within stale-while-revalidate: serve and refresh. Else forward."""
    decision = decide(header, now_ms, PLAIN)
    if now_ms <= header.fresh_until_ms:
        assert decision == serve(header, now_ms)
    elif now_ms <= header.stale_until_ms:
        assert decision == serve(header, now_ms, revalidate=True)
    elif now_ms <= header.error_until_ms:
        assert decision == Forward(reason="stale", stale_if_error=True)
    else:
        assert decision == MISS


@given(ENTRIES, DIRECTIVES, TIMES)
def test_a_served_entry_tells_its_age_and_rest(
    header: Header, directives: Directives, now_ms: int
) -> None:
    """Whole seconds; a negative ttl exactly when stale; an age that is never negative."""
    decision = decide(header, now_ms, directives)
    if isinstance(decision, Serve):
        assert decision.age_s == age_seconds(header, now_ms) >= 0
        assert (decision.ttl_s < 0) == (now_ms > header.fresh_until_ms)
        assert decision.revalidate <= (decision.ttl_s < 0)


@pytest.mark.parametrize(
    ("now_ms", "directives", "decision"),
    [
        (61_000, PLAIN, Serve(age_s=60, ttl_s=0)),
        (61_001, PLAIN, Serve(age_s=60, ttl_s=-1, revalidate=True)),
        (121_000, PLAIN, Serve(age_s=120, ttl_s=-60, revalidate=True)),
        (121_001, PLAIN, Forward(reason="stale", stale_if_error=True)),
        (361_000, PLAIN, Forward(reason="stale", stale_if_error=True)),
        (361_001, PLAIN, MISS),
        (1000, Directives(max_age_s=0), Serve(age_s=0, ttl_s=60)),
        (1001, Directives(max_age_s=0), Forward(reason="request", stale_if_error=True)),
        (61_001, Directives(max_age_s=600), Forward(reason="stale", stale_if_error=True)),
        (71_000, Directives(max_stale_s=10), Serve(age_s=70, ttl_s=-10, revalidate=True)),
        (71_001, Directives(max_stale_s=10), Forward(reason="stale", stale_if_error=True)),
        (361_000, Directives(max_stale_s=-1), Serve(age_s=360, ttl_s=-300)),
        (51_000, Directives(min_fresh_s=10), Serve(age_s=50, ttl_s=10)),
        (51_001, Directives(min_fresh_s=10), Forward(reason="request", stale_if_error=True)),
        (61_001, Directives(min_fresh_s=0), Forward(reason="stale", stale_if_error=True)),
        (2000, Directives(no_cache=True), Forward(reason="request")),
        (
            2000,
            Directives(no_cache=True, stale_if_error_s=0),
            Forward(reason="request", stale_if_error=True),
        ),
        (2000, Directives(no_store=True, stale_if_error_s=9), Forward(reason="request")),
        (181_000, Directives(stale_if_error_s=120), Forward(reason="stale", stale_if_error=True)),
        (181_001, Directives(stale_if_error_s=120), Forward(reason="stale")),
        (0, PLAIN, Serve(age_s=0, ttl_s=61)),
    ],
)
def test_each_boundary(now_ms: int, directives: Directives, decision: Serve | Forward) -> None:
    """The millisecond before and the millisecond after."""
    assert decide(ENTRY, now_ms, directives) == decision


LIFETIMES = Lifetimes(
    ttl_s=3600, stale_while_revalidate_s=60, stale_if_error_s=600, max_ttl_s=86_400
)


@given(st.none() | st.integers(-5, 2**31), st.integers(0, 2**42))
def test_an_entry_never_outlives_the_operators_limits(ttl_s: int | None, created_ms: int) -> None:
    """A request's wish only shortens, or lengthens up to the maximum."""
    windows = expiry(LIFETIMES, ttl_s, created_ms)
    if windows is None:
        assert ttl_s is not None
        assert ttl_s <= 0
        return
    fresh, stale, error = windows
    assert fresh - created_ms == 1000 * min(LIFETIMES.ttl_s if ttl_s is None else ttl_s, 86_400)
    assert (stale - fresh, error - fresh) == (60_000, 600_000)


@pytest.mark.parametrize(("now_ms", "lasting"), [(0, True), (1, False), (100_000, False)])
def test_what_lives_for_a_minute_lasts_in_kv(now_ms: int, *, lasting: bool) -> None:
    """By the later of its ends."""
    assert is_lasting(entry(0, 10_000, 20_000, 50_000), now_ms) == lasting


def test_what_slid_or_was_made_later_is_later() -> None:
    """A new answer is, even where the one before it is fresh for longer."""
    made, slid, anew = entry(0, 100, 0, 0), entry(0, 200, 0, 0), entry(1, 50, 0, 0)
    assert sorted([anew, slid, made], key=recency) == [made, slid, anew]


def test_a_ttl_of_zero_means_not_stored_rather_than_default() -> None:
    """Zero is a wish, not its absence."""
    assert expiry(LIFETIMES, 0, 1000) is None
    assert expiry(LIFETIMES, None, 1000) is not None


@pytest.mark.parametrize(
    "name", ["ttl_s", "stale_while_revalidate_s", "stale_if_error_s", "max_ttl_s"]
)
def test_a_negative_lifetime_cannot_be_built(name: str) -> None:
    """The error names it."""
    values = {"ttl_s": 1, "stale_while_revalidate_s": 1, "stale_if_error_s": 1, "max_ttl_s": 1}
    with pytest.raises(ValueError, match=f"{name} must not be negative"):
        Lifetimes(**{**values, name: -1})


def test_an_entry_of_the_future_is_a_miss() -> None:
    """Up to an hour clocks may differ; beyond it nobody knows how long the entry would live."""
    ahead = entry(2 * MAX_AHEAD_MS, 60_000, 60_000, 60_000)
    assert decide(ahead, MAX_AHEAD_MS, PLAIN) != MISS
    assert decide(ahead, MAX_AHEAD_MS - 1, PLAIN) == MISS
