"""Matches by the shipped decision, over a real encoder and index."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import origin.semantic.matcher
from origin.metrics import SEMANTIC, SEMANTIC_ENTRIES
from origin.semantic.batcher import Batcher
from origin.semantic.calibration import Calibration
from origin.semantic.decision import Decision
from origin.semantic.encoder import EncoderError, Encoding
from origin.semantic.index import Candidate, Entry
from origin.semantic.local_index import LocalIndex
from origin.semantic.matcher import MAX_LEARNING, Match, Matcher
from origin.semantic.questions import question_of
from origin.semantic.verifier import Verifier
from origin.stores.contract import StoreError
from shared.control_document import ControlDocument, CutOffs, Policy
from shared.envelope import Header, SemanticSource
from tests.origin.semantic.test_questions import asked, said
from tests.support.encoders import encoder
from tests.support.instruments import value_of

START_MS = 1_700_000_000_000
LIFE_MS = 100_000
ORIGINAL = "How do I reverse a list in Python?"
PARAPHRASE = "How can you reverse a list in Python?"
NEAR_MISS = "How do I reverse a list in Java?"
SWAPPED = "What differences do pears and apples have?"
OTHER = "Which wine goes with roast lamb?"
SPELLING = f"Please, {OTHER}"


class Bench:
    """A matcher whose clock the test turns, and whose parts it may spoil."""

    def __init__(self, *, deadline_s: float = 60) -> None:
        self.now_ms = START_MS
        self.batcher = Batcher(encoder())
        self.index = LocalIndex(identity=encoder().identity, dims=encoder().dims)
        self.calibration = Calibration.load()
        self.matcher = Matcher(
            encoder=self.batcher,
            index=self.index,
            verifier=Verifier.load(),
            calibration=self.calibration,
            deadline_s=deadline_s,
            clock_ms=lambda: self.now_ms,
        )
        self.document = ControlDocument(
            tenant="acme", revision=1, calibration=self.calibration.version
        )

    async def learn(self, text: str, **changes: Any) -> str:
        """Index a text's answer, and return its key."""
        query = asked(said(text), document=self.document)
        header = header_of(query.key or "", **changes)
        self.matcher.learn(query, header)
        await self.matcher.learned()
        return header.key

    async def matches(self, text: str, **changes: Any) -> list[Match]:
        """What may answer a text."""
        return await self.matcher.matches(asked(said(text), document=self.document, **changes))


def header_of(key: str, **changes: Any) -> Header:
    """The header of an entry that has just been made."""
    header = Header(
        key=key,
        tenant="acme",
        generation_started_ms=START_MS,
        created_ms=START_MS,
        fresh_until_ms=START_MS + LIFE_MS,
        stale_until_ms=START_MS + 2 * LIFE_MS,
        error_until_ms=START_MS + 2 * LIFE_MS,
        etag="0",
        model="m",
        fingerprint="f",
        segments={"json": 1},
    )
    return replace(header, **changes)


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    """A fresh one, closed afterwards."""
    bench = Bench()
    await bench.matcher.start()
    yield bench
    await bench.matcher.close()


async def test_a_paraphrase_is_matched(bench: Bench) -> None:
    """With its cosine; what is alike and means something else is not."""
    await bench.learn(OTHER)
    await bench.learn(NEAR_MISS)
    key = await bench.learn(ORIGINAL)
    (match,) = await bench.matches(PARAPHRASE)
    assert match.key == key
    vectors = [e.vector for e in encoder().encode([ORIGINAL, PARAPHRASE]) if e is not None]
    assert match.similarity == pytest.approx(float(vectors[0] @ vectors[1]), abs=1e-6)


@pytest.mark.parametrize("text", [NEAR_MISS, OTHER, "Reverse", "How do I reverse a list?"])
async def test_what_means_something_else_is_not_matched(bench: Bench, text: str) -> None:
    """However alike it is."""
    await bench.learn(ORIGINAL)
    assert await bench.matches(text) == []


