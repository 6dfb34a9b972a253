"""The questions near one that is asked, for an explanation: by the real decision."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from origin.explanation import semantic_tier
from shared.control_document import ControlDocument, Policy
from tests.origin.semantic.test_matcher import (
    NEAR_MISS,
    ORIGINAL,
    OTHER,
    PARAPHRASE,
    SPELLING,
    Bench,
)
from tests.origin.semantic.test_questions import asked, said


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    """A matcher that has learnt two questions."""
    bench = Bench()
    for text in (ORIGINAL, OTHER):
        await bench.learn(text)
    yield bench
    await bench.matcher.close()


async def test_each_neighbour_has_its_verdict(bench: Bench) -> None:
    """The likest first; a near-miss with the words on which the two differ."""
    query = asked(said(NEAR_MISS), document=bench.document)
    told = semantic_tier(await bench.matcher.neighbours(query, 5))
    assert told["would"] == "miss"
    assert "conflict" in told["why"]
    near, far = told["neighbours"]
    assert (near["text"], far["text"]) == (ORIGINAL, OTHER)
    assert near["verdict"] == "refused"
    assert ("Java", "Python") in {
        (conflict["asked"], conflict["known"]) for conflict in near["conflicts"]
    }
    assert near["similarity"] > far["similarity"]


async def test_what_would_be_served_is_what_matches(bench: Bench) -> None:
    """A paraphrase, and another spelling, which needs no score."""
    for text in (PARAPHRASE, SPELLING):
        query = asked(said(text), document=bench.document)
        told = semantic_tier(await bench.matcher.neighbours(query, 5))
        served = [each["text"] for each in told["neighbours"] if each["verdict"] == "served"]
        matches = await bench.matcher.matches(query)
        assert told["would"] == ("hit" if matches else "miss")
        assert len(served) == len(matches) == 1


@pytest.mark.parametrize(
    ("headers", "policy", "why"),
    [
        ({"encore-semantic": "off"}, Policy(), "Encore-Semantic: off"),
        ({}, Policy(semantic="off"), "policy is off"),
    ],
)
async def test_why_nothing_is_looked_for(
    bench: Bench, headers: dict[str, str], policy: Policy, why: str
) -> None:
    """It is the request's wish, or the tenant's."""
    document = ControlDocument(
        tenant="acme", revision=1, calibration=bench.calibration.version, policy=policy
    )
    query = asked(said(ORIGINAL), document=document, headers=headers)
    told = semantic_tier(await bench.matcher.neighbours(query, 5))
    assert told["would"] == "miss"
    assert why in told["why"]
