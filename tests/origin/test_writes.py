"""Writes behind the answer: retries and their bounds, and what a crash between them leaves."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from origin.entries import build_entry
from origin.lifetimes import Tiers
from origin.metrics import STORE_WRITES
from origin.pipeline import Pipeline
from origin.queries import Query
from origin.relay import Relay
from origin.stores.contract import StoreError
from origin.stores.lease_contract import Lease
from origin.stores.memory import MemoryStore
from origin.stores.memory_leases import MemoryLeases
from origin.writes import Writes, head_of
from shared.envelope import Envelope, decode, encode
from shared.freshness import Lifetimes
from shared.keys import key_rings
from shared.requests import Endpoint
from tests.origin.test_pipeline import Bench, Clock, document_of
from tests.support.engines import MODEL, ScriptedEngine, chat_answer

KEY = "a" * 64
NOW_MS = 1_700_000_000_000
KEYS = key_rings("a secret of the tests, long enough")


class FailingStore(MemoryStore):
    """Fails as often as it is told; `loses_answers` has it do what it then says it has not."""

    def __init__(self) -> None:
        super().__init__(now_ms=lambda: NOW_MS)
        self.failures = 0
        self.loses_answers = False
        self.puts = 0
        self.at_once = 0
        self.most_at_once = 0

    async def put(self, *args: Any, **named: Any) -> None:
        """See Store.put."""
        self.puts += 1
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        await asyncio.sleep(0)
        self.at_once -= 1
        fails = self.failures > 0
        self.failures -= fails
        if not fails or self.loses_answers:
            await super().put(*args, **named)
        if fails:
            raise StoreError("down")


def entry_of(text: str, *, key: str = KEY, started_ms: int = NOW_MS) -> Envelope:
    """An entry that says so."""
    return build_entry(
        Endpoint.CHAT,
        chat_answer(text),
        key=key,
        tenant="acme",
        model=MODEL,
        generation_started_ms=started_ms,
        created_ms=started_ms,
        expiry_ms=(NOW_MS + 10**6,) * 3,
        fingerprint="f1",
    )


@pytest.fixture
def store() -> FailingStore:
    """A store that works until it is told to fail."""
    return FailingStore()


@pytest.fixture
def counted() -> dict[str, float]:
    """What was counted in a test, by outcome; complete when the test looks at it."""

    def value(outcome: str) -> float:
        return float(STORE_WRITES.labels(outcome)._value.get())

    outcomes = ("stored", "extended", "failed", "dropped")
    before = {outcome: value(outcome) for outcome in outcomes}

    class Counted(dict[str, float]):
        def __missing__(self, outcome: str) -> float:
            return value(outcome) - before[outcome]

    return Counted()


async def test_write_that_works_is_made_once(
    store: FailingStore, counted: dict[str, float]
) -> None:
    """And is there when `put` returns."""
    writes = Writes(store)
    entry = entry_of("One")
    await writes.put(entry, token=1)
    assert await store.get(KEY) == encode(entry)
    await writes.close()
    assert (store.puts, counted["stored"]) == (1, 1)


@pytest.mark.parametrize(("failures", "told_at_once"), [(0, True), (1, False)])
async def test_who_waits_for_a_write_is_told_once_it_is_stored(
    store: FailingStore, failures: int, *, told_at_once: bool
) -> None:
    """Not before, though a retry be needed, and not twice."""
    store.failures = failures
    writes = Writes(store)
    entry = entry_of("One")
    told: list[bool] = []
    await writes.put(entry, token=1, then=lambda: told.append(KEY in store._entries))
    assert told == [True] * told_at_once
    await writes.close()
    assert told == [True]


async def test_who_waits_for_a_write_that_is_given_up_is_not_told(store: FailingStore) -> None:
    """Nothing is stored."""
    store.failures = 10**6
    writes = Writes(store, patience_s=0.01)
    told: list[int] = []
    await writes.put(entry_of("One"), token=1, then=lambda: told.append(1))
    await writes.close()
    assert told == []


@pytest.mark.parametrize("loses_answers", [False, True])
@pytest.mark.parametrize("failures", [1, 2, 5])
async def test_write_that_fails_is_made_later(
    store: FailingStore, counted: dict[str, float], failures: int, *, loses_answers: bool
) -> None:
    """`put` returns after one try; a shutdown waits for the rest. Made twice, it is there once."""
    store.failures, store.loses_answers = failures, loses_answers
    writes = Writes(store)
    entry = entry_of("One")
    await writes.put(entry, token=1)
    assert store.puts == 1
    await writes.close()
    assert await store.get(KEY) == encode(entry)
    assert (counted["stored"], counted["failed"]) == (1, 0)


async def test_write_that_goes_on_failing_is_given_up(
    store: FailingStore, counted: dict[str, float]
) -> None:
    """After its patience, not before it has been tried again."""
    store.failures = 10**6
    writes = Writes(store, patience_s=0.5)
    await writes.put(entry_of("One"), token=1)
    async with asyncio.timeout(10):
        await writes.close()
    assert store.puts > 1
    assert (counted["stored"], counted["failed"], counted["dropped"]) == (0, 1, 0)


async def test_shutdown_waits_no_longer_where_many_wait_for_a_store_that_hangs(
    store: FailingStore, counted: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """They take their turns, but each has its own end."""

    async def hang(_key: str) -> None:
        await asyncio.sleep(0.2)
        raise StoreError("no reply")

    store.failures = 10**6
    monkeypatch.setattr(store, "get", hang)
    writes = Writes(store, patience_s=0.5)
    for number in range(200):
        await writes.put(entry_of("One", key=f"{number:064x}"), token=1)
    async with asyncio.timeout(20):  # 40 s, one after another
        await writes.close()
    assert counted["failed"] == 200


@pytest.mark.parametrize("bound", [{"max_waiting": 3}, {"max_waiting_bytes": 3}])
async def test_beyond_the_bound_the_newest_is_dropped(
    store: FailingStore, counted: dict[str, float], bound: dict[str, int]
) -> None:
    """Those that wait stay, and are made; there is room for others then."""
    entries = [entry_of("One", key=f"{number:064x}") for number in range(5)]
    if "max_waiting_bytes" in bound:
        bound = {"max_waiting_bytes": 3 * len(encode(entries[0]))}
    writes = Writes(store, **bound)
    for _ in range(2):
        store.failures = 5
        for entry in entries:
            await store.delete(entry.header.key)
            await writes.put(entry, token=1)
        await writes.close()
        there = [await store.get(entry.header.key) is not None for entry in entries]
        assert there == [True] * 3 + [False] * 2
    assert (counted["stored"], counted["dropped"]) == (6, 4)


async def test_store_that_comes_back_is_not_run_over(store: FailingStore) -> None:
    """What waits is written one after another."""
    store.failures = 10**6
    writes = Writes(store)
    entries = [entry_of("One", key=f"{number:064x}") for number in range(100)]
    for entry in entries:
        await writes.put(entry, token=1)
    store.failures, store.most_at_once = 50, 0
    await writes.close()
    assert store.most_at_once == 1
    assert None not in [await store.get(entry.header.key) for entry in entries]


@pytest.mark.parametrize(
    ("started_ms", "stays"), [(NOW_MS + 1, True), (NOW_MS, True), (NOW_MS - 1, False)]
)
async def test_late_write_replaces_nothing_newer(
    store: FailingStore, started_ms: int, *, stays: bool
) -> None:
    """By when the generations started, whatever wrote the other one."""
    store.failures = 1
    writes = Writes(store)
    late, other = entry_of("Late"), entry_of("Other", started_ms=started_ms)
    await writes.put(late, token=1)
    await store.put(KEY, encode(other), other.header.expires_ms)
    await writes.close()
    assert await store.get(KEY) == encode(other if stays else late)


async def test_late_write_of_a_lease_that_was_followed_by_another_is_refused(
    store: FailingStore,
) -> None:
    """Also while that one's entry is not there yet."""
    store.failures = 1
    writes = Writes(store)
    await writes.put(entry_of("Late"), token=1)
    store.newest_tokens[KEY] = 2
    await writes.close()
    assert await store.get(KEY) is None


