"""Who generates now: live requests, fairly between tenants, and warm-ups when nobody else wants to.

A warm-up waits here, in front of the engine and of single-flight, until it gets a place, and holds
it from then on. So a live request that meets its flight joins a generation that runs.

Invariants
1. While a live request waits, no warm-up gets a place. Nor does one get the last of several places:
   it is left to the live request that comes next.
2. A place that becomes free goes to a live request, then to warm-ups. Of the tenants that wait, the
   one with the fewest generations gets it, of several such the one that got its last place longest
   ago, and of a tenant's requests the one that has waited longest.
3. A warm-up that joins another's generation gives its place back first (`step_aside`): that one may
   be waiting for it.
4. At most `queue_limit` live requests wait; more are refused.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
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
        self._live: dict[str | None, deque[asyncio.Future[None]]] = {}
        """Live requests that wait, by tenant; never an empty queue."""
        self._waiting = 0
        self._running: Counter[str | None] = Counter()
        """Live generations that have places, by tenant."""
        self._served: dict[str | None, int] = {}
        """When each tenant got its last place, by the number of the place given."""
        self._given = 0
        self._warm: deque[asyncio.Future[None]] = deque()
        self.room_for_warm_ups = FEW if places is None else max(1, places - 1)
        """How many may have places at once: one is left to who comes next, where there are two."""

    @asynccontextmanager
    async def live(self, tenant: str | None = None) -> AsyncIterator[None]:
        """Generate within the block, when it is this one's turn among the tenants.

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
        await self._enter(tenant)
        try:
            yield
        finally:
            self._end(tenant)

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

    async def _enter(self, tenant: str | None) -> None:
        if self._places is None or self._busy < self._places:
            self._busy += 1
            self._begin(tenant)
            return
        if self._waiting >= self._queue_limit:
            raise overloaded("The model is busy: too many requests are waiting.")
        queue = self._live.setdefault(tenant, deque())
        self._waiting += 1
        future = asyncio.get_running_loop().create_future()
        queue.append(future)
        try:
            await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled():
                self._end(tenant)  # handed over as its waiter left
            elif future in queue:
                self._leave(tenant, queue, future)
                self._admit_warm_ups()
            raise

    def _begin(self, tenant: str | None) -> None:
        """Count a place that `tenant` has got."""
        self._given += 1
        self._running[tenant] += 1
        self._served[tenant] = self._given

    def _end(self, tenant: str | None) -> None:
        """Give a live request's place back."""
        self._running[tenant] -= 1
        if not self._running[tenant]:
            del self._running[tenant]
        self._give()

    async def _lull(self) -> None:
        if self._is_lull() and not self._warm:
            self._busy += 1
            return
        future = asyncio.get_running_loop().create_future()
        self._warm.append(future)
        try:
            await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled():
                self._give()  # handed over as its waiter left
            elif future in self._warm:
                self._warm.remove(future)
            raise

    def _give(self) -> None:
        while self._live:
            tenant = min(
                self._live, key=lambda each: (self._running[each], self._served.get(each, 0))
            )
            queue = self._live[tenant]
            future = queue[0]
            self._leave(tenant, queue, future)
            if not future.done():
                self._begin(tenant)
                future.set_result(None)
                return
        self._busy -= 1
        self._admit_warm_ups()

    def _leave(
        self, tenant: str | None, queue: deque[asyncio.Future[None]], future: asyncio.Future[None]
    ) -> None:
        """Take a live request out of the queue of its tenant."""
        queue.remove(future)
        self._waiting -= 1
        if not queue:
            del self._live[tenant]

    def _admit_warm_ups(self) -> None:
        while self._is_lull() and self._warm:
            future = self._warm.popleft()
            if not future.done():
                self._busy += 1
                future.set_result(None)

    def _is_lull(self) -> bool:
        return not self._live and self._busy + self._beside < self.room_for_warm_ups


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
        self, request: Request, *, tenant: str | None = None, scope: str | None = None
    ) -> AsyncGenerator[Event, None]:
        """See Engine.run. The embedder has a queue of its own, whose batches take turns."""
        is_embedding = isinstance(request, EmbeddingRequest)
        turn = self._turns.beside() if is_embedding else self._turns.live(tenant)
        run = self._engine.run(request, tenant=tenant, scope=scope)
        async with turn, aclosing(run) as events:
            async for event in events:
                yield event
