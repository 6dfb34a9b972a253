"""What may be asked: the three requests of OpenAI's API that are answered and cached, typed.

This module knows the documented fields, their types and ranges. It does not know what a model can
do (an engine refuses that by name), what makes a key, or what may be stored.

Invariants
1. `validate` either returns a request whose every documented field has its documented type and
   range, or raises ClientError naming the field.
2. Nothing is lost and nothing is filled in: `fields` is the body as parsed, an attribute is None
   where the field is absent or null, `extra` holds the fields OpenAI does not document.
3. Structure is closed (roles, tool choices), vocabularies that grow are open (efforts, tiers, types
   of content parts, tools and response formats): an upstream may know more of them than we do.

Source: OpenAI API reference as typed by its Python client, 3.52.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, ClassVar

from shared.checks import (
    Check,
    array,
    boolean,
    check_length,
    either,
    integer,
    mapping,
    missing,
    number,
    obj,
    one_of,
    record,
    string,
    tagged,
    wrong_type,
)
from shared.errors import ClientError

Object = Mapping[str, Any]
MAX_INPUTS = 2048
"""The most texts or token arrays that one request may hold."""


class Endpoint(StrEnum):
    """The cached endpoints; the value is the path."""

    CHAT = "/v1/chat/completions"
    COMPLETIONS = "/v1/completions"
    EMBEDDINGS = "/v1/embeddings"


@dataclass(frozen=True, kw_only=True, slots=True)
class ChatRequest:
    """A validated `POST /v1/chat/completions`. Attributes are the body's fields."""

    endpoint: ClassVar[Endpoint] = Endpoint.CHAT

    fields: Object
    extra: Object
    model: str
    messages: Sequence[dict[str, Any]]
    audio: Object | None = None
    frequency_penalty: float | None = None
    function_call: str | Object | None = None
    functions: Sequence[Object] | None = None
    logit_bias: Mapping[str, float] | None = None
    logprobs: bool | None = None
    max_completion_tokens: int | None = None
    max_tokens: int | None = None
    metadata: Mapping[str, str] | None = None
    modalities: Sequence[str] | None = None
    moderation: Object | None = None
    n: int | None = None
    parallel_tool_calls: bool | None = None
    prediction: Object | None = None
    presence_penalty: float | None = None
    prompt_cache_key: str | None = None
    prompt_cache_options: Object | None = None
    prompt_cache_retention: str | None = None
    reasoning_effort: str | None = None
    response_format: Object | None = None
    safety_identifier: str | None = None
    seed: int | None = None
    service_tier: str | None = None
    stop: str | Sequence[str] | None = None
    store: bool | None = None
    stream: bool = False
    stream_options: Object | None = None
    temperature: float | None = None
    tool_choice: str | Object | None = None
    tools: Sequence[Object] | None = None
    top_logprobs: int | None = None
    top_p: float | None = None
    user: str | None = None
    verbosity: str | None = None
    web_search_options: Object | None = None

    @property
    def include_usage(self) -> bool:
        """Whether the stream ends with a usage chunk."""
        return _include_usage(self.stream_options)


@dataclass(frozen=True, kw_only=True, slots=True)
class CompletionRequest:
    """A validated `POST /v1/completions`.

    `prompt` is one text, several, one array of token ids, or several.
    """

    endpoint: ClassVar[Endpoint] = Endpoint.COMPLETIONS

    fields: Object
    extra: Object
    model: str
    prompt: str | Sequence[str] | Sequence[int] | Sequence[Sequence[int]]
    best_of: int | None = None
    echo: bool | None = None
    frequency_penalty: float | None = None
    logit_bias: Mapping[str, float] | None = None
    logprobs: int | None = None
    max_tokens: int | None = None
    n: int | None = None
    presence_penalty: float | None = None
    seed: int | None = None
    stop: str | Sequence[str] | None = None
    stream: bool = False
    stream_options: Object | None = None
    suffix: str | None = None
    temperature: float | None = None
    top_p: float | None = None
    user: str | None = None

    @property
    def include_usage(self) -> bool:
        """Whether the stream ends with a usage chunk."""
        return _include_usage(self.stream_options)

    @property
    def prompts(self) -> Sequence[str | Sequence[int]]:
        """The prompts, one or more, each a text or an array of token ids."""
        return _several(self.prompt)


