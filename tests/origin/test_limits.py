"""What is beyond a limit is refused; what takes too long is ended."""

from __future__ import annotations

import asyncio

import pytest

from origin.limits import Deadline, Room
from shared.errors import ClientError, InternalError


def test_room_is_taken_and_given_back() -> None:
    """Who finds none is told when to come again, and has taken none."""
    room = Room(3)
    room.take(2)
    with pytest.raises(InternalError) as refused:
        room.take(2)
    assert (refused.value.status, refused.value.code) == (503, "overloaded")
    assert refused.value.retry_after_s
    room.take()
    room.give(3)
    room.take(3)


def test_refusal_may_be_another() -> None:
    """For what is somebody else's limit."""
    with pytest.raises(ClientError):
        Room(0, lambda: ClientError("No.")).take()


async def test_what_takes_too_long_is_cancelled() -> None:
    """Each when its own time is over, by one timer."""
    deadline = Deadline(0.02)
    ended: list[int] = []

    async def work(number: int) -> None:
        task = deadline.begin()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            assert deadline.end(task)
            ended.append(number)

    tasks = [asyncio.create_task(work(0))]
    await asyncio.sleep(0.01)
    tasks.append(asyncio.create_task(work(1)))
    await asyncio.gather(*tasks)
    assert ended == [0, 1]


async def test_what_is_done_in_time_is_left_alone() -> None:
    """Whatever the task does next."""
    deadline = Deadline(0.01)
    for _ in range(2):
        assert not deadline.end(deadline.begin())
        await asyncio.sleep(0.03)


async def test_another_cancellation_is_not_taken_for_it() -> None:
    """Who cancels the task at the same time means it."""
    deadline = Deadline(0.01)
    outcome: list[bool] = []

    async def work() -> None:
        task = deadline.begin()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            outcome.append(deadline.end(task))

    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    deadline._overdue.clear()
    both = asyncio.create_task(work())
    await asyncio.sleep(0)
    both.cancel()
    deadline._ends_s[both] = 0.0
    deadline._look()
    await asyncio.wait([both])
    assert outcome == [False, False]
