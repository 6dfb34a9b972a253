"""Entries of the in-process index in Redis: how they are named and written, and who has changed.

Key layout, DIGEST being of the encoder's identity:
- `PREFIX:semantic:DIGEST:{TENANT}:KEY`, an entry with its end: one line of JSON, then its vector,
  little-endian float32.
- `PREFIX:semantic:DIGEST`, a stream of what has changed, without an end, the last 10,000 or so:
  `key` and `tenant` of an entry that was written or removed, `tenant` alone (or nothing) of which
  everything was, and `by`, the process.

An event says where to look, not what is there: whoever reads it reads the entry, or finds that it
is gone. So all who follow come to the same, in whatever order they hear of it. It is written behind
what it tells of.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import AsyncGenerator, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from redis.exceptions import ResponseError

from origin.semantic.index import Entry
from origin.stores.redis_store import RedisClient, outages_told, stream_rows

STREAM_LENGTH = 10_000
EVENTS_A_READ = 500
ENTRIES_A_READ = 200
"""Of some 2 kB each."""
_UNIT = 0.01
"""How far from 1 the square of a vector's length may be."""

Name = tuple[str | None, str | None]
"""(tenant, key) of an entry; (tenant, None): all of a tenant; (None, None): all."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Change:
    """What is to be written: an entry put under its name, or whatever has the name removed."""

    name: Name
    entry: Entry | None = None


def identity_digest(identity: str) -> str:
    """What names in Redis have of an encoder's identity: 16 hex characters."""
    return hashlib.sha256(identity.encode()).hexdigest()[:16]


class RedisEntries:
    """Entries and stream on a `redis.asyncio` client. Every method raises StoreError."""

    def __init__(
        self,
        client: RedisClient,
        *,
        identity: str,
        dims: int,
        prefix: str = "encore",
        stream_length: int = STREAM_LENGTH,
    ) -> None:
        self._client = client
        self._dims = dims
        self.stream = f"{prefix}:semantic:{identity_digest(identity)}"
        self._stream_length = stream_length
        self._own = secrets.token_hex(8)
        """Who tells of what this process does."""

    async def write(self, changes: Sequence[Change]) -> None:
        """Make changes, in one round trip.

        Where everything is removed this is the only change, and takes more of them.
        """
        with outages_told():
            pipeline = self._client.pipeline(transaction=False)
            for change in changes:
                tenant, key = change.name
                if key is None:
                    await self._clear(tenant)
                elif change.entry is None:
                    pipeline.execute_command("UNLINK", self._redis_name(tenant, key))
                else:
                    end_ms = max(1, change.entry.expires_ms)
                    pipeline.set(self._redis_name(tenant, key), _encoded(change.entry), pxat=end_ms)
            await pipeline.execute()

    async def tell(self, changes: Sequence[Change]) -> None:
        """Tell of changes that are made, in one round trip."""
        with outages_told():
            pipeline = self._client.pipeline(transaction=False)
            for change in changes:
                tenant, key = change.name
                event: dict[Any, Any] = {"tenant": tenant or "", "key": key or "", "by": self._own}
                pipeline.xadd(self.stream, event, maxlen=self._stream_length)
            await pipeline.execute()

    async def position(self) -> str:
        """The stream's last id. There is one: where the stream is new, something is said."""
        with outages_told():
            last = await self._ids()
            if last is None:
                said: Any = await self._client.xadd(self.stream, {"new": ""})
                return cast("str", said.decode())
            return last[1]

    async def changed(self, position: str, wait_s: float) -> tuple[list[Name], str] | None:
        """(names, position) of what has changed since a position; waits for it `wait_s`.

        None where that cannot be said: Redis has lost the stream, or what came next in it.
        """
        with outages_told():
            found: Any = await self._client.xread(
                {self.stream: position}, count=EVENTS_A_READ, block=round(wait_s * 1000)
            )
            ids = await self._ids()
            if (
                ids is None
                or _number(ids[0]) > _number(position)
                or _number(ids[1]) < _number(position)
            ):
                return None
            rows = stream_rows(found)
            names = [_changed(fields) for _, fields in rows if not self._is_done(fields)]
            return names, rows[-1][0].decode() if rows else position

    async def read(self, names: Sequence[Name]) -> list[Entry | None]:
        """The entries of these names; None where there is none, or one that cannot be read."""
        pipeline = self._client.pipeline(transaction=False)
        for name in names:
            pipeline.get(self._redis_name(*name))
        with outages_told():
            values: list[bytes | None] = await pipeline.execute() if names else []
            entries = [value and _decoded(value, self._dims) for value in values]
        return [
            entry if entry and (entry.tenant, entry.key) == name else None
            for name, entry in zip(names, entries, strict=True)
        ]

    async def names(self, tenant: str | None = None) -> AsyncGenerator[list[Name], None]:
        """The names of all entries, or of a tenant's, some at a time, perhaps more than once."""
        start = len(self.stream) + 1
        async for found in self._scan(tenant):
            names: list[Name] = []
            for each in found:
                owner, _, key = each[start:].decode(errors="replace").partition(":")
                names.append((owner.strip("{}"), key))
            yield names

    async def close(self) -> None:
        """Free connections."""
        with outages_told():
            await self._client.aclose()

    async def _clear(self, tenant: str | None) -> None:
        async for found in self._scan(tenant):
            pipeline = self._client.pipeline(transaction=False)
            for each in found:
                pipeline.execute_command("UNLINK", each)
            await pipeline.execute()

    async def _scan(self, tenant: str | None) -> AsyncGenerator[list[bytes], None]:
        async for found in scanned(self._client, self._redis_name(tenant or "*", "*")):
            yield found

    def _is_done(self, fields: dict[bytes, bytes]) -> bool:
        """Of an event that tells nothing, and of this process' own of which everything was removed:
        what it has put in since stays.
        """  # noqa: D205 - one sentence
        by, key = fields.get(b"by"), fields.get(b"key")
        return by is None or (by == self._own.encode() and not key)

    async def _ids(self) -> tuple[str, str] | None:
        """The ids of the stream's first event and of its last; None where there is no stream."""
        try:
            info: Any = await self._client.xinfo_stream(self.stream)
        except ResponseError:
            return None
        last = info["last-generated-id"].decode()
        first = info["first-entry"]
        return (first[0].decode() if first else last), last

    def _redis_name(self, tenant: str | None, key: str | None) -> str:
        return f"{self.stream}:{{{tenant}}}:{key}"


