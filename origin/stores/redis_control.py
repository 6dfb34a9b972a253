"""The control store in Redis.

Key layout, none of it with an end but the last: a Redis that evicts must evict keys with an end
only (`volatile-*`).
- `PREFIX:ctl:{TENANT}`, a hash: `revision` and `document`.
- `PREFIX:audit:{TENANT}`, a stream: the tenant's log, in the document's Cluster slot. The common
  one is `PREFIX:audit`. The field `record` has the record.
- `PREFIX:ctl:tenants`, a set.
- `PREFIX:ctl:edge`, a hash: by tenant, the revision that the edge is to get.
- `PREFIX:ctl:facts`, a hash.
- `PREFIX:ctl:turn:TASK`, a text: who has the turn.

The clock is Redis's own (`TIME`), so that every origin process tells one time; in a Cluster it is
that of the node that has the set of tenants. A replacement is told of on the channel
`PREFIX:ctl:changed`, whose messages are tenants.

The connections are its own: an L1 under load does not hold up a purge. They are a small pool, and
one for revisions: where there are many tenants, every hit asks for one.
"""

from __future__ import annotations

from collections.abc import Awaitable, Mapping, Sequence
from typing import Self, cast

from redis.asyncio import Redis

from origin.stores.contract import StoreError
from origin.stores.control_contract import COMMON_LOG, MAX_RECORDS, Record
from origin.stores.pipelined_reads import PipelinedReads
from origin.stores.redis_store import DEFAULT_TIMEOUT_S, RedisClient, outages_told, redis_client

DEFAULT_MAX_CONNECTIONS = 8

RECORDS_A_READ = 1000

# A connection may break after the script has run and before its answer is read; the repetition must
# find its own work done, hence the first test. Who may not publish still may change.
# KEYS: document, log. ARGV: expected, revision, document, tenant, channel, length of the log, then
# the record, if any.
_REPLACE = """
local held = redis.call('HMGET', KEYS[1], 'revision', 'document')
if held[1] == ARGV[2] and held[2] == ARGV[3] then return 1 end
if (held[1] or '') ~= ARGV[1] then return 0 end
if ARGV[7] then redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[6], '*', 'record', ARGV[7]) end
redis.call('HSET', KEYS[1], 'revision', ARGV[2], 'document', ARGV[3])
redis.pcall('PUBLISH', ARGV[5], ARGV[4])
return 1
"""

# KEYS: what the edge is to get. ARGV: tenant, revision.
_OWE = """
local owed = redis.call('HGET', KEYS[1], ARGV[1])
if not owed or tonumber(owed) < tonumber(ARGV[2]) then
  redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
end
"""
_HAS = """
local owed = redis.call('HGET', KEYS[1], ARGV[1])
if owed and tonumber(owed) <= tonumber(ARGV[2]) then redis.call('HDEL', KEYS[1], ARGV[1]) end
"""
# KEYS: turn. ARGV: holder, life in ms.
_TURN = """
local held = redis.call('GET', KEYS[1])
if held and held ~= ARGV[1] then return 0 end
if ARGV[2] == '0' then redis.call('DEL', KEYS[1])
else redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2]) end
return 1
"""

_TIME = "return redis.call('TIME')"