async def test_late_write_replaces_what_is_no_entry(store: FailingStore) -> None:
    """That answers nobody."""
    store.failures = 1
    writes = Writes(store)
    entry = entry_of("One")
    await writes.put(entry, token=1)
    await store.put(KEY, b"junk", NOW_MS + 10**6)
    await writes.close()
    assert await store.get(KEY) == encode(entry)


async def test_head_names_all_of_an_envelope() -> None:
    """Another payload, or another end, is another head."""
    entry = entry_of("One")
    payload = bytearray(entry.payload)
    payload[-1] ^= 1
    later = replace(entry.header, stale_until_ms=entry.header.stale_until_ms + 1)
    others = [
        Envelope(header=entry.header, payload=bytes(payload)),
        Envelope(header=later, payload=entry.payload),
    ]
    heads = {head_of(encode(one)) for one in (entry, *others)}
    assert len(heads) == 3


class DyingStore(MemoryStore):
    """What one process makes of a store that others share: it dies before its Nth write."""

    def __init__(self, shared: MemoryStore, steps: int) -> None:
        super().__init__(now_ms=shared.now_ms)
        self._entries, self._granted_until_ms = shared._entries, shared._granted_until_ms
        self._asked, self.newest_tokens = shared._asked, shared.newest_tokens
        self._steps = steps

    def step(self) -> None:
        """Go on, or die."""
        if self._steps <= 0:
            raise StoreError("nothing reaches it from a dead process")
        self._steps -= 1

    async def put(self, *args: Any, **named: Any) -> None:
        """See Store.put."""
        self.step()
        await super().put(*args, **named)


