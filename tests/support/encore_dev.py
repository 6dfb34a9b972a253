"""`encore dev` as a user runs it: embedded Redis, origin with the demo model, local edge."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.ports import free_port

ROOT = Path(__file__).resolve().parents[2]
READY_TIMEOUT_S = 120
STOP_TIMEOUT_S = 30


@dataclass(frozen=True, kw_only=True)
class EncoreDev:
    """A running `encore dev`. All it keeps is below `folder`."""

    edge_url: str
    origin_url: str
    folder: Path
    process: subprocess.Popen[bytes]

    def log(self) -> str:
        """All it has printed so far."""
        return (self.folder / "log").read_text()


@contextmanager
def encore_dev(folder: Path, **environment: str) -> Iterator[EncoreDev]:
    """Run it in `folder` on free ports for the length of the block; end it as Ctrl-C does."""
    edge_port, origin_port = free_port(), free_port()
    with (folder / "log").open("ab") as log:
        said_before = log.tell()
        process = subprocess.Popen(
            [sys.executable, "-m", "origin.cli", "dev"],
            cwd=folder,
            env={
                **os.environ,
                "PYTHONPATH": str(ROOT),
                "COLUMNS": "120",
                "ENCORE_EDGE_PORT": str(edge_port),
                "ENCORE_ORIGIN_PORT": str(origin_port),
                **environment,
            },
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    running = EncoreDev(
        edge_url=f"http://127.0.0.1:{edge_port}",
        origin_url=f"http://127.0.0.1:{origin_port}",
        folder=folder,
        process=process,
    )
    try:
        _wait_until_ready(running, said_before)
        yield running
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            raise


def _wait_until_ready(running: EncoreDev, said_before: int) -> None:
    """Until the banner, in what it says from that byte of its log on."""
    deadline = time.monotonic() + READY_TIMEOUT_S
    while b"Encore is ready" not in (running.folder / "log").read_bytes()[said_before:]:
        if running.process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"`encore dev` did not get ready:\n{running.log()}")
        time.sleep(0.1)
