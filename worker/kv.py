"""Entries in Workers KV: header in the metadata, segments in the value.

An outage raises `runtime.PlatformError`; it never looks like a miss. What cannot be decoded is a
miss that says so. Limits are the vendor's: https://developers.cloudflare.com/kv/platform/limits/
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import runtime

from shared.envelope import EnvelopeError, Header, decode_header, header_json

CACHE_TTL_S = 60
"""How long a location may answer from its own cache: stays within the delay KV has anyway."""
MAX_VALUE_BYTES = 25 * 1024 * 1024
MIN_LIFE_S = 60
"""KV refuses an expiry nearer than this."""
MAX_REMEMBERED_PUTS = 1000
MAX_REMEMBERED_HEADERS = 256
"""Headers of the entries an isolate reads again and again: some 2 kB each."""


_decode_header = lru_cache(MAX_REMEMBERED_HEADERS)(decode_header)


class UndecodableError(Exception):
    """The value stored under a key is not an entry of this key. To be treated as a miss."""


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


class EntryStore:
    """The entries of one KV namespace, and what this isolate has put there lately.

    A write costs ten times a read, and a location may go on missing an entry for `CACHE_TTL_S`
    after it was written: without a memory each of those misses would write it again.
    """

    def __init__(self, namespace: Any) -> None:
        self._kv = namespace
        self._puts: dict[str, tuple[int, int]] = {}
        """Name in KV → (when the entry was made, when it was put), in ms, in the order of puts."""

    async def get(self, tenant: str, key: str) -> StoredEntry | None:
        """Read the entry of `key`, or None. Raises PlatformError and UndecodableError."""
        found = await runtime.kv_get(self._kv, _name(tenant, key), CACHE_TTL_S)
        if found is None:
            return None
        buffer, metadata = found
        try:
            header = _decode_header(metadata)
        except EnvelopeError as exc:
            raise UndecodableError(str(exc)) from exc
        if header.key != key or header.tenant != tenant:
            raise UndecodableError("another key's entry")
        if buffer.byteLength != sum(header.segments.values()):
            raise UndecodableError("truncated")
        return StoredEntry(header=header, buffer=buffer)

    def claim(self, header: Header, now_ms: int) -> bool:
        """Whether the caller is to put this entry now.

        Not where KV would refuse it, it would not live long enough to be of use, or this isolate
        has put it, or a later one of its key, within `CACHE_TTL_S`.
        """
        size_bytes = sum(header.segments.values())
        if header.expires_ms - now_ms < MIN_LIFE_S * 1000 or size_bytes > MAX_VALUE_BYTES:
            return False
        name = _name(header.tenant, header.key)
        created_ms, put_ms = self._puts.pop(name, (-1, 0))
        if created_ms >= header.created_ms and now_ms - put_ms < CACHE_TTL_S * 1000:
            self._puts[name] = created_ms, put_ms
            return False
        self._puts[name] = header.created_ms, now_ms
        if len(self._puts) > MAX_REMEMBERED_PUTS:
            del self._puts[next(iter(self._puts))]
        return True

    async def put(self, entry: StoredEntry) -> None:
        """Store a claimed entry until it expires: absolute, whatever the copy's age.

        Raises PlatformError; the entry may then be claimed again.
        """
        header = entry.header
        name = _name(header.tenant, header.key)
        try:
            await runtime.kv_put(
                self._kv,
                name,
                entry.segments(),
                header_json(header).decode(),
                -(-header.expires_ms // 1000),
            )
        except runtime.PlatformError:
            self._puts.pop(name, None)
            raise


def _name(tenant: str, key: str) -> str:
    return f"e:{tenant}:{key}"
