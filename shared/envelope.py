r"""The envelope: how an answer is kept, in Redis, in Workers KV and between origin and edge.

Layout, version 1 (integers big-endian):

    offset 0   4 bytes   magic and version, b"ENC\x01"
    offset 4   4 bytes   CRC-32 of all that follows
    offset 8   4 bytes   length of the header, at most 1,024
    offset 12  …         header, compact JSON in UTF-8
    …          …         segments, one after another, each one complete gzip member (mtime 0)

In Redis and as `application/vnd.encore.entry` the whole is one value. In Workers KV the header is
the metadata (its limit of 1,024 bytes is ours too) and the segments are the value, so that a hit
sends a slice of what KV gave, unread.

Invariants
1. The header says all a cache needs to decide: whose entry, until when, how long each segment is.
2. Times are absolute (milliseconds since the epoch): copying an entry never restarts its life.
3. What cannot be decoded raises `EnvelopeError`; a reader counts it and treats it as a miss.
   Nothing is guessed (a field of a later version could change what the others mean, so unknown
   ones are refused), and nothing in an envelope is ever executed or unpickled.
4. A header survives JavaScript: JSON.parse and JSON.stringify in between change none of its values.
5. An encrypted segment is 12 bytes of nonce, the AES-256-GCM ciphertext of the gzip member and its
   16-byte tag; the additional data is `associated_data`. Lengths in the header are those as stored.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from shared import json_text

MEDIA_TYPE = "application/vnd.encore.entry"
VERSION = 1
MAGIC = b"ENC\x01"
MAX_HEADER_BYTES = 1024
MAX_TAGS = 16
TAG_HEX_CHARACTERS = 12
"""A tag is kept as the first 48 bits of its HMAC: a collision purges too much, never too little."""

SEGMENT_JSON = "json"
SEGMENT_JSON_BASE64 = "json+base64"
"""The answer of an embedding request, its vectors as base64 of little-endian float32."""
SEGMENT_SSE = "sse"
SEGMENT_SSE_USAGE = "sse+usage"
SEGMENTS = frozenset({SEGMENT_JSON, SEGMENT_JSON_BASE64, SEGMENT_SSE, SEGMENT_SSE_USAGE})

_PREFIX_BYTES = 12
MAX_PREFIX_BYTES = _PREFIX_BYTES + MAX_HEADER_BYTES
"""Enough of an envelope for `decode_prefix`."""
_KEY = re.compile(r"[0-9a-f]{64}")
_TAG = re.compile(rf"[0-9a-f]{{{TAG_HEX_CHARACTERS}}}")
# Fit for a quoted header field: visible ASCII without the quotation mark.
_NAME = re.compile(r"[\x21\x23-\x7e]{1,128}")
# What has a UTF-8 form and is not a control character.
_TEXT = re.compile(r"[^\x00-\x1f\x7f\ud800-\udfff]*")


def segment_for(*, stream: bool, include_usage: bool, base64: bool = False) -> str:
    """The segment that answers a request."""
    if not stream:
        return SEGMENT_JSON_BASE64 if base64 else SEGMENT_JSON
    return SEGMENT_SSE_USAGE if include_usage else SEGMENT_SSE


class EnvelopeError(ValueError):
    """Not an envelope this version can read, or one that cannot be built."""


_read = json_text.reader(EnvelopeError)


@dataclass(frozen=True, kw_only=True, slots=True)
class SemanticSource:
    """An answer promoted from another request's entry by semantic match."""

    similarity: float
    key: str
    calibration: str

    def __post_init__(self) -> None:
        _require(type(self.similarity) is float and 0 < self.similarity <= 1, "similarity")
        _require_match(_KEY, self.key, "source key")
        _require_match(_NAME, self.calibration, "calibration")


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenCounts:
    """Tokens of the generation, as its `usage` said."""

    prompt: int = 0
    completion: int = 0

    def __post_init__(self) -> None:
        _require(_are_integers((self.prompt, self.completion), least=0), "token counts")


