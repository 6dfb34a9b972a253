"""The envelope: how an answer is kept, in Redis, in Workers KV and between origin and edge.

Layout, version 1 (integers big-endian):

    offset 0   4 bytes   magic and version, b"ENC\\x01"
    offset 4   4 bytes   length of the header, at most 1,024
    offset 8   …         header, compact JSON in UTF-8
    …          …         segments, one after another, each one complete gzip member (mtime 0)

In Redis and as `application/vnd.encore.entry` the whole is one value. In Workers KV the header is the
metadata (its limit of 1,024 bytes is ours too) and the segments are the value, so that a hit sends a
slice of what KV gave, unread.

Invariants
1. The header says all a cache needs to decide: whose entry, until when, how long each segment is.
2. Times are absolute (milliseconds since the epoch): copying an entry never restarts its life.
3. What cannot be decoded raises `EnvelopeError`; a reader counts it and treats it as a miss. Nothing
   is guessed, and nothing in an envelope is ever executed or unpickled.
4. An encrypted segment is 12 bytes of nonce, the AES-256-GCM ciphertext of the gzip member and its
   16-byte tag; the additional data is `associated_data`. Lengths in the header are those as stored.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

MEDIA_TYPE = "application/vnd.encore.entry"
VERSION = 1
MAGIC = b"ENC\x01"
MAX_HEADER_BYTES = 1024
MAX_TAGS = 16
TAG_HEX_CHARACTERS = 12
"""A tag is kept as the first 48 bits of its HMAC: a collision purges too much, never too little."""

SEGMENT_JSON = "json"
SEGMENT_SSE = "sse"
SEGMENT_SSE_USAGE = "sse+usage"
SEGMENTS = frozenset({SEGMENT_JSON, SEGMENT_SSE, SEGMENT_SSE_USAGE})

_PREFIX_BYTES = 8
_KEY = re.compile(r"[0-9a-f]{64}", re.ASCII)
_TAG = re.compile(rf"[0-9a-f]{{{TAG_HEX_CHARACTERS}}}", re.ASCII)
_encode = json.JSONEncoder(
    ensure_ascii=False, allow_nan=False, separators=(",", ":"), check_circular=False
).encode


class EnvelopeError(ValueError):
    """Bytes or metadata that are not an envelope this version can read, or one that cannot be built."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SemanticSource:
    """An answer promoted from another request's entry by semantic match."""

    similarity: float
    key: str
    calibration: str


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenCounts:
    """Tokens of the generation, as its `usage` said."""

    prompt: int = 0
    completion: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Header:
    """What an envelope says about itself. Times are milliseconds since the epoch.

    `generation_started_ms` is when the generation began: a purge at or after it kills the entry.
    `segments` maps a name to its stored length in bytes, in stored order. `source` is None for an
    answer generated for this very key. `encryption` is the id of the encryption key, or None.
    """

    key: str
    tenant: str
    generation_started_ms: int
    created_ms: int
    fresh_until_ms: int
    stale_until_ms: int
    error_until_ms: int
    etag: str
    model: str
    fingerprint: str
    segments: Mapping[str, int]
    tokens: TokenCounts = TokenCounts()
    tags: tuple[str, ...] = ()
    source: SemanticSource | None = None
    encryption: str | None = None

    def __post_init__(self) -> None:
        _require(_KEY.fullmatch(self.key) is not None, "key")
        _require(bool(self.tenant), "tenant")
        times = (
            self.generation_started_ms,
            self.created_ms,
            self.fresh_until_ms,
            self.stale_until_ms,
            self.error_until_ms,
        )
        _require(all(type(t) is int and t >= 0 for t in times), "times")
        _require(times[0] <= times[1] <= times[2], "times")
        _require(times[2] <= min(times[3:]), "times")
        _require(bool(self.segments) and self.segments.keys() <= SEGMENTS, "segments")
        _require(all(type(n) is int and n > 0 for n in self.segments.values()), "segments")
        _require(len(self.tags) <= MAX_TAGS, "tags")
        _require(all(_TAG.fullmatch(tag) is not None for tag in self.tags), "tags")

    @property
    def expires_ms(self) -> int:
        """When nothing can use the entry any more: the expiry to give to Redis and KV."""
        return max(self.stale_until_ms, self.error_until_ms)

    def segment_range(self, name: str) -> tuple[int, int] | None:
        """Offset and length of a segment among the segments' bytes, or None where there is none."""
        offset = 0
        for segment, length in self.segments.items():
            if segment == name:
                return offset, length
            offset += length
        return None


