"""Writes to L1, behind the answer: tried again for a while, bounded, counted.

What is kept of a generation is written in this order:

    entry ──> end of the lease

A process that dies in between leaves nothing wrong, and nothing that blocks:

- before both: the lease runs out, and who asks next generates;
- an entry without the lease's end: who asks finds the entry; who has asked before is given the
  lease when it runs out, with the entry;
- after both: done. The other order would give the lease to who cannot find the entry yet.

A store puts an entry whole or not at all, so none of it is ever half written. All that restricts
an entry (its tenant, its tags, `origin_only`) stands in it: no second write can be missing.

A write that fails is tried again when the lease has been given back already: who waits elsewhere
waits for no retry. Invariants:

1. What is late, or has no lease, replaces nothing newer: neither the entry of a lease given since
   (its token), nor one whose generation started no earlier.
2. A purge needs nothing from here: however late an entry comes, it says when its generation
   started.
3. Retries go one after another, with random growing waits: a store that is down is asked seldom,
   and one that comes back is not run over.
4. What waits is bounded, in number, bytes and time.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass

from tenacity import (
    AsyncRetrying,
    retry_if_exception_type,
    wait_random_exponential,
)

from origin.metrics import STORE_WRITES
from origin.stores.contract import Store, StoreError
from shared.envelope import Envelope, EnvelopeError, Header, decode_prefix, encode
from shared.keys import short_key

PATIENCE_S = 10.0
"""How long a write is tried again. A shutdown waits for that long at most."""
MAX_WAITING = 1000
MAX_WAITING_BYTES = 64 << 20
_BACKOFF = wait_random_exponential(multiplier=0.1, max=2.0)  # "full jitter"
_MIN_HEAD_BYTES = 64
"""Of what is no envelope, enough to know it again."""
log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Write:
    header: Header
    encoded: bytes
    token: int
    then: Callable[[], None] | None

    def done(self) -> None:
        """Count it, and say so."""
        STORE_WRITES.labels("stored").inc()
        if self.then is not None:
            self.then()


class Writes:
    """One per process. All methods run on one event loop."""

    def __init__(
        self,
        store: Store,
        *,
        patience_s: float = PATIENCE_S,
        max_waiting: int = MAX_WAITING,
        max_waiting_bytes: int = MAX_WAITING_BYTES,
    ) -> None:
        self._store = store
        self._patience_s = patience_s
        self._max_waiting = max_waiting
        self._max_waiting_bytes = max_waiting_bytes
        self._waiting: set[asyncio.Task[None]] = set()
        self._waiting_bytes = 0
        self._turn = asyncio.Lock()

    async def put(
        self,
        entry: Envelope,
        *,
        token: int,
        leased: bool = True,
        then: Callable[[], None] | None = None,
    ) -> None:
        """Write an entry; returns when that is done, or has failed once and waits for another try.

        `token` is that of `Store.put`. What was made without a lease (not `leased`) is no more than
        what is late: others may have made it, too. `then` is called once something is stored under
        its key, now or later, or never. Raises nothing; what became of it is counted.
        """
        write = _Write(header=entry.header, encoded=encode(entry), token=token, then=then)
        try:
            if leased:
                await self._store.put(
                    write.header.key, write.encoded, write.header.expires_ms, token=token
                )
            else:
                await self._write_unless_newer(write, than_ms=write.header.generation_started_ms)
        except StoreError as exc:
            self._wait(write, exc)
        else:
            write.done()

    async def close(self) -> None:
        """Wait for what waits, until it is written or given up."""
        if self._waiting:
            await asyncio.wait(self._waiting)

    def _wait(self, write: _Write, failed: StoreError) -> None:
        size_bytes = len(write.encoded)
        if (
            len(self._waiting) >= self._max_waiting
            or self._waiting_bytes + size_bytes > self._max_waiting_bytes
        ):
            STORE_WRITES.labels("dropped").inc()
            log.warning("L1: not stored %s: %s", short_key(write.header.key), failed)
            return
        self._waiting_bytes += size_bytes
        task = asyncio.create_task(self._write_later(write, failed))
        self._waiting.add(task)

        def forget(task: asyncio.Task[None]) -> None:
            self._waiting.discard(task)
            self._waiting_bytes -= size_bytes

        task.add_done_callback(forget)

    async def _write_later(self, write: _Write, failed: StoreError) -> None:
        retrying = AsyncRetrying(
            retry=retry_if_exception_type(StoreError),
            wait=_BACKOFF,
        )
        try:
            # Its turn may come late: a store that hangs takes its time with each.
            async with asyncio.timeout(self._patience_s):
                async for attempt in retrying:
                    with attempt:
                        if attempt.retry_state.attempt_number == 1:
                            raise failed  # that was `put`
                        async with self._turn:
                            # What started when this one did is this one, after all.
                            started_ms = write.header.generation_started_ms
                            await self._write_unless_newer(write, than_ms=started_ms - 1)
        except TimeoutError:
            STORE_WRITES.labels("failed").inc()
            log.warning("L1: not stored %s: %s", short_key(write.header.key), failed)
        else:
            write.done()

    async def _write_unless_newer(self, write: _Write, *, than_ms: int) -> None:
        """Write, unless the generation of what is there started later than that."""
        header = write.header
        there = await self._store.get(header.key)
        over = None
        if there is not None:
            started_ms, over = _known_by(there)
            if started_ms > than_ms:
                return
        await self._store.put(
            header.key,
            write.encoded,
            header.expires_ms,
            only_new=there is None,
            token=write.token,
            over=over,
        )


def head_of(encoded: bytes) -> bytes:
    """What names an envelope: all of it is in the head's checksum. Raises EnvelopeError."""
    return encoded[: decode_prefix(encoded)[1]]


def _known_by(there: bytes) -> tuple[int, bytes]:
    """(when the generation of an entry started, its head); -1 for what is no entry."""
    try:
        header, end = decode_prefix(there)
    except EnvelopeError:
        return -1, there[:_MIN_HEAD_BYTES]
    return header.generation_started_ms, there[:end]
