"""Single-flight: one generation, and everyone who waits for it.

Identical misses that meet in this process share one flight. A late waiter is told what has been
said so far, then hears the rest live. Where its events come from a flight does not know:
`origin.relay` has flights of several processes share one generation.

Invariants
1. A flight runs in a task of its own: its first waiter leaving does not end it for the others.
2. When the last waiter leaves an unfinished flight, its generation is cancelled, unless it is
   followed from other processes; a finished one goes on to be stored.
3. A request that insists on a new answer (`no-cache`) never joins a flight that began before it,
   and an answer that it has replaced is not stored over its own.
4. What a flight's entry will be known by stands in `Flight.to_be` from its start, so that whoever
   reads of a purge can tell whether it may still be joined.
5. All methods run on one event loop; none may be called from another thread.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, assert_never

from origin.engine.contract import Chunk, Event, Finished
from origin.failures import describe
from origin.tasks import AGAIN_S
from shared.control_document import ControlDocument
from shared.controls import Controls
from shared.envelope import Envelope, Header
from shared.errors import EncoreError, InternalError, UpstreamError
from shared.keys import short_key

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Landed:
    """The end of a flight whose answer is somebody else's: made, and stored, elsewhere."""

    finished: Finished
    entry: Envelope | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Restarted:
    """What was said so far is void: another generation says all from the first."""


FlightEvent = Event | Landed | Restarted


class Leading(Protocol):
    """What a flight knows of the one who tells other processes of it."""

    token: int

    def deserted(self) -> None:
        """Stop the flight, whose last waiter here has left, unless somebody follows."""
        ...

    async def gather(self) -> Sequence[bytes]:
        """What those who follow wish of the entry, in their words, as late as can be."""
        ...

    async def end(self) -> None:
        """Tell of the flight's end. Raises nothing."""
        ...


