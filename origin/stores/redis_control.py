"""The control store in Redis.

Key layout: the hash `PREFIX:ctl:{TENANT}` with the fields `revision` and `document`, and the set
`PREFIX:ctl:tenants`. Neither has an end: a Redis that evicts must evict keys with an end only
(`volatile-*`). The clock is Redis's own (`TIME`), so that every origin process tells one time; in a
Cluster it is that of the node that has the set of tenants.

The connections are a small pool of its own: an L1 under load does not hold up a purge.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Self, cast

from redis.asyncio import Redis

from origin.stores.contract import StoreError
from origin.stores.redis_store import DEFAULT_TIMEOUT_S, RedisClient, outages_told, redis_client

DEFAULT_MAX_CONNECTIONS = 8

# A connection may break after the script has run and before its answer is read; the repetition must
# find its own work done, hence the first test.
_REPLACE = """
local held = redis.call('HMGET', KEYS[1], 'revision', 'document')
if held[1] == ARGV[2] and held[2] == ARGV[3] then return 1 end
if (held[1] or '') ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], 'revision', ARGV[2], 'document', ARGV[3])
return 1
"""

_TIME = "return redis.call('TIME')"


class RedisControlStore:
    """The control store contract on one `redis.asyncio` client, which it owns."""

    def __init__(self, client: RedisClient, *, prefix: str = "encore") -> None:
        self._client = client
        self._prefix = prefix

    @classmethod
    def from_url(
        cls, url: str, *, prefix: str = "encore", timeout_s: float = DEFAULT_TIMEOUT_S
    ) -> Self:
        """Build a store on `url`; see `redis_client`."""
        client = redis_client(url, timeout_s=timeout_s, max_connections=DEFAULT_MAX_CONNECTIONS)
        return cls(client, prefix=prefix)

    async def now_ms(self) -> int:
        """See ControlStore.now_ms."""
        with outages_told():
            if isinstance(self._client, Redis):
                seconds, microseconds = await self._client.time()
            else:  # of all its nodes' clocks one counts
                seconds, microseconds = await self._client.eval(_TIME, 1, self._tenants_name())
        return int(seconds) * 1000 + int(microseconds) // 1000

    async def revision(self, tenant: str) -> int | None:
        """See ControlStore.revision."""
        held = await self._field(tenant, "revision")
        if held is not None and not held.isdigit():
            raise StoreError("Redis: no revision")
        return None if held is None else int(held)

    async def load(self, tenant: str) -> bytes | None:
        """See ControlStore.load."""
        return await self._field(tenant, "document")

    async def replace(
        self, tenant: str, document: bytes, revision: int, *, expected: int | None
    ) -> bool:
        """See ControlStore.replace."""
        was = "" if expected is None else str(expected)
        with outages_told():
            if expected is None:
                await self._client.sadd(self._tenants_name(), tenant)
            made = await self._client.eval(
                _REPLACE, 1, self._name(tenant), was, str(revision), document
            )
        return bool(made == 1)

    async def tenants(self) -> frozenset[str]:
        """See ControlStore.tenants."""
        with outages_told():
            names = await cast("Awaitable[set[bytes]]", self._client.smembers(self._tenants_name()))
        return frozenset(name.decode() for name in names)

    async def ping(self) -> None:
        """See ControlStore.ping."""
        with outages_told():
            await self._client.ping()

    async def close(self) -> None:
        """See ControlStore.close."""
        with outages_told():
            await self._client.aclose()

    async def _field(self, tenant: str, name: str) -> bytes | None:
        with outages_told():
            return await cast(
                "Awaitable[bytes | None]", self._client.hget(self._name(tenant), name)
            )

    def _name(self, tenant: str) -> str:
        return f"{self._prefix}:ctl:{{{tenant}}}"

    def _tenants_name(self) -> str:
        return f"{self._prefix}:ctl:tenants"
