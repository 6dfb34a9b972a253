"""Embeddings, input by input, over a store in memory and an engine whose steps a test decides."""

from __future__ import annotations

import asyncio
import base64
import json
import struct
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest

from origin.embeddings import BatchAnswer, Batches, is_batch
from origin.exact_tier import Hit
from origin.pipeline import Pipeline
from origin.queries import Query
from origin.stores.contract import StoreError
from origin.stores.memory import MemoryStore
from shared.compression import decompress
from shared.control_document import ControlDocument, Policy, Purge, purged
from shared.controls import parse_controls
from shared.envelope import SEGMENT_JSON, SEGMENT_JSON_BASE64, Header, decode
from shared.errors import ClientError, EncoreError, UpstreamError
from shared.freshness import Lifetimes
from shared.keys import KeyRing, KeyRings, key_ring, key_rings, tag_digest
from shared.requests import Endpoint
from tests.support.engines import MODEL, VectorEngine, vector_of

SECRET = "a secret of the tests, long enough"
OLD_SECRET = "the secret before it, long enough too"
KEYS = key_rings(SECRET)
BOTH_KEYS = key_rings(SECRET, OLD_SECRET)
START_MS = 1_700_000_000_000
HUNDRED = [f"text {number}" for number in range(100)]


class CountingStore(MemoryStore):
    """A store that counts reads, and can fail."""

    def __init__(self, **named: Any) -> None:
        super().__init__(**named)
        self.reads: list[int] = []
        self.fails = False

    async def get_many(self, keys: Sequence[str]) -> list[bytes | None]:
        """See Store.get_many."""
        self.reads.append(len(keys))
        if self.fails:
            raise StoreError("down")
        return await super().get_many(keys)

    async def put(self, *args: Any, **named: Any) -> None:
        """See Store.put."""
        if self.fails:
            raise StoreError("down")
        await super().put(*args, **named)


def document_of(tenant: str = "acme", **changes: Any) -> ControlDocument:
    """A control document by which nothing is purged."""
    return ControlDocument(tenant=tenant, revision=1, **changes)


class Bench:
    """A pipeline, its batches and the parts a test turns."""

    def __init__(self, keys: KeyRings = KEYS) -> None:
        self.now_ms = START_MS
        self.engine = VectorEngine()
        self.store = CountingStore(now_ms=lambda: self.now_ms)
        self.pipeline = Pipeline(
            keys=keys,
            store=self.store,
            engine=self.engine,
            lifetimes=Lifetimes(
                ttl_s=100, stale_while_revalidate_s=50, stale_if_error_s=200, max_ttl_s=1000
            ),
            deadline_s=5,
            store_clock=self.store_clock,
            clock_ms=lambda: self.now_ms,
        )
        self.batches = Batches(self.pipeline, self.engine)

    async def store_clock(self) -> int:
        """The clock that cut-offs are told by."""
        if self.store.fails:
            raise StoreError("down")
        return self.now_ms

    def query(
        self,
        given: Any,
        headers: dict[str, str] | None = None,
        *,
        document: ControlDocument | None = None,
        ring: KeyRing = KEYS.current,
        **fields: Any,
    ) -> Query:
        """A request as the routes would build it."""
        return self.pipeline.query(
            Endpoint.EMBEDDINGS,
            document or document_of(),
            parse_controls(headers or {}),
            json.dumps({"model": MODEL, "input": given, **fields}).encode(),
            ring=ring,
        )

    async def batch(self, given: Any, *args: Any, **named: Any) -> BatchAnswer:
        """The answer to a batch, once what follows it is done."""
        query = self.query(given, *args, **named)
        assert is_batch(query)
        answer = await self.batches.answer(query)
        await self.landed()
        return answer

    async def single(self, given: Any, *args: Any, **named: Any) -> tuple[bool, dict[str, Any]]:
        """(whether it was a hit, the answer) of a request for one input."""
        query = self.query(given, *args, **named)
        assert not is_batch(query)
        answer = await self.pipeline.answer(query)
        if isinstance(answer, Hit):
            return True, json.loads(decompress(answer.segment, max_bytes=1 << 20))
        with answer.flight.joined():
            await answer.flight.result()
        await answer.flight.landed()
        entry = answer.flight.entry
        if entry is None:
            return False, (await answer.flight.result()).answer
        segment = self.pipeline.segment(query, entry)
        assert segment is not None
        return False, json.loads(decompress(segment, max_bytes=1 << 20))

    async def landed(self) -> None:
        """Wait until all that was made is stored."""
        while self.pipeline._generations._flights._tasks:
            await asyncio.wait(self.pipeline._generations._flights._tasks.values())

    async def header(self, given: Any, **named: Any) -> Header:
        """The header of an input's entry."""
        encoded = await self.store.get(self.query(given, **named).key or "")
        assert encoded is not None
        return decode(encoded).header

    def purged(self, **named: Any) -> ControlDocument:
        """The document after a purge of what is named, now."""
        return purged(document_of(), Purge(**named), self.now_ms)


