"""The pipeline over an in-memory store and an engine whose steps the test decides."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import Any

import pytest

from origin.encryption import open_segment
from origin.exact_tier import Hit
from origin.lifetimes import NO_TIERS, Tiers
from origin.pipeline import Generating, Pipeline
from origin.queries import Query
from origin.stores.contract import StoreError
from origin.stores.memory import MemoryStore
from shared.compression import decompress
from shared.control_document import ControlDocument, Policy, Purge, purged
from shared.controls import parse_controls
from shared.envelope import SEGMENT_JSON, SEGMENT_SSE, Envelope, Header, decode, encode
from shared.errors import ClientError, UpstreamError
from shared.freshness import Lifetimes, Serve
from shared.keys import KeyRing, KeyRings, key_ring, key_rings, tag_digest
from shared.requests import Endpoint
from tests.support.engines import MODEL, ScriptedEngine, chat_answer

SECRET = "a secret of the tests, long enough"
KEYS = key_rings(SECRET)
START_MS = 1_700_000_000_000


OLD_SECRET = "the secret before it, long enough too"
BOTH_KEYS = key_rings(SECRET, OLD_SECRET)
OLD_RING = key_ring(OLD_SECRET)
ENCRYPTED = Policy(encrypted=True)


def document_of(tenant: str = "acme", **changes: Any) -> ControlDocument:
    """A control document by which nothing is purged."""
    return ControlDocument(tenant=tenant, revision=1, **changes)


def tag_of(name: str, ring: KeyRing = KEYS.current) -> str:
    """The digest of a tag."""
    return tag_digest(ring, "acme", name)


class Clock:
    """Milliseconds that pass when told to."""

    def __init__(self) -> None:
        self.now_ms = START_MS

    def __call__(self) -> int:
        """The time."""
        return self.now_ms


class Bench:
    """A pipeline and the parts a test turns."""

    def __init__(
        self,
        *,
        keys: KeyRings = KEYS,
        admit_after: int = 1,
        tiers: Tiers = NO_TIERS,
        max_entry_bytes: int = 1 << 20,
        beside: Bench | None = None,
    ) -> None:
        self.clock: Clock = Clock() if beside is None else beside.clock
        self.engine = ScriptedEngine()
        self.clock_fails = False
        self.store: MemoryStore = MemoryStore(now_ms=self.clock) if beside is None else beside.store
        self.pipeline = Pipeline(
            keys=keys,
            store=self.store,
            engine=self.engine,
            lifetimes=Lifetimes(
                ttl_s=100, stale_while_revalidate_s=50, stale_if_error_s=200, max_ttl_s=1000
            ),
            deadline_s=5,
            store_clock=self.store_clock,
            admit_after=admit_after,
            tiers=tiers,
            max_entry_bytes=max_entry_bytes,
            clock_ms=self.clock,
        )

    async def store_clock(self) -> int:
        """The clock that cut-offs are told by."""
        if self.clock_fails:
            raise StoreError("down")
        return self.clock()

    def query(
        self,
        text: str = "Hello",
        *,
        tenant: str = "acme",
        document: ControlDocument | None = None,
        ring: KeyRing | None = None,
        headers: dict[str, str] | None = None,
        cacheable: bool = True,
        **fields: Any,
    ) -> Query:
        """A chat request as the routes would build it."""
        body = {"model": MODEL, "messages": [{"role": "user", "content": text}], **fields}
        return self.pipeline.query(
            Endpoint.CHAT,
            document or document_of(tenant),
            parse_controls(headers or {}),
            json.dumps(body).encode(),
            ring=ring or KEYS.current,
            cacheable=cacheable,
        )

    def key(self, query: Query | None = None) -> str:
        """The cache key of a query, by default of the one everybody asks."""
        key = (query or self.query()).key
        assert key is not None
        return key

    async def stored(self, query: Query | None = None) -> Header | None:
        """The header of what is stored under a query's key."""
        encoded = await self.store.get(self.key(query))
        return None if encoded is None else decode(encoded).header

    def purged(self, document: ControlDocument | None = None, **named: Any) -> ControlDocument:
        """A document after a purge of what is named, now."""
        return purged(document or document_of(), Purge(**named), self.clock())

    async def run(self, query: Query) -> tuple[str, str]:
        """(how it was answered, what was said), after what follows the answer is done."""
        answer = await self.pipeline.answer(query)
        if isinstance(answer, Hit):
            return "hit", answer.envelope.header.etag
        with answer.flight.joined():
            finished = await answer.flight.result()
        await answer.flight.landed()
        text: str = finished.answer["choices"][0]["message"]["content"]
        return answer.reason, text


@pytest.fixture
def bench() -> Bench:
    """A fresh pipeline."""
    return Bench()


async def test_second_request_is_a_hit(bench: Bench) -> None:
    """What was generated once is served from the store."""
    assert (await bench.run(bench.query()))[0] == "miss"
    assert (await bench.run(bench.query()))[0] == "hit"
    assert bench.engine.runs == 1


async def test_streamed_and_plain_share_one_key(bench: Bench) -> None:
    """A streamed request hits what a plain one stored."""
    await bench.run(bench.query())
    assert (await bench.run(bench.query(stream=True)))[0] == "hit"


async def test_tenants_share_nothing(bench: Bench) -> None:
    """Another tenant's equal request is a miss."""
    await bench.run(bench.query())
    assert (await bench.run(bench.query(tenant="other")))[0] == "miss"


async def test_scopes_share_nothing(bench: Bench) -> None:
    """An equal request of another scope of the same tenant is a miss."""
    await bench.run(bench.query(headers={"encore-scope": "a"}))
    assert (await bench.run(bench.query(headers={"encore-scope": "b"})))[0] == "miss"


async def test_buckets_keep_several_answers(bench: Bench) -> None:
    """`Encore-Bucket` is part of the key."""
    await bench.run(bench.query(headers={"encore-bucket": "1"}))
    assert (await bench.run(bench.query(headers={"encore-bucket": "2"})))[0] == "miss"


async def test_another_tenant_cannot_fetch_an_entry_by_its_key(bench: Bench) -> None:
    """The edge's fetch of a finished entry is bound to the tenant."""
    query = bench.query()
    await bench.run(query)
    assert await bench.pipeline.entry(document_of("acme"), bench.key(query)) is not None
    assert await bench.pipeline.entry(document_of("other"), bench.key(query)) is None


