"""An upstream's body, decoded piece by piece: httpx would make 64 MB of 64 kB at once.

A thousandfold is what gzip can do, and httpx undoes one coding after another. Here each piece is
small, however much is in it, so that who counts the bytes stops in time.
"""

from __future__ import annotations

import zlib
from collections.abc import AsyncGenerator

import httpx

from origin.engine.upstream_json import garbage

ACCEPTED = "gzip"
MAX_PIECE_BYTES = 64 << 10
_PLAIN = frozenset({"", "identity"})
_PACKED = frozenset({"gzip", "x-gzip", "deflate"})
_EITHER = 32 + zlib.MAX_WBITS
"""zlib tells the formats of the two codings (RFC 1950 and 1952) by their first bytes."""


def check_coding(response: httpx.Response) -> str:
    """The coding that the body is in. Raises UpstreamError for one that is not undone here."""
    coding = response.headers.get("content-encoding", "").strip().lower()
    if coding not in _PLAIN | _PACKED:
        raise garbage("it is coded in a way that was not asked for")
    return coding


async def pieces(response: httpx.Response) -> AsyncGenerator[bytes, None]:
    """The body, decoded, in pieces as they come. Raises UpstreamError, and what httpx raises."""
    coding = check_coding(response)
    inflate = None if coding in _PLAIN else zlib.decompressobj(_EITHER)
    async for piece in response.aiter_raw():
        if inflate is None:
            yield piece
            continue
        packed, is_more = piece, True
        while is_more:
            try:
                plain = inflate.decompress(packed, MAX_PIECE_BYTES)
            except zlib.error:
                raise garbage(f"it is no {coding}") from None
            packed = inflate.unconsumed_tail
            is_more = bool(packed) or len(plain) == MAX_PIECE_BYTES
            if plain:
                yield plain