@pytest.fixture
def bench() -> Bench:
    """A fresh pipeline."""
    return Bench()


def float32(given: object) -> list[float]:
    """The vector of an input, as float32 values."""
    return list(struct.unpack("<3f", struct.pack("<3f", *vector_of(given))))


def said(answer: BatchAnswer) -> dict[str, Any]:
    """The body, read."""
    body: dict[str, Any] = json.loads(answer.body)
    return body


def vectors(answer: BatchAnswer) -> list[Any]:
    """The vectors in order; indices are checked."""
    data = said(answer)["data"]
    assert [datum["index"] for datum in data] == list(range(len(data)))
    return [datum["embedding"] for datum in data]


async def test_batch_of_100_with_90_known_computes_10(bench: Bench) -> None:
    """In one read of the store and one run, and it is answered whole, in order."""
    known = [text for number, text in enumerate(HUNDRED) if number % 10]
    await bench.batch(known)
    bench.store.reads.clear()
    answer = await bench.batch(HUNDRED)
    assert bench.engine.asked == [known, HUNDRED[::10]]
    assert bench.store.reads == [100]
    assert vectors(answer) == [float32(text) for text in HUNDRED]
    assert (answer.detail, answer.reason, answer.stored) == ("elements=90/100", "miss", True)
    assert answer.served is None


async def test_known_batch_is_a_hit(bench: Bench) -> None:
    """Without a run; as old as its oldest entry, as long to live as its shortest."""
    await bench.batch(["a", "b"])
    bench.now_ms += 20_000
    await bench.single("c", {"encore-ttl": "30"})
    bench.now_ms += 5_000
    answer = await bench.batch(["c", "a", "b"])
    assert len(bench.engine.asked) == 2
    assert answer.served is not None
    assert (answer.served.age_s, answer.served.ttl_s) == (25, 25)
    assert answer.detail == "elements=3/3"
    assert vectors(answer) == [float32(text) for text in "cab"]


async def test_repeated_inputs_are_made_once_and_counted_each(bench: Bench) -> None:
    """Every place has its vector, and its tokens, as an API that knows no cache counts."""
    answer = await bench.batch(["aa", "b", "aa", "aa"])
    assert bench.engine.asked == [["aa", "b"]]
    assert vectors(answer) == [float32(text) for text in ("aa", "b", "aa", "aa")]
    assert said(answer)["usage"] == {"prompt_tokens": 7, "total_tokens": 7}
    assert (await bench.batch(["aa", "aa", "c"])).detail == "elements=2/3"


async def test_usage_is_the_sum_of_what_each_input_has(bench: Bench) -> None:
    """Whatever of it comes from the cache; the other fields are the model's."""
    bench.engine.counts = True
    await bench.batch(["a", "bbb"])
    answer = said(await bench.batch(["bbb", "cc"]))
    assert answer["usage"] == {"prompt_tokens": 5, "total_tokens": 5}
    assert (answer["object"], answer["model"]) == ("list", MODEL)


@pytest.mark.parametrize("first", ["float", "base64", None])
async def test_one_entry_serves_both_encodings(bench: Bench, first: str | None) -> None:
    """Alone or in a batch, whichever was asked for first: the same float32, to the bit."""
    hit, answer = await bench.single(["a house"], encoding_format=first)
    assert not hit
    assert isinstance(answer["data"][0]["embedding"], str) == (first == "base64")
    await bench.single("b")
    for encoding in ("float", "base64"):
        hit, alone = await bench.single("a house", encoding_format=encoding)
        assert hit
        expected: Any = float32("a house")
        if encoding == "base64":
            expected = base64.b64encode(struct.pack("<3f", *expected)).decode()
        assert alone["data"] == [{"object": "embedding", "index": 0, "embedding": expected}]
        together = await bench.batch(["b", "a house"], encoding_format=encoding)
        assert vectors(together)[1] == expected
    assert bench.engine.asked == [["a house"], ["b"]]
    assert bench.engine.encodings == [None, None]
    header = await bench.header("a house")
    assert list(header.segments) == [SEGMENT_JSON, SEGMENT_JSON_BASE64]


