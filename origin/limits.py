"""How much may be under way at once, and for how long: what is beyond that is refused."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from shared.errors import EncoreError, InternalError

RETRY_AFTER_S = 1


def overloaded(message: str = "Too many requests are under way.") -> InternalError:
    """What is answered where there is no room: try again soon."""
    return InternalError(message, status=503, code="overloaded", retry_after_s=RETRY_AFTER_S)


class Room:
    """So much may be taken at once. Who finds none is refused: nobody waits for it."""

    def __init__(self, size: int, refusal: Callable[[], EncoreError] = overloaded) -> None:
        self._free = size
        self._refusal = refusal

    def take(self, amount: int = 1) -> None:
        """Take some, to be given back. Raises the refusal, with nothing taken."""
        if amount > self._free:
            raise self._refusal()
        self._free -= amount

    def give(self, amount: int = 1) -> None:
        """Give back what was taken."""
        self._free += amount


class Deadline:
    """Cancels tasks that are at something for longer than `seconds`.

    All have the same time, so one timer, for the oldest, does: a hit would notice a timer each.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._ends_s: dict[asyncio.Task[object], float] = {}
        self._overdue: set[asyncio.Task[object]] = set()
        self._timer: asyncio.TimerHandle | None = None

    def begin(self) -> asyncio.Task[object]:
        """Begin to count for the current task, which is returned, until `end`."""
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - only coroutines call this
        loop = asyncio.get_running_loop()
        self._ends_s[task] = loop.time() + self._seconds
        if self._timer is None:
            self._timer = loop.call_later(self._seconds, self._look)
        return task

    def end(self, task: asyncio.Task[object]) -> bool:
        """Stop counting; whether the task was cancelled for this, and for nothing else."""
        self._ends_s.pop(task, None)
        if task not in self._overdue:
            return False
        self._overdue.remove(task)
        return task.uncancel() == 0

    def _look(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = None
        for task, ends_s in list(self._ends_s.items()):  # the oldest first
            if ends_s > loop.time():
                self._timer = loop.call_at(ends_s, self._look)
                break
            del self._ends_s[task]
            self._overdue.add(task)
            task.cancel()
