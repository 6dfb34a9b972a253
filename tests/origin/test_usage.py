"""What a process counts, when it is flushed, and how long after a request the next one came."""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from origin import usage
from origin.stores.contract import StoreError
from origin.stores.memory_usage import MemoryUsageStore
from origin.stores.usage_contract import MAX_KEYS, MAX_NAMES, Kept, Name, Usage
from origin.usage import MAX_NAMED, MAX_SEEN, REUSE_BOUNDS_S, REUSE_BUCKETS, Recorder
from shared.counts import OTHER, Counts, parse
from shared.envelope import TokenCounts
from shared.errors import InternalError

CHAT = "/v1/chat/completions"
KEY = "0" * 64
USED = TokenCounts(prompt=3, completion=2)


class FailingStore(MemoryUsageStore):
    """Refuses while it is `down`; while it is `held` it takes its time."""

    def __init__(self) -> None:
        super().__init__()
        self.down = False
        self.adds = 0
        self.asked = asyncio.Semaphore(0)
        self.free = asyncio.Event()
        self.free.set()

    async def add(self, tenants: Mapping[str, Usage]) -> None:
        """Add, or fail."""
        self.adds += 1
        self.asked.release()
        await self.free.wait()
        if self.down:
            raise StoreError("down")
        await super().add(tenants)

    async def until_asked(self, times: int) -> None:
        """Wait until it has been asked so often (more)."""
        async with asyncio.timeout(10):
            for _ in range(times):
                await self.asked.acquire()


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        """The time."""
        return self.now_s


async def kept(recorder: Recorder, tenant: str = "acme") -> Kept:
    """What there is of a tenant after a flush."""
    assert await recorder.flush()
    return await recorder.store.read(tenant, top=10)


def of(what: str, numbers: Mapping[Name, int]) -> dict[Name, int]:
    """Numbers of one kind."""
    return {name: number for name, number in numbers.items() if name[2] == what}


async def test_nothing_is_flushed_before_there_is_something() -> None:
    """Nor twice: a quiet process leaves the store alone."""
    store = FailingStore()
    recorder = Recorder(store)
    assert await recorder.flush()
    assert store.adds == 0
    recorder.count(CHAT, "acme", "miss", latency_s=0, model="m", key=KEY)
    assert await recorder.flush()
    assert await recorder.flush()
    assert store.adds == 1


async def test_what_was_refused_is_sent_again() -> None:
    """Once, with what came since."""
    store = FailingStore()
    recorder = Recorder(store)
    store.down = True
    for _ in range(3):
        recorder.count(
            CHAT, "acme", "hit", latency_s=0, model="m", strategy="exact", saved=USED, key=KEY
        )
        recorder.count_spent("acme", "m", USED)
        assert not await recorder.flush()
    store.down = False
    recorder.count(CHAT, "acme", "miss", latency_s=0, model="m")
    numbers = (await kept(recorder)).numbers
    assert of("requests", numbers) == {
        ("m", None, "requests", "origin", "hit", "exact"): 3,
        ("m", None, "requests", "origin", "miss", None): 1,
    }
    assert of("saved", numbers) == {
        ("m", None, "saved", "origin", "prompt"): 9,
        ("m", None, "saved", "origin", "completion"): 6,
    }
    assert of("spent", numbers) == {
        ("m", None, "spent", "prompt"): 9,
        ("m", None, "spent", "completion"): 6,
    }
    assert [(hot.key, hot.hits) for hot in (await kept(recorder)).hottest] == [(KEY[:16], 3)]


async def test_what_comes_during_a_flush_goes_with_the_next() -> None:
    """Flushes do not meet, and none of them takes what another has."""
    store = FailingStore()
    recorder = Recorder(store)
    store.free.clear()
    recorder.count(CHAT, "acme", "miss", latency_s=0)
    flushes = [asyncio.create_task(recorder.flush()) for _ in range(2)]
    await asyncio.sleep(0)
    recorder.count(CHAT, "acme", "miss", latency_s=0)
    store.free.set()
    assert all(await asyncio.gather(*flushes))
    requests = of("requests", (await kept(recorder)).numbers)
    assert requests == {(None, None, "requests", "origin", "miss", None): 2}


