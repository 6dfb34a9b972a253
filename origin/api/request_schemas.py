"""What bodies may be, as JSON Schema 2020-12: what `shared.requests` and its like check, told.

Said a second time because a check is a function. Tests have both judge the same bodies.
"""

from __future__ import annotations

from typing import Any, Final

from origin.api.warm_jobs import MAX_REQUESTS
from origin.purge_requests import MAX_NAMES
from shared.controls import CONTENT_CLASS, TAG
from shared.requests import MAX_INPUTS, Endpoint

Schema = dict[str, Any]

_TEXT: Final[Schema] = {"type": "string"}
_SOME_TEXT: Final[Schema] = {"type": "string", "minLength": 1}
_FLAG: Final[Schema] = {"type": "boolean"}
_OBJECT: Final[Schema] = {"type": "object"}


def _null_too(schema: Schema) -> Schema:
    """An optional field: null is as good as absent."""
    kind = schema.get("type")
    if not isinstance(kind, str):
        return {"anyOf": [schema, {"type": "null"}]}
    more = {"enum": [*schema["enum"], None]} if "enum" in schema else {}
    return schema | {"type": [kind, "null"]} | more


def _record(required: dict[str, Schema], optional: dict[str, Schema] | None = None) -> Schema:
    """An object of these fields; others are taken as they are."""
    properties = required | {name: _null_too(field) for name, field in (optional or {}).items()}
    schema: Schema = {"type": "object", "properties": properties}
    return schema | {"required": list(required)} if required else schema


def _closed(required: dict[str, Schema], optional: dict[str, Schema]) -> Schema:
    """An object of these fields and no others, none of them null."""
    schema: Schema = {
        "type": "object",
        "properties": required | optional,
        "additionalProperties": False,
    }
    return schema | {"required": list(required)} if required else schema


def _array(items: Schema, low: int = 0, high: int | None = None) -> Schema:
    most = {} if high is None else {"maxItems": high}
    return {"type": "array", "items": items, "minItems": low} | most


def _matching(pattern: str) -> Schema:
    return {"type": "string", "pattern": f"^(?:{pattern})$"}


def _names(pattern: str) -> Schema:
    return _array(_matching(pattern), 0, MAX_NAMES)


def _whole(low: int, high: int) -> Schema:
    return {"type": "integer", "minimum": low, "maximum": high}


def _number(low: float, high: float) -> Schema:
    return {"type": "number", "minimum": low, "maximum": high}


def _words(*words: str) -> Schema:
    return {"type": "string", "enum": list(words)}


def _tagged(tag: str, kinds: dict[str, Schema], *, closed: bool = False) -> Schema:
    """An object by the string in its field `tag`; of another string, unless closed, as it is."""
    branches = []
    for name, schema in kinds.items():
        properties = {tag: {"const": name}} | schema.get("properties", {})
        branches.append(schema | {"properties": properties, "required": _tag_too(tag, schema)})
    if not closed:
        other = {"type": "string", "not": {"enum": list(kinds)}}
        branches.append({"type": "object", "properties": {tag: other}, "required": [tag]})
    return {"anyOf": branches}


def _tag_too(tag: str, schema: Schema) -> list[str]:
    return [tag, *schema.get("required", [])]


def _texts_or_tokens(text: Schema) -> Schema:
    """One text, several, one array of token ids, or several."""
    tokens = _array(_whole(0, 2**31 - 1), 1)
    several = [_array(text, 1, MAX_INPUTS), tokens, _array(tokens, 1, MAX_INPUTS)]
    return {"anyOf": [text, *several]}


