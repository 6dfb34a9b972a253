"""What an index has in memory: its bound, and what goes first."""

from __future__ import annotations

import numpy as np
import pytest

from origin.semantic.index import Entry
from origin.semantic.memory_index import MemoryIndex
from tests.support.semantic import DIMS, NOW_MS, an_entry, basis


def filled(count: int, max_entries: int) -> MemoryIndex:
    """An index with entries 0, 1 and so on."""
    index = MemoryIndex(dims=DIMS, max_entries=max_entries)
    for number in range(count):
        index.add(an_entry(number))
    return index


def kept(index: MemoryIndex) -> list[int]:
    """Which entries it has; asked about, they count as proposed."""
    return [number for number in range(20) if index.find("acme", "p", f"f{number}", now_ms=NOW_MS)]


def test_what_was_added_first_goes_first() -> None:
    """There are never more than may be."""
    index = filled(6, max_entries=4)
    assert index.count() == 4
    assert kept(index) == [2, 3, 4, 5]


def test_what_is_asked_for_stays() -> None:
    """By its form, or as the nearest of a search; not what else a search finds."""
    index = filled(4, max_entries=4)
    assert index.find("acme", "p", "f0", now_ms=NOW_MS)
    assert len(index.search("acme", "p", basis(1), count=4, now_ms=NOW_MS)) == 4
    index.add(an_entry(4))
    index.add(an_entry(5))
    assert kept(index) == [0, 1, 4, 5]


def test_the_bound_is_over_all_tenants_and_partitions() -> None:
    """And what is private counts."""
    index = MemoryIndex(dims=DIMS, max_entries=2)
    index.add(an_entry(1), private=True)
    index.add(an_entry(1, tenant="other"))
    index.add(an_entry(2, partition="q"))
    assert (index.count(), index.count("acme"), index.count("other")) == (2, 1, 1)


def test_another_length_is_refused() -> None:
    """It is another encoder's; nothing is replaced by it."""
    index = filled(1, max_entries=4)
    with pytest.raises(ValueError, match="a vector of 3 numbers, not 8"):
        index.add(an_entry(0, vector=basis(0)[:3]))
    assert kept(index) == [0]


@pytest.mark.parametrize("vector", [np.zeros(8), np.zeros((1, 8), dtype=np.float32)])
def test_an_entry_has_a_vector_of_float32(vector: object) -> None:
    """Neither float64 nor a matrix."""
    with pytest.raises(ValueError, match="float32 of one dimension"):
        an_entry(0, vector=vector)


def test_what_was_not_seen_again_is_dropped() -> None:
    """But for what is private, or named."""
    index = filled(4, max_entries=9)
    index.add(an_entry(2), private=True)
    index.stamp += 1
    index.add(an_entry(1))
    index.keep_since(index.stamp, besides=[("acme", "k3"), ("other", "k0")])
    assert kept(index) == [1, 2, 3]


def test_memory_is_given_back() -> None:
    """A partition that was large and is small keeps no large matrix; an empty one keeps none."""
    index = filled(1000, max_entries=1000)
    partition = index._partitions["acme", "p"]
    assert len(partition._matrix) >= 1000
    index.remove("acme", [f"k{number}" for number in range(1, 1000)])
    assert len(partition._matrix) <= 4
    assert [one.key for one in index.search("acme", "p", basis(0), count=9, now_ms=NOW_MS)] == [
        "k0"
    ]
    index.clear("acme")
    assert index._partitions == {}


def test_vectors_are_copied() -> None:
    """What a caller does with its own afterwards changes nothing."""
    index = MemoryIndex(dims=DIMS)
    entry: Entry = an_entry(0, vector=basis(0))
    index.add(entry)
    entry.vector[:] = basis(1)
    assert index.search("acme", "p", basis(0), count=1, now_ms=NOW_MS)[0].similarity == 1.0
