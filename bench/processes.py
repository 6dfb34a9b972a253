"""`encore dev` with a state of its own, and the processes that do its work."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.support.encore_dev import encore_dev

API_KEY = "sk-encore-dev"


@dataclass(frozen=True, kw_only=True)
class Running:
    """What is measured: the edge is workerd, without the Node that started it."""

    edge_url: str
    origin_url: str
    edge: Sequence[psutil.Process]
    origin: Sequence[psutil.Process]


@contextmanager
def running() -> Iterator[Running]:
    """Edge, origin with the demo model, and Redis, on free ports for the length of the block."""
    with (
        tempfile.TemporaryDirectory(prefix="encore-bench-") as folder,
        encore_dev(Path(folder)) as dev,
    ):
        children = psutil.Process(dev.process.pid).children(recursive=True)
        yield Running(
            edge_url=dev.edge_url,
            origin_url=dev.origin_url,
            edge=[child for child in children if child.name() == "workerd"],
            origin=[child for child in children if child.cmdline()[-1:] == ["origin"]],
        )


def cpu_s(processes: Sequence[psutil.Process]) -> float:
    """User and system time of the processes."""
    return sum(float(t.user + t.system) for t in (p.cpu_times() for p in processes))


def rss_mb(processes: Sequence[psutil.Process]) -> float:
    """Resident memory of the processes, in 10^6 bytes."""
    return float(sum(process.memory_info().rss for process in processes)) / 1e6
