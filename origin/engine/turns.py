"""Who generates now: live requests in the order they came, and warm-ups when nobody else wants to.

A warm-up waits here, in front of the engine and of single-flight, until it gets a place, and holds
it from then on. So a live request that meets its flight joins a generation that runs.

Invariants
1. While a live request waits, no warm-up gets a place. Nor does one get the last of several places:
   it is left to the live request that comes next.
2. A place that becomes free goes to the live request that has waited longest, then to warm-ups.
3. A warm-up that joins another's generation gives its place back first (`step_aside`): that one may
   be waiting for it.
4. At most `queue_limit` live requests wait; more are refused.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

from origin.engine.around import EngineAround
from origin.limits import overloaded
from shared.requests import EmbeddingRequest, Request

if TYPE_CHECKING:
    from origin.engine.contract import Engine, Event

FEW = 4
"""Generations at once up to which an engine without places counts as idle enough to be warmed."""


class _WarmUp:
    """A warm-up's place: its own, and that of the generations which it causes."""

    def __init__(self, turns: Turns) -> None:
        self._turns = turns
        self._holders = 1
        self._is_aside = False

    def hold(self) -> bool:
        """Hold the place, to be left; False where it has been given back."""
        self._holders += bool(self._holders)
        return self._holders > 0

    def leave(self) -> None:
        """Hold it no more; the last one gives it back."""
        self._holders -= 1
        if not self._holders:
            self._turns._give()  # noqa: SLF001 - the two classes are one mechanism

    def step_aside(self) -> None:
        """End the warm-up's own hold, once."""
        if not self._is_aside:
            self._is_aside = True
            self.leave()


_warm_up: ContextVar[_WarmUp | None] = ContextVar("warm_up", default=None)


class Turns:
    """The places of one process's engine. All methods run on one event loop.

    Without `places` live requests never wait: somebody else's API has a queue of its own.
    """

    def __init__(self, places: int | None = None, *, queue_limit: int = 64) -> None:
        self._places = places
        self._queue_limit = queue_limit
        self._busy = 0
        """Generations and warm-ups that have places."""
        self._beside = 0
        """Those that take none: the embedder's, and what is passed through."""
        self._live: deque[asyncio.Future[None]] = deque()
        self._warm: deque[asyncio.Future[None]] = deque()
        self.room_for_warm_ups = FEW if places is None else max(1, places - 1)
        """How many may have places at once: one is left to who comes next, where there are two."""

    @asynccontextmanager
    async def live(self) -> AsyncIterator[None]:
        """Generate within the block, when it is this one's turn.

        Within a warm-up it is its own place that is used. Raises InternalError 503 where too many
        wait.
        """
        warm_up = _warm_up.get()
        if warm_up is not None and warm_up.hold():
            try:
                yield
            finally:
                warm_up.leave()
            return
        await self._enter()
        try:
            yield
        finally:
            self._give()

    @asynccontextmanager
    async def beside(self) -> AsyncIterator[None]:
        """Generate within the block, at once: it counts, and takes no place."""
        self._beside += 1
        try:
            yield
        finally:
            self._beside -= 1
            self._admit_warm_ups()

    @asynccontextmanager
    async def warm_up(self) -> AsyncIterator[None]:
        """Wait for a lull, then warm up within the block. What it generates has its place."""
        await self._lull()
        warm_up = _WarmUp(self)
        token = _warm_up.set(warm_up)
        try:
            yield
        finally:
            _warm_up.reset(token)
            warm_up.step_aside()

    async def _enter(self) -> None:
        if self._places is None or self._busy < self._places:
            self._busy += 1
            return
        if len(self._live) >= self._queue_limit:
            raise overloaded("The model is busy: too many requests are waiting.")
        await self._wait(self._live)

    async def _lull(self) -> None:
        if self._is_lull() and not self._warm:
            self._busy += 1
            return
        await self._wait(self._warm)

    async def _wait(self, queue: deque[asyncio.Future[None]]) -> None:
        """Wait until a place is handed over."""
        future = asyncio.get_running_loop().create_future()
        queue.append(future)
        try:
            await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled():
                self._give()  # handed over as its waiter left
            elif future in queue:
                queue.remove(future)
                self._admit_warm_ups()
            raise

    def _give(self) -> None:
        if not _hand_over(self._live):
            self._busy -= 1
            self._admit_warm_ups()

    def _admit_warm_ups(self) -> None:
        while self._is_lull() and _hand_over(self._warm):
            self._busy += 1

    def _is_lull(self) -> bool:
        return not self._live and self._busy + self._beside < self.room_for_warm_ups


def _hand_over(queue: deque[asyncio.Future[None]]) -> bool:
    while queue:
        future = queue.popleft()
        if not future.done():
            future.set_result(None)
            return True
    return False


def step_aside() -> None:
    """Called by who is about to wait for what another generates: a warm-up needs no place for it.

    The other may be a live request that waits for this very place.
    """
    warm_up = _warm_up.get()
    if warm_up is not None:
        warm_up.step_aside()


class OrderlyEngine(EngineAround):
    """The engine contract over another engine, whose runs take turns."""

    def __init__(self, engine: Engine, turns: Turns) -> None:
        super().__init__(engine)
        self._turns = turns

    async def run(
        self, request: Request, *, tenant: str | None = None
    ) -> AsyncGenerator[Event, None]:
        """See Engine.run. The embedder has a queue of its own, whose batches take turns."""
        is_embedding = isinstance(request, EmbeddingRequest)
        turn = self._turns.beside() if is_embedding else self._turns.live()
        async with turn, aclosing(self._engine.run(request, tenant=tenant)) as events:
            async for event in events:
                yield event
