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

Documents and times travel with a checksum (SHA-1, which Redis' scripts can tell): one that was
damaged on its way may well be another valid one, which forgets a purge. A TCP checksum is short.

The connections are a small pool of its own: an L1 under load does not hold up a purge.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Mapping, Sequence
from typing import Self, cast

from origin.stores.contract import StoreError
from origin.stores.control_contract import COMMON_LOG, MAX_RECORDS, Record
from origin.stores.redis_store import DEFAULT_TIMEOUT_S, RedisClient, outages_told, redis_client

DEFAULT_MAX_CONNECTIONS = 8

RECORDS_A_READ = 1000

# A connection may break after the script has run and before its answer is read; the repetition must
# find its own work done, hence the second test. Who may not publish still may change.
# KEYS: document, log. ARGV: expected, revision, document, sum, tenant, channel, length of the log,
# then the record, if any. Answers the sum where the document is there now, nothing where another.
_REPLACE = """
local sum = redis.sha1hex(KEYS[1] .. ' ' .. ARGV[2] .. ' ' .. ARGV[3])
if sum ~= ARGV[4] then return redis.error_reply('ERR damaged') end
local held = redis.call('HMGET', KEYS[1], 'revision', 'document')
if held[1] == ARGV[2] and held[2] == ARGV[3] then return sum end
if (held[1] or '') ~= ARGV[1] then return false end
if ARGV[8] then redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[7], '*', 'record', ARGV[8]) end
redis.call('HSET', KEYS[1], 'revision', ARGV[2], 'document', ARGV[3])
redis.pcall('PUBLISH', ARGV[6], ARGV[5])
return sum
"""

# KEYS: document. ARGV: `revision` for that alone. What is not there is told as such, sum and all.
_READ = """
local held = redis.call('HMGET', KEYS[1], 'revision', 'document')
local revision, document = held[1] or '', held[2] or ''
if ARGV[1] == 'revision' then document = '' end
return {revision, document, redis.sha1hex(KEYS[1] .. ' ' .. revision .. ' ' .. document)}
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

# KEYS: one of the node whose clock counts. A time that was damaged would be as good as any other.
_TIME = """
local time = redis.call('TIME')
local told = time[1] .. ' ' .. time[2]
return told .. ' ' .. redis.sha1hex(told)
"""


class RedisControlStore:
    """The control store contract on one `redis.asyncio` client, which it owns."""

    def __init__(self, client: RedisClient, *, prefix: str = "encore") -> None:
        self._client = client
        self._prefix = prefix
        self._replace, self._read, self._owe, self._has, self._turn, self._time = map(
            client.register_script, (_REPLACE, _READ, _OWE, _HAS, _TURN, _TIME)
        )

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
            told, _, found = (await self._time(keys=[self._tenants_name()])).rpartition(b" ")
            _require_sum(told, found)
            seconds, microseconds = map(int, told.split())
        return seconds * 1000 + microseconds // 1000

    async def revision(self, tenant: str) -> int | None:
        """See ControlStore.revision."""
        with outages_told():
            revision, _ = await self._held(tenant, "revision")
            return int(revision) if revision else None

    async def load(self, tenant: str) -> bytes | None:
        """See ControlStore.load."""
        with outages_told():
            _, document = await self._held(tenant)
            return document or None

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
        digest = _sum(self._summed(tenant, b"%d" % revision, document))
        with outages_told():
            if expected is None:
                await self._client.sadd(self._tenants_name(), tenant)
            made = await self._replace(
                keys=[self._name(tenant), self._log_name(tenant)],
                args=[
                    was,
                    str(revision),
                    document,
                    digest,
                    tenant,
                    channel,
                    MAX_RECORDS,
                    *(() if record is None else (record,)),
                ],
            )
            if made not in (None, digest):
                raise StoreError("Redis: another's answer")
        return made is not None

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
            return {
                log: [(id_.decode(), fields.get(b"record", b"")) for id_, fields in rows]
                for log, rows in zip(after, found, strict=True)
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
        with outages_told():
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
        with outages_told():
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
            await self._client.aclose()

    async def _held(self, tenant: str, what: str = "") -> tuple[bytes, bytes]:
        """(revision, document); see `_READ`."""
        revision, document, found = await self._read(keys=[self._name(tenant)], args=[what])
        _require_sum(self._summed(tenant, revision, document), found)
        return revision, document

    def _summed(self, tenant: str, revision: bytes, document: bytes) -> bytes:
        return b"%s %s %s" % (self._name(tenant).encode(), revision, document)

    async def _hash(self, name: str) -> dict[bytes, bytes]:
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


def _sum(data: bytes) -> bytes:
    """As Redis tells it. Against accidents, not against anybody."""
    return hashlib.sha1(data, usedforsecurity=False).hexdigest().encode()


def _require_sum(data: bytes, found: bytes) -> None:
    if _sum(data) != found:
        raise StoreError("Redis: damaged")


def changed_channel(prefix: str) -> str:
    """Where replacements are told of."""
    return f"{prefix}:ctl:changed"
