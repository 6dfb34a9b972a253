"""What becomes of a match: the entry of another question, under one's own key."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import Any

import pytest

from origin.exact_tier import Hit
from origin.lifetimes import NO_TIERS, Tiers
from origin.pipeline import Pipeline
from origin.queries import Query
from origin.stores.contract import StoreError
from origin.stores.memory import MemoryStore
from shared.control_document import ControlDocument, Policy, Purge, purged
from shared.controls import parse_controls
from shared.envelope import Envelope, Header, decode
from shared.errors import UpstreamError
from shared.freshness import Lifetimes
from shared.keys import key_rings, short_key, tag_digest
from shared.requests import Endpoint
from tests.support.engines import MODEL, ScriptedEngine, chat_answer
from tests.support.matchers import SIMILARITY, VERSION, LooseMatcher

KEYS = key_rings("a secret of the tests, long enough")
START_MS = 1_700_000_000_000
DOCUMENT = ControlDocument(tenant="acme", revision=1, calibration=VERSION)
TTL_S = 100


class Bench:
    """A pipeline that takes every question for the same, and the parts a test turns."""

    def __init__(self, *, tiers: Tiers = NO_TIERS) -> None:
        self.now_ms = START_MS
        self.document = DOCUMENT
        self.engine = ScriptedEngine()
        self.store = MemoryStore(now_ms=lambda: self.now_ms)
        self.matcher = LooseMatcher()
        self.pipeline = Pipeline(
            keys=KEYS,
            store=self.store,
            engine=self.engine,
            lifetimes=Lifetimes(
                ttl_s=TTL_S, stale_while_revalidate_s=50, stale_if_error_s=200, max_ttl_s=1000
            ),
            deadline_s=5,
            store_clock=self.store_clock,
            tiers=tiers,
            clock_ms=lambda: self.now_ms,
            matcher=self.matcher,
        )

    async def store_clock(self) -> int:
        """The clock that cut-offs are told by."""
        return self.now_ms

    def query(self, text: str, headers: dict[str, str] | None = None, **fields: Any) -> Query:
        """A chat request as the routes would build it."""
        body = {"model": MODEL, "messages": [{"role": "user", "content": text}], **fields}
        return self.pipeline.query(
            Endpoint.CHAT,
            self.document,
            parse_controls(headers or {}),
            json.dumps(body).encode(),
            ring=KEYS.current,
        )

    async def ask(
        self, text: str, headers: dict[str, str] | None = None, **fields: Any
    ) -> Header | str:
        """The header of the entry that answered, or the text of a generation, once it is stored."""
        answer = await self.pipeline.answer(self.query(text, headers, **fields))
        await asyncio.gather(
            *(self.pipeline._semantic._promotions.values() if self.pipeline._semantic else ())
        )
        if isinstance(answer, Hit):
            assert answer.envelope == decode(answer.encoded)
            return answer.envelope.header
        with answer.flight.joined():
            finished = await answer.flight.result()
        await answer.flight.landed()
        said: str = finished.answer["choices"][0]["message"]["content"] or ""
        return said

    async def hit(self, text: str, headers: dict[str, str] | None = None) -> Header:
        """The header of the entry that answers; it is an error if none does."""
        answer = await self.ask(text, headers)
        assert isinstance(answer, Header), answer
        return answer

    async def stored(self, text: str) -> Envelope | None:
        """What is stored for a text."""
        encoded = await self.store.get(self.query(text).key or "")
        return None if encoded is None else decode(encoded)

    def purge(self, **named: Any) -> None:
        """Purge what is named, now."""
        self.document = purged(self.document, Purge(**named), self.now_ms)
        self.now_ms += 1


@pytest.fixture
def bench() -> Bench:
    """A fresh one."""
    return Bench()


async def test_a_match_answers_under_the_requests_own_key(bench: Bench) -> None:
    """It names its source and the rule that let it; the second time it is an exact match."""
    assert await bench.ask("one") == "Answer 1"
    source = await bench.stored("one")
    assert source is not None
    bench.now_ms += 1000
    header = await bench.hit("two")
    assert header.key == bench.query("two").key
    assert header.source is not None
    assert header.source.key == source.header.key
    assert header.source.similarity == SIMILARITY
    assert header.source.calibration == f"{VERSION}/strict"
    asked = bench.matcher.asked
    assert await bench.hit("two") == header
    assert bench.matcher.asked == asked
    assert bench.engine.runs == 1


async def test_it_says_so(bench: Bench) -> None:
    """Both times."""
    await bench.ask("one")
    for _ in range(2):
        answer = await bench.pipeline.answer(bench.query("two"))
        assert isinstance(answer, Hit)
        assert answer.detail == "semantic; similarity=0.937"
        await asyncio.sleep(0)


async def test_a_promoted_entry_has_its_sources_times(bench: Bench) -> None:
    """Copying restarts nothing."""
    await bench.ask("one")
    source = await bench.stored("one")
    bench.now_ms += 50_000
    header = await bench.hit("two")
    assert source is not None
    for name in ("generation_started_ms", "created_ms", "fresh_until_ms", "error_until_ms"):
        assert getattr(header, name) == getattr(source.header, name), name


async def test_a_stale_source_answers_nobody_else(bench: Bench) -> None:
    """Who asks in other words may as well have a new answer."""
    await bench.ask("one")
    bench.now_ms += TTL_S * 1000 + 1
    assert await bench.ask("two") == "Answer 2"


async def test_encore_ttl_ends_a_promoted_entry_sooner(bench: Bench) -> None:
    """And never later than its source."""
    await bench.ask("one")
    bench.now_ms += 1000
    assert (await bench.hit("two", {"encore-ttl": "5"})).fresh_until_ms == bench.now_ms + 5000
    longest = (await bench.hit("three", {"encore-ttl": "900"})).fresh_until_ms
    assert longest == START_MS + TTL_S * 1000


@pytest.mark.parametrize("encrypted", [False, True])
async def test_encore_ttl_of_0_is_answered_and_kept_nowhere(
    bench: Bench, *, encrypted: bool
) -> None:
    """Neither here nor at the edge."""
    bench.document = replace(DOCUMENT, policy=Policy(encrypted=encrypted))
    await bench.ask("one")
    header = await bench.hit("two", {"encore-ttl": "0"})
    assert header.source is not None
    assert await bench.stored("two") is None
    assert not await bench.pipeline.edge_writes.grant(bench.document, header)
    header = await bench.hit("two", {"encore-ttl": "1"})
    assert await bench.stored("two") is not None
    assert await bench.pipeline.edge_writes.grant(bench.document, header)


async def test_nothing_is_matched_with_a_promoted_entry(bench: Bench) -> None:
    """No chains: what was matched is not indexed."""
    await bench.ask("one")
    await bench.hit("two")
    await bench.hit("three")
    (keys,) = bench.matcher.learnt.values()
    assert keys == [bench.query("one").key]


async def test_a_source_that_was_itself_promoted_is_passed_over(bench: Bench) -> None:
    """Whatever an index says."""
    await bench.ask("one")
    await bench.hit("two")
    (keys,) = bench.matcher.learnt.values()
    keys[:] = [bench.query("two").key or ""]
    assert await bench.ask("three") == "Answer 2"
    assert keys == [bench.query("three").key]  # nor looked at again


@pytest.mark.parametrize("mode", ["off", "strict", "0.02"])
async def test_another_rule_ends_what_was_promoted(bench: Bench, mode: str) -> None:
    """A newer calibration, or another bound: the entry is a miss, and is replaced."""
    await bench.ask("one")
    first = await bench.hit("two")
    policy = Policy(semantic=mode)
    bench.document = replace(DOCUMENT, policy=policy, calibration="ba9876543210")
    if mode == "off":
        bench.matcher.learnt.clear()
        assert await bench.ask("two") == "Answer 2"
        return
    second = await bench.hit("two")
    assert first.source is not None
    assert second.source is not None
    assert second.source.calibration == f"ba9876543210/{mode}"
    stored = await bench.stored("two")
    assert stored is not None
    assert stored.header == second


@pytest.mark.parametrize("semantic", ["off", "0.94", "1"])
async def test_a_stricter_request_gets_an_answer_of_its_own(bench: Bench, semantic: str) -> None:
    """It replaces the promoted one."""
    await bench.ask("one")
    await bench.hit("two")
    assert await bench.ask("two", {"encore-semantic": semantic}) == "Answer 2"
    assert (await bench.hit("two")).source is None


@pytest.mark.parametrize("semantic", ["0", "0.9", "0.9375"])
async def test_a_request_that_is_no_stricter_is_answered(bench: Bench, semantic: str) -> None:
    """Up to the very similarity."""
    await bench.ask("one")
    assert (await bench.hit("two", {"encore-semantic": semantic})).source is not None


@pytest.mark.parametrize("directive", ["no-cache", "no-store"])
async def test_a_request_for_a_new_answer_gets_one(bench: Bench, directive: str) -> None:
    """`no-cache` replaces what was promoted, too."""
    await bench.ask("one")
    await bench.hit("two")
    assert await bench.ask("two", {"cache-control": directive}) == "Answer 2"
    replaced = (await bench.hit("two")).source is None
    assert replaced == (directive == "no-cache")


async def test_only_if_cached_is_answered_by_a_match(bench: Bench) -> None:
    """It is a stored answer."""
    await bench.ask("one")
    assert (await bench.hit("two", {"cache-control": "only-if-cached"})).source is not None
    bench.matcher.learnt.clear()
    with pytest.raises(UpstreamError) as caught:
        await bench.ask("three", {"cache-control": "only-if-cached"})
    assert caught.value.status == 504


async def test_directives_hold_for_the_source(bench: Bench) -> None:
    """Its age is that of the answer."""
    await bench.ask("one")
    bench.now_ms += 10_000
    assert await bench.ask("two", {"cache-control": "max-age=5"}) == "Answer 2"
    assert (await bench.hit("three", {"cache-control": "max-age=15"})).source is not None


PURGES = (
    {"everything": True},
    {"models": (MODEL,)},
    {"tags": (tag_digest(KEYS.current, "acme", "news"),)},
    {"keys": ("one",)},
    {"keys": ("two",)},
)


@pytest.mark.parametrize("named", PURGES, ids=str)
async def test_a_purge_of_the_source_or_of_itself_ends_it(
    bench: Bench, named: dict[str, Any]
) -> None:
    """And it does not come back by being matched anew."""
    await bench.ask("one", {"encore-tags": "news"})
    await bench.hit("two")
    if "keys" in named:
        named = {"keys": tuple(short_key(bench.query(text).key or "") for text in named["keys"])}
    bench.purge(**named)
    assert await bench.ask("two") == "Answer 2"
    assert (await bench.hit("two")).source is None


async def test_tags_of_both_requests_purge_it(bench: Bench) -> None:
    """Its own are added to its source's."""
    await bench.ask("one", {"encore-tags": "news"})
    header = await bench.hit("two", {"encore-tags": "sport"})
    assert set(header.tags) == {tag_digest(KEYS.current, "acme", tag) for tag in ("news", "sport")}


