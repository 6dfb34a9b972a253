"""Gzip: one whole member, the same every time, read within a bound."""

from __future__ import annotations

import gzip

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.compression import compress, decompress


@given(st.binary(max_size=2000))
def test_what_goes_in_comes_out(data: bytes) -> None:
    """For us, within a bound that is just enough, and for everybody else's gzip."""
    packed = compress(data)
    assert decompress(packed, max_bytes=len(data)) == data
    assert gzip.decompress(packed) == data


def test_the_same_bytes_every_time() -> None:
    """RFC 1952: magic, deflate, no flags, mtime 0."""
    packed = compress(b"a" * 1000)
    assert packed == compress(b"a" * 1000)
    assert packed[:8] == b"\x1f\x8b\x08\x00\x00\x00\x00\x00"


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "whole"),
        (b"plain", "not gzip"),
        (compress(b"hello")[:-1], "whole"),
        (compress(b"hello") + b"\0", "whole"),
        (compress(b"hello") * 2, "whole"),
        (compress(b"hello")[:-8] + b"\0" * 8, "not gzip"),
        (compress(b"hello!"), "more than 5"),
        (compress(bytes(10**7)), "more than 5"),
    ],
    ids=["nothing", "text", "cut", "trailing", "two", "checksum", "one-too-many", "bomb"],
)
def test_anything_but_one_small_whole_member_is_refused(data: bytes, said: str) -> None:
    """Half an answer, two answers and a bomb are all ValueErrors."""
    with pytest.raises(ValueError, match=said):
        decompress(data, max_bytes=5)


@given(st.binary(max_size=200), st.data())
def test_damage_never_passes_unseen(data: bytes, draw: st.DataObject) -> None:
    """Any change to any bit behind the header is found, or changes nothing."""
    packed = bytearray(compress(data))
    at = draw.draw(st.integers(10, len(packed) - 1))
    packed[at] ^= 1 << draw.draw(st.integers(0, 7))
    try:
        read = decompress(bytes(packed), max_bytes=10_000)
    except ValueError:
        return
    assert read == data
