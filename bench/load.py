"""A hit under load at the edge and the origin: latency, throughput and CPU by connections.

    .venv/bin/python -m bench.load [--rounds 3] [--requests 4000] [--connections 1,16,64,256]

Starts `encore dev` with a state of its own. The load generator shares the machine's cores with what
it measures: CPU per request says more than requests per second. Every answer must be a hit; what is
not is counted as an error, and makes the script end with status 1.

With `--memory N` it measures memory instead: resident memory of workerd and of the origin after
each of N batches of `--requests` hits over 16 connections, in turn; and of another workerd whose
Worker only reads a value from its local KV, for that alone makes it grow.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import psutil
import uvloop

from bench import client
from bench.edge import javascript_edge
from bench.processes import API_KEY, Running, cpu_s, rss_mb, running
from bench.results import Comparison, Result, Table, add_json_option, deliver, p50, p99

CONNECTIONS = (1, 16, 64, 256)
QUESTIONS = 16
MEMORY_CONNECTIONS = 16
FILL_ATTEMPTS = 100


@dataclass(kw_only=True)
class Load:
    """What one place was measured at with so many connections."""

    sent: client.Sent = field(default_factory=client.Sent)
    cpu_s: float = 0.0

    @property
    def cpu_ms(self) -> float:
        """CPU of the place per request."""
        return self.cpu_s * 1000 / len(self.sent.latencies_ms)

    @property
    def rate(self) -> float:
        """Requests per second."""
        return len(self.sent.latencies_ms) / self.sent.wall_s


class Place:
    """Where hits are asked for."""

    def __init__(self, name: str, url: str, processes: Sequence[psutil.Process]) -> None:
        parts = urlsplit(url)
        self.name = name
        self.processes = processes
        self._address = (parts.hostname or "", parts.port or 0)
        self._requests = [request_of(number) for number in range(QUESTIONS)]
        self.loads: dict[int, Load] = {}

    async def fill(self) -> None:
        """Until every question is a hit here. Raises LookupError where that never is."""
        for attempt in itertools.count():
            sent = await self._send(QUESTIONS, 1)
            if not sent.errors:
                return
            if attempt == FILL_ATTEMPTS:
                raise sent.errors[0]
            await asyncio.sleep(0.05)

    async def run(self, connections: int, requests: int) -> None:
        """Send so many requests, and add up what they cost."""
        load = self.loads.setdefault(connections, Load())
        before_s = cpu_s(self.processes)
        sent = await self._send(requests, connections)
        load.cpu_s += cpu_s(self.processes) - before_s
        load.sent.wall_s += sent.wall_s
        load.sent.latencies_ms += sent.latencies_ms
        load.sent.errors += sent.errors

    def _send(self, count: int, connections: int) -> asyncio.Future[client.Sent]:
        requests = itertools.islice(itertools.cycle(self._requests), count)
        expected = b"encore-%s; hit" % self.name.encode()
        return asyncio.ensure_future(client.send(self._address, requests, connections, expected))


def request_of(number: int) -> bytes:
    """The HTTP request of one question."""
    prompt = f"Analyze this property: {number} Main St, 3BR/2BA, $450k"
    body = json.dumps(
        {"model": "encore-demo", "messages": [{"role": "user", "content": prompt}]}
    ).encode()
    return (
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\naccept-encoding: gzip\r\n"
        b"content-type: application/json\r\nauthorization: Bearer %s\r\n"
        b"content-length: %d\r\n\r\n%s" % (API_KEY.encode(), len(body), body)
    )


def places_of(dev: Running) -> list[Place]:
    """The edge first: what it fetches fills the origin too."""
    return [Place("edge", dev.edge_url, dev.edge), Place("origin", dev.origin_url, dev.origin)]


def measure(rounds: int, requests: int, connections: Sequence[int]) -> Result:
    """Every number of connections, at both places in turn."""

    async def take_turns(places: Sequence[Place]) -> None:
        for place in places:
            await place.fill()
        for _ in range(rounds):
            for number in connections:
                for place in places:
                    await place.run(number, requests)

    with running() as dev:
        places = places_of(dev)
        uvloop.run(take_turns(places))
    comparisons, rows, failures = [], [], []
    for place in places:
        for number, load in place.loads.items():
            comparisons.append(
                Comparison(
                    what=f"{place.name} hit under load, {number} conn.",
                    unit="CPU ms",
                    encore=load.cpu_ms,
                    **itself(place, connections[0]) if number != connections[0] else {},
                )
            )
            rows.append(
                [
                    place.name,
                    str(number),
                    f"{load.cpu_ms:.3f}",
                    f"{load.rate:,.0f}",
                    f"{p50(load.sent.latencies_ms):.2f}",
                    f"{p99(load.sent.latencies_ms):.2f}",
                    str(len(load.sent.errors)),
                ]
            )
            if load.sent.errors:
                first = str(load.sent.errors[0]).splitlines()[:1]
                failures.append(f"{place.name}, {number} conn.: {len(load.sent.errors)}, {first}")
    columns = ["hit at", "conn.", "CPU (ms)", "requests/s", "p50 (ms)", "p99 (ms)", "errors"]
    table = Table(title="A hit under load", columns=columns, rows=rows)
    return Result(comparisons=comparisons, tables=[table], failures=failures)


def itself(place: Place, connections: int) -> dict[str, Any]:
    """What a comparison says of the place with so many connections."""
    cpu_ms = place.loads[connections].cpu_ms
    return {"beside": f"itself, {connections} conn.", "other": cpu_ms}


def measure_memory(batches: int, requests: int) -> Result:
    """Resident memory after each batch of hits; the first figures are before any."""
    series: dict[str, list[float]] = {}

    async def take_turns(places: Sequence[Place]) -> None:
        for place in places:
            await place.fill()
            series[place.name] = [rss_mb(place.processes)]
        for _ in range(batches):
            for place in places:
                await place.run(MEMORY_CONNECTIONS, requests)
                series[place.name].append(rss_mb(place.processes))

    with running() as dev, javascript_edge("kv_worker.mjs", {}) as (kv_url, kv_process):
        children = psutil.Process(kv_process.pid).children(recursive=True)
        workerd = [child for child in children if child.name() == "workerd"]
        places = [*places_of(dev), Place("kv", kv_url, workerd)]
        uvloop.run(take_turns(places))
    half = (batches + 1) // 2  # until then caches fill
    comparisons = [
        Comparison(
            what=f"memory of {name} after {batches * requests:,} hits",
            unit="MB",
            encore=values[-1],
            beside=f"itself, after {half * requests:,}",
            other=values[half],
        )
        for name, values in series.items()
    ]
    columns = ["resident MB after hits", *(f"{n * requests:,}" for n in range(batches + 1))]
    rows = [[name, *(f"{value:.0f}" for value in values)] for name, values in series.items()]
    failures = [
        f"{place.name}: {len(load.sent.errors)} errors"
        for place in places
        for load in place.loads.values()
        if load.sent.errors
    ]
    table = Table(title="Memory over time", columns=columns, rows=rows)
    return Result(comparisons=comparisons, tables=[table], failures=failures)


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--requests", type=int, default=4000, help="of one kind in a round")
    parser.add_argument("--connections", type=numbers, default=CONNECTIONS)
    parser.add_argument("--memory", type=int, default=0, help="batches; nothing else is measured")
    add_json_option(parser)
    arguments = parser.parse_args()
    if arguments.memory:
        result = measure_memory(arguments.memory, arguments.requests)
    else:
        result = measure(arguments.rounds, arguments.requests, arguments.connections)
    deliver(result, arguments.json)


def numbers(text: str) -> tuple[int, ...]:
    """From "1,16"."""
    return tuple(int(part) for part in text.split(","))


if __name__ == "__main__":
    main()
