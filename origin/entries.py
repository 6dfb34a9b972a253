"""From an answer to the entry that is kept of it.

Segments are made once, here, when the answer is complete; every later hit sends them as they are.
"""

from __future__ import annotations

import hashlib
import logging
from typing import Any

from origin.vectors import with_base64
from shared import json_text
from shared.compression import compress
from shared.envelope import (
    SEGMENT_JSON,
    SEGMENT_JSON_BASE64,
    SEGMENT_SSE,
    SEGMENT_SSE_USAGE,
    Envelope,
    EnvelopeError,
    Header,
    TokenCounts,
    decode,
    header_json,
)
from shared.keys import short_key
from shared.requests import Endpoint
from shared.streams import event_stream

_ETAG_HEX_CHARACTERS = 16
log = logging.getLogger(__name__)


def build_entry(
    endpoint: Endpoint,
    answer: dict[str, Any],
    *,
    key: str,
    tenant: str,
    model: str,
    generation_started_ms: int,
    created_ms: int,
    expiry_ms: tuple[int, int, int],
    fingerprint: str,
    tags: tuple[str, ...] = (),
    in_both_encodings: bool = False,
    origin_only: bool = False,
) -> Envelope:
    """The envelope of a storable answer, not encrypted. `model` is the one that was asked for.

    `in_both_encodings` is for the vector of one input, as `origin.vectors` has it.
    `expiry_ms` is (fresh-until, stale-until, error-until) as `shared.freshness.expiry` gives it,
    `tags` are tag digests. Raises EnvelopeError where the header would be too large (a long model
    name with many tags, say).
    """
    plain = json_text.dumps(answer)
    segments = {SEGMENT_JSON: compress(plain)}
    if in_both_encodings:
        segments = {
            SEGMENT_JSON: compress(plain, repetitive=False),
            SEGMENT_JSON_BASE64: compress(json_text.dumps(with_base64(answer)), repetitive=False),
        }
    if endpoint is not Endpoint.EMBEDDINGS:
        segments[SEGMENT_SSE] = compress(event_stream(endpoint, answer, include_usage=False))
        segments[SEGMENT_SSE_USAGE] = compress(event_stream(endpoint, answer, include_usage=True))
    answered_by = answer.get("model")
    named_otherwise = type(answered_by) is str and answered_by != model
    header = Header(
        key=key,
        tenant=tenant,
        generation_started_ms=generation_started_ms,
        created_ms=created_ms,
        fresh_until_ms=expiry_ms[0],
        stale_until_ms=expiry_ms[1],
        error_until_ms=expiry_ms[2],
        etag=hashlib.sha256(plain).hexdigest()[:_ETAG_HEX_CHARACTERS],
        model=model,
        answered_by=answered_by if named_otherwise else None,
        fingerprint=fingerprint,
        tokens=token_counts(answer),
        tags=tags,
        segments={name: len(data) for name, data in segments.items()},
        origin_only=origin_only,
    )
    header_json(header)  # too large, it would fail when the answer is stored, or told
    return Envelope(header=header, payload=b"".join(segments.values()))


def entry_to_be(
    *,
    key: str,
    tenant: str,
    model: str,
    generation_started_ms: int,
    fingerprint: str,
    tags: tuple[str, ...],
    encryption: str | None,
) -> Header:
    """What is known of an entry's header when its generation starts: enough to ask about cut-offs.

    Raises EnvelopeError for a model whose name no header holds.
    """
    header = Header(
        key=key,
        tenant=tenant,
        generation_started_ms=generation_started_ms,
        created_ms=generation_started_ms,
        fresh_until_ms=generation_started_ms,
        stale_until_ms=generation_started_ms,
        error_until_ms=generation_started_ms,
        etag="none",
        model=model,
        fingerprint=fingerprint,
        segments={SEGMENT_JSON: 1},
        tags=tags,
        encryption=encryption,
    )
    header_json(header)  # what other processes are told of it
    return header


def token_counts(answer: dict[str, Any]) -> TokenCounts:
    """The tokens that an answer says it took."""
    usage = answer.get("usage")
    return TokenCounts(
        prompt=_count(usage, "prompt_tokens"), completion=_count(usage, "completion_tokens")
    )


def _count(usage: Any, name: str) -> int:
    """A count of an upstream's usage; 0 where it says none that makes sense."""
    value = usage.get(name) if isinstance(usage, dict) else None
    return value if type(value) is int and value >= 0 else 0


def decoded(encoded: bytes, key: str) -> Envelope | None:
    """The envelope under `key`, None for what is none of it: damage is a miss, never an error."""
    try:
        envelope = decode(encoded)
    except EnvelopeError as exc:
        log.warning("L1: undecodable entry %s: %s", short_key(key), exc)
        return None
    return envelope if envelope.header.key == key else None
