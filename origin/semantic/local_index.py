"""The index of one machine: in memory, and as entries in Redis by which its processes agree.

    add, remove, clear ──> memory, at once
                       └─> queue ── in turn, tried again ──> Redis: entries, then events
    start ──> the stream's position ──> all entries, in batches ──> events since then, as they come

Memory answers alone: while Redis is down it goes on, and what is written waits (bounded in number
and time; beyond that it is counted and dropped). A process that may have missed an event (Redis was
lost, or the stream was cut past its position) reads all entries anew, and drops what is not there.

What this process has not written yet, or writes while it reads, is newer than what it reads: that
is left alone then, and read again when the event of the write comes.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from typing import Self

from tenacity import (
    AsyncRetrying,
    retry_if_exception_type,
    stop_after_delay,
    wait_random_exponential,
)

from origin.metrics import SEMANTIC_INDEX_WRITES
from origin.semantic.index import Candidate, Entry, Vector
from origin.semantic.memory_index import MAX_ENTRIES, MemoryIndex
from origin.semantic.redis_entries import ENTRIES_A_READ, Change, Name, RedisEntries
from origin.stores.contract import StoreError
from origin.stores.redis_store import redis_client
from origin.tasks import end, kept_up

DEFAULT_TIMEOUT_S = 1.0
"""No request waits for it."""
DEFAULT_MAX_CONNECTIONS = 4
WAIT_S = 1.0
"""How long a process waits for events in Redis at a time."""
AGAIN_S = 1.0
"""After an outage the stream is read again after that long."""
PATIENCE_S = 10.0
"""How long writes are tried again. A shutdown waits for that long at most."""
MAX_WAITING = 10_000
"""Writes, some 2 kB each."""
WRITES_A_TRIP = 100
_BACKOFF = wait_random_exponential(multiplier=0.1, max=2.0)
log = logging.getLogger(__name__)


class LocalIndex:
    """SemanticIndex in memory. Without `entries` it is alone, and forgets with the process."""

    is_exact = True

    def __init__(
        self,
        *,
        identity: str,
        dims: int,
        entries: RedisEntries | None = None,
        max_entries: int = MAX_ENTRIES,
        patience_s: float = PATIENCE_S,
        max_waiting: int = MAX_WAITING,
    ) -> None:
        self.identity = identity
        self._memory = MemoryIndex(dims=dims, max_entries=max_entries)
        self._replica = entries and _Replica(
            self._memory, entries, patience_s=patience_s, max_waiting=max_waiting
        )

    @classmethod
    def from_url(
        cls,
        url: str,
        *,
        identity: str,
        dims: int,
        prefix: str = "encore",
        max_entries: int = MAX_ENTRIES,
        timeout_s: float = DEFAULT_TIMEOUT_S,
    ) -> Self:
        """An index that agrees with others by the Redis at `url`; see `redis_client`."""
        client = redis_client(
            url, timeout_s=timeout_s, max_connections=DEFAULT_MAX_CONNECTIONS, wait_s=WAIT_S
        )
        entries = RedisEntries(client, identity=identity, dims=dims, prefix=prefix)
        return cls(identity=identity, dims=dims, entries=entries, max_entries=max_entries)

    async def start(self) -> None:
        """See SemanticIndex.start."""
        if self._replica:
            self._replica.start()

    async def close(self) -> None:
        """See SemanticIndex.close. Waits for what is to be written, `PATIENCE_S` at most."""
        if self._replica:
            await self._replica.close()

    async def add(
        self,
        entry: Entry,
        *,
        now_ms: int,  # noqa: ARG002 - what is over is not found, and swept
        private: bool = False,
    ) -> None:
        """See SemanticIndex.add."""
        self._memory.add(entry, private=private)
        if self._replica and not private:
            self._replica.write([Change(name=(entry.tenant, entry.key), entry=entry)])

    async def find(
        self,
        tenant: str,
        partition: str,
        form: str,
        *,
        now_ms: int,
        private: bool = False,  # noqa: ARG002 - all of it is in memory
    ) -> Candidate | None:
        """See SemanticIndex.find."""
        return self._memory.find(tenant, partition, form, now_ms=now_ms)

    async def search(
        self,
        tenant: str,
        partition: str,
        vector: Vector,
        *,
        count: int,
        now_ms: int,
        private: bool = False,  # noqa: ARG002 - see `find`
    ) -> list[Candidate]:
        """See SemanticIndex.search."""
        return self._memory.search(tenant, partition, vector, count=count, now_ms=now_ms)

    async def remove(self, tenant: str, keys: Sequence[str]) -> None:
        """See SemanticIndex.remove."""
        self._memory.remove(tenant, keys)
        if self._replica:
            self._replica.write(Change(name=(tenant, key)) for key in keys)

    async def clear(self, tenant: str | None = None) -> None:
        """See SemanticIndex.clear."""
        self._memory.clear(tenant)
        if self._replica:
            self._replica.write([Change(name=(tenant, None))])

    async def sweep(self, now_ms: int) -> None:
        """See SemanticIndex.sweep."""
        self._memory.sweep(now_ms)

    async def count(self, tenant: str | None = None) -> int:
        """See SemanticIndex.count."""
        return self._memory.count(tenant)


class _Replica:
    """Keeps a memory and what is in Redis alike."""

    def __init__(
        self, memory: MemoryIndex, entries: RedisEntries, *, patience_s: float, max_waiting: int
    ) -> None:
        self._memory = memory
        self._entries = entries
        self._patience_s = patience_s
        self._max_waiting = max_waiting
        self._queue: deque[Change] = deque()
        self._unwritten: Counter[Name] = Counter()
        """Names in the queue, or being written."""
        self._reading: set[Name] = set()
        """Names being read that nobody here has changed since."""
        self._position: str | None = None
        """In the stream; None where all entries are to be read first."""
        self._tasks: list[asyncio.Task[None]] = []
        self._writer: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._tasks.append(asyncio.create_task(kept_up(self._follow, "semantic index")))

    def write(self, changes: Iterable[Change]) -> None:
        """Have changes written to Redis, behind those before."""
        for change in changes:
            tenant, key = change.name
            self._reading -= {
                name
                for name in self._reading
                if tenant in (None, name[0]) and key in (None, name[1])
            }
            if len(self._queue) >= self._max_waiting:
                SEMANTIC_INDEX_WRITES.labels("dropped").inc()
                continue
            self._queue.append(change)
            self._unwritten[change.name] += 1
        if self._queue and (self._writer is None or self._writer.done()):
            self._writer = asyncio.create_task(self._write_queue())

    async def close(self) -> None:
        await end(self._tasks)
        if self._writer is not None:
            await asyncio.wait([self._writer], timeout=self._patience_s)
            await end([self._writer])
        try:
            await self._entries.close()
        except StoreError as exc:
            log.debug("semantic index: not closed: %s", exc)

    async def _write_queue(self) -> None:
        retrying = AsyncRetrying(
            retry=retry_if_exception_type(StoreError),
            wait=_BACKOFF,
            stop=stop_after_delay(self._patience_s),
            reraise=True,
        )
        while self._queue:
            batch = [self._queue.popleft()]
            # What everything is removed by is a batch of its own: it stays in its place.
            while (
                self._queue and len(batch) < WRITES_A_TRIP and _are_single(batch[0], self._queue[0])
            ):
                batch.append(self._queue.popleft())
            outcome = "dropped"
            try:
                try:
                    await retrying(self._entries.write, batch)
                finally:
                    # Before it is told: the event of it must not be passed over.
                    self._unwritten -= Counter(change.name for change in batch)
                await retrying(self._entries.tell, batch)
                outcome = "stored"
            except StoreError as exc:
                log.warning("semantic index: %d changes not written: %s", len(batch), exc)
            finally:
                SEMANTIC_INDEX_WRITES.labels(outcome).inc(len(batch))

    async def _follow(self) -> None:
        is_failing = False
        while True:
            try:
                if self._position is None:
                    self._position = await self._read_all()
                changed = await self._entries.changed(self._position, WAIT_S)
                if changed is None:
                    self._position = None
                    continue
                names, position = changed
                await self._read_changed(names)
                self._position = position
                is_failing = False
            except StoreError as exc:
                if not is_failing:
                    log.warning("semantic index: others are not followed: %s", exc)
                is_failing = True
                await asyncio.sleep(AGAIN_S)

    async def _read_all(self) -> str:
        """Make the memory what Redis has. Returns the position from which on events count."""
        position = await self._entries.position()
        self._memory.stamp += 1
        stamp = self._memory.stamp
        left = self._memory.max_entries
        async for names in self._entries.names():
            await self._read(names)
            left -= len(names)
            if left <= 0:  # more would only drive out what was read
                break
        self._memory.keep_since(stamp, besides=self._unwritten)
        return position

    async def _read_changed(self, changed: Sequence[Name]) -> None:
        for tenant, key in changed:
            if key is None:
                self._memory.clear(tenant)
        names = list(dict.fromkeys(name for name in changed if name[1] is not None))
        for start in range(0, len(names), ENTRIES_A_READ):
            await self._read(names[start : start + ENTRIES_A_READ])

    async def _read(self, names: Sequence[Name]) -> None:
        """Have in memory of these names what Redis has, unless this process knows better."""
        names = [name for name in names if not self._is_unwritten(name)]
        self._reading = set(names)
        for name, entry in zip(names, await self._entries.read(names), strict=True):
            if name not in self._reading:
                continue
            if entry is not None:
                self._memory.add(entry)
            elif name[0] is not None and name[1] is not None:
                self._memory.remove(name[0], [name[1]])

    def _is_unwritten(self, name: Name) -> bool:
        return any(each in self._unwritten for each in (name, (name[0], None), (None, None)))


def _are_single(*changes: Change) -> bool:
    return all(change.name[1] is not None for change in changes)