async def scanned(client: RedisClient, pattern: str) -> AsyncGenerator[list[bytes], None]:
    """What is named like that, of every node, some at a time.

    Raises what the client does.
    """
    names: list[bytes] = []
    async for name in client.scan_iter(match=pattern, count=1000):
        names.append(name)
        if len(names) == ENTRIES_A_READ:
            yield names
            names = []
    if names:
        yield names


def _changed(fields: dict[bytes, bytes]) -> Name:
    tenant, key = (fields.get(field, b"").decode(errors="replace") for field in (b"tenant", b"key"))
    return tenant or None, key or None


def _number(event_id: str) -> tuple[int, ...]:
    return tuple(map(int, event_id.split("-")))


def _encoded(entry: Entry) -> bytes:
    head = {
        "tenant": entry.tenant,
        "partition": entry.partition,
        "key": entry.key,
        "form": entry.form,
        "expires_ms": entry.expires_ms,
        "text": entry.text,
    }
    return json.dumps(head).encode() + b"\n" + entry.vector.astype("<f4", copy=False).tobytes()


def _decoded(value: bytes, dims: int) -> Entry | None:
    head, _, numbers = value.partition(b"\n")
    try:
        vector = np.frombuffer(numbers, dtype="<f4").astype(np.float32, copy=False)
        entry = Entry(vector=vector, **json.loads(head))
    except (ValueError, TypeError):
        return None
    kinds: Iterable[object] = (entry.tenant, entry.partition, entry.key, entry.form, entry.text)
    is_whole = all(isinstance(each, str) for each in kinds) and _is_time(entry.expires_ms)
    is_unit = len(vector) == dims and abs(float(vector @ vector) - 1) < _UNIT
    return entry if is_whole and is_unit else None


def _is_time(value: object) -> bool:
    return isinstance(value, int) and 0 <= value < 1 << 63