async def test_batch_fills_what_single_requests_hit(bench: Bench) -> None:
    """Texts and token ids; in the encoding that was not asked for, too."""
    await bench.batch([[1, 2], [3]], encoding_format="base64")
    assert bench.engine.encodings == [None]
    hit, answer = await bench.single([[1, 2]])
    assert hit
    assert answer["data"][0]["embedding"] == float32([1, 2])
    assert answer["usage"] == {"prompt_tokens": 2, "total_tokens": 2}
    assert (await bench.single([3]))[0]


@pytest.mark.parametrize(
    "other",
    [
        {"dimensions": 3},
        {"headers": {"encore-scope": "u"}},
        {"headers": {"encore-bucket": "1"}},
        {"document": document_of("other")},
    ],
)
async def test_other_fields_scopes_and_tenants_share_nothing(
    bench: Bench, other: dict[str, Any]
) -> None:
    """An input's entry is for the same request in all else."""
    await bench.batch(["a", "b"])
    assert (await bench.batch(["a", "b"], **other)).known == 0


@pytest.mark.parametrize("named", [{"tags": ("t",)}, {"models": (MODEL,)}, {"everything": True}])
async def test_purges_reach_every_input(bench: Bench, named: dict[str, Any]) -> None:
    """By tag, by model, of all: made again, in one run."""
    named = {**named}
    if "tags" in named:
        named["tags"] = (tag_digest(KEYS.current, "acme", "t"),)
    await bench.batch(["a", "b"], {"encore-tags": "t"})
    document = bench.purged(**named)
    bench.now_ms += 1
    answer = await bench.batch(["a", "b"], document=document)
    assert (answer.detail, answer.known) == ("purged; elements=0/2", 0)
    assert (await bench.batch(["a", "b"], document=document)).known == 2


async def test_purge_of_one_input_by_key_or_tag_leaves_the_others(bench: Bench) -> None:
    """A batch keeps nothing of its own that a purge would not reach."""
    await bench.batch(["a", "b"])
    await bench.single("c", {"encore-tags": "t"})
    document = bench.purged(
        keys=(bench.query("b").key or "",), tags=(tag_digest(KEYS.current, "acme", "t"),)
    )
    bench.now_ms += 1
    answer = await bench.batch(["a", "b", "c"], document=document)
    assert bench.engine.asked[-1] == ["b", "c"]
    assert answer.known == 1


async def test_purge_while_a_batch_is_made_wins(bench: Bench) -> None:
    """What began before it is not joined, and its entries are dead when they are stored."""
    bench.engine.gate.clear()
    asking = asyncio.create_task(bench.batch(["a", "b", "c"]))
    await until_asked(bench, 1)
    bench.now_ms += 1
    document = bench.purged(keys=tuple(bench.query(text).key or "" for text in "bc"))
    bench.now_ms += 1
    later = asyncio.create_task(bench.batch(["a", "b"], document=document))
    await until_asked(bench, 2)
    assert bench.engine.asked[1] == ["b"]
    bench.engine.gate.set()
    await asyncio.gather(asking, later)
    started = [(await bench.header(text)).generation_started_ms - START_MS for text in "abc"]
    assert started == [0, 2, 0]
    assert (await bench.batch(["a", "b", "c"], document=document)).known == 2


async def test_tags_and_ttl_are_those_of_every_entry(bench: Bench) -> None:
    """By the rules of any entry, the joiner's wishes included."""
    bench.engine.gate.clear()
    asking = [
        asyncio.create_task(bench.batch(["a", "b"], {"encore-tags": "t", "encore-ttl": "50"})),
        asyncio.create_task(bench.batch(["b", "c"], {"encore-tags": "s"})),
    ]
    await until_asked(bench, 2)
    bench.engine.gate.set()
    await asyncio.gather(*asking)
    digests = {name: tag_digest(KEYS.current, "acme", name) for name in "ts"}
    lives = {}
    for text in "abc":
        header = await bench.header(text)
        lives[text] = (header.fresh_until_ms - START_MS) // 1000, set(header.tags)
    assert lives == {
        "a": (50, {digests["t"]}),
        "b": (50, set(digests.values())),
        "c": (100, {digests["s"]}),
    }


