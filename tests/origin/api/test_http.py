"""What every route does with HTTP."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from origin.api.http import headers_of, while_connected


async def test_a_cancellation_at_the_very_end_is_not_lost() -> None:
    """It comes when the block is done and the watching ends: whoever cancelled must see it."""

    async def receive() -> Any:
        await asyncio.Event().wait()

    async def answer() -> None:
        async with while_connected(receive):
            pass

    task = asyncio.create_task(answer())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def test_repeated_headers_are_one_list() -> None:
    """RFC 9110 section 5.3: joined by commas, in order."""
    raw = [(b"a", b"1"), (b"b", b"2"), (b"a", b"3"), (b"a", b"4")]
    assert headers_of({"headers": raw}) == {"a": "1, 3, 4", "b": "2"}
