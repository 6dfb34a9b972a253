"""Runs several processes of the origin behind one listening socket, and replaces those that die.

The socket is inherited, not one for each (SO_REUSEPORT): a connection that no worker has accepted
waits in the one queue, so it is lost with no worker. Workers are processes of their own, each with
its own engine; they share what is in Redis.

It knows processes, nothing of what they do. uvicorn's own supervisor is not used, for it starts a
dead worker again at once, however often it dies, and leaves its workers behind when it is killed.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
from typing import TYPE_CHECKING

from origin.processes import leashed
from origin.tasks import end

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

REFUSED = 2
"""The exit status of a worker that says what is wrong with its settings."""
FIRST_BACKOFF_S = 0.5
MAX_BACKOFF_S = 30.0
HEALTHY_S = 60.0
"""A worker that lived for so long did not die of how it was started."""
log = logging.getLogger(__name__)


class WorkerRefusedError(Exception):
    """A worker could not start, and has said why."""


async def run_workers(
    command: Sequence[str],
    count: int,
    *,
    environ: Mapping[str, str],
    listener: socket.socket,
    stop_timeout_s: float,
    on_death: Callable[[int], None],
) -> None:
    """Keep `count` processes of `command` running until SIGINT or SIGTERM; then stop them.

    Each inherits `listener`, and closes it in its own time: it is closed here as soon as they are
    told to stop, or connections would go on being made that nobody accepts. Who has not ended after
    `stop_timeout_s` is killed. `on_death` is told the process id of each that has ended. Raises
    WorkerRefusedError, with every worker stopped, where one refuses when all are started.
    """
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopping.set)

    async def start() -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *leashed(command),
            env=environ,
            stdin=asyncio.subprocess.DEVNULL,
            pass_fds=[listener.fileno()],
            start_new_session=True,
        )

    async def keep() -> bool:
        """Whether it was told to stop, and not the worker that refused."""
        quick_deaths, is_first = 0, True
        while not stopping.is_set():
            began_s = loop.time()
            process = await start()
            await _until_either(process, stopping)
            if process.returncode is None:
                await _stop(process, listener, stop_timeout_s)
                break
            on_death(process.pid)
            if is_first and process.returncode == REFUSED:
                stopping.set()
                return False
            is_first = False
            quick_deaths = 0 if loop.time() - began_s >= HEALTHY_S else quick_deaths + 1
            wait_s = min(MAX_BACKOFF_S, FIRST_BACKOFF_S * 2.0 ** max(0, quick_deaths - 1))
            log.error(
                "worker %d ended with status %d; another starts in %.1f s",
                process.pid,
                process.returncode,
                wait_s,
            )
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stopping.wait(), wait_s)
        return True

    try:
        stopped = await asyncio.gather(*(keep() for _ in range(count)))
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)
    if not all(stopped):
        raise WorkerRefusedError


async def _until_either(process: asyncio.subprocess.Process, stopping: asyncio.Event) -> None:
    tasks = [asyncio.create_task(process.wait()), asyncio.create_task(stopping.wait())]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        await end(tasks)


async def _stop(
    process: asyncio.subprocess.Process, listener: socket.socket, timeout_s: float
) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
    # No worker is started any more. Each has a listener of its own, to the end of its drain.
    listener.close()
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(process.wait(), timeout_s)
    with contextlib.suppress(ProcessLookupError):
        process.kill()
    await process.wait()