@dataclass(frozen=True, kw_only=True, slots=True)
class EmbeddingRequest:
    """A validated `POST /v1/embeddings`.

    `input` is one text, several, one array of token ids, or several.
    """

    endpoint: ClassVar[Endpoint] = Endpoint.EMBEDDINGS
    stream: ClassVar[bool] = False
    include_usage: ClassVar[bool] = False

    fields: Object
    extra: Object
    model: str
    input: str | Sequence[str] | Sequence[int] | Sequence[Sequence[int]]
    dimensions: int | None = None
    encoding_format: str | None = None
    user: str | None = None

    @property
    def inputs(self) -> Sequence[str | Sequence[int]]:
        """What to embed, one or more, each a text or an array of token ids."""
        return _several(self.input)


Request = ChatRequest | CompletionRequest | EmbeddingRequest


def validate(endpoint: Endpoint, fields: dict[str, Any]) -> Request:
    """Read the request in `fields`, a parsed body. Raises ClientError naming the field at fault."""
    kind, checks, required = _RULES[endpoint]
    for name in required:
        if fields.get(name) is None:
            raise missing(name)
    known: dict[str, Any] = {}
    extra: dict[str, Any] = {}
    for name, value in fields.items():
        check = checks.get(name)
        if check is None:
            extra[name] = value
        elif value is not None:
            check(value, name)
            known[name] = value
    _check_together(endpoint, fields)
    request: Request = kind(fields=fields, extra=extra, **known)
    return request


def streaming(fields: Mapping[str, Any]) -> tuple[bool, bool]:
    """Whether a stream is asked for, and whether with a usage chunk.

    Checks these two fields only, so that a hit need not validate a body whose key it has matched.
    """
    stream = fields.get("stream")
    if stream is not None:
        boolean(stream, "stream")
    options = fields.get("stream_options")
    if options is None:
        return bool(stream), False
    _STREAM_OPTIONS(options, "stream_options")
    if not stream:
        raise ClientError(
            "The 'stream_options' parameter is only allowed when 'stream' is enabled.",
            param="stream_options",
            code="invalid_parameter_combination",
        )
    return True, _include_usage(options)


def _include_usage(options: Object | None) -> bool:
    return bool(options and options.get("include_usage"))


def _several(value: Any) -> list[str | Sequence[int]]:
    """One text or one array of token ids as the only element; several as they are."""
    return [value] if isinstance(value, str) or type(value[0]) is int else list(value)


def _check_together(endpoint: Endpoint, fields: Mapping[str, Any]) -> None:
    """Check what the documentation says of fields in combination."""
    if endpoint is Endpoint.EMBEDDINGS:
        if fields.get("stream"):
            raise _conflict("stream", "Embeddings cannot be streamed.")
        return
    stream, _ = streaming(fields)
    if endpoint is Endpoint.CHAT:
        if fields.get("top_logprobs") and not fields.get("logprobs"):
            raise _conflict("top_logprobs", "'top_logprobs' requires 'logprobs' to be true.")
        longest, older = fields.get("max_completion_tokens"), fields.get("max_tokens")
        if longest is not None and older is not None and longest != older:
            raise _conflict(
                "max_tokens",
                "'max_tokens' and 'max_completion_tokens' differ. Use the latter only.",
            )
        return
    best_of = fields.get("best_of")
    if best_of is not None:
        n = fields.get("n")
        if best_of < (1 if n is None else n):
            raise _conflict("best_of", "'best_of' must not be less than 'n'.")
        if stream and best_of > (1 if n is None else n):
            raise _conflict("best_of", "Results cannot be streamed when 'best_of' exceeds 'n'.")


