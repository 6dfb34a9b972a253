"""Answers become event streams and come back equal, whatever they hold."""

from __future__ import annotations

import json
from typing import Any

import httpx2
import openai
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai.lib.streaming.chat import ChatCompletionStreamState

from shared.errors import UpstreamError
from shared.requests import Endpoint
from shared.sse import DONE, SSEParser
from shared.streams import (
    PIECE_CHARS,
    Assembler,
    chunks,
    event_stream,
    rebuildable,
    usage_chunk,
)

Json = dict[str, Any]

relaxed = settings(max_examples=100)

_texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
_long_texts = st.one_of(
    _texts, st.builds(lambda text, times: text * times, _texts, st.integers(1, 200))
)
_scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    _texts,
)
_values = st.recursive(
    _scalars,
    lambda v: st.lists(v, max_size=3) | st.dictionaries(_texts, v, max_size=3),
    max_leaves=5,
)
_token: st.SearchStrategy[Json] = st.fixed_dictionaries(
    {"token": _texts, "logprob": st.floats(-9, 0), "bytes": st.none(), "top_logprobs": st.just([])}
)


def _some(fields: dict[str, st.SearchStrategy[Any]]) -> st.SearchStrategy[Json]:
    return st.fixed_dictionaries({}, optional=fields)


def _numbered(choices: list[Json]) -> list[Json]:
    return [choice | {"index": index} for index, choice in enumerate(choices)]


_function = st.fixed_dictionaries({"name": _texts, "arguments": _long_texts})
_calls = st.lists(
    st.one_of(
        st.fixed_dictionaries(
            {"id": _texts, "type": st.just("function"), "function": _function},
            optional={"extra_content": _values},
        ),
        st.fixed_dictionaries(
            {
                "id": _texts,
                "type": st.just("custom"),
                "custom": st.fixed_dictionaries({"name": _texts, "input": _long_texts}),
            }
        ),
    ),
    max_size=3,
)
_message = st.builds(
    lambda said, rest: said | rest,
    st.fixed_dictionaries({"role": st.just("assistant"), "content": st.none() | _long_texts}),
    _some(
        {
            "refusal": st.none() | _long_texts,
            "reasoning_content": st.none() | _long_texts,
            "reasoning": _long_texts,
            "tool_calls": st.none() | _calls,
            "function_call": st.none() | _function,
            "annotations": st.lists(_values, max_size=2),
            "unknown": _values,
        }
    ),
)
_tokens = st.none() | st.lists(_token, max_size=80)
_finish = st.sampled_from(["stop", "length", "tool_calls"])
_head: dict[str, st.SearchStrategy[Any]] = {
    "id": _texts,
    "created": st.integers(0, 2**40),
    "model": _texts,
}
_rest = {
    "usage": st.fixed_dictionaries({"total_tokens": st.integers(0)}),
    "system_fingerprint": st.none() | _texts,
    "service_tier": st.sampled_from(["default", None]),
    "citations": st.lists(_texts, max_size=2),
    "provider": _texts,
}


@st.composite
def chat_answers(draw: st.DrawFn) -> Json:
    """Plain chat answers of every shape there is, log probabilities with and without their text."""
    choices = draw(st.lists(_chat_choice(), min_size=1, max_size=3).map(_numbered))
    head = draw(st.fixed_dictionaries(_head, optional=_rest))
    return {"object": "chat.completion", "choices": choices} | head


@st.composite
def _chat_choice(draw: st.DrawFn) -> Json:
    choice: Json = {"message": draw(_message), "finish_reason": draw(_finish)}
    kind = draw(st.sampled_from(["absent", "null", "any", "spoken"]))
    if kind == "null":
        choice["logprobs"] = None
    elif kind == "any":
        choice["logprobs"] = {"content": draw(_tokens), "refusal": draw(_tokens)}
    elif kind == "spoken":
        spoken = draw(st.lists(_token, max_size=80))
        choice["message"]["content"] = "".join(token["token"] for token in spoken)
        choice["logprobs"] = {"content": spoken, "refusal": None}
    return choice | draw(_some({"stop_reason": _values}))


@st.composite
def completion_answers(draw: st.DrawFn) -> Json:
    """Plain legacy completions, with parallel lists of log probabilities and without."""
    choices = draw(st.lists(_completion_choice(), min_size=1, max_size=3).map(_numbered))
    head = draw(st.fixed_dictionaries(_head, optional=_rest))
    return {"object": "text_completion", "choices": choices} | head


