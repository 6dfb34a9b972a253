"""Encryption at rest: the segments of an entry, sealed with a key of its tenant's own.

AES-256-GCM (NIST SP 800-38D) in the format of `shared.envelope`'s fifth invariant. The header stays
readable, for a cache decides by it, and is authenticated with every segment: a segment put under
another header, key, tenant or name does not open.

A nonce is 96 random bits. One key must not draw more than 2**32 of them; a tenant that stores a
hundred entries a second gets there after five months, long after which its secret should be new.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from shared.envelope import Envelope, EnvelopeError, associated_data
from shared.keys import KeyRing, KeyRings, encryption_key, hkdf_expand

NONCE_BYTES = 12
TAG_BYTES = 16


class EncryptionError(EnvelopeError):
    """A segment that does not open: an unknown key, or bytes that are not what was sealed."""


def seal(
    envelope: Envelope, ring: KeyRing, *, random: Callable[[int], bytes] = os.urandom
) -> Envelope:
    """The envelope with every segment encrypted. `random` draws the nonces.

    Raises EnvelopeError where the header has no room for it.
    """
    header = replace(
        envelope.header,
        segments={
            name: NONCE_BYTES + length + TAG_BYTES
            for name, length in envelope.header.segments.items()
        },
        encryption=ring.id,
    )
    cipher = AESGCM(encryption_key(ring, header.tenant))
    pieces: list[bytes] = []
    for name in header.segments:
        nonce = random(NONCE_BYTES)
        pieces += (
            nonce,
            cipher.encrypt(nonce, envelope.segment(name) or b"", associated_data(header, name)),
        )
    return Envelope(header=header, payload=b"".join(pieces))


def open_segment(rings: KeyRings, envelope: Envelope, name: str) -> bytes | None:
    """A segment's gzip bytes, opened where it is sealed; None where there is no such segment.

    Raises EncryptionError.
    """
    header, segment = envelope.header, envelope.segment(name)
    if segment is None or header.encryption is None:
        return segment
    ring = rings.by_id(header.encryption)
    if ring is None:
        raise EncryptionError("sealed under a secret that does not count")
    if len(segment) < NONCE_BYTES + TAG_BYTES:
        raise EncryptionError("too short to be sealed")
    cipher = AESGCM(encryption_key(ring, header.tenant))
    nonce, sealed = segment[:NONCE_BYTES], segment[NONCE_BYTES:]
    try:
        return cipher.decrypt(nonce, sealed, associated_data(header, name))
    except InvalidTag as exc:
        raise EncryptionError("does not open") from exc


def unsealed(rings: KeyRings, envelope: Envelope) -> Envelope:
    """The envelope with every segment opened. Raises EncryptionError."""
    if envelope.header.encryption is None:
        return envelope
    opened = {name: open_segment(rings, envelope, name) or b"" for name in envelope.header.segments}
    header = replace(
        envelope.header,
        segments={name: len(segment) for name, segment in opened.items()},
        encryption=None,
    )
    return Envelope(header=header, payload=b"".join(opened.values()))


def seal_bytes(ring: KeyRing, tenant: str, about: bytes, plain: bytes) -> bytes:
    """Bytes that are no entry, sealed: the ring's id, a nonce, then what opens only for `about`."""
    cipher, nonce = AESGCM(encryption_key(ring, tenant)), os.urandom(NONCE_BYTES)
    return ring.id.encode() + b" " + nonce + cipher.encrypt(nonce, plain, about)


def open_bytes(rings: KeyRings, tenant: str, about: bytes, sealed: bytes) -> bytes:
    """What `seal_bytes` sealed. Raises EncryptionError."""
    name, _, rest = sealed.partition(b" ")
    ring = rings.by_id(name.decode("ascii", "replace"))
    if ring is None:
        raise EncryptionError("sealed under a secret that does not count")
    try:
        cipher = AESGCM(encryption_key(ring, tenant))
        return cipher.decrypt(rest[:NONCE_BYTES], rest[NONCE_BYTES:], about)
    except (InvalidTag, ValueError) as exc:
        raise EncryptionError("does not open") from exc


class FlightCipher:
    """AES-256-GCM for the numbered pieces of one flight, which live for seconds.

    Its key is derived for this flight alone, so that a piece's number can be the nonce. `flight` is
    a random name; a number must not be used for two pieces.
    """

    def __init__(self, ring: KeyRing, tenant: str, key: str, flight: str) -> None:
        self._associated = f"flight {key} {flight}".encode()
        self._cipher = AESGCM(hkdf_expand(encryption_key(ring, tenant), self._associated))

    def seal(self, number: int, piece: bytes) -> bytes:
        """The piece, encrypted."""
        return self._cipher.encrypt(number.to_bytes(NONCE_BYTES, "big"), piece, self._associated)

    def open(self, number: int, sealed: bytes) -> bytes:
        """The piece. Raises EncryptionError."""
        try:
            return self._cipher.decrypt(
                number.to_bytes(NONCE_BYTES, "big"), sealed, self._associated
            )
        except InvalidTag as exc:
            raise EncryptionError("does not open") from exc
