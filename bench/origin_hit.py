"""An L1 hit at the origin beside the least that could be done, and beside LiteLLM's proxy.

    .venv/bin/python -m bench.origin_hit [--rounds 8] [--requests 2000] [--workers 2]
        [--litellm VENV/bin/litellm]

Each application is a process of its own, all on one Redis; in every round each takes every kind of
load in turn. `bare` is an ASGI application that hashes the body, does one Redis GET and returns
what it got: the same gzip bytes that Encore sends, served by the same uvicorn. CPU is user and
system time of the server per request, without Redis and client.

With `--workers N` Encore is measured a second time, served as `encore origin --workers N` does it.
The load generator and Redis share the machine's cores with all of them: what workers add shows only
where there are cores left.

A miss is answered by an engine that takes no time: what it costs is Encore's own work (validation,
single-flight, entry, storing).

LiteLLM is large and pins its own versions, so it stays out of this project's environment:

    python -m venv /tmp/litellm && /tmp/litellm/bin/pip install 'litellm[proxy]'
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import hashlib
import itertools
import json
import os
import platform
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import psutil
import uvloop
from redis.asyncio import Redis
from starlette.types import ASGIApp, Receive, Scope, Send

from origin.app import create_app
from origin.departure import Departure, Patience
from origin.embedded_redis import embedded_redis
from origin.engine.contract import Event, Finished
from origin.server import server
from origin.settings import Settings
from origin.stores.redis_control import RedisControlStore
from origin.stores.redis_leases import RedisLeases
from origin.stores.redis_store import RedisStore
from origin.stores.redis_usage import RedisUsageStore
from origin.workers import run_workers
from shared import json_text
from shared.compression import compress
from shared.keys import key_ring, make_api_key
from shared.requests import Request
from tests.support.control import document_of, put_document
from tests.support.engines import MODEL, ScriptedEngine, chat_answer

SECRET = "bench-secret-bench-secret-bench-secret"  # noqa: S105 - of this run alone
API_KEY = make_api_key(key_ring(SECRET), "acme", bytes(15))
PATH = "/v1/chat/completions"
WORDS = "The house at 12 Oak Street has three bedrooms, two bathrooms and a garden to the south. "
CONNECTIONS = (1, 16)
QUESTIONS = 64
"""How many questions the hits are about, in turn."""
WARM_UP_REQUESTS = 500
START_TIMEOUT_S = 120
RARE_QUESTIONS = 1500
"""How many the rare hits are about: more than the origin remembers having read."""
MODES = ("hit", "rare hit", "streamed hit", "miss")


class InstantEngine(ScriptedEngine):
    """Answers some 900 characters at once."""

    async def run(
        self,
        request: Request,  # noqa: ARG002
        *,
        tenant: str | None = None,  # noqa: ARG002
        scope: str | None = None,  # noqa: ARG002
    ) -> AsyncGenerator[Event, None]:
        """Answer at once."""
        yield Finished(answer=chat_answer(WORDS * 10))


def encore(redis_url: str) -> ASGIApp:
    """The origin, with every part but the engine as `encore origin` has it."""
    return create_app(
        Settings(secret=SECRET),
        engine=InstantEngine(),
        store=RedisStore.from_url(redis_url),
        control_store=RedisControlStore.from_url(redis_url),
        leases=RedisLeases.from_url(redis_url),
        usage_store=RedisUsageStore.from_url(redis_url),
    )


class Bare:
    """Hashes the body, does one GET, returns what it got."""

    def __init__(self, redis_url: str) -> None:
        self._redis = Redis.from_url(redis_url)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "lifespan":
            return
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        stored = cast("bytes", await self._redis.get(bare_name(body)))
        headers = [
            (b"content-type", b"application/json"),
            (b"content-encoding", b"gzip"),
            (b"content-length", b"%d" % len(stored)),
        ]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": stored})


def bare_name(body: bytes) -> str:
    """The Redis key of a body."""
    return "bare:" + hashlib.sha256(body).hexdigest()


APPLICATIONS: dict[str, Callable[[str], ASGIApp]] = {"Encore": encore, "bare": Bare}


def body_of(number: int, *, stream: bool = False) -> bytes:
    """A request's body, of the size that a short question has."""
    question = f"Describe {number} Oak Street: 3 bedrooms, 2 bathrooms, 1,500 sq ft, $450,000."
    fields: dict[str, Any] = {
        "model": MODEL,
        "messages": [
            {"role": "system", "content": "You describe houses for a broker's website. " * 4},
            {"role": "user", "content": question},
        ],
        "temperature": 0.2,
        "max_tokens": 512,
    }
    return json.dumps(fields | {"stream": True} if stream else fields).encode()


