"""Whose pass of the model comes next: one thread, on which all requests take steps in turn.

A request is a generator. It yields the events that it has to say, and before each pass of the model
which kind of pass that is; going on with it makes that pass. This module knows no model and no
request: it decides who goes on. One thread because the cores are shared anyway, and because what
requests share (known prefixes) then needs no locks and is found by whoever comes next.

A round is at most one block of one prompt, and then one token of each request that decodes. So a
long prompt holds nobody up by more than a block, and prompts are read first come, first served,
each to its end: of several that begin alike the first one reads the beginning for all.

Invariants
1. At most `concurrency` jobs have begun and not ended; the rest wait in the order they came.
2. At most `limit` jobs are there; more are refused.
3. Between two tokens of a job the thread makes at most one block of another's prompt and one token
   of each other job.
4. A job that is left, and every job of a scheduler that closes, makes at most the pass under way.
   It never begins where it has not begun.
5. What one job raises ends that job alone. Nothing of a prompt or an answer is logged.
6. The thread sleeps while there is nothing to do; nobody waits for it but `close`.
"""

from __future__ import annotations

import logging
import threading
import traceback
from collections import deque
from enum import Enum
from typing import TYPE_CHECKING, Final

from origin.engine.contract import Event
from origin.metrics import ENGINE_JOBS
from shared.errors import EncoreError, InternalError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from contextlib import AbstractContextManager

    Emit = Callable[[Event | EncoreError], None]
    Steps = Generator["Event | Turn", None, None]

_RETRY_AFTER_S: Final = 2
logger = logging.getLogger(__name__)


class Turn(Enum):
    """What a job does next, yielded before it does it."""

    PREFILL = "a block of a prompt"
    DECODE = "a token of an answer"


class Job:
    """One request on its way through the scheduler, which alone touches it."""

    def __init__(self, emit: Emit) -> None:
        self.emit = emit
        self.steps: Steps | None = None
        self.turn: Turn | None = None
        """None where it has not begun."""
        self.is_left = False


class Scheduler:
    """One engine's thread, and the jobs that take turns on it.

    `context` is entered on the thread for as long as it runs. Methods may be called from any
    thread; none but `close` waits for a job.
    """

    def __init__(
        self, *, concurrency: int, limit: int, context: Callable[[], AbstractContextManager[object]]
    ) -> None:
        self._concurrency = concurrency
        self._limit = limit
        self._context = context
        self._changed = threading.Condition()
        self._jobs: set[Job] = set()
        """All: those not started yet, those that wait, those that run."""
        self._waiting: deque[Job] = deque()
        self._running: list[Job] = []
        """In the order they came; of the thread alone."""
        self._errands: deque[Callable[[], object]] = deque()
        self._is_closing = False
        self._thread = threading.Thread(target=self._work, name="encore-engine", daemon=True)
        self._thread.start()

    @property
    def jobs(self) -> int:
        """How many jobs are there: entered, and neither ended nor left."""
        return len(self._jobs)

    def enter(self, emit: Emit) -> Job:
        """Make a job, which counts from now on; `emit` is told its events, on the thread.

        The last of them is `Finished` or an error. Raises InternalError 503 where there are too
        many, or it closes.
        """
        with self._changed:
            if self._is_closing:
                raise _closed()
            if len(self._jobs) >= self._limit:
                raise _unavailable(
                    "The model is busy: too many requests are waiting.", "overloaded"
                )
            job = Job(emit)
            self._jobs.add(job)
            ENGINE_JOBS.inc()
            return job

    def start(self, job: Job, steps: Steps) -> None:
        """Let an entered job take its turns. Raises InternalError 503 where it closes."""
        with self._changed:
            if self._is_closing:
                raise _closed()
            job.steps = steps
            self._waiting.append(job)
            self._changed.notify()

    def leave(self, job: Job) -> None:
        """Nobody listens to a job any more: it is over soon, if it is not already."""
        with self._changed:
            job.is_left = True
            if job.steps is None or job in self._waiting:
                if job.steps is not None:
                    self._waiting.remove(job)
                self._forget(job)

    def do(self, errand: Callable[[], object]) -> None:
        """Have something done on the thread, between passes; nothing where it closes."""
        with self._changed:
            self._errands.append(errand)
            self._changed.notify()

    def close(self) -> None:
        """End every job with a 503, and wait for the thread. A second time does nothing."""
        with self._changed:
            self._is_closing = True
            self._changed.notify()
        self._thread.join()

    def _work(self) -> None:
        with self._context():
            while self._begin_some():
                self._round()
            while self._running:
                job = self._running[-1]
                job.emit(_closed())
                self._end(job)
        with self._changed:
            for job in list(self._jobs):
                job.emit(_closed())
                self._forget(job)
            self._waiting.clear()

    def _begin_some(self) -> bool:
        """Wait until there is something to do, and let jobs begin; False where it closes."""
        with self._changed:
            while not (self._running or self._waiting or self._errands or self._is_closing):
                self._changed.wait()
            errands = list(self._errands)
            self._errands.clear()
            while self._waiting and len(self._running) < self._concurrency:
                self._running.append(self._waiting.popleft())
        for errand in errands:
            try:
                errand()
            except Exception as error:  # noqa: BLE001 -- the boundary of the thread
                failed(error)
        return not self._is_closing

    def _round(self) -> None:
        for job in [job for job in self._running if job.turn is None]:
            self._advance(job)
        block = next((job for job in self._running if job.turn is Turn.PREFILL), None)
        if block is not None:
            self._advance(block)
        for job in [job for job in self._running if job.turn is Turn.DECODE or job.is_left]:
            self._advance(job)

    def _advance(self, job: Job) -> None:
        """Let a job make its next pass, and say what comes of it."""
        if self._is_closing:
            return
        try:
            if not job.is_left and self._says(job):
                return
        except EncoreError as error:
            job.emit(error)
        except Exception as error:  # noqa: BLE001 -- the boundary of the thread
            job.emit(failed(error))
        self._end(job)

    def _says(self, job: Job) -> bool:
        """Emit what a job says up to its next pass; False where there is none."""
        assert job.steps is not None  # noqa: S101 -- started
        for said in job.steps:
            if isinstance(said, Turn):
                job.turn = said
                return True
            job.emit(said)
        return False

    def _end(self, job: Job) -> None:
        """Free what a job holds, at once; it may not have come to its end."""
        self._running.remove(job)
        assert job.steps is not None  # noqa: S101 -- started
        try:
            job.steps.close()
        except Exception as error:  # noqa: BLE001 -- the boundary of the thread
            failed(error)
        with self._changed:
            self._forget(job)

    def _forget(self, job: Job) -> None:
        if job in self._jobs:
            self._jobs.remove(job)
            ENGINE_JOBS.dec()


def failed(error: Exception) -> InternalError:
    """Log what went wrong, and make of it what a client is told."""
    # Type and place only: a message may quote the prompt.
    place = "".join(traceback.format_tb(error.__traceback__))
    logger.error("generation failed: %s\n%s", type(error).__name__, place)
    return InternalError("The model failed to generate an answer.", code="engine_error")


def _unavailable(message: str, code: str) -> InternalError:
    return InternalError(message, status=503, code=code, retry_after_s=_RETRY_AFTER_S)


def _closed() -> InternalError:
    return _unavailable("The model is shutting down.", "shutting_down")
