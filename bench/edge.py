"""A hit at the edge: our Python Worker beside a hand-written JavaScript Worker that does the same.

    .venv/bin/python -m bench.edge [--rounds 6] [--requests 300]

Both run in the same workerd and Miniflare, each with a real KV namespace, behind one origin that
answers with a text of the size asked for. In every round both Workers take every kind of load in
turn. CPU is user and system time of workerd per request. "Local runtime", not Cloudflare's network.

Per hit it counts calls of Python functions and crossings between Python and JavaScript: how is said
in tests/edge/fixtures/counting.py. A cold start lasts from the start of a workerd to its first
answer; its Python comes from a memory snapshot, which holds our code imported: what that import
costs then is what an empty Worker is quicker by. What it takes without a snapshot, from source, is
timed in an isolate that has not done it.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import itertools
import json
import random
import statistics
import subprocess
import tempfile
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import psutil
from pydantic import SecretStr

from bench import client
from bench.results import Comparison, Result, Table, add_json_option, deliver, p50, p99
from origin.app import create_app
from origin.engine.contract import Event, Finished
from origin.settings import Settings
from origin.stores.memory import MemoryStore
from shared.keys import edge_bearer, make_api_key
from shared.requests import Request
from tests.edge.local_edge import ROOT, StartEdge, edges, node_environment
from tests.edge.projects import Projects
from tests.edge.stack import KEYS, SECRET, documents_at_edge
from tests.support.control import control_store
from tests.support.engines import MODEL, ScriptedEngine, chat_answer
from tests.support.serving import serving

API_KEY = make_api_key(KEYS, "acme", bytes(15))
CONTROL = control_store(API_KEY)
SIZES = (1_000, 10_000, 100_000, 1_000_000)
CONNECTIONS = (1, 16)
WARM_UP_REQUESTS = 200
COUNTED_HITS = 100
EMPTY_WORKER = """\
import js
from workers import WorkerEntrypoint


class Default(WorkerEntrypoint):
    async def fetch(self, request):
        return js.Response.new("ok")
