"""The store in Redis (6.2 or newer: `SET … PXAT`).

Key layout: `PREFIX:{KEY}:entry`, one value per entry, header and segments together, and beside it
`:asked` (a count) and `:granted` (there while no write to KV is granted), both with an end, and
what `origin.stores.redis_leases` keeps.
The braces make KEY alone decide the Cluster slot, so all that is kept beside an entry shares its
node. A hit is one round trip, `GET`; a grant is one, a script.

A dead or hung Redis costs a request at most two timeouts and surfaces as StoreError: one retry, for
the connection that died unnoticed in the pool, and no waiting in between.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Self, cast

from redis.asyncio import BlockingConnectionPool, Redis, RedisCluster
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisClusterException, RedisError

from origin.stores.contract import ASKED_LIFE_S, GRANT_INTERVAL_S, StoreError
from origin.stores.pipelined_reads import PipelinedReads

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Sequence

RedisClient = Redis | RedisCluster
DEFAULT_TIMEOUT_S = 0.25
DEFAULT_MAX_CONNECTIONS = 64
OPENINGS_A_READ = 200
"""Of as many entries at a time a program looks at the openings: some milliseconds' work."""
MAX_CLUSTER_CONNECTIONS = 1024
"""To one node. Beyond that a request goes without L1."""

# KEYS: asked, granted. ARGV: after, the life of the count and the interval of grants in seconds.
# Where the first request counts already nothing is counted: a count outlives its entry by far.
_GRANT = """
if tonumber(ARGV[1]) > 1 then
  local asked = redis.call('INCR', KEYS[1])
  if asked == 1 then redis.call('EXPIRE', KEYS[1], ARGV[2]) end
  if asked < tonumber(ARGV[1]) then return 0 end
end
return redis.call('SET', KEYS[2], '', 'NX', 'EX', ARGV[3]) and 1 or 0
"""

# KEYS: entry, lease. ARGV: envelope, end, token or nothing, head or nothing, then NX or nothing.
_PUT = """
local newest = ARGV[3] ~= '' and redis.call('HGET', KEYS[2], 'token')
if newest and tonumber(newest) > tonumber(ARGV[3]) then return end
local head = ARGV[4]
if head ~= '' and redis.call('GETRANGE', KEYS[1], 0, #head - 1) ~= head then return end
redis.call('SET', KEYS[1], ARGV[1], 'PXAT', ARGV[2], unpack(ARGV, 5))
"""


class RedisStore:
    """The store contract on one `redis.asyncio` client, which it owns."""

    def __init__(
        self, client: RedisClient, *, prefix: str = "encore", timeout_s: float = DEFAULT_TIMEOUT_S
    ) -> None:
        self._client = client
        self._prefix = prefix
        self._grant = client.register_script(_GRANT)
        self._put = client.register_script(_PUT)
        self._reads: PipelinedReads | None = None
        if isinstance(client, Redis):  # a Cluster's client knows which node to ask
            make_connection = client.connection_pool.make_connection
            self._reads = PipelinedReads(make_connection, timeout_s=timeout_s)

    @classmethod
    def from_url(
        cls,
        url: str,
        *,
        prefix: str = "encore",
        timeout_s: float = DEFAULT_TIMEOUT_S,
        max_connections: int = DEFAULT_MAX_CONNECTIONS,
    ) -> Self:
        """Build a store on `url`; connects on first use.

        `timeout_s` bounds each of: waiting for a free connection, connecting, sending, reading.
        """
        client = redis_client(url, timeout_s=timeout_s, max_connections=max_connections)
        return cls(client, prefix=prefix, timeout_s=timeout_s)

    async def get(self, key: str) -> bytes | None:
        """See Store.get."""
        with outages_told():
            if self._reads is not None:
                return await self._reads.get(self._name(key))
            return cast("bytes | None", await self._client.get(self._name(key)))

    async def get_many(self, keys: Sequence[str]) -> list[bytes | None]:
        """See Store.get_many. Not `MGET`: in a Cluster the keys lie in different slots."""
        pipeline = self._client.pipeline(transaction=False)
        for key in keys:
            pipeline.get(self._name(key))
        with outages_told():
            return cast("list[bytes | None]", await pipeline.execute())

    async def put(
        self,
        key: str,
        envelope: bytes,
        expires_at_ms: int,
        *,
        only_new: bool = False,
        token: int | None = None,
        over: bytes | None = None,
    ) -> None:
        """See Store.put."""
        # Redis refuses an expiry that is not positive; one that is past it takes.
        expires_at_ms = max(1, expires_at_ms)
        with outages_told():
            if token is None and over is None:
                await self._client.set(self._name(key), envelope, pxat=expires_at_ms, nx=only_new)
            else:
                await self._put(
                    keys=[self._name(key), self._name(key, "lease")],
                    args=[
                        envelope,
                        expires_at_ms,
                        "" if token is None else token,
                        over or b"",
                        *(["NX"] if only_new else []),
                    ],
                )

    async def delete(self, key: str) -> None:
        """See Store.delete."""
        with outages_told():
            await self._client.unlink(self._name(key))

    async def grant(self, key: str, *, after: int) -> bool:
        """See Store.grant."""
        names = [self._name(key, "asked"), self._name(key, "granted")]
        with outages_told():
            granted = await self._grant(keys=names, args=[after, ASKED_LIFE_S, GRANT_INTERVAL_S])
        return bool(granted)

    async def openings(self, length: int) -> AsyncGenerator[Sequence[tuple[bytes, int]], None]:
        """See Store.openings. `SCAN` of every node, and two commands for each entry."""
        found = self._client.scan_iter(match=self._name("*"), count=OPENINGS_A_READ)
        names: list[bytes] = []
        with outages_told():
            async for name in found:
                names.append(name)
                if len(names) == OPENINGS_A_READ:
                    yield await self._openings(names, length)
                    names = []
            yield await self._openings(names, length)

    async def _openings(self, names: Sequence[bytes], length: int) -> list[tuple[bytes, int]]:
        pipeline = self._client.pipeline(transaction=False)
        for name in names:
            pipeline.getrange(name, 0, length - 1)
            pipeline.strlen(name)
        answers = await pipeline.execute() if names else []
        # One that has gone has neither bytes nor a length.
        return [pair for pair in zip(answers[::2], answers[1::2], strict=True) if pair[1]]

    async def ping(self) -> None:
        """See Store.ping."""
        with outages_told():
            await self._client.ping()

    async def close(self) -> None:
        """See Store.close."""
        with outages_told():
            if self._reads is not None:
                await self._reads.close()
            await self._client.aclose()

    def _name(self, key: str, kind: str = "entry") -> str:
        return key_name(self._prefix, key, kind)