async def test_encrypted_tenants_vectors_are_sealed(bench: Bench) -> None:
    """At rest in both encodings; a batch opens them. Entries in the clear do not answer."""
    await bench.batch(["a", "b"])
    document = document_of(policy=Policy(encrypted=True))
    answer = await bench.batch(["a", "b"], document=document)
    assert answer.detail == "not-encrypted; elements=0/2"
    assert (await bench.header("a")).encryption == KEYS.current.id
    answer = await bench.batch(["b", "a"], document=document, encoding_format="base64")
    assert answer.known == 2
    assert base64.b64decode(vectors(answer)[1]) == struct.pack("<3f", *vector_of("a"))


async def test_entries_of_the_secret_before_are_found() -> None:
    """While one is being replaced, as for any request."""
    old = Bench(key_rings(OLD_SECRET))
    await old.batch(["a", "b"], ring=key_ring(OLD_SECRET))
    bench = Bench(BOTH_KEYS)
    bench.store._entries = old.store._entries
    assert (await bench.batch(["a", "b", "c"])).known == 2
    assert bench.engine.asked == [["c"]]


async def test_requests_with_unknown_fields_are_one_whole(bench: Bench) -> None:
    """Such a field may make one vector depend on the other inputs, or say what base64 holds."""
    query = bench.query(["a", "b"], late_chunking=True, encoding_format="base64")
    assert not is_batch(query)
    answer = await bench.single(["a", "b"], late_chunking=True, encoding_format="base64")
    assert [datum["embedding"] for datum in answer[1]["data"]] == [vector_of(t) for t in "ab"]
    assert bench.engine.encodings == ["base64"]
    assert (await bench.single(["a", "b"], late_chunking=True, encoding_format="base64"))[0]
    assert not (await bench.single(["a", "b"], late_chunking=True))[0]
    assert list((await bench.header(["a", "b"], late_chunking=True)).segments) == [SEGMENT_JSON]


async def test_no_store_keeps_and_reads_nothing(bench: Bench) -> None:
    """The request goes to the engine as it came."""
    query = bench.query(["a", "b"], {"cache-control": "no-store"}, encoding_format="base64")
    assert not is_batch(query)
    await bench.single(["a", "b"], {"cache-control": "no-store"}, encoding_format="base64")
    assert bench.engine.encodings == ["base64"]
    assert bench.store._entries == {}


async def test_only_if_cached_asks_for_nothing_else(bench: Bench) -> None:
    """504 unless every input is known; then stale entries will do, as for any request."""
    only = {"cache-control": "only-if-cached"}
    await bench.batch(["a", "b"])
    with pytest.raises(UpstreamError) as missing:
        await bench.batch(["a", "b", "c"], only)
    assert missing.value.status == 504
    bench.now_ms += 110_000
    answer = await bench.batch(["a", "b"], only)
    assert answer.served is not None
    assert answer.served.ttl_s == -10
    assert len(bench.engine.asked) == 1


async def test_no_cache_makes_all_anew(bench: Bench) -> None:
    """And the new entries replace the old ones."""
    await bench.batch(["a", "b"])
    bench.now_ms += 1000
    answer = await bench.batch(["a", "b"], {"cache-control": "no-cache"})
    assert (answer.detail, answer.reason) == ("elements=0/2", "request")
    assert (await bench.header("a")).created_ms == bench.now_ms
    bench.engine.gate.clear()
    asking = [
        asyncio.create_task(bench.batch(["a", "c"], {"cache-control": directive}))
        for directive in ("max-age=0", "no-cache")
    ]
    await until_asked(bench, 4)
    bench.engine.gate.set()
    assert [answer.collapsed for answer in await asyncio.gather(*asking)] == [False, False]


async def test_stale_inputs_are_made_with_the_missing_ones(bench: Bench) -> None:
    """In the same run; the reason is what all of them say."""
    await bench.batch(["a", "b"])
    bench.now_ms += 110_000
    await bench.single("c")
    answer = await bench.batch(["a", "b", "c"])
    assert bench.engine.asked[-1] == ["a", "b"]
    assert (answer.reason, answer.known) == ("stale", 1)


