"""Why a request is answered as it is: in one sentence for each tier, by the rules themselves."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from origin.explanation import Look, explanation, semantic_tier
from shared.control_document import ControlDocument, Policy
from shared.controls import Controls, Directives
from shared.envelope import Header
from shared.freshness import decide
from tests.origin.semantic.test_matcher import START_MS, header_of
from tests.origin.semantic.test_questions import asked, said

LOOK = Look(
    header=None,
    decision=None,
    trouble=None,
    unstorable=None,
    refusal=None,
    fingerprint="f",
    generating=False,
)


def tiers(
    look: Look, *, controls: Controls | None = None, policy: Policy | None = None, after_s: int = 0
) -> dict[str, Any]:
    """What is said of each tier, by its name."""
    document = ControlDocument(tenant="acme", revision=1, policy=policy or Policy())
    query = asked(said("Which wine goes with roast lamb?"), document=document)
    query = replace(query, controls=controls or Controls())
    told = explanation(
        query, look, semantic_tier("off"), now_ms=START_MS + after_s * 1000, admit_after=1
    )
    return {tier["tier"]: tier for tier in told["tiers"]} | {"answered_by": told["answered_by"]}


def found(header: Header, controls: Controls, after_s: int) -> Look:
    """What the pipeline goes by where this entry is there."""
    decision = decide(header, START_MS + after_s * 1000, controls.directives)
    return replace(LOOK, header=header, decision=decision)


@pytest.mark.parametrize(
    ("directives", "after_s", "would", "why"),
    [
        (Directives(), 0, "hit", "it is fresh"),
        (Directives(), 150, "stale", "a refresh begins behind the answer"),
        (Directives(), 250, "miss", "it expired 50 s ago"),
        (Directives(no_cache=True), 0, "miss", "no-cache"),
        (Directives(no_store=True), 0, "miss", "no-store"),
        (Directives(max_age_s=10), 11, "miss", "max-age=10, and it is 11 s old"),
        (Directives(min_fresh_s=60), 50, "miss", "min-fresh=60, and 50 s are left"),
        (Directives(max_stale_s=5), 110, "miss", "max-stale=5, and it is stale for 10 s"),
        (Directives(max_age_s=1000), 101, "miss", "stale"),
    ],
)
def test_freshness_is_said_with_its_arithmetic(
    directives: Directives, after_s: int, would: str, why: str
) -> None:
    """The entry lives 100 s, and 100 s more while it is refreshed."""
    controls = Controls(directives=directives)
    told = tiers(found(header_of("a" * 64), controls, after_s), controls=controls, after_s=after_s)
    assert told["l1"]["would"] == would
    assert why in told["l1"]["why"]
    assert told["answered_by"] == ("engine" if would == "miss" else "l1")


@pytest.mark.parametrize(
    ("trouble", "why"),
    [
        ("purged", "a purge names it"),
        ("model-changed", "the model has changed"),
        ("l1-error", "Redis could not be read"),
        (None, "there is none under this key"),
    ],
)
def test_what_is_there_and_may_not_answer_says_why(trouble: str | None, why: str) -> None:
    """In words, of what `Cache-Status` has a code for."""
    header = None if trouble in {None, "l1-error"} else header_of("a" * 64)
    told = tiers(replace(LOOK, header=header, trouble=trouble))
    assert told["l1"]["would"] == "miss"
    assert why in told["l1"]["why"]
    assert ("entry" in told["l1"]) == (header is not None)


@pytest.mark.parametrize(
    ("changes", "would", "why"),
    [
        ({}, "generate", "would be kept"),
        ({"unstorable": "web_search"}, "generate", "not kept (web_search)"),
        ({"refusal": "Unsupported parameter: 'tools'"}, "refuse", "tools"),
        ({"generating": True}, "generate", "would join"),
    ],
)
def test_the_engine(changes: dict[str, Any], would: str, why: str) -> None:
    """It generates, or says why it does not."""
    told = tiers(replace(LOOK, **changes))
    assert told["engine"]["would"] == would
    assert why in told["engine"]["why"]
    assert told["answered_by"] == ("engine" if would == "generate" else None)


def test_only_if_cached_is_refused() -> None:
    """With the status that it gets."""
    told = tiers(LOOK, controls=Controls(directives=Directives(only_if_cached=True)))
    assert "504" in told["engine"]["why"]
    assert told["answered_by"] is None


@pytest.mark.parametrize(
    ("policy", "unstorable", "why"),
    [
        (Policy(residency="origin-only"), None, "stay out of Workers KV"),
        (Policy(), "no-store", "not kept (no-store)"),
        (Policy(), None, "only-if-cached"),
    ],
)
def test_the_edge(policy: Policy, unstorable: str | None, why: str) -> None:
    """The origin knows what may be in KV, not what is."""
    told = tiers(replace(LOOK, unstorable=unstorable), policy=policy)
    assert why in told["edge"]["why"]
