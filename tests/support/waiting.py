"""Waiting for what comes by itself, without judging how long that takes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

STEP_S = 0.005
STEPS = 6000


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    """Wait until it holds; fail where it does not for half a minute."""
    for _ in range(STEPS):
        if await holds():
            return
        await asyncio.sleep(STEP_S)
    raise AssertionError("it never came")