class RedisControlStore:
    """The control store contract on one `redis.asyncio` client, which it owns."""

    def __init__(
        self, client: RedisClient, *, prefix: str = "encore", timeout_s: float = DEFAULT_TIMEOUT_S
    ) -> None:
        self._client = client
        self._prefix = prefix
        self._reads: PipelinedReads | None = None
        if isinstance(client, Redis):  # a Cluster's client knows which node to ask
            make_connection = client.connection_pool.make_connection
            self._reads = PipelinedReads(make_connection, timeout_s=timeout_s)
        self._replace, self._owe, self._has, self._turn = (
            client.register_script(script) for script in (_REPLACE, _OWE, _HAS, _TURN)
        )

    @classmethod
    def from_url(
        cls, url: str, *, prefix: str = "encore", timeout_s: float = DEFAULT_TIMEOUT_S
    ) -> Self:
        """Build a store on `url`; see `redis_client`."""
        client = redis_client(url, timeout_s=timeout_s, max_connections=DEFAULT_MAX_CONNECTIONS)
        return cls(client, prefix=prefix, timeout_s=timeout_s)

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
        if self._reads is None:
            held = await self._field(tenant, "revision")
        else:
            with outages_told():
                held = await self._reads.hget(self._name(tenant), "revision")
        if held is not None and not held.isdigit():
            raise StoreError("Redis: no revision")
        return None if held is None else int(held)

    async def load(self, tenant: str) -> bytes | None:
        """See ControlStore.load."""
        return await self._field(tenant, "document")

    async def replace(
        self,
        tenant: str,
        document: bytes,
        revision: int,
        *,
        expected: int | None,
        record: bytes | None = None,
    ) -> bool:
        """See ControlStore.replace."""
        was = "" if expected is None else str(expected)
        channel = changed_channel(self._prefix)
        with outages_told():
            if expected is None:
                await self._client.sadd(self._tenants_name(), tenant)
            made = await self._replace(
                keys=[self._name(tenant), self._log_name(tenant)],
                args=[
                    was,
                    str(revision),
                    document,
                    tenant,
                    channel,
                    MAX_RECORDS,
                    *(() if record is None else (record,)),
                ],
            )
        return bool(made == 1)

    async def record(self, records: Sequence[bytes]) -> None:
        """See ControlStore.record."""
        pipeline = self._client.pipeline(transaction=False)
        for record in records:
            pipeline.xadd(self._log_name(COMMON_LOG), {"record": record}, maxlen=MAX_RECORDS)
        with outages_told():
            await pipeline.execute()

    async def records(self, after: Mapping[str, str]) -> Mapping[str, Sequence[Record]]:
        """See ControlStore.records. One round trip a node."""
        pipeline = self._client.pipeline(transaction=False)
        for log, id_ in after.items():
            pipeline.xrange(self._log_name(log), min=f"({id_}", count=RECORDS_A_READ)
        with outages_told():
            found = await pipeline.execute()
        logs = zip(after, found, strict=True)
        return {
            log: [(id_.decode(), fields.get(b"record", b"")) for id_, fields in rows]
            for log, rows in logs
            if rows
        }

    async def owe_edge(self, tenant: str, revision: int) -> None:
        """See ControlStore.owe_edge."""
        with outages_told():
            await self._owe(keys=[self._edge_name()], args=[tenant, revision])

    async def edge_has(self, tenant: str, revision: int) -> None:
        """See ControlStore.edge_has."""
        with outages_told():
            await self._has(keys=[self._edge_name()], args=[tenant, revision])

    async def owed_to_edge(self) -> Mapping[str, int]:
        """See ControlStore.owed_to_edge."""
        owed = await self._hash(self._edge_name())
        return {tenant.decode(): int(revision) for tenant, revision in owed.items()}

    async def take_turn(self, task: str, holder: str, life_s: float) -> bool:
        """See ControlStore.take_turn."""
        with outages_told():
            taken = await self._turn(
                keys=[f"{self._prefix}:ctl:turn:{task}"], args=[holder, round(life_s * 1000)]
            )
        return bool(taken)

    async def facts(self) -> Mapping[str, str]:
        """See ControlStore.facts."""
        facts = await self._hash(self._facts_name())
        return {name.decode(): value.decode() for name, value in facts.items()}

    async def keep_fact(self, name: str, value: str) -> None:
        """See ControlStore.keep_fact."""
        with outages_told():
            await self._client.hset(self._facts_name(), name, value)

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
            if self._reads is not None:
                await self._reads.close()
            await self._client.aclose()

    async def _field(self, tenant: str, name: str) -> bytes | None:
        with outages_told():
            return await cast(
                "Awaitable[bytes | None]", self._client.hget(self._name(tenant), name)
            )

    async def _hash(self, name: str) -> dict[bytes, bytes]:
        with outages_told():
            return await cast("Awaitable[dict[bytes, bytes]]", self._client.hgetall(name))

    def _log_name(self, log: str) -> str:
        return f"{self._prefix}:audit" + (f":{{{log}}}" if log else "")

    def _edge_name(self) -> str:
        return f"{self._prefix}:ctl:edge"

    def _facts_name(self) -> str:
        return f"{self._prefix}:ctl:facts"

    def _name(self, tenant: str) -> str:
        return f"{self._prefix}:ctl:{{{tenant}}}"

    def _tenants_name(self) -> str:
        return f"{self._prefix}:ctl:tenants"


def changed_channel(prefix: str) -> str:
    """Where replacements are told of."""
    return f"{prefix}:ctl:changed"
