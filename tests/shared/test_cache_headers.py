"""Cache headers: RFC 9211 syntax whatever the detail. The exact words are in the golden vectors."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from shared.cache_headers import (
    EDGE,
    ORIGIN,
    append_status,
    entry_headers,
    forward_status,
    hit_status,
    server_timing,
)
from shared.envelope import Header
from shared.freshness import Serve

HEADER = Header(
    key="0123456789abcdef" * 4,
    tenant="acme",
    generation_started_ms=0,
    created_ms=0,
    fresh_until_ms=0,
    stale_until_ms=0,
    error_until_ms=0,
    etag="e1",
    model="m",
    fingerprint="f",
    segments={"json": 1},
)
# RFC 9651: a token, an integer or a string as a parameter's value.
TOKEN = r"[A-Za-z*][!#$%&'*+.^_`|~0-9A-Za-z:/-]*"
VALUE = rf'(?:{TOKEN}|-?[0-9]+|"(?:[ !#-\[\]-~]|\\["\\])*")'
MEMBER = re.compile(rf"{TOKEN}(?:; [a-z-]+(?:={VALUE})?)*")


@given(st.text(st.characters()), st.integers(-(10**9), 10**9))
def test_any_detail_makes_a_well_formed_member(detail: str, ttl_s: int) -> None:
    """Quotes, line breaks and what is beyond ASCII cannot break out of the header."""
    hit = hit_status(EDGE, Serve(age_s=0, ttl_s=ttl_s), detail)
    forwarded = forward_status(ORIGIN, "stale", status=502, stored=True, detail=detail)
    for member in (hit, forwarded):
        assert MEMBER.fullmatch(member)
        assert member.isascii()


def test_the_cache_nearest_the_origin_comes_first() -> None:
    """RFC 9211 section 2: each cache appends."""
    first = append_status(None, hit_status(ORIGIN, Serve(age_s=0, ttl_s=5)))
    both = append_status(first, forward_status(EDGE, "miss", stored=True))
    assert both == "encore-origin; hit; ttl=5, encore-edge; fwd=miss; stored"


def test_no_other_cache_may_keep_an_answer() -> None:
    """And only an answer from a cache has an age, 0 included."""
    made = entry_headers(HEADER, None)
    assert made["cache-control"] == "private, no-store"
    assert made["encore-key"] == HEADER.key[:16]
    assert made["etag"] == 'W/"e1"'
    assert "age" not in made
    assert entry_headers(HEADER, Serve(age_s=0, ttl_s=1))["age"] == "0"


def test_timings_are_in_milliseconds() -> None:
    """One entry a part, in the order given."""
    assert server_timing({"kv": 12.34, "origin": 5}) == "kv;dur=12.3, origin;dur=5.0"
