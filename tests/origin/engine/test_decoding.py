"""Packed answers of an upstream: read like plain ones, and never larger in memory than allowed."""

from __future__ import annotations

import gzip
import tracemalloc
import zlib

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from origin.engine.decoding import MAX_PIECE_BYTES, pieces
from shared.errors import UpstreamError


class Stream(httpx.AsyncByteStream):
    """A body that comes in these pieces."""

    def __init__(self, *parts: bytes) -> None:
        self._parts = parts

    async def __aiter__(self):  # type: ignore[no-untyped-def] # noqa: ANN204
        for part in self._parts:
            yield part


def response(coding: str, *parts: bytes) -> httpx.Response:
    """An answer in a coding."""
    return httpx.Response(200, headers={"content-encoding": coding}, stream=Stream(*parts))


PACKED = {
    "": lambda data: data,
    "identity": lambda data: data,
    "gzip": gzip.compress,
    "x-gzip": gzip.compress,
    "Deflate": zlib.compress,
}


@given(coding=st.sampled_from(sorted(PACKED)), data=st.binary(max_size=500), cut=st.integers(1, 50))
async def test_what_was_packed_is_what_is_read(coding: str, data: bytes, cut: int) -> None:
    """However it is cut."""
    packed = PACKED[coding](data)
    parts = [packed[start : start + cut] for start in range(0, len(packed), cut)]
    assert b"".join([piece async for piece in pieces(response(coding, *parts))]) == data


async def test_a_bomb_comes_in_small_pieces() -> None:
    """256 MiB in one piece of 256 kB: who counts may stop at the first of them."""
    packer = zlib.compressobj(9, wbits=31)
    bomb = b"".join([packer.compress(bytes(1 << 20)) for _ in range(256)]) + packer.flush()
    tracemalloc.start()
    size_bytes = 0
    async for piece in pieces(response("gzip", bomb)):
        assert len(piece) <= MAX_PIECE_BYTES
        size_bytes += len(piece)
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert size_bytes == 256 << 20
    assert peak_bytes < 4 << 20


@pytest.mark.parametrize("coding", ["br", "zstd", "gzip, gzip", "gzip,gzip,gzip", "compress", "x"])
async def test_other_codings_are_refused(coding: str) -> None:
    """Several, too: each would multiply by a thousand."""
    with pytest.raises(UpstreamError) as refused:
        [piece async for piece in pieces(response(coding, b"x"))]
    assert refused.value.code == "upstream_garbage"


async def test_what_is_not_packed_as_it_says_is_refused() -> None:
    """It is no answer."""
    with pytest.raises(UpstreamError) as refused:
        [piece async for piece in pieces(response("gzip", b"{}"))]
    assert refused.value.code == "upstream_garbage"
