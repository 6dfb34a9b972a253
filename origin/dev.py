"""Runs several parts as children with one log: what `encore dev` is made of.

It knows processes and lines of text, nothing of what the parts do. Every part runs until all are
told to stop, by Ctrl-C, SIGTERM, or one of them ending by itself, which is a failure. Parts stop in
the reverse of the order they are given in: SIGTERM first, SIGKILL for what will not.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.text import Text

from origin.processes import leashed

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from rich.console import Console

STOP_TIMEOUT_S = 10.0
_LINE_LIMIT_BYTES = 1 << 16


class PartDiedError(Exception):
    """A part ended by itself; the text says which and how."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """A program to keep running.

    `ready` returns once the part serves; it may raise, and is cancelled with everything else.
    """

    name: str
    style: str
    command: Sequence[str]
    environ: Mapping[str, str]
    ready: Callable[[], Awaitable[None]]


async def supervise(
    parts: Sequence[Part], console: Console, *, on_ready: Callable[[], Awaitable[None]]
) -> None:
    """Run `parts` until interrupted; `on_ready` is awaited once all of them are ready.

    Returns after SIGINT or SIGTERM, with every part stopped. Raises PartDiedError, likewise.
    """
    interrupted = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, interrupted.set)
    processes: list[asyncio.subprocess.Process] = []
    logs: list[asyncio.Task[None]] = []
    width = max(len(part.name) for part in parts)
    try:
        for part in parts:
            process = await asyncio.create_subprocess_exec(
                *leashed(part.command),
                env=part.environ,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                start_new_session=True,
            )
            processes.append(process)
            logs.append(asyncio.create_task(_log(process, part, width, console)))
        await _until_interrupted(parts, processes, interrupted, on_ready)
    finally:
        for process in reversed(processes):
            await _stop(process)
        await asyncio.gather(*logs)
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)


async def _until_interrupted(
    parts: Sequence[Part],
    processes: Sequence[asyncio.subprocess.Process],
    interrupted: asyncio.Event,
    on_ready: Callable[[], Awaitable[None]],
) -> None:
    async def announce() -> None:
        await asyncio.gather(*(part.ready() for part in parts))
        await on_ready()

    ending = asyncio.create_task(interrupted.wait())
    announcing = asyncio.create_task(announce())
    deaths = [asyncio.create_task(process.wait()) for process in processes]
    tasks = [ending, announcing, *deaths]
    try:
        await asyncio.wait([ending, announcing, *deaths], return_when=asyncio.FIRST_COMPLETED)
        if announcing.done():
            announcing.result()
            await asyncio.wait([ending, *deaths], return_when=asyncio.FIRST_COMPLETED)
        if ending.done():
            return
        for part, process, death in zip(parts, processes, deaths, strict=True):
            if death.done():
                raise PartDiedError(f"{part.name} stopped by itself ({_ending(process)})")
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _log(
    process: asyncio.subprocess.Process, part: Part, width: int, console: Console
) -> None:
    """Print what a part says, line by line; a line without an end is cut into pieces."""
    assert process.stdout is not None  # noqa: S101 - it was asked for
    prefix = Text(f"{part.name:<{width}} │ ", style=part.style)
    rest = b""
    while data := await process.stdout.read(_LINE_LIMIT_BYTES):
        *lines, rest = (rest + data).split(b"\n")
        if len(rest) > _LINE_LIMIT_BYTES:
            lines, rest = [*lines, rest], b""
        for line in lines:
            console.print(prefix + Text.from_ansi(line.decode(errors="replace")), soft_wrap=True)
    if rest:
        console.print(prefix + Text.from_ansi(rest.decode(errors="replace")), soft_wrap=True)


async def _stop(process: asyncio.subprocess.Process) -> None:
    """End a part; its whole session goes, for a part may have children of its own."""
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(process.wait(), STOP_TIMEOUT_S)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    await process.wait()


def _ending(process: asyncio.subprocess.Process) -> str:
    code = process.returncode
    assert code is not None  # noqa: S101 - it has ended
    return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"
