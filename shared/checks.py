"""Small checks that compose into the rules of a request, with errors in OpenAI's words.

A check takes a value and the path of its field (`messages[0].content`), returns nothing, and raises
ClientError (400) naming that path. It never quotes a string it was given: that may be a prompt.
Null is treated as absent by whoever holds the object (`record`), so no check sees it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from shared.errors import ClientError

Check = Callable[[Any, str], None]


def boolean(value: Any, path: str) -> None:
    """Accept true and false."""
    if type(value) is not bool:
        raise wrong_type(value, path, "a boolean")


def obj(value: Any, path: str) -> None:
    """Accept an object, whatever it holds."""
    if type(value) is not dict:
        raise wrong_type(value, path, "an object")


def string(
    *, min_length: int = 0, max_length: int | None = None, pattern: str | None = None
) -> Check:
    """Accept a string of so many characters that matches `pattern` in full."""
    compiled = re.compile(pattern) if pattern else None

    def check(value: Any, path: str) -> None:
        if type(value) is not str:
            raise wrong_type(value, path, "a string")
        if len(value) < min_length:
            raise ClientError(
                f"Invalid '{path}': empty string. Expected a string with minimum length "
                f"{min_length}, but got an empty string instead.",
                param=path,
                code="empty_string",
            )
        if max_length is not None and len(value) > max_length:
            raise ClientError(
                f"Invalid '{path}': string too long. Expected a string with maximum length "
                f"{max_length}, but got a string with length {len(value)} instead.",
                param=path,
                code="string_above_max_length",
            )
        if compiled is not None and compiled.fullmatch(value) is None:
            raise ClientError(
                f"Invalid '{path}': string does not match pattern. Expected a string that "
                f"matches the pattern '^{pattern}$'.",
                param=path,
                code="invalid_value",
            )

    return check


def one_of(*allowed: str) -> Check:
    """Accept one of these strings."""

    def check(value: Any, path: str) -> None:
        if type(value) is not str:
            raise wrong_type(value, path, "a string")
        if value not in allowed:
            raise unsupported_value(path, allowed)

    return check


def integer(low: int, high: int) -> Check:
    """Accept an integer within the bounds, both included. True is not 1."""

    def check(value: Any, path: str) -> None:
        if type(value) is not int:
            raise wrong_type(value, path, "an integer")
        _check_range(value, path, low, high, "integer")

    return check


def number(low: float, high: float) -> Check:
    """Accept a number within the bounds, both included."""

    def check(value: Any, path: str) -> None:
        if type(value) is not int and type(value) is not float:
            raise wrong_type(value, path, "a decimal")
        _check_range(value, path, low, high, "decimal")

    return check


def array(item: Check, *, low: int = 0, high: int | None = None) -> Check:
    """Accept an array of so many items, each accepted by `item`."""

    def check(value: Any, path: str) -> None:
        if type(value) is not list:
            raise wrong_type(value, path, "an array")
        check_length(value, path, low, high)
        for index, member in enumerate(value):
            item(member, f"{path}[{index}]")

    return check


def either(**checks: Check) -> Check:
    """Accept a value by its JSON type: `string`, `array` and `object` name the check for each."""
    by_type = {_TYPES[name]: check for name, check in checks.items()}
    expected = "one of " + " or ".join(_WORDS[kind] for kind in by_type)

    def check(value: Any, path: str) -> None:
        chosen = by_type.get(type(value))
        if chosen is None:
            raise wrong_type(value, path, expected)
        chosen(value, path)

    return check


def record(fields: Mapping[str, Check], *, required: Iterable[str] = ()) -> Check:
    """Accept an object: known fields by their checks, unknown ones as they are, null as absent."""
    required = tuple(required)

    def check(value: Any, path: str) -> None:
        if type(value) is not dict:
            raise wrong_type(value, path, "an object")
        for name in required:
            if value.get(name) is None:
                raise missing(f"{path}.{name}")
        for name, member in value.items():
            known = fields.get(name)
            if known is not None and member is not None:
                known(member, f"{path}.{name}")

    return check


def known_fields(value: Mapping[str, Any], fields: Mapping[str, Check]) -> None:
    """Refuse fields of a request's body that are unknown, and check the others, null too."""
    for name, member in value.items():
        check = fields.get(name)
        if check is None:
            raise unknown(name[:40])
        check(member, name)