async def test_stale_entries_answer_for_a_failed_engine(bench: Bench) -> None:
    """Within stale-if-error, and only if there is one for every input that could not be made."""
    await bench.batch(["a", "b"])
    bench.now_ms += 160_000
    bench.engine.failure = UpstreamError("down", status=503)
    answer = await bench.batch(["a", "b"])
    assert vectors(answer) == [float32("a"), float32("b")]
    assert (answer.failed_status, answer.reason) == (503, "stale")
    assert answer.detail == "stale-if-error; elements=0/2"
    with pytest.raises(UpstreamError):
        await bench.batch(["a", "c"])
    with pytest.raises(UpstreamError):
        await bench.batch(["a", "b"], {"cache-control": "stale-if-error=50"})
    bench.engine.failure = ClientError("refused")
    with pytest.raises(ClientError):
        await bench.batch(["a", "b"])


async def test_a_dead_store_costs_a_run(bench: Bench) -> None:
    """It fails no request, and is said."""
    bench.store.fails = True
    answer = await bench.batch(["a", "b"], encoding_format="base64")
    assert base64.b64decode(vectors(answer)[1]) == struct.pack("<3f", *vector_of("b"))
    assert (answer.detail, answer.stored) == ("l1-error; elements=0/2", False)


async def test_what_a_failing_store_was_not_asked_is_not_stored(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may have something newer."""

    async def fail(_keys: Sequence[str]) -> list[bytes | None]:
        raise StoreError("down")

    monkeypatch.setattr(bench.store, "get_many", fail)
    assert not (await bench.batch(["a", "b"])).stored
    assert bench.store._entries == {}


async def test_a_corrupted_entry_is_made_again(bench: Bench) -> None:
    """It is a miss that is said; the others count."""
    await bench.batch(["a", "b"])
    await bench.store.put(bench.query("a").key or "", b"junk", START_MS + 10_000)
    answer = await bench.batch(["a", "b"])
    assert (answer.detail, bench.engine.asked[-1]) == ("l1-undecodable; elements=1/2", ["a"])


async def until_asked(bench: Bench, runs: int) -> None:
    """Wait until the engine has begun this many runs."""
    async with asyncio.timeout(5):
        while len(bench.engine.asked) < runs:
            await bench.engine.begun.acquire()


async def settled() -> None:
    """Let everything go on as far as it can."""
    for _ in range(100):
        await asyncio.sleep(0)


async def test_identical_batches_are_made_once(bench: Bench) -> None:
    """And inputs that batches share: each waits for what the other has begun."""
    bench.engine.gate.clear()
    asking = [asyncio.create_task(bench.batch(["a", "b", "c"])) for _ in range(8)]
    asking.append(asyncio.create_task(bench.batch(["c", "d"])))
    await settled()
    bench.engine.gate.set()
    answers = await asyncio.gather(*asking)
    assert bench.engine.asked == [["a", "b", "c"], ["d"]]
    assert [answer.collapsed for answer in answers] == [False, *[True] * 7, False]
    assert vectors(answers[-1]) == [float32("c"), float32("d")]


async def test_batches_join_single_requests_and_never_the_reverse(bench: Bench) -> None:
    """A single request would fail for an input that somebody else has sent."""
    bench.engine.gate.clear()
    asking: list[Any] = [asyncio.create_task(bench.single("a"))]
    await until_asked(bench, 1)
    asking.append(asyncio.create_task(bench.batch(["a", "bad"])))
    await until_asked(bench, 2)
    asking.append(asyncio.create_task(bench.single("bad2")))
    asking.append(asyncio.create_task(bench.single("bad")))
    await until_asked(bench, 4)
    bench.engine.gate.set()
    _, batch, _, single = await asyncio.gather(*asking, return_exceptions=True)
    assert bench.engine.asked == [["a"], ["bad"], ["bad2"], ["bad"]]
    assert isinstance(batch, ClientError)
    assert batch.param == "input[1]"
    assert isinstance(single, ClientError)
    assert single.param == "input[0]"


async def test_nobody_fails_for_anothers_input(bench: Bench) -> None:
    """Who joined a run that is refused makes its own; errors name the asker's own input."""
    await bench.batch(["x", "y"])
    bench.engine.gate.clear()
    first = asyncio.create_task(bench.batch(["x", "a", "y", "bad"]))
    await until_asked(bench, 2)
    second = asyncio.create_task(bench.batch(["b", "a"]))
    await until_asked(bench, 3)
    bench.engine.gate.set()
    with pytest.raises(ClientError) as refused:
        await first
    assert (refused.value.param, refused.value.message) == ("input[3]", "No vector for 'input[3]'.")
    answer = await second
    assert bench.engine.asked[1:] == [["a", "bad"], ["b"], ["a"]]
    assert vectors(answer) == [float32("b"), float32("a")]


@pytest.mark.parametrize(
    ("given", "param"),
    [(["a", ""], "input[1]"), (["a", 5], "input[1]"), ([[1], [-1]], "input[1][0]")],
)
async def test_invalid_inputs_are_named(bench: Bench, given: Any, param: str) -> None:
    """Though the others are known."""
    await bench.single("a")
    await bench.single([1])
    query = bench.query(given)
    with pytest.raises(ClientError) as refused:
        await (bench.batches if is_batch(query) else bench.pipeline).answer(query)
    assert refused.value.param == param


async def test_the_last_waiter_stops_the_run(bench: Bench) -> None:
    """Not before: who joined some of it keeps all of it going."""
    bench.engine.gate.clear()
    first = asyncio.create_task(bench.batch(["a", "b"]))
    await until_asked(bench, 1)
    second = asyncio.create_task(bench.batch(["b", "c"]))
    await until_asked(bench, 2)
    first.cancel()
    await settled()
    assert bench.engine.cancelled == 0
    second.cancel()
    await settled()
    assert bench.engine.cancelled == 2
    for task in (first, second):
        with suppress(asyncio.CancelledError):
            await task
    bench.engine.gate.set()
    assert (await bench.batch(["a", "b"])).known == 0


async def test_a_joiner_gets_its_part_of_a_run_that_its_beginner_left(bench: Bench) -> None:
    """And what all of the run made for it is kept."""
    bench.engine.gate.clear()
    first = asyncio.create_task(bench.batch(["a", "b"]))
    await until_asked(bench, 1)
    second = asyncio.create_task(bench.batch(["b", "c"]))
    await until_asked(bench, 2)
    first.cancel()
    await settled()
    bench.engine.gate.set()
    assert vectors(await second) == [float32("b"), float32("c")]
    assert bench.engine.asked == [["a", "b"], ["c"]]


async def test_a_failed_run_fails_its_waiters(bench: Bench) -> None:
    """With the engine's own error; nothing is stored."""
    bench.engine.failure = UpstreamError("down", status=503, retry_after_s=7)
    with pytest.raises(UpstreamError) as failed:
        await bench.batch(["a", "b"])
    assert (failed.value.status, failed.value.retry_after_s) == (503, 7)
    assert bench.store._entries == {}


async def test_an_answer_that_lacks_a_vector_is_no_answer(bench: Bench) -> None:
    """502 for the batch; alone it is passed on as it came, and not kept."""
    bench.engine.whole = {"object": "list", "data": [{"index": 0, "embedding": "?"}], "model": "m"}
    with pytest.raises(EncoreError) as failed:
        await bench.batch(["a", "b"])
    assert (failed.value.status, failed.value.code) == (502, "upstream_garbage")
    assert (await bench.single("a")) == (False, bench.engine.whole)
    assert bench.store._entries == {}


async def test_a_bug_in_the_engine_is_told_as_ours(bench: Bench) -> None:
    """Every waiter gets an error; none hangs."""
    bench.engine.failure = RuntimeError("a bug")
    with pytest.raises(EncoreError) as failed:
        await bench.batch(["a", "b"])
    assert failed.value.status == 500


async def test_two_thousand_inputs(bench: Bench) -> None:
    """The most that a request may hold."""
    texts = [f"{number}" for number in range(2048)]
    await bench.batch(texts)
    answer = await bench.batch(texts[::-1])
    assert (answer.known, len(bench.engine.asked)) == (2048, 1)
    assert vectors(answer)[0] == float32("2047")


def test_streams_and_too_large_bodies_are_no_batches(bench: Bench) -> None:
    """The pipeline refuses the one and passes the other through."""
    query = bench.query(["a", "b"])
    assert is_batch(query)
    assert not is_batch(replace(query, key=None))
    assert not is_batch(bench.query(["a", "b"], stream=True))
    assert not is_batch(bench.query(["a"]))
