"""The canonical form of a request: equal bytes if, and only if, the same answer may serve both.

Invariants
1. Every field that can change the answer takes part, unknown ones included; only `UNKEYED` is left
   out. Folding too little costs a hit, folding too much gives a wrong answer: in doubt, nothing is
   folded.
2. Injective by construction: one JSON array with fixed positions, nothing glued together.
3. Objects are sorted by key, except where order can shape the output (tool parameters, response
   schemas): there every object becomes `{"o": [[key, value], …]}`. Position alone decides which.
4. Absent equals null at the top level and in a message; `n` absent equals 1. No other default is
   folded: a local model has its own.

Values come from `shared.json_text.parse_object`, which makes 1.0 the integer 1, keeps integers
exact and refuses duplicate keys, NaN and lone surrogates. JSON keeps true apart from 1, 1 from "1".
"""

from __future__ import annotations

import json
from typing import Any

from shared.errors import ClientError

VERSION = "encore-1"

UNKEYED = frozenset(
    {
        "metadata",
        "prompt_cache_key",
        "prompt_cache_options",
        "prompt_cache_retention",
        "safety_identifier",
        "service_tier",
        "store",
        "stream",
        "stream_options",
        "user",
    }
)
"""Request fields that never change what the answer says, only how it is sent, billed or filed."""
UNPROVEN = UNKEYED - {"stream", "stream_options"}
"""Those that are not checked before a key is made: that a body of the same key was valid says
nothing of them."""

_SCHEMA_FIELDS = frozenset({"guided_json", "json_schema", "structured_outputs"})
"""Whole fields that are response schemas: vLLM's, llama.cpp's, vLLM's again."""
_SCHEMA_HOLDERS = frozenset({"functions", "response_format", "tools"})
_SCHEMAS = frozenset({"parameters", "schema"})
"""What schemas are called within the holders, at whatever depth a dialect of the API puts them."""

_encode = json.JSONEncoder(
    ensure_ascii=False, allow_nan=False, sort_keys=True, separators=(",", ":"), check_circular=False
).encode


def canonical(
    *,
    tenant: str,
    scope: str,
    endpoint: str,
    bucket: int,
    fields: dict[str, Any],
    profile: str | None = None,
    content_class: str | None = None,
) -> bytes:
    """The canonical bytes of a request.

    `fields` is the body as `shared.json_text.parse_object` gives it; it is not changed. `endpoint`
    is the path (`/v1/chat/completions`), `scope` is empty where the client names none. `profile`
    names what has normalised the fields: what one holds for the same, another may not.
    `content_class` is the one that the client names: an answer is kept by the rules of its class,
    so it answers no request of another.

    Raises ClientError where a string holds a lone surrogate (it has no UTF-8 form).
    """
    kept = {
        name: _formed(name, value)
        for name, value in fields.items()
        if value is not None and name not in UNKEYED
    }
    n = kept.get("n")
    if type(n) is int and n == 1:
        del kept["n"]
    form: list[Any] = [VERSION, tenant, scope, endpoint, bucket, kept]
    if content_class is not None:
        form += [profile, content_class]
    elif profile is not None:
        form.append(profile)
    text = _encode(form)
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise ClientError(
            "The body holds a lone surrogate, which is not valid Unicode text.",
            code="invalid_unicode",
        ) from None


def _formed(name: str, value: Any) -> Any:
    """The value of a top-level field in the form that is encoded; nothing is changed in place."""
    if name == "messages" and type(value) is list:
        return [_without_nulls(message) for message in value]
    if name in _SCHEMA_HOLDERS:
        return _with_schemas_ordered(value)
    return _ordered(value) if name in _SCHEMA_FIELDS else value


def _without_nulls(message: Any) -> Any:
    if type(message) is dict and None in message.values():
        return {name: value for name, value in message.items() if value is not None}
    return message


def _with_schemas_ordered(value: Any) -> Any:
    if type(value) is dict:
        return {
            name: (_ordered if name in _SCHEMAS else _with_schemas_ordered)(inner)
            for name, inner in value.items()
        }
    if type(value) is list:
        return [_with_schemas_ordered(inner) for inner in value]
    return value


def _ordered(value: Any) -> Any:
    if type(value) is dict:
        return {"o": [[name, _ordered(inner)] for name, inner in value.items()]}
    if type(value) is list:
        return [_ordered(inner) for inner in value]
    return value
