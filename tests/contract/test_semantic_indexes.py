"""The contract of a semantic index, asked of memory, of real Redis servers and of vector sets."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

import numpy as np
import pytest

from origin.semantic.index import Candidate, Entry, SemanticIndex, Vector
from origin.semantic.local_index import LocalIndex
from origin.semantic.vector_set_index import VectorSetIndex
from origin.stores.redis_store import redis_client
from tests.support.redis_servers import KINDS, emptied
from tests.support.semantic import DIMS, NOW_MS, an_entry, basis, entries_client, toward

PATIENT_S = 10.0
LOCAL = [f"local-{kind}" for kind in ("memory", *KINDS)]
VECTOR_SETS = [f"vectors-{kind}" for kind in KINDS if kind in ("redis8", "cluster")]


@pytest.fixture(params=[*LOCAL, *VECTOR_SETS, "quantised"])
async def index(
    request: pytest.FixtureRequest, redis_url: Callable[[str], str]
) -> AsyncIterator[SemanticIndex]:
    """Each in turn, empty."""
    what, _, kind = request.param.partition("-")
    if kind == "memory":
        yield LocalIndex(identity="m1", dims=DIMS)
        return
    if "redis8" not in KINDS and what != "local":
        pytest.skip("Redis 8 is not there; tools/redis8.sh fetches it")
    url = redis_url(kind or "redis8")
    async with emptied(url):
        if what == "local":
            index: SemanticIndex = LocalIndex(identity="m1", dims=DIMS, entries=entries_client(url))
        else:
            index = VectorSetIndex(
                redis_client(url, timeout_s=PATIENT_S, max_connections=4),
                identity="m1",
                dims=DIMS,
                quantisation="Q8" if what == "quantised" else "NOQUANT",
            )
        await index.start()
        yield index
        await index.close()


async def search(
    index: SemanticIndex,
    vector: Vector,
    *,
    tenant: str = "acme",
    partition: str = "p",
    count: int = 10,
    now_ms: int = NOW_MS,
    private: bool = False,
) -> list[str]:
    """The keys of what is found."""
    found = await index.search(
        tenant, partition, vector, count=count, now_ms=now_ms, private=private
    )
    return [candidate.key for candidate in found]


async def test_nothing_is_found_in_an_empty_index(index: SemanticIndex) -> None:
    """Nothing is not an error."""
    assert await search(index, basis(0)) == []
    assert await index.find("acme", "p", "f", now_ms=NOW_MS) is None
    assert await index.count() == 0
    await index.remove("acme", ["k", "k2"])
    await index.remove("acme", [])
    await index.clear("acme")
    await index.clear()
    await index.sweep(NOW_MS)


async def test_the_nearest_come_first(index: SemanticIndex) -> None:
    """As many as asked for, with all that is known of them."""
    for place, cosine in enumerate((0.2, 0.9, -0.5, 0.6)):
        await index.add(an_entry(place, vector=toward(0, cosine)), now_ms=NOW_MS)
    assert await search(index, basis(0)) == ["k1", "k3", "k0", "k2"]
    found = await index.search("acme", "p", basis(0), count=2, now_ms=NOW_MS)
    for candidate, (place, cosine) in zip(found, ((1, 0.9), (3, 0.6)), strict=True):
        assert candidate.similarity == pytest.approx(cosine, abs=1e-6 if index.is_exact else 0.01)
        assert candidate == Candidate(
            key=f"k{place}",
            text=f"question {place}?",
            similarity=candidate.similarity,
            expires_ms=NOW_MS + 60_000,
        )
    assert await search(index, basis(0), count=0) == []


async def test_an_equal_form_is_found(index: SemanticIndex) -> None:
    """Whatever the text, every character of it kept."""
    text = 'Was kostet "é \U0001f600"?\n\x00\\ \u2028'
    await index.add(an_entry(1, form="ab", text=text), now_ms=NOW_MS)
    assert await index.find("acme", "p", "ab", now_ms=NOW_MS) == Candidate(
        key="k1", text=text, similarity=1.0, expires_ms=NOW_MS + 60_000
    )
    assert await index.find("acme", "p", "abc", now_ms=NOW_MS) is None
    assert (await index.search("acme", "p", basis(1), count=1, now_ms=NOW_MS))[0].text == text


@pytest.mark.parametrize(("tenant", "partition"), [("acme", "q"), ("other", "p"), ("acm", "ep")])
async def test_others_find_nothing(index: SemanticIndex, tenant: str, partition: str) -> None:
    """Neither another tenant nor another partition, by vector or by form."""
    await index.add(an_entry(1), now_ms=NOW_MS)
    assert await search(index, basis(1), tenant=tenant, partition=partition) == []
    assert await index.find(tenant, partition, "f1", now_ms=NOW_MS) is None
    await index.add(an_entry(1, tenant=tenant, partition=partition, key="k9"), now_ms=NOW_MS)
    assert await search(index, basis(1), tenant=tenant, partition=partition) == ["k9"]
    assert await search(index, basis(1)) == ["k1"]


async def test_what_is_over_is_not_found(index: SemanticIndex) -> None:
    """From the very millisecond on; those behind it are."""
    await index.add(an_entry(1, vector=toward(0, 0.9)), now_ms=NOW_MS)
    later = an_entry(2, vector=toward(0, 0.5), expires_ms=NOW_MS + 90_000)
    await index.add(later, now_ms=NOW_MS)
    for now_ms, keys in (
        (NOW_MS + 59_999, ["k1"]),
        (NOW_MS + 60_000, ["k2"]),
        (NOW_MS + 90_000, []),
    ):
        assert await search(index, basis(0), count=1, now_ms=now_ms) == keys
        found = await index.find("acme", "p", "f1", now_ms=now_ms)
        assert (found is not None) == ("k1" in keys)


async def test_what_is_over_replaces_and_is_not_found(index: SemanticIndex) -> None:
    """An entry that comes too late."""
    for before in (True, False):
        if before:
            await index.add(an_entry(1), now_ms=NOW_MS)
        await index.add(an_entry(1, expires_ms=NOW_MS - 90_000), now_ms=NOW_MS)
        assert await search(index, basis(1)) == []
        await index.clear()


async def test_what_is_over_leaves_memory(index: SemanticIndex) -> None:
    """At the latest as others come in."""
    for place in range(4):
        await index.add(an_entry(place), now_ms=NOW_MS)
    later_ms = NOW_MS + 60_000
    for place in range(4, 8):
        entry = an_entry(place, expires_ms=later_ms + 60_000)
        await index.add(entry, now_ms=later_ms)
    await index.sweep(later_ms)
    assert await index.count() == 4
    assert len(await search(index, basis(5), now_ms=later_ms)) == 4


async def test_a_key_has_one_entry(index: SemanticIndex) -> None:
    """The one added last, wherever it was before."""
    await index.add(an_entry(1), now_ms=NOW_MS)
    await index.add(an_entry(2, key="k1"), now_ms=NOW_MS)
    assert await search(index, basis(1)) == ["k1"]
    assert await index.find("acme", "p", "f1", now_ms=NOW_MS) is None
    assert await index.find("acme", "p", "f2", now_ms=NOW_MS) is not None
    await index.add(an_entry(2, key="k1", partition="q"), now_ms=NOW_MS)
    assert await search(index, basis(2)) == []
    assert await search(index, basis(2), partition="q") == ["k1"]
    assert await index.count() == 1


async def test_a_form_has_one_entry(index: SemanticIndex) -> None:
    """The one added last; removing the one before does it no harm."""
    await index.add(an_entry(1, text="once?"), now_ms=NOW_MS)
    await index.add(an_entry(1, key="k2", text="Once?"), now_ms=NOW_MS)
    assert await search(index, basis(1)) == ["k2"]
    await index.remove("acme", ["k1"])
    found = await index.find("acme", "p", "f1", now_ms=NOW_MS)
    assert found is not None
    assert (found.key, found.text) == ("k2", "Once?")


async def test_an_entry_again_has_its_new_vector_and_end(index: SemanticIndex) -> None:
    """All of it is replaced."""
    await index.add(an_entry(1), now_ms=NOW_MS)
    await index.add(an_entry(2), now_ms=NOW_MS)
    again = an_entry(1, vector=basis(3), expires_ms=NOW_MS + 90_000)
    await index.add(again, now_ms=NOW_MS)
    (nearest, *_) = await index.search("acme", "p", basis(3), count=2, now_ms=NOW_MS + 70_000)
    assert (nearest.key, nearest.expires_ms) == ("k1", NOW_MS + 90_000)
    assert nearest.similarity == pytest.approx(1, abs=0.01)


async def test_removed_entries_are_gone(index: SemanticIndex) -> None:
    """Only of this tenant, and they may come again."""
    for place in range(4):
        await index.add(an_entry(place), now_ms=NOW_MS)
    await index.add(an_entry(1, tenant="other"), now_ms=NOW_MS)
    await index.remove("acme", ["k1", "k3", "k7", "k1"])
    assert sorted(await search(index, basis(1))) == ["k0", "k2"]
    assert await index.find("acme", "p", "f1", now_ms=NOW_MS) is None
    assert await search(index, basis(1), tenant="other") == ["k1"]
    await index.add(an_entry(1), now_ms=NOW_MS)
    assert await search(index, basis(1), count=1) == ["k1"]


async def test_clearing_a_tenant_spares_others(index: SemanticIndex) -> None:
    """All its partitions; then it starts anew."""
    for tenant in ("acme", "acme-2"):
        for partition in ("p", "q"):
            entry = an_entry(1, tenant=tenant, partition=partition, key=f"k{partition}")
            await index.add(entry, now_ms=NOW_MS)
    assert (await index.count("acme"), await index.count()) == (2, 4)
    await index.clear("acme")
    assert await search(index, basis(1)) == []
    assert await search(index, basis(1), tenant="acme-2", partition="q") == ["kq"]
    assert (await index.count("acme"), await index.count()) == (0, 2)
    await index.add(an_entry(1), now_ms=NOW_MS)
    assert await search(index, basis(1)) == ["k1"]


async def test_clearing_all_leaves_nothing(index: SemanticIndex) -> None:
    """Of anybody, private or not."""
    for tenant in ("acme", "other"):
        await index.add(an_entry(1, tenant=tenant), now_ms=NOW_MS)
        await index.add(an_entry(2, tenant=f"p-{tenant}"), now_ms=NOW_MS, private=True)
    await index.clear()
    assert await index.count() == 0
    assert await search(index, basis(1)) == []
    assert await search(index, basis(2), tenant="p-acme", private=True) == []


async def test_private_entries_are_found(index: SemanticIndex) -> None:
    """They are searched, replaced, removed and ended as any."""
    for place in range(3):
        await index.add(an_entry(place), now_ms=NOW_MS, private=True)
    assert await search(index, basis(1), count=1, private=True) == ["k1"]
    found = await index.find("acme", "p", "f1", now_ms=NOW_MS, private=True)
    assert found is not None
    assert found.key == "k1"
    assert await search(index, basis(1), now_ms=NOW_MS + 60_000, private=True) == []
    await index.remove("acme", ["k1"])
    assert await index.find("acme", "p", "f1", now_ms=NOW_MS, private=True) is None
    assert await index.count("acme") == 2
    await index.clear("acme")
    assert await index.count("acme") == 0


async def test_closing_twice_is_fine(index: SemanticIndex) -> None:
    """Close is idempotent."""
    await index.close()
    await index.close()


async def test_it_agrees_with_a_naive_one(index: SemanticIndex) -> None:
    """After any changes: the same entries, and the nearest where it is exact."""
    random = np.random.default_rng(5)
    naive: dict[str, Entry] = {}
    for _ in range(300):
        number, action = int(random.integers(40)), random.random()
        key = f"k{number}"
        if action < 0.7:
            vector = random.standard_normal(DIMS).astype(np.float32)
            vector /= np.float32(np.linalg.norm(vector))
            entry = an_entry(number, vector=vector, partition=f"p{random.integers(2)}")
            naive[key] = entry
            await index.add(entry, now_ms=NOW_MS)
        else:
            naive.pop(key, None)
            await index.remove("acme", [key])
    assert await index.count() == len(naive)
    query = basis(0)
    for partition in ("p0", "p1"):
        there = [entry for entry in naive.values() if entry.partition == partition]
        there.sort(key=lambda entry: -float(entry.vector @ query))
        found = await search(index, query, partition=partition, count=50)
        expected = [entry.key for entry in there]
        if index.is_exact:
            assert found == expected
        assert sorted(found) == sorted(expected)