def key_name(prefix: str, key: str, kind: str) -> str:
    """The name of what is kept of a cache key. KEY alone decides its Cluster slot."""
    return f"{prefix}:{{{key}}}:{kind}"


def redis_client(
    url: str, *, timeout_s: float, max_connections: int, wait_s: float = 0.0
) -> RedisClient:
    """A client of `url` with a pool of its own; connects on first use.

    `timeout_s` bounds each of: waiting for a free connection, connecting, sending, reading. Reading
    may take `wait_s` longer, where commands wait in Redis. A Cluster's client (`redis+cluster://`)
    waits for no connection: it makes another one.
    """
    scheme, separator, rest = url.partition("+cluster://")
    if separator:
        cluster = cast(
            "_Cluster",
            _Cluster.from_url(
                f"{scheme}://{rest}",
                max_connections=MAX_CLUSTER_CONNECTIONS,
                retry=Retry(NoBackoff(), 1),
                socket_timeout=timeout_s + wait_s,
                socket_connect_timeout=timeout_s,
                decode_responses=False,
            ),
        )
        cluster.patience_s = 2 * timeout_s
        return cluster
    pool = BlockingConnectionPool.from_url(
        url,
        max_connections=max_connections,
        timeout=timeout_s,
        socket_timeout=timeout_s + wait_s,
        socket_connect_timeout=timeout_s,
        decode_responses=False,
        retry=Retry(NoBackoff(), 1, supported_errors=(RedisConnectionError,)),
    )
    client = Redis.from_pool(pool)
    for command, read in tuple(client.response_callbacks.items()):
        client.response_callbacks[command] = _strict(read)
    return client


def _strict(read: Callable[..., Any]) -> Callable[..., Any]:
    """One of redis-py's readers of a reply, to which what it cannot read is a broken connection.

    So the connection is closed, instead of used again, and the command sent once more.
    """

    def strictly(*args: Any, **kwargs: Any) -> Any:
        try:
            return read(*args, **kwargs)
        except RedisError:
            raise
        except Exception as exc:
            raise RedisConnectionError("another reply than was asked for") from exc

    return strictly


class _Cluster(RedisCluster):
    """A Cluster's client that may be used by many tasks from the start, as a single server's may.

    redis-py sends what is asked before it knows the Cluster to any node. Its tasks look at the
    Cluster one after another: where no node answers, the last of many would wait for all looks.
    Here they wait for the same one, and no longer than `patience_s`.
    """

    patience_s = 2 * DEFAULT_TIMEOUT_S
    _look: asyncio.Task[RedisCluster] | None = None

    async def initialize(self, *args: Any, **kwargs: Any) -> RedisCluster:
        if self._initialize:  # it does not know the Cluster, or not any more
            if self._look is None:
                self._look = asyncio.create_task(super().initialize(*args, **kwargs))
                self._look.add_done_callback(self._looked)
            async with asyncio.timeout(self.patience_s):
                await asyncio.shield(self._look)
        return self

    def _looked(self, look: asyncio.Task[RedisCluster]) -> None:
        self._look = None
        if not look.cancelled():
            look.exception()  # told to those who waited, if any did

    async def aclose(self) -> None:
        if self._look is not None:  # nobody may wait for it any more, and it opens connections
            await asyncio.wait([self._look], timeout=self.patience_s)
        await super().aclose()

    async def execute_command(self, *args: Any, **kwargs: Any) -> Any:
        await self.initialize()  # nothing, once it is done
        return await super().execute_command(*args, **kwargs)


def stream_rows(found: Any) -> Sequence[Any]:
    """The rows, (id, fields), that `XREAD` or `XREADGROUP` has found in its one stream.

    A list of streams in RESP2, a mapping in RESP3.
    """
    streams = found.values() if isinstance(found, dict) else [rows for _, rows in found or ()]
    return [
        row for rows in streams for row in (rows[0] if rows and isinstance(rows[0], list) else rows)
    ]


OUTAGES = (RedisError, RedisClusterException, OSError)
"""What Redis, or the way to it, fails with; OSError covers TimeoutError."""


class outages_told:  # noqa: N801 - reads as a verb; a generator would cost a hit 2 µs
    """Raise StoreError for whatever Redis or the way to it failed with.

    Replies are read in the block too. What is not of the shape that was asked for is no answer, in
    whatever way that shows (a ValueError, a KeyError ...): it was damaged, or is another's.
    """

    def __enter__(self) -> None:
        pass

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if isinstance(error, Exception) and not isinstance(error, StoreError):
            # The class alone: Redis quotes commands, and so keys, in some of its messages.
            raise StoreError(f"Redis: {type(error).__name__}") from error
