"""What a hit and a miss cost, along the whole path, beside asking the model every time.

    .venv/bin/python -m bench.path [--rounds 8] [--batch 100]

Starts `encore dev` on free ports with a state of its own and sends real requests, the kinds in turn
within every round. CPU is user and system time of the edge (workerd) and of the origin, per
request; wall is a client's, one request at a time. "Local runtime": workerd on
this machine, not Cloudflare's network.
"""

from __future__ import annotations

import argparse
import itertools
import os
import platform
import statistics
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil

from tests.support.encore_dev import encore_dev

CHAT = "/v1/chat/completions"


@dataclass(kw_only=True)
class Kind:
    """One row of the table."""

    name: str
    base_url: str
    fresh: bool = True
    """Every request is one nobody has asked before."""
    stream: bool = False
    headers: dict[str, str] = field(default_factory=dict)
    edge_cpu_s: float = 0.0
    origin_cpu_s: float = 0.0
    wall_ms: list[float] = field(default_factory=list)


class Bench:
    """Sends the requests and reads the processes' clocks."""

    def __init__(self, edge: list[psutil.Process], origin: list[psutil.Process]) -> None:
        self._edge, self._origin = edge, origin
        self._numbers = itertools.count(1000)
        self._client = httpx.Client(headers={"authorization": "Bearer sk-encore-dev"}, timeout=120)

    def round(self, kind: Kind, requests: int) -> None:
        """One batch of one kind."""
        edge_s, origin_s = _cpu_s(self._edge), _cpu_s(self._origin)
        for _ in range(requests):
            began = time.perf_counter()
            self.ask(kind)
            kind.wall_ms.append((time.perf_counter() - began) * 1000)
        kind.edge_cpu_s += _cpu_s(self._edge) - edge_s
        kind.origin_cpu_s += _cpu_s(self._origin) - origin_s

    def ask(self, kind: Kind) -> str:
        """One request, read to its end; its `Cache-Status`."""
        number = next(self._numbers) if kind.fresh else 1
        prompt = f"Analyze this property: {number} Main St, 3BR/2BA, $450k"
        body: dict[str, Any] = {
            "model": "encore-demo",
            "messages": [{"role": "user", "content": prompt}],
            "max_tokens": 64,
            "stream": kind.stream,
        }
        response = self._client.post(kind.base_url + CHAT, json=body, headers=kind.headers)
        response.raise_for_status()
        return response.headers["cache-status"]


def main() -> None:
    """Run and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--batch", type=int, default=100, help="requests of one kind in a round")
    arguments = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="encore-bench-") as folder,
        encore_dev(Path(folder)) as running,
    ):
        edge_url, origin_url = running.edge_url, running.origin_url
        children = psutil.Process(running.process.pid).children(recursive=True)
        edge = [child for child in children if child.name() == "workerd"]
        origin = [child for child in children if child.cmdline()[-1:] == ["origin"]]
        no_store = {"cache-control": "no-store"}
        kinds = [
            Kind(name="model every time (no cache)", base_url=origin_url, headers=no_store),
            Kind(name="miss, through edge and origin", base_url=edge_url),
            Kind(name="miss, streamed", base_url=edge_url, stream=True),
            Kind(name="through the edge, kept nowhere", base_url=edge_url, headers=no_store),
            Kind(name="hit in Redis, origin asked directly", base_url=origin_url, fresh=False),
            Kind(name="hit at the edge", base_url=edge_url, fresh=False),
            Kind(name="hit at the edge, streamed", base_url=edge_url, fresh=False, stream=True),
        ]
        bench = Bench(edge, origin)
        _warm_up(bench, kinds)
        for _ in range(arguments.rounds):
            for kind in kinds:
                bench.round(kind, max(1, arguments.batch // 10) if kind.fresh else arguments.batch)
    _print(kinds)


def _warm_up(bench: Bench, kinds: list[Kind]) -> None:
    """Fill the caches and let every path run until it is what its row says."""
    for kind in kinds:
        wanted = "fwd=" if kind.fresh else "; hit"
        for _ in range(50):
            if wanted in bench.ask(kind).split(",")[-1]:
                break
            time.sleep(0.05)
        else:
            raise SystemExit(f"{kind.name}: never {wanted!r}")


def _print(kinds: list[Kind]) -> None:
    base = kinds[0]
    base_wall = statistics.median(base.wall_ms)
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}\n")
    print("| | CPU edge (ms) | CPU origin (ms) | wall p50 (ms) | wall p99 (ms) | times faster |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    for kind in kinds:
        wall = sorted(kind.wall_ms)
        median = statistics.median(wall)
        print(
            f"| {kind.name} | {kind.edge_cpu_s * 1000 / len(wall):.2f} "
            f"| {kind.origin_cpu_s * 1000 / len(wall):.2f} | {median:.1f} "
            f"| {wall[int(len(wall) * 0.99)]:.1f} | {base_wall / median:.1f} |"
        )


def _cpu_s(processes: list[psutil.Process]) -> float:
    return sum(float(t.user + t.system) for t in (p.cpu_times() for p in processes))


if __name__ == "__main__":
    main()
