"""Keys: the cache key of a request, the keys derived from a deployment's secret, clients' API keys.

One deployment has one secret, which edge and origin share. Each purpose has a key of its own, derived
by HKDF (RFC 5869), so that none tells anything of another. Comparisons take constant time.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from dataclasses import dataclass

from shared.canonical import canonical as canonical
from shared.errors import ClientError

DEVELOPMENT_API_KEY = "sk-encore-dev"
"""Accepted in development mode on loopback only; its tenant is `DEVELOPMENT_TENANT`."""
DEVELOPMENT_TENANT = "dev"
MIN_SECRET_CHARACTERS = 32

_API_KEY_PREFIX = "sk-encore-"
_TENANT = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,30}[a-z0-9])?", re.ASCII)
_RANDOM_BYTES = 15
_CHECK_BYTES = 15


@dataclass(frozen=True, kw_only=True, slots=True)
class KeyRing:
    """The derived keys of one deployment secret; 32 bytes each, `id` is public and names the secret."""

    id: str
    cache: bytes
    api: bytes
    edge: bytes
    encryption: bytes

    def __repr__(self) -> str:
        return f"KeyRing(id={self.id!r})"


def key_ring(secret: str) -> KeyRing:
    """Derive every key from the deployment's secret. Raises ValueError where it is too short."""
    if len(secret) < MIN_SECRET_CHARACTERS:
        raise ValueError(f"the secret needs at least {MIN_SECRET_CHARACTERS} characters")
    extracted = hmac.digest(b"encore", secret.encode(), "sha256")

    def derive(purpose: str) -> bytes:
        return hmac.digest(extracted, purpose.encode() + b"\x01", "sha256")

    return KeyRing(
        id=derive("id").hex()[:8],
        cache=derive("cache key"),
        api=derive("api key"),
        edge=derive("edge to origin"),
        encryption=derive("encryption at rest"),
    )


def cache_key(ring: KeyRing, canonical_bytes: bytes) -> str:
    """HMAC-SHA256 of a request's canonical bytes, 64 hex characters.

    A keyed hash: without the secret nobody can test a guessed prompt against it.
    """
    return hmac.new(ring.cache, canonical_bytes, hashlib.sha256).hexdigest()


def short_key(key: str) -> str:
    """What `Encore-Key` and logs show of a cache key."""
    return key[:16]


def edge_bearer(ring: KeyRing) -> str:
    """What the edge shows the origin to be believed to be the edge."""
    return ring.edge.hex()


def is_edge_bearer(ring: KeyRing, presented: str) -> bool:
    """Whether `presented` is the edge's bearer. Constant time."""
    return hmac.compare_digest(presented.encode(), edge_bearer(ring).encode())


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
    body = f"{_API_KEY_PREFIX}{tenant}-{_base32(random)}"
    return f"{body}-{_api_key_check(ring, body)}"


def tenant_of(ring: KeyRing, api_key: str, *, development: bool) -> str | None:
    """The tenant an API key belongs to, or None for a key that is not one of ours.

    `development` is whether the caller runs in development mode and was reached on loopback.
    """
    if development and hmac.compare_digest(api_key.encode(), DEVELOPMENT_API_KEY.encode()):
        return DEVELOPMENT_TENANT
    body, _, check = api_key.rpartition("-")
    if not body.startswith(_API_KEY_PREFIX):
        return None
    if not hmac.compare_digest(check.encode(), _api_key_check(ring, body).encode()):
        return None
    tenant, _, _random = body[len(_API_KEY_PREFIX) :].rpartition("-")
    return tenant if _TENANT.fullmatch(tenant) else None


def authenticate(ring: KeyRing, authorization: str | None, *, development: bool) -> str:
    """The tenant of an `Authorization` header's value. Raises ClientError 401 that quotes nothing."""
    scheme, _, credentials = (authorization or "").partition(" ")
    if scheme.lower() != "bearer" or not credentials.strip():
        raise ClientError(
            "You didn't provide an API key. Send it in the Authorization header: "
            "'Authorization: Bearer sk-encore-...'.",
            status=401,
            code="missing_api_key",
        )
    tenant = tenant_of(ring, credentials.strip(), development=development)
    if tenant is None:
        raise ClientError("The API key is not known here.", status=401, code="invalid_api_key")
    return tenant


def _api_key_check(ring: KeyRing, body: str) -> str:
    return _base32(hmac.digest(ring.api, body.encode("utf-8", "replace"), "sha256")[:_CHECK_BYTES])


def _base32(data: bytes) -> str:
    return base64.b32encode(data).decode().lower()
