"""What `bench.growth` measures: Redis, `encore origin` and the edge in workerd, all as processes.

The Redis is the bundled server, told to keep what does not fit into its usual 256 MB. It writes its
append-only file at every write, as always, but never anew: that would be another process beside
what is measured. Requests go over one connection, each when its predecessor is answered.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

import httpx
import psutil
from redis.asyncio import Redis

from bench.client import send
from bench.edge import workerd_of
from bench.origin_hit import API_KEY, SECRET, body_of, request_of
from bench.processes import cpu_s
from origin.embedded_redis import embedded_redis
from origin.stores.redis_control import RedisControlStore
from shared.control_document import OPERATOR_TENANT, ControlDocument, encode
from shared.keys import edge_bearer, key_ring, make_api_key
from shared.wire import CONTROL_PATH, EDGE_AUTHORIZATION
from tests.edge.local_edge import edges
from tests.support.control import document_of, put_document
from tests.support.origins import Origin, origin_process
from tests.support.ports import free_port

KEYS = key_ring(SECRET)
ADMIN_API_KEY = make_api_key(KEYS, "acme", bytes([1] * 15))
OPERATOR_API_KEY = make_api_key(KEYS, OPERATOR_TENANT, bytes(15))
EDGE_BEARER = {EDGE_AUTHORIZATION: f"Bearer {edge_bearer(KEYS)}"}
DOCUMENTS = (
    document_of(API_KEY, admins=[ADMIN_API_KEY]),
    document_of(admins=[OPERATOR_API_KEY]),
)
ORIGIN_HIT, ORIGIN_MISS, EDGE_HIT = b"encore-origin; hit", b"fwd=miss", b"encore-edge; hit"
WARM_UP_REQUESTS = 100
START_TIMEOUT_S = 30
QUIET_S = 1.0
QUIET_CPU_SHARE = 0.03

Row = dict[str, float]
"""What was measured at one size, by what it is; the unit stands in its name."""


@dataclass(kw_only=True)
class Cost:
    """What requests of one kind cost a process, and took a client."""

    cpu_s: float = 0.0
    latencies_ms: list[float] = field(default_factory=list)

    def row(self, name: str) -> Row:
        """As part of a table."""
        ordered = sorted(self.latencies_ms)
        return {
            f"{name}, CPU (ms)": self.cpu_s * 1000 / len(ordered),
            f"{name}, p50 (ms)": statistics.median(ordered),
            f"{name}, p99 (ms)": ordered[int(len(ordered) * 0.99)],
        }


class Server:
    """A process that answers at a URL."""

    def __init__(self, url: str, process: psutil.Process) -> None:
        self.url = url
        self.process = process
        self._numbers = itertools.count()

    async def load(
        self,
        bodies: Sequence[bytes],
        expected: bytes,
        cost: Cost | None = None,
        *,
        api_keys: Sequence[str] = (API_KEY,),
    ) -> None:
        """Send these in turn, by the keys in turn, and add up what they cost.

        Every answer's head has to have what is `expected`. No two requests are the same bytes, so
        that each is read and keyed.
        """
        cost = cost or Cost()
        requests = [
            request_of(marked(body, next(self._numbers)), api_key)
            for body, api_key in zip(bodies, itertools.cycle(api_keys), strict=False)
        ]
        parts = urlsplit(self.url)
        address = (parts.hostname or "", parts.port or 0)
        before_s = cpu_s([self.process])
        cost.latencies_ms += (await send(address, requests, 1, expected)).checked()
        cost.cpu_s += cpu_s([self.process]) - before_s

    async def warm_up(
        self, body: bytes, expected: bytes, *, api_keys: Sequence[str] = (API_KEY,)
    ) -> None:
        """Ask for one thing by each key until all are answered as `expected`, and some more."""
        deadline_s = time.monotonic() + START_TIMEOUT_S
        while True:
            try:
                await self.load([body] * len(api_keys), expected, api_keys=api_keys)
            except (OSError, LookupError):
                if time.monotonic() > deadline_s:
                    raise
                await self.load([body] * len(api_keys), b"", api_keys=api_keys)
            else:
                break
        await self.load([body] * WARM_UP_REQUESTS, expected, api_keys=api_keys)

    def until_quiet(self) -> float:
        """Wait until the process does nothing much any more; the seconds until then."""
        began_s = time.monotonic()
        while True:
            idle_since_s = time.monotonic()
            before_s = cpu_s([self.process])
            time.sleep(QUIET_S)
            if cpu_s([self.process]) - before_s < QUIET_S * QUIET_CPU_SHARE:
                return idle_since_s - began_s

    def rss_mb(self) -> float:
        """What it has of the machine's memory, in MB."""
        return float(self.process.memory_info().rss) / 1e6


def marked(body: bytes, number: int) -> bytes:
    """The same request, as the cache has it, in other bytes: `user` is in no key."""
    return body[:-1] + b', "user": "%d"}' % number


