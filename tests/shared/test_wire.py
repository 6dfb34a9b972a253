"""What edge and origin agree on: which clients can read gzip, and which headers stay inside."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.wire import (
    EDGE_AUTHORIZATION,
    FORWARDED_REQUEST_HEADERS,
    FORWARDED_RESPONSE_HEADERS,
    accepts_gzip,
    announced_bytes,
)


@pytest.mark.parametrize(
    ("accept_encoding", "accepted"),
    [
        (None, False),
        ("", False),
        ("identity", False),
        ("br, zstd", False),
        ("gzip", True),
        ("GZip", True),
        ("x-gzip", True),
        ("br, gzip", True),
        ("deflate;q=1.0,gzip ; q=0.5", True),
        ("gzip;q=1", True),
        ("gzip;q=1.000", True),
        ("gzip;q=0.001", True),
        ("gzip;q=", False),
        ("gzip;q=0", False),
        ("gzip;q=0.", False),
        ("gzip;q=0.0", False),
        ("gzip;q=0.000", False),
        ("gzip; q = 0", False),
        ("gzip;q=much", False),
        ("gzip;q=nan", False),
        ("gzip;level=9", False),
        ("*", True),
        ("*;q=0", False),
        ("*;q=0.000", False),
        ("gzip;q=0, *", False),
        ("*, gzip;q=0", False),
        ("*;q=0, gzip", True),
    ],
)
def test_accepts_gzip(accept_encoding: str | None, accepted: bool) -> None:
    """RFC 9110 section 12.5.3; what makes no sense is no acceptance."""
    assert accepts_gzip(accept_encoding) is accepted


@given(st.text())
def test_accepts_gzip_of_any_text(accept_encoding: str) -> None:
    """Any text has an answer."""
    assert accepts_gzip(accept_encoding) in (True, False)


@pytest.mark.parametrize(
    ("content_length", "size_bytes"),
    [
        (None, None),
        ("", None),
        ("0", 0),
        ("00", 0),
        ("12", 12),
        ("0" * 5000 + "12", 12),
        ("9" * 5000, 10**18 - 1),
        ("-1", None),
        ("+1", None),
        ("1e3", None),
        ("1_000", None),
        ("\N{SUPERSCRIPT TWO}", None),
        ("\N{ARABIC-INDIC DIGIT TWO}", None),
        ("5, 5", None),
    ],
)
def test_announced_bytes(content_length: str | None, size_bytes: int | None) -> None:
    """RFC 9110 section 8.6; thousands of digits are none too many."""
    headers = {} if content_length is None else {"content-length": content_length}
    assert announced_bytes(headers) == size_bytes


def test_the_edges_bearer_is_never_taken_from_nor_shown_to_a_client() -> None:
    """It is in neither list of headers that travel."""
    assert EDGE_AUTHORIZATION not in FORWARDED_REQUEST_HEADERS + FORWARDED_RESPONSE_HEADERS
    assert all(name == name.lower() for name in FORWARDED_REQUEST_HEADERS)
    assert all(name == name.lower() for name in FORWARDED_RESPONSE_HEADERS)