"""
COUNTS = ("calls", "crossings")


class SizedEngine(ScriptedEngine):
    """Answers with as many characters as the prompt says, hard to compress."""

    async def run(
        self,
        request: Request,
        *,
        tenant: str | None = None,  # noqa: ARG002
        scope: str | None = None,  # noqa: ARG002
    ) -> AsyncGenerator[Event, None]:
        """Answer at once."""
        size = int(request.fields["messages"][0]["content"])
        noise = random.Random(size).randbytes(size)  # noqa: S311 - reproducible filler
        yield Finished(answer=chat_answer(base64.b64encode(noise).decode()[:size]))


@dataclass(kw_only=True)
class Load:
    """What one Worker was measured at for one kind of load."""

    requests: int = 0
    cpu_s: float = 0.0
    wall_s: float = 0.0
    latencies_ms: list[float] = field(default_factory=list)

    @property
    def rate(self) -> float:
        """Requests per second."""
        return self.requests / self.wall_s


class Worker:
    """A running Worker and what it was measured at, by (size, connections, streamed)."""

    def __init__(self, name: str, url: str, process: psutil.Process) -> None:
        parts = urlsplit(url)
        self.name = name
        self._address = (parts.hostname or "", parts.port or 0)
        self._workerd = workerd_of(process)
        self.loads: dict[tuple[int, int, bool], Load] = {}

    async def run(self, size: int, connections: int, requests: int, *, stream: bool) -> None:
        """Send `requests` over `connections` and add up what they cost."""
        load = self.loads.setdefault((size, connections, stream), Load())
        times = self._workerd.cpu_times()
        began = time.perf_counter()
        latencies = await self.send(size, connections, requests, stream=stream)
        load.wall_s += time.perf_counter() - began
        after = self._workerd.cpu_times()
        load.cpu_s += after.user + after.system - times.user - times.system
        load.requests += requests
        load.latencies_ms += latencies

    async def send(
        self, size: int, connections: int, requests: int, *, stream: bool
    ) -> list[float]:
        """Latencies in ms; every answer must be a hit. Raises LookupError."""
        body = json.dumps(
            {
                "model": MODEL,
                "messages": [{"role": "user", "content": str(size)}],
                "stream": stream,
            }
        ).encode()
        request = (
            b"POST /v1/chat/completions HTTP/1.1\r\nhost: edge\r\naccept-encoding: gzip\r\n"
            b"content-type: application/json\r\nauthorization: Bearer " + API_KEY.encode()
        ) + b"\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body)
        asked = itertools.repeat(request, requests)
        return (await client.send(self._address, asked, connections, b"encore-edge; hit")).checked()


async def take_turns(workers: list[Worker], rounds: int, requests: int) -> None:
    """Run every load on every Worker in turn, `rounds` times."""
    loads = [(size, connections, False) for size in SIZES for connections in CONNECTIONS]
    loads.append((SIZES[0], 1, True))
    for worker in workers:
        for size in SIZES:
            await _fill(worker, size)
        await worker.send(SIZES[0], 1, WARM_UP_REQUESTS, stream=False)
    for _ in range(rounds):
        for size, connections, stream in loads:
            for worker in workers:
                await worker.run(size, connections, requests, stream=stream)


async def _fill(worker: Worker, size: int) -> None:
    for _ in range(100):
        try:
            await worker.send(size, 1, 1, stream=False)
        except LookupError:
            await asyncio.sleep(0.05)
        else:
            return
    raise SystemExit(f"{worker.name}: no hit for {size} bytes")


def compared(python: Worker, javascript: Worker) -> Result:
    """Our Worker beside the other, load by load."""
    comparisons, rows = [], []
    for key, ours in python.loads.items():
        size, connections, stream = key
        theirs = javascript.loads[key]
        label = f"{size:,} B{' streamed' if stream else ''}"
        what = f"edge hit, {label}, {connections} conn."
        pairs = (("CPU ms", _cpu_ms(ours), _cpu_ms(theirs)), ("requests/s", ours.rate, theirs.rate))
        if size == SIZES[0]:
            comparisons += [
                Comparison(what=what, unit=unit, encore=our, beside=javascript.name, other=their)
                for unit, our, their in pairs
            ]
        rows.append(
            [
                label,
                str(connections),
                f"{_cpu_ms(ours):.2f} / {_cpu_ms(theirs):.2f}",
                _percentiles(ours),
                _percentiles(theirs),
                f"{ours.rate:,.0f} / {theirs.rate:,.0f}",
                f"{ours.rate / theirs.rate:.2f}",
            ]
        )
    columns = ["answer", "conn.", "CPU ms Py / JS", "p50 / p99 ms Py", "p50 / p99 ms JS"]
    columns += ["req/s Py / JS", "Py to JS"]
    table = Table(title="A hit at the edge (local runtime)", columns=columns, rows=rows)
    return Result(comparisons=comparisons, tables=[table])


def count(start_edge: StartEdge, projects: Projects, variables: dict[str, str], what: str) -> float:
    """What one hit takes of `what`: `calls` or `crossings`."""
    edge = start_edge(projects.counting(), variables={**variables, "COUNT": what})
    documents_at_edge(edge, CONTROL)
    worker = Worker(what, edge.url, psutil.Process(edge.process.pid))

    def counted() -> int:
        number: int = httpx.get(edge.url + "/counted").json()
        return number

    size = SIZES[0] + 1 + COUNTS.index(what)  # the origin lets an entry be put by one edge a minute
    asyncio.run(_fill(worker, size))
    counted()
    asyncio.run(worker.send(size, 1, 1, stream=False))
    counted()
    asking = counted()
    asyncio.run(worker.send(size, 1, COUNTED_HITS, stream=False))
    per_hit = (counted() - asking) / COUNTED_HITS
    edge.stop()
    return per_hit


def cold_start_ms(url: str, process: subprocess.Popen[bytes]) -> float:
    """From the start of the edge's workerd to its first answer, which this asks for."""
    httpx.get(url + "/healthz")
    began_s: float = workerd_of(psutil.Process(process.pid)).create_time()
    return (time.time() - began_s) * 1000


