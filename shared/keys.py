"""Keys: the cache key of a request, the keys derived from a deployment's secret, clients' API keys.

One deployment has one secret, which edge and origin share; while it is being replaced, the previous
one is accepted beside it. Each purpose has a key of its own, derived by HKDF (RFC 5869), so that
none tells anything of another. Comparisons take constant time.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from shared.errors import ClientError

DEVELOPMENT_API_KEY = "sk-encore-dev"
"""Accepted in development mode on loopback only; its tenant is `DEVELOPMENT_TENANT`."""
DEVELOPMENT_TENANT = "dev"
LOOPBACK_HOSTS = ("127.0.0.1", "::1", "localhost")
MIN_SECRET_CHARACTERS = 32
SHORT_KEY_HEX_CHARACTERS = 16
KEY_ID_HEX_CHARACTERS = 32
SHOWN_ID_CHARACTERS = 12
"""What lists and records show of an API key's id."""

_SALT = b"encore"
_RANDOM_BYTES = 15
_CHECK_BYTES = 15
_TAG_BYTES = 6
_TENANT_PATTERN = r"[a-z0-9](?:[a-z0-9-]{0,30}[a-z0-9])?"
_TENANT = re.compile(_TENANT_PATTERN)
# 15 bytes are 24 base32 characters without padding and without a hyphen: one reading only.
_API_KEY = re.compile(rf"(sk-encore-({_TENANT_PATTERN})-[a-z2-7]{{24}})-([a-z2-7]{{24}})")


@dataclass(frozen=True, kw_only=True, slots=True)
class KeyRing:
    """The keys derived from one secret, 32 bytes each; `id` is public and names the secret."""

    id: str
    cache: bytes
    api: bytes
    edge: bytes
    encryption: bytes
    tag: bytes

    def __repr__(self) -> str:
        return f"KeyRing(id={self.id!r})"


@dataclass(frozen=True, kw_only=True, slots=True)
class KeyRings:
    """The rings that count: what is made is made with `current`, what is read may be of both."""

    current: KeyRing
    previous: KeyRing | None = None

    def __post_init__(self) -> None:
        if self.previous is not None and self.previous.id == self.current.id:
            raise ValueError("the previous secret is the current one; remove it")

    def __iter__(self) -> Iterator[KeyRing]:
        yield self.current
        if self.previous is not None:
            yield self.previous

    def by_id(self, ring_id: str) -> KeyRing | None:
        """The ring of an id, or None for a secret that does not count (any more)."""
        return next((ring for ring in self if ring.id == ring_id), None)


@dataclass(frozen=True, kw_only=True, slots=True)
class Client:
    """Who showed an API key that we made. `key_id` is None for the development key."""

    tenant: str
    key_id: str | None


def check_secret(secret: str) -> None:
    """Raise ValueError, which quotes nothing, where a secret is not fit to be a deployment's."""
    if len(secret) < MIN_SECRET_CHARACTERS:
        raise ValueError(
            f"{len(secret)} characters are too few, at least {MIN_SECRET_CHARACTERS} are needed; "
            "`openssl rand -hex 32` makes one"
        )
    if secret != secret.strip() or not secret.isprintable():
        # A stray newline would make origin and edge disagree about every key.
        raise ValueError("it has white space around it or unprintable characters; remove them")


def key_ring(secret: str) -> KeyRing:
    """Derive every key from the deployment's secret. Raises ValueError where it is not fit."""
    check_secret(secret)
    extracted = hkdf_extract(_SALT, secret.encode())
    return KeyRing(
        id=hkdf_expand(extracted, b"id").hex()[:8],
        cache=hkdf_expand(extracted, b"cache key"),
        api=hkdf_expand(extracted, b"api key"),
        edge=hkdf_expand(extracted, b"edge to origin"),
        encryption=hkdf_expand(extracted, b"encryption at rest"),
        tag=hkdf_expand(extracted, b"tag"),
    )


def key_rings(secret: str, previous_secret: str | None = None) -> KeyRings:
    """The rings of a deployment. Raises ValueError where a secret is not fit."""
    previous = None if previous_secret is None else key_ring(previous_secret)
    return KeyRings(current=key_ring(secret), previous=previous)


def hkdf_extract(salt: bytes, input_key: bytes) -> bytes:
    """HKDF-Extract of RFC 5869 section 2.2 with SHA-256: a 32-byte pseudorandom key."""
    return hmac.digest(salt, input_key, "sha256")


def hkdf_expand(extracted: bytes, info: bytes) -> bytes:
    """HKDF-Expand of RFC 5869 section 2.3 with SHA-256 and L = 32: the block T(1) is all of it."""
    return hmac.digest(extracted, info + b"\x01", "sha256")


def cache_key(ring: KeyRing, canonical_bytes: bytes) -> str:
    """HMAC-SHA256 of a request's canonical bytes, 64 hex characters.

    A keyed hash: without the secret nobody can test a guessed prompt against it.
    """
    mac = _prepared(ring.cache).copy()
    mac.update(canonical_bytes)
    return mac.hexdigest()


