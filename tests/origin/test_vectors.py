"""Vectors of embedding answers: from what an upstream says to float32, and to either encoding."""

from __future__ import annotations

import base64
import json
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from origin.engine.contract import Finished
from origin.vectors import assemble, by_input, with_base64
from shared import json_text
from shared.embeddings import Element
from shared.errors import InternalError, UpstreamError

FLOATS32 = st.floats(width=32, allow_nan=False, allow_infinity=False)
DECIMALS = st.one_of(FLOATS32, st.floats(-1, 1), st.integers(-3, 3))


def answer_of(*vectors: Any, **fields: Any) -> dict[str, Any]:
    """A plain answer with these vectors, in order."""
    data = [
        {"object": "embedding", "index": index, "embedding": vector}
        for index, vector in enumerate(vectors)
    ]
    return {"object": "list", "data": data, "model": "m", **fields}


def about(answer: dict[str, Any], *inputs: Element) -> list[dict[str, Any]]:
    """The answers about each input of a run."""
    return by_input(Finished(answer=answer), inputs)


def vector_in(answer: dict[str, Any]) -> Any:
    """The vector of an answer about one input."""
    (datum,) = answer["data"]
    return datum["embedding"]


@given(said=st.lists(DECIMALS, min_size=1, max_size=8))
def test_both_encodings_hold_the_float32_of_what_was_said(said: list[float]) -> None:
    """Exactly, and as numpy makes it; through JSON and back nothing moves."""
    (answer,) = about(answer_of(said), "a")
    floats = json.loads(json_text.dumps(vector_in(answer)))
    encoded = json.loads(json_text.dumps(vector_in(with_base64(answer))))
    expected = np.array(said, dtype="<f4")
    assert floats == expected.tolist()
    assert base64.b64decode(encoded) == expected.tobytes()
    assert struct.pack(f"<{len(floats)}f", *floats) == expected.tobytes()


@given(said=st.lists(FLOATS32, min_size=1, max_size=8))
def test_vectors_said_as_base64_are_the_same(said: list[float]) -> None:
    """Of an upstream that encodes though it was not asked to."""
    encoded = base64.b64encode(struct.pack(f"<{len(said)}f", *said)).decode()
    assert about(answer_of(encoded), "a") == about(answer_of(said), "a")


@pytest.mark.parametrize(
    "vector",
    [
        None,
        [],
        {},
        5,
        "",
        "no base64!",
        "AAAA",
        base64.b64encode(struct.pack("<f", float("nan"))).decode(),
        [0.1, None],
        [0.1, "0.2"],
        [True],
        [[0.1]],
        [1e39],
        [10**400],
    ],
)
def test_what_is_no_vector_of_float32_is_refused(vector: Any) -> None:
    """Nothing is guessed, cut or turned into infinity."""
    with pytest.raises(UpstreamError) as refused:
        about(answer_of([0.5], vector), "a", "b")
    assert refused.value.code == "upstream_garbage"


@pytest.mark.parametrize(
    "data",
    [
        None,
        {},
        [],
        [{"embedding": [0.5]}],
        [{"embedding": [0.5]}] * 3,
        [{"embedding": [0.5]}, None],
        [{"index": 0, "embedding": [0.5]}] * 2,
        [{"index": 1, "embedding": [0.5]}, {"index": 2, "embedding": [0.5]}],
        [{"index": 0, "embedding": [0.5]}, {"embedding": [0.5]}],
        [{"index": [], "embedding": [0.5]}] * 2,
    ],
)
def test_vectors_that_cannot_be_told_apart_are_refused(data: Any) -> None:
    """One for each input, numbered as they are, or not numbered at all."""
    with pytest.raises(UpstreamError):
        about({"data": data}, "a", "b")


def test_vectors_are_taken_by_their_index() -> None:
    """Whatever order they come in; without any index, as they come."""
    answer = answer_of([1.0], [2.0], [3.0])
    answer["data"].reverse()
    assert list(map(vector_in, about(answer, "a", "b", "c"))) == [[1.0], [2.0], [3.0]]
    for datum in answer["data"]:
        del datum["index"]
    assert list(map(vector_in, about(answer, "a", "b", "c"))) == [[3.0], [2.0], [1.0]]


