"""Embedding requests, input by input. What stands in `vectors/embeddings.json` is not repeated."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.canonical import canonical
from shared.embeddings import elements, keyed_fields, wants_base64
from shared.errors import ClientError
from shared.requests import MAX_INPUTS, Endpoint, validate

EMBEDDINGS = Endpoint.EMBEDDINGS

TEXTS = st.sampled_from(["", "a", "b"])
TOKENS = st.lists(st.sampled_from([0, 1, -1, True, 1.5, "a", None]), max_size=2)
INPUTS: st.SearchStrategy[Any] = st.recursive(
    st.one_of(TEXTS, TOKENS, st.sampled_from([1, None, {}])),
    lambda inner: st.lists(inner, max_size=2),
    max_leaves=4,
)
BODIES = st.fixed_dictionaries(
    {"model": st.just("m"), "input": INPUTS},
    optional={
        "encoding_format": st.sampled_from([None, "float", "base64", "hex"]),
        "dimensions": st.sampled_from([1, 2]),
        "late_chunking": st.sampled_from([None, True]),
    },
)


def key(fields: dict[str, Any]) -> bytes:
    """What the cache key is an HMAC of."""
    kept = keyed_fields(EMBEDDINGS, fields)
    return canonical(tenant="t", scope="", endpoint=EMBEDDINGS, bucket=0, fields=kept)


def meaning(fields: dict[str, Any]) -> object:
    """What a valid request asks for, encoding and wrapping aside; the oracle of the key."""
    request = validate(EMBEDDINGS, fields)
    extra = {name: value for name, value in request.extra.items() if value is not None}
    return repr((request.inputs, fields.get("dimensions"), extra))  # type: ignore[union-attr]


@given(one=BODIES, other=BODIES)
def test_requests_of_one_key_ask_for_the_same(one: dict[str, Any], other: dict[str, Any]) -> None:
    """And whoever shares the key of a valid request, and names a known encoding, is valid too."""
    for fields in (one, other):
        try:
            wants_base64(EMBEDDINGS, fields)
        except ClientError:
            return
    if key(one) != key(other):
        return
    outcomes = []
    for fields in (one, other):
        try:
            outcomes.append(meaning(fields))
        except ClientError:
            outcomes.append(None)
    assert outcomes[0] == outcomes[1]


@given(fields=BODIES)
def test_every_input_alone_has_the_key_of_its_own_request(fields: dict[str, Any]) -> None:
    """Taking a valid request apart gives valid requests of one input, each its own only element."""
    try:
        request = validate(EMBEDDINGS, fields)
    except ClientError:
        return
    parts = elements(EMBEDDINGS, fields)
    if parts is None:
        assert any(value is not None for value in request.extra.values())
        return
    assert list(parts) == list(request.inputs)  # type: ignore[union-attr]
    for part in parts:
        alone = {**fields, "input": part}
        assert elements(EMBEDDINGS, alone) == [part]
        for wrapped in ({**alone, "input": [part]}, {**alone, "encoding_format": "base64"}):
            assert key(wrapped) == key(alone)


@pytest.mark.parametrize("endpoint", [Endpoint.CHAT, Endpoint.COMPLETIONS])
def test_other_endpoints_are_left_alone(endpoint: Endpoint) -> None:
    """Their unknown fields stay in the key, whatever they are called."""
    fields = {"model": "m", "input": ["a"], "encoding_format": "base64"}
    assert keyed_fields(endpoint, fields) is fields
    assert elements(endpoint, fields) is None
    assert not wants_base64(endpoint, fields)


@pytest.mark.parametrize(("count", "apart"), [(MAX_INPUTS, True), (MAX_INPUTS + 1, False)])
def test_more_inputs_than_are_valid_are_not_taken_apart(count: int, apart: bool) -> None:
    """Else entries of each would answer a request that is refused."""
    fields = {"model": "m", "input": ["a"] * count}
    assert (elements(EMBEDDINGS, fields) is not None) is apart


def test_nothing_is_changed_in_place() -> None:
    """The body goes on to the engine as it came."""
    fields = {"model": "m", "input": ["a"], "encoding_format": "base64"}
    keyed_fields(EMBEDDINGS, fields)
    assert fields == {"model": "m", "input": ["a"], "encoding_format": "base64"}