async def test_an_outage_costs_bounded_memory() -> None:
    """However long it is, and whatever is asked meanwhile."""
    store = FailingStore()
    store.down = True
    recorder = Recorder(store)
    for flush in range(120):
        for number in range(300):
            key = f"{flush:08x}{number:08x}" + KEY[:48]
            model = f"m{flush}-{number}"
            recorder.count(CHAT, "acme", "hit", latency_s=0, model=model, strategy="exact", key=key)
            recorder.count_spent("acme", model, USED)
        assert not await recorder.flush()
    (pending,) = recorder._pending.values()
    assert len(pending.numbers) <= MAX_NAMES + 100
    assert len(pending.hits) <= MAX_KEYS
    assert len(recorder._seen) == MAX_SEEN
    assert len(recorder._reuses) <= MAX_NAMED + 1
    assert sum(of("requests", pending.numbers).values()) == 120 * 300
    spent = of("spent", pending.numbers)
    assert sum(n for name, n in spent.items() if name[-1] == "prompt") == 120 * 300 * 3


async def test_flushing_goes_on_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every few seconds, also after one that failed; closing flushes what is left."""
    monkeypatch.setattr(usage, "FLUSH_S", 0.01)
    store = FailingStore()
    store.down = True
    recorder = Recorder(store)
    recorder.start()
    recorder.count(CHAT, "acme", "miss", latency_s=0)
    await store.until_asked(2)
    store.down = False
    await store.until_asked(1)
    recorder.count(CHAT, "acme", "miss", latency_s=0)
    await recorder.close()
    requests = of("requests", (await store.read("acme", top=0)).numbers)
    assert requests == {(None, None, "requests", "origin", "miss", None): 2}
    adds = store.adds
    await asyncio.sleep(0.03)
    assert store.adds == adds


async def test_closing_during_an_outage_ends() -> None:
    """What cannot be kept is lost."""
    store = FailingStore()
    store.down = True
    recorder = Recorder(store)
    recorder.count(CHAT, "acme", "miss", latency_s=0)
    await recorder.close()


async def test_latency_is_told() -> None:
    """In milliseconds, hits and misses apart; errors are not timed."""
    recorder = Recorder(MemoryUsageStore())
    recorder.count(CHAT, "acme", "hit", latency_s=0.002, strategy="exact", key=KEY)
    recorder.count(CHAT, "acme", "miss", latency_s=3)
    recorder.count(CHAT, "acme", "error", latency_s=9)
    numbers = (await kept(recorder)).numbers
    assert of("latency", numbers) == {
        (None, None, "latency", "origin", "hit", "2"): 1,
        (None, None, "latency", "origin", "miss", "5000"): 1,
    }
    assert numbers[None, None, "latency_us", "origin", "miss"] == 3_000_000


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["acme", "other"]),
            st.sampled_from(["a", "b", "c"]),
            st.sampled_from([0.1, 1, 1.5, 60, 3601, 10**7]),
        ),
        max_size=40,
    )
)
def test_reuses_are_intervals_between_requests_for_one_key(
    requests: list[tuple[str, str, float]],
) -> None:
    """Whatever answered them; tenants share no key. Recounted naively."""
    clock = Clock()
    recorder = Recorder(MemoryUsageStore(), clock_s=clock)
    last_s: dict[tuple[str, str], float] = {}
    intervals: Counter[tuple[str, str]] = Counter()
    for tenant, key, pause_s in requests:
        clock.now_s += pause_s
        recorder.count(
            CHAT, tenant, "miss", latency_s=0, model="m", content_class="c", key=key * 64
        )
        if (tenant, key) in last_s:
            since_s = clock.now_s - last_s[tenant, key]
            intervals[tenant, REUSE_BUCKETS[bisect_left(REUSE_BOUNDS_S, since_s)]] += 1
        last_s[tenant, key] = clock.now_s

    async def told() -> dict[tuple[str, str], int]:
        return {
            (tenant, str(name[3])): number
            for tenant in ("acme", "other")
            for name, number in of("reuse", (await kept(recorder, tenant)).numbers).items()
            if name[:2] == ("m", "c")
        }

    assert asyncio.run(told()) == dict(intervals)


async def test_the_edges_hits_are_reuses() -> None:
    """Spread evenly since the last that is known; keys unknown here tell nothing."""
    clock = Clock()
    recorder = Recorder(MemoryUsageStore(), clock_s=clock)
    recorder.count(CHAT, "acme", "miss", latency_s=0, model="m", key=KEY)
    counts = Counts()
    for _ in range(4):
        counts.count("acme", "hit", latency_ms=1, short_key=KEY[:16])
    counts.count("acme", "hit", latency_ms=1, short_key="f" * 16)
    clock.now_s += 400
    await recorder.take_edge(parse(counts.take() or b"").tenants)
    clock.now_s += 50
    recorder.count(CHAT, "acme", "miss", latency_s=0, model="m", key=KEY)
    assert of("reuse", (await kept(recorder)).numbers) == {
        ("m", None, "reuse", "120"): 4,
        ("m", None, "reuse", "60"): 1,
    }


async def test_the_edges_flushes_are_counted() -> None:
    """Each once, whatever is in it: over time they say that the edge is there."""
    store = MemoryUsageStore()
    recorder = Recorder(store)
    for _ in range(2):
        counts = Counts()
        for _ in range(3):
            counts.count("acme", "hit", latency_ms=1)
        await recorder.take_edge(parse(counts.take() or b"").tenants)
    flush: Name = (None, None, "flush", "edge")
    assert (await kept(recorder)).numbers[flush] == 2
    (slot,) = (await store.recent("acme")).slots.values()
    assert slot[flush] == 2


@pytest.mark.parametrize(
    ("similarity", "bucket"),
    [(-1, "0.5"), (0.5, "0.5"), (0.501, "0.525"), (0.975, "0.975"), (1, "1"), (1.0000001, "1")],
)
async def test_decisions_are_counted_by_similarity(similarity: float, bucket: str) -> None:
    """By the upper bound of its bucket; rounding may bring a cosine above 1."""
    recorder = Recorder(MemoryUsageStore())
    recorder.count_semantic("acme", "refused", similarity)
    recorder.count_semantic("acme", "none", None)
    assert (await kept(recorder)).numbers == {
        (None, None, "semantic", "refused"): 1,
        (None, None, "semantic", "none"): 1,
        (None, None, "similarity", "refused", bucket): 1,
    }


async def test_the_edge_hears_of_an_outage() -> None:
    """It keeps what it has counted; nothing of it is counted here."""
    store = FailingStore()
    store.down = True
    recorder = Recorder(store)
    counts = Counts()
    counts.count("acme", "hit", latency_ms=1)
    with pytest.raises(InternalError) as raised:
        await recorder.take_edge(parse(counts.take() or b"").tenants)
    assert raised.value.status == 503
    assert await recorder.flush()
    store.down = False
    assert (await kept(recorder)).numbers == {}


async def test_odd_model_names_are_one() -> None:
    """A name is a client's text: a long one would fill the store."""
    recorder = Recorder(MemoryUsageStore())
    for model in ("m" * 97, "a prompt"):
        for _ in range(2):
            recorder.count(
                CHAT, "acme", "miss", latency_s=0, model=model, key=KEY[:63] + str(len(model) % 9)
            )
        recorder.count_spent("acme", model, USED)
    numbers = (await kept(recorder)).numbers
    assert {name[0] for name in numbers} == {OTHER, None}
