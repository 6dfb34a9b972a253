"""Leases in Redis (6.2 or newer), beside the entries of `origin.stores.redis_store`.

Key layout, all of one key in one Cluster slot:
- `PREFIX:{KEY}:lease`, a hash: `token` of the last lease given, and while it is held `flight`,
  `until` (microseconds of Redis' clock) and `about`.
- `PREFIX:{KEY}:said:FLIGHT`, a stream: the pieces, piece N under the id `N-0`. It is there from the
  start and lives as long as its holder: followers know by its end that the holder died.
- `PREFIX:{KEY}:waiting:FLIGHT`, a hash: by follower, until when it is known, and its wishes.

Readers wait in Redis (`XREAD BLOCK`), each on a connection of its own from a pool of their own:
followers beyond `max_readers` get a StoreError, and generate alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self, cast

from origin.stores.contract import StoreError
from origin.stores.lease_contract import FIRST_PIECE, LEASE_S, LINGER_S, MAX_FLIGHT_S, Lease
from origin.stores.redis_store import (
    DEFAULT_TIMEOUT_S,
    RedisClient,
    key_name,
    outages_told,
    redis_client,
    stream_rows,
)

DEFAULT_MAX_CONNECTIONS = 32
DEFAULT_MAX_READERS = 256
MAX_WAIT_S = 2.0
PIECES_A_READ = 256

_NOW = """
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
"""
# KEYS: lease, said, entry. ARGV: flight, about, insist, lease and memory of the token in ms.
# Numbers of this size have no exponent only where %.0f writes them.
_ACQUIRE = (
    _NOW
    + """
local held = redis.call('HMGET', KEYS[1], 'flight', 'token', 'until', 'about')
if held[1] == ARGV[1] or (ARGV[3] == '0' and held[1] and tonumber(held[3]) > now) then
  return {held[1], held[2], held[4]}