def _conflict(param: str, message: str) -> ClientError:
    return ClientError(message, param=param, code="invalid_parameter_combination")


def _message(value: Any, path: str) -> None:
    _MESSAGE(value, path)
    if value["role"] == "assistant" and all(
        value.get(name) is None
        for name in ("content", "tool_calls", "function_call", "refusal", "audio")
    ):
        raise missing(f"{path}.content")


def _texts_or_tokens(*, min_length: int, high: int | None) -> Check:
    """One text, several, one array of token ids, or several. Fast for long arrays of tokens."""
    text = string(min_length=min_length)

    def tokens(value: list[Any], path: str) -> None:
        check_length(value, path, 1, None)
        for index, token in enumerate(value):
            if type(token) is not int or token < 0:
                integer(0, 2**31 - 1)(token, f"{path}[{index}]")

    def check(value: Any, path: str) -> None:
        if type(value) is str:
            text(value, path)
            return
        if type(value) is not list:
            raise wrong_type(value, path, "one of a string or an array")
        check_length(value, path, 1, None)
        kind = type(value[0])
        if kind is int:
            tokens(value, path)
            return
        check_length(value, path, 1, high)
        for index, member in enumerate(value):
            where = f"{path}[{index}]"
            if kind is str:
                text(member, where)
            elif kind is list and type(member) is list:
                tokens(member, where)
            else:
                raise wrong_type(
                    member, where, "an array" if kind is list else "a string or token ids"
                )

    return check


_TEXT = string()
_COUNT = integer(1, 2**31 - 1)
_PENALTY = number(-2, 2)
_NAME = string(min_length=1, max_length=64, pattern="[a-zA-Z0-9_-]+")

_PART = tagged(
    "type",
    {
        "text": record({"text": _TEXT}, required=["text"]),
        "refusal": record({"refusal": _TEXT}, required=["refusal"]),
        "image_url": record(
            {"image_url": record({"url": _TEXT, "detail": _TEXT}, required=["url"])},
            required=["image_url"],
        ),
        "input_audio": record(
            {"input_audio": record({"data": _TEXT, "format": _TEXT}, required=["data", "format"])},
            required=["input_audio"],
        ),
        "file": record(
            {"file": record({"file_data": _TEXT, "file_id": _TEXT, "filename": _TEXT})},
            required=["file"],
        ),
    },
)
_CONTENT = either(string=_TEXT, array=array(_PART, low=1))
_CALLED = record({"name": _TEXT, "arguments": _TEXT}, required=["name", "arguments"])
_TOOL_CALL = record(
    {
        "id": _TEXT,
        "type": _TEXT,
        "function": _CALLED,
        "custom": record({"name": _TEXT, "input": _TEXT}, required=["name", "input"]),
    },
    required=["id"],
)
_PLAIN = record({"content": _CONTENT, "name": _TEXT}, required=["content"])
_MESSAGE = tagged(
    "role",
    {
        "developer": _PLAIN,
        "system": _PLAIN,
        "user": _PLAIN,
        "assistant": record(
            {
                "content": _CONTENT,
                "name": _TEXT,
                "refusal": _TEXT,
                "audio": record({"id": _TEXT}, required=["id"]),
                "function_call": _CALLED,
                "tool_calls": array(_TOOL_CALL),
            }
        ),
        "tool": record(
            {"content": _CONTENT, "tool_call_id": _TEXT}, required=["content", "tool_call_id"]
        ),
        "function": record({"content": _CONTENT, "name": _TEXT}, required=["name"]),
    },
    closed=True,
)
_FUNCTION = record(
    {"name": _NAME, "description": _TEXT, "parameters": obj, "strict": boolean},
    required=["name"],
)
_NAMED = record({"name": _TEXT}, required=["name"])
_TOOL = tagged(
    "type",
    {
        "function": record({"function": _FUNCTION}, required=["function"]),
        "custom": record(
            {
                "custom": record(
                    {"name": _TEXT, "description": _TEXT, "format": obj}, required=["name"]
                )
            },
            required=["custom"],
        ),
    },
)
_TOOL_CHOICE = either(
    string=one_of("none", "auto", "required"),
    object=tagged(
        "type",
        {
            "function": record({"function": _NAMED}, required=["function"]),
            "custom": record({"custom": _NAMED}, required=["custom"]),
            "allowed_tools": record(
                {
                    "allowed_tools": record(
                        {"mode": one_of("auto", "required"), "tools": array(obj)},
                        required=["mode", "tools"],
                    )
                },
                required=["allowed_tools"],
            ),
        },
    ),
)
_RESPONSE_FORMAT = tagged(
    "type",
    {
        "json_schema": record(
            {
                "json_schema": record(
                    {"name": _NAME, "description": _TEXT, "schema": obj, "strict": boolean},
                    required=["name"],
                )
            },
            required=["json_schema"],
        ),
    },
)
_STREAM_OPTIONS = record({"include_usage": boolean, "include_obfuscation": boolean})

