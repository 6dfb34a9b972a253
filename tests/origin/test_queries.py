"""Requests that are remembered as they were read."""

from __future__ import annotations

import dataclasses

import pytest

from origin.queries import MAX_LATEST, MAX_LATEST_BODY_BYTES, LatestQueries, Query
from shared.control_document import ControlDocument
from shared.controls import Controls
from shared.keys import KeyRing, key_ring
from shared.requests import Endpoint

RING = key_ring("0123456789abcdef0123456789abcdef")
DOCUMENT = ControlDocument(tenant="acme", revision=1)
CONTROLS = Controls(tags=("a",))
BODY = b'{"model": "m"}'


def query_of(controls: Controls = CONTROLS) -> Query:
    """A request that was read."""
    return Query(
        endpoint=Endpoint.CHAT,
        document=DOCUMENT,
        ring=RING,
        controls=controls,
        fields={"model": "m"},
        key="a" * 64,
        other_key=None,
        strategy="exact",
        stream=False,
        include_usage=False,
    )


def found(latest: LatestQueries, body: bytes = BODY) -> Query | None:
    """What is remembered of a request that asks the same in every way but its body."""
    return latest.find(Endpoint.CHAT, DOCUMENT, Controls(tags=("a",)), body, RING)


def test_the_same_request_is_read_once() -> None:
    """Equal controls are the same controls."""
    latest, query = LatestQueries(), query_of()
    assert found(latest) is None
    latest.keep(BODY, query)
    assert found(latest) is query


@pytest.mark.parametrize(
    "other",
    [
        (Endpoint.COMPLETIONS, DOCUMENT, CONTROLS, BODY, RING),
        (Endpoint.CHAT, dataclasses.replace(DOCUMENT), CONTROLS, BODY, RING),
        (Endpoint.CHAT, ControlDocument(tenant="other", revision=1), CONTROLS, BODY, RING),
        (Endpoint.CHAT, DOCUMENT, Controls(tags=("b",)), BODY, RING),
        (Endpoint.CHAT, DOCUMENT, Controls(tags=("a",), scope="one"), BODY, RING),
        (Endpoint.CHAT, DOCUMENT, CONTROLS, BODY + b" ", RING),
        (Endpoint.CHAT, DOCUMENT, CONTROLS, BODY, key_ring("f" * 32)),
    ],
    ids=["endpoint", "changed document", "tenant", "tags", "scope", "body", "secret"],
)
def test_a_request_that_differs_is_read_itself(
    other: tuple[Endpoint, ControlDocument, Controls, bytes, KeyRing],
) -> None:
    """In whatever makes its key, or says what it may be answered by."""
    latest = LatestQueries()
    latest.keep(BODY, query_of())
    assert latest.find(*other) is None


def test_what_was_kept_last_counts() -> None:
    """One body, asked for in two ways by turns, is read each time."""
    latest, newer = LatestQueries(), query_of(Controls(tags=("b",)))
    latest.keep(BODY, query_of())
    latest.keep(BODY, newer)
    assert found(latest) is None
    assert latest.find(Endpoint.CHAT, DOCUMENT, Controls(tags=("b",)), BODY, RING) is newer


def test_those_not_asked_for_lately_are_forgotten() -> None:
    """There are so many, and no more."""
    latest = LatestQueries()
    for number in range(MAX_LATEST):
        latest.keep(b"%d" % number, query_of())
    assert found(latest, b"0") is not None
    latest.keep(BODY, query_of())
    assert found(latest, b"0") is not None
    assert found(latest, b"1") is None


def test_large_bodies_are_not_kept() -> None:
    """All of them together stay small."""
    latest = LatestQueries()
    latest.keep(b" " * MAX_LATEST_BODY_BYTES, query_of())
    latest.keep(b" " * (MAX_LATEST_BODY_BYTES + 1), query_of())
    assert len(latest._queries) == 1