async def test_no_store_is_neither_read_nor_kept(bench: Bench) -> None:
    """`no-store` goes to the engine and leaves nothing."""
    assert (await bench.run(bench.query(headers={"cache-control": "no-store"})))[0] == "bypass"
    assert (await bench.run(bench.query()))[0] == "miss"


async def test_no_cache_replaces_the_entry(bench: Bench) -> None:
    """`no-cache` generates anew, and the new answer is what is served after."""
    await bench.run(bench.query())
    before = await bench.run(bench.query())
    assert await bench.run(bench.query(headers={"cache-control": "no-cache"})) == (
        "request",
        "Answer 2",
    )
    assert await bench.run(bench.query()) != before


async def test_only_if_cached_without_an_entry_is_504(bench: Bench) -> None:
    """RFC 9111 section 5.2.1.7."""
    with pytest.raises(UpstreamError) as caught:
        await bench.run(bench.query(headers={"cache-control": "only-if-cached"}))
    assert caught.value.status == 504
    assert bench.engine.runs == 0


async def test_too_large_a_body_is_answered_uncached(bench: Bench) -> None:
    """A body over the limit passes by the cache."""
    assert (await bench.run(bench.query(cacheable=False)))[0] == "bypass"
    assert (await bench.run(bench.query()))[0] == "miss"


async def test_stale_entry_is_served_and_refreshed_once(bench: Bench) -> None:
    """Within stale-while-revalidate the old answer comes at once; one refresh runs behind it."""
    await bench.run(bench.query())
    bench.clock.now_ms += 120_000
    bench.engine.gate.clear()
    old = [await bench.run(bench.query()) for _ in range(3)]
    assert {kind for kind, _ in old} == {"hit"}
    await asyncio.sleep(0.01)
    assert bench.engine.runs == 2
    bench.engine.gate.set()
    while (flight := bench.pipeline._generations._flights.find(bench.key())) is not None:
        await flight.landed()
    assert (await bench.run(bench.query()))[1] != old[0][1]


async def test_expired_entry_is_a_miss(bench: Bench) -> None:
    """Past every window an entry answers nothing."""
    await bench.run(bench.query())
    bench.clock.now_ms += 301_000
    assert (await bench.run(bench.query()))[0] == "miss"


async def test_ttl_of_the_request_is_clamped(bench: Bench) -> None:
    """`Encore-TTL` shortens or lengthens up to the operator's maximum."""
    query = bench.query(headers={"encore-ttl": "999999"})
    await bench.run(query)
    header = await bench.stored(query)
    assert header is not None
    assert header.fresh_until_ms == START_MS + 1000 * 1000


async def test_ttl_zero_is_not_stored(bench: Bench) -> None:
    """`Encore-TTL: 0` means what it says, not a default."""
    query = bench.query(headers={"encore-ttl": "0"})
    await bench.run(query)
    assert await bench.stored(query) is None


async def test_identical_misses_cause_one_generation(bench: Bench) -> None:
    """Eight requests at once: one run, one answer."""
    bench.engine.gate.clear()
    running = [asyncio.create_task(bench.run(bench.query(stream=i % 2 == 0))) for i in range(8)]
    await asyncio.sleep(0.01)
    bench.engine.gate.set()
    answers = await asyncio.gather(*running)
    assert bench.engine.runs == 1
    assert {text for _, text in answers} == {"Answer 1"}


async def test_late_listener_hears_everything(bench: Bench) -> None:
    """Who joins a stream that has begun is told what was said before."""
    bench.engine.gate.clear()
    first = asyncio.create_task(bench.run(bench.query(stream=True)))
    await asyncio.sleep(0.01)
    late = await bench.pipeline.answer(bench.query(stream=True))
    assert isinstance(late, Generating)
    assert late.collapsed
    with late.flight.joined():
        bench.engine.gate.set()
        heard = [payload async for payload in late.flight.listen()]
    assert heard[0]["choices"][0]["delta"]["role"] == "assistant"
    assert heard == late.flight.chunks
    await first


async def test_no_cache_does_not_join_an_older_flight(bench: Bench) -> None:
    """A request for a new answer starts its own generation."""
    bench.engine.gate.clear()
    older = asyncio.create_task(bench.run(bench.query()))
    await asyncio.sleep(0.01)
    newer = asyncio.create_task(bench.run(bench.query(headers={"cache-control": "no-cache"})))
    await asyncio.sleep(0.01)
    bench.engine.gate.set()
    assert (await older)[1] == "Answer 1"
    assert (await newer)[1] == "Answer 2"


async def test_first_leaving_does_not_stop_the_others(bench: Bench) -> None:
    """The leader's client going away costs the followers nothing."""
    bench.engine.gate.clear()
    leader = asyncio.create_task(bench.run(bench.query()))
    await asyncio.sleep(0.01)
    follower = asyncio.create_task(bench.run(bench.query()))
    await asyncio.sleep(0.01)
    leader.cancel()
    await asyncio.sleep(0.01)
    bench.engine.gate.set()
    assert (await follower)[1] == "Answer 1"
    assert bench.engine.cancelled == 0


async def test_last_leaving_stops_the_generation(bench: Bench) -> None:
    """Nobody waits: nothing is generated, and the next request starts afresh at once."""
    bench.engine.gate.clear()
    only = asyncio.create_task(bench.run(bench.query()))
    await asyncio.sleep(0.01)
    only.cancel()
    with pytest.raises(asyncio.CancelledError):
        await only
    bench.engine.gate.set()
    assert (await bench.run(bench.query()))[1] == "Answer 2"
    assert bench.engine.cancelled == 1


async def test_failed_generation_is_not_stored(bench: Bench) -> None:
    """An error reaches the client and leaves nothing behind."""
    bench.engine.failure_after_chunks = UpstreamError("broken", code="x")
    with pytest.raises(UpstreamError):
        await bench.run(bench.query())
    assert await bench.stored() is None
    bench.engine.failure_after_chunks = None
    assert (await bench.run(bench.query()))[0] == "miss"


async def test_generation_over_the_deadline_is_504(bench: Bench) -> None:
    """A run that takes too long ends with 504."""
    bench.pipeline._generations._flights._deadline_s = 0.01
    bench.engine.gate.clear()
    with pytest.raises(UpstreamError) as caught:
        await bench.run(bench.query())
    assert caught.value.status == 504