@st.composite
def _completion_choice(draw: st.DrawFn) -> Json:
    words = draw(st.lists(_texts, max_size=80))
    choice: Json = {"text": "".join(words), "finish_reason": draw(_finish)}
    kind = draw(st.sampled_from(["absent", "null", "parallel", "odd"]))
    if kind == "null":
        choice["logprobs"] = None
    elif kind == "parallel":
        choice["logprobs"] = {
            "tokens": words,
            "token_logprobs": draw(
                st.lists(st.none() | st.floats(-9, 0), min_size=len(words), max_size=len(words))
            ),
            "top_logprobs": None,
            "text_offset": list(range(len(words))),
        }
    elif kind == "odd":
        choice["logprobs"] = {"tokens": words[1:], "token_logprobs": None, "odd": draw(_values)}
    return choice


def _assembled(endpoint: Endpoint, listed: list[Json]) -> Json:
    assembler = Assembler(endpoint)
    for chunk in listed:
        assembler.feed(json.loads(json.dumps(chunk)))
    assert assembler.unstorable is None
    return assembler.answer()


def _through_sse(endpoint: Endpoint, answer: Json) -> Json:
    parser = SSEParser()
    events = parser.feed(event_stream(endpoint, answer, include_usage=True))
    assert events[-1].data == DONE
    return _assembled(endpoint, [json.loads(event.data) for event in events[:-1]])


def _chat(message: Json, **more: Any) -> Json:
    return {
        "id": "c",
        "object": "chat.completion",
        "created": 1,
        "model": "m",
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
    } | more


@relaxed
@given(chat_answers())
def test_a_chat_answer_survives_its_stream(answer: Json) -> None:
    """Assembling the event stream of any chat answer gives the answer."""
    assert _through_sse(Endpoint.CHAT, answer) == answer
    assert rebuildable(Endpoint.CHAT, answer)


@relaxed
@given(completion_answers())
def test_a_completion_survives_its_stream(answer: Json) -> None:
    """Assembling the event stream of any legacy completion gives the answer."""
    assert _through_sse(Endpoint.COMPLETIONS, answer) == answer
    assert rebuildable(Endpoint.COMPLETIONS, answer)


@relaxed
@given(chat_answers(), st.data())
def test_growing_text_may_be_cut_anywhere(answer: Json, data: st.DataObject) -> None:
    """Cutting what a chunk says in two changes nothing."""
    listed = []
    for chunk in chunks(Endpoint.CHAT, answer):
        listed += _cut(chunk, data)
    assert _assembled(Endpoint.CHAT, listed) == _assembled(
        Endpoint.CHAT, chunks(Endpoint.CHAT, answer)
    )


def _cut(chunk: Json, data: st.DataObject) -> list[Json]:
    """Cut the text of a chunk that says one thing; leave others alone."""
    choice = chunk["choices"][0]
    delta = choice["delta"]
    if len(delta) != 1 or "logprobs" in choice:
        return [chunk]

    def again(said: Json) -> Json:
        return chunk | {"choices": [choice | {"delta": said}]}

    ((name, value),) = delta.items()
    if name == "tool_calls" and len(value[0].get("function", {})) == 1:
        text = value[0]["function"]["arguments"]
        at = data.draw(st.integers(0, len(text)))
        return [
            again({"tool_calls": [{"index": value[0]["index"], "function": {"arguments": part}}]})
            for part in (text[:at], text[at:])
        ]
    if name in ("content", "refusal", "reasoning_content") and isinstance(value, str):
        at = data.draw(st.integers(0, len(value)))
        return [again({name: value[:at]}), again({name: value[at:]})]
    return [chunk]


@relaxed
@given(st.permutations([0, 0, 0, 1, 1, 1, 2, 2]))
def test_choices_may_be_interleaved(order: list[int]) -> None:
    """Chunks of several choices assemble alike in whatever order the choices take turns."""
    answer = _chat({"role": "assistant", "content": "zero"})
    answer["choices"] = [
        answer["choices"][0] | {"index": i, "message": {"role": "assistant", "content": text}}
        for i, text in enumerate(["zero", "one", "two"])
    ]
    queues: dict[int, list[Json]] = {0: [], 1: [], 2: []}
    for chunk in chunks(Endpoint.CHAT, answer):
        queues[chunk["choices"][0]["index"]].append(chunk)
    listed = [queues[index].pop(0) for index in order]
    listed += [chunk for queue in queues.values() for chunk in queue]
    assert _assembled(Endpoint.CHAT, listed) == answer