@dataclass(frozen=True, kw_only=True, slots=True)
class Header:
    """What an envelope says about itself. Times are milliseconds since the epoch.

    `generation_started_ms` is when the generation began, by the store's clock: a purge at or after
    it kills the entry. `model` is the one that was asked for, `answered_by` the one that the answer
    names, None where that is the same.
    `segments` maps a name to its stored length in bytes, in stored order. `source` is None for an
    answer generated for this very key. `encryption` is the id of the encryption key, or None.
    `origin_only` keeps it out of KV, whoever comes upon it.
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
    tokens: TokenCounts = field(default_factory=TokenCounts)
    answered_by: str | None = None
    tags: tuple[str, ...] = ()
    source: SemanticSource | None = None
    encryption: str | None = None
    origin_only: bool = False

    def __post_init__(self) -> None:
        _require_match(_KEY, self.key, "key")
        _require_match(_NAME, self.tenant, "tenant")
        _require_match(_NAME, self.etag, "etag")
        _require_match(_TEXT, self.model, "model")
        _require_match(_TEXT, self.fingerprint, "fingerprint")
        if self.answered_by is not None:
            _require_match(_TEXT, self.answered_by, "answered by")
        times = (
            self.generation_started_ms,
            self.created_ms,
            self.fresh_until_ms,
            self.stale_until_ms,
            self.error_until_ms,
        )
        _require(_are_integers(times, least=0), "times")
        # By another clock, the first may be anything.
        _require(times[1] <= times[2] <= min(times[3:]), "times")
        names = self.segments.keys()
        _require(SEGMENT_JSON in names and names <= SEGMENTS, "segments")
        _require(_are_integers(self.segments.values(), least=1), "segments")
        _require(len(self.tags) <= MAX_TAGS, "tags")
        for tag in self.tags:
            _require_match(_TAG, tag, "tags")
        if self.encryption is not None:
            _require_match(_NAME, self.encryption, "encryption")
        _require(type(self.origin_only) is bool, "origin only")

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
    data = json_text.dumps(_fields(header))
    if len(data) > MAX_HEADER_BYTES:
        raise EnvelopeError(f"header: {len(data)} bytes, at most {MAX_HEADER_BYTES} fit")
    return data


def encode(envelope: Envelope) -> bytes:
    """The whole envelope as one value. Raises EnvelopeError where the header is too large."""
    header = header_json(envelope.header)
    length = len(header).to_bytes(4, "big")
    checksum = zlib.crc32(envelope.payload, zlib.crc32(header, zlib.crc32(length)))
    return b"".join((MAGIC, checksum.to_bytes(4, "big"), length, header, envelope.payload))


def decode(data: bytes) -> Envelope:
    """Read a whole envelope. Raises EnvelopeError."""
    _require(data[:4] == MAGIC, "magic")
    _require(zlib.crc32(memoryview(data)[8:]) == int.from_bytes(data[4:8], "big"), "checksum")
    header, start = decode_prefix(data)
    return Envelope(header=header, payload=data[start:])


def decode_prefix(data: bytes) -> tuple[Header, int]:
    """The header and the offset of the first segment, from the first `MAX_PREFIX_BYTES` or more.

    Lets the edge read the header alone; the checksum stays unchecked. Raises EnvelopeError.
    """
    _require(data[:4] == MAGIC, "magic")
    length = int.from_bytes(data[8:_PREFIX_BYTES], "big")
    _require(0 < length <= MAX_HEADER_BYTES, "header length")
    end = _PREFIX_BYTES + length
    _require(len(data) >= end, "header")
    return decode_header(data[_PREFIX_BYTES:end]), end


@lru_cache(maxsize=1024)
def decode_header(text: bytes | str) -> Header:
    """Read a header from its JSON (KV metadata, or within an envelope). Raises EnvelopeError.

    Those read last are remembered, some 2 kB each: what is hit is mostly what was hit before.
    """
    try:
        if isinstance(text, bytes):
            text = text.decode()  # json alone would also read UTF-16, UTF-32 and half pairs
        _require(len(text) <= MAX_HEADER_BYTES, "header length")
        fields = _read(text)
        version = fields["v"]
        _require(type(version) is int and version == VERSION, "version")
        prompt, completion = fields["u"]
        header = Header(
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
            answered_by=fields.get("a"),
            tags=tuple(fields.get("T", ())),
            source=_source(fields["o"]) if "o" in fields else None,
            encryption=fields.get("x"),
            origin_only=fields.get("r", False),
        )
    except EnvelopeError:
        raise
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError) as exc:
        raise EnvelopeError("header") from exc
    # Repeated segments, fields this version does not know, null for absent: all end here.
    _require(_fields(header) == fields, "header")
    return header


def associated_data(header: Header, segment: str) -> bytes:
    """The AES-GCM additional data of an encrypted segment.

    The whole header, version, key and tenant within it, and the segment's name.
    """
    return MAGIC + header_json(header) + b"\x00" + segment.encode()


def _fields(header: Header) -> dict[str, Any]:
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
    if header.answered_by is not None:
        fields["a"] = header.answered_by
    if header.tags:
        fields["T"] = list(header.tags)
    if header.source is not None:
        fields["o"] = [header.source.similarity, header.source.key, header.source.calibration]
    if header.encryption is not None:
        fields["x"] = header.encryption
    if header.origin_only:
        fields["r"] = True
    return fields


def _source(value: Any) -> SemanticSource:
    similarity, key, calibration = value
    if type(similarity) is int and similarity == 1:
        similarity = 1.0  # as JavaScript writes it
    return SemanticSource(similarity=similarity, key=key, calibration=calibration)


def _are_integers(values: Iterable[Any], *, least: int) -> bool:
    return all(type(value) is int and least <= value <= json_text.MAX_INTEGER for value in values)


def _require_match(pattern: re.Pattern[str], value: Any, what: str) -> None:
    if type(value) is not str or pattern.fullmatch(value) is None:
        raise EnvelopeError(what)


def _require(condition: bool, what: str) -> None:  # noqa: FBT001 - reads as a sentence
    if not condition:
        raise EnvelopeError(what)
