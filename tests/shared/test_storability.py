"""What may be kept. The table of cases is `tests/vectors/storability.json`."""

from __future__ import annotations

from typing import Any

import pytest

from shared.requests import Endpoint, validate
from shared.storability import exact_only, request_storability, storability

Json = dict[str, Any]


def _storability(answer: Json, **fields: Any) -> str | None:
    body = {"model": "m", "messages": [{"role": "user", "content": "hi"}], **fields}
    return storability(validate(Endpoint.CHAT, body), answer)


def _answer(content: object = "Hello", finish: object = "stop", **message: Any) -> Json:
    said = {"role": "assistant", "content": content, **message}
    choice = {"index": 0, "message": said, "finish_reason": finish}
    return {"object": "chat.completion", "choices": [choice]}


def test_a_request_alone_can_forbid() -> None:
    """A request's own reason is known before there is an answer, and outlives a good one."""
    body = {"model": "m", "messages": [{"role": "user", "content": "x"}], "web_search_options": {}}
    request = validate(Endpoint.CHAT, body)
    assert request_storability(request) == "web_search"
    assert storability(request, _answer()) == "web_search"


def test_an_option_that_is_null_asks_for_nothing() -> None:
    """Null is absent: a null option forbids nothing."""
    assert _storability(_answer(), web_search_options=None, previous_response_id=None) is None


@pytest.mark.parametrize("content", ["\ud800", [{"type": "text", "score": float("nan")}]])
def test_what_cannot_be_written_is_not_kept(content: object) -> None:
    """An answer that JSON cannot say is refused here, not when it is stored."""
    assert _storability(_answer(content)) == "not_json"


@pytest.mark.parametrize(
    "answer",
    [
        {},
        {"choices": {}},
        {"choices": "x"},
        {"choices": [None]},
        {"choices": [{"message": "x", "finish_reason": "stop"}]},
        {"choices": [{"message": {"tool_calls": 1}, "finish_reason": "stop"}]},
        {"choices": [{"message": {"content": "x"}, "finish_reason": ["stop"]}]},
        {"choices": [{"index": 0, "message": {"content": "x"}, "finish_reason": "stop"}]},
    ],
)
def test_what_is_no_answer_is_never_kept(answer: Json) -> None:
    """Anything an upstream may send in place of an answer has a reason, not an exception."""
    assert _storability(answer) is not None
    assert exact_only(answer) in {True, False}


def test_content_in_parts_is_an_answer() -> None:
    """Some upstreams answer with parts; they are kept whole."""
    assert _storability(_answer([{"type": "text", "text": "x"}])) is None


@pytest.mark.parametrize("limit", ["max_tokens", "max_completion_tokens"])
def test_a_cut_that_was_asked_for_is_complete(limit: str) -> None:
    """`length` is an answer to who set the limit, and half of one to everybody else."""
    assert _storability(_answer(finish="length"), **{limit: 5}) is None
    assert _storability(_answer(finish="length"), **{limit: None}) == "length"


@pytest.mark.parametrize("data", [{}, "x", ["x", "y"], [{"embedding": [1]}, {}], [None, None]])
def test_broken_vectors_are_never_kept(data: object) -> None:
    """Embeddings are kept only when there is a vector for every input."""
    request = validate(Endpoint.EMBEDDINGS, {"model": "m", "input": ["a", "b"]})
    assert storability(request, {"data": data}) in {"empty", "incomplete"}


@pytest.mark.parametrize("tokens", [[1, 2, 3], [[1, 2, 3]], "text"])
def test_one_array_of_tokens_is_one_input(tokens: object) -> None:
    """An array of token ids asks for one vector, not for one each."""
    request = validate(Endpoint.EMBEDDINGS, {"model": "m", "input": tokens})
    assert storability(request, {"data": [{"index": 0, "embedding": [0.5]}]}) is None