async def test_unexpected_failure_tells_no_detail(bench: Bench) -> None:
    """What an engine's bug says stays in the log."""
    bench.engine.failure = RuntimeError("the secret prompt")
    with pytest.raises(Exception, match="The generation failed") as caught:
        await bench.run(bench.query())
    assert "secret" not in str(caught.value)


async def test_broken_store_costs_a_generation_only(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store that fails is said in the detail, and the answer comes all the same."""

    async def fail(*_: object, **__: object) -> None:
        raise StoreError("down")

    monkeypatch.setattr(bench.store, "get", fail)
    monkeypatch.setattr(bench.store, "put", fail)
    answer = await bench.pipeline.answer(bench.query())
    assert isinstance(answer, Generating)
    assert answer.detail == "l1-error"
    with answer.flight.joined():
        await answer.flight.result()
    await answer.flight.landed()


@pytest.mark.parametrize("junk", [b"", b"junk", b"ENC\x01" + b"\0" * 60, b"ENC\x02" + b"\0" * 60])
async def test_undecodable_entry_is_a_miss_that_is_replaced(bench: Bench, junk: bytes) -> None:
    """Junk in the store costs one generation."""
    query = bench.query()
    await bench.store.put(bench.key(query), junk, START_MS + 10_000_000)
    assert (await bench.run(query))[0] == "miss"
    assert (await bench.run(query))[0] == "hit"


async def test_stale_entry_may_answer_for_a_failed_engine(bench: Bench) -> None:
    """Within stale-if-error the old entry is offered beside the generation."""
    await bench.run(bench.query())
    bench.clock.now_ms += 200_000
    answer = await bench.pipeline.answer(bench.query())
    assert isinstance(answer, Generating)
    assert answer.fallback is not None
    assert answer.fallback.served.ttl_s == -100


async def test_invalid_request_names_the_field(bench: Bench) -> None:
    """Validation happens before any generation."""
    with pytest.raises(ClientError) as caught:
        await bench.run(bench.query(temperature=3))
    assert caught.value.param == "temperature"
    assert bench.engine.runs == 0


async def test_unknown_model_is_404(bench: Bench) -> None:
    """The engine names its models."""
    with pytest.raises(ClientError) as caught:
        await bench.run(bench.query(model="nope"))
    assert (caught.value.status, caught.value.param) == (404, "model")


async def test_older_flight_does_not_store_over_a_newer_answer(bench: Bench) -> None:
    """What `no-cache` replaced stays replaced, whichever generation ends last."""
    bench.engine.gate.clear()
    older = asyncio.create_task(bench.run(bench.query()))
    await asyncio.sleep(0.01)
    slow, bench.engine.gate = bench.engine.gate, asyncio.Event()
    bench.engine.gate.set()
    assert (await bench.run(bench.query(headers={"cache-control": "no-cache"})))[1] == "Answer 2"
    newer = await bench.stored()
    slow.set()
    assert (await older)[1] == "Answer 1"
    assert newer is not None
    assert await bench.stored() == newer


async def test_joiners_may_fall_back_on_the_stale_entry_too(bench: Bench) -> None:
    """Not only the request that started the failing generation."""
    await bench.run(bench.query())
    bench.clock.now_ms += 200_000
    bench.engine.gate.clear()
    answers = [await bench.pipeline.answer(bench.query()) for _ in range(2)]
    assert [getattr(answer, "fallback", None) is not None for answer in answers] == [True, True]
    await bench.pipeline.close()


async def test_embeddings_key_asked_as_a_stream_is_not_answered_from_the_entry(
    bench: Bench,
) -> None:
    """An entry that lacks the form asked for is a miss."""
    await bench.run(bench.query())
    encoded = await bench.store.get(bench.key())
    assert encoded is not None
    envelope = decode(encoded)
    length = envelope.header.segments["json"]
    plain = Envelope(
        header=replace(envelope.header, segments={"json": length}),
        payload=envelope.payload[:length],
    )
    await bench.store.put(bench.key(), encode(plain), START_MS + 10_000_000)
    assert (await bench.run(bench.query()))[0] == "hit"
    assert (await bench.run(bench.query(stream=True)))[0] == "miss"


@pytest.mark.parametrize("usage", [None, [1], "x", {"prompt_tokens": "n/a"}, {}])
async def test_nonsense_in_usage_does_not_cost_the_answer(bench: Bench, usage: object) -> None:
    """An upstream may count as it likes; its answer is passed on."""
    bench.engine.usage = usage
    assert (await bench.run(bench.query()))[1] == "Answer 1"


async def test_changed_model_is_a_miss(bench: Bench) -> None:
    """Another fingerprint under the same name does not serve the old one's answers."""
    await bench.run(bench.query())
    bench.engine.model_fingerprint = "f2"
    answer = await bench.pipeline.answer(bench.query())
    assert isinstance(answer, Generating)
    assert answer.detail == "model-changed"
    await bench.pipeline.close()


async def test_waiters_together_tag_and_shorten_the_entry(bench: Bench) -> None:
    """A joiner's tags and shorter life are not lost."""
    bench.engine.gate.clear()
    first = asyncio.create_task(bench.run(bench.query(headers={"encore-tags": "a"})))
    await asyncio.sleep(0.01)
    second = asyncio.create_task(
        bench.run(bench.query(headers={"encore-tags": "b", "encore-ttl": "5"}))
    )
    await asyncio.sleep(0.01)
    bench.engine.gate.set()
    await asyncio.gather(first, second)
    header = await bench.stored()
    assert header is not None
    assert len(header.tags) == 2
    assert header.fresh_until_ms == START_MS + 5_000


async def test_refresh_keeps_the_tags(bench: Bench) -> None:
    """An entry stays purgeable by its tags, whoever asked for the refresh."""
    await bench.run(bench.query(headers={"encore-tags": "listing-42"}))
    before = await bench.stored()
    bench.clock.now_ms += 120_000
    await bench.run(bench.query())
    await asyncio.gather(*bench.pipeline._refreshes)
    after = await bench.stored()
    assert before is not None
    assert after is not None
    assert after.created_ms > before.created_ms
    assert after.tags == before.tags


async def test_failed_refresh_waits_before_the_next(bench: Bench) -> None:
    """A failing engine is not asked by every stale hit."""
    await bench.run(bench.query())
    bench.clock.now_ms += 120_000
    bench.engine.failure = UpstreamError("no", retry_after_s=20)
    for _ in range(5):
        await bench.run(bench.query())
        await asyncio.gather(*bench.pipeline._refreshes)
    assert bench.engine.runs == 2
    bench.clock.now_ms += 21_000
    await bench.run(bench.query())
    await asyncio.gather(*bench.pipeline._refreshes)
    assert bench.engine.runs == 3


@pytest.mark.parametrize("why", ["filtered", "cut off", "too large", "a store that is full"])
async def test_a_refresh_that_stores_nothing_waits_before_the_next(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    """It costs a generation each time, too."""
    await bench.run(bench.query())
    bench.clock.now_ms += 120_000
    with monkeypatch.context() as trouble:
        if why == "filtered":
            bench.engine.whole = chat_answer("No", finish_reason="content_filter")
        elif why == "cut off":
            bench.engine.whole = chat_answer("No", finish_reason="length")
        elif why == "too large":
            trouble.setattr(bench.pipeline._generations, "_max_entry_bytes", 1)
        else:
            trouble.setattr(bench.store, "put", full)
        for _ in range(5):
            assert (await bench.run(bench.query()))[0] == "hit"
            await asyncio.gather(*bench.pipeline._refreshes)
        assert bench.engine.runs == 2
    bench.engine.whole = None
    bench.clock.now_ms += 10_000
    assert (await bench.run(bench.query()))[0] == "hit"
    await asyncio.gather(*bench.pipeline._refreshes)
    assert bench.engine.runs == 3
    await bench.pipeline.close()


async def full(*_: object, **__: object) -> None:
    """What a store does that has no room."""
    raise StoreError("full")


async def test_close_waits_for_what_is_being_stored(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A finished answer is kept even when the process is told to stop."""
    put, asked = bench.store.put, asyncio.Event()

    async def slow_put(key: str, envelope: bytes, expires_at_ms: int, **_: object) -> None:
        asked.set()
        await asyncio.sleep(0.05)
        await put(key, envelope, expires_at_ms)

    monkeypatch.setattr(bench.store, "put", slow_put)
    running = asyncio.create_task(bench.run(bench.query()))
    await asked.wait()
    await bench.pipeline.close()
    assert await bench.stored() is not None
    await running


async def test_no_prompt_reaches_the_log(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    """Whatever an engine or an upstream says of a prompt when it fails."""
    await bench.run(bench.query())
    bench.clock.now_ms += 120_000
    for failure in (UpstreamError("prompt: s3cret"), RuntimeError("prompt: s3cret")):
        bench.pipeline._refresh_waits.end(bench.key())
        bench.engine.failure = failure
        await bench.run(bench.query())
        await asyncio.gather(*bench.pipeline._refreshes)
    assert "refresh of" in caplog.text
    assert "RuntimeError" in caplog.text
    assert "s3cret" not in caplog.text


PURGES: dict[str, Any] = {
    "everything": {"everything": True},
    "the model asked for": {"models": (MODEL,)},
    "the model that answered": {"models": ("scripted-2024",)},
    "its tag": {"tags": (tag_of("a"),)},
}
OTHER_PURGES: dict[str, Any] = {
    "another model": {"models": ("other",)},
    "another tag": {"tags": (tag_of("b"),)},
    "another key": {"keys": ("f" * 64,)},
}


def answered_by_another(bench: Bench) -> None:
    """Let the engine name another model than the one asked for."""
    bench.engine.whole = chat_answer("Whole") | {"model": "scripted-2024"}


@pytest.mark.parametrize("named", PURGES.values(), ids=PURGES.keys())
async def test_purged_entry_is_a_miss_that_is_replaced(bench: Bench, named: Any) -> None:
    """Whatever it is purged by; what is made after the purge is a hit again."""
    answered_by_another(bench)
    headers = {"encore-tags": "a"}
    await bench.run(bench.query(headers=headers))
    document = bench.purged(**named)
    bench.clock.now_ms += 1
    answer = await bench.pipeline.answer(bench.query(document=document, headers=headers))
    assert isinstance(answer, Generating)
    assert (answer.reason, answer.detail) == ("miss", "purged")
    with answer.flight.joined():
        await answer.flight.result()
    await answer.flight.landed()
    assert (await bench.run(bench.query(document=document)))[0] == "hit"


async def test_purge_by_key_is_one_too(bench: Bench) -> None:
    """By the short key that answers show, and no other key's entry."""
    await bench.run(bench.query())
    await bench.run(bench.query("Other"))
    document = bench.purged(keys=(bench.key()[:16],))
    assert (await bench.run(bench.query("Other", document=document)))[0] == "hit"
    assert (await bench.run(bench.query(document=document)))[0] == "miss"


@pytest.mark.parametrize("named", OTHER_PURGES.values(), ids=OTHER_PURGES.keys())
async def test_purge_of_something_else_costs_no_hit(bench: Bench, named: Any) -> None:
    """It names others."""
    await bench.run(bench.query(headers={"encore-tags": "a"}))
    assert (await bench.run(bench.query(document=bench.purged(**named))))[0] == "hit"


async def test_purge_of_another_tenant_costs_no_hit(bench: Bench) -> None:
    """Its own entries are gone, those of this one are not."""
    await bench.run(bench.query(tenant="other"))
    await bench.run(bench.query())
    everything = bench.purged(document_of("other"), everything=True)
    assert (await bench.run(bench.query(document=everything)))[0] == "miss"
    assert (await bench.run(bench.query()))[0] == "hit"


@pytest.mark.parametrize("age_ms", [120_000, 200_000], ids=["stale", "stale-if-error"])
async def test_purged_entry_answers_nothing_stale(bench: Bench, age_ms: int) -> None:
    """Neither while it is revalidated nor when the engine fails."""
    await bench.run(bench.query())
    document = bench.purged(everything=True)
    bench.clock.now_ms += age_ms
    answer = await bench.pipeline.answer(bench.query(document=document))
    assert isinstance(answer, Generating)
    assert answer.fallback is None
    assert not bench.pipeline._refreshes
    await bench.pipeline.close()


async def test_purged_entry_is_not_fetched(bench: Bench) -> None:
    """By the edge, which asks for entries by key."""
    await bench.run(bench.query())
    assert await bench.pipeline.entry(document_of(), bench.key()) is not None
    assert await bench.pipeline.entry(bench.purged(everything=True), bench.key()) is None


async def test_header_names_both_models(bench: Bench) -> None:
    """The one asked for, and the one that answered where that is another."""
    await bench.run(bench.query())
    header = await bench.stored()
    assert header is not None
    assert (header.model, header.answered_by) == (MODEL, None)
    answered_by_another(bench)
    await bench.run(bench.query("Other"))
    header = await bench.stored(bench.query("Other"))
    assert header is not None
    assert (header.model, header.answered_by) == (MODEL, "scripted-2024")


@pytest.mark.parametrize("named", [*PURGES.values()], ids=[*PURGES])
async def test_purged_flight_is_not_joined_and_not_stored(bench: Bench, named: Any) -> None:
    """It answers those who waited before the purge; a new one answers who came after it."""
    bench.engine.gate.clear()
    headers = {"encore-tags": "a"}
    older = asyncio.create_task(bench.run(bench.query(headers=headers)))
    await asyncio.sleep(0.01)
    document = bench.purged(**named)
    bench.clock.now_ms += 1
    newer = asyncio.create_task(bench.run(bench.query(document=document, headers=headers)))
    await asyncio.sleep(0.01)
    bench.engine.gate.set()
    assert (await older)[1] == "Answer 1"
    assert (await newer)[1] == "Answer 2"
    header = await bench.stored()
    assert header is not None
    assert header.generation_started_ms == START_MS + 1
    assert (await bench.run(bench.query(document=document)))[0] == "hit"


@pytest.mark.parametrize(
    "named", [{"tags": (tag_of("a"),)}, {"models": ("scripted-2024",)}], ids=str
)
async def test_purge_that_may_name_the_entry_keeps_from_joining(bench: Bench, named: Any) -> None:
    """Who waits elsewhere may yet tag it, and the answer may yet name any model."""
    bench.engine.gate.clear()
    first = asyncio.create_task(bench.run(bench.query()))
    await asyncio.sleep(0.01)
    later = bench.query(document=bench.purged(**named))
    bench.clock.now_ms += 1
    answers = [await bench.pipeline.answer(later) for _ in range(2)]
    assert [getattr(answer, "collapsed", None) for answer in answers] == [False, True]
    await bench.pipeline.close()
    await asyncio.gather(first, return_exceptions=True)


async def test_purge_of_another_key_starts_no_second_generation(bench: Bench) -> None:
    """Frequent purges do not end single-flight."""
    bench.engine.gate.clear()
    first = await bench.pipeline.answer(bench.query())
    second = await bench.pipeline.answer(bench.query(document=bench.purged(keys=("f" * 64,))))
    assert isinstance(first, Generating)
    assert isinstance(second, Generating)
    assert second.flight is first.flight
    await bench.pipeline.close()


async def test_generation_without_a_known_start_is_kept_nowhere(bench: Bench) -> None:
    """The store's clock fails: the answer is given, said to be troubled, and not stored."""
    bench.clock_fails = True
    answer = await bench.pipeline.answer(bench.query())
    assert isinstance(answer, Generating)
    assert answer.detail == "l1-error"
    with answer.flight.joined():
        await answer.flight.result()
    await answer.flight.landed()
    assert answer.flight.entry is None
    assert await bench.stored() is None
    bench.clock_fails = False
    assert (await bench.run(bench.query()))[0] == "miss"
    assert (await bench.run(bench.query()))[0] == "hit"


async def test_single_flight_needs_no_clock_but_an_unchanged_document(bench: Bench) -> None:
    """When a start is unknown, whoever knows of a change may not rely on it."""
    bench.clock_fails = True
    bench.engine.gate.clear()
    first = await bench.pipeline.answer(bench.query())
    second = await bench.pipeline.answer(bench.query())
    third = await bench.pipeline.answer(bench.query(document=bench.purged(keys=("f" * 64,))))
    assert [getattr(a, "collapsed", None) for a in (first, second, third)] == [False, True, False]
    await bench.pipeline.close()


async def test_start_is_told_by_the_stores_clock(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not by this machine's, which may run ahead of the one that purges."""

    async def behind() -> int:
        return START_MS - 5_000

    monkeypatch.setattr(bench.pipeline, "_store_clock", behind)
    await bench.run(bench.query())
    header = await bench.stored()
    assert header is not None
    assert (header.generation_started_ms, header.created_ms) == (START_MS - 5_000, START_MS)


async def test_normalisation_of_the_policy_is_in_the_key(bench: Bench) -> None:
    """Requests that differ in what a profile folds share an entry, by that profile alone."""
    text = document_of(policy=Policy(normalisation="text"))
    await bench.run(bench.query("Hello  there.", document=text))
    assert (await bench.run(bench.query("Hello there", document=text)))[0] == "hit"
    await bench.run(bench.query("Good  day."))
    assert (await bench.run(bench.query("Good day")))[0] == "miss"


async def test_encrypted_tenants_entries_are_sealed_and_answer(bench: Bench) -> None:
    """What the store holds can be opened by the tenant's key alone; the hit is the plain gzip."""
    document = document_of(policy=ENCRYPTED)
    assert (await bench.run(bench.query(document=document)))[1] == "Answer 1"
    encoded = await bench.store.get(bench.key())
    assert encoded is not None
    sealed = decode(encoded)
    assert sealed.header.encryption == KEYS.current.id
    assert b"\x1f\x8b" not in {sealed.payload[:2], sealed.payload[12:14]}
    for stream, segment in ((False, SEGMENT_JSON), (True, SEGMENT_SSE)):
        hit = await bench.pipeline.answer(bench.query(document=document, stream=stream))
        assert isinstance(hit, Hit)
        assert hit.encoded == encoded
        assert hit.segment == open_segment(KEYS, sealed, segment)
        assert b"Answer 1" in decompress(hit.segment, max_bytes=10_000)


async def test_entry_from_before_encryption_is_a_miss(bench: Bench) -> None:
    """And is replaced by a sealed one. The other way round the sealed one answers on."""
    await bench.run(bench.query())
    document = document_of(policy=ENCRYPTED)
    answer = await bench.pipeline.answer(bench.query(document=document))
    assert isinstance(answer, Generating)
    assert answer.detail == "not-encrypted"
    with answer.flight.joined():
        await answer.flight.result()
    await answer.flight.landed()
    assert (await bench.run(bench.query(document=document)))[0] == "hit"
    assert (await bench.run(bench.query()))[0] == "hit"


async def test_flight_that_is_not_to_be_sealed_is_not_joined(bench: Bench) -> None:
    """By who has read that the tenant's entries are encrypted."""
    bench.engine.gate.clear()
    await bench.pipeline.answer(bench.query())
    document = replace(document_of(policy=ENCRYPTED), revision=2)
    answer = await bench.pipeline.answer(bench.query(document=document))
    assert isinstance(answer, Generating)
    assert not answer.collapsed
    await bench.pipeline.close()


@pytest.mark.parametrize("position", [0, 11, 12, 100, -1])
async def test_damaged_sealed_entry_is_a_miss_that_is_replaced(bench: Bench, position: int) -> None:
    """Nonce, ciphertext and tag alike; a wrong secret too. Never an error."""
    document = document_of(policy=ENCRYPTED)
    query = bench.query(document=document)
    await bench.run(query)
    envelope = decode(await bench.store.get(bench.key()) or b"")
    length = envelope.header.segments[SEGMENT_JSON]
    payload = bytearray(envelope.payload)
    payload[position % length] ^= 1
    damaged = encode(replace(envelope, payload=bytes(payload)))
    await bench.store.put(bench.key(), damaged, START_MS + 10_000_000)
    assert await bench.pipeline.entry(document, bench.key()) is None
    answer = await bench.pipeline.answer(query)
    assert isinstance(answer, Generating)
    assert answer.detail == "l1-undecodable"
    with answer.flight.joined():
        await answer.flight.result()
    await answer.flight.landed()
    assert (await bench.run(query))[0] == "hit"


def succeeding(bench: Bench, keys: KeyRings = BOTH_KEYS) -> Bench:
    """A pipeline over the same store under other secrets, by default new and old."""
    return Bench(keys=keys, beside=bench)


@pytest.fixture
def before() -> Bench:
    """A pipeline under the old secret."""
    return Bench(keys=key_rings(OLD_SECRET))


@pytest.mark.parametrize("policy", [Policy(), ENCRYPTED], ids=["plain", "encrypted"])
async def test_entry_of_the_previous_secret_is_re_keyed(before: Bench, policy: Policy) -> None:
    """It is a hit, under the new key from then on, and lives no longer than it would have."""
    document = document_of(policy=policy)
    old_query = before.query(document=document, ring=OLD_RING)
    await before.run(old_query)
    old = await before.stored(old_query)
    bench = succeeding(before)
    query = bench.query(document=document)
    before.clock.now_ms += 7_000
    assert (await bench.run(query))[0] == "hit"
    new = await bench.stored(query)
    assert old is not None
    assert new is not None
    assert new == replace(
        old, key=bench.key(query), encryption=KEYS.current.id if policy.encrypted else None
    )
    await bench.store.delete(before.key(old_query))
    assert (await bench.run(query))[0] == "hit"
    assert bench.engine.runs == 0
    assert (await succeeding(bench, KEYS).run(query))[0] == "hit"


@pytest.mark.parametrize("policy", [Policy(), ENCRYPTED], ids=["plain", "encrypted"])
async def test_entry_of_the_previous_secret_is_looked_at(before: Bench, policy: Policy) -> None:
    """An explanation says what would answer, and puts nothing under the new key."""
    document = document_of(policy=policy)
    await before.run(before.query(document=document, ring=OLD_RING))
    bench = succeeding(before)
    query = bench.query(document=document)
    look = await bench.pipeline.look(query)
    assert isinstance(look.decision, Serve)
    assert look.header is not None
    assert look.header.key == bench.key(query)
    assert await bench.stored(query) is None


@pytest.mark.parametrize("policy", [Policy(), ENCRYPTED], ids=["plain", "encrypted"])
async def test_edge_that_has_the_previous_secret_gets_entries_of_its_own(
    before: Bench, policy: Policy
) -> None:
    """While it is redeployed: under its key, and from what the new secret made."""
    bench, document = succeeding(before), document_of(policy=policy)
    old_query = bench.query(document=document, ring=OLD_RING)
    assert (await bench.run(bench.query(document=document)))[0] == "miss"
    assert (await bench.run(old_query))[0] == "hit"
    header = await bench.stored(old_query)
    assert header is not None
    assert header.encryption == (OLD_RING.id if policy.encrypted else None)
    assert (await bench.run(bench.query("Other", ring=OLD_RING)))[0] == "miss"
    assert (await bench.run(bench.query("Other")))[0] == "hit"


async def test_tagged_entry_is_not_re_keyed(before: Bench) -> None:
    """Its tags are digests by the old secret: under the new key no purge would find them."""
    query = before.query(ring=OLD_RING, headers={"encore-tags": "a"})
    await before.run(query)
    bench = succeeding(before)
    assert (await bench.run(bench.query()))[0] == "miss"


@pytest.mark.parametrize("named", ["everything", "model", "key", "other key"])
async def test_purged_entry_is_not_re_keyed(before: Bench, named: str) -> None:
    """Cut-offs that name it under either key."""
    old_query = before.query(ring=OLD_RING)
    await before.run(old_query)
    bench = succeeding(before)
    purges: dict[str, dict[str, Any]] = {
        "everything": {"everything": True},
        "model": {"models": (MODEL,)},
        "key": {"keys": (before.key(old_query),)},
        "other key": {"keys": (bench.key(),)},
    }
    query = bench.query(document=bench.purged(**purges[named]))
    bench.engine.gate.clear()
    assert isinstance(await bench.pipeline.answer(query), Generating)
    assert await bench.stored(query) is None
    await bench.pipeline.close()


async def test_purge_by_the_old_key_means_what_was_re_keyed(before: Bench) -> None:
    """A client may have the old one written down."""
    old_query = before.query(ring=OLD_RING)
    await before.run(old_query)
    bench = succeeding(before)
    assert (await bench.run(bench.query()))[0] == "hit"
    document = bench.purged(keys=(before.key(old_query),))
    assert (await bench.run(bench.query(document=document)))[0] == "miss"


async def test_secret_that_is_gone_opens_nothing(before: Bench) -> None:
    """An entry sealed by a secret that no longer counts is a miss."""
    document = document_of(policy=ENCRYPTED)
    query = before.query(document=document, ring=OLD_RING)
    await before.run(query)
    bench = succeeding(before, KEYS)
    envelope = decode(await before.store.get(before.key(query)) or b"")
    moved = replace(envelope, header=replace(envelope.header, key=bench.key()))
    await bench.store.put(bench.key(), encode(moved), START_MS + 10_000_000)
    assert (await bench.run(bench.query(document=document)))[0] == "miss"


@pytest.mark.parametrize("characters", [300, 600, 1500])
@pytest.mark.parametrize("encrypted", [False, True])
async def test_names_too_long_for_an_entry_cost_no_answer(
    bench: Bench, characters: int, *, encrypted: bool
) -> None:
    """What no envelope holds is not stored, and not said to be."""
    bench.engine.whole = chat_answer("Whole") | {"model": characters * "b"}
    query = bench.query(
        headers={"encore-tags": ",".join(f"tag-{number}" for number in range(16))},
        document=document_of(policy=Policy(encrypted=encrypted)),
    )
    answer = await bench.pipeline.answer(query)
    assert isinstance(answer, Generating)
    with answer.flight.joined():
        await answer.flight.result()
    await answer.flight.landed()
    entry, stored = answer.flight.entry, await bench.stored(query)
    assert (None if entry is None else entry.header) == stored
    assert (stored is None) == (characters > 300)


async def granted(bench: Bench, document: ControlDocument | None = None) -> bool:
    """Whether the edge may write the entry that everybody asks for."""
    header = await bench.stored()
    assert header is not None
    return await bench.pipeline.edge_writes.grant(document or document_of(), header)


async def test_edge_is_granted_one_write_a_minute(bench: Bench) -> None:
    """Per key."""
    await bench.run(bench.query())
    assert [await granted(bench) for _ in range(3)] == [True, False, False]
    bench.clock.now_ms += 60_000
    assert [await granted(bench) for _ in range(2)] == [True, False]


async def test_admission_wants_requests_first() -> None:
    """What is asked for once costs no write."""
    bench = Bench(admit_after=3)
    await bench.run(bench.query())
    assert [await granted(bench) for _ in range(4)] == [False, False, True, False]


async def test_some_entries_are_never_granted(bench: Bench) -> None:
    """Those that stay at the origin, are stale, or end within a minute."""
    origin_only = document_of(policy=Policy(residency="origin-only"))
    await bench.run(bench.query())
    assert not await granted(bench, origin_only)
    header = await bench.stored()
    assert header is not None
    for later_ms in (100_001, 299_000):
        bench.clock.now_ms = START_MS + later_ms
        assert not await granted(bench)
    short = replace(
        header, stale_until_ms=header.fresh_until_ms, error_until_ms=header.fresh_until_ms
    )
    bench.clock.now_ms = header.fresh_until_ms - 59_999
    assert not await bench.pipeline.edge_writes.grant(document_of(), short)
    bench.clock.now_ms = header.fresh_until_ms - 60_000
    assert await bench.pipeline.edge_writes.grant(document_of(), short)


TIERS = Tiers.parse(
    """{"models": {"scripted": 70}, "classes": {
        "page": {}, "faq": {"ttl_s": 900},
        "memo": {"sensitivity": "internal"},
        "contract": {"sensitivity": "confidential", "ttl_s": 60}}}"""
)


async def test_a_model_has_a_lifetime_of_its_own() -> None:
    """Where neither request nor class say another."""
    bench = Bench(tiers=TIERS)
    await bench.run(bench.query())
    header = await bench.stored()
    assert header is not None
    assert header.fresh_until_ms == START_MS + 70_000
    assert await granted(bench)


@pytest.mark.parametrize(
    ("content_class", "ttl_s", "sealed"), [("memo", 70, False), ("contract", 60, True)]
)
async def test_a_sensitive_answer_stays_at_the_origin(
    content_class: str,
    ttl_s: int,
    sealed: bool,
) -> None:
    """Whoever asks for it later, for as long as it lives; confidential ones are sealed."""
    bench = Bench(tiers=TIERS)
    await bench.run(bench.query(headers={"encore-class": content_class}))
    query = bench.query(headers={"encore-class": content_class})
    header = await bench.stored(query)
    assert header is not None
    assert header.fresh_until_ms == START_MS + ttl_s * 1000
    assert (header.encryption is not None) == sealed
    assert (await bench.run(query))[0] == "hit"
    for _ in range(2):
        assert not await bench.pipeline.edge_writes.grant(document_of(), header)
        bench.clock.now_ms += 31_000


CLASSES = [None, "page", "memo", "contract"]


@pytest.mark.parametrize("kept", CLASSES)
@pytest.mark.parametrize("asked", CLASSES)
@pytest.mark.parametrize("under_way", [False, True])
async def test_what_is_kept_for_one_class_answers_no_other(
    kept: str | None, asked: str | None, *, under_way: bool
) -> None:
    """Neither a stricter nor a laxer one, neither an entry nor a generation."""
    bench = Bench(tiers=TIERS)
    queries = [
        bench.query(headers={} if name is None else {"encore-class": name})
        for name in (kept, asked)
    ]
    if under_way:
        bench.engine.gate.clear()
        asking = [asyncio.create_task(bench.run(query)) for query in queries]
        await asyncio.sleep(0.01)
        bench.engine.gate.set()
        await asyncio.gather(*asking)
    else:
        for query in queries:
            await bench.run(query)
    assert bench.engine.runs == (1 if kept == asked else 2)
    for name, query in zip((kept, asked), queries, strict=True):
        header = await bench.stored(query)
        assert header is not None
        assert (header.encryption is not None) == (name == "contract")


@pytest.mark.parametrize(("lax_classes", "ttl_s"), [((), 70), (("faq",), 900)])
async def test_policy_lets_a_class_be_laxer(lax_classes: tuple[str, ...], ttl_s: int) -> None:
    """The tenant's own one, and no other's."""
    bench = Bench(tiers=TIERS)
    document = document_of(policy=Policy(lax_classes=lax_classes))
    query = bench.query(headers={"encore-class": "faq"}, document=document)
    await bench.run(query)
    header = await bench.stored(query)
    assert header is not None
    assert header.fresh_until_ms == START_MS + ttl_s * 1000


async def test_a_refresh_keeps_the_class_of_who_asked() -> None:
    """The new entry is as sensitive as the old one."""
    bench = Bench(tiers=TIERS)
    query = bench.query(headers={"encore-class": "contract"})
    await bench.run(query)
    old = await bench.stored(query)
    assert old is not None
    bench.clock.now_ms += 61_000
    new = await bench.pipeline.refresh(query, old)
    assert new is not None
    assert new.created_ms > old.created_ms
    assert new.encryption is not None
    assert not await bench.pipeline.edge_writes.grant(document_of(), new)


async def test_a_refresh_keeps_tags_class_and_tenant() -> None:
    """Whatever the request that happened to find the entry stale asks for itself."""
    bench = Bench(tiers=TIERS)
    document = document_of(policy=Policy(encrypted=True))
    memo = {"encore-class": "memo"}
    await bench.run(bench.query(headers=memo | {"encore-tags": "old"}, document=document))
    query = bench.query(headers=memo | {"encore-tags": "new", "encore-ttl": "1"}, document=document)
    old = await bench.stored(query)
    assert old is not None
    bench.clock.now_ms = old.fresh_until_ms + 1
    assert (await bench.run(query))[0] == "hit"
    while bench.pipeline._refreshes:
        await asyncio.wait(bench.pipeline._refreshes)
    new = await bench.stored(query)
    assert new is not None
    assert new.created_ms > old.created_ms
    assert new.tags == old.tags == (tag_of("old"),)
    assert new.tenant == old.tenant
    assert new.encryption == old.encryption is not None
    assert new.fresh_until_ms - new.created_ms == old.fresh_until_ms - old.created_ms
    assert not await bench.pipeline.edge_writes.grant(document, new)


async def test_a_class_nobody_configured_is_not_stored(bench: Bench) -> None:
    """What it was meant to forbid cannot be guessed; the answer is given, and says so."""
    query = bench.query(headers={"encore-class": "whatever"})
    answer = await bench.pipeline.answer(query)
    assert isinstance(answer, Generating)
    assert answer.detail == "unknown-class"
    with answer.flight.joined():
        await answer.flight.result()
    await answer.flight.landed()
    assert await bench.stored(query) is None


@pytest.mark.parametrize(("room_bytes", "stored"), [(1, False), (1 << 20, True)])
async def test_an_entry_has_a_largest_size(room_bytes: int, stored: bool) -> None:
    """The answer is given all the same."""
    bench = Bench(max_entry_bytes=room_bytes)
    assert (await bench.run(bench.query()))[1] == "Answer 1"
    assert (await bench.stored() is not None) == stored


async def test_store_that_fails_grants_nothing(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It fails no request either."""

    async def fail(*_: object, **__: object) -> bool:
        raise StoreError("down")

    await bench.run(bench.query())
    monkeypatch.setattr(bench.store, "grant", fail)
    assert not await granted(bench)


async def test_refused_replacement_is_pending_until_its_minute_is_over(bench: Bench) -> None:
    """The edge still has what a client had replaced; it is told once when it may write again."""
    replacing = bench.query(headers={"cache-control": "no-cache"})
    await bench.run(bench.query())
    assert await granted(bench)
    bench.clock.now_ms += 10_000
    await bench.run(replacing)
    assert not await granted(bench)
    bench.clock.now_ms += 59_999
    assert bench.pipeline.edge_writes.pending(10) == []
    bench.clock.now_ms += 1
    assert bench.pipeline.edge_writes.pending(0) == []
    assert bench.pipeline.edge_writes.pending(10) == [("acme", bench.key())]
    assert bench.pipeline.edge_writes.pending(10) == []


async def test_a_clock_set_back_keeps_no_replacement_pending(bench: Bench) -> None:
    """The clock was ten years ahead when the entry was replaced."""
    bench.clock.now_ms += 315_360_000_000
    await bench.run(bench.query(headers={"cache-control": "no-cache"}))
    assert bench.pipeline.edge_writes.pending(10) == []
    bench.clock.now_ms -= 315_360_000_000
    assert bench.pipeline.edge_writes.pending(10) == [("acme", bench.key())]


async def test_granted_replacement_is_not_pending(bench: Bench) -> None:
    """Nor is one that must not leave the origin; a grant for an older entry changes nothing."""
    replacing = {"cache-control": "no-cache"}
    await bench.run(bench.query())
    older = await bench.stored()
    assert older is not None
    bench.clock.now_ms += 1
    await bench.run(bench.query(headers=replacing))
    assert len(bench.pipeline.edge_writes._pending) == 1
    assert await bench.pipeline.edge_writes.grant(document_of(), older)
    assert len(bench.pipeline.edge_writes._pending) == 1
    bench.clock.now_ms += 60_000
    assert await granted(bench)
    assert not bench.pipeline.edge_writes._pending
    origin_only = document_of(policy=Policy(residency="origin-only"))
    await bench.run(bench.query(document=origin_only, headers=replacing))
    assert not bench.pipeline.edge_writes._pending


async def test_pending_writes_are_bounded(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest is forgotten."""
    monkeypatch.setattr("origin.edge_writes.MAX_PENDING", 2)
    for text in ("One", "Two", "Three"):
        await bench.run(bench.query(text, headers={"cache-control": "no-cache"}))
        bench.clock.now_ms += 1_000
    bench.clock.now_ms += 60_000
    expected = [("acme", bench.key(bench.query(text))) for text in ("Two", "Three")]
    assert bench.pipeline.edge_writes.pending(10) == expected


async def test_pending_write_that_is_replaced_again_keeps_its_turn(bench: Bench) -> None:
    """Else an entry that is replaced every half minute would never reach the edge."""
    for _ in range(3):
        await bench.run(bench.query(headers={"cache-control": "no-cache"}))
        bench.clock.now_ms += 30_000
    assert bench.pipeline.edge_writes.pending(10) == [("acme", bench.key())]


async def test_refresh_on_demand_makes_the_entry_anew(bench: Bench) -> None:
    """And says which one is there then; what is gone, or purged, is not made anew."""
    await bench.run(bench.query())
    old = await bench.stored()
    assert old is not None
    bench.clock.now_ms += 1
    new = await bench.pipeline.refresh(bench.query(), old)
    assert new == await bench.stored() != old
    assert await bench.pipeline.refresh(bench.query(), old) == new
    assert bench.engine.runs == 2
    gone = bench.query(document=bench.purged(everything=True))
    assert await bench.pipeline.refresh(gone, old) is None
    assert bench.engine.runs == 2
