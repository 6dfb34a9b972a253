"""The job store in Redis, beside the control documents.

Key layout, all in one Cluster slot, for they are few and small:
- `PREFIX:{warm}:jobs`, a hash: by job what it takes, and whose it is, `BYTES TENANT`.
- `PREFIX:{warm}:order`, a sorted set: by job that is not done when it was added, in ms.
- `PREFIX:{warm}:ends`, a sorted set: by job when it ends, in ms.
- `PREFIX:{warm}:job:ID`, a hash: its state; `n:NAME` are its counts.
- `PREFIX:{warm}:asks:ID`: what it asks for, sealed.

Nothing has an expiry, for a Redis that evicts evicts what has one: a job's end stands in its hash,
and whoever claims or adds one removes those that have ended.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self, cast

from origin.stores.job_contract import (
    LEASE_S,
    MAX_BYTES,
    MAX_TENANT_BYTES,
    OVERHEAD_BYTES,
    JobState,
    Lease,
)
from origin.stores.redis_store import DEFAULT_TIMEOUT_S, RedisClient, outages_told, redis_client

DEFAULT_MAX_CONNECTIONS = 4

# KEYS[1]: order; every other key's name is made of it, and is in its slot.
_PARTS = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local base = string.sub(KEYS[1], 1, -6)
local function ms(value) return string.format('%.0f', value) end
local function remove_ended()
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', base .. 'ends', '-inf', ms(now))) do
    redis.call('DEL', base .. 'job:' .. id, base .. 'asks:' .. id)
    redis.call('ZREM', KEYS[1], id)
    redis.call('ZREM', base .. 'ends', id)
    redis.call('HDEL', base .. 'jobs', id)
  end
end
local function holds(id, token)
  local is = redis.call('HMGET', base .. 'job:' .. id, 'token', 'until', 'ends')
  return is[1] == token and tonumber(is[2]) > now and tonumber(is[3]) > now
end
"""
# ARGV: id, tenant, sealed, total, quiet, starts in, life, overhead, most of a tenant, most of all.
_ADD = (
    _PARTS
    + """
remove_ended()
local job = base .. 'job:' .. ARGV[1]
if redis.call('EXISTS', job) == 0 then
  local size = #ARGV[3] + ARGV[8]
  local ours, everybodys = size, size
  for _, one in ipairs(redis.call('HVALS', base .. 'jobs')) do
    local bytes, tenant = string.match(one, '^(%d+) (.*)$')
    everybodys = everybodys + bytes
    if tenant == ARGV[2] then ours = ours + bytes end
  end
  if ours > tonumber(ARGV[9]) or everybodys > tonumber(ARGV[10]) then return false end
  redis.call('HSET', job, 'tenant', ARGV[2], 'total', ARGV[4], 'done', 0, 'quiet', ARGV[5],
    'created', ms(now), 'starts', ms(now + ARGV[6]), 'ends', ms(now + ARGV[6] + ARGV[7]),
    'token', 0, 'until', 0)
  redis.call('SET', base .. 'asks:' .. ARGV[1], ARGV[3])
  redis.call('HSET', base .. 'jobs', ARGV[1], size .. ' ' .. ARGV[2])
  redis.call('ZADD', KEYS[1], ms(now), ARGV[1])
  redis.call('ZADD', base .. 'ends', ms(now + ARGV[6] + ARGV[7]), ARGV[1])
end
return {ms(now), redis.call('HGETALL', job)}
"""
)
# ARGV: id.
_STATE = _PARTS + "return {ms(now), redis.call('HGETALL', base .. 'job:' .. ARGV[1])}"
# ARGV: quiet, lease in ms.
_CLAIM = (
    _PARTS
    + """
remove_ended()
for _, id in ipairs(redis.call('ZRANGE', KEYS[1], 0, -1)) do
  local job = base .. 'job:' .. id
  local is = redis.call('HMGET', job, 'starts', 'until', 'quiet')
  if tonumber(is[1]) <= now and tonumber(is[2]) <= now and (is[3] == '0' or ARGV[1] == '1') then
    redis.call('HINCRBY', job, 'token', 1)
    redis.call('HSET', job, 'until', ms(now + ARGV[2]))
    return {ms(now), redis.call('HGETALL', job), id, redis.call('GET', base .. 'asks:' .. id)}
  end
end
return false
"""
)
# ARGV: id, token, lease in ms, done, overhead, then names and counts.
_PROGRESS = (
    _PARTS
    + """
if not holds(ARGV[1], ARGV[2]) then return 0 end
local job = base .. 'job:' .. ARGV[1]
local is = redis.call('HMGET', job, 'done', 'total', 'tenant')
if tonumber(ARGV[4]) > tonumber(is[1]) then
  for i = 6, #ARGV, 2 do redis.call('HINCRBY', job, 'n:' .. ARGV[i], ARGV[i + 1]) end
  redis.call('HSET', job, 'done', ARGV[4])
end
if tonumber(ARGV[4]) >= tonumber(is[2]) then
  redis.call('HSET', job, 'until', 0)
  redis.call('ZREM', KEYS[1], ARGV[1])
  redis.call('DEL', base .. 'asks:' .. ARGV[1])
  redis.call('HSET', base .. 'jobs', ARGV[1], ARGV[5] .. ' ' .. is[3])
else
  redis.call('HSET', job, 'until', ms(now + ARGV[3]))
end
return 1
"""
)
# ARGV: id, token.
_RELEASE = (
    _PARTS
    + """
if holds(ARGV[1], ARGV[2]) then redis.call('HSET', base .. 'job:' .. ARGV[1], 'until', 0) end
"""
)


