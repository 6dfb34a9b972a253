"""What the endpoints read of HTTP."""

from __future__ import annotations

from origin.api.http import headers_of


def test_repeated_headers_are_one_list() -> None:
    """RFC 9110 section 5.3: joined by commas, in order."""
    raw = [(b"a", b"1"), (b"b", b"2"), (b"a", b"3"), (b"a", b"4")]
    assert headers_of({"headers": raw}) == {"a": "1, 3, 4", "b": "2"}
