"""Entries in Workers KV: header in the metadata, segments in the value.

An outage raises `runtime.PlatformError`; it never looks like a miss. What cannot be decoded is a
miss that says so. Limits are the vendor's: https://developers.cloudflare.com/kv/platform/limits/
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import runtime

from shared.envelope import EnvelopeError, Header, decode_header, header_json

CACHE_TTL_S = 60
"""How long a location may answer from its own cache: stays within the delay KV has anyway."""
MAX_VALUE_BYTES = 25 * 1024 * 1024
MIN_LIFE_S = 60
"""KV refuses an expiry nearer than this."""


class UndecodableError(Exception):
    """The value stored under a key is not an entry of this key. To be treated as a miss."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredEntry:
    """A header and, as a JavaScript Uint8Array that Python never reads, the segments."""

    header: Header
    value: Any

    def segment(self, name: str) -> Any | None:
        """A view of one segment's bytes, or None where the entry has none of that name."""
        place = self.header.segment_range(name)
        return None if place is None else self.value.subarray(place[0], place[0] + place[1])


async def get(kv: Any, tenant: str, key: str) -> StoredEntry | None:
    """Read the entry of `key`, or None. Raises PlatformError and UndecodableError."""
    found = await runtime.kv_get(kv, _name(tenant, key), CACHE_TTL_S)
    if found is None:
        return None
    value, metadata = found
    try:
        header = decode_header(metadata)
    except EnvelopeError as exc:
        raise UndecodableError(str(exc)) from exc
    if header.key != key or header.tenant != tenant:
        raise UndecodableError("another key's entry")
    if value.byteLength != sum(header.segments.values()):
        raise UndecodableError("truncated")
    return StoredEntry(header=header, value=value)


def worth_storing(header: Header, now_ms: int) -> bool:
    """Whether KV would take the entry and it would live long enough to be of use."""
    size_bytes = sum(header.segments.values())
    return header.expires_ms - now_ms >= MIN_LIFE_S * 1000 and size_bytes <= MAX_VALUE_BYTES


async def put(kv: Any, entry: StoredEntry) -> None:
    """Store an entry until it expires, whenever that is: absolute, whatever the copy's age.

    Raises PlatformError.
    """
    header = entry.header
    await runtime.kv_put(
        kv,
        _name(header.tenant, header.key),
        entry.value,
        header_json(header).decode(),
        -(-header.expires_ms // 1000),
    )


def _name(tenant: str, key: str) -> str:
    return f"e:{tenant}:{key}"
