"""Sliding lifetimes: when an entry's end moves, how far, and what must not move it."""

from __future__ import annotations

import asyncio
import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from origin.encryption import open_segment
from origin.exact_tier import Hit
from origin.lifetimes import Tiers
from origin.queries import Query
from origin.sliding import Sliding
from origin.stores.contract import StoreError
from shared.control_document import ControlDocument, Policy
from shared.envelope import SEGMENT_JSON, Header, decode
from tests.origin.test_pipeline import KEYS, START_MS, Bench, document_of

TTL_S = 100
"""As of `Bench`, whose longest is 1,000 s."""
SLIDING = Tiers.parse(
    """{"models": {"scripted": {"sliding": true}}, "classes": {
        "still": {"sliding": false}, "short": {"ttl_s": 40}, "memo": {"sensitivity": "internal"},
        "contract": {"sensitivity": "confidential"}}}"""
)


@pytest.fixture
def bench() -> Bench:
    """A pipeline whose one model slides."""
    return Bench(tiers=SLIDING)


async def hit(bench: Bench, query: Query | None = None) -> Header:
    """Ask, and wait for what follows; the header that answered."""
    answer = await bench.pipeline.answer(query or bench.query())
    assert isinstance(answer, Hit)
    assert bench.pipeline._sliding is not None
    await bench.pipeline._sliding.close()
    return answer.envelope.header


async def ends_s(bench: Bench, query: Query | None = None) -> tuple[float, float, float]:
    """(fresh, stale, error) ends of what is stored, in seconds after the start."""
    header = await bench.stored(query)
    assert header is not None
    ends_ms = (header.fresh_until_ms, header.stale_until_ms, header.error_until_ms)
    fresh, stale, error = ((at_ms - START_MS) / 1000 for at_ms in ends_ms)
    return fresh, stale, error


@pytest.mark.parametrize(("at_s", "fresh_s"), [(0, 100), (50, 100), (50.001, 150.001), (100, 200)])
async def test_hit_in_the_last_half_moves_the_end(
    bench: Bench, at_s: float, fresh_s: float
) -> None:
    """All of its ends; what it says of its making stays, and it is the same answer."""
    await bench.run(bench.query())
    before = await bench.stored()
    bench.clock.now_ms = START_MS + round(at_s * 1000)
    served = await hit(bench)
    assert served == before
    assert await ends_s(bench) == (fresh_s, fresh_s + 50, fresh_s + 200)
    after = await bench.stored()
    assert before is not None
    assert after is not None
    kept = ("created_ms", "generation_started_ms", "etag", "tags", "fingerprint", "segments")
    assert all(getattr(before, name) == getattr(after, name) for name in kept)
    assert (await bench.run(bench.query())) == ("hit", before.etag)
    assert bench.engine.runs == 1


