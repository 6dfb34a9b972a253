"""The index in Redis 8 vector sets, for what is too much for one process's memory.

Key layout, DIGEST being of the encoder's identity, the quantisation and the number of links:
- `PREFIX:vectors:DIGEST:{TENANT}:p:PARTITION`, a vector set. Elements are forms, each with the
  attributes `e` (when it is over, Unix ms), `k` (key) and `t` (text). It ends with its last one.
- `PREFIX:vectors:DIGEST:{TENANT}:k:KEY`, partition and form of a key, with the entry's end.

A set a partition, not one a tenant with a filter: a filter that few elements pass has Redis walk
through all others, which took 40 times as long for one of 100 partitions, or give up before it has
found them (`bench/semantic_index.py --filtered`). A set of one element has 3 kB.

Vector sets do not end elements one by one. Searches leave out what is over, and each `add` looks at
some elements at random and removes those: so no more than about 1 / `SAMPLE` of a set is over.

An entry whose `k:KEY` was evicted is not found by `remove`, and stays until its end.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final, Literal, Self

from redis.exceptions import ResponseError

from origin.semantic.index import Candidate, Entry, Vector
from origin.semantic.memory_index import MemoryIndex
from origin.semantic.redis_entries import identity_digest, scanned
from origin.stores.redis_store import RedisClient, outages_told, redis_client

Quantisation = Literal["Q8", "NOQUANT"]
DEFAULT_TIMEOUT_S: Final = 0.25
DEFAULT_MAX_CONNECTIONS: Final = 16
MAX_PRIVATE: Final = 20_000
"""Entries of encrypted tenants, which each process has in memory for itself."""
SAMPLE: Final = 5
"""Elements that each `add` looks at for whether they are over."""
SPARE: Final = 5
"""How many more than wanted a search asks for: some may be over."""
EF: Final = 200
"""How many elements of the graph a search keeps in view; more find more, and take longer."""
BUILD_EF: Final = 100
"""The same while an element is linked: half of Redis' default takes 0.6 of the time, and searches
find as much."""
LINKS: Final = 16

# KEYS: set. ARGV: now, how many elements to look at.
_SWEEP = """
for _, form in ipairs(redis.call('VRANDMEMBER', KEYS[1], ARGV[2])) do
  local is_read, about = pcall(cjson.decode, redis.call('VGETATTR', KEYS[1], form))
  if not is_read or about.e <= tonumber(ARGV[1]) then redis.call('VREM', KEYS[1], form) end
