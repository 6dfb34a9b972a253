"""The two tiers under an answer, Redis and Workers KV, by the size of the value.

    .venv/bin/python -m bench.tiers [--rounds 5] [--count 100]

Reads and writes go by the calls that Encore makes: `RedisStore` of the origin, and the KV binding
with metadata, an end and `cacheTtl` in a Worker. In every round both tiers take every kind of work
in turn. "Visible" is from the start of a write until another reader has it. CPU is of both ends
together: the reader's process and Redis, or workerd with its KV. A Worker's clock ticks in whole
milliseconds, hence means, not medians.

The Redis is a process on this machine. The KV is Miniflare's, on this machine's disk ("local"): it
shows what our calls cost, and nothing of Cloudflare's network, where a write takes up to a minute
to be seen everywhere. What vendors and articles publish is printed beside it, as theirs.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil
import uvloop

from bench.edge import javascript_edge, workerd_of
from bench.processes import cpu_s
from origin.embedded_redis import embedded_redis
from origin.stores.redis_store import RedisStore

SIZES = (1_000, 10_000, 100_000, 1_000_000)
KEYS = 16
AT_ONCE = 16
LIFE_MS = 3_600_000
KINDS = ("read", "write", "visible")
PUBLISHED = """\
Published by vendors and in articles, not measured here: Redis reads 0.1-2 ms, writes 0.1-3 ms,
100,000 operations a second; Workers KV reads 10-50 ms, writes 100-500 ms, consistent after 1-60 s,
one write a second to one key."""


@dataclass(kw_only=True)
class Work:
    """What one tier was measured at, for one kind of work on values of one size."""

    ms: list[float] = field(default_factory=list)
    wall_s: float = 0.0
    cpu_s: float = 0.0


class RedisTier:
    """Redis, by the origin's own store; a second one reads what the first one wrote."""

    name = "Redis"

    def __init__(self, url: str, server: psutil.Process) -> None:
        self.processes = (server, psutil.Process())
        self._writer, self._reader = (RedisStore.from_url(url, timeout_s=10) for _ in range(2))

    async def work(self, kind: str, size: int, count: int, at_once: int) -> list[float]:
        """How long each of `count` operations took, in ms, `at_once` of them at a time."""
        value = os.urandom(size)
        end_ms = time.time_ns() // 1_000_000 + LIFE_MS
        ms: list[float] = []
        numbers = iter(range(count))

        async def visible(key: str) -> None:
            new = os.urandom(size)
            written = asyncio.create_task(self._writer.put(key, new, end_ms))
            while await self._reader.get(key) != new:
                pass
            await written

        does: dict[str, Callable[[str], Awaitable[object]]] = {
            "read": self._reader.get,
            "write": lambda key: self._writer.put(key, value, end_ms),
            "visible": visible,
        }

        async def worker() -> None:
            for number in numbers:
                began_s = time.perf_counter()
                await does[kind](f"{size:048d}{number % KEYS:016d}")
                ms.append((time.perf_counter() - began_s) * 1000)

        await asyncio.gather(*(worker() for _ in range(at_once)))
        return ms

    async def close(self) -> None:
        """Free connections."""
        await self._writer.close()
        await self._reader.close()


class KVTier:
    """Workers KV in workerd, by a Worker that times what it does."""

    name = "KV, local"

    def __init__(self, url: str, node: psutil.Process) -> None:
        self.processes = (workerd_of(node), node)
        self._client = httpx.AsyncClient(base_url=url, timeout=600)

    async def work(self, kind: str, size: int, count: int, at_once: int) -> list[float]:
        """See RedisTier.work."""
        query = {"size": size, "count": count, "at_once": at_once}
        response = await self._client.post(f"/{kind}", params=query)
        response.raise_for_status()
        return [float(ms) for ms in response.json()["ms"]]

    async def close(self) -> None:
        """Free connections."""
        await self._client.aclose()


Tier = RedisTier | KVTier
Loads = dict[tuple[str, str, int, int], Work]
"""By tier, kind, size and how many at once."""


async def measure(tiers: Sequence[Tier], rounds: int, count: int) -> Loads:
    """Every kind of work, `rounds` times, in turn."""
    loads = {
        (tier.name, kind, size, at_once): Work()
        for kind in KINDS
        for size in SIZES
        for at_once in ((1,) if kind == "visible" else (1, AT_ONCE))
        for tier in tiers
    }
    by_name = {tier.name: tier for tier in tiers}
    for tier in tiers:
        for size in SIZES:
            await tier.work("write", size, KEYS, 1)
    for _ in range(rounds):
        for (name, kind, size, at_once), load in loads.items():
            tier = by_name[name]
            before_s, began_s = cpu_s(tier.processes), time.perf_counter()
            load.ms += await tier.work(kind, size, count, at_once)
            load.wall_s += time.perf_counter() - began_s
            load.cpu_s += cpu_s(tier.processes) - before_s
    return loads


def report(loads: Loads, tiers: Sequence[Tier]) -> None:
    """Print the table and what others publish."""
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}\n")
    print(
        "| | value (kB) | read mean / p99 (ms) | write mean / p99 (ms) | visible mean / p99 (ms) "
        "| reads/s | writes/s | CPU of a read (ms) | of a write (ms) |"
    )
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for size in SIZES:
        for tier in tiers:
            one = [loads[tier.name, kind, size, 1] for kind in KINDS]
            many = [loads[tier.name, kind, size, AT_ONCE] for kind in KINDS[:2]]
            cells = [
                f"{size // 1000}",
                *(mean_and_p99(load.ms) for load in one),
                *(f"{len(load.ms) / load.wall_s:,.0f}" for load in many),
                *(f"{load.cpu_s * 1000 / len(load.ms):.2f}" for load in many),
            ]
            print(f"| {tier.name} | {' | '.join(cells)} |")
    kv, redis = (loads[name, "read", SIZES[0], 1].ms for name in ("KV, local", "Redis"))
    print(f"\noperations a second and CPU: {AT_ONCE} at once")
    print(f"a read of 1 kB, local KV to Redis: {statistics.mean(kv) / statistics.mean(redis):.1f}")
    print(f"\n{PUBLISHED}")


def mean_and_p99(ms: Sequence[float]) -> str:
    """For a cell of the table."""
    ordered = sorted(ms)
    return f"{statistics.mean(ordered):.2f} / {ordered[int(len(ordered) * 0.99)]:.2f}"


@contextmanager
def redis_tier(folder: Path) -> Iterator[tuple[str, psutil.Process]]:
    """(URL, process) of a Redis of this run alone."""
    before = {child.pid for child in psutil.Process().children(recursive=True)}
    with embedded_redis(folder) as url:
        (server,) = (
            child
            for child in psutil.Process().children(recursive=True)
            if child.pid not in before and "redis-server" in child.name()
        )
        yield url, server


async def run(
    redis: tuple[str, psutil.Process], kv: tuple[str, psutil.Process], rounds: int, count: int
) -> None:
    """Measure and report."""
    tiers = (RedisTier(*redis), KVTier(*kv))
    loads = await measure(tiers, rounds, count)
    for tier in tiers:
        await tier.close()
    report(loads, tiers)


def main() -> None:
    """Run and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--count", type=int, default=400, help="operations of one kind in a round")
    arguments = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as folder,
        redis_tier(Path(folder)) as redis,
        javascript_edge("tiers_worker.mjs", {}) as (url, process),
    ):
        kv = url, psutil.Process(process.pid)
        uvloop.run(run(redis, kv, arguments.rounds, arguments.count))


if __name__ == "__main__":
    main()