def sized(number: int, *, answer: int = 1000, prompt: int = 0) -> bytes:
    """A request for an answer of so many characters, itself no shorter than `prompt`."""
    body = body_of(number)
    fields = json.loads(body)
    fields["messages"][-1]["content"] = f"{answer} " + "x" * (prompt - len(body)) + f" {number}"
    return json.dumps(fields).encode()


class Timer:
    """Calls of the origin's own API, each timed, as one row."""

    def __init__(self, server: Server) -> None:
        self.row: Row = {}
        self._client = httpx.Client(base_url=server.url, timeout=120)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def call(
        self, name: str, method: str, path: str, *, api_key: str, **arguments: object
    ) -> httpx.Response:
        """One call, which must succeed."""
        headers = {"authorization": f"Bearer {api_key}"}
        began_s = time.perf_counter()
        response = self._client.request(method, path, headers=headers, **arguments)  # type: ignore[arg-type]
        self.row[f"{name} (ms)"] = (time.perf_counter() - began_s) * 1000
        response.raise_for_status()
        return response

    def dashboard(self, api_key: str) -> None:
        """The first figures that a page of the dashboard is told."""
        login = self._client.post(
            "/dashboard/login", data={"api_key": api_key}, headers={"sec-fetch-site": "same-origin"}
        )
        headers = {"cookie": login.headers["set-cookie"].split(";")[0]}
        began_s = time.perf_counter()
        with self._client.stream("GET", "/dashboard/events", headers=headers) as events:
            for line in events.iter_lines():
                if line == "event: state":
                    break
        self.row["dashboard's figures (ms)"] = (time.perf_counter() - began_s) * 1000


async def put_documents(redis_url: str, documents: Sequence[ControlDocument]) -> None:
    """Put the control documents into Redis."""
    control = RedisControlStore.from_url(redis_url, timeout_s=10)
    for document in documents:
        await put_document(control, document)
    await control.close()


async def used_memory(redis_url: str) -> int:
    """What a Redis has allocated, in bytes."""
    async with Redis.from_url(redis_url) as client:
        return int((await client.info("memory"))["used_memory"])


class Stack:
    """An empty Redis and an upstream, and what is started in front of them."""

    def __init__(self, exits: ExitStack, folder: Path, upstream_url: str) -> None:
        self._exits = exits
        self._folder = folder
        self._upstream_url = upstream_url
        self.redis_url = exits.enter_context(embedded_redis(folder / "redis"))
        asyncio.run(_without_bounds(self.redis_url))

    @contextmanager
    def origin(self, **variables: str) -> Iterator[tuple[Server, float]]:
        """(an `encore origin`, the seconds it took to be ready)."""
        given = {
            "ENCORE_SECRET": SECRET,
            "ENCORE_UPSTREAM": self._upstream_url,
            "ENCORE_SEMANTIC": "off",
            "REDIS_URL": self.redis_url,
        }
        began_s = time.monotonic()
        with origin_process(self._folder, **given | variables) as running:
            took_s = time.monotonic() - began_s
            yield server_of(running), took_s

    def edge(self, origin: Server, documents: Sequence[ControlDocument]) -> Server:
        """An edge in front of an origin, which has these documents."""
        start_edge = self._exits.enter_context(
            edges(lambda: Path(tempfile.mkdtemp(dir=self._folder)))
        )
        variables = {"ENCORE_SECRET": SECRET, "ENCORE_ORIGIN_URL": origin.url}
        edge = start_edge(variables=variables)
        with httpx.Client(base_url=edge.url, headers=EDGE_BEARER, timeout=30) as client:
            for document in documents:
                put = client.put(CONTROL_PATH + document.tenant, content=encode(document))
                put.raise_for_status()
        return Server(edge.url, workerd_of(psutil.Process(edge.process.pid)))


def server_of(running: Origin) -> Server:
    """An origin that runs."""
    assert running.process is not None
    return Server(running.url, psutil.Process(running.process.pid))


async def _without_bounds(redis_url: str) -> None:
    async with Redis.from_url(redis_url) as client:
        await client.config_set("maxmemory", 0)
        await client.config_set("auto-aof-rewrite-percentage", 0)


@contextmanager
def upstream() -> Iterator[str]:
    """The base URL of the model."""
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", "bench.growth_upstream:upstream"]
    command += ["--port", str(port), "--log-level", "critical", "--lifespan", "off"]
    url = f"http://127.0.0.1:{port}"
    process = subprocess.Popen(command)
    try:
        deadline_s = time.monotonic() + START_TIMEOUT_S
        while True:
            try:
                httpx.get(url + "/v1/models").raise_for_status()
            except httpx.HTTPError:
                if process.poll() is not None or time.monotonic() > deadline_s:
                    raise
                time.sleep(0.05)
            else:
                break
        yield url
    finally:
        process.terminate()
        process.wait()


@contextmanager
def stacked(upstream_url: str) -> Iterator[Stack]:
    """A stack of one's own."""
    with (
        tempfile.TemporaryDirectory(prefix="encore-growth-") as folder,
        ExitStack() as exits,
    ):
        yield Stack(exits, Path(folder), upstream_url)
