"""Warm-ups that somebody asked for over HTTP: kept until they are done, worked on by one process.

A job's requests go through the pipeline like any other, one after another, by the control document
that rules then, and only while nobody else wants the engine (`origin.engine.turns`).

Invariants
1. What was acknowledged is done at least once, or counted as failed, or its time is up: a process
   that dies is followed by another, which begins with what was not noted as done. A repetition is a
   hit.
2. In Redis lies nothing of a prompt but sealed. Nothing of one is logged.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
import zlib
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import assert_never

from origin.control import Control
from origin.embeddings import Batches, is_batch
from origin.encryption import EncryptionError, open_bytes, seal_bytes
from origin.engine.turns import Turns
from origin.exact_tier import Hit
from origin.failures import describe
from origin.metrics import WARM_UPS
from origin.pipeline import Generating, Pipeline
from origin.quiet_hours import QuietHours
from origin.stores.contract import StoreError
from origin.stores.job_contract import LEASE_S, JobState, JobStore, Lease
from origin.tasks import end
from origin.warm_requests import WarmRequest, read
from shared import json_text
from shared.errors import ClientError, EncoreError, InternalError
from shared.keys import KeyRings

LIFE_MS = 86_400_000
"""How long a job may take, from when it may begin; then it ends as it is."""
QUIET_LIFE_MS = 3 * LIFE_MS
"""The same of one that has quiet hours only: it goes on in those of the next two days."""
POLL_S = 2.0
ATTEMPTS = 5
MAX_RETRY_WAIT_S = 60
"""A request that is told to wait for longer has failed."""
CACHED, GENERATED, STORED, TOKENS = "cached", "generated", "stored", "tokens"
FAILED = "failed:"
log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class JobView:
    """A job's state, and since or from when it may go on, in ms of Unix time."""

    id: str
    state: JobState
    begins_ms: int
    is_early: bool
    """Whether that is still to come."""