end
"""

# KEYS: set. ARGV: form, key. Another key may have the form by now.
_REMOVE = """
local is_read, about = pcall(cjson.decode, redis.call('VGETATTR', KEYS[1], ARGV[1]))
if is_read and about.k == ARGV[2] then redis.call('VREM', KEYS[1], ARGV[1]) end
"""


async def has_vector_sets(client: RedisClient) -> bool:
    """Whether Redis has them, and permits their use. Raises StoreError."""
    with outages_told():
        try:
            await client.execute_command("VCARD", "encore:vectors")
        except ResponseError:
            return False
    return True


class VectorSetIndex:
    """SemanticIndex on one `redis.asyncio` client, which it owns.

    `quantisation` is Q8 (int8) or NOQUANT (float32: 1.2 kB more an entry of 384 numbers); `ef` is
    that of searches.
    """

    is_exact = False

    def __init__(
        self,
        client: RedisClient,
        *,
        identity: str,
        dims: int,
        prefix: str = "encore",
        quantisation: Quantisation = "Q8",
        ef: int = EF,
        links: int = LINKS,
    ) -> None:
        self.identity = identity
        self._client = client
        self._quantisation = quantisation
        self._ef = ef
        self._links = links
        kind = f"{identity} {quantisation} {links}"
        self._base = f"{prefix}:vectors:{identity_digest(kind)}"
        self._private = MemoryIndex(dims=dims, max_entries=MAX_PRIVATE)

    @classmethod
    def from_url(
        cls,
        url: str,
        *,
        identity: str,
        dims: int,
        prefix: str = "encore",
        timeout_s: float = DEFAULT_TIMEOUT_S,
    ) -> Self:
        """An index in the Redis at `url`; see `redis_client`."""
        client = redis_client(url, timeout_s=timeout_s, max_connections=DEFAULT_MAX_CONNECTIONS)
        return cls(client, identity=identity, dims=dims, prefix=prefix)

    async def start(self) -> None:
        """See SemanticIndex.start. There is nothing to follow."""

    async def close(self) -> None:
        """See SemanticIndex.close."""
        with outages_told():
            await self._client.aclose()

    async def add(self, entry: Entry, *, now_ms: int, private: bool = False) -> None:
        """See SemanticIndex.add. One round trip; a second where the key had another form."""
        if private:
            self._private.add(entry, private=True)
            return
        pipeline = self._client.pipeline(transaction=False)
        place = self._queue_add(pipeline, entry, now_ms)
        with outages_told():
            before = (await pipeline.execute())[1]
            if before is not None and before.decode() != place:
                await self._remove_from(entry.tenant, [(before, entry.key)])

    def _queue_add(self, pipeline: Any, entry: Entry, now_ms: int) -> str:
        """Have a pipeline add an entry, and return its place. Second it says where the key was."""
        name = self._set(entry.tenant, entry.partition)
        place = f"{entry.partition} {entry.form}"
        end_ms = max(1, entry.expires_ms)
        about = {"e": entry.expires_ms, "k": entry.key, "t": entry.text}
        # Without CAS: Redis 8.0 dies of it when it reads its append-only file (aof.c:1653).
        pipeline.execute_command(
            *("VADD", name, "FP32", entry.vector.tobytes(), entry.form),
            *(self._quantisation, "EF", BUILD_EF, "SETATTR", json.dumps(about), "M", self._links),
        )
        pipeline.set(self._pointer(entry.tenant, entry.key), place, pxat=end_ms, get=True)
        pipeline.pexpireat(name, end_ms, nx=True)
        pipeline.pexpireat(name, end_ms, gt=True)
        pipeline.eval(_SWEEP, 1, name, now_ms, SAMPLE)
        return place

    async def find(
        self, tenant: str, partition: str, form: str, *, now_ms: int, private: bool = False
    ) -> Candidate | None:
        """See SemanticIndex.find. One round trip."""
        if private:
            return self._private.find(tenant, partition, form, now_ms=now_ms)
        with outages_told():
            about = await self._client.execute_command(
                "VGETATTR", self._set(tenant, partition), form
            )
            return _candidate(about, 1.0, now_ms)

    async def search(
        self,
        tenant: str,
        partition: str,
        vector: Vector,
        *,
        count: int,
        now_ms: int,
        private: bool = False,
    ) -> list[Candidate]:
        """See SemanticIndex.search. Two round trips: Redis 8.0 returns no attributes.

        Where too much of what is near is over there are two more: a filter has Redis parse the
        attributes of all it passes, and takes three times as long.
        """
        if private or count < 1:
            return self._private.search(tenant, partition, vector, count=count, now_ms=now_ms)
        name = self._set(tenant, partition)
        with outages_told():
            found, are_over = await self._nearest(name, vector, count + SPARE, now_ms)
            if are_over and len(found) < count:
                alive = ("FILTER", f".e > {now_ms}")
                found, _ = await self._nearest(name, vector, count, now_ms, *alive)
        return found[:count]

    async def _nearest(
        self, name: str, vector: Vector, count: int, now_ms: int, *options: str
    ) -> tuple[list[Candidate], bool]:
        """(those of the nearest that are not over, whether there were others)."""
        client: Any = self._client
        answer = await client.execute_command(
            *("VSIM", name, "FP32", vector.tobytes(), "WITHSCORES"),
            *("COUNT", count, "EF", self._ef, *options),
        )
        scores = _scores(answer)
        if not scores:
            return [], False
        pipeline: Any = self._client.pipeline(transaction=False)
        for form, _ in scores:
            pipeline.execute_command("VGETATTR", name, form)
        candidates = [
            _candidate(about, 2 * score - 1, now_ms)  # Redis maps a cosine to 0 … 1
            for about, (_, score) in zip(await pipeline.execute(), scores, strict=True)
        ]
        found = [candidate for candidate in candidates if candidate is not None]
        return found, len(found) < len(candidates)

    async def remove(self, tenant: str, keys: Sequence[str]) -> None:
        """See SemanticIndex.remove. Two round trips."""
        self._private.remove(tenant, keys)
        pipeline = self._client.pipeline(transaction=False)
        for key in keys:
            pipeline.get(self._pointer(tenant, key))
        with outages_told():
            places = await pipeline.execute() if keys else []
            there = [pair for pair in zip(places, keys, strict=True) if pair[0] is not None]
            await self._remove_from(tenant, there, forget=True)

    async def clear(self, tenant: str | None = None) -> None:
        """See SemanticIndex.clear."""
        self._private.clear(tenant)
        with outages_told():
            async for names in scanned(self._client, f"{self._base}:{{{tenant or '*'}}}:*"):
                pipeline = self._client.pipeline(transaction=False)
                for name in names:
                    pipeline.execute_command("UNLINK", name)
                await pipeline.execute()

    async def sweep(self, now_ms: int) -> None:
        """See SemanticIndex.sweep. Only of what is in memory: sets end, and are swept by `add`."""
        self._private.sweep(now_ms)

    async def count(self, tenant: str | None = None) -> int:
        """See SemanticIndex.count."""
        total = self._private.count(tenant)
        with outages_told():
            async for names in scanned(self._client, self._set(tenant or "*", "*")):
                pipeline: Any = self._client.pipeline(transaction=False)
                for name in names:
                    pipeline.execute_command("VCARD", name)
                total += sum(await pipeline.execute())
        return total

    async def _remove_from(
        self, tenant: str, places: Sequence[tuple[bytes, str]], *, forget: bool = False
    ) -> None:
        """Remove what keys have at places, and with `forget` where it was."""
        pipeline = self._client.pipeline(transaction=False)
        for place, key in places:
            partition, _, form = place.decode().partition(" ")
            pipeline.eval(_REMOVE, 1, self._set(tenant, partition), form, key)
            if forget:
                pipeline.execute_command("UNLINK", self._pointer(tenant, key))
        await pipeline.execute()

    def _set(self, tenant: str, partition: str) -> str:
        return f"{self._base}:{{{tenant}}}:p:{partition}"

    def _pointer(self, tenant: str, key: str) -> str:
        return f"{self._base}:{{{tenant}}}:k:{key}"


def _scores(answer: Any) -> list[tuple[bytes, float]]:
    """(element, score) that `VSIM` has found: pairs in RESP2, a mapping in RESP3.

    Where there is no set it is a list in RESP3, too, on which redis-py's own `vsim` fails.
    """
    pairs = (
        answer.items() if isinstance(answer, dict) else zip(answer[::2], answer[1::2], strict=True)
    )
    return [(element, float(score)) for element, score in pairs]


def _candidate(about: bytes | None, similarity: float, now_ms: int) -> Candidate | None:
    """Of an element's attributes, unless it is gone or over."""
    if about is None:
        return None
    known = json.loads(about)
    if known["e"] <= now_ms:
        return None
    return Candidate(key=known["k"], text=known["t"], similarity=similarity, expires_ms=known["e"])