async def test_more_tags_than_fit_are_no_match(bench: Bench) -> None:
    """A purge by one of them would miss it."""
    await bench.ask("one", {"encore-tags": ",".join(f"a{i}" for i in range(16))})
    assert await bench.ask("two", {"encore-tags": "b"}) == "Answer 2"


async def test_a_sealed_source_is_sealed_anew(bench: Bench) -> None:
    """It opens under its own key and header alone."""
    bench.document = replace(DOCUMENT, policy=Policy(encrypted=True))
    await bench.ask("one")
    header = await bench.hit("two")
    assert header.encryption is not None
    assert (await bench.hit("two")).source == header.source


async def test_plain_entries_answer_no_tenant_that_is_encrypted_by_now(bench: Bench) -> None:
    """As for any entry."""
    await bench.ask("one")
    bench.document = replace(DOCUMENT, policy=Policy(encrypted=True))
    assert await bench.ask("two") == "Answer 2"


async def test_another_model_behind_the_name_answers_anew(bench: Bench) -> None:
    """A source of another fingerprint is none."""
    await bench.ask("one")
    bench.engine.model_fingerprint = "f2"
    assert await bench.ask("two") == "Answer 2"


async def test_an_answer_that_calls_a_tool_is_not_indexed(bench: Bench) -> None:
    """It is for the very request."""
    answer = chat_answer("")
    answer["choices"][0]["message"] |= {
        "content": None,
        "tool_calls": [
            {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
        ],
    }
    answer["choices"][0]["finish_reason"] = "tool_calls"
    bench.engine.whole = answer
    tools = [{"type": "function", "function": {"name": "f"}}]
    await bench.ask("one", tools=tools)
    assert await bench.stored("one") is None  # it has no tools
    assert bench.matcher.learnt == {}


async def test_what_is_not_stored_yet_is_not_indexed(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A match would find no entry; it is once a later try has stored it."""

    async def put(*_: Any, **__: Any) -> None:
        raise StoreError("down")

    with monkeypatch.context() as down:
        down.setattr(bench.store, "put", put)
        await bench.ask("one")
        assert bench.matcher.learnt == {}
    await bench.pipeline._generations._writes.close()
    (keys,) = bench.matcher.learnt.values()
    assert keys == [bench.query("one").key]


async def test_a_source_that_is_gone_is_forgotten(bench: Bench) -> None:
    """The next best may answer."""
    await bench.ask("one")
    await bench.ask("two", {"encore-semantic": "off"})
    await bench.store.delete(bench.query("two").key or "")
    header = await bench.hit("three")
    assert header.source is not None
    assert header.source.key == bench.query("one").key
    (keys,) = bench.matcher.learnt.values()
    assert keys == [bench.query("one").key]


async def test_a_source_is_not_forgotten_while_its_model_cannot_be_asked(bench: Bench) -> None:
    """It answers again afterwards."""
    await bench.ask("one")
    bench.engine.model_fingerprint = "f2"
    await bench.ask("two", {"encore-ttl": "0"})
    bench.engine.model_fingerprint = "f1"
    assert await bench.hit("three")


async def test_a_store_that_is_down_is_not_asked_for_matches(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its time-outs would add up."""
    await bench.ask("one")
    asked = bench.matcher.asked

    async def failing(_key: str) -> bytes | None:
        raise StoreError("down")

    monkeypatch.setattr(bench.store, "get", failing)
    assert await bench.ask("two") == "Answer 2"
    assert bench.matcher.asked == asked


async def test_what_many_ask_at_once_is_promoted_once(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store that is slow does not get it from each of them."""
    await bench.ask("one")
    put, puts = bench.store.put, 0
    go_on = asyncio.Event()

    async def slow(*args: Any, **named: Any) -> None:
        nonlocal puts
        puts += 1
        await go_on.wait()
        await put(*args, **named)

    monkeypatch.setattr(bench.store, "put", slow)
    answers = await asyncio.gather(*(bench.pipeline.answer(bench.query("two")) for _ in range(9)))
    assert all(isinstance(answer, Hit) for answer in answers)
    go_on.set()
    await bench.pipeline.close()
    assert puts == 1


async def test_a_store_that_fails_costs_a_generation(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And no request."""
    await bench.ask("one")
    get = bench.store.get

    async def failing(key: str) -> bytes | None:
        if key == bench.query("one").key:
            raise StoreError("down")
        return await get(key)

    monkeypatch.setattr(bench.store, "get", failing)
    assert await bench.ask("two") == "Answer 2"


async def test_an_entry_of_ones_own_is_not_replaced(bench: Bench) -> None:
    """It came while the match was made."""
    await bench.ask("one")
    await bench.ask("two", {"encore-semantic": "off"})
    own = await bench.stored("two")
    tier = bench.pipeline._semantic
    assert tier is not None
    assert own is not None
    encoded = await bench.store.get(bench.query("one").key or "")
    assert encoded is not None
    hit = await tier._promote(bench.query("two"), decode(encoded), SIMILARITY)
    assert hit is not None
    await asyncio.gather(*tier._promotions.values())
    assert await bench.stored("two") == own


async def test_a_stale_entry_of_ones_own_is_made_anew(bench: Bench) -> None:
    """Who has asked this very question before is not given another's answer."""
    await bench.ask("one", {"encore-ttl": "900"})
    await bench.ask("two", {"encore-semantic": "off"})
    bench.now_ms += TTL_S * 1000 + 60_000
    assert await bench.ask("two") == "Answer 3"


async def test_a_class_that_must_not_leave_stays(bench: Bench) -> None:
    """What restricts the source restricts the promoted entry."""
    bench = Bench(tiers=Tiers.parse('{"classes": {"own": {"sensitivity": "internal"}}}'))
    await bench.ask("one", {"encore-class": "own"})
    assert (await bench.hit("two", {"encore-class": "own"})).origin_only


async def test_what_came_of_a_match_is_told(bench: Bench) -> None:
    """A hit with its similarity; one whose entries have gone without."""
    told: list[tuple[str, str, float | None]] = []
    bench.matcher.tell = lambda *decision: told.append(decision)
    await bench.ask("one way to ask it")
    await bench.hit("another way to ask it")
    assert told == [("acme", "hit", SIMILARITY)]
    bench.purge(everything=True)
    await bench.ask("a third way to ask it")
    assert told[1:] == [("acme", "gone", None)]
