"""Redis dies, hangs, refuses, forgets, fills up, or is cut off or damaged on the way."""

from __future__ import annotations

import resource
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import redis as blocking

from tests.faults.endure import LASTS_S, Row, Trial, endure
from tests.faults.system import System
from tests.support.tcp_proxy import Fault

pytestmark = pytest.mark.timeout(600)  # what it starts first may take long on a busy machine
UNAVAILABLE = frozenset({"503 control_unavailable", "503 jobs_unavailable"})
"""What changes control data waits for Redis."""
BIG = 300_000
"""Keys that take a while to load."""


def network(does: str, fault: Fault) -> Trial:
    """The way between the origins and Redis misbehaves."""
    return Trial(
        does=does,
        fault=lambda running: running.redis_proxy.misbehaving(fault),
        failures=UNAVAILABLE,
    )


def client(running: System) -> Any:
    """A client that goes past the proxy."""
    return blocking.Redis(port=running.redis.port, socket_timeout=20)


@contextmanager
def killed(running: System) -> Iterator[None]:
    """`kill -9`, then started again."""
    running.redis.kill()
    yield
    running.redis.start()
    running.redis.until_ready()


@contextmanager
def hanging(running: System) -> Iterator[None]:
    """SIGSTOP, then SIGCONT."""
    running.redis.freeze()
    try:
        yield
    finally:
        running.redis.thaw()


@contextmanager
def restarted(running: System) -> Iterator[None]:
    """A clean end and a start."""
    with client(running) as one:
        one.shutdown()
    running.redis.kill()  # waits for its end
    running.redis.start()
    running.redis.until_ready()
    yield


@contextmanager
def loading(running: System) -> Iterator[None]:
    """A start with much to load: it answers -LOADING meanwhile."""
    fill = "for n = 1, ARGV[1] do redis.call('SET', 'big:' .. n, n) end"
    with client(running) as one:
        one.eval(fill, 0, BIG)
        running.redis.kill()
        running.redis.start()
        yield
        running.redis.until_ready()
        one.eval("for n = 1, ARGV[1] do redis.call('DEL', 'big:' .. n) end", 0, BIG)


@contextmanager
def configured(running: System, **values: str) -> Iterator[None]:
    """CONFIG SET, and back."""
    with client(running) as one:
        named = {name.replace("_", "-"): value for name, value in values.items()}
        before = {name: one.config_get(name)[name] for name in named}
        for name, value in named.items():
            one.config_set(name, value)
        try:
            yield
        finally:
            for name, value in before.items():
                one.config_set(name, value)


@contextmanager
def evicting(running: System) -> Iterator[None]:
    """A little room, volatile-lru: entries go, and nothing else."""
    with client(running) as one:
        limit_bytes = one.info("memory")["used_memory"] + 5_000
        before = one.info("stats")["evicted_keys"]
        with configured(running, maxmemory_policy="volatile-lru", maxmemory=str(limit_bytes)):
            yield
        assert one.info("stats")["evicted_keys"] > before


@contextmanager
def disk_full(running: System) -> Iterator[None]:
    """Its append-only file cannot grow. With `appendfsync always` it ends; it is started again."""
    pid = running.redis._process.pid
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (1, resource.RLIM_INFINITY))
    yield
    running.redis.kill()
    running.redis.start()
    running.redis.until_ready()


@contextmanager
def read_only(running: System) -> Iterator[None]:
    """A replica of a primary that is not there, as behind half a failover."""
    with client(running) as one:
        one.replicaof("127.0.0.1", "1")
        try:
            yield
        finally:
            one.replicaof("NO", "ONE")


@contextmanager
def paused(running: System) -> Iterator[None]:
    """CLIENT PAUSE, which holds up CLIENT UNPAUSE as well."""
    with client(running) as one:
        one.client_pause(round(LASTS_S * 1000))
    yield


@contextmanager
def forgetting_scripts(running: System) -> Iterator[None]:
    """SCRIPT FLUSH, again and again."""
    over = threading.Event()

    def flush() -> None:
        with client(running) as one:
            while not over.wait(0.2):
                one.script_flush()

    thread = threading.Thread(target=flush)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@contextmanager
def flushed(running: System) -> Iterator[None]:
    """FLUSHALL; an operator puts the control documents back in the end."""
    take = """
    local kept = {}
    for _, name in ipairs(redis.call('KEYS', 'encore:ctl:*')) do
      if redis.call('PTTL', name) == -1 then
        kept[#kept + 1] = {name, redis.call('DUMP', name)}
      end
    end
    redis.call('FLUSHALL')
    return kept
    """
    with client(running) as one:
        kept: Any = one.eval(take, 0)
        yield
        for name, dumped in kept:
            one.restore(name, 0, dumped, replace=True)


TRIALS: dict[str, Trial] = {
    "Redis refuses": network("each connection ends with a RST", Fault(resetting=True)),
    "Redis silent": network("nothing gets through", Fault(silent=True)),
    "Redis slow": network("each piece takes 0.1 s", Fault(delay_s=0.1)),
    "Redis reset in the middle": network("RST after 3 kB", Fault(reset_after_bytes=3000)),
    "Redis closed in the middle": network("FIN after 3 kB", Fault(close_after_bytes=3000)),
    "Redis' answers damaged": network("a bit in 5 % of the pieces", Fault(flips=0.05)),
    "Redis' answers garbled": network("a byte 0xFF in 5 % of the pieces", Fault(garbles=0.05)),
    "Requests to Redis damaged": network("a bit in 5 % of the pieces", Fault(flips_requests=0.05)),
    "Redis killed": Trial(does="kill -9, started again", fault=killed, failures=UNAVAILABLE),
    "Redis hanging": Trial(does="SIGSTOP, SIGCONT", fault=hanging, failures=UNAVAILABLE),
    "Redis restarted": Trial(does="SHUTDOWN, started", fault=restarted, failures=UNAVAILABLE),
    "Redis loading": Trial(
        does="killed, -LOADING for a while", fault=loading, failures=UNAVAILABLE
    ),
    "Redis' disk full": Trial(
        does="no write to its file (RLIMIT_FSIZE)", fault=disk_full, failures=UNAVAILABLE
    ),
    "Redis' memory full": Trial(
        does="maxmemory, noeviction",
        fault=lambda running: configured(
            running, maxmemory_policy="noeviction", maxmemory="1000000"
        ),
        failures=UNAVAILABLE,
    ),
    "Redis evicting": Trial(does="maxmemory, volatile-lru", fault=evicting, failures=UNAVAILABLE),
    "Redis read-only": Trial(does="REPLICAOF a dead one", fault=read_only, failures=UNAVAILABLE),
    "Redis paused": Trial(does="CLIENT PAUSE", fault=paused, failures=UNAVAILABLE),
    "Scripts forgotten": Trial(
        does="SCRIPT FLUSH, 5 a second", fault=forgetting_scripts, failures=UNAVAILABLE
    ),
}


@pytest.mark.parametrize("name", TRIALS)
def test_redis(running: System, note: Callable[[Row], None], name: str) -> None:
    """It costs hits, never a wrong answer nor what was acknowledged."""
    endure(running, name, TRIALS[name], note)


def test_redis_that_lost_everything(running: System, note: Callable[[Row], None]) -> None:
    """Nobody is let in by keys that nobody knows, until they are put back."""
    lost = Trial(
        does="FLUSHALL, later control documents put back",
        fault=flushed,
        failures=UNAVAILABLE | {"401 invalid_api_key", "404 no_tenant"},
        keeps_jobs=False,
    )
    endure(running, "Redis lost everything", lost, note)
