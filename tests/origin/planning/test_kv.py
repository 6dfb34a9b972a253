"""KV as each location sees it."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from origin.planning.kv import CACHE_TTL_S, MAX_LOCATIONS, NOTHING, KvModel, Locations
from tests.edge.local_edge import ROOT

T = 1_000_000
ENTRY = (T, T + 3_600_000)
TTL_MS = CACHE_TTL_S * 1000


def kv(places: int = 1) -> KvModel:
    """One with room for so many keys."""
    model = KvModel()
    for _ in range(places):
        model.grow()
    return model


def test_locations_remember_as_long_as_the_worker_asks_for() -> None:
    """Its own constant, which lies where only the platform can import it."""
    source = (ROOT / "worker/kv.py").read_text()
    assert re.findall(r"^CACHE_TTL_S = (\d+)$", source, re.MULTILINE) == [str(CACHE_TTL_S)]


def test_who_writes_sees_it_at_once() -> None:
    """Others, too, that have not looked before."""
    model = kv()
    model.write(0, 0, T, *ENTRY)
    assert model.read(0, 0, T) == model.read(0, 1, T) == ENTRY


def test_who_looked_in_vain_sees_it_a_minute_later() -> None:
    """Nothing is remembered as something is."""
    model = kv()
    assert model.read(0, 1, T - 1000) == NOTHING
    model.write(0, 0, T, *ENTRY)
    assert model.read(0, 1, T - 1000 + TTL_MS - 1) == NOTHING
    assert model.read(0, 1, T - 1000 + TTL_MS) == ENTRY


def test_an_old_entry_is_seen_for_a_minute_after_a_new_one() -> None:
    """Where it was read before."""
    model = kv()
    model.write(0, 0, T, *ENTRY)
    model.read(0, 1, T)
    model.write(0, 0, T + 1000, T + 1000, T + 9000)
    assert model.read(0, 1, T + 2000) == ENTRY
    assert model.read(0, 0, T + 2000) == (T + 1000, T + 9000)
    assert model.read(0, 1, T + TTL_MS) == (T + 1000, T + 9000)


def test_what_is_being_made_is_seen_when_it_is_made() -> None:
    """By who asked for it as by others."""
    model = kv()
    model.write(0, 0, T, T + 2000, T + 9000)
    assert model.read(0, 0, T + 1999) == model.read(0, 1, T + 1999) == NOTHING
    assert model.read(0, 0, T + 2000) == (T + 2000, T + 9000)


def test_forgetting() -> None:
    """Leaves nothing at a place, nor in any location's memory."""
    model = kv(2)
    model.write(0, 0, T, *ENTRY)
    model.write(1, 0, T, *ENTRY)
    model.forget(0)
    model.forget_reads()
    assert (model.read(0, 0, T), model.read(1, 0, T)) == (NOTHING, ENTRY)


steps = st.lists(
    st.tuples(st.booleans(), st.integers(0, 2), st.integers(0, 2), st.integers(0, 90_000)),
    max_size=60,
)


@given(steps)
def test_it_is_what_a_plain_model_says(told: list[tuple[bool, int, int, int]]) -> None:
    """One that forgets nothing, over keys, locations and pauses."""
    model, now_ms = kv(3), T
    values: dict[int, tuple[int, int]] = {}
    memory: dict[tuple[int, int], tuple[int, tuple[int, int]]] = {}
    for writes, place, location, pause_ms in told:
        now_ms += pause_ms
        if writes:
            values[place] = (now_ms, now_ms + 5)
            memory[place, location] = (now_ms, values[place])
            model.write(place, location, now_ms, *values[place])
        else:
            read_ms, value = memory.get((place, location), (-TTL_MS, NOTHING))
            if now_ms - read_ms >= TTL_MS:
                value = values.get(place, NOTHING)
                memory[place, location] = (now_ms, value)
            assert model.read(place, location, now_ms) == value


def test_locations_are_bounded() -> None:
    """What is too much has one number."""
    locations = Locations()
    numbers = [locations.number(f"l{n}") for n in range(MAX_LOCATIONS + 5)]
    assert numbers[:3] == [0, 1, 2]
    assert max(numbers) == MAX_LOCATIONS - 1
    assert locations.number("l1") == 1
    assert len(locations) == MAX_LOCATIONS
