"""One origin of two dies, hangs, leaves, loses a worker or its disk; both do."""

from __future__ import annotations

import resource
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import httpx
import psutil
import pytest
import redis as blocking

from tests.faults.endure import Row, Trial, endure
from tests.faults.system import System
from tests.faults.upstream import MODEL
from tests.support.origins import Origin
from tests.support.tcp_proxy import Fault

AWAY = frozenset(
    {
        "502 origin_unreachable",
        "502 answer_interrupted",
        "503 control_unavailable",
        "503 None",
        "504 origin_timeout",
        "200, then answer_interrupted",
    }
)
"""What the edge says of an origin that does not answer, or breaks off, and what an origin says
that has just started and found Redis slow."""
pytestmark = pytest.mark.timeout(600)  # what it starts first may take long on a busy machine
EDGE_TIMEOUT_S = 4.0
"""ENCORE_ORIGIN_TIMEOUT_S of the system's edge."""


def send(origin: Origin, number: signal.Signals) -> None:
    """Send an origin a signal."""
    assert origin.process is not None
    origin.process.send_signal(number)


@contextmanager
def killed(origins: Sequence[Origin]) -> Iterator[None]:
    """`kill -9`, then started again."""
    for one in origins:
        one.kill()
    yield
    for one in origins:
        one.start()


@contextmanager
def hanging(origins: Sequence[Origin]) -> Iterator[None]:
    """SIGSTOP, then SIGCONT; connections go to it all the while."""
    for one in origins:
        send(one, signal.SIGSTOP)
    try:
        yield
    finally:
        for one in origins:
            send(one, signal.SIGCONT)


@contextmanager
def drained(running: System) -> Iterator[None]:
    """SIGTERM; the load balancer turns away from who says that it goes; then started again."""
    going, staying = running.origins
    send(going, signal.SIGTERM)
    until(lambda: not is_ready(going))
    running.balancer.aim(staying.port)
    going.stop()
    going.start()
    running.balancer.aim(going.port, staying.port)
    yield


@contextmanager
def worker_killed(running: System) -> Iterator[None]:
    """`kill -9` of one of two worker processes behind one socket."""
    origin = running.origins[0]
    assert origin.process is not None
    workers = psutil.Process(origin.process.pid).children()
    workers[0].kill()
    yield


@contextmanager
def disk_full(running: System) -> Iterator[None]:
    """No file of theirs can grow: logs and state."""
    for limit_bytes in (1, resource.RLIM_INFINITY):
        for one in running.origins:
            assert one.process is not None
            limits = (limit_bytes, resource.RLIM_INFINITY)
            resource.prlimit(one.process.pid, resource.RLIMIT_FSIZE, limits)
        if limit_bytes == 1:
            yield


BREAKS = ("origin",)
BREAKS_STREAMS = ("origin", "edge")
"""A stream that is under way when its origin dies breaks off at the edge too: it has begun."""
TRIALS: dict[str, Trial] = {
    "Origin killed": Trial(
        does="kill -9 of one of two, started again",
        fault=lambda running: killed(running.origins[:1]),
        failures=AWAY,
        may_break=BREAKS_STREAMS,
    ),
    "Origins killed": Trial(
        does="kill -9 of both, started again",
        fault=lambda running: killed(running.origins),
        failures=AWAY,
        may_break=BREAKS_STREAMS,
    ),
    "Origin hanging": Trial(
        does="SIGSTOP of one of two for longer than the edge waits",
        fault=lambda running: hanging(running.origins[:1]),
        failures=AWAY,
        may_break=BREAKS,
        lasts_s=EDGE_TIMEOUT_S + 1,
    ),
    "Origins hanging": Trial(
        does="SIGSTOP of both for longer than the edge waits",
        fault=lambda running: hanging(running.origins),
        failures=AWAY,
        may_break=BREAKS,
        lasts_s=EDGE_TIMEOUT_S + 1,
    ),
    "Origin drained": Trial(does="SIGTERM of one of two, started again", fault=drained),
    "Origins' disk full": Trial(does="no write to files (RLIMIT_FSIZE)", fault=disk_full),
}


@pytest.mark.parametrize("name", TRIALS)
def test_origin(running: System, note: Callable[[Row], None], name: str) -> None:
    """It costs answers; none is wrong, half, or another tenant's."""
    endure(running, name, TRIALS[name], note)


def test_worker(running: System, note: Callable[[Row], None]) -> None:
    """What it was about breaks off; the others go on, and it is replaced."""
    origin = running.origins[0]
    origin.stop()
    origin.options = ("--workers", "2")
    origin.start()
    trial = Trial(
        does="kill -9 of one of two worker processes of one of two",
        fault=worker_killed,
        failures=AWAY,
        may_break=BREAKS_STREAMS,
    )
    try:
        endure(running, "Worker killed", trial, note)
        assert origin.process is not None
        assert len(psutil.Process(origin.process.pid).children()) == 2
    finally:
        origin.stop()
        origin.options = ()
        origin.start()


def test_leader_that_dies(running: System) -> None:
    """Who waits at the other origin for what it generates gets the answer all the same."""
    leader, follower = running.origins
    body = {"model": MODEL, "messages": [{"role": "user", "content": "What outlives its leader?"}]}
    headers = {"authorization": f"Bearer {running.keys['acme']}"}

    def ask(origin: Origin) -> httpx.Response:
        return httpx.post(
            f"{origin.url}/v1/chat/completions", json=body, headers=headers, timeout=30
        )

    with ThreadPoolExecutor() as pool:
        with running.upstream_proxy.misbehaving(Fault(bytes_per_s=300)):
            first = pool.submit(ask, leader)
            with blocking.Redis(port=running.redis.port) as client:
                until(lambda: bool(client.keys("encore:*:said:*")))
            second = pool.submit(ask, follower)
            with pytest.raises(TimeoutError):
                second.result(timeout=0.5)
            leader.kill()
        answer = second.result()
        with pytest.raises(httpx.HTTPError):
            first.result()
    assert answer.status_code == 200
    said = answer.json()["choices"][0]["message"]["content"]
    assert said.startswith("What outlives its leader? #")
    leader.start()


def is_ready(origin: Origin) -> bool:
    """What a load balancer asks."""
    try:
        return httpx.get(f"{origin.url}/readyz").is_success
    except httpx.HTTPError:
        return False


def until(is_so: Callable[[], bool]) -> None:
    """Wait for something that comes soon."""
    deadline_s = time.monotonic() + 10
    while not is_so():
        assert time.monotonic() < deadline_s
        time.sleep(0.01)
