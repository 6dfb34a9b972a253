"""Background tasks: tried again, kept up, ended."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping

import pytest
from pydantic import SecretStr

from origin.app import create_app
from origin.settings import Settings
from origin.stores.memory import MemoryStore
from origin.stores.memory_control import MemoryControlStore
from origin.tasks import end, kept_up, until_done
from tests.support.engines import ScriptedEngine
from tests.support.waiting import until


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What is slept in this thread, at once. Others may have servers that sleep."""
    slept: list[float] = []
    sleep, here = asyncio.sleep, threading.get_ident()

    async def sleep_at_once(seconds: float) -> None:
        if threading.get_ident() != here:
            return await sleep(seconds)
        slept.append(seconds)
        return await sleep(0)

    monkeypatch.setattr(asyncio, "sleep", sleep_at_once)
    return slept


async def test_attempts_come_ever_less_often(pauses: list[float]) -> None:
    """And no more once one is done."""
    left = 8

    async def attempt() -> bool:
        nonlocal left
        left -= 1
        return not left

    await until_done(attempt)
    assert pauses == [0.5, 1, 2, 4, 8, 10, 10]


async def test_what_fails_unforeseen_begins_anew(
    pauses: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    """It is logged without its text, which may quote a prompt; its own end is the end."""
    left = 7

    async def run() -> None:
        nonlocal left
        left -= 1
        if left:
            raise ValueError("secret words")

    await kept_up(run, "the part")
    assert pauses == [0.5, 1, 2, 4, 8, 10]
    assert caplog.text.count("the part: ValueError") == 6
    assert "secret words" not in caplog.text


async def test_what_is_kept_up_can_be_ended() -> None:
    """While it runs, and while it pauses."""

    async def run() -> None:
        await asyncio.Event().wait()

    async def fail() -> None:
        raise ValueError

    kept = [asyncio.create_task(kept_up(each, "the part")) for each in (run, fail)]
    await asyncio.sleep(0)
    await end(kept)
    assert all(task.cancelled() for task in kept)


class FaultyStore(MemoryControlStore):
    """Fails as no store should, once."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0

    async def facts(self) -> Mapping[str, str]:
        """Fail, the first time."""
        self.asked += 1
        if self.asked == 1:
            raise ValueError
        return await super().facts()


async def test_origin_keeps_its_parts_up() -> None:
    """One that meets a bug is not lost to the process."""
    store = FaultyStore()
    settings = Settings(secret=SecretStr("a secret of the tests, long enough"))
    app = create_app(settings, engine=ScriptedEngine(), store=MemoryStore(), control_store=store)
    messages: asyncio.Queue[dict[str, str]] = asyncio.Queue()
    sent: asyncio.Queue[object] = asyncio.Queue()
    lifespan = asyncio.ensure_future(app({"type": "lifespan"}, messages.get, sent.put))
    messages.put_nowait({"type": "lifespan.startup"})
    await sent.get()

    async def is_secret_noted() -> bool:
        return "secret" in await MemoryControlStore.facts(store)

    await until(is_secret_noted)
    messages.put_nowait({"type": "lifespan.shutdown"})
    await lifespan
