"""Answers to other questions at the edge: served from KV, said, and refused to who is stricter."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from shared.control_document import Policy
from tests.edge.local_edge import StartEdge
from tests.edge.stack import Stack, content, documents_at_edge, is_hit, stacked, status, until
from tests.support.matchers import LooseMatcher


@pytest.fixture(scope="module")
def matching(start_edge: StartEdge) -> Iterator[Stack]:
    """A stack whose origin takes all questions of a scope to mean the same."""
    with stacked(start_edge, matcher=LooseMatcher()) as stack:
        stack.ask("the first look at the document")
        documents_at_edge(stack.edge, stack.control)
        yield stack


def in_scope(name: str) -> dict[str, str]:
    """The header of requests that are matched among themselves."""
    return {"encore-scope": name}


def answered(stack: Stack, name: str) -> str:
    """What the one question of a scope is answered with, once KV has the same for another."""
    scope = in_scope(name)
    said = content(until(lambda: stack.ask("one", scope), lambda r: "hit" in status(r)))
    response = stack.hit("two", scope)
    assert content(response) == said
    return said


def test_a_match_is_said_by_the_origin_then_by_the_edge(matching: Stack) -> None:
    """With how similar the questions are."""
    scope = in_scope("said")
    matching.ask("one", scope)
    first = until(lambda: matching.ask("two", scope), lambda r: "hit" in status(r))
    detail = 'detail="semantic; similarity=0.937"'
    assert status(first).startswith("encore-origin; hit; ttl=")
    assert detail in status(first)
    second = matching.hit("two", scope)
    assert status(second).startswith("encore-edge; hit; ttl=")
    assert detail in status(second)
    assert first.headers["encore-key"] == second.headers["encore-key"]
    assert content(first) == content(second)


@pytest.mark.parametrize("semantic", ["off", "0.94"])
def test_a_stricter_request_is_not_answered_from_kv(matching: Stack, semantic: str) -> None:
    """It gets an answer of its own, which is everybody's from then on."""
    scope = in_scope(f"strict-{semantic}")
    said = answered(matching, scope["encore-scope"])
    strict = scope | {"encore-semantic": semantic}
    first = matching.ask("two", strict)
    assert "detail=too-dissimilar" in status(first)
    assert content(first) != said
    matching.end_minute()
    own = matching.hit("two", strict)
    assert content(own) == content(first)
    assert "semantic" not in status(own)
    assert content(matching.hit("two", scope)) == content(first)


def test_another_rule_ends_what_kv_has(matching: Stack) -> None:
    """The document says by what is matched; the edge goes by it."""
    said = answered(matching, "rule")
    before = matching.document()
    try:
        matching.revise(policy=Policy(semantic="off"))
        documents_at_edge(matching.edge, matching.control)
        response = until(lambda: matching.ask("two", in_scope("rule")), lambda r: not is_hit(r))
        assert "fwd=miss; detail=recalibrated" in status(response).replace("stored; ", "")
        assert content(response) != said
    finally:
        matching.revise(policy=before.policy)
        documents_at_edge(matching.edge, matching.control)


def test_hits_are_counted_as_semantic(matching: Stack) -> None:
    """At the origin and at the edge."""
    answered(matching, "counted")
    matching.flush()
    counted = matching.stats()["strategies"]["semantic"]
    assert min(counted[tier] for tier in ("origin", "edge")) >= 1, counted


def test_a_stream_gets_the_same(matching: Stack) -> None:
    """One entry answers in both forms."""
    said = answered(matching, "streamed")
    response: httpx.Response = matching.ask("two", in_scope("streamed"), stream=True)
    assert is_hit(response)
    assert "semantic" in status(response)
    assert said in response.text.replace('"}', "") or said.split()[0] in response.text
