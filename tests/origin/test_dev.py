"""Supervision: one log, one end for all parts."""

from __future__ import annotations

import asyncio
import io
import os
import signal
import sys
from typing import TYPE_CHECKING

import pytest
from rich.console import Console

from origin.dev import Part, PartDiedError, supervise

if TYPE_CHECKING:
    from pathlib import Path

FOREVER = "import signal\nsignal.pause()"


class Log(io.StringIO):
    """What a console prints, for a test to wait on."""

    def __init__(self) -> None:
        super().__init__()
        self._grown = asyncio.Event()

    def write(self, text: str) -> int:
        """Take more text."""
        self._grown.set()
        return super().write(text)

    async def holds(self, text: str, times: int = 1) -> None:
        """Wait until `text` has been printed `times` times."""
        while self.getvalue().count(text) < times:
            self._grown.clear()
            await self._grown.wait()

    @property
    def lines(self) -> list[str]:
        """The lines so far."""
        return self.getvalue().splitlines()


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


async def run(*parts: Part, until: str, times: int = 1) -> list[str]:
    """Supervise until the log holds `until` so many times, then press Ctrl-C; return the log."""
    log = Log()

    async def on_ready() -> None:
        await log.holds(until, times)
        os.kill(os.getpid(), signal.SIGINT)

    async with asyncio.timeout(60):
        await supervise(parts, Console(file=log, width=40), on_ready=on_ready)
    return log.lines


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
    long = "x" * 200
    speak = f"import sys; print('one'); print('{long}', file=sys.stderr); print('\\x1b[31mred')\n"
    log = await run(part("a", speak + FOREVER), part("long-name", FOREVER), until="red")
    assert "a         │ one" in log
    assert f"a         │ {long}" in log
    assert "a         │ red" in log


async def test_markup_in_a_log_is_text() -> None:
    """What a part prints is never interpreted."""
    log = await run(part("a", "print('[bold]x[/nonsense] :smile:')\n" + FOREVER), until=":smile:")
    assert "a │ [bold]x[/nonsense] :smile:" in log


async def test_an_endless_line_is_cut() -> None:
    """A part that never ends its line does not fill the memory, and loses nothing."""
    code = "import sys; sys.stdout.write('x' * 300_000 + '\\nend\\n')\n" + FOREVER
    log = await run(part("a", code), until="end")
    assert len(log) > 2
    assert sum(line.count("x") for line in log) == 300_000


async def test_a_part_that_dies_stops_the_others(tmp_path: Path) -> None:
    """The error names it and how it ended; the others are gone when it is raised."""
    log = Log()
    said = tmp_path / "said"
    speak = f"import os; print('pid', os.getpid()); open('{said}', 'w').close()\n"
    wait = f"import os, time\nwhile not os.path.exists('{said}'): time.sleep(0.01)\n"
    other = part("other", speak + FOREVER)
    dying = part("dying", wait + "raise SystemExit(7)")

    async def on_ready() -> None:
        await log.holds("pid")

    with pytest.raises(PartDiedError, match=r"^dying stopped by itself \(exit status 7\)$"):
        await supervise([other, dying], Console(file=log, width=40), on_ready=on_ready)
    assert [alive(pid) for pid in pids(log.lines)] == [False]


async def test_a_part_may_die_before_it_is_ready() -> None:
    """Nobody waits for the readiness of what is gone."""
    dying = part("a", "import os; os.kill(os.getpid(), 9)", asyncio.Event())
    with pytest.raises(PartDiedError, match="killed by SIGKILL"):
        await run(dying, part("b", FOREVER), until="never")


async def test_a_failure_to_announce_stops_all() -> None:
    """An error of ours is raised, with nothing left behind."""
    log = Log()
    quiet = part("a", "import os; print('pid', os.getpid())\n" + FOREVER)

    async def on_ready() -> None:
        await log.holds("pid")
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        await supervise([quiet], Console(file=log, width=40), on_ready=on_ready)
    assert [alive(pid) for pid in pids(log.lines)] == [False]


async def test_parts_stop_in_reverse_order() -> None:
    """What was given first serves the others, so it goes last."""
    code = (
        "import signal, sys\n"
        "signal.signal(signal.SIGTERM, lambda *_: (print('bye'), sys.exit(0)))\n"
        "print('up')\nsignal.pause()"
    )
    log = await run(part("a", code), part("b", code), until="up", times=2)
    assert [line for line in log if "bye" in line] == ["b │ bye", "a │ bye"]


async def test_a_stubborn_part_and_its_children_are_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    """SIGKILL takes the whole session after a while."""
    monkeypatch.setattr("origin.dev.STOP_TIMEOUT_S", 0.2)
    code = (
        "import os, signal\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "os.fork()\n"
        "os.write(1, b'pid %d\\n' % os.getpid())\n"
        "while True: signal.pause()"
    )
    log = await run(part("a", code), until="pid", times=2)
    assert len(pids(log)) == 2
    async with asyncio.timeout(10):
        while any(alive(pid) for pid in pids(log)):  # noqa: ASYNC110 - init reaps the orphan
            await asyncio.sleep(0.01)