end
local token = string.format('%.0f', math.max(now, tonumber(held[2] or 0) + 1))
local ends = string.format('%.0f', now + ARGV[4] * 1000)
redis.call('HSET', KEYS[1], 'flight', ARGV[1], 'token', token, 'until', ends, 'about', ARGV[2])
redis.call('PEXPIRE', KEYS[1], ARGV[5])
redis.call('XADD', KEYS[2], '1-0', 'p', '')
redis.call('PEXPIRE', KEYS[2], ARGV[4])
if ARGV[3] == '1' then return {ARGV[1], token, ARGV[2]} end
return {ARGV[1], token, ARGV[2], redis.call('GET', KEYS[3])}
"""
)
# The wishes of those who follow; the dead are forgotten.
_WISHES = """
local function all_wishes()
  local wishes = {}
  local waiting = redis.call('HGETALL', KEYS[3])
  for i = 1, #waiting, 2 do
    local ends, wish = string.match(waiting[i + 1], '^(%d+) (.*)$')
    if ends and tonumber(ends) > now then
      wishes[#wishes + 1] = wish
    else
      redis.call('HDEL', KEYS[3], waiting[i])
    end
  end
  return wishes
end
"""
_GIVE_BACK = """
local function give_back()
  if redis.call('HGET', KEYS[1], 'flight') == ARGV[1] then
    redis.call('HDEL', KEYS[1], 'flight', 'until', 'about')
  end
end
"""
# A piece that is there already is refused by its number, which is as it should be.
_ADD = """
local function add(number, piece)
  if piece ~= '' then redis.pcall('XADD', KEYS[2], number .. '-0', 'p', piece) end
end
"""
# KEYS: lease, said, waiting. ARGV: flight, number, piece, lease in ms.
_SAY = (
    _NOW
    + _ADD
    + _WISHES
    + """
if redis.call('EXISTS', KEYS[2]) == 0 then return false end
add(ARGV[2], ARGV[3])
redis.call('PEXPIRE', KEYS[2], ARGV[4])
if redis.call('HGET', KEYS[1], 'flight') == ARGV[1] then
  redis.call('HSET', KEYS[1], 'until', string.format('%.0f', now + ARGV[4] * 1000))
end
return all_wishes()
"""
)
# KEYS: lease, said. ARGV: flight, number, piece, how long it can still be read in ms.
_END = (
    _ADD
    + _GIVE_BACK
    + """
if redis.call('EXISTS', KEYS[2]) == 1 then
  add(ARGV[2], ARGV[3])
  redis.call('PEXPIRE', KEYS[2], ARGV[4])
end
give_back()
"""
)
# KEYS: lease, said, waiting. ARGV: flight.
_STOP = (
    _NOW
    + _WISHES
    + _GIVE_BACK
    + """
if redis.call('EXISTS', KEYS[2]) == 1 and #all_wishes() > 0 then return 0 end
redis.call('UNLINK', KEYS[2])
give_back()
return 1
"""
)
# KEYS: said, waiting. ARGV: follower, wishes, how long it is known in ms.
_FOLLOW = (
    _NOW
    + """
local left = redis.call('PTTL', KEYS[1])
if left < 0 then return false end
local ends = string.format('%.0f', now + ARGV[3] * 1000)
redis.call('HSET', KEYS[2], ARGV[1], ends .. ' ' .. ARGV[2])
redis.call('PEXPIRE', KEYS[2], ARGV[3])
return left
"""
)


class RedisLeases:
    """The lease contract on two `redis.asyncio` clients, which it owns: one asks, one waits."""

    def __init__(
        self,
        client: RedisClient,
        readers: RedisClient,
        *,
        prefix: str = "encore",
        lease_s: float = LEASE_S,
    ) -> None:
        self._client = client
        self._readers = readers
        self._prefix = prefix
        self._lease_ms = round(lease_s * 1000)
        self._acquire, self._say, self._end, self._stop, self._follow = (
            client.register_script(script) for script in (_ACQUIRE, _SAY, _END, _STOP, _FOLLOW)
        )

    @classmethod
    def from_url(
        cls,
        url: str,
        *,
        prefix: str = "encore",
        lease_s: float = LEASE_S,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        max_readers: int = DEFAULT_MAX_READERS,
    ) -> Self:
        """Build leases on `url`; see `redis_client`."""
        client = redis_client(url, timeout_s=timeout_s, max_connections=DEFAULT_MAX_CONNECTIONS)
        readers = redis_client(
            url, timeout_s=timeout_s, max_connections=max_readers, wait_s=MAX_WAIT_S
        )
        return cls(client, readers, prefix=prefix, lease_s=lease_s)

    async def acquire(self, key: str, flight: str, about: bytes, *, insist: bool) -> Lease:
        """See Leases.acquire."""
        names = [self._name(key, "lease"), self._said(key, flight), self._name(key, "entry")]
        memory_ms = round(MAX_FLIGHT_S * 1000)
        with outages_told():
            holder, token, told, *entry = await self._acquire(
                keys=names, args=[flight, about, int(insist), self._lease_ms, memory_ms]
            )
            return Lease(
                key=key,
                flight=holder.decode(),
                token=int(token),
                about=told,
                entry=entry[0] if entry else None,
            )

    async def say(self, lease: Lease, number: int, piece: bytes) -> Sequence[bytes] | None:
        """See Leases.say."""
        with outages_told():
            wishes = await self._say(
                keys=self._names(lease), args=[lease.flight, number, piece, self._lease_ms]
            )
            if wishes is not None and (
                type(wishes) is not list or set(map(type, wishes)) - {bytes}
            ):
                raise StoreError("Redis: no wishes")
            return cast("list[bytes] | None", wishes)

    async def end(self, lease: Lease, number: int, piece: bytes) -> None:
        """See Leases.end."""
        linger_ms = round(LINGER_S * 1000)
        with outages_told():
            await self._end(
                keys=self._names(lease)[:2], args=[lease.flight, number, piece, linger_ms]
            )

    async def stop(self, lease: Lease) -> bool:
        """See Leases.stop."""
        with outages_told():
            return bool(await self._stop(keys=self._names(lease), args=[lease.flight]))

    async def follow(self, lease: Lease, follower: str, wishes: bytes) -> float | None:
        """See Leases.follow."""
        with outages_told():
            left_ms = await self._follow(
                keys=self._names(lease)[1:], args=[follower, wishes, self._lease_ms]
            )
            return None if left_ms is None else int(left_ms) / 1000

    async def leave(self, lease: Lease, follower: str) -> None:
        """See Leases.leave."""
        with outages_told():
            await cast("Any", self._client.hdel(self._names(lease)[2], follower))

    async def read(self, lease: Lease, after: int, *, wait_s: float) -> Sequence[tuple[int, bytes]]:
        """See Leases.read."""
        name = self._said(lease.key, lease.flight)
        wait_ms = max(1, round(min(wait_s, MAX_WAIT_S) * 1000))
        with outages_told():
            found: Any = await self._readers.xread(
                {name: f"{max(after, FIRST_PIECE - 1)}-0"}, count=PIECES_A_READ, block=wait_ms
            )
            rows = stream_rows(found)
            return [(int(number.split(b"-")[0]), fields[b"p"]) for number, fields in rows]

    async def close(self) -> None:
        """See Leases.close."""
        with outages_told():
            await self._client.aclose()
            await self._readers.aclose()

    def _names(self, lease: Lease) -> list[str]:
        return [
            self._name(lease.key, "lease"),
            self._said(lease.key, lease.flight),
            self._name(lease.key, f"waiting:{lease.flight}"),
        ]

    def _said(self, key: str, flight: str) -> str:
        return self._name(key, f"said:{flight}")

    def _name(self, key: str, kind: str) -> str:
        return key_name(self._prefix, key, kind)
