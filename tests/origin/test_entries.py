"""What is kept of an answer: an entry that every envelope can hold, or none."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from origin.entries import build_entry, entry_to_be
from shared.envelope import MAX_TAGS, EnvelopeError, decode, encode, header_json
from shared.requests import Endpoint
from tests.support.engines import chat_answer

KEY = "0" * 64
ABOUT: dict[str, Any] = {
    "key": KEY,
    "tenant": "acme",
    "generation_started_ms": 1,
    "fingerprint": "f1",
}
names = st.integers(1, 900).map(lambda length: length * "m")
tags = st.integers(0, MAX_TAGS).map(lambda count: tuple(f"{n:012x}" for n in range(count)))


@given(names, names, tags)
def test_an_entry_that_is_built_can_be_stored(
    model: str, answered_by: str, tags: tuple[str, ...]
) -> None:
    """However long the names in it."""
    try:
        entry = build_entry(
            Endpoint.CHAT,
            chat_answer("Hello") | {"model": answered_by},
            model=model,
            created_ms=1,
            expiry_ms=(2, 2, 2),
            tags=tags,
            **ABOUT,
        )
    except EnvelopeError:
        return
    assert decode(encode(entry)) == entry


@given(names, tags)
def test_what_is_to_be_an_entry_can_be_told(model: str, tags: tuple[str, ...]) -> None:
    """To other processes, which follow its generation."""
    try:
        to_be = entry_to_be(model=model, tags=tags, encryption=None, **ABOUT)
    except EnvelopeError:
        return
    assert header_json(to_be)


@pytest.mark.parametrize("characters", [1, 500])
def test_a_name_of_usual_length_fits(characters: int) -> None:
    """So nothing above is true of nothing."""
    to_be = entry_to_be(model=characters * "m", tags=(), encryption=None, **ABOUT)
    assert to_be.model == characters * "m"
