"""The whole system as processes of its own, with a proxy before each part:

clients - proxy - edge (workerd, KV) - proxy, a load balancer - two origins - proxy - Redis
                                                                      `----- proxy - upstream
"""  # noqa: D400, D415 - a picture

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path

import httpx

from tests.edge.local_edge import ROOT, Edge, edges
from tests.faults.traffic import Client
from tests.support.commands import environ
from tests.support.origins import SECRET, Origin
from tests.support.ports import free_port
from tests.support.redis_servers import Node, durable_server, programs
from tests.support.tcp_proxy import TcpProxy, tcp_proxy

TENANTS = ("acme", "globex")
START_TIMEOUT_S = 30


class Upstream:
    """`tests.faults.upstream` as a process on one port."""

    def __init__(self) -> None:
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and wait until it answers."""
        command = [sys.executable, "-m", "tests.faults.upstream", str(self.port)]
        self.process = subprocess.Popen(command, cwd=ROOT, env=environ())
        deadline_s = time.monotonic() + START_TIMEOUT_S
        while True:
            try:
                httpx.get(f"http://127.0.0.1:{self.port}/v1/models")
            except httpx.HTTPError:
                assert time.monotonic() < deadline_s
                time.sleep(0.02)
            else:
                return

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        assert self.process is not None
        self.process.send_signal(number)

    def kill(self) -> None:
        """`kill -9`."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()


@dataclass(kw_only=True)
class System:
    """Everything that can be broken, and keys for those who watch."""

    redis: Node
    redis_proxy: TcpProxy
    upstream: Upstream
    upstream_proxy: TcpProxy
    origins: tuple[Origin, Origin]
    balancer: TcpProxy
    """Between the edge and the origins."""
    edge: Edge
    edge_proxy: TcpProxy
    start_edge: Callable[..., Edge]
    keys: dict[str, str]
    """An admin's API key of each tenant."""

    def clients(self, *, direct: bool = True, may_break: tuple[str, ...] = ()) -> list[Client]:
        """Two who ask at the edge for each tenant, one directly, and one who purges at the edge.

        `may_break`: `edge` or `origin`, where connections may end without an answer.
        """
        places = [("edge", self.edge_proxy.url)] * 2
        if direct:
            places.append(("origin", self.balancer.url))
        return [
            Client(
                tenant=tenant,
                api_key=self.keys[tenant],
                where=where,
                url=url,
                may_break=where in may_break,
                purges=purges,
            )
            for tenant in TENANTS
            for where, url, purges in [*((w, u, False) for w, u in places), (*places[0], True)]
        ]

    def signal_edge(self, number: signal.Signals) -> None:
        """Send a signal to workerd and to the Node that runs it."""
        os.killpg(self.edge.process.pid, number)

    def kill_edge(self) -> None:
        """`kill -9`."""
        self.signal_edge(signal.SIGKILL)
        self.edge.process.wait()

    def restart_edge(self, *, persist: Path | None = None) -> None:
        """Start it with the state that it had, or that there is below `persist`."""
        self.edge = self.start_edge() if persist is None else self.start_edge(persist=persist)
        self.edge_proxy.aim(_port(self.edge))


@contextmanager
def system(
    folder: Path,
    edge_variables: dict[str, str],
    *,
    config: Path = ROOT / "wrangler.toml",
    **variables: str,
) -> Iterator[System]:
    """A running one, below `folder`; `variables` are the origins', `config` is the edge's."""
    with ExitStack() as stack:
        redis = stack.enter_context(durable_server(list(programs().values())[-1], folder / "redis"))
        redis_proxy = stack.enter_context(tcp_proxy(redis.port))
        upstream = Upstream()
        stack.callback(upstream.kill)
        upstream.start()
        upstream_proxy = stack.enter_context(tcp_proxy(upstream.port))
        edge_proxy = stack.enter_context(tcp_proxy())
        common = {
            "ENCORE_SECRET": SECRET,
            "ENCORE_UPSTREAM": upstream_proxy.url,
            "ENCORE_UPSTREAM_TIMEOUT_S": "2",
            "REDIS_URL": f"redis://127.0.0.1:{redis_proxy.port}",
            "ENCORE_EDGE_URL": edge_proxy.url,
            "ENCORE_SEMANTIC": "off",
            "ENCORE_DRAIN_S": "3",
        } | variables
        origins = (
            _origin(folder / "one", common, stack),
            _origin(folder / "two", common, stack),
        )
        keys = {
            tenant: origins[0].command("keys", "create", tenant, "--role", "admin")
            for tenant in TENANTS
        }
        for one in origins:
            one.start()
        balancer = stack.enter_context(tcp_proxy(*(one.port for one in origins)))
        numbers = count()
        start = stack.enter_context(edges(lambda: _new(folder / f"edge{next(numbers)}")))
        start_edge = partial(
            start,
            config,
            variables={
                "ENCORE_SECRET": SECRET,
                "ENCORE_ORIGIN_URL": balancer.url,
                "ENCORE_ORIGIN_TIMEOUT_S": "4",
                **edge_variables,
            },
            persist=folder / "kv",
        )
        edge = start_edge()
        edge_proxy.aim(_port(edge))
        yield System(
            redis=redis,
            redis_proxy=redis_proxy,
            upstream=upstream,
            upstream_proxy=upstream_proxy,
            origins=origins,
            balancer=balancer,
            edge=edge,
            edge_proxy=edge_proxy,
            start_edge=start_edge,
            keys=keys,
        )


def _origin(folder: Path, variables: dict[str, str], stack: ExitStack) -> Origin:
    folder.mkdir()
    one = Origin(folder=folder, variables=variables)
    stack.callback(one.client.close)
    stack.callback(one.kill)
    return one


def _port(edge: Edge) -> int:
    return int(edge.url.rpartition(":")[2])


def _new(folder: Path) -> Path:
    folder.mkdir()
    return folder