def request_of(body: bytes, api_key: str = API_KEY) -> bytes:
    """The HTTP request of a body."""
    return (
        b"POST %s HTTP/1.1\r\nhost: origin\r\naccept-encoding: gzip, deflate\r\naccept: */*\r\n"
        b"user-agent: OpenAI/Python 3\r\ncontent-type: application/json\r\n"
        b"authorization: Bearer %s\r\ncontent-length: %d\r\n\r\n%s"
        % (PATH.encode(), api_key.encode(), len(body), body)
    )


class Connection(asyncio.Protocol):
    """One connection that sends a request after another, each when its predecessor is answered."""

    def __init__(self, requests: Iterator[bytes], expected: bytes, latencies: list[float]) -> None:
        self._requests, self._expected, self._latencies = requests, expected, latencies
        self._received = b""
        self._missing_bytes = -1
        self._began_s = 0.0
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's has another base
        self._send()

    def data_received(self, data: bytes) -> None:
        """Read on; send the next request once the answer is whole."""
        if self._missing_bytes < 0:
            self._received += data
            head, end, body = self._received.partition(b"\r\n\r\n")
            if not end:
                return
            if not head.startswith(b"HTTP/1.1 200") or self._expected not in head:
                self._end(LookupError(head.decode("latin-1")))
                return
            length = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
            self._missing_bytes = int(length) - len(body)
        else:
            self._missing_bytes -= len(data)
        if self._missing_bytes == 0:
            self._latencies.append((time.perf_counter() - self._began_s) * 1000)
            self._send()

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail where the server hung up."""
        self._end(exc or ConnectionError("the server closed the connection"))

    def _send(self) -> None:
        request = next(self._requests, None)
        if request is None:
            self._end(None)
            return
        self._received, self._missing_bytes = b"", -1
        self._began_s = time.perf_counter()
        self._transport.write(request)

    def _end(self, error: Exception | None) -> None:
        if not self.done.done():
            self.done.set_result(None) if error is None else self.done.set_exception(error)
            self._transport.close()


@dataclass(kw_only=True)
class Load:
    """One row of the table: what one application was measured at under one kind of load."""

    application: str
    mode: str
    connections: int
    requests: int = 0
    cpu_s: float = 0.0
    wall_s: float = 0.0
    latencies_ms: list[float] = field(default_factory=list)

    @property
    def cpu_ms(self) -> float:
        """CPU of the server per request."""
        return self.cpu_s * 1000 / self.requests

    @property
    def rate(self) -> float:
        """Requests per second."""
        return self.requests / self.wall_s


class Server:
    """A running application."""

    def __init__(self, name: str, port: int, process: subprocess.Popen[bytes]) -> None:
        self.name = name
        self._port = port
        self._process = psutil.Process(process.pid)
        self._numbers = itertools.count(port * 1_000_000)  # all are on one Redis

    def expected(self, mode: str) -> bytes:
        """What the head of its answer has to say, or the measurement is not of `mode`."""
        if self.name == "LiteLLM":
            return b"" if mode == "fill" else b"x-litellm-cache-key"
        if self.name == "bare":
            return b"gzip"
        if mode in {"fill", "fill rare"}:
            return b""
        return b"fwd=miss" if mode == "miss" else b"encore-origin; hit"

    async def run(self, load: Load, count: int) -> None:
        """Send `count` requests and add up what they cost."""
        before_s, began_s = self._cpu_s(), time.perf_counter()
        load.latencies_ms += await self.send(load.mode, load.connections, count)
        load.wall_s += time.perf_counter() - began_s
        load.cpu_s += self._cpu_s() - before_s
        load.requests += count

    async def send(self, mode: str, connections: int, count: int) -> list[float]:
        """Latencies in ms."""
        if mode == "miss":
            requests = [request_of(body_of(next(self._numbers))) for _ in range(count)]
        else:
            questions = RARE_QUESTIONS if mode in {"rare hit", "fill rare"} else QUESTIONS
            asked = [
                request_of(body_of(n, stream=mode == "streamed hit")) for n in range(questions)
            ]
            requests = [asked[number % questions] for number in range(count)]
        latencies: list[float] = []
        source, loop = iter(requests), asyncio.get_running_loop()
        make = functools.partial(Connection, source, self.expected(mode), latencies)
        opened = [
            await loop.create_connection(make, "127.0.0.1", self._port) for _ in range(connections)
        ]
        await asyncio.gather(*(connection.done for _, connection in opened))
        return latencies

    async def until_it_answers(self) -> None:
        """Wait for the first answer that a measurement would accept, and for more to warm up."""
        deadline_s = time.monotonic() + START_TIMEOUT_S
        while True:
            try:
                await self.send("fill", 1, QUESTIONS)
                await self.send("hit", 4, QUESTIONS if self.name == "LiteLLM" else WARM_UP_REQUESTS)
                if self.name == "Encore":
                    await self.send("fill rare", 4, RARE_QUESTIONS)
            except (OSError, LookupError):
                if not self._process.is_running() or time.monotonic() > deadline_s:
                    raise
                await asyncio.sleep(0.1)
            else:
                return

    def _cpu_s(self) -> float:
        processes = [self._process, *self._process.children(recursive=True)]
        return sum(float(t.user + t.system) for t in (p.cpu_times() for p in processes))


@contextmanager
def started(name: str, command: list[str], port: int, **environment: str) -> Iterator[Server]:
    """The application that `command` serves on `port`."""
    process = subprocess.Popen(
        command, env={**os.environ, **environment}, stdout=subprocess.DEVNULL
    )
    try:
        yield Server(name, port, process)
    finally:
        process.terminate()
        process.wait()


@contextmanager
def litellm(program: Path, redis_url: str, folder: Path) -> Iterator[Server]:
    """LiteLLM's proxy with its Redis cache, one worker, in front of an answer that takes no time.

    As fast as its documents say how to: no database, no logging, no callbacks.
    """
    model = {
        "model": f"openai/{MODEL}",
        "api_key": "none",
        "mock_response": WORDS * 10,
    }
    config = {
        "model_list": [{"model_name": MODEL, "litellm_params": model}],
        "litellm_settings": {"cache": True, "cache_params": {"type": "redis"}},
        "general_settings": {"master_key": API_KEY},
    }
    path = folder / "litellm.yaml"
    path.write_text(json.dumps(config))  # JSON is YAML
    port = free_port()
    command = [str(program), "--config", str(path), "--port", str(port), "--num_workers", "1"]
    environment = {
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "LITELLM_LOG": "ERROR",
        "PYTHONPATH": "",
        "REDIS_URL": redis_url,
    }
    with started("LiteLLM", command, port, **environment) as running:
        yield running


async def fill(redis_url: str) -> None:
    """Give the tenant its key, and the bare application what it returns."""
    control = RedisControlStore.from_url(redis_url)
    await put_document(control, document_of(API_KEY))
    await control.close()
    async with Redis.from_url(redis_url) as client:
        answer = compress(json_text.dumps(chat_answer(WORDS * 10)))
        for number in range(QUESTIONS):
            await client.set(bare_name(body_of(number)), answer)


async def measure(servers: list[Server], rounds: int, requests: int) -> list[Load]:
    """Every load, `rounds` times, in turn."""
    for running in servers:
        await running.until_it_answers()
    loads = [
        (running, Load(application=running.name, mode=mode, connections=connections))
        for mode in MODES
        for connections in CONNECTIONS
        for running in servers
        if mode == "hit"
        or running.name == "Encore"
        or (mode == "miss" and running.name.startswith("Encore"))
    ]
    for _ in range(rounds):
        for running, load in loads:
            slow = running.name == "LiteLLM" or load.mode == "miss"
            await running.run(load, max(1, requests // 10) if slow else requests)
    return [load for _, load in loads]


def report(loads: list[Load]) -> None:
    """Print the table and the ratios that are claimed."""
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}\n")
    print("| | connections | CPU (ms) | p50 (ms) | p99 (ms) | requests/s | of bare |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    by = {(load.application, load.mode, load.connections): load for load in loads}
    for load in loads:
        latencies = sorted(load.latencies_ms)
        bare = by["bare", "hit", load.connections]
        print(
            f"| {load.application}, {load.mode} | {load.connections} | {load.cpu_ms:.3f} "
            f"| {statistics.median(latencies):.2f} | {latencies[int(len(latencies) * 0.99)]:.2f} "
            f"| {load.rate:,.0f} | {load.rate / bare.rate:.2f} |"
        )
    hit = by["Encore", "hit", 16]
    print(f"\nthroughput of bare's at 16 connections: {hit.rate / by['bare', 'hit', 16].rate:.2f}")
    if ("LiteLLM", "hit", 16) in by:
        print(f"throughput of LiteLLM's: {hit.rate / by['LiteLLM', 'hit', 16].rate:.0f} times")
    rare = by["Encore", "rare hit", 16]
    print(f"of rare questions: {rare.rate / by['bare', 'hit', 16].rate:.2f}")
    print(f"CPU, streamed to plain: {by['Encore', 'streamed hit', 16].cpu_ms / hit.cpu_ms:.2f}")
    print(f"CPU of a miss: {by['Encore', 'miss', 1].cpu_ms:.2f} ms")


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def serve(name: str, port: int | None, workers: int, listener_fd: int | None) -> None:
    """Be one of the applications, one worker of it, or the parent of its workers."""
    if listener_fd is not None:
        listener = socket.socket(fileno=listener_fd)
    else:
        listener = socket.create_server(("127.0.0.1", port or 0), backlog=2048)
    if workers == 1:
        app = APPLICATIONS[name](os.environ["BENCH_REDIS_URL"])
        server(app, Departure(), Patience(drain_s=0, finish_s=30)).run(sockets=[listener])
        return
    command = [sys.executable, "-m", "bench.origin_hit", "--serve", name]
    command += ["--listener-fd", str(listener.fileno())]
    asyncio.run(
        run_workers(
            command,
            workers,
            environ=os.environ,
            listener=listener,
            stop_timeout_s=35,
            on_death=lambda _: None,
        )
    )


def main() -> None:
    """Run and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--requests", type=int, default=2000, help="of one kind in a round")
    parser.add_argument("--litellm", type=Path, help="the `litellm` program of an environment")
    parser.add_argument("--serve", choices=APPLICATIONS, help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--listener-fd", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--workers", type=int, default=1, help="also Encore with so many workers")
    arguments = parser.parse_args()
    if arguments.serve:
        serve(arguments.serve, arguments.port, arguments.workers, arguments.listener_fd)
        return
    with tempfile.TemporaryDirectory(prefix="encore-bench-") as folder, ExitStack() as stack:
        url = stack.enter_context(embedded_redis(Path(folder) / "redis"))
        uvloop.run(fill(url))
        servers = []
        applications = [(name, name, 1) for name in APPLICATIONS]
        if arguments.workers > 1:
            many = arguments.workers
            applications.append((f"Encore, {many} workers", "Encore", many))
        for name, application, workers in applications:
            port = free_port()
            command = [sys.executable, "-m", "bench.origin_hit", "--serve", application]
            command += ["--port", str(port), "--workers", str(workers)]
            servers.append(stack.enter_context(started(name, command, port, BENCH_REDIS_URL=url)))
        if arguments.litellm:
            servers.append(stack.enter_context(litellm(arguments.litellm, url, Path(folder))))
        else:
            print("LiteLLM: not measured, for --litellm does not say where it is installed.\n")
        loads = uvloop.run(measure(servers, arguments.rounds, arguments.requests))
    report(loads)


if __name__ == "__main__":
    main()
