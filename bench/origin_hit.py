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
import hashlib
import itertools
import json
import os
import socket
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

from bench import client
from bench.results import Comparison, Result, Table, add_json_option, deliver, p50, p99
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
PEER = "LiteLLM"
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
        if self.name == PEER:
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
        """Latencies in ms. Raises LookupError where an answer is not what it has to be."""
        if mode == "miss":
            requests = [request_of(body_of(next(self._numbers))) for _ in range(count)]
        else:
            questions = RARE_QUESTIONS if mode in {"rare hit", "fill rare"} else QUESTIONS
            asked = [
                request_of(body_of(n, stream=mode == "streamed hit")) for n in range(questions)
            ]
            requests = [asked[number % questions] for number in range(count)]
        address = ("127.0.0.1", self._port)
        return (await client.send(address, requests, connections, self.expected(mode))).checked()

    async def until_it_answers(self) -> None:
        """Wait for the first answer that a measurement would accept, and for more to warm up."""
        deadline_s = time.monotonic() + START_TIMEOUT_S
        while True:
            try:
                await self.send("fill", 1, QUESTIONS)
                await self.send("hit", 4, QUESTIONS if self.name == PEER else WARM_UP_REQUESTS)
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
    with started(PEER, command, port, **environment) as running:
        yield running


async def fill(redis_url: str) -> None:
    """Give the tenant its key, and the bare application what it returns."""
    control = RedisControlStore.from_url(redis_url)
    await put_document(control, document_of(API_KEY))
    await control.close()
    async with Redis.from_url(redis_url) as redis:
        answer = compress(json_text.dumps(chat_answer(WORDS * 10)))
        for number in range(QUESTIONS):
            await redis.set(bare_name(body_of(number)), answer)


async def take_turns(servers: list[Server], rounds: int, requests: int) -> list[Load]:
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
            slow = running.name == PEER or load.mode == "miss"
            await running.run(load, max(1, requests // 10) if slow else requests)
    return [load for _, load in loads]


def compared(loads: list[Load]) -> Result:
    """Every load beside the bare application's hits, and LiteLLM's where it was measured."""
    by = {(load.application, load.mode, load.connections): load for load in loads}
    comparisons, rows = [], []
    for load in loads:
        bare = by["bare", "hit", load.connections]
        if load.application == "Encore" and load.mode != "miss":
            peer = by.get((PEER, load.mode, load.connections))
            for other in (bare, peer) if peer else (bare,):
                comparisons += beside(load, other)
        rows.append(
            [
                f"{load.application}, {load.mode}",
                str(load.connections),
                f"{load.cpu_ms:.3f}",
                f"{p50(load.latencies_ms):.2f}",
                f"{p99(load.latencies_ms):.2f}",
                f"{load.rate:,.0f}",
                f"{load.rate / bare.rate:.2f}",
            ]
        )
    columns = ["", "conn.", "CPU (ms)", "p50 (ms)", "p99 (ms)", "requests/s", "of bare"]
    table = Table(title="A hit and a miss at the origin", columns=columns, rows=rows)
    return Result(comparisons=comparisons, tables=[table])


def beside(load: Load, other: Load) -> list[Comparison]:
    """CPU and throughput."""
    what = f"origin {load.mode}, {load.connections} conn."
    whose = f"{other.application}, {other.mode}"
    figures = [("CPU ms", load.cpu_ms, other.cpu_ms)]
    if load.mode == "hit":
        figures.append(("requests/s", load.rate, other.rate))
    return [
        Comparison(what=what, unit=unit, encore=ours, beside=whose, other=theirs)
        for unit, ours, theirs in figures
    ]


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


def measure(rounds: int, requests: int, workers: int, program: Path | None) -> Result:
    """Start every application, and measure; `program` is LiteLLM's."""
    with tempfile.TemporaryDirectory(prefix="encore-bench-") as folder, ExitStack() as stack:
        url = stack.enter_context(embedded_redis(Path(folder) / "redis"))
        uvloop.run(fill(url))
        servers = []
        applications = [(name, name, 1) for name in APPLICATIONS]
        if workers > 1:
            applications.append((f"Encore, {workers} workers", "Encore", workers))
        for name, application, processes in applications:
            port = free_port()
            command = [sys.executable, "-m", "bench.origin_hit", "--serve", application]
            command += ["--port", str(port), "--workers", str(processes)]
            servers.append(stack.enter_context(started(name, command, port, BENCH_REDIS_URL=url)))
        if program:
            servers.append(stack.enter_context(litellm(program, url, Path(folder))))
        result = compared(uvloop.run(take_turns(servers, rounds, requests)))
    if not program:
        result.remarks.append("LiteLLM: not measured, for --litellm does not say where it is.")
    return result


def main() -> None:
    """Run and print."""
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
    add_json_option(parser)
    arguments = parser.parse_args()
    if arguments.serve:
        serve(arguments.serve, arguments.port, arguments.workers, arguments.listener_fd)
        return
    result = measure(arguments.rounds, arguments.requests, arguments.workers, arguments.litellm)
    deliver(result, arguments.json)


if __name__ == "__main__":
    main()
