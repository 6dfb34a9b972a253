"""What a local model honours and what it refuses by name."""

from __future__ import annotations

from typing import Any

import pytest

from origin.engine.parameters import chat_messages, check_parameters, stops
from shared.errors import ClientError
from shared.requests import ChatRequest, CompletionRequest, Endpoint, validate

TOOL = {"type": "function", "function": {"name": "f"}}
USER = {"role": "user", "content": "Hi"}


def chat(**fields: Any) -> ChatRequest:
    """A chat request."""
    request = validate(Endpoint.CHAT, {"model": "m", "messages": [USER]} | fields)
    assert isinstance(request, ChatRequest)
    return request


def completion(**fields: Any) -> CompletionRequest:
    """A completion request."""
    request = validate(Endpoint.COMPLETIONS, {"model": "m", "prompt": "Hi"} | fields)
    assert isinstance(request, CompletionRequest)
    return request


def refused(request: ChatRequest | CompletionRequest) -> ClientError:
    """The error that the request gets."""
    with pytest.raises(ClientError) as caught:
        check_parameters(request, vocabulary=100)
    assert caught.value.status == 400
    return caught.value


@pytest.mark.parametrize(
    "fields",
    [
        {"tools": [TOOL]},
        {"tool_choice": "auto"},
        {"functions": [{"name": "f"}]},
        {"function_call": "auto"},
        {"parallel_tool_calls": True},
        {"response_format": {"type": "json_object"}},
        {"response_format": {"type": "json_schema", "json_schema": {"name": "s"}}},
        {"logprobs": True},
        {"audio": {"format": "wav"}},
        {"modalities": ["text", "audio"]},
        {"web_search_options": {}},
        {"prediction": {"type": "content", "content": "x"}},
        {"reasoning_effort": "low"},
        {"verbosity": "low"},
        {"moderation": {}},
        {"top_k": 3},
        {"guided_json": {}},
    ],
)
def test_chat_refuses_by_name(fields: dict[str, Any]) -> None:
    """What cannot be honoured is a 400 naming the field, documented or not."""
    error = refused(chat(**fields))
    assert (error.code, error.param) == ("unsupported_parameter", next(iter(fields)))


@pytest.mark.parametrize(
    "fields", [{"suffix": "x"}, {"best_of": 2}, {"logprobs": 0}, {"best_of": 3, "n": 2}, {"x": 1}]
)
def test_completions_refuse_by_name(fields: dict[str, Any]) -> None:
    """The same for completions."""
    error = refused(completion(**fields))
    assert (error.code, error.param) == ("unsupported_parameter", next(iter(fields)))


@pytest.mark.parametrize(
    "fields",
    [
        {"user": "u", "metadata": {"a": "b"}, "store": True, "service_tier": "auto"},
        {"stream": True, "stream_options": {"include_usage": True}},
        {"prompt_cache_key": "k", "safety_identifier": "s"},
        {"tools": [], "tool_choice": "none", "functions": [], "function_call": "none"},
        {"response_format": {"type": "text"}, "modalities": ["text"]},
        {"logprobs": False, "top_logprobs": 0},
        {"tools": None, "logprobs": None, "unknown": None},
        {"temperature": 0.5, "top_p": 0.9, "seed": -1, "n": 2, "stop": ["a"], "max_tokens": 3},
        {"presence_penalty": 1, "frequency_penalty": -1, "logit_bias": {"99": 5}},
    ],
)
def test_chat_accepts(fields: dict[str, Any]) -> None:
    """What is honoured, harmless, null, or asks for what is done anyway passes."""
    check_parameters(chat(**fields), vocabulary=100)


@pytest.mark.parametrize(
    "fields", [{"best_of": 1}, {"best_of": 2, "n": 2}, {"suffix": ""}, {"echo": True}]
)
def test_completions_accept(fields: dict[str, Any]) -> None:
    """The same for completions."""
    check_parameters(completion(**fields), vocabulary=100)


@pytest.mark.parametrize(
    ("message", "param"),
    [
        ({"role": "tool", "content": "x", "tool_call_id": "1"}, "messages[1].role"),
        ({"role": "user", "content": "x", "name": "Ann"}, "messages[1].name"),
        (
            {"role": "assistant", "content": "x", "tool_calls": [{"id": "1"}]},
            "messages[1].tool_calls",
        ),
        ({"role": "assistant", "refusal": "no"}, "messages[1].refusal"),
        (
            {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "u"}}]},
            "messages[1].content[0].type",
        ),
        (
            {"role": "user", "content": [{"type": "text", "text": "x", "cache_control": {}}]},
            "messages[1].content[0].cache_control",
        ),
    ],
)
def test_messages_are_refused_by_path(message: dict[str, Any], param: str) -> None:
    """A message the template could only drop something of is named down to the field."""
    assert refused(chat(messages=[USER, message])).param == param


def test_unknown_tokens_are_refused() -> None:
    """Token ids beyond the vocabulary are the client's error."""
    assert refused(completion(prompt=[1, 100])).param == "prompt"
    assert refused(completion(prompt=[[1], [100]])).param == "prompt[1]"
    assert refused(chat(logit_bias={"100": 1})).param == "logit_bias"


def test_too_many_choices_are_refused() -> None:
    """The number of choices is bounded over all prompts."""
    assert refused(completion(prompt=["a", "b"], n=100)).param == "n"


def test_messages_become_role_and_text() -> None:
    """Parts are joined by line breaks; `developer` is `system` to a template without it."""
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    request = chat(messages=[{"role": "developer", "content": parts}, USER])
    assert chat_messages(request, developer=False) == [{"role": "system", "content": "a\nb"}, USER]
    assert chat_messages(request, developer=True)[0]["role"] == "developer"


def test_stops_are_a_tuple() -> None:
    """None, one and several."""
    assert (stops(None), stops("a"), stops(["a", "b"])) == ((), ("a",), ("a", "b"))
