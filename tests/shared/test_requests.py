"""Requests are typed, ranged, and refused by the name of the field at fault."""

from __future__ import annotations

import dataclasses
from typing import Any, get_args, get_type_hints

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai.types.chat.completion_create_params import CompletionCreateParamsStreaming as ChatParams
from openai.types.completion_create_params import CompletionCreateParamsStreaming as TextParams
from openai.types.embedding_create_params import EmbeddingCreateParams

from shared import requests
from shared.errors import ClientError
from shared.requests import (
    ChatRequest,
    CompletionRequest,
    EmbeddingRequest,
    Endpoint,
    streaming,
    validate,
)

Json = dict[str, Any]
MINIMAL: dict[Endpoint, Json] = {
    Endpoint.CHAT: {"model": "m", "messages": [{"role": "user", "content": "hi"}]},
    Endpoint.COMPLETIONS: {"model": "m", "prompt": "hi"},
    Endpoint.EMBEDDINGS: {"model": "m", "input": "hi"},
}


def _chat(**fields: Any) -> ChatRequest:
    request = validate(Endpoint.CHAT, MINIMAL[Endpoint.CHAT] | fields)
    assert isinstance(request, ChatRequest)
    return request


def _refused(endpoint: Endpoint, **fields: Any) -> ClientError:
    with pytest.raises(ClientError) as caught:
        validate(endpoint, MINIMAL[endpoint] | fields)
    assert caught.value.status == 400
    return caught.value


@pytest.mark.parametrize(
    ("kind", "params"),
    [
        (ChatRequest, ChatParams),
        (CompletionRequest, TextParams),
        (EmbeddingRequest, EmbeddingCreateParams),
    ],
)
def test_every_documented_field_is_an_attribute(kind: type[Any], params: type[Any]) -> None:
    """The attributes are exactly the fields that OpenAI's own client documents."""
    ours = {field.name for field in dataclasses.fields(kind)} - {"fields", "extra"}
    assert ours == set(params.__annotations__) | set(get_type_hints(params))
    assert kind in get_args(requests.Request)


@pytest.mark.parametrize("endpoint", Endpoint)
def test_every_attribute_is_checked(endpoint: Endpoint) -> None:
    """No attribute lacks a check, and no check lacks its attribute."""
    kind, checks, _ = requests._RULES[endpoint]
    assert set(checks) == {field.name for field in dataclasses.fields(kind)} - {"fields", "extra"}
    assert kind.endpoint is endpoint


@pytest.mark.parametrize("endpoint", Endpoint)
def test_a_minimal_request_is_accepted(endpoint: Endpoint) -> None:
    """What is absent is None, and a stream was not asked for."""
    request = validate(endpoint, MINIMAL[endpoint])
    assert (request.endpoint, request.model, request.user) == (endpoint, "m", None)
    assert (request.stream, request.include_usage) == (False, False)
    assert request.fields == MINIMAL[endpoint]
    assert request.extra == {}


def test_nothing_is_lost() -> None:
    """Unknown fields are kept as extra, the body as it was."""
    request = _chat(top_k=5, guided_json={"a": None}, nothing=None)
    assert request.extra == {"top_k": 5, "guided_json": {"a": None}, "nothing": None}
    assert request.fields["top_k"] == 5


@pytest.mark.parametrize("endpoint", Endpoint)
def test_null_is_absent(endpoint: Endpoint) -> None:
    """A null field is as good as none, but for those required."""
    _, checks, required = requests._RULES[endpoint]
    nulls = dict.fromkeys(checks.keys() - set(required))
    assert validate(endpoint, MINIMAL[endpoint] | nulls).stream is False
    for name in required:
        error = _refused(endpoint, **{name: None})
        assert (error.param, error.code) == (name, "missing_required_parameter")


RANGES = [
    (Endpoint.CHAT, "temperature", 0, 2, "decimal"),
    (Endpoint.CHAT, "top_p", 0, 1, "decimal"),
    (Endpoint.CHAT, "frequency_penalty", -2, 2, "decimal"),
    (Endpoint.CHAT, "presence_penalty", -2, 2, "decimal"),
    (Endpoint.CHAT, "n", 1, 128, "integer"),
    (Endpoint.CHAT, "seed", -(2**63), 2**63 - 1, "integer"),
    (Endpoint.CHAT, "max_tokens", 1, 2**31 - 1, "integer"),
    (Endpoint.CHAT, "max_completion_tokens", 1, 2**31 - 1, "integer"),
    (Endpoint.COMPLETIONS, "max_tokens", 0, 2**31 - 1, "integer"),
    (Endpoint.COMPLETIONS, "logprobs", 0, 5, "integer"),
    (Endpoint.EMBEDDINGS, "dimensions", 1, 2**31 - 1, "integer"),
]