class DyingLeases(MemoryLeases):
    """The leases of that process."""

    def __init__(self, store: DyingStore, shared: MemoryLeases) -> None:
        super().__init__(store)
        self._dying = store
        self._held, self._said = shared._held, shared._said

    async def end(self, lease: Lease, number: int, piece: bytes) -> None:
        """See Leases.end."""
        self._dying.step()
        await super().end(lease, number, piece)


TIERS = Tiers.parse('{"classes": {"memo": {"sensitivity": "internal"}}}')


@pytest.mark.parametrize("steps", [0, 1, 2])
async def test_crash_between_any_two_writes_leaves_nothing_wrong(steps: int) -> None:
    """Entry, end of the lease: whoever comes after finds the entry, or makes it; the edge is not
    granted what it must not have; no lease blocks for longer than it lasts.
    """  # noqa: D205 - one sentence
    clock = Clock()
    shared = MemoryStore(now_ms=clock)
    leases = MemoryLeases(shared)

    def pipeline(engine: ScriptedEngine, store: MemoryStore, its_leases: MemoryLeases) -> Pipeline:
        async def now_ms() -> int:
            return clock()

        return Pipeline(
            keys=KEYS,
            store=store,
            engine=engine,
            lifetimes=Lifetimes(
                ttl_s=100, stale_while_revalidate_s=50, stale_if_error_s=200, max_ttl_s=1000
            ),
            tiers=TIERS,
            deadline_s=5,
            store_clock=now_ms,
            relay=Relay(its_leases, KEYS),
            clock_ms=clock,
        )

    def query(of: Pipeline) -> Query:
        bench.pipeline = of
        return bench.query(headers={"encore-class": "memo"})

    bench = Bench()
    first, second = ScriptedEngine(), ScriptedEngine()
    first.text, second.text = "Of the first", "Of the second"
    dying_store = DyingStore(shared, steps)
    dying = pipeline(first, dying_store, DyingLeases(dying_store, leases))
    asked = query(dying)
    key = bench.key(asked)
    assert (await bench.run(asked))[1] == "Of the first"  # it may have been sent before the crash
    clock.now_ms += 3001  # the lease runs out
    alive = pipeline(second, shared, leases)
    async with asyncio.timeout(5):
        how, _ = await bench.run(query(alive))
    assert how == ("hit" if steps >= 1 else "miss")
    assert second.runs == (0 if steps >= 1 else 1)
    stored = await shared.get(key)
    assert stored is not None
    header = decode(stored).header
    while clock.now_ms <= header.expires_ms:
        assert not await alive.edge_writes.grant(document_of(), header)
        clock.now_ms += 30_000
    for waiting in dying._generations._writes._waiting:
        waiting.cancel()
    for one in (dying, alive):
        await one.close()