_COUNT = _whole(1, 2**31 - 1)
_NAME: Final[Schema] = {
    "type": "string",
    "minLength": 1,
    "maxLength": 64,
    "pattern": "^[a-zA-Z0-9_-]+$",
}
_PART = _tagged(
    "type",
    {
        "text": _record({"text": _TEXT}),
        "refusal": _record({"refusal": _TEXT}),
        "image_url": _record({"image_url": _record({"url": _TEXT}, {"detail": _TEXT})}),
        "input_audio": _record({"input_audio": _record({"data": _TEXT, "format": _TEXT})}),
        "file": _record(
            {"file": _record({}, {"file_data": _TEXT, "file_id": _TEXT, "filename": _TEXT})}
        ),
    },
)
_CONTENT: Final[Schema] = {"anyOf": [_TEXT, _array(_PART, 1)]}
_CALLED = _record({"name": _TEXT, "arguments": _TEXT})
_TOOL_CALL = _record(
    {"id": _TEXT},
    {"type": _TEXT, "function": _CALLED, "custom": _record({"name": _TEXT, "input": _TEXT})},
)
_PLAIN = _record({"content": _CONTENT}, {"name": _TEXT})
_ANSWERED: dict[str, Schema] = {
    "content": _CONTENT,
    "refusal": _TEXT,
    "audio": _record({"id": _TEXT}),
    "function_call": _CALLED,
    "tool_calls": _array(_TOOL_CALL),
}
_ASSISTANT = _record({}, _ANSWERED | {"name": _TEXT}) | {
    "anyOf": [
        {"required": [name], "properties": {name: {"not": {"type": "null"}}}} for name in _ANSWERED
    ]
}
_MESSAGE = _tagged(
    "role",
    {
        "developer": _PLAIN,
        "system": _PLAIN,
        "user": _PLAIN,
        "assistant": _ASSISTANT,
        "tool": _record({"content": _CONTENT, "tool_call_id": _TEXT}),
        "function": _record({"name": _TEXT}, {"content": _CONTENT}),
    },
    closed=True,
)
_FUNCTION = _record({"name": _NAME}, {"description": _TEXT, "parameters": _OBJECT, "strict": _FLAG})
_NAMED = _record({"name": _TEXT})
_TOOL = _tagged(
    "type",
    {
        "function": _record({"function": _FUNCTION}),
        "custom": _record(
            {"custom": _record({"name": _TEXT}, {"description": _TEXT, "format": _OBJECT})}
        ),
    },
)
_TOOL_CHOICE: Final[Schema] = {
    "anyOf": [
        _words("none", "auto", "required"),
        _tagged(
            "type",
            {
                "function": _record({"function": _NAMED}),
                "custom": _record({"custom": _NAMED}),
                "allowed_tools": _record(
                    {
                        "allowed_tools": _record(
                            {"mode": _words("auto", "required"), "tools": _array(_OBJECT)}
                        )
                    }
                ),
            },
        ),
    ]
}
_RESPONSE_FORMAT = _tagged(
    "type",
    {
        "json_schema": _record(
            {
                "json_schema": _record(
                    {"name": _NAME}, {"description": _TEXT, "schema": _OBJECT, "strict": _FLAG}
                )
            }
        )
    },
)
_STOP: Final[Schema] = {"anyOf": [_SOME_TEXT, _array(_SOME_TEXT, 0, 4)]}
_SAMPLING: dict[str, Schema] = {
    "frequency_penalty": _number(-2, 2),
    "logit_bias": _OBJECT
    | {"patternProperties": {"^[0-9]+$": _number(-100, 100)}, "additionalProperties": False},
    "n": _whole(1, 128),
    "presence_penalty": _number(-2, 2),
    "seed": _whole(-(2**63), 2**63 - 1),
    "stop": _STOP,
    "stream": _FLAG,
    "stream_options": _record({}, {"include_usage": _FLAG, "include_obfuscation": _FLAG}),
    "temperature": _number(0, 2),
    "top_p": _number(0, 1),
    "user": _TEXT,
}
_METADATA: Final[Schema] = {
    "type": "object",
    "maxProperties": 16,
    "propertyNames": {"maxLength": 64},
    "additionalProperties": {"type": "string", "maxLength": 512},
}
_CHAT = _record(
    {"model": _SOME_TEXT, "messages": _array(_MESSAGE, 1)},
    _SAMPLING
    | {
        "audio": _record({}, {"format": _TEXT}),
        "function_call": {"anyOf": [_words("none", "auto"), _NAMED]},
        "functions": _array(_FUNCTION, 0, 128),
        "logprobs": _FLAG,
        "max_completion_tokens": _COUNT,
        "max_tokens": _COUNT,
        "metadata": _METADATA,
        "modalities": _array(_TEXT),
        "moderation": _OBJECT,
        "parallel_tool_calls": _FLAG,
        "prediction": _record({"type": _TEXT, "content": _CONTENT}),
        "prompt_cache_key": _TEXT,
        "prompt_cache_options": _OBJECT,
        "prompt_cache_retention": _TEXT,
        "reasoning_effort": _TEXT,
        "response_format": _RESPONSE_FORMAT,
        "safety_identifier": {"type": "string", "maxLength": 128},
        "service_tier": _TEXT,
        "store": _FLAG,
        "tool_choice": _TOOL_CHOICE,
        "tools": _array(_TOOL, 0, 128),
        "top_logprobs": _whole(0, 20),
        "verbosity": _TEXT,
        "web_search_options": _OBJECT,
    },
)
_COMPLETION = _record(
    {"model": _SOME_TEXT, "prompt": _texts_or_tokens(_TEXT)},
    _SAMPLING
    | {
        "best_of": _whole(0, 20),
        "echo": _FLAG,
        "logprobs": _whole(0, 5),
        "max_tokens": _whole(0, 2**31 - 1),
        "suffix": _TEXT,
    },
)
_EMBEDDING = _record(
    {"model": _SOME_TEXT, "input": _texts_or_tokens(_SOME_TEXT)},
    {"dimensions": _COUNT, "encoding_format": _words("float", "base64"), "user": _TEXT},
)
BODIES: dict[Endpoint, Schema] = {
    Endpoint.CHAT: _CHAT,
    Endpoint.COMPLETIONS: _COMPLETION,
    Endpoint.EMBEDDINGS: _EMBEDDING,
}
"""By endpoint."""
_TAGS: Final = f"{TAG.pattern}(?:, ?{TAG.pattern}){{0,15}}"
CONTROLS: dict[str, tuple[str, Schema]] = {
    "Cache-Control": (
        "Request directives of RFC 9111 and 5861; what makes no sense is read with caution.",
        _TEXT,
    ),
    "Encore-TTL": ("Seconds to keep the answer for.", _matching("[0-9]+")),
    "Encore-Tags": ("Names to purge it by, by comma.", _matching(f"(?:{_TAGS})?")),
    "Encore-Semantic": (
        "No answer to a question that is less alike, or to none but this one.",
        _matching(r"off|0(?:\.[0-9]{1,6})?|1(?:\.0{1,6})?"),
    ),
    "Encore-Bucket": ("Which of several answers to one question.", _matching("[0-9]{1,4}")),
    "Encore-Class": ("The content class.", _matching(CONTENT_CLASS.pattern)),
    "Encore-Scope": ("Answers are shared within a scope only.", _matching(r"[\x21-\x7e]{1,128}")),
}
"""What a client may ask of the cache: by header, what it is for and its value."""
_TO: Final = _words(*Endpoint)
WARM_REQUEST = _closed(
    {"body": _OBJECT | {"description": "That of a request to the endpoint."}},
    {
        "endpoint": _TO,
        "url": _TO | {"description": "The same as `endpoint` where both are there."},
        "method": _words("POST"),
        "custom_id": {},
        "headers": {
            "type": ["object", "null"],
            "description": "What it asks of the cache. Names may be in any case.",
            "properties": {
                name: value | {"pattern": value.get("pattern", r"^[\t\x20-\x7e]*$")}
                for name, (_, value) in CONTROLS.items()
            },
            "additionalProperties": False,
        },
    },
)
WARM_UP = _closed(
    {"requests": _array(WARM_REQUEST, 1, MAX_REQUESTS)}, {"when": _words("now", "quiet")}
)
TENANT = _matching(r"\*|[a-z0-9](?:[a-z0-9-]{0,30}[a-z0-9])?")
"""`*` is all of them."""
PURGE = _closed(
    {},
    {
        "keys": _names("[0-9a-f]{16}(?:[0-9a-f]{48})?"),
        "tags": _names(TAG.pattern),
        "models": _names(r"[^\x00-\x1f\x7f]{1,1024}"),
        "everything": _FLAG,
        "older_than_s": _whole(0, 2**40),
        "tenant": TENANT,
        "dry_run": _FLAG,
    },
)
