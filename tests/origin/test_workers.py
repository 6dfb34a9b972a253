"""`encore origin --workers N`: real processes on one port."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tests.origin.engine.fake_upstream import FakeUpstream, fake_upstream
from tests.support.commands import encore, environ
from tests.support.engines import chat_answer
from tests.support.ports import free_port

SECRET = "0123456789abcdef0123456789abcdef"
CHAT = "/v1/chat/completions"


class Origin:
    """The parent of workers, and what clients ask of its port."""

    def __init__(self, folder: Path, upstream: FakeUpstream, workers: int) -> None:
        self.folder = folder
        self.upstream = upstream
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        variables = {
            "ENCORE_SECRET": SECRET,
            "ENCORE_ORIGIN_PORT": str(self.port),
            "ENCORE_UPSTREAM": upstream.url,
        }
        with (folder / "log").open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "origin.cli", "origin", "--workers", str(workers)],
                cwd=folder,
                env=environ(**variables, PROMETHEUS_MULTIPROC_DIR="/nowhere"),
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        self.until(lambda: httpx.get(self.url + "/readyz").is_success)
        key = encore(folder, "keys", "create", "acme", **variables).stdout.strip()
        self._headers = {"authorization": f"Bearer {key}"}

    def log(self) -> str:
        """All that was said."""
        return (self.folder / "log").read_text()

    def until(self, works: Callable[[], object]) -> None:
        """Wait for something to be true."""
        deadline_s = time.monotonic() + 60
        while True:
            try:
                if works():
                    return
            except httpx.HTTPError:
                pass
            assert time.monotonic() < deadline_s, self.log()
            time.sleep(0.02)

    def workers(self) -> list[Any]:
        """The processes that hold the port, without their parent and what has just ended."""
        found = []
        for child in psutil.Process(self.process.pid).children():
            with suppress(psutil.NoSuchProcess):  # a zombie is one, too
                if child.cmdline()[1:3] == ["-m", "origin.cli"]:
                    found.append(child)
        return found

    def ask(self, text: str = "Hello") -> httpx.Response:
        """Ask on a connection of its own."""
        body = {"model": "m", "messages": [{"role": "user", "content": text}]}
        return httpx.post(self.url + CHAT, json=body, headers=self._headers, timeout=30)

    @contextmanager
    def stopped(self, worker: Any) -> Iterator[None]:
        """Let a worker do nothing within the block."""
        worker.suspend()
        try:
            yield
        finally:
            with suppress(psutil.NoSuchProcess):
                worker.resume()


@pytest.fixture
def upstream() -> Iterator[FakeUpstream]:
    """The model behind all workers."""
    with fake_upstream() as fake:
        fake.say(chat_answer("One answer.") | {"data": [{"id": "m"}]})
        yield fake


@pytest.fixture
def origin(tmp_path: Path, upstream: FakeUpstream) -> Iterator[Origin]:
    """Two workers that are ready, on a Redis that their parent has started."""
    running = Origin(tmp_path, upstream, 2)
    try:
        running.until(lambda: len(running.workers()) == 2)
        for index in (0, 1):
            with running.stopped(running.workers()[index]):
                running.until(lambda: httpx.get(running.url + "/readyz").is_success)
        yield running
    finally:
        running.process.terminate()
        running.process.wait(60)


def test_each_worker_answers_and_they_share_what_is_known(origin: Origin) -> None:
    """What one has generated is a hit at the other."""
    first, second = origin.workers()
    with origin.stopped(second):
        assert origin.ask().headers["cache-status"] == "encore-origin; fwd=miss; stored"
        # It is stored behind the answer.
        origin.until(lambda: "hit" in origin.ask().headers["cache-status"])
    with origin.stopped(first):
        assert origin.ask().headers["cache-status"].startswith("encore-origin; hit")


def test_killed_worker_costs_nobody_else_and_comes_back(origin: Origin) -> None:
    """`kill -9`: connections that it had not accepted are answered by the other one."""
    first, second = origin.workers()
    with origin.stopped(first), origin.stopped(second):
        # Nobody accepts these now.
        address = ("127.0.0.1", origin.port)
        waiting = [socket.create_connection(address) for _ in range(8)]
        first.send_signal(signal.SIGKILL)
        origin.until(lambda: first.pid not in [worker.pid for worker in origin.workers()])
    for connection in waiting:
        with connection:
            connection.sendall(b"GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
            assert connection.recv(100).startswith(b"HTTP/1.1 200")
    for number in range(20):
        assert origin.ask(f"Question {number}").status_code == 200
    origin.until(lambda: len(origin.workers()) == 2)
    (new,) = [worker for worker in origin.workers() if worker.pid != second.pid]
    assert new.pid != first.pid
    with origin.stopped(second):
        origin.until(lambda: origin.ask().is_success)
    assert "ended with status -9" in origin.log()


def test_sigterm_lets_workers_finish_what_they_have_begun(origin: Origin) -> None:
    """The answer arrives; then nobody is left, and nothing of what they shared."""
    (metrics,) = {worker.environ()["PROMETHEUS_MULTIPROC_DIR"] for worker in origin.workers()}
    workers = origin.workers()
    assert Path(metrics).is_dir()
    origin.upstream.arrived.clear()
    origin.upstream.reply = replace(origin.upstream.reply, waits=True)
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(origin.ask, "Slowly")
        assert origin.upstream.arrived.wait(30)
        origin.process.terminate()
        origin.upstream.go_on.set()
        assert asked.result().status_code == 200
    assert origin.process.wait(60) == 0
    assert not any(worker.is_running() for worker in workers)
    assert not Path(metrics).exists()


def test_workers_end_with_a_parent_that_is_killed(origin: Origin) -> None:
    """Or they would keep the port."""
    workers = origin.workers()
    origin.process.kill()
    psutil.wait_procs(workers, 60)
    assert not any(worker.is_running() for worker in workers)


def test_worker_that_cannot_start_ends_all(tmp_path: Path) -> None:
    """It says why, as one process would."""
    result = encore(
        tmp_path,
        "origin",
        "--workers",
        "2",
        ENCORE_SECRET=SECRET,
        ENCORE_MODEL=str(tmp_path),
        ENCORE_ORIGIN_PORT=str(free_port()),
    )
    assert result.returncode == 2
    assert "ENCORE_MODEL" in result.stderr
    assert "Traceback" not in result.stderr