async def test_a_spelling_is_matched_without_the_encoder(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Equal normalised texts mean the same."""
    key = await bench.learn(OTHER)
    monkeypatch.setattr(bench.batcher, "encode", None)
    assert await bench.matches(SPELLING) == [Match(key=key, similarity=1.0)]


async def test_a_question_does_not_match_itself(bench: Bench) -> None:
    """Its own entry was looked for already."""
    await bench.learn(ORIGINAL)
    assert await bench.matches(ORIGINAL) == []


@pytest.mark.parametrize("semantic", ["off", "1"])
async def test_a_stricter_request_is_not_matched(bench: Bench, semantic: str) -> None:
    """`Encore-Semantic` tightens."""
    await bench.learn(ORIGINAL)
    assert await bench.matches(PARAPHRASE, headers={"encore-semantic": semantic}) == []


async def test_a_tenant_without_semantic_match_is_neither_matched_nor_indexed(bench: Bench) -> None:
    """Its policy says so."""
    await bench.learn(ORIGINAL)
    before = bench.document
    bench.document = replace(before, policy=Policy(semantic="off"))
    assert await bench.matches(PARAPHRASE) == []
    await bench.learn(OTHER)
    assert await bench.index.count() == 1


async def test_a_document_that_names_no_rule_matches_nothing(bench: Bench) -> None:
    """The edge could not tell what may be served."""
    await bench.learn(ORIGINAL)
    bench.document = replace(bench.document, calibration="")
    assert await bench.matches(PARAPHRASE) == []


async def test_a_document_that_names_another_rule_matches_nothing(bench: Bench) -> None:
    """Another origin process rules: what was matched here would bear the name of its rule."""
    await bench.learn(OTHER)
    assert await bench.matches(SPELLING) != []
    bench.document = replace(bench.document, calibration="0123456789ab")
    assert await bench.matches(SPELLING) == []


async def test_a_bound_that_cannot_be_shown_matches_nothing(bench: Bench) -> None:
    """Rather than guess; the first time it says so."""
    await bench.learn(ORIGINAL)
    bench.document = replace(bench.document, policy=Policy(semantic="0.000001"))
    assert await bench.matches(PARAPHRASE) == []


async def test_what_was_promoted_is_not_indexed(bench: Bench) -> None:
    """No chains."""
    source = SemanticSource(similarity=0.9, key="a" * 64, calibration="c")
    await bench.learn(ORIGINAL, source=source)
    assert await bench.index.count() == 0


async def test_it_ends_with_its_entrys_freshness(bench: Bench) -> None:
    """Stale answers are for who asked the very question."""
    await bench.learn(ORIGINAL)
    bench.now_ms += LIFE_MS
    assert await bench.matches(PARAPHRASE) == []


async def test_what_is_forgotten_is_not_matched(bench: Bench) -> None:
    """The tier forgets what has no entry any more."""
    key = await bench.learn(ORIGINAL)
    await bench.matcher.forget("acme", key)
    assert await bench.matches(PARAPHRASE) == []


async def test_a_purge_of_everything_clears_the_index(bench: Bench) -> None:
    """At the tenant's next request; one that is long past is left alone."""
    await bench.learn(ORIGINAL)
    bench.document = replace(bench.document, cut_offs=CutOffs(all_ms=START_MS - 100_000))
    await bench.matches(OTHER)
    await bench.matcher.learned()
    assert await bench.index.count() == 1
    bench.document = replace(bench.document, cut_offs=CutOffs(all_ms=START_MS))
    await bench.matches(OTHER)
    await bench.matcher.learned()
    assert await bench.index.count() == 0


async def test_a_sealed_entrys_question_leaves_no_process(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither its text nor its vector."""
    added: list[bool] = []

    async def add(_entry: Entry, *, now_ms: int, private: bool = False) -> None:
        assert now_ms == START_MS
        added.append(private)

    monkeypatch.setattr(bench.index, "add", add)
    await bench.learn(ORIGINAL)
    bench.document = replace(bench.document, policy=Policy(encrypted=True))
    await bench.learn(OTHER)
    assert added == [False, True]


@pytest.mark.parametrize("restarted", [False, True])
async def test_what_a_tenant_had_indexed_in_clear_is_cleared_when_it_is_encrypted(
    bench: Bench, restarted: bool
) -> None:
    """From then on nothing of it is in Redis, by whichever process it was put there."""
    await bench.learn(ORIGINAL)
    if restarted:
        bench.matcher._documents.clear()
    bench.document = replace(bench.document, policy=Policy(encrypted=True))
    await bench.matches(OTHER)
    await bench.matcher.learned()
    assert await bench.index.count() == 0


@pytest.mark.parametrize("is_being_read", [False, True])
async def test_what_began_before_a_tenant_was_encrypted_leaves_no_process(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, is_being_read: bool
) -> None:
    """Whether the policy came before its generation ended, or while its question was encoded."""
    added: list[bool] = []
    may_encode = asyncio.Event()
    encode = bench.batcher.encode

    async def add(_entry: Entry, *, now_ms: int, private: bool = False) -> None:
        assert now_ms == START_MS
        added.append(private)

    async def encode_later(text: str, timeout_s: float) -> Encoding | None:
        if text == ORIGINAL:
            await may_encode.wait()
        return await encode(text, timeout_s)

    monkeypatch.setattr(bench.index, "add", add)
    monkeypatch.setattr(bench.batcher, "encode", encode_later)
    query = asked(said(ORIGINAL), document=bench.document)
    bench.document = replace(bench.document, revision=2, policy=Policy(encrypted=True))
    if is_being_read:
        bench.matcher.learn(query, header_of(query.key or ""))
        await bench.matches(OTHER)
    else:
        await bench.matches(OTHER)
        bench.matcher.learn(query, header_of(query.key or ""))
    may_encode.set()
    await bench.matcher.learned()
    assert added == [True]


async def test_an_older_document_clears_nothing_again(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A generation that ends with the one it began with is no change of policy."""
    cleared: list[str | None] = []

    async def clear(tenant: str | None = None) -> None:
        cleared.append(tenant)

    monkeypatch.setattr(bench.index, "clear", clear)
    query = asked(said(ORIGINAL), document=bench.document)
    bench.document = replace(bench.document, revision=2, policy=Policy(encrypted=True))
    await bench.matches(OTHER)
    bench.matcher.learn(query, header_of(query.key or ""))
    await bench.matches(OTHER)
    await bench.matcher.learned()
    assert cleared == ["acme"]


async def test_a_text_past_the_window_is_not_matched(bench: Bench) -> None:
    """Nor indexed: it is never read in part."""
    long = "Summarise: " + "word " * 500
    await bench.learn(long + "one")
    assert await bench.index.count() == 0
    assert await bench.matches(long + "two") == []


@pytest.mark.parametrize("words", [500, 5000])
async def test_a_text_past_the_window_is_not_read(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, words: int
) -> None:
    """The event loop would stand still meanwhile: a second for 100,000 characters."""

    def read(_text: str) -> None:
        raise AssertionError

    monkeypatch.setattr(origin.semantic.matcher, "read", read)
    served = Decision(verifier=Verifier.load(), threshold=0.5)
    monkeypatch.setattr(bench.matcher, "_decision", lambda _: served)
    text = "Summarise: " + "word " * words
    await bench.learn(text)
    before = value_of(SEMANTIC.labels("failed"))
    assert await bench.matches(text + "two") == []
    assert value_of(SEMANTIC.labels("failed")) == before


async def test_decisions_are_told(bench: Bench) -> None:
    """Whose, what came of it, and how alike the likest was; a hit by who reads its entry."""
    told: list[tuple[str, str, float | None]] = []
    bench.matcher.tell = lambda *decision: told.append(decision)
    await bench.matches(OTHER)
    await bench.learn(NEAR_MISS)
    await bench.matches(ORIGINAL)
    await bench.learn(ORIGINAL)
    (match,) = await bench.matches(PARAPHRASE)
    assert [outcome for _, outcome, _ in told] == ["none", "refused"]
    assert {tenant for tenant, _, _ in told} == {"acme"}
    vectors = [e.vector for e in encoder().encode([ORIGINAL, NEAR_MISS]) if e is not None]
    assert told[0][2] is None
    assert told[1][2] == pytest.approx(float(vectors[0] @ vectors[1]), abs=1e-6)
    bench.matcher.count("acme", "hit", match.similarity)
    assert told[2] == ("acme", "hit", match.similarity)


async def test_it_says_how_it_does(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """By asking its encoder what it cannot remember."""
    assert await bench.matcher.check() == "ok"
    asked: list[str] = []

    async def encode(text: str, _timeout_s: float) -> Encoding:
        asked.append(text)
        raise TimeoutError if len(asked) == 1 else EncoderError("it broke")

    monkeypatch.setattr(bench.batcher, "encode", encode)
    assert await bench.matcher.check() == "late"
    bench.now_ms += 1
    assert await bench.matcher.check() == "failed"
    assert len(set(asked)) == 2


async def test_what_takes_too_long_is_no_match(monkeypatch: pytest.MonkeyPatch) -> None:
    """The request goes on at its deadline."""
    bench = Bench(deadline_s=0.01)

    async def encode(_text: str, _timeout_s: float) -> Encoding:
        await asyncio.sleep(60)
        raise AssertionError

    monkeypatch.setattr(bench.batcher, "encode", encode)
    before = value_of(SEMANTIC.labels("late"))
    assert await bench.matches(PARAPHRASE) == []
    assert value_of(SEMANTIC.labels("late")) == before + 1
    await bench.matcher.close()


@pytest.mark.parametrize("part", ["encoder", "index", "index's data"])
async def test_what_fails_is_no_match(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    """And comes back by itself."""
    await bench.learn(ORIGINAL)

    async def encode(_text: str, _timeout_s: float) -> Encoding:
        raise EncoderError("broken")

    async def find(*_: object, **__: object) -> Candidate | None:
        raise StoreError("down") if part == "index" else ValueError(ORIGINAL)

    with monkeypatch.context() as broken:
        if part == "encoder":
            broken.setattr(bench.batcher, "encode", encode)
        else:
            broken.setattr(bench.index, "find", find)
        assert await bench.matches(PARAPHRASE) == []
    assert len(await bench.matches(PARAPHRASE)) == 1


async def test_too_much_to_index_is_dropped(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """What waits is bounded."""
    going = asyncio.Event()

    async def encode(_text: str, _timeout_s: float) -> Encoding | None:
        await going.wait()
        return None

    monkeypatch.setattr(bench.batcher, "encode", encode)
    before = value_of(SEMANTIC_ENTRIES.labels("dropped"))
    query = asked(said(ORIGINAL), document=bench.document)
    for _ in range(MAX_LEARNING + 2):
        bench.matcher.learn(query, header_of(query.key or ""))
    assert value_of(SEMANTIC_ENTRIES.labels("dropped")) == before + 2
    going.set()
    await bench.matcher.learned()


async def test_partitions_share_nothing(bench: Bench) -> None:
    """The same question elsewhere is another one."""
    await bench.learn(ORIGINAL)
    assert await bench.matches(PARAPHRASE, headers={"encore-scope": "them"}) == []
    other = replace(bench.document, tenant="other")
    assert await bench.matcher.matches(asked(said(PARAPHRASE), document=other)) == []


async def test_an_index_that_rounds_is_not_believed(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cosine that counts is computed anew."""
    question = question_of(asked(said(ORIGINAL), document=bench.document))
    assert question is not None

    async def search(*_: object, **__: object) -> list[Candidate]:
        return [
            Candidate(key="a" * 64, text=text, similarity=0.999, expires_ms=2 * START_MS)
            for text in (OTHER, ORIGINAL)
        ]

    monkeypatch.setattr(bench.index, "search", search)
    (match,) = await bench.matches(PARAPHRASE)
    assert match.similarity < 0.999
    assert np.isfinite(match.similarity)


@pytest.mark.parametrize(
    ("text", "other", "similarity", "encoded"),
    [
        (PARAPHRASE, ORIGINAL, 0.999, True),
        (PARAPHRASE, ORIGINAL, 0.5, False),  # no score would save it
        (NEAR_MISS, ORIGINAL, 0.999, False),  # a veto
        ("Which differences do apples and pears have?", SWAPPED, 0.999, False),  # the order
        ("Which differences do pears and apples have?", SWAPPED, 0.999, True),
    ],
)
async def test_what_is_refused_without_the_encoder_is_not_encoded(
    bench: Bench,
    monkeypatch: pytest.MonkeyPatch,
    text: str,
    other: str,
    similarity: float,
    *,
    encoded: bool,
) -> None:
    """The dearest part of a decision is for candidates that may be served."""
    read: list[str] = []
    encode = bench.batcher.encode

    async def search(*_: object, **__: object) -> list[Candidate]:
        return [Candidate(key="a" * 64, text=other, similarity=similarity, expires_ms=2 * START_MS)]

    async def watched(text: str, timeout_s: float) -> Encoding | None:
        read.append(text)
        return await encode(text, timeout_s)

    monkeypatch.setattr(bench.index, "search", search)
    monkeypatch.setattr(bench.batcher, "encode", watched)
    await bench.matches(text)
    assert read == ([text, other] if encoded else [text])
