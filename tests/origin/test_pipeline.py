"""The pipeline over an in-memory store and an engine whose steps the test decides."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import Any

import pytest

from origin.pipeline import Generating, Hit, Pipeline, Query
from origin.stores.contract import StoreError
from origin.stores.memory import MemoryStore
from shared.control_document import ControlDocument
from shared.controls import parse_controls
from shared.envelope import Envelope, Header, decode, encode
from shared.errors import ClientError, UpstreamError
from shared.freshness import Lifetimes
from shared.keys import KeyRing, key_rings
from shared.requests import Endpoint
from tests.support.engines import MODEL, ScriptedEngine

SECRET = "a secret of the tests, long enough"
KEYS = key_rings(SECRET)
START_MS = 1_700_000_000_000


def document_of(tenant: str = "acme", **changes: Any) -> ControlDocument:
    """A control document by which nothing is purged."""
    return ControlDocument(tenant=tenant, revision=1, **changes)


class Clock:
    """Milliseconds that pass when told to."""

    def __init__(self) -> None:
        self.now_ms = START_MS

    def __call__(self) -> int:
        """The time."""
        return self.now_ms


class Bench:
    """A pipeline and the parts a test turns."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.engine = ScriptedEngine()
        self.clock_fails = False
        self.store = MemoryStore(now_ms=self.clock)
        self.pipeline = Pipeline(
            keys=KEYS,
            store=self.store,
            engine=self.engine,
            lifetimes=Lifetimes(
                ttl_s=100, stale_while_revalidate_s=50, stale_if_error_s=200, max_ttl_s=1000
            ),
            deadline_s=5,
            store_clock=self.store_clock,
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
    while (flight := bench.pipeline._flights.find(bench.key())) is not None:
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
    bench.pipeline._flights._deadline_s = 0.01
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
        bench.pipeline._no_refresh_before_ms.clear()
        bench.engine.failure = failure
        await bench.run(bench.query())
        await asyncio.gather(*bench.pipeline._refreshes)
    assert "refresh of" in caplog.text
    assert "RuntimeError" in caplog.text
    assert "s3cret" not in caplog.text