@pytest.mark.parametrize(("endpoint", "name", "low", "high", "kind"), RANGES)
def test_ranges_include_their_bounds(
    endpoint: Endpoint, name: str, low: int, high: int, kind: str
) -> None:
    """Both bounds pass; one beyond either is refused with the bound in the message."""
    for value in (low, high):
        assert getattr(validate(endpoint, MINIMAL[endpoint] | {name: value}), name) == value
    for value, bound, code in ((low - 1, low, "below_min"), (high + 1, high, "above_max")):
        error = _refused(endpoint, **{name: value})
        assert (error.param, error.code) == (name, f"{kind}_{code}_value")
        assert str(bound) in error.message


CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"model": ""}, "model", "empty_string"),
        ({"model": 1}, "model", "invalid_type"),
        ({"messages": {}}, "messages", "invalid_type"),
        ({"messages": ["x"]}, "messages[0]", "invalid_type"),
        ({"messages": [{"role": 1}]}, "messages[0].role", "invalid_type"),
        (
            {"messages": [{"role": "user", "content": []}]},
            "messages[0].content",
            "empty_array",
        ),
        (
            {"messages": [{"role": "user", "content": ["x"]}]},
            "messages[0].content[0]",
            "invalid_type",
        ),
        (
            {"messages": [{"role": "user", "content": [{"text": "x"}]}]},
            "messages[0].content[0].type",
            "missing_required_parameter",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": "x"}]}]},
            "messages[0].content[0].image_url",
            "invalid_type",
        ),
        (
            {"messages": [{"role": "assistant", "tool_calls": [{**CALL, "id": None}]}]},
            "messages[0].tool_calls[0].id",
            "missing_required_parameter",
        ),
        (
            {"messages": [{"role": "assistant", "tool_calls": [{**CALL, "function": {}}]}]},
            "messages[0].tool_calls[0].function.name",
            "missing_required_parameter",
        ),
        ({"tools": [{"function": {"name": "f"}}]}, "tools[0].type", "missing_required_parameter"),
        (
            {"tools": [{"type": "function", "function": {"name": "two words"}}]},
            "tools[0].function.name",
            "invalid_value",
        ),
        (
            {"tools": [{"type": "function", "function": {"name": "f" * 65}}]},
            "tools[0].function.name",
            "string_above_max_length",
        ),
        (
            {"tools": [{"type": "function", "function": {"name": "f", "parameters": []}}]},
            "tools[0].function.parameters",
            "invalid_type",
        ),
        ({"tools": [{"type": "function"}] * 129}, "tools", "array_above_max_length"),
        ({"tool_choice": {"type": "function"}}, "tool_choice.function", None),
        ({"function_call": "always"}, "function_call", "invalid_value"),
        ({"response_format": "json"}, "response_format", "invalid_type"),
        ({"response_format": {}}, "response_format.type", "missing_required_parameter"),
        ({"stop": ""}, "stop", "empty_string"),
        ({"stop": {}}, "stop", "invalid_type"),
        ({"stop": ["a"] * 5}, "stop", "array_above_max_length"),
        ({"metadata": {"a": 1}}, "metadata.a", "invalid_type"),
        ({"metadata": {"k" * 65: "v"}}, "metadata", "invalid_value"),
        ({"metadata": {str(i): "v" for i in range(17)}}, "metadata", "object_above_max_properties"),
        ({"logprobs": 1}, "logprobs", "invalid_type"),
        ({"top_logprobs": 21, "logprobs": True}, "top_logprobs", "integer_above_max_value"),
        ({"stream": 1}, "stream", "invalid_type"),
        ({"stream": True, "stream_options": []}, "stream_options", "invalid_type"),
        (
            {"stream": True, "stream_options": {"include_usage": 1}},
            "stream_options.include_usage",
            "invalid_type",
        ),
        ({"reasoning_effort": 3}, "reasoning_effort", "invalid_type"),
        ({"safety_identifier": "s" * 129}, "safety_identifier", "string_above_max_length"),
    ],
)
def test_a_bad_field_is_named(fields: Json, param: str, code: str | None) -> None:
    """The error names the field by its path and says what is wrong in OpenAI's words."""
    error = _refused(Endpoint.CHAT, **fields)
    assert error.param == param
    assert error.code == (code or "missing_required_parameter")
    assert f"'{param}'" in error.message