# Fields that chat and legacy completions share.
_SAMPLING: dict[str, Check] = {
    "model": string(min_length=1),
    "frequency_penalty": _PENALTY,
    "logit_bias": mapping(number(-100, 100), key_pattern="[0-9]+"),
    "n": integer(1, 128),
    "presence_penalty": _PENALTY,
    "seed": integer(-(2**63), 2**63 - 1),
    "stop": either(string=string(min_length=1), array=array(string(min_length=1), high=4)),
    "stream": boolean,
    "stream_options": _STREAM_OPTIONS,
    "temperature": number(0, 2),
    "top_p": number(0, 1),
    "user": _TEXT,
}
_CHAT: dict[str, Check] = _SAMPLING | {
    "messages": array(_message, low=1),
    "audio": record({"format": _TEXT}),
    "function_call": either(string=one_of("none", "auto"), object=_NAMED),
    "functions": array(_FUNCTION, high=128),
    "logprobs": boolean,
    "max_completion_tokens": _COUNT,
    "max_tokens": _COUNT,
    "metadata": mapping(string(max_length=512), key_pattern="(?s:.{0,64})", high=16),
    "modalities": array(_TEXT),
    "moderation": obj,
    "parallel_tool_calls": boolean,
    "prediction": record({"type": _TEXT, "content": _CONTENT}, required=["type", "content"]),
    "prompt_cache_key": _TEXT,
    "prompt_cache_options": obj,
    "prompt_cache_retention": _TEXT,
    "reasoning_effort": _TEXT,
    "response_format": _RESPONSE_FORMAT,
    "safety_identifier": string(max_length=128),
    "service_tier": _TEXT,
    "store": boolean,
    "tool_choice": _TOOL_CHOICE,
    "tools": array(_TOOL, high=128),
    "top_logprobs": integer(0, 20),
    "verbosity": _TEXT,
    "web_search_options": obj,
}
_COMPLETION: dict[str, Check] = _SAMPLING | {
    "prompt": _texts_or_tokens(min_length=0, high=MAX_INPUTS),
    "best_of": integer(0, 20),
    "echo": boolean,
    "logprobs": integer(0, 5),
    "max_tokens": integer(0, 2**31 - 1),
    "suffix": _TEXT,
}
_EMBEDDING: dict[str, Check] = {
    "model": _SAMPLING["model"],
    "input": _texts_or_tokens(min_length=1, high=MAX_INPUTS),
    "dimensions": _COUNT,
    "encoding_format": one_of("float", "base64"),
    "user": _TEXT,
}
_RULES: dict[Endpoint, tuple[type[Any], dict[str, Check], tuple[str, ...]]] = {
    Endpoint.CHAT: (ChatRequest, _CHAT, ("model", "messages")),
    Endpoint.COMPLETIONS: (CompletionRequest, _COMPLETION, ("model", "prompt")),
    Endpoint.EMBEDDINGS: (EmbeddingRequest, _EMBEDDING, ("model", "input")),
}
