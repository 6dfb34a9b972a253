"""JSON is read strictly and written compactly."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.envelope import EnvelopeError
from shared.errors import ClientError, error_body
from shared.json_text import (
    MAX_DEPTH,
    MAX_DIGITS,
    dumps,
    is_list_of_objects,
    parse_object,
    reader,
)

_texts = st.text(st.characters(exclude_categories=["Cs"]))
_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**MAX_DIGITS) + 1, 10**MAX_DIGITS - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | _texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_texts, inner, max_size=4),
    max_leaves=20,
)


@given(st.dictionaries(_texts, _values))
def test_what_is_written_is_read_back(value: dict[str, Any]) -> None:
    """Writing and reading gives an equal value, and a second round the same bytes."""
    read = parse_object(dumps(value))
    assert read == value
    assert parse_object(dumps(read)) == read


@given(st.dictionaries(_texts, _values))
def test_spelling_does_not_matter(value: dict[str, Any]) -> None:
    """White space and escapes change nothing."""
    assert parse_object(json.dumps(value, indent=1).encode()) == value


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1", 1),
        ("1.0", 1),
        ("1e0", 1),
        ("10e-1", 1),
        ("-0.0", 0),
        ("-0", 0),
        ("0.5", 0.5),
        ("9223372036854775807", 2**63 - 1),
        ("18446744073709551615", 2**64 - 1),
        ("9" * MAX_DIGITS, 10**MAX_DIGITS - 1),
        ("-" + "9" * MAX_DIGITS, 1 - 10**MAX_DIGITS),
        ("1e300", 1e300),
        ("0." + "1" * 100, 0.1111111111111111),
    ],
)
def test_equal_numbers_are_equal_values(text: str, expected: float) -> None:
    """Integral decimals are integers, integers are exact, other decimals stay."""
    value = parse_object(b'{"x":%b}' % text.encode())["x"]
    assert value == expected
    assert type(value) is type(expected)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" \n",
        b"\xef\xbb\xbf",
        b"{",
        b'{"a":1,}',
        b"{'a':1}",
        b'{"a":1}x',
        b'{"a":01}',
        b'{"a":"\n"}',
        b'{"a":"\\x"}',
        b'{"a":NaN}',
        b'{"a":-Infinity}',
        b'{"a":1e999}',
        b'{"a":-1e999}',
        b'{"a":' + b"9" * (MAX_DIGITS + 1) + b"}",
        b'{"a":' + b"9" * 100_000 + b"}",
        b'{"a":1,"a":1}',
        b'{"a":1,"\\u0061":2}',
        b'{"x":[{"a":1,"a":2}]}',
        b'{"a":"\\ud800"}',
        b'{"a":["\\udc00\\ud800"]}',
        b'{"\\uDFFF":1}',
        b'{"\\ud800":1,"\\ud800":2}',
        b'{"a":"\xff"}',
        b'{"a":"\xed\xa0\x80"}',
        '{"a":1}'.encode("utf-16"),
        b"[]",
        b'"a"',
        b"1",
        b"null",
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"a":' + b"[" * MAX_DEPTH + b"]" * MAX_DEPTH + b"}",
    ],
    ids=lambda body: repr(body[:24]),
)
def test_bad_json_is_refused(body: bytes) -> None:
    """What two readers could read in two ways, or not at all, is a 400 that can be written."""
    with pytest.raises(ClientError) as caught:
        parse_object(body)
    assert caught.value.status == 400
    assert caught.value.code
    assert error_body(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "[" * (MAX_DEPTH - 1) + "]" * (MAX_DEPTH - 1),
        "[" + ",".join(["[]"] * 1000) + "]",
        '"' + "[" * 1000 + '"',
        '"' + '\\"[' * 1000 + '"',
        '"\\\\ud800"',
        '"\\ud83d\\ude00"',
        '"' + "9" * 5000 + '"',
    ],
    ids=lambda text: text[:12],
)
def test_what_only_looks_bad_is_read(text: str) -> None:
    """Brackets, digits and escapes within strings count for nothing; breadth is not depth."""
    assert parse_object(b'{"a":%b}' % text.encode()) == {"a": json.loads(text)}


def test_a_duplicate_key_is_named_and_cut_short() -> None:
    """The message names the key, but not all of a long one."""
    with pytest.raises(ClientError, match="'temperature'"):
        parse_object(b'{"temperature":1,"temperature":2}')
    with pytest.raises(ClientError) as caught:
        parse_object(b'{"%b":1,"%b":2}' % (b"k" * 999, b"k" * 999))
    assert len(caught.value.message) < 100


@given(st.text(min_size=20))
def test_a_message_never_quotes_the_body(secret: str) -> None:
    """However a body is broken, no message holds what it says."""
    body = b'{"messages":[{"content":%b}' % json.dumps(secret).encode()
    with pytest.raises(ClientError) as caught:
        parse_object(body)
    assert secret not in caught.value.message


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "\ud800", {"\udfff": 1}])
def test_what_json_cannot_say_is_not_written(value: object) -> None:
    """Writing raises ValueError where reading would refuse."""
    with pytest.raises(ValueError, match=r"."):
        dumps({"a": value})


@given(
    st.recursive(
        st.none() | st.integers() | st.text('aé\n"'),
        lambda inner: st.lists(inner) | st.dictionaries(st.text("aé"), inner),
    )
)
def test_what_we_wrote_is_read_as_it_was(value: object) -> None:
    """Whatever it says."""
    assert reader(ValueError)(dumps(value).decode()) == value


@pytest.mark.parametrize("text", ['{"a":1,"a":1}', '[{"b":{"a":1,"a":2}}]'])
def test_a_field_that_comes_twice_is_refused(text: str) -> None:
    """With the reader's own error: other readers would take either."""
    with pytest.raises(EnvelopeError, match="repeated field"):
        reader(EnvelopeError)(text)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ([], True),
        ([{}], True),
        ([{}, {"a": 1}], True),
        ([{}, 1], False),
        ({}, False),
        (None, False),
    ],
)
def test_a_list_of_objects_has_nothing_else(value: object, *, expected: bool) -> None:
    """And is a list."""
    assert is_list_of_objects(value) == expected
