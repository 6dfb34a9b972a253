"""The usage store in Redis.

Layout, without an end: `PREFIX:usage:tenants` is a set. Of a tenant `PREFIX:usage:{TENANT}` is a
hash, a field a number (its name as a JSON array; `since_ms` is the time of the first), `…:hits` a
sorted set of short keys by hits, `…:last` one of the same keys by the time of the last hit, in ms.

With an end: `PREFIX:usage:{TENANT}:at:SLOT` is a hash of what was added in a slot that began at
SLOT (Unix time, s), names without model and class; TENANT is `*` for all of them together.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Mapping, Sequence
from functools import lru_cache
from typing import Any, Self, cast

from origin.stores.redis_store import RedisClient, outages_told, redis_client
from origin.stores.usage_contract import (
    MAX_KEYS,
    MAX_NAMES,
    RECENT_SLOTS,
    SLOT_S,
    HotKey,
    Kept,
    Name,
    Recent,
    Usage,
    folded,
    together,
)

DEFAULT_TIMEOUT_S = 1.0
"""No request waits for it, and it has more to say than a hit."""
DEFAULT_MAX_CONNECTIONS = 4
TENANTS_A_READ = 50
"""Some 5 ms of this process and of Redis, where a tenant has a hundred numbers."""
_SINCE = b"since_ms"

# KEYS: numbers, hits, last. ARGV: most names, most keys, how many numbers; for each of these its
# name, its folded name and itself; then key and hits by turns. Time is the server's.
_ADD = """
local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('HSETNX', KEYS[1], 'since_ms', now_ms)
local place = 4
for _ = 1, ARGV[3] do
  local name = ARGV[place]
  if redis.call('HLEN', KEYS[1]) >= tonumber(ARGV[1])
    and redis.call('HEXISTS', KEYS[1], name) == 0 then name = ARGV[place + 1] end
  redis.call('HINCRBY', KEYS[1], name, ARGV[place + 2])
  place = place + 3
end
for at = place, #ARGV, 2 do
  redis.call('ZINCRBY', KEYS[2], ARGV[at + 1], ARGV[at])
  redis.call('ZADD', KEYS[3], now_ms, ARGV[at])
end
local surplus = redis.call('ZCARD', KEYS[3]) - tonumber(ARGV[2])
if surplus > 0 then
  for _, entry in ipairs(redis.call('ZRANGE', KEYS[3], 0, surplus - 1)) do
    redis.call('ZREM', KEYS[2], entry)
    redis.call('ZREM', KEYS[3], entry)
  end
