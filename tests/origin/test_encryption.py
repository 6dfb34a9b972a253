"""Encryption at rest: its golden vectors, what it binds, and what damage costs."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st

from origin.encryption import (
    NONCE_BYTES,
    EncryptionError,
    FlightCipher,
    open_segment,
    seal,
    unsealed,
)
from shared.compression import compress
from shared.envelope import (
    SEGMENT_JSON,
    SEGMENT_SSE,
    Envelope,
    EnvelopeError,
    Header,
    decode_header,
    encode,
)
from shared.keys import encryption_key, key_ring, key_rings
from tests.vectors.runner import FOLDER

SECRET = "a secret of the tests, long enough"
OTHER_SECRET = "another secret of the tests, also long"
RINGS = key_rings(SECRET)
VECTORS = json.loads((FOLDER / "encryption.json").read_text("utf-8"))


def entry(
    *, json_text: bytes = b'{"a":1}', sse: bytes = b"data: x\n\n", **changes: Any
) -> Envelope:
    """An entry of two segments, not sealed."""
    segments = {SEGMENT_JSON: compress(json_text), SEGMENT_SSE: compress(sse)}
    fields: dict[str, Any] = {
        "key": "a" * 64,
        "tenant": "acme",
        "generation_started_ms": 1,
        "created_ms": 2,
        "fresh_until_ms": 3,
        "stale_until_ms": 4,
        "error_until_ms": 5,
        "etag": "e",
        "model": "m",
        "fingerprint": "f",
        "tags": ("0123456789ab",),
        "segments": {name: len(data) for name, data in segments.items()},
    }
    return Envelope(header=Header(**(fields | changes)), payload=b"".join(segments.values()))


SEALED = seal(entry(), RINGS.current)


@pytest.mark.parametrize("case", VECTORS, ids=[case["name"] for case in VECTORS])
def test_golden_vectors(case: dict[str, Any]) -> None:
    """What `cryptography` makes of the inputs is what stands in the file, and opens again."""
    given_, derived = case["input"], case["expected"]
    cipher = AESGCM(bytes.fromhex(derived["key"]))
    nonce, member = bytes.fromhex(given_["nonce"]), base64.b64decode(given_["gzip"])
    data = bytes.fromhex(derived["associated_data"])
    sealed = base64.b64decode(given_["sealed"])
    assert nonce + cipher.encrypt(nonce, member, data) == sealed
    header = decode_header(given_["header"])
    offset, length = header.segment_range(given_["segment"]) or (0, 0)
    payload = bytearray(sum(header.segments.values()))
    payload[offset : offset + length] = sealed
    envelope = Envelope(header=header, payload=bytes(payload))
    assert open_segment(key_rings(given_["secret"]), envelope, given_["segment"]) == member


@given(json_text=st.binary(max_size=300), sse=st.binary(max_size=300))
def test_what_is_sealed_opens_again(json_text: bytes, sse: bytes) -> None:
    """Segment by segment and as a whole, whatever it holds."""
    plain = entry(json_text=json_text, sse=sse)
    sealed = seal(plain, RINGS.current)
    for name in plain.header.segments:
        assert open_segment(RINGS, sealed, name) == plain.segment(name)
    assert unsealed(RINGS, sealed) == plain


def test_sealed_says_by_which_secret_and_how_long() -> None:
    """The header has the id of the ring and the lengths as stored."""
    plain = entry()
    assert SEALED.header.encryption == RINGS.current.id
    assert SEALED.header == replace(
        plain.header,
        encryption=RINGS.current.id,
        segments={name: length + 28 for name, length in plain.header.segments.items()},
    )


def test_what_is_not_there_is_none() -> None:
    """As with a segment that is not sealed."""
    assert open_segment(RINGS, SEALED, "sse+usage") is None
    assert open_segment(RINGS, entry(), "sse+usage") is None


def test_nothing_of_the_answer_can_be_read() -> None:
    """Neither as it is nor compressed."""
    text = bytes(range(256))
    sealed = encode(seal(entry(json_text=text), RINGS.current))
    assert text[:16] not in sealed
    assert compress(text)[10:26] not in sealed


def test_no_nonce_is_drawn_twice() -> None:
    """Each segment of each entry has its own."""
    nonces = set()
    for _ in range(50):
        sealed = seal(entry(), RINGS.current)
        nonces |= {(sealed.segment(name) or b"")[:NONCE_BYTES] for name in sealed.header.segments}
    assert len(nonces) == 100


@pytest.mark.parametrize("position", range(SEALED.header.segments[SEGMENT_JSON]))
def test_no_changed_byte_opens(position: int) -> None:
    """In nonce, ciphertext and tag alike; the other segment is not touched by it."""
    payload = bytearray(SEALED.payload)
    payload[position] ^= 1
    damaged = replace(SEALED, payload=bytes(payload))
    with pytest.raises(EncryptionError):
        open_segment(RINGS, damaged, SEGMENT_JSON)
    assert open_segment(RINGS, damaged, SEGMENT_SSE) is not None


@pytest.mark.parametrize(
    "change",
    [
        {"key": "b" * 64},
        {"tenant": "other"},
        {"generation_started_ms": 2},
        {"created_ms": 3},
        {"fresh_until_ms": 4},
        {"stale_until_ms": 6},
        {"error_until_ms": 6},
        {"etag": "e2"},
        {"model": "m2"},
        {"answered_by": "m2"},
        {"fingerprint": "f2"},
        {"tags": ()},
    ],
    ids=str,
)
def test_header_is_authenticated(change: dict[str, Any]) -> None:
    """A segment under a header that is not the one it was sealed with does not open."""
    with pytest.raises(EncryptionError):
        open_segment(RINGS, replace(SEALED, header=replace(SEALED.header, **change)), SEGMENT_JSON)


def test_another_tenants_key_does_not_open() -> None:
    """Tenants have keys of their own, beside the header that names them."""
    assert encryption_key(RINGS.current, "acme") != encryption_key(RINGS.current, "other")


def test_segments_do_not_change_places() -> None:
    """Of equal length, under the same header: their names are authenticated."""
    text = b"as long as the other one"
    sealed = seal(entry(json_text=text, sse=text), RINGS.current)
    half = len(sealed.payload) // 2
    swapped = replace(sealed, payload=sealed.payload[half:] + sealed.payload[:half])
    for name in swapped.header.segments:
        with pytest.raises(EncryptionError):
            open_segment(RINGS, swapped, name)


def test_unknown_secret_does_not_open() -> None:
    """One that is not among those that count, and a header that lies about it."""
    with pytest.raises(EncryptionError, match="secret"):
        open_segment(key_rings(OTHER_SECRET), SEALED, SEGMENT_JSON)
    other = key_rings(OTHER_SECRET)
    lying = replace(SEALED, header=replace(SEALED.header, encryption=other.current.id))
    with pytest.raises(EncryptionError):
        open_segment(other, lying, SEGMENT_JSON)


def test_previous_secret_opens_while_it_counts() -> None:
    """By the id in the header, whichever of the two it is."""
    both = key_rings(OTHER_SECRET, SECRET)
    assert unsealed(both, SEALED) == entry()
    assert unsealed(both, seal(entry(), both.current)) == entry()


@pytest.mark.parametrize("length", [1, 11, 12, 27, 28])
def test_too_short_a_segment_does_not_open(length: int) -> None:
    """No room for nonce and tag, or nothing between them."""
    header = replace(entry().header, segments={SEGMENT_JSON: length}, encryption=RINGS.current.id)
    with pytest.raises(EncryptionError):
        open_segment(RINGS, Envelope(header=header, payload=bytes(length)), SEGMENT_JSON)


def test_header_without_room_is_refused() -> None:
    """Sealing makes a header longer; over the limit it is an error, not a cut."""
    with pytest.raises(EnvelopeError):
        seal(entry(model="m" * 850), key_ring(SECRET))


@given(piece=st.binary(max_size=500), number=st.integers(0, 2**63))
def test_piece_of_a_flight_opens_as_its_number_only(piece: bytes, number: int) -> None:
    """It comes back as it was; moved or damaged it does not open."""
    cipher = FlightCipher(RINGS.current, "acme", "k", "f")
    sealed = cipher.seal(number, piece)
    assert cipher.open(number, sealed) == piece
    for moved, changed in ((number + 1, sealed), (number, sealed[:-1]), (number, b"\0" + sealed)):
        with pytest.raises(EncryptionError):
            cipher.open(moved, changed)


@pytest.mark.parametrize(
    ("secret", "tenant", "key", "flight"),
    [
        (OTHER_SECRET, "acme", "k", "f"),
        (SECRET, "other", "k", "f"),
        (SECRET, "acme", "other", "f"),
        (SECRET, "acme", "k", "other"),
    ],
)
def test_piece_of_a_flight_opens_in_that_flight_only(
    secret: str, tenant: str, key: str, flight: str
) -> None:
    """Of that tenant, by that secret."""
    sealed = FlightCipher(RINGS.current, "acme", "k", "f").seal(2, b"piece")
    with pytest.raises(EncryptionError):
        FlightCipher(key_ring(secret), tenant, key, flight).open(2, sealed)