@lru_cache(maxsize=4)
def _prepared(key: bytes) -> hmac.HMAC:
    """An HMAC that has taken its key in, to be copied: half the work of a short message."""
    return hmac.new(key, digestmod="sha256")


def short_key(key: str) -> str:
    """What `Encore-Key` and logs show of a cache key."""
    return key[:SHORT_KEY_HEX_CHARACTERS]


def key_id(api_key: str) -> str:
    """What a control document knows an API key by: 128 bits of its SHA-256, 32 hex characters.

    A plain hash will do, for a key holds 120 random bits.
    """
    return hashlib.sha256(api_key.encode("utf-8", "surrogatepass")).hexdigest()[
        :KEY_ID_HEX_CHARACTERS
    ]


def encryption_key(ring: KeyRing, tenant: str) -> bytes:
    """The AES-256 key of a tenant's entries at rest."""
    return hkdf_expand(ring.encryption, tenant.encode())


def tag_digest(ring: KeyRing, tenant: str, tag: str) -> str:
    """What an entry keeps of a tag: 48 bits of an HMAC of tenant and tag, 12 hex characters.

    A collision purges too much, never too little. The NUL cannot be part of a tenant's name.
    """
    return hmac.digest(ring.tag, f"{tenant}\0{tag}".encode(), "sha256")[:_TAG_BYTES].hex()


def edge_bearer(ring: KeyRing) -> str:
    """What the edge shows the origin to be believed to be the edge."""
    return ring.edge.hex()


def ring_of_edge(rings: KeyRings, presented: str) -> KeyRing | None:
    """The ring of the edge that shows this bearer, None for what is no bearer of ours.

    Constant time; any text is welcome.
    """
    found = None
    for ring in rings:
        if _equal(presented, edge_bearer(ring)):
            found = ring
    return found


def check_tenant(tenant: str) -> str:
    """`tenant` itself if it is a legal name, else ValueError."""
    if _TENANT.fullmatch(tenant) is None:
        raise ValueError(
            "a tenant's name is 1 to 32 lower-case letters, digits and inner hyphens, "
            f"not {tenant[:40]!r}"
        )
    return tenant


def make_api_key(ring: KeyRing, tenant: str, random: bytes) -> str:
    """A client's key, `sk-encore-<tenant>-<random>-<check>`, from 15 bytes the caller drew.

    The check is an HMAC over the rest: a made-up key is rejected without asking anyone.
    """
    check_tenant(tenant)
    if len(random) != _RANDOM_BYTES:
        raise ValueError(f"random needs {_RANDOM_BYTES} bytes, not {len(random)}")
    body = f"sk-encore-{tenant}-{_base32(random)}"
    return f"{body}-{_api_key_check(ring, body)}"


def tenant_of(ring: KeyRing, api_key: str, *, development: bool) -> str | None:
    """The tenant an API key belongs to, or None for a key that is not one of ours.

    `development` is whether the caller runs in development mode and was reached on loopback.
    """
    if development and _equal(api_key, DEVELOPMENT_API_KEY):
        return DEVELOPMENT_TENANT
    parts = _API_KEY.fullmatch(api_key)
    if parts is None:
        return None
    body, tenant, check = parts.groups()
    return tenant if _equal(check, _api_key_check(ring, body)) else None


def authenticate(rings: KeyRings, authorization: str | None, *, development: bool) -> Client:
    """Who shows this `Authorization` header. Raises ClientError 401 that quotes nothing.

    That the key was made here is all this says; whether it still counts is in the control document.
    """
    scheme, _, credentials = (authorization or "").strip().partition(" ")
    api_key = credentials.strip()
    if scheme.lower() != "bearer" or not api_key:
        raise ClientError(
            "You didn't provide an API key. Send it in the Authorization header: "
            "'Authorization: Bearer sk-encore-...'.",
            status=401,
            code="missing_api_key",
        )
    for ring in rings:
        tenant = tenant_of(ring, api_key, development=development)
        if tenant is not None:
            is_development = api_key == DEVELOPMENT_API_KEY
            return Client(tenant=tenant, key_id=None if is_development else key_id(api_key))
    raise unknown_api_key()


def unknown_api_key() -> ClientError:
    """What a key gets that we did not make, or have revoked."""
    return ClientError("The API key is not known here.", status=401, code="invalid_api_key")


def _equal(presented: str, expected: str) -> bool:
    # compare_digest refuses text beyond ASCII, and a header may hold anything, even half a pair.
    return hmac.compare_digest(presented.encode("utf-8", "surrogatepass"), expected.encode())


def _api_key_check(ring: KeyRing, body: str) -> str:
    return _base32(hmac.digest(ring.api, body.encode(), "sha256")[:_CHECK_BYTES])


def _base32(data: bytes) -> str:
    return base64.b32encode(data).decode().lower()
