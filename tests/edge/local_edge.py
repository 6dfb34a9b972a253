"""Starts the local edge for tests: real workerd, real KV, the Worker's own Python.

    edge = start_edge(config, variables={"NAME": "value"})
    edge.url, edge.log(), edge.wait_for_log("text"), edge.stop()

Node comes from node_modules (`npm ci`); `python3` of the build is the interpreter under test.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pytest

ROOT = Path(__file__).resolve().parents[2]
START_TIMEOUT_S = 90
STOP_TIMEOUT_S = 15


@dataclass(frozen=True, kw_only=True, slots=True)
class Edge:
    """A running local edge. `stop` may be called twice."""

    url: str
    process: subprocess.Popen[bytes]
    persist: Path
    _log: Path

    def log(self) -> str:
        """All that the edge has written so far, both streams in order."""
        return self._log.read_text()

    def wait_for_log(self, text: str, timeout_s: float = 30) -> None:
        """Return when `text` is in the log; AssertionError with the log if it never is."""
        _wait_for_text(self._log, text, self.process, timeout_s)

    def stop(self) -> int:
        """End it as Ctrl-C does; its exit status."""
        return _stop(self.process)


class StartEdge(Protocol):
    """The type of the `start_edge` fixture."""

    def __call__(
        self,
        config: Path = ...,
        *,
        variables: Mapping[str, str] | None = ...,
        persist: Path | None = ...,
    ) -> Edge:
        """Start an edge on a free port; the state is a new folder unless `persist` names one."""


def node_environment() -> dict[str, str]:
    """The environment in which `node`, `wrangler` and the build's `python3` are the right ones."""
    require_node()
    path = [ROOT / "node_modules/.bin", Path(sys.executable).parent, os.environ.get("PATH", "")]
    return {
        **os.environ,
        "PATH": os.pathsep.join(map(str, path)),
        "WRANGLER_SEND_METRICS": "false",
        "WRANGLER_WRITE_LOGS": "false",
        "NO_COLOR": "1",
        "CI": "1",
    }


def require_node() -> None:
    """Skip where node_modules is missing; fail where everything is required."""
    if (ROOT / "node_modules/.bin/node").exists():
        return
    reason = "node_modules is missing: run `npm ci`"
    if os.environ.get("ENCORE_REQUIRE_ALL") == "1":
        pytest.fail(reason)
    pytest.skip(reason)


@contextmanager
def edges(new_folder: Callable[[], Path]) -> Iterator[StartEdge]:
    """A `start_edge` whose edges are all stopped in the end."""
    started: list[Edge] = []

    def start(
        config: Path = ROOT / "wrangler.toml",
        *,
        variables: Mapping[str, str] | None = None,
        persist: Path | None = None,
    ) -> Edge:
        folder = new_folder()
        edge = _start(config, variables or {}, persist or folder / "state", folder / "edge.log")
        started.append(edge)
        return edge

    try:
        yield start
    finally:
        for edge in started:
            edge.stop()


def run_edge(config: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run edge.mjs to its end: for what it refuses and what it prints."""
    command = ["node", str(ROOT / "worker/local/edge.mjs"), "--config", str(config), *arguments]
    process = subprocess.Popen(
        command,
        env=node_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        output, errors = process.communicate(timeout=START_TIMEOUT_S)
    except BaseException:
        _kill(process)
        raise
    return subprocess.CompletedProcess(command, process.returncode, output, errors)


def _start(config: Path, variables: Mapping[str, str], persist: Path, log: Path) -> Edge:
    command = ["node", str(ROOT / "worker/local/edge.mjs"), "--port", "0", "--config", str(config)]
    command += ["--persist", str(persist)]
    for name, value in variables.items():
        command += ["--var", f"{name}={value}"]
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            env=node_environment(),
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        _wait_for_text(log, "edge ready ", process, START_TIMEOUT_S)
    except BaseException:
        _stop(process)
        raise
    url = log.read_text().split("edge ready ", 1)[1].split("\n", 1)[0]
    return Edge(url=url, process=process, persist=persist, _log=log)


def _wait_for_text(
    log: Path, text: str, process: subprocess.Popen[bytes], timeout_s: float
) -> None:
    deadline = time.monotonic() + timeout_s
    while text not in log.read_text():
        status = process.poll()
        assert status is None, f"the edge ended with {status}\n{log.read_text()}"
        assert time.monotonic() < deadline, f"no {text!r} in {timeout_s} s\n{log.read_text()}"
        time.sleep(0.02)


def _kill(process: subprocess.Popen[Any]) -> None:
    """The last resort: node and the workerd it started, which would outlive it."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _stop(process: subprocess.Popen[bytes]) -> int:
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
    try:
        return process.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        _kill(process)
        raise
