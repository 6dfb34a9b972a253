"""The canonical form of a request: equal bytes if, and only if, the same answer may serve both.

Invariants
1. Every field that can change the answer takes part, unknown ones included; only `UNKEYED` is left
   out. Folding too little costs a hit, folding too much gives a wrong answer: in doubt, nothing is
   folded.
2. Injective by construction: one JSON array with fixed positions, nothing glued together.
3. Objects are sorted by key, except where order can shape the output (tool parameters, response
   schemas): there an object becomes `{"o": [[key, value], …]}`.
4. Absent equals null at the top level and in a message; `n` absent equals 1. No other default is
   folded: a local model has its own.

Numbers arrive from `shared.json_text` with integral floats already integers, so 1 equals 1.0.
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

_ORDERED_FIELDS = ("guided_json", "structured_outputs")
_encode = json.JSONEncoder(
    ensure_ascii=False, allow_nan=False, sort_keys=True, separators=(",", ":"), check_circular=False
).encode


def canonical(
    *, tenant: str, scope: str, endpoint: str, bucket: int, fields: dict[str, Any]
) -> bytes:
    """The canonical bytes of a request.

    `fields` is the body as `shared.json_text.parse_object` gives it; it is not changed. `endpoint`
    is the path (`/v1/chat/completions`), `scope` is empty where the client names none.

    Raises ClientError where a string holds a lone surrogate (it has no UTF-8 form).
    """
    kept = {
        name: value for name, value in fields.items() if value is not None and name not in UNKEYED
    }
    n = kept.get("n")
    if type(n) is int and n == 1:
        del kept["n"]
    messages = kept.get("messages")
    if type(messages) is list:
        kept["messages"] = [_without_nulls(message) for message in messages]
    _keep_order(kept)
    text = _encode([VERSION, tenant, scope, endpoint, bucket, kept])
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise ClientError(
            "The body holds a lone surrogate, which is not valid Unicode text.",
            code="invalid_unicode",
        ) from None


def _without_nulls(message: Any) -> Any:
    if type(message) is dict and None in message.values():
        return {name: value for name, value in message.items() if value is not None}
    return message


def _keep_order(kept: dict[str, Any]) -> None:
    """Replace the parts of `kept` whose key order matters, copying what is changed."""
    for name in _ORDERED_FIELDS:
        if name in kept:
            kept[name] = _ordered(kept[name])
    if type(kept.get("tools")) is list:
        kept["tools"] = [_ordered_at(tool, ("function", "parameters")) for tool in kept["tools"]]
    if type(kept.get("functions")) is list:
        kept["functions"] = [_ordered_at(f, ("parameters",)) for f in kept["functions"]]
    if "response_format" in kept:
        kept["response_format"] = _ordered_at(kept["response_format"], ("json_schema", "schema"))


def _ordered_at(value: Any, path: tuple[str, ...]) -> Any:
    """`value` with the part at `path` in ordered form; `value` itself where there is no such part."""
    if not path:
        return _ordered(value)
    if type(value) is not dict or path[0] not in value:
        return value
    return {**value, path[0]: _ordered_at(value[path[0]], path[1:])}


def _ordered(value: Any) -> Any:
    if type(value) is dict:
        return {"o": [[name, _ordered(inner)] for name, inner in value.items()]}
    if type(value) is list:
        return [_ordered(inner) for inner in value]
    return value
