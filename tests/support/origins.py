"""`encore origin` processes, as users run them."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from tests.support.commands import environ

START_S = 60


@dataclass(frozen=True, kw_only=True)
class Origin:
    """A process that is ready."""

    url: str
    process: subprocess.Popen[bytes]

    def kill(self) -> None:
        """`kill -9`."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


@contextmanager
def origin_process(folder: Path, **variables: str) -> Iterator[Origin]:
    """An origin with these variables, ready, for the length of the block; it may die within."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = str(listener.getsockname()[1])
    with (folder / f"log-{port}").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "origin.cli", "origin"],
            cwd=folder,
            env=environ(ENCORE_ORIGIN_PORT=port, **variables),
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    origin = Origin(url=f"http://127.0.0.1:{port}", process=process)
    try:
        _until_ready(origin)
        yield origin
    finally:
        process.terminate()
        process.wait(timeout=30)


def _until_ready(origin: Origin) -> None:
    deadline_s = time.monotonic() + START_S
    while True:
        try:
            if httpx.get(origin.url + "/readyz").is_success:
                return
        except httpx.HTTPError:
            pass
        assert origin.process.poll() is None
        assert time.monotonic() < deadline_s
        time.sleep(0.05)
