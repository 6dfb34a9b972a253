"""Grants as the stores give them, and bytes of entries that live."""

from __future__ import annotations

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from origin.planning.l1 import L1Model
from origin.stores.memory import MemoryStore

T = 1_790_000_000_000
HOUR_MS = 3_600_000


def model(places: int = 1) -> L1Model:
    """One with room for so many keys."""
    made = L1Model()
    for _ in range(places):
        made.grow()
    return made


def put(l1: L1Model, place: int, now_ms: int, size_bytes: int, life_ms: int, **more: int) -> None:
    """Keep an entry of that size for so long."""
    l1.put(
        place,
        now_ms,
        created_ms=now_ms,
        fresh_ms=now_ms + life_ms,
        expires_ms=now_ms + life_ms,
        size_bytes=size_bytes,
        weight=more.get("weight", 1),
    )


@given(
    st.lists(st.tuples(st.integers(0, 1), st.integers(0, 50_000_000)), max_size=40),
    st.integers(1, 4),
)
def test_grants_are_those_of_a_store(told: list[tuple[int, int]], after: int) -> None:
    """For each key the same, at the same times."""
    now_ms = T
    store, l1 = MemoryStore(), model(2)
    store.now_ms = lambda: now_ms
    for place, pause_ms in told:
        now_ms += pause_ms
        granted = asyncio.run(store.grant(str(place), after=after))
        assert l1.grant(place, now_ms, after=after) == granted


def test_bytes_live_until_their_end() -> None:
    """And the most that lived at a time is kept."""
    l1 = model(2)
    put(l1, 0, T, 100, HOUR_MS)
    put(l1, 1, T, 50, 2 * HOUR_MS)
    assert (l1.live_bytes, l1.peak_bytes) == (150, 150)
    l1.sweep(T + HOUR_MS + 60_000)
    assert (l1.live_bytes, l1.peak_bytes) == (50, 150)
    l1.sweep(T + 900 * HOUR_MS)
    assert l1.live_bytes == 0


def test_what_is_replaced_takes_no_bytes() -> None:
    """A key that stands for several counts as many."""
    l1 = model()
    put(l1, 0, T, 100, HOUR_MS, weight=4)
    put(l1, 0, T + 1000, 70, HOUR_MS, weight=4)
    assert (l1.live_bytes, l1.size_of(0)) == (280, 70)


@given(
    st.lists(
        st.tuples(
            st.integers(0, 3),
            st.integers(0, HOUR_MS),
            st.integers(1, 100),
            st.integers(0, 5 * HOUR_MS),
        ),
        max_size=30,
    )
)
def test_live_bytes_are_those_of_entries_that_have_not_ended(
    told: list[tuple[int, int, int, int]],
) -> None:
    """To the minute, whatever the order of their ends."""
    l1, now_ms = model(4), T
    ends: dict[int, tuple[int, int]] = {}
    for place, pause_ms, size_bytes, life_ms in told:
        now_ms += pause_ms
        put(l1, place, now_ms, size_bytes, life_ms)
        ends[place] = (now_ms + life_ms, size_bytes)
        least = sum(size for end, size in ends.values() if end // 60_000 > now_ms // 60_000)
        most = sum(size for end, size in ends.values() if end // 60_000 >= now_ms // 60_000)
        assert least <= l1.live_bytes <= most
