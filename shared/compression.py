"""Gzip (RFC 1952), made once and read within a bound.

The stored form is deterministic: fixed level, mtime 0, no file name.
"""

from __future__ import annotations

import zlib

_GZIP = 16 + zlib.MAX_WBITS
_LEVEL = 6


def compress(data: bytes, *, repetitive: bool = True) -> bytes:
    """One complete gzip member holding `data`.

    Where nothing repeats (the digits of vectors) Huffman codes alone are as small, and six times as
    fast to find.
    """
    strategy = zlib.Z_DEFAULT_STRATEGY if repetitive else zlib.Z_HUFFMAN_ONLY
    compressor = zlib.compressobj(_LEVEL, zlib.DEFLATED, _GZIP, zlib.DEF_MEM_LEVEL, strategy)
    return compressor.compress(data) + compressor.flush()


def decompress(data: bytes, *, max_bytes: int) -> bytes:
    """What one gzip member holds.

    Raises ValueError where `data` is not exactly one whole member or holds more than `max_bytes`.
    """
    decompressor = zlib.decompressobj(_GZIP)
    try:
        plain = decompressor.decompress(data, max_bytes + 1)
    except zlib.error as exc:
        raise ValueError("not gzip") from exc
    if len(plain) > max_bytes:
        raise ValueError(f"more than {max_bytes} bytes when decompressed")
    if not decompressor.eof or decompressor.unused_data:
        raise ValueError("not exactly one whole gzip member")
    return plain