class WarmJobs:
    """One per process, beside its pipeline. All methods run on one event loop.

    `clock_ms` tells quiet hours; `sleep` lets seconds pass.
    """

    def __init__(
        self,
        store: JobStore,
        *,
        pipeline: Pipeline,
        batches: Batches,
        control: Control,
        keys: KeyRings,
        turns: Turns,
        quiet_hours: QuietHours | None = None,
        clock_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._store = store
        self._pipeline = pipeline
        self._batches = batches
        self._control = control
        self._keys = keys
        self._turns = turns
        self._quiet_hours = quiet_hours
        self._clock_ms = clock_ms
        self._sleep = sleep
        self._woken = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Work on jobs from now on, until `close`."""
        self._task = asyncio.create_task(self._work())

    async def add(self, tenant: str, requests: Sequence[WarmRequest], *, quiet: bool) -> JobView:
        """Keep a job; durable once this returns.

        Raises ClientError where there are no quiet hours or too many jobs, InternalError 503.
        """
        if quiet and self._quiet_hours is None:
            raise ClientError(
                "There are no quiet hours here: the operator has to set ENCORE_QUIET_HOURS.",
                param="when",
                code="no_quiet_hours",
            )
        job = secrets.token_hex(16)
        sealed = await asyncio.to_thread(self._sealed, job, tenant, requests)
        wait_ms = self._wait_ms() if quiet else 0
        try:
            state = await self._store.add(
                job,
                tenant=tenant,
                sealed=sealed,
                total=len(requests),
                quiet=quiet,
                starts_in_ms=wait_ms,
                life_ms=QUIET_LIFE_MS if quiet else LIFE_MS,
            )
        except StoreError as exc:
            raise jobs_unavailable() from exc
        if state is None:
            raise ClientError(
                "Too much is waiting to be warmed: wait until jobs are done.",
                status=429,
                type="rate_limit_error",
                code="too_many_jobs",
                retry_after_s=60,
            )
        self._woken.set()
        return self._view(job, state)

    async def view(self, tenant: str, job: str) -> JobView:
        """How far a tenant's job is. Raises ClientError 404, InternalError 503."""
        try:
            state = await self._store.state(job)
        except StoreError as exc:
            raise jobs_unavailable() from exc
        if state is None or state.tenant != tenant:
            raise ClientError("There is no such job (any more).", status=404, code="no_job")
        return self._view(job, state)

    async def close(self) -> None:
        """Stop working, leave what is not done to others, and close the store."""
        if self._task is not None:
            await end([self._task])
        await self._store.close()

    def _view(self, job: str, state: JobState) -> JobView:
        wait_ms = self._wait_ms() if state.quiet and state.done < state.total else 0
        begins_ms = self._clock_ms() + wait_ms if wait_ms else state.starts_ms
        return JobView(id=job, state=state, begins_ms=begins_ms, is_early=wait_ms > 0)

    def _wait_ms(self) -> int:
        """How long it is until quiet hours."""
        return 0 if self._quiet_hours is None else self._quiet_hours.wait_ms(self._clock_ms())

    async def _work(self) -> None:
        outage = False
        while True:
            self._woken.clear()
            lease = None
            try:
                lease = await self._store.claim(quiet=not self._wait_ms())
                if lease is not None:
                    await self._hold(lease)
                outage = False
            except StoreError as exc:
                if not outage:
                    log.warning("warm-up jobs: %s", exc)
                outage = True
                lease = None
            except Exception as exc:  # noqa: BLE001 - a bug must not end all warming
                log.error("warm-up jobs: %s", describe(exc))  # noqa: TRY400
                lease = None
            if lease is None:
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._woken.wait(), POLL_S)

    async def _hold(self, lease: Lease) -> None:
        """Work on a job for as long as it is held. Raises StoreError."""
        progress = _Progress(self._store, lease)
        work = asyncio.create_task(self._do(lease, progress))
        beat = asyncio.create_task(self._beat(progress))
        try:
            await asyncio.wait([work, beat], return_when=asyncio.FIRST_COMPLETED)
        finally:
            await end([work, beat])
            with suppress(StoreError):
                await self._store.release(lease)
        if not work.cancelled():
            work.result()

    async def _beat(self, progress: _Progress) -> None:
        """Keep the lease; returns when it is lost."""
        while True:
            await asyncio.sleep(LEASE_S / 3)
            with suppress(StoreError):  # it may answer before the lease has run out
                if not await progress.note():
                    return

    async def _do(self, lease: Lease, progress: _Progress) -> None:
        tenant = lease.state.tenant
        try:
            requests = await asyncio.to_thread(self._opened, lease)
        except (EncryptionError, EncoreError, ValueError, zlib.error) as exc:
            log.error("warm-up %s cannot be read: %s", lease.id[:8], type(exc).__name__)  # noqa: TRY400
            left = lease.state.total - progress.done
            await progress.note(left, {FAILED + "unreadable": left})
            return
        while progress.done < len(requests):
            if lease.state.quiet and self._wait_ms():
                return
            some = requests[progress.done : progress.done + self._turns.room_for_warm_ups]
            outcomes = await asyncio.gather(*(self._outcome(tenant, one) for one in some))
            counts: Counter[str] = Counter()
            for outcome in outcomes:
                counts.update(outcome)
                kind = next(iter(outcome))
                WARM_UPS.labels("failed" if kind.startswith(FAILED) else kind).inc()
            if not await progress.note(len(some), counts):
                return
        log.info("warm-up %s is done: %d requests", lease.id[:8], lease.state.total)

    def _sealed(self, job: str, tenant: str, requests: Sequence[WarmRequest]) -> bytes:
        plain = json_text.dumps([request.as_fields() for request in requests])
        about = _about(job, tenant)
        return seal_bytes(self._keys.current, tenant, about, zlib.compress(plain, 1))

    def _opened(self, lease: Lease) -> list[WarmRequest]:
        tenant = lease.state.tenant
        sealed = open_bytes(self._keys, tenant, _about(lease.id, tenant), lease.sealed)
        fields = json_text.parse_object(b'{"requests":%s}' % zlib.decompress(sealed))
        return [read(one) for one in fields["requests"]]

    async def _outcome(self, tenant: str, asked: WarmRequest) -> Mapping[str, int]:
        """What became of a request, as counts. Raises nothing."""
        attempt = 0
        while True:
            attempt += 1
            try:
                return await self._warm(tenant, asked)
            except EncoreError as error:
                wait_s = error.retry_after_s
                if wait_s is None or wait_s > MAX_RETRY_WAIT_S or attempt == ATTEMPTS:
                    return {FAILED + (error.code or error.type): 1}
            except Exception as exc:  # noqa: BLE001 - a bug must not end the others
                log.error("warm-up: %s", describe(exc))  # noqa: TRY400
                return {FAILED + "internal": 1}
            await self._sleep(wait_s)

    async def _warm(self, tenant: str, asked: WarmRequest) -> Mapping[str, int]:
        async with self._turns.warm_up():
            document = await self._control.document(tenant)
            if document is None:
                raise ClientError("There is no such tenant.", status=404, code="no_tenant")
            # Stale answers are made anew, and waited for.
            directives = asked.controls.directives
            fresh = replace(directives, min_fresh_s=directives.min_fresh_s or 0)
            query = self._pipeline.query(
                asked.endpoint,
                document,
                replace(asked.controls, directives=fresh),
                asked.body,
                ring=self._keys.current,
            )
            if is_batch(query):
                batch = await self._batches.answer(query)
                return _counts(cached=batch.served is not None, stored=batch.stored, tokens=0)
            answer = await self._pipeline.answer(query)
            match answer:
                case Hit():
                    return {CACHED: 1}
                case Generating():
                    with answer.flight.joined():
                        finished = await answer.flight.result()
                        entry = answer.flight.entry
                    await answer.flight.landed()
                    usage = finished.answer.get("usage") or {}
                    tokens = usage.get("total_tokens")
                    return _counts(
                        cached=False,
                        stored=entry is not None and answer.detail is None,
                        tokens=tokens if type(tokens) is int else 0,
                    )
                case _:
                    assert_never(answer)


class _Progress:
    """How far a held job is, noted one step at a time."""

    def __init__(self, store: JobStore, lease: Lease) -> None:
        self._store = store
        self._lease = lease
        self._turn = asyncio.Lock()
        self.done = lease.state.done

    async def note(self, more: int = 0, counts: Mapping[str, int] | None = None) -> bool:
        """Note that `more` requests are done; whether the lease still holds. Raises StoreError."""
        async with self._turn:
            held = await self._store.progress(self._lease, done=self.done + more, counts=counts)
            self.done += more if held else 0
            return held


def _counts(*, cached: bool, stored: bool, tokens: int) -> Mapping[str, int]:
    if cached:
        return {CACHED: 1}
    return {GENERATED: 1, STORED: int(stored), TOKENS: tokens}


def _about(job: str, tenant: str) -> bytes:
    return f"warm {tenant} {job}".encode()


def jobs_unavailable() -> InternalError:
    """What a request gets where jobs cannot be kept or asked about (503)."""
    return InternalError(
        "Jobs cannot be kept or looked up now.",
        status=503,
        code="jobs_unavailable",
        retry_after_s=1,
    )
