"""Supervision: one log, one end for all parts."""

from __future__ import annotations

import asyncio
import io
import os
import signal
import sys

import pytest
from rich.console import Console

from origin.dev import Part, PartDiedError, supervise

FOREVER = "import signal\nsignal.pause()"


def part(name: str, code: str, ready: asyncio.Event | None = None) -> Part:
    """A part that runs some Python; ready at once, or when `ready` is set."""

    async def is_ready() -> None:
        if ready is not None:
            await ready.wait()

    return Part(
        name=name,
        style="green",
        command=[sys.executable, "-u", "-c", code],
        environ=dict(os.environ),
        ready=is_ready,
    )


async def run(*parts: Part, interrupt: bool = True) -> tuple[list[str], bool]:
    """Supervise until ready, then interrupt; return the log and whether ready was announced."""
    out = io.StringIO()
    announced = False

    async def on_ready() -> None:
        nonlocal announced
        announced = True
        if interrupt:
            os.kill(os.getpid(), signal.SIGINT)

    try:
        await supervise(parts, Console(file=out, width=40), on_ready=on_ready)
    finally:
        log = out.getvalue().splitlines()
    return log, announced


def pids(log: list[str]) -> list[int]:
    """The process ids that parts printed."""
    return [int(line.split("pid ")[1]) for line in log if "pid " in line]


def alive(pid: int) -> bool:
    """Whether a process exists (a zombie of ours does not count: it was waited for)."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def test_lines_carry_the_name_of_their_part() -> None:
    """Output and errors of all parts make one log; long lines stay whole, colours stay out."""
    ready = asyncio.Event()
    long = "x" * 200
    speak = f"import sys; print('one'); print('{long}', file=sys.stderr); print('\\x1b[31mred')\n"
    asyncio.get_running_loop().call_later(0.5, ready.set)
    log, announced = await run(part("a", speak + FOREVER, ready), part("long-name", FOREVER))
    assert announced
    assert "a         │ one" in log
    assert f"a         │ {long}" in log
    assert "a         │ red" in log


async def test_markup_in_a_log_is_text() -> None:
    """What a part prints is never interpreted."""
    ready = asyncio.Event()
    asyncio.get_running_loop().call_later(0.5, ready.set)
    log, _ = await run(part("a", "print('[bold]x[/nonsense] :smile:')\n" + FOREVER, ready))
    assert "a │ [bold]x[/nonsense] :smile:" in log


async def test_an_endless_line_is_cut() -> None:
    """A part that never ends its line does not fill the memory, and loses nothing."""
    ready = asyncio.Event()
    code = "import sys; sys.stdout.write('x' * 300_000)\n" + FOREVER
    asyncio.get_running_loop().call_later(1.0, ready.set)
    log, _ = await run(part("a", code, ready))
    assert len(log) > 1
    assert sum(line.count("x") for line in log) == 300_000


async def test_a_part_that_dies_stops_the_others() -> None:
    """The error names it and how it ended; the others are gone when it is raised."""
    out = io.StringIO()
    other = part("other", "import os; print('pid', os.getpid())\n" + FOREVER)
    dying = part("dying", "import time; time.sleep(0.5); raise SystemExit(7)")

    async def on_ready() -> None:
        pass

    with pytest.raises(PartDiedError, match=r"^dying stopped by itself \(exit status 7\)$"):
        await supervise([other, dying], Console(file=out, width=40), on_ready=on_ready)
    (pid,) = pids(out.getvalue().splitlines())
    assert not alive(pid)


async def test_a_part_may_die_before_it_is_ready() -> None:
    """Nobody waits for the readiness of what is gone."""
    with pytest.raises(PartDiedError, match="killed by SIGKILL"):
        await run(
            part("a", "import os; os.kill(os.getpid(), 9)", asyncio.Event()), part("b", FOREVER)
        )


async def test_a_failure_to_announce_stops_all() -> None:
    """An error of ours is raised, with nothing left behind."""
    out = io.StringIO()
    quiet = part("a", "import os; print('pid', os.getpid())\n" + FOREVER)

    async def on_ready() -> None:
        await asyncio.sleep(0.5)
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        await supervise([quiet], Console(file=out, width=40), on_ready=on_ready)
    assert [alive(pid) for pid in pids(out.getvalue().splitlines())] == [False]


async def test_parts_stop_in_reverse_order() -> None:
    """What was given first serves the others, so it goes last."""
    code = (
        "import signal, sys\n"
        "signal.signal(signal.SIGTERM, lambda *_: (print('bye'), sys.exit(0)))\n"
        "print('up')\nsignal.pause()"
    )
    ready = asyncio.Event()
    asyncio.get_running_loop().call_later(1.0, ready.set)
    log, _ = await run(part("a", code, ready), part("b", code))
    assert [line for line in log if "bye" in line] == ["b │ bye", "a │ bye"]


async def test_a_stubborn_part_and_its_children_are_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    """SIGKILL takes the whole session after a while."""
    monkeypatch.setattr("origin.dev.STOP_TIMEOUT_S", 0.2)
    code = (
        "import os, signal\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "os.fork()\n"
        "print('pid', os.getpid())\n"
        "while True: signal.pause()"
    )
    ready = asyncio.Event()
    asyncio.get_running_loop().call_later(1.0, ready.set)
    log, _ = await run(part("a", code, ready))
    assert len(pids(log)) == 2
    async with asyncio.timeout(5):
        while any(alive(pid) for pid in pids(log)):  # noqa: ASYNC110 - init reaps the orphan
            await asyncio.sleep(0.01)
