"""What becomes of background tasks: tried until they are done, kept up, and ended."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from origin.failures import describe

AGAIN_S = 0.1
FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 10.0
log = logging.getLogger(__name__)


async def until_done(attempt: Callable[[], Awaitable[bool]]) -> None:
    """Make an attempt again and again, ever less often, until it returns True."""
    pause_s = FIRST_PAUSE_S
    while not await attempt():
        await asyncio.sleep(pause_s)
        pause_s = min(2 * pause_s, LONGEST_PAUSE_S)


async def kept_up(run: Callable[[], Awaitable[None]], what: str) -> None:
    """Run what goes on for as long as the process, or comes to its own end; again where it fails.

    It handles what it foresees. This is for a bug: such a task would end unseen, for what holds a
    task hides its exception until that is asked for.
    """
    pause_s = FIRST_PAUSE_S
    while True:
        try:
            await run()
        except Exception as exc:  # noqa: BLE001 - whatever it is
            log.error("%s: %s", what, describe(exc))  # noqa: TRY400
        else:
            return
        await asyncio.sleep(pause_s)
        pause_s = min(2 * pause_s, LONGEST_PAUSE_S)


async def end(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Cancel tasks, and wait until they have ended. Raises nothing of theirs.

    Again and again: in Python 3.11 `asyncio.wait_for`, which redis-py sends by, loses a
    cancellation that comes together with the result (CPython issue 86296).
    """
    left = set(tasks)
    while left:
        for task in left:
            task.cancel()
        _, left = await asyncio.wait(left, timeout=AGAIN_S)
