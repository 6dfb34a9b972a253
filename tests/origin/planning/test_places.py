"""Numbers for keys, dense, and what a sample of keys makes of counts."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from origin.planning.places import Places


def test_a_key_keeps_its_place() -> None:
    """Places are counted from 0."""
    places = Places(10)
    assert [places.place(key) for key in (7, 8, 7, 9)] == [0, 1, 0, 2]
    assert (places.find(8), places.find(1), len(places), places.weight) == (1, None, 3, 1)


@given(st.lists(st.integers(0, 2**64 - 1), max_size=300), st.integers(1, 20))
def test_places_are_dense_and_few(keys: list[int], limit: int) -> None:
    """Never more than the limit after a key, none twice, and a key left out stays out."""
    places = Places(limit)
    held: dict[int, int] = {}
    left_out: set[int] = set()
    for key in keys:
        place = places.place(key)
        if place is None:
            assert key not in held
            left_out.add(key)
        else:
            assert key not in left_out
            held[key] = place
        freed = set(places.thin())
        for gone in [key for key, place in held.items() if place in freed]:
            left_out.add(gone)
            del held[gone]
        assert len(places) == len(held) < max(limit, 2)
        assert len(set(held.values())) == len(held)
        assert max(held.values(), default=0) <= limit


def test_what_is_counted_stays_right_on_average() -> None:
    """Ten thousand keys, of which a hundred fit."""
    places = Places(100)
    total = 0
    for number in range(10_000):
        key = (number * 0x9E3779B97F4A7C15) % 2**64
        if places.place(key >> 3 | (key & 7) << 61) is not None:
            total += places.weight
        places.thin()
    assert 100 <= places.weight <= 512
    assert abs(total - 10_000) < 2500
    assert abs(places.seen - 10_000) < 2500
