"""What a Redis says of itself that its operator watches: memory, evictions, what it served."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from redis.asyncio import Redis
from redis.exceptions import ResponseError

from origin.stores.redis_store import RedisClient, outages_told, redis_client

DEFAULT_TIMEOUT_S = 1.0
_ADDED_UP = {
    "used_memory": "used_bytes",
    "maxmemory": "max_bytes",
    "evicted_keys": "evicted_keys",
    "expired_keys": "expired_keys",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class ServerFacts:
    """Of one server, or of all primaries of a Cluster together.

    `max_bytes` is 0 without a limit. `evicted_keys` and `expired_keys` count from the servers'
    start, `up_s` seconds ago (the youngest's).
    """

    version: str
    servers: int
    policy: str
    used_bytes: int
    max_bytes: int
    evicted_keys: int
    expired_keys: int
    up_s: int


class RedisFacts:
    """Asks one Redis, by a client of its own."""

    def __init__(self, client: RedisClient) -> None:
        self._client = client

    @classmethod
    def from_url(cls, url: str, *, timeout_s: float = DEFAULT_TIMEOUT_S) -> Self:
        """Ask the Redis at `url`; see `redis_client`."""
        return cls(redis_client(url, timeout_s=timeout_s, max_connections=2))

    async def read(self) -> ServerFacts | None:
        """The facts; None where the server does not permit INFO. Raises StoreError."""
        with outages_told():
            targets: list[dict[str, Any]] = [{}]
            if not isinstance(self._client, Redis):
                await self._client.initialize()
                targets = [{"target_nodes": node} for node in self._client.get_primaries()]
            try:
                told = [await self._client.info(**target) for target in targets]
            except ResponseError:
                return None
            return together(told)

    async def close(self) -> None:
        """Free connections; closing twice is fine."""
        with outages_told():
            await self._client.aclose()


def together(told: Sequence[Mapping[str, Any]]) -> ServerFacts:
    """What these servers' INFO comes to."""
    sums: Counter[str] = Counter()
    for info in told:
        for theirs, ours in _ADDED_UP.items():
            sums[ours] += int(info.get(theirs, 0))
    named = {ours: sums[ours] for ours in _ADDED_UP.values()}
    return ServerFacts(
        version=str(told[0].get("redis_version", "")),
        servers=len(told),
        policy=str(told[0].get("maxmemory_policy", "")),
        up_s=min(int(info.get("uptime_in_seconds", 0)) for info in told),
        **named,
    )
