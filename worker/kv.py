"""Entries in Workers KV: header in the metadata, segments in the value.

An outage raises `runtime.PlatformError`; it never looks like a miss. What cannot be decoded is a
miss that says so. Limits are the vendor's: https://developers.cloudflare.com/kv/platform/limits/
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import runtime

from shared.envelope import EnvelopeError, Header, associated_data, decode_header, header_json
from shared.keys import KeyRings, encryption_key

CACHE_TTL_S = 60
"""How long a location may answer from its own cache: stays within the delay KV has anyway."""
MAX_VALUE_BYTES = 25 * 1024 * 1024


class UndecodableError(Exception):
    """What is stored under a key is not a readable entry of this key. To be treated as a miss."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredEntry:
    """A header, and a JavaScript ArrayBuffer whose bytes from `start` are the segments.

    Python never reads those.
    """

    header: Header
    buffer: Any
    start: int = 0

    def segment(self, name: str) -> Any | None:
        """A view of one segment's bytes, or None where the entry has none of that name."""
        place = self.header.segment_range(name)
        return None if place is None else runtime.view(self.buffer, self.start + place[0], place[1])

    def segments(self) -> Any:
        """A view of all segments' bytes."""
        return runtime.view(self.buffer, self.start, sum(self.header.segments.values()))

    async def opened(self, name: str, keys: KeyRings) -> Any | None:
        """A sealed segment, opened by the platform. Raises UndecodableError where it does not open.

        The format is the fifth invariant of `shared.envelope`.
        """
        sealed = self.segment(name)
        if sealed is None:
            return None
        header = self.header
        ring = keys.by_id(header.encryption or "")
        if ring is None:
            raise UndecodableError("sealed under a secret that does not count")
        try:
            return await runtime.decrypt(
                encryption_key(ring, header.tenant), sealed, associated_data(header, name)
            )
        except runtime.PlatformError as exc:
            raise UndecodableError(str(exc)) from exc


def is_oversized(header: Header) -> bool:
    """Whether the entry is larger than a value in KV may be."""
    return sum(header.segments.values()) > MAX_VALUE_BYTES


class EntryStore:
    """The entries of one KV namespace."""

    def __init__(self, namespace: Any) -> None:
        self._kv = namespace

    async def get(self, tenant: str, key: str) -> StoredEntry | None:
        """Read the entry of `key`, or None. Raises PlatformError and UndecodableError."""
        found = await runtime.kv_get(self._kv, _name(tenant, key), CACHE_TTL_S)
        if found is None:
            return None
        buffer, metadata = found
        try:
            header = decode_header(metadata)
        except EnvelopeError as exc:
            raise UndecodableError(str(exc)) from exc
        if header.key != key or header.tenant != tenant:
            raise UndecodableError("another key's entry")
        if buffer.byteLength != sum(header.segments.values()):
            raise UndecodableError("truncated")
        return StoredEntry(header=header, buffer=buffer)

    async def put(self, entry: StoredEntry) -> None:
        """Store an entry until it expires: absolute, whatever the copy's age.

        Raises PlatformError.
        """
        header = entry.header
        await runtime.kv_put(
            self._kv,
            _name(header.tenant, header.key),
            entry.segments(),
            header_json(header).decode(),
            -(-header.expires_ms // 1000),
        )


def _name(tenant: str, key: str) -> str:
    return f"e:{tenant}:{key}"