class Flight:
    """One generation. Waiters hold it by `joined()` for as long as they listen."""

    def __init__(self, key: str, *, to_be: Header | None, document: ControlDocument) -> None:
        self.key = key
        self.to_be = to_be
        """What its entry will say of itself; None where none is to be stored."""
        self.revision = document.revision
        """Of the control document by which it was started."""
        self.document = document
        """The newest one by which somebody joined."""
        self.chunks: list[dict[str, Any]] = []
        self.finished: Finished | None = None
        self.entry: Envelope | None = None
        """Set with `finished` where the answer is to be stored."""
        self.error: EncoreError | None = None
        self.wishes: list[Controls] = []
        """What its waiters asked of the entry: each may tag it, and shorten its life."""
        self.one_of_many = False
        """One run makes this answer and others: it may fail for what nobody here asked."""
        self.superseded = False
        """A newer flight for the same key has begun: this one's answer is for its waiters only."""
        self.stopped = False
        self.is_leaving = False
        """Deserted, and about to stop unless it is followed: nobody joins it meanwhile."""
        self.leader: Leading | None = None
        """Where other processes may follow."""
        self.is_elsewhere = False
        """Whether the answer is another flight's."""
        self.on_ask: Callable[[], None] = lambda: None
        """Called when a waiter has asked something of the entry."""
        self._waiters = 0
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @contextmanager
    def joined(self) -> Iterator[None]:
        """Wait for this flight within the block."""
        self._waiters += 1
        try:
            yield
        finally:
            self._waiters -= 1
            if self.is_deserted:
                if self.leader is None:
                    self.stop()
                else:
                    self.leader.deserted()

    @property
    def is_deserted(self) -> bool:
        """Whether it goes on with nobody in this process waiting."""
        return self._waiters == 0 and not self.over

    def go_on(self, ended: Callable[[], None]) -> None:
        """Go on to the end though nobody waits; `ended` is called then. Once a flight."""
        self._waiters += 1
        if self._task is not None:
            self._task.add_done_callback(lambda _: ended())

    def stop(self) -> None:
        """End a flight that is not over, for all who wait."""
        # Set at once: a request that comes before the task has ended must not join it.
        self.error = _stopped()
        self.stopped = True
        if self._task is not None:
            self._task.cancel()

    def ask(self, controls: Controls, document: ControlDocument) -> None:
        """Note what a waiter asks of the entry, and by which document it may have it."""
        self.wishes.append(controls)
        if document.revision > self.document.revision:
            self.document = document
        self.on_ask()

    def become(self, to_be: Header, revision: int, *, is_elsewhere: bool) -> None:
        """Be known by this from now on: its answer is another flight's, or is not any more."""
        self.to_be, self.revision, self.is_elsewhere = to_be, revision, is_elsewhere

    @property
    def over(self) -> bool:
        """Whether nothing more will be said."""
        return self.finished is not None or self.error is not None

    async def listen(self) -> AsyncIterator[dict[str, Any]]:
        """Every chunk, from the first. Ends when the flight is over; raises its error.

        A flight that has begun anew is over for who was told something of the old one.
        """
        said, position = self.chunks, 0
        while True:
            if said is not self.chunks:
                if position:
                    raise _interrupted()
                said = self.chunks
            elif position < len(said):
                position += 1
                yield said[position - 1]
            elif self.over:
                break
            else:
                await self._changed.wait()
        if self.error is not None:
            raise self.error

    async def begun(self) -> None:
        """Wait for the first chunk or the end. Raises the error of a flight that said nothing."""
        while not self.chunks and not self.over:
            await self._changed.wait()
        if self.error is not None and not self.chunks:
            raise self.error

    async def result(self) -> Finished:
        """The finished answer. Raises the flight's error."""
        while not self.over:
            await self._changed.wait()
        if self.finished is None:
            raise self.error or _stopped()
        return self.finished

    async def landed(self) -> None:
        """Wait until the flight is over and its entry, if any, is stored. Raises nothing of it."""
        if self._task is not None:
            await asyncio.wait([self._task])

    def _say(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


Complete = Callable[[Finished], Awaitable[Envelope | None]]
Settle = Callable[[Flight], Awaitable[None]]


class Flights:
    """The flights of this process, by cache key."""

    def __init__(self, deadline_s: float) -> None:
        self._deadline_s = deadline_s
        self._by_key: dict[str, Flight] = {}
        self._tasks: dict[Flight, asyncio.Task[None]] = {}

    def find(self, key: str) -> Flight | None:
        """The flight that a new request for `key` may join, or that is storing its entry."""
        flight = self._by_key.get(key)
        if flight is None or flight.error is not None or flight.is_leaving:
            return None
        return flight

    def start(
        self,
        key: str,
        events: Callable[[Flight], AsyncGenerator[FlightEvent, None]],
        *,
        shared: bool,
        to_be: Header | None,
        document: ControlDocument,
        complete: Complete,
        settle: Settle,
    ) -> Flight:
        """Start a generation; join it before the next `await`, or it may end unheard.

        `complete` makes the entry of a finished answer, or None. `settle` follows the end, behind
        the answer, however it came: it keeps the entry. Only a `shared` flight is found by `find`.
        """
        flight = Flight(key, to_be=to_be, document=document)
        task = asyncio.create_task(self._fly(flight, events(flight), complete, settle))
        flight._task = task  # noqa: SLF001 - the two classes are one mechanism
        self._tasks[flight] = task
        task.add_done_callback(lambda _: self._tasks.pop(flight, None))
        if shared:
            if (older := self._by_key.get(key)) is not None:
                older.superseded = not older.is_leaving
            self._by_key[key] = flight
        return flight

    async def close(self) -> None:
        """Cancel every generation that is not over, and wait for what is being stored."""
        while self._tasks:
            for flight, task in tuple(self._tasks.items()):
                if not flight.over:
                    task.cancel()
            await asyncio.wait(self._tasks.values(), timeout=AGAIN_S)  # see origin.tasks

    async def _fly(
        self,
        flight: Flight,
        events: AsyncGenerator[FlightEvent, None],
        complete: Complete,
        settle: Settle,
    ) -> None:
        try:
            await self._listen(flight, events, complete)
            await settle(flight)
        except asyncio.CancelledError:
            if not flight.over:
                flight.error, flight.stopped = _stopped(), True
            flight._say()  # noqa: SLF001
            await settle(flight)
            raise
        finally:
            if self._by_key.get(flight.key) is flight:
                del self._by_key[flight.key]
            flight._say()  # noqa: SLF001

    async def _listen(
        self, flight: Flight, events: AsyncGenerator[FlightEvent, None], complete: Complete
    ) -> None:
        try:
            async with asyncio.timeout(self._deadline_s) as deadline, aclosing(events):
                async for event in events:
                    if flight.stopped:  # and its cancellation got lost: see origin.tasks
                        break
                    match event:
                        case Chunk():
                            flight.chunks.append(event.payload)
                        case Finished():
                            flight.entry = await complete(event)
                            flight.finished = event
                        case Landed():
                            flight.is_elsewhere = True
                            flight.entry = event.entry
                            flight.finished = event.finished
                        case Restarted():
                            flight.chunks = []
                        case _:
                            assert_never(event)
                    flight._say()  # noqa: SLF001
            if flight.finished is None:
                raise _interrupted()
        except EncoreError as error:
            flight.error = error
        except Exception as exc:  # noqa: BLE001 - an engine's bug must not hang its waiters
            if isinstance(exc, TimeoutError) and deadline.expired():
                flight.error = UpstreamError(
                    f"The answer took longer than {self._deadline_s:g} s.",
                    status=504,
                    code="deadline_exceeded",
                )
            else:
                log.error("generation %s: %s", short_key(flight.key), describe(exc))  # noqa: TRY400
                flight.error = InternalError("The generation failed.")
        if flight.error is not None:
            flight.finished = None
            flight.entry = None
        flight._say()  # noqa: SLF001


def _interrupted() -> UpstreamError:
    return UpstreamError("The answer broke off.", code="answer_interrupted")


def _stopped() -> InternalError:
    return InternalError("The generation was stopped.", status=503, retry_after_s=1)