class RedisJobStore:
    """The job store contract on one `redis.asyncio` client, which it owns."""

    def __init__(self, client: RedisClient, *, prefix: str = "encore") -> None:
        self._client = client
        self._order = f"{prefix}:{{warm}}:order"

    @classmethod
    def from_url(
        cls, url: str, *, prefix: str = "encore", timeout_s: float = DEFAULT_TIMEOUT_S
    ) -> Self:
        """Build a store on `url`; see `redis_client`."""
        client = redis_client(url, timeout_s=timeout_s, max_connections=DEFAULT_MAX_CONNECTIONS)
        return cls(client, prefix=prefix)

    async def add(
        self,
        job: str,
        *,
        tenant: str,
        sealed: bytes,
        total: int,
        quiet: bool,
        starts_in_ms: int,
        life_ms: int,
    ) -> JobState | None:
        """See JobStore.add."""
        limits = (OVERHEAD_BYTES, MAX_TENANT_BYTES, MAX_BYTES)
        arguments = (job, tenant, sealed, total, int(quiet), starts_in_ms, life_ms)
        with outages_told():
            answer = await self._eval(_ADD, *arguments, *limits)
            return None if answer is None else _state(*answer)

    async def state(self, job: str) -> JobState | None:
        """See JobStore.state."""
        with outages_told():
            now, fields = await self._eval(_STATE, job)
            state = _state(now, fields) if fields else None
            return None if state is None or state.ends_ms <= int(now) else state

    async def claim(self, *, quiet: bool) -> Lease | None:
        """See JobStore.claim."""
        with outages_told():
            answer = await self._eval(_CLAIM, int(quiet), int(LEASE_S * 1000))
            if answer is None:
                return None
            now, fields, name, sealed = answer
            return Lease(
                id=name.decode(),
                token=int(_pairs(fields)[b"token"]),
                state=_state(now, fields),
                sealed=sealed or b"",
            )

    async def progress(
        self, lease: Lease, *, done: int, counts: Mapping[str, int] | None = None
    ) -> bool:
        """See JobStore.progress."""
        flat = [part for pair in (counts or {}).items() for part in pair]
        lease_ms = int(LEASE_S * 1000)
        arguments = (lease.id, lease.token, lease_ms, done, OVERHEAD_BYTES)
        with outages_told():
            return bool(await self._eval(_PROGRESS, *arguments, *flat))

    async def release(self, lease: Lease) -> None:
        """See JobStore.release."""
        with outages_told():
            await self._eval(_RELEASE, lease.id, lease.token)

    async def close(self) -> None:
        """See JobStore.close."""
        with outages_told():
            await self._client.aclose()

    async def _eval(self, script: str, *arguments: str | bytes | int) -> Any:
        return await cast("Any", self._client.eval(script, 1, self._order, *arguments))


def _pairs(flat: list[bytes]) -> dict[bytes, bytes]:
    return dict(zip(flat[::2], flat[1::2], strict=True))


def _state(now: bytes, flat: list[bytes]) -> JobState:
    fields = _pairs(flat)
    return JobState(
        tenant=fields[b"tenant"].decode(),
        total=int(fields[b"total"]),
        done=int(fields[b"done"]),
        counts={
            name[2:].decode(): int(count)
            for name, count in fields.items()
            if name.startswith(b"n:")
        },
        quiet=fields[b"quiet"] == b"1",
        created_ms=int(fields[b"created"]),
        starts_ms=int(fields[b"starts"]),
        ends_ms=int(fields[b"ends"]),
        is_held=int(fields[b"until"]) > int(now),
    )
