"""The edge dies, hangs, forgets, is cut off from its clients or origins, or its KV fails it."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from tests.edge.lab import Lab
from tests.edge.projects import FIXTURES, Projects
from tests.faults.endure import Row, hold
from tests.faults.system import System, system
from tests.faults.traffic import Traffic
from tests.support.tcp_proxy import Fault

CLIENTS = {
    "clients reset": Fault(resetting=True),
    "clients silent": Fault(silent=True),
    "clients slow": Fault(delay_s=0.1),
    "clients read slowly": Fault(bytes_per_s=1000),
    "clients reset in the middle": Fault(reset_after_bytes=900),
    "clients closed in the middle": Fault(close_after_bytes=900),
}
ORIGINS = {
    "origins refuse": Fault(resetting=True),
    "origins silent": Fault(silent=True),
    "origins slow": Fault(delay_s=0.1),
    "origins trickle": Fault(bytes_per_s=2000),
    "origins reset in the middle": Fault(reset_after_bytes=900),
    "origins closed in the middle": Fault(close_after_bytes=900),
}
KV: dict[str, tuple[str, ...]] = {
    "KV refuses writes": ("put entry", "put control"),
    "KV refuses reads": ("get entry", "get control"),
    "KV refuses all": ("get entry", "get control", "put entry", "put control"),
    "KV finds nothing": ("blind",),
    "KV cuts values": ("truncated",),
    "KV gives other values": ("foreign",),
}


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """A system whose edge has a KV that can be made to fail."""
    projects = Projects(lambda: tmp_path_factory.mktemp("project"))
    config = projects.of_the_worker((FIXTURES / "kv_lab.py").read_text())
    with system(tmp_path_factory.mktemp("system"), {}, config=config) as one:
        yield one


@contextmanager
def killed(running: System, persist: Path | None = None) -> Iterator[None]:
    """`kill -9` of workerd and its Node, then started again."""
    running.kill_edge()
    yield
    running.restart_edge(persist=persist)


@contextmanager
def hanging(running: System) -> Iterator[None]:
    """SIGSTOP, then SIGCONT."""
    running.signal_edge(signal.SIGSTOP)
    try:
        yield
    finally:
        running.signal_edge(signal.SIGCONT)


def failing(*calls: str, **numbers: int) -> Callable[[System], AbstractContextManager[None]]:
    """KV fails half of these calls."""
    return lambda running: Lab(edge=running.edge).failing(*calls, **{"percent": 50, **numbers})


def between(name: str) -> Callable[[System], AbstractContextManager[None]]:
    """The network on one side of the edge misbehaves."""
    if name in CLIENTS:
        return lambda running: running.edge_proxy.misbehaving(CLIENTS[name])
    return lambda running: running.balancer.misbehaving(ORIGINS[name])


FAULTS: dict[str, Callable[[System], AbstractContextManager[None]]] = {
    **{name: between(name) for name in (*CLIENTS, *ORIGINS)},
    **{name: failing(*calls) for name, calls in KV.items()},
    "KV slow": failing(slow=2000),
    "hanging": hanging,
    "killed": killed,
}
BREAKING = frozenset(
    {"hanging", "killed", "clients reset", "clients silent", "clients reset in the middle"}
    | {"clients closed in the middle"}
)
"""What may leave who asks at the edge without an answer."""


@pytest.mark.parametrize("fault", FAULTS)
def test_edge(running: System, fault: str, note: Callable[[Row], None]) -> None:
    """It costs hits and answers; none is wrong, and what was purged stays so."""
    may_break: tuple[str, ...] = ("edge",) if fault in BREAKING else ()
    if fault in ORIGINS:
        may_break = ("edge", "origin")  # those who ask directly pass there, too
    traffic = Traffic(running.clients(may_break=may_break))
    hold(traffic, FAULTS[fault](running), name="edge", does=fault, note=note)


def test_edge_that_lost_its_kv(
    running: System, tmp_path: Path, note: Callable[[Row], None]
) -> None:
    """It knows no key, entry or purge any more, and asks the origin."""
    traffic = Traffic(running.clients(may_break=("edge",)))
    hold(traffic, killed(running, persist=tmp_path), name="edge", does="lost KV", note=note)