def test_vocabularies_that_grow_are_open() -> None:
    """New efforts, formats, parts and tools pass: an upstream may know them."""
    request = _chat(
        reasoning_effort="beyond",
        response_format={"type": "structural_tag"},
        tools=[{"type": "novel"}],
        service_tier="free",
        messages=[{"role": "user", "content": [{"type": "novel", "novel": 1}]}],
    )
    assert request.reasoning_effort == "beyond"


@pytest.mark.parametrize("bad", [7, [7], {"type": "text"}, True])
def test_a_message_never_quotes_the_prompt(bad: object) -> None:
    """Errors name fields and types, not what was said."""
    secret = "the secret of the house"
    messages = [{"role": secret, "content": secret}, {"role": "user", "content": bad}]
    for listed in (messages, messages[1:], [{"role": "user", "content": {"text": secret}}]):
        assert secret not in _refused(Endpoint.CHAT, messages=listed).message


@pytest.mark.parametrize(
    ("prompt", "prompts"),
    [
        ("a", ["a"]),
        ("", [""]),
        (["a", "b"], ["a", "b"]),
        ([1, 2], [[1, 2]]),
        ([[1], [2, 3]], [[1], [2, 3]]),
    ],
)
def test_a_prompt_is_one_or_many(prompt: Any, prompts: Any) -> None:
    """Texts and arrays of tokens, alone or several, are listed as prompts."""
    request = validate(Endpoint.COMPLETIONS, {"model": "m", "prompt": prompt})
    assert isinstance(request, CompletionRequest)
    assert request.prompts == prompts


@pytest.mark.parametrize(
    ("given_input", "param"),
    [
        ("", "input"),
        ([], "input"),
        (["a", ""], "input[1]"),
        (["a", 1], "input[1]"),
        ([1, "a"], "input[1]"),
        ([1, True], "input[1]"),
        ([True], "input[0]"),
        ([-1], "input[0]"),
        ([[]], "input[0]"),
        ([[1], "a"], "input[1]"),
        ([[1], [1.5]], "input[1][0]"),
        ([None], "input[0]"),
        ({"a": 1}, "input"),
        (["a"] * 2049, "input"),
    ],
)
def test_a_bad_input_is_named(given_input: Any, param: str) -> None:
    """Embeddings take texts that say something, or token ids, at most 2,048 of them."""
    assert _refused(Endpoint.EMBEDDINGS, input=given_input).param == param


def test_an_input_of_many_tokens_is_one_input() -> None:
    """The limit of 2,048 is for inputs, not for the tokens of one."""
    request = validate(Endpoint.EMBEDDINGS, {"model": "m", "input": [1] * 5000})
    assert isinstance(request, EmbeddingRequest)
    assert len(request.inputs) == 1


def test_best_of_bounds_n_and_streams() -> None:
    """The documented rules on best_of: not less than n, and not more where streamed."""
    assert _refused(Endpoint.COMPLETIONS, best_of=1, n=2).param == "best_of"
    assert _refused(Endpoint.COMPLETIONS, best_of=2, stream=True).param == "best_of"
    body = {"model": "m", "prompt": "a", "best_of": 2, "n": 2, "stream": True}
    assert validate(Endpoint.COMPLETIONS, body).stream


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, (False, False)),
        ({"stream": None, "stream_options": None}, (False, False)),
        ({"stream": False}, (False, False)),
        ({"stream": True}, (True, False)),
        ({"stream": True, "stream_options": {}}, (True, False)),
        ({"stream": True, "stream_options": {"include_usage": None}}, (True, False)),
        ({"stream": True, "stream_options": {"include_usage": True}}, (True, True)),
        ({"stream": True, "stream_options": {"include_usage": True}, "n": "bad"}, (True, True)),
    ],
)
def test_streaming_looks_at_two_fields_only(fields: Json, expected: tuple[bool, bool]) -> None:
    """The cheap check gives what the full one does, and ignores the rest of the body."""
    assert streaming(fields) == expected


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=8,
)
NAMES = sorted({name for _, checks, _ in requests._RULES.values() for name in checks})


@settings(max_examples=300)
@given(st.sampled_from(Endpoint), st.dictionaries(st.sampled_from(NAMES), JSON, max_size=4))
def test_any_json_is_accepted_or_refused_by_name(endpoint: Endpoint, fields: Json) -> None:
    """Whatever stands in whatever field: a request, or an error that names a field."""
    outcome = _outcome(endpoint, MINIMAL[endpoint] | fields)
    if isinstance(outcome, ClientError):
        assert outcome.param
        assert outcome.param.split(".")[0].split("[")[0] in NAMES
    else:
        assert outcome.fields == MINIMAL[endpoint] | fields


def _outcome(endpoint: Endpoint, fields: Json) -> requests.Request | ClientError:
    try:
        return validate(endpoint, fields)
    except ClientError as error:
        return error