def test_the_official_client_accumulates_the_same_answer() -> None:
    """The stream state of the `openai` client arrives at the answer the stream was made from."""
    answer = _official_answer()
    state = ChatCompletionStreamState()
    with _client(event_stream(Endpoint.CHAT, answer, include_usage=True)) as client:
        stream = client.chat.completions.create(
            model="m", messages=[], stream=True, stream_options={"include_usage": True}
        )
        for chunk in stream:
            state.handle_chunk(chunk)
    final = state.get_final_completion().to_dict()
    assert isinstance(final["choices"], list)
    for choice, expected in zip(final["choices"], answer["choices"], strict=True):
        message = choice["message"]
        message.pop("parsed", None)
        for position, call in enumerate(message.get("tool_calls") or ()):
            assert call.pop("index") == position
            call["function"].pop("parsed_arguments", None)
        assert _without_nulls(choice) == _without_nulls(expected)
    assert final["usage"] == answer["usage"]
    assert final["system_fingerprint"] == "fp"


def test_the_official_client_reads_a_completion_stream() -> None:
    """The `openai` client reads a legacy stream to its end and sees every chunk."""
    answer: Json = {
        "id": "t",
        "object": "text_completion",
        "created": 1,
        "model": "m",
        "choices": [{"index": 0, "text": "one two", "logprobs": None, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3},
    }
    with _client(event_stream(Endpoint.COMPLETIONS, answer, include_usage=True)) as client:
        stream = client.completions.create(model="m", prompt="x", stream=True)
        seen = [chunk.to_dict() for chunk in stream]
    assert _assembled(Endpoint.COMPLETIONS, seen) == answer


def _without_nulls(value: Any) -> Any:
    """Drop null members: the client's types fill in what they know of."""
    if isinstance(value, list):
        return [_without_nulls(item) for item in value]
    if isinstance(value, dict):
        return {name: _without_nulls(item) for name, item in value.items() if item is not None}
    return value


def _official_answer() -> Json:
    token = {"token": "Yes", "logprob": -0.5, "bytes": [89, 101, 115], "top_logprobs": []}
    calls = [
        {
            "id": f"call_{name}",
            "type": "function",
            "function": {"name": name, "arguments": json.dumps({"city": "Zürich " * 400})},
        }
        for name in ("first", "second")
    ]
    spoken = {
        "index": 0,
        "message": {"role": "assistant", "content": "Yes", "refusal": None},
        "logprobs": {"content": [token], "refusal": None},
        "finish_reason": "stop",
    }
    called = {
        "index": 1,
        "message": {"role": "assistant", "content": None, "refusal": None, "tool_calls": calls},
        "logprobs": None,
        "finish_reason": "tool_calls",
    }
    thought = {
        "index": 2,
        "message": {
            "role": "assistant",
            "content": "word " * 1000,
            "refusal": None,
            "reasoning_content": "hm " * 1000,
        },
        "logprobs": None,
        "finish_reason": "stop",
    }
    return _chat({}) | {
        "choices": [spoken, called, thought],
        "usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3},
        "system_fingerprint": "fp",
    }


def _client(body: bytes) -> openai.OpenAI:
    def respond(_: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, headers={"content-type": "text/event-stream"}, content=body)

    transport = httpx2.MockTransport(respond)
    return openai.OpenAI(
        api_key="k",
        base_url="http://edge/v1",
        http_client=openai.DefaultHttpxClient(transport=transport),
    )


def test_usage_is_null_on_every_chunk_but_the_last() -> None:
    """With include_usage the last chunk has usage and no choices, every other has null."""
    answer = _chat({"role": "assistant", "content": "x"}, usage={"total_tokens": 3})
    events = SSEParser().feed(event_stream(Endpoint.CHAT, answer, include_usage=True))
    *said, last = [json.loads(event.data) for event in events[:-1]]
    assert all(chunk["usage"] is None for chunk in said)
    assert last["choices"] == []
    assert last["usage"] == {"total_tokens": 3}


def test_usage_is_nowhere_when_it_was_not_asked_for() -> None:
    """Without include_usage no chunk mentions usage."""
    answer = _chat({"role": "assistant", "content": "x"}, usage={"total_tokens": 3})
    assert b"usage" not in event_stream(Endpoint.CHAT, answer, include_usage=False)


def test_an_unknown_usage_has_no_chunk() -> None:
    """An answer without usage has no usage chunk."""
    assert usage_chunk(Endpoint.CHAT, _chat({"role": "assistant", "content": "x"})) is None


def test_long_content_leaves_in_pieces() -> None:
    """No chunk holds much more text than a piece, with spaces to cut at and without."""
    for text in ("word " * 2000, "x" * 9999):
        listed = chunks(Endpoint.CHAT, _chat({"role": "assistant", "content": text}))
        pieces = [chunk["choices"][0]["delta"].get("content", "") for chunk in listed]
        assert "".join(pieces) == text
        assert max(map(len, pieces)) <= PIECE_CHARS


def test_tokens_travel_with_their_text() -> None:
    """A chunk's log probabilities are those of its own text, where tokens make up the text."""
    words = [f"{i} " for i in range(100)]
    tokens = [{"token": word, "logprob": -1.0, "bytes": None} for word in words]
    answer = _chat({"role": "assistant", "content": "".join(words)})
    answer["choices"][0]["logprobs"] = {"content": tokens, "refusal": None}
    for chunk in chunks(Endpoint.CHAT, answer):
        choice = chunk["choices"][0]
        spoken = (choice["logprobs"] or {}).get("content") or []
        text = "".join(token["token"] for token in spoken)
        assert text == choice["delta"].get("content", "")


@pytest.mark.parametrize(
    "answer",
    [
        {},
        {"choices": None},
        {"choices": ["x"]},
        {"choices": [{"index": 0}]},
        {"choices": [{"index": 0, "message": "x"}]},
        {"choices": [{"index": 0, "message": {"tool_calls": "x"}, "finish_reason": "stop"}]},
        {"choices": [{"index": 0, "message": {"function_call": "x"}, "finish_reason": "stop"}]},
        {"choices": [{"index": "0", "message": {}, "finish_reason": "stop"}]},
    ],
)
def test_what_is_no_answer_is_not_rebuildable(answer: Json) -> None:
    """Anything an upstream may send in place of an answer is told apart, without an exception."""
    assert not rebuildable(Endpoint.CHAT, answer)


@pytest.mark.parametrize(
    "change",
    [
        {"object": "chat.completion.chunk"},
        {"obfuscation": "padding"},
        {"choices": [{"index": 1, "message": {"content": "x"}, "finish_reason": "stop"}] * 2},
        {"choices": [{"index": 0, "message": {"content": "x"}}]},
    ],
)
def test_what_a_stream_cannot_say_is_not_rebuildable(change: Json) -> None:
    """An answer whose stream would say less than it does is recognised."""
    assert not rebuildable(Endpoint.CHAT, _chat({"role": "assistant", "content": "x"}) | change)


def test_a_function_call_without_arguments_survives() -> None:
    """As it came; so does a chunk whose choices are null."""
    message = {"role": "assistant", "content": None, "function_call": {"name": "f"}}
    assembler = Assembler(Endpoint.CHAT)
    assembler.feed({"choices": None})
    for chunk in chunks(Endpoint.CHAT, _chat(message)):
        assembler.feed(chunk)
    assert assembler.answer()["choices"][0]["message"] == message


def test_a_nameless_fragment_of_a_call_is_a_loss() -> None:
    """Without a position and an id nobody knows which call it belongs to."""
    assembler = Assembler(Endpoint.CHAT)
    fragment = {"function": {"arguments": "{}"}}
    assembler.feed({"choices": [{"index": 0, "delta": {"tool_calls": [fragment]}}]})
    assert not assembler.lossless


def test_a_completion_without_text_has_no_stream() -> None:
    """It is not rebuildable."""
    choices = [{"index": 0, "finish_reason": "stop"}]
    assert not rebuildable(Endpoint.COMPLETIONS, _chat({}) | {"choices": choices})


def test_positions_of_tool_calls_are_no_loss() -> None:
    """A plain tool call may carry its own position, as some upstreams send it."""
    call = {"index": 0, "id": "a", "type": "function", "function": {"name": "f", "arguments": ""}}
    assert rebuildable(Endpoint.CHAT, _chat({"role": "assistant", "tool_calls": [call]}))
    assert not rebuildable(
        Endpoint.CHAT, _chat({"role": "assistant", "tool_calls": [call | {"index": 3}]})
    )


@pytest.mark.parametrize(
    "chunk",
    [
        {"error": {"message": "overloaded"}},
        {"object": "error", "message": "overloaded"},
        {"choices": {}},
        {"choices": [1]},
        {"choices": [{"index": "x", "delta": {}}]},
        {"choices": [{"index": 0, "delta": []}]},
        {"choices": [{"index": 0, "delta": {"tool_calls": "x"}}]},
        {"choices": [{"index": 0, "delta": {"tool_calls": [{"index": "x"}]}}]},
    ],
)
def test_a_broken_chunk_is_the_upstreams_fault(chunk: Json) -> None:
    """What is no chunk raises UpstreamError, and its message quotes none of it."""
    with pytest.raises(UpstreamError) as caught:
        Assembler(Endpoint.CHAT).feed(chunk)
    assert "overloaded" not in caught.value.message


def test_embeddings_have_no_stream() -> None:
    """An assembler for an endpoint without streams cannot be made."""
    with pytest.raises(ValueError, match="no event stream"):
        Assembler(Endpoint.EMBEDDINGS)