@dataclass(frozen=True, kw_only=True, slots=True)
class Envelope:
    """A header and the segments' bytes, one after another."""

    header: Header
    payload: bytes

    def __post_init__(self) -> None:
        _require(len(self.payload) == sum(self.header.segments.values()), "payload length")

    def segment(self, name: str) -> bytes | None:
        """The stored bytes of one segment, or None."""
        place = self.header.segment_range(name)
        return None if place is None else self.payload[place[0] : place[0] + place[1]]


def header_json(header: Header) -> bytes:
    """The header as compact JSON. Raises EnvelopeError where it would exceed 1,024 bytes."""
    fields: dict[str, Any] = {
        "v": VERSION,
        "k": header.key,
        "t": header.tenant,
        "g": header.generation_started_ms,
        "c": header.created_ms,
        "f": header.fresh_until_ms,
        "s": header.stale_until_ms,
        "e": header.error_until_ms,
        "h": header.etag,
        "m": header.model,
        "p": header.fingerprint,
        "u": [header.tokens.prompt, header.tokens.completion],
        "seg": [[name, length] for name, length in header.segments.items()],
    }
    if header.tags:
        fields["T"] = list(header.tags)
    if header.source is not None:
        fields["o"] = [header.source.similarity, header.source.key, header.source.calibration]
    if header.encryption is not None:
        fields["x"] = header.encryption
    data = _encode(fields).encode()
    if len(data) > MAX_HEADER_BYTES:
        raise EnvelopeError(f"header: {len(data)} bytes, at most {MAX_HEADER_BYTES} fit")
    return data


def encode(envelope: Envelope) -> bytes:
    """The whole envelope as one value. Raises EnvelopeError where the header is too large."""
    header = header_json(envelope.header)
    return b"".join((MAGIC, len(header).to_bytes(4, "big"), header, envelope.payload))


def decode(data: bytes) -> Envelope:
    """Read a whole envelope. Raises EnvelopeError."""
    header, start = decode_prefix(data)
    return Envelope(header=header, payload=data[start:])


def decode_prefix(data: bytes) -> tuple[Header, int]:
    """The header and the offset of the first segment, from the first 1,032 bytes or more.

    Lets the edge read the header alone. Raises EnvelopeError.
    """
    _require(data[:4] == MAGIC, "magic")
    length = int.from_bytes(data[4:_PREFIX_BYTES], "big")
    _require(0 < length <= MAX_HEADER_BYTES, "header length")
    end = _PREFIX_BYTES + length
    _require(len(data) >= end, "header")
    return decode_header(data[_PREFIX_BYTES:end]), end


def decode_header(text: bytes | str) -> Header:
    """Read a header from its JSON (KV metadata, or within an envelope). Raises EnvelopeError."""
    try:
        fields = json.loads(text)
        if fields["v"] != VERSION:
            raise EnvelopeError("version")
        source = fields.get("o")
        prompt, completion = fields["u"]
        return Header(
            key=fields["k"],
            tenant=fields["t"],
            generation_started_ms=fields["g"],
            created_ms=fields["c"],
            fresh_until_ms=fields["f"],
            stale_until_ms=fields["s"],
            error_until_ms=fields["e"],
            etag=fields["h"],
            model=fields["m"],
            fingerprint=fields["p"],
            tokens=TokenCounts(prompt=prompt, completion=completion),
            segments=dict(fields["seg"]),
            tags=tuple(fields.get("T", ())),
            source=source
            and SemanticSource(similarity=source[0], key=source[1], calibration=source[2]),
            encryption=fields.get("x"),
        )
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError) as exc:
        if isinstance(exc, EnvelopeError):
            raise
        raise EnvelopeError("header") from exc


def associated_data(header: Header, segment: str) -> bytes:
    """The AES-GCM additional data of an encrypted segment: version, key and tenant (all within the
    header), the whole header and the segment's name.
    """
    return MAGIC + header_json(header) + b"\x00" + segment.encode()


def _require(condition: bool, what: str) -> None:  # noqa: FBT001 - reads as a sentence
    if not condition:
        raise EnvelopeError(what)
