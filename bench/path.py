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
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx
import psutil

from bench.processes import API_KEY, cpu_s, running
from bench.results import Comparison, Result, Table, add_json_option, deliver, p50, p99

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

    @property
    def cpu_ms(self) -> float:
        """CPU of edge and origin per request."""
        return (self.edge_cpu_s + self.origin_cpu_s) * 1000 / len(self.wall_ms)


class Bench:
    """Sends the requests and reads the processes' clocks."""

    def __init__(self, edge: Sequence[psutil.Process], origin: Sequence[psutil.Process]) -> None:
        self._edge, self._origin = edge, origin
        self._numbers = itertools.count(1000)
        self._client = httpx.Client(headers={"authorization": f"Bearer {API_KEY}"}, timeout=120)

    def round(self, kind: Kind, requests: int) -> None:
        """One batch of one kind."""
        edge_s, origin_s = cpu_s(self._edge), cpu_s(self._origin)
        for _ in range(requests):
            began = time.perf_counter()
            self.ask(kind)
            kind.wall_ms.append((time.perf_counter() - began) * 1000)
        kind.edge_cpu_s += cpu_s(self._edge) - edge_s
        kind.origin_cpu_s += cpu_s(self._origin) - origin_s

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


def measure(rounds: int, batch: int) -> Result:
    """Start everything, and measure."""
    with running() as dev:
        no_store = {"cache-control": "no-store"}
        edge_url, origin_url = dev.edge_url, dev.origin_url
        kinds = [
            Kind(name="model every time (no cache)", base_url=origin_url, headers=no_store),
            Kind(name="miss, through edge and origin", base_url=edge_url),
            Kind(name="miss, streamed", base_url=edge_url, stream=True),
            Kind(name="through the edge, kept nowhere", base_url=edge_url, headers=no_store),
            Kind(name="hit in Redis, origin asked directly", base_url=origin_url, fresh=False),
            Kind(name="hit at the edge", base_url=edge_url, fresh=False),
            Kind(name="hit at the edge, streamed", base_url=edge_url, fresh=False, stream=True),
        ]
        bench = Bench(dev.edge, dev.origin)
        _warm_up(bench, kinds)
        for _ in range(rounds):
            for kind in kinds:
                bench.round(kind, max(1, batch // 10) if kind.fresh else batch)
    return compared(kinds)


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--batch", type=int, default=100, help="requests of one kind in a round")
    add_json_option(parser)
    arguments = parser.parse_args()
    deliver(measure(arguments.rounds, arguments.batch), arguments.json)


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


def compared(kinds: list[Kind]) -> Result:
    """Each kind beside the first, which is the model alone."""
    base = kinds[0]
    comparisons, rows = [], []
    for kind in kinds:
        median = p50(kind.wall_ms)
        if kind is not base:
            comparisons += [
                Comparison(what=kind.name, unit=unit, encore=ours, beside=base.name, other=theirs)
                for unit, ours, theirs in (
                    ("CPU ms", kind.cpu_ms, base.cpu_ms),
                    ("p50 ms", median, p50(base.wall_ms)),
                )
            ]
        rows.append(
            [
                kind.name,
                f"{kind.edge_cpu_s * 1000 / len(kind.wall_ms):.2f}",
                f"{kind.origin_cpu_s * 1000 / len(kind.wall_ms):.2f}",
                f"{median:.1f}",
                f"{p99(kind.wall_ms):.1f}",
                f"{p50(base.wall_ms) / median:.1f}",
            ]
        )
    columns = ["", "CPU edge (ms)", "CPU origin (ms)", "wall p50 (ms)", "wall p99 (ms)"]
    table = Table(title="The whole path", columns=[*columns, "times faster"], rows=rows)
    miss = kinds[1]
    remark = (
        f"a miss takes {miss.cpu_ms - base.cpu_ms:.1f} ms of CPU and "
        f"{p50(miss.wall_ms) - p50(base.wall_ms):.1f} ms (p50) more than the model alone"
    )
    return Result(comparisons=comparisons, tables=[table], remarks=[remark])


if __name__ == "__main__":
    main()