async def test_read_often_it_is_written_seldom(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once in half its freshness at most, up to the longest there is, and not at all from then."""
    await bench.run(bench.query())
    writes: list[int] = []
    put = bench.store.put

    async def noted(key: str, envelope: bytes, expires_at_ms: int, **how: Any) -> None:
        writes.append(bench.clock.now_ms)
        await put(key, envelope, expires_at_ms, **how)

    monkeypatch.setattr(bench.store, "put", noted)
    for at_s in range(1001):
        bench.clock.now_ms = START_MS + at_s * 1000
        await hit(bench)
    gaps_ms = [later - earlier for earlier, later in pairwise(writes)]
    assert min(gaps_ms) > TTL_S * 500
    assert (await ends_s(bench))[0] == 1000
    bench.clock.now_ms += 1
    assert await hit(bench)  # stale now, and refreshed
    while bench.pipeline._refreshes:
        await asyncio.wait(bench.pipeline._refreshes)
    assert bench.engine.runs == 2


async def test_hits_at_once_write_once(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the store takes no writes: it is not asked at every hit."""
    await bench.run(bench.query())
    tries = 0

    async def fail(*_: object, **__: object) -> None:
        nonlocal tries
        tries += 1
        raise StoreError("full")

    monkeypatch.setattr(bench.store, "put", fail)
    bench.clock.now_ms += 60_000
    for _ in range(3):
        await asyncio.gather(*(bench.pipeline.answer(bench.query()) for _ in range(10)))
        await hit(bench)
    assert tries == 1


@pytest.mark.parametrize(
    ("headers", "asked", "moves"),
    [
        ({}, {}, True),
        ({}, {"encore-ttl": "99"}, False),
        ({}, {"encore-ttl": "100"}, True),
        ({"encore-ttl": "99"}, {}, False),
        ({"encore-ttl": "100"}, {}, True),
        ({"encore-class": "still"}, {}, False),
        ({"encore-class": "short"}, {}, True),
        ({"encore-class": "contract"}, {}, False),
        ({"encore-class": "memo"}, {}, True),
    ],
)
async def test_what_asked_for_less_gets_less(
    bench: Bench, headers: dict[str, str], asked: dict[str, str], *, moves: bool
) -> None:
    """Who had it made, who hits it, and its class; what is confidential never moves."""
    query = bench.query(headers=headers)
    await bench.run(query)
    before = await ends_s(bench, query)
    bench.clock.now_ms = START_MS + round(before[0] * 900)
    await hit(bench, bench.query(headers=headers | asked))
    assert (await ends_s(bench, query) != before) == moves


async def test_without_a_sliding_tier_nothing_is_looked_at() -> None:
    """A hit costs what it cost."""
    assert Bench(tiers=Tiers.parse('{"models": {"m": 5}}')).pipeline._sliding is None


async def test_internal_answer_stays_one_for_its_longer_life(bench: Bench) -> None:
    """The edge is never granted it."""
    query = bench.query(headers={"encore-class": "memo"})
    await bench.run(query)
    bench.clock.now_ms += 90_000
    await hit(bench, query)
    header = await bench.stored(query)
    assert header is not None
    assert header.fresh_until_ms == START_MS + 190_000
    while bench.clock.now_ms < header.expires_ms:
        assert not await bench.pipeline.edge_writes.grant(document_of(), header)
        bench.clock.now_ms += 10_000


async def test_sealed_entry_is_sealed_again(bench: Bench) -> None:
    """Under its own secret, and it opens."""
    document = document_of(policy=Policy(encrypted=True))
    query = bench.query(document=document)
    await bench.run(query)
    before = await bench.store.get(bench.key(query))
    bench.clock.now_ms += 90_000
    await hit(bench, query)
    after = await bench.store.get(bench.key(query))
    assert before is not None
    assert after is not None
    old, new = decode(before), decode(after)
    assert new.header.fresh_until_ms == START_MS + 190_000
    assert new.header.encryption == old.header.encryption == KEYS.current.id
    opened = [open_segment(KEYS, one, SEGMENT_JSON) for one in (old, new)]
    assert opened[0] == opened[1] is not None
    assert new.segment(SEGMENT_JSON) != old.segment(SEGMENT_JSON)


@pytest.mark.parametrize("meanwhile", ["newer", "gone", "purged"])
async def test_entry_that_is_not_the_one_any_more_does_not_move(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, meanwhile: str
) -> None:
    """A newer one stays, one that is gone does not come back, a purged one answers nobody."""
    await bench.run(bench.query())
    bench.clock.now_ms += 90_000
    document: ControlDocument | None = None
    moved = Sliding._moved

    def slow(sliding: Sliding, *given: Any) -> Any:
        nonlocal document
        if meanwhile == "newer":
            bench.store._entries[bench.key()] = (b"a newer one", bench.clock.now_ms + 10**6)
        elif meanwhile == "gone":
            del bench.store._entries[bench.key()]
        else:
            document = bench.purged(everything=True)
        return moved(sliding, *given)

    monkeypatch.setattr(Sliding, "_moved", slow)
    await hit(bench)
    there = await bench.store.get(bench.key())
    if meanwhile == "gone":
        assert there is None
    elif meanwhile == "newer":
        assert there == b"a newer one"
    else:
        assert (await bench.run(bench.query(document=document)))[0] == "miss"


async def test_what_warming_finds_moved_is_not_made_anew(bench: Bench) -> None:
    """It has the longer life already."""
    await bench.run(bench.query())
    old = await bench.stored()
    assert old is not None
    bench.clock.now_ms += 90_000
    await hit(bench)
    new = await bench.pipeline.refresh(bench.query(), old)
    assert new == await bench.stored() != old
    assert bench.engine.runs == 1


@given(st.lists(st.integers(0, 300_000), max_size=30), st.integers(1, 200), st.booleans())
async def test_no_pattern_of_hits_makes_it_too_long(
    gaps_ms: list[int],
    ttl_s: int,
    sealed: bool,
) -> None:
    """Never past its longest, never back, never made again while it is fresh."""
    tiers = Tiers.parse(json.dumps({"models": {"*": {"ttl_s": ttl_s, "sliding": True}}}))
    bench = Bench(tiers=tiers)
    document = document_of(policy=Policy(encrypted=sealed))
    query = bench.query(document=document)
    await bench.run(query)
    last = await bench.stored(query)
    assert last is not None
    for gap_ms in gaps_ms:
        bench.clock.now_ms += gap_ms
        if bench.clock.now_ms > last.fresh_until_ms:
            break
        await hit(bench, query)
        header = await bench.stored(query)
        assert header is not None
        fresh_ms = header.fresh_until_ms
        assert last.fresh_until_ms <= fresh_ms <= START_MS + 10**6
        assert fresh_ms == last.fresh_until_ms or fresh_ms <= bench.clock.now_ms + ttl_s * 1000
        assert header.stale_until_ms == fresh_ms + 50_000
        assert header.error_until_ms == fresh_ms + 200_000
        last = header
    assert bench.engine.runs == 1