def test_what_else_an_answer_says_is_kept() -> None:
    """The fields of an answer about one input, its usage included, come as they were said."""
    usage = {"prompt_tokens": 3, "total_tokens": 3, "cost": 0.1}
    (answer,) = about(answer_of([0.5], id="embd-1", usage=usage), "a")
    assert answer == answer_of([0.5], id="embd-1", usage=usage)


def tokens_of(answers: list[dict[str, Any]]) -> list[int]:
    """The tokens counted for each."""
    return [answer["usage"]["prompt_tokens"] for answer in answers]


@given(inputs=st.lists(st.text(min_size=1, max_size=9), min_size=2), total=st.integers(0, 10_000))
def test_shares_of_the_tokens_add_up(inputs: list[str], total: int) -> None:
    """Where the engine knows a sum only, a whole batch asked again says the same sum."""
    usage = {"prompt_tokens": total}
    shares = tokens_of(about(answer_of(*[[0.5]] * len(inputs), usage=usage), *inputs))
    assert sum(shares) == total
    assert min(shares) >= 0


@pytest.mark.parametrize(
    ("inputs", "total", "shares"),
    [
        (["aaaa", "bb"], 6, [4, 2]),
        (["ä", "bb"], 4, [2, 2]),
        ([[1, 2, 3], [4]], 4, [3, 1]),
        (["a", "b", "c"], 2, [0, 1, 1]),
    ],
)
def test_shares_go_by_length(inputs: list[Element], total: int, shares: list[int]) -> None:
    """UTF-8 bytes of texts; token ids as they are."""
    answer = answer_of(*[[0.5]] * len(inputs), usage={"prompt_tokens": total})
    assert tokens_of(about(answer, *inputs)) == shares


def test_tokens_that_the_engine_tells_apart_are_exact() -> None:
    """They go before any share."""
    finished = Finished(
        answer=answer_of([0.5], [0.5], usage={"prompt_tokens": 9}), input_tokens=(7, 2)
    )
    assert tokens_of(by_input(finished, ["a", "bbbb"])) == [7, 2]


@pytest.mark.parametrize("usage", [None, [], {}, {"prompt_tokens": "many"}, {"prompt_tokens": -1}])
def test_nonsense_in_usage_counts_nothing(usage: Any) -> None:
    """What is not known of one input is not said; together it counts as 0."""
    answers = about(answer_of([0.5], [0.5], usage=usage), "a", "b")
    assert all("usage" not in answer for answer in answers)
    made = json.loads(assemble([json_text.dumps(answer) for answer in answers], [0, 1]))
    assert made["usage"] == {"prompt_tokens": 0, "total_tokens": 0}


@given(
    vectors=st.lists(st.lists(FLOATS32, min_size=1, max_size=4), min_size=1, max_size=4),
    dice=st.randoms(use_true_random=False),
    encoded=st.booleans(),
)
def test_assembling_is_as_parsing_and_writing_anew(
    vectors: list[list[float]], dice: Any, *, encoded: bool
) -> None:
    """The naive way is the oracle: order, indices, tokens of repeated inputs, other fields."""
    inputs = ["a" * (n + 1) for n in range(len(vectors))]
    total = sum(map(len, inputs))
    answers = about(
        answer_of(*vectors, id='"embedding":[', usage={"prompt_tokens": total}), *inputs
    )
    shown = [with_base64(answer) if encoded else answer for answer in answers]
    places = [dice.randrange(len(vectors)) for _ in range(6)]
    used = sum(len(inputs[place]) for place in places)
    expected = answer_of(
        *(vector_in(shown[place]) for place in places),
        id='"embedding":[',
        usage={"prompt_tokens": used, "total_tokens": used},
    )
    made = assemble([json_text.dumps(answer) for answer in shown], places)
    assert json.loads(made) == expected


@pytest.mark.parametrize("plain", [b"", b"{}", b'{"data":[],"object":"list"}'])
def test_what_was_not_made_here_is_not_taken_apart(plain: bytes) -> None:
    """It raises; it never gives a vector that is not there."""
    with pytest.raises(InternalError):
        assemble([plain], [0])


@pytest.mark.parametrize("data", [None, 5, [None], [{}], [{"embedding": ["x"]}]])
def test_encoding_leaves_what_is_no_vector(data: Any) -> None:
    """An answer that is passed on as it came."""
    assert with_base64({"data": data}) == {"data": data}