def python_cold_starts_ms(
    start_edge: StartEdge, projects: Projects, variables: dict[str, str], count: int
) -> list[float]:
    """The median of our Worker, and of one that does nothing; each has its snapshot."""
    configs = [projects.of_the_worker(), projects.make(EMPTY_WORKER)]
    walls: list[list[float]] = [[], []]
    for config in configs:
        start_edge(config, variables=variables).stop()  # makes the snapshot
    for _ in range(count):
        for config, times in zip(configs, walls, strict=True):
            edge = start_edge(config, variables=variables)
            times.append(cold_start_ms(edge.url, edge.process))
            edge.stop()
    return [statistics.median(times) for times in walls]


def import_ms(start_edge: StartEdge, projects: Projects) -> float:
    """What the import of our own code takes."""
    edge = start_edge(projects.importing())
    with httpx.Client(base_url=edge.url, timeout=60) as asking:
        walls = []
        for path in ("/", "/", "/import", "/"):
            began = time.perf_counter()
            asking.get(path).raise_for_status()
            walls.append((time.perf_counter() - began) * 1000)
    edge.stop()
    return walls[2] - walls[3]


def workerd_of(process: psutil.Process) -> psutil.Process:
    """The workerd that Miniflare's process started."""
    return next(child for child in process.children(recursive=True) if child.name() == "workerd")


def _cpu_ms(load: Load) -> float:
    return load.cpu_s * 1000 / load.requests


def _percentiles(load: Load) -> str:
    return f"{p50(load.latencies_ms):.1f} / {p99(load.latencies_ms):.1f}"


@contextmanager
def javascript_edge(
    worker: str, variables: dict[str, str]
) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """(URL, process) of a JavaScript Worker of this folder, with a KV of its own."""
    command = ["node", str(ROOT / "bench/javascript_edge.mjs"), worker]
    environment = {**node_environment(), **variables}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().decode().split("edge ready ")[1].strip(), process
        finally:
            process.terminate()


def measure(rounds: int, requests: int, cold_starts: int) -> Result:
    """Start both Workers, and measure."""
    settings = Settings(secret=SecretStr(SECRET))
    app = create_app(
        settings,
        engine=SizedEngine(),
        store=MemoryStore(),
        control_store=CONTROL,
    )
    with (
        tempfile.TemporaryDirectory() as folder,
        serving(app) as origin_url,
        edges(lambda: Path(tempfile.mkdtemp(dir=folder))) as start_edge,
        javascript_edge(
            "javascript_worker.mjs",
            {
                "API_KEY": KEYS.api.hex(),
                "CACHE_KEY": KEYS.cache.hex(),
                "BEARER": edge_bearer(KEYS),
                "ORIGIN_URL": origin_url,
            },
        ) as (javascript_url, javascript_process),
    ):
        variables = {"ENCORE_SECRET": SECRET, "ENCORE_ORIGIN_URL": origin_url}
        projects = Projects(lambda: Path(tempfile.mkdtemp(dir=folder)))
        javascript_cold_ms = cold_start_ms(javascript_url, javascript_process)
        cold_ms, empty_cold_ms = python_cold_starts_ms(start_edge, projects, variables, cold_starts)
        edge = start_edge(variables=variables)
        documents_at_edge(edge, CONTROL)
        python = Worker("Python", edge.url, psutil.Process(edge.process.pid))
        javascript = Worker(
            "JavaScript Worker", javascript_url, psutil.Process(javascript_process.pid)
        )
        asyncio.run(take_turns([python, javascript], rounds, requests))
        result = compared(python, javascript)
        calls, crossings = (count(start_edge, projects, variables, w) for w in COUNTS)
        result.remarks.append(
            f"a hit: {calls:g} calls of Python functions, {crossings:g} crossings; "
            f"cold start: {cold_ms:.0f} ms, of an empty Python Worker {empty_cold_ms:.0f} ms, "
            f"JavaScript {javascript_cold_ms:.0f} ms; import of our own code from source: "
            f"{import_ms(start_edge, projects):.0f} ms"
        )
        return result


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--requests", type=int, default=300, help="of one kind in a round")
    parser.add_argument("--cold-starts", type=int, default=5)
    add_json_option(parser)
    arguments = parser.parse_args()
    result = measure(arguments.rounds, arguments.requests, arguments.cold_starts)
    deliver(result, arguments.json)


if __name__ == "__main__":
    main()
