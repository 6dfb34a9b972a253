"""JSON as clients send it and as we write it: strict in, compact out.

`json` alone takes the last of two equal keys, reads NaN, lets 1e999 become infinity and keeps half
of a surrogate pair. Each would let two readers of one body disagree on what it says, so each is
refused here, before a key is derived or a byte is forwarded.

Invariants
1. What `parse_object` returns, `dumps` can write, and parsing that gives an equal value.
2. Equal numbers are equal values: 1, 1.0 and 1e0 are the integer 1, -0.0 is 0. Integers are exact.
3. No message quotes the body, but for the name of a duplicate key, cut short.

Not for answers of a model: those keep their numbers as they were written (`json.loads`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any, TypeGuard

from shared.errors import ClientError

MAX_DEPTH = 64
# 128 bits. JSON sets no limit, but nobody downstream reads more, and int() of many digits is slow.
MAX_DIGITS = 40
# Below this every integral double is the integer it was written as.
_EXACT = 2**53
MAX_INTEGER = _EXACT - 1
"""The largest integer that JavaScript keeps exact."""

_LONG_INTEGER = re.compile(rf"[0-9]{{{MAX_DIGITS + 1}}}")
_SURROGATE_ESCAPE = re.compile(r"\\u[dD][89a-fA-F]")
# A string (skipped, even unterminated), or one bracket.
_BRACKET = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"?|[\[\]{}]', re.DOTALL)


def parse_object(body: bytes) -> dict[str, Any]:
    """Read the JSON object in `body`: UTF-8, a leading byte order mark ignored (RFC 8259, 8.1).

    Raises ClientError (400) for anything else, for duplicate keys, for numbers that are not finite
    or longer than `MAX_DIGITS`, for unpaired surrogates and for nesting beyond `MAX_DEPTH`.
    """
    try:
        text = body.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        raise _refusal(f"it is not UTF-8 (byte {exc.start})") from None
    if not text.strip():
        raise _refusal("it is empty")
    if is_too_deep(text):  # the end of a WebAssembly instance may be before any exception
        raise _too_deep()
    decoder = _BOUNDED_DECODER if _LONG_INTEGER.search(text) else _DECODER
    try:
        value = decoder.decode(text)
    except json.JSONDecodeError as exc:
        raise _refusal(
            f"{exc.msg.rstrip(' :').removesuffix(' at')} at line {exc.lineno} column {exc.colno}"
        ) from None
    except RecursionError:  # pragma: no cover - a smaller stack than ours (WebAssembly)
        raise _too_deep() from None
    if not isinstance(value, dict):
        raise ClientError("The request body must be a JSON object.", code="invalid_type")
    if "\\u" in text and _SURROGATE_ESCAPE.search(text):
        _check_surrogates(value)
    return value


def dumps(value: Any) -> bytes:
    """Compact UTF-8 JSON, in the order of the value. Raises ValueError for what JSON cannot say.

    That is NaN, infinities and unpaired surrogates (UnicodeEncodeError is a ValueError).
    """
    return _ENCODER.encode(value).encode()


def reader(error: type[ValueError]) -> Callable[[str], Any]:
    """What reads JSON that we wrote. It raises `error` for a field that comes twice, ValueError
    for what is no JSON, RecursionError.
    """  # noqa: D205 - one sentence

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        fields = dict(pairs)
        if len(fields) != len(pairs):
            raise error("repeated field")
        return fields

    return json.JSONDecoder(object_pairs_hook=unique).decode


def is_list_of_objects(value: Any) -> TypeGuard[list[dict[str, Any]]]:
    """Whether a value that was read is a list of nothing but objects."""
    return isinstance(value, list) and all(isinstance(item, dict) for item in value)


def is_too_deep(text: str) -> bool:
    """Whether JSON is nested beyond `MAX_DEPTH`, told before a decoder recurses into it."""
    if text.count("{") + text.count("[") <= MAX_DEPTH:
        return False
    depth = 0
    for found in _BRACKET.findall(text):
        if found in "{[":
            depth += 1
            if depth > MAX_DEPTH:
                return True
        elif found in "}]":
            depth -= 1
    return False


def _refusal(why: str) -> ClientError:
    return ClientError(f"We could not parse the JSON body of your request: {why}.", code="bad_json")


def _too_deep() -> ClientError:
    return ClientError(
        f"The JSON body is nested too deeply. Expected at most {MAX_DEPTH} levels.",
        code="json_too_deep",
    )


def _check_surrogates(value: dict[str, Any]) -> None:
    for name, member in value.items():
        try:
            dumps([name, member])
        except UnicodeEncodeError:
            field = _printable(name)
            raise ClientError(
                f"Invalid string in '{field}': it has an unpaired UTF-16 surrogate escape.",
                param=field,
                code="invalid_unicode",
            ) from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:  # pragma: no branch - one of them comes again
            if name in seen:
                field = _printable(name)
                raise ClientError(
                    f"Duplicate key '{field}' in the JSON body.", param=field, code="duplicate_key"
                )
            seen.add(name)
    return members


def _printable(name: str) -> str:
    return name[:MAX_DIGITS].encode("utf-8", "replace").decode()


def _number(text: str) -> int | float:
    value = float(text)
    if not -_EXACT < value < _EXACT:
        if value in (float("inf"), float("-inf")):
            raise ClientError("A number in the JSON body is too large.", code="invalid_number")
        return value
    return int(value) if value.is_integer() else value


def _bounded_integer(text: str) -> int:
    if len(text.lstrip("-")) > MAX_DIGITS:
        raise ClientError(
            f"An integer in the JSON body is too large. Expected at most {MAX_DIGITS} digits.",
            code="invalid_number",
        )
    return int(text)


def _constant(name: str) -> Any:
    raise _refusal(f"{name} is not a JSON value")


_DECODER = json.JSONDecoder(
    object_pairs_hook=_unique, parse_float=_number, parse_constant=_constant
)
_BOUNDED_DECODER = json.JSONDecoder(
    object_pairs_hook=_unique,
    parse_float=_number,
    parse_int=_bounded_integer,
    parse_constant=_constant,
)
_ENCODER = json.JSONEncoder(
    ensure_ascii=False, allow_nan=False, separators=(",", ":"), check_circular=False
)