end
"""

# KEYS: numbers, hits, last. ARGV: how many keys.
_READ = """
local hottest = {}
if tonumber(ARGV[1]) > 0 then
  local hits = redis.call('ZREVRANGE', KEYS[2], 0, ARGV[1] - 1, 'WITHSCORES')
  for at = 1, #hits, 2 do
    local last = redis.call('ZSCORE', KEYS[3], hits[at])
    hottest[#hottest + 1] = {hits[at], hits[at + 1], last or '0'}
  end
end
return {redis.call('HGETALL', KEYS[1]), hottest}
"""

# KEYS: numbers; a slot's name is made of it, and is in its slot of a Cluster. ARGV: a slot's and
# its life's seconds; then name and number by turns.
_ADD_OVER_TIME = """
local now = tonumber(redis.call('TIME')[1])
local slot = KEYS[1] .. ':at:' .. string.format('%.0f', now - now % ARGV[1])
for at = 3, #ARGV, 2 do redis.call('HINCRBY', slot, ARGV[at], ARGV[at + 1]) end
redis.call('EXPIRE', slot, ARGV[2])
"""

# KEYS: as above. ARGV: a slot's seconds, how many slots.
_RECENT = """
local time = redis.call('TIME')
local now = tonumber(time[1])
local found = {}
for back = ARGV[2] - 1, 0, -1 do
  local start = string.format('%.0f', now - now % ARGV[1] - back * ARGV[1])
  local numbers = redis.call('HGETALL', KEYS[1] .. ':at:' .. start)
  if #numbers > 0 then found[#found + 1] = {start, numbers} end
end
return {string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000)), found}
"""


class RedisUsageStore:
    """The contract on one `redis.asyncio` client, which it owns."""

    def __init__(
        self,
        client: RedisClient,
        *,
        prefix: str = "encore",
        max_names: int = MAX_NAMES,
        max_keys: int = MAX_KEYS,
    ) -> None:
        self._client = client
        self._prefix = prefix
        self._max_names = max_names
        self._max_keys = max_keys

    @classmethod
    def from_url(
        cls, url: str, *, prefix: str = "encore", timeout_s: float = DEFAULT_TIMEOUT_S
    ) -> Self:
        """Build a store on `url`; see `redis_client`."""
        client = redis_client(url, timeout_s=timeout_s, max_connections=DEFAULT_MAX_CONNECTIONS)
        return cls(client, prefix=prefix)

    async def add(self, tenants: Mapping[str, Usage]) -> None:
        """See UsageStore.add. One round trip (in a Cluster one to each node concerned)."""
        if not tenants:
            return
        with outages_told():
            pipeline = self._client.pipeline(transaction=False)
            pipeline.sadd(f"{self._prefix}:usage:tenants", *tenants)
            for tenant, usage in tenants.items():
                names = self._names(tenant)
                bounds = [self._max_names, self._max_keys, len(usage.numbers)]
                numbers = [
                    argument
                    for name, number in usage.numbers.items()
                    for argument in (_encoded(name), _encoded(folded(name)), number)
                ]
                hits = [argument for each in usage.hits.items() for argument in each]
                pipeline.eval(_ADD, len(names), *names, *bounds, *numbers, *hits)
            for tenant, over_time in together(tenants).items():
                pairs = [
                    argument
                    for name, number in over_time.items()
                    for argument in (_encoded(name[2:]), number)
                ]
                life_s = (RECENT_SLOTS + 1) * SLOT_S
                pipeline.eval(_ADD_OVER_TIME, 1, self._names(tenant)[0], SLOT_S, life_s, *pairs)
            await pipeline.execute()

    async def read(self, tenant: str, *, top: int) -> Kept:
        """See UsageStore.read. One round trip."""
        (kept,) = await self.read_many([tenant], top=top)
        return kept

    async def read_many(self, tenants: Sequence[str], *, top: int) -> list[Kept]:
        """See UsageStore.read_many. One round trip (to a node) for `TENANTS_A_READ` of them."""
        kept: list[Kept] = []
        for start in range(0, len(tenants), TENANTS_A_READ):
            pipeline = self._client.pipeline(transaction=False)
            for tenant in tenants[start : start + TENANTS_A_READ]:
                names = self._names(tenant)
                pipeline.eval(_READ, len(names), *names, top)
            with outages_told():
                kept += map(_kept, await pipeline.execute())
        return kept

    async def recent(self, tenant: str) -> Recent:
        """See UsageStore.recent. One round trip."""
        name = self._names(tenant)[0]
        with outages_told():
            reply: Any = await self._client.eval(_RECENT, 1, name, SLOT_S, RECENT_SLOTS)
            now_ms, slots = reply
            return Recent(
                now_ms=int(now_ms),
                slots={
                    int(start) * 1000: {
                        _decoded_over_time(name): int(number)
                        for name, number in zip(flat[::2], flat[1::2], strict=True)
                    }
                    for start, flat in slots
                },
            )

    async def tenants(self) -> frozenset[str]:
        """See UsageStore.tenants."""
        with outages_told():
            members = await cast(
                "Awaitable[set[bytes]]", self._client.smembers(f"{self._prefix}:usage:tenants")
            )
            return frozenset(member.decode() for member in members)

    async def close(self) -> None:
        """See UsageStore.close."""
        with outages_told():
            await self._client.aclose()

    def _names(self, tenant: str) -> tuple[str, str, str]:
        """One tenant's keys share a slot."""
        numbers = f"{self._prefix}:usage:{{{tenant}}}"
        return numbers, f"{numbers}:hits", f"{numbers}:last"


def _kept(reply: Any) -> Kept:
    flat, hottest = reply
    numbers = dict(zip(flat[::2], map(int, flat[1::2]), strict=True))
    since_ms = numbers.pop(_SINCE, None)
    return Kept(
        numbers={_decoded(name): number for name, number in numbers.items()},
        since_ms=since_ms,
        hottest=tuple(
            HotKey(key=key.decode(), hits=int(float(hits)), last_ms=int(float(last_ms)))
            for key, hits, last_ms in hottest
        ),
    )


@lru_cache(8192)
def _decoded(name: bytes) -> Name:
    """Tenants have much the same ones: some hundred for each model."""
    return tuple(json.loads(name))


@lru_cache(1024)
def _decoded_over_time(name: bytes) -> Name:
    """There are some hundred of them, in every slot again."""
    return (None, None, *json.loads(name))


def _encoded(name: tuple[str | None, ...]) -> str:
    return json.dumps(name, separators=(",", ":"))