def tagged(tag: str, kinds: Mapping[str, Check], *, closed: bool = False) -> Check:
    """Accept an object by the string in its field `tag`.

    Other strings are refused when `closed`, else the object is left as it is.
    """

    def check(value: Any, path: str) -> None:
        if type(value) is not dict:
            raise wrong_type(value, path, "an object")
        kind = value.get(tag)
        if kind is None:
            raise missing(f"{path}.{tag}")
        if type(kind) is not str:
            raise wrong_type(kind, f"{path}.{tag}", "a string")
        chosen = kinds.get(kind)
        if chosen is not None:
            chosen(value, path)
        elif closed:
            raise unsupported_value(f"{path}.{tag}", kinds)

    return check


def mapping(member: Check, *, key_pattern: str, high: int | None = None) -> Check:
    """Accept an object used as a map, of at most `high` members, its keys matching in full."""
    key = re.compile(key_pattern)

    def check(value: Any, path: str) -> None:
        if type(value) is not dict:
            raise wrong_type(value, path, "an object")
        if high is not None and len(value) > high:
            raise ClientError(
                f"Invalid '{path}': too many properties. Expected an object with at most {high} "
                f"properties, but got {len(value)} properties instead.",
                param=path,
                code="object_above_max_properties",
            )
        for name, content in value.items():
            if key.fullmatch(name) is None:
                raise ClientError(
                    f"Invalid key in '{path}'. Expected keys that match '^{key_pattern}$'.",
                    param=path,
                    code="invalid_value",
                )
            member(content, f"{path}.{name[:40]}")

    return check


def check_length(value: list[Any], path: str, low: int, high: int | None) -> None:
    """Raise ClientError where an array is too short or too long."""
    if len(value) < low:
        raise ClientError(
            f"Invalid '{path}': empty array. Expected an array with minimum length {low}, but got "
            "an empty array instead.",
            param=path,
            code="empty_array",
        )
    if high is not None and len(value) > high:
        raise ClientError(
            f"Invalid '{path}': array too long. Expected an array with maximum length {high}, but "
            f"got an array with length {len(value)} instead.",
            param=path,
            code="array_above_max_length",
        )


def wrong_type(value: Any, path: str, expected: str) -> ClientError:
    """Make the error for a value of the wrong JSON type; `expected` with its article."""
    actual = _WORDS.get(type(value), "an unknown type")
    return ClientError(
        f"Invalid type for '{path}': expected {expected}, but got {actual} instead.",
        param=path,
        code="invalid_type",
    )


def missing(path: str) -> ClientError:
    """Make the error for a required field that is absent or null."""
    return ClientError(
        f"Missing required parameter: '{path}'.", param=path, code="missing_required_parameter"
    )


def unknown(path: str) -> ClientError:
    """A field that must not be there."""
    return ClientError(f"Unknown parameter: '{path}'.", param=path, code="unknown_parameter")


def unsupported_value(path: str, allowed: Iterable[str]) -> ClientError:
    """Make the error for a string that is none of those allowed."""
    names = ", ".join(f"'{name}'" for name in allowed)
    return ClientError(
        f"Invalid value for '{path}'. Supported values are: {names}.",
        param=path,
        code="invalid_value",
    )


def _check_range(value: float, path: str, low: float, high: float, kind: str) -> None:
    if value < low:
        side, word, sign, bound = "min", "below minimum", ">=", low
    elif value > high:
        side, word, sign, bound = "max", "above maximum", "<=", high
    else:
        return
    raise ClientError(
        f"Invalid '{path}': {kind} {word} value. Expected a value {sign} {bound}, but got "
        f"{value} instead.",
        param=path,
        code=f"{kind}_{word.split()[0]}_{side}_value",
    )


_TYPES: dict[str, type] = {"string": str, "array": list, "object": dict}
_WORDS: dict[type, str] = {
    str: "a string",
    int: "an integer",
    float: "a decimal",
    bool: "a boolean",
    list: "an array",
    dict: "an object",
    type(None): "null",
}
