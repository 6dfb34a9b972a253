"""Half an hour of mixed traffic, with rolling restarts and purges.

    .venv/bin/python -m tests.faults.soak [--minutes 30] [--json FILE]

Clients whose answers are checked (see `tests.faults.traffic`) ask and purge at an edge and at two
origins behind a load balancer that looks at `/readyz`. One origin is stopped and started again all
the time, the other and the edge never. Beside them tenants that nobody purges ask a made-up log,
which `encore plan` is given afterwards. It prints memory, file descriptors and outcomes over time,
and what was predicted; exit status 1 where a request was answered wrongly or failed.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import psutil
from redis import Redis

from origin.planning.generate import LogPlan, generated
from shared.requests import Endpoint
from tests.faults.system import System, system
from tests.faults.traffic import Traffic
from tests.faults.upstream import MODEL
from tests.support.origins import Origin

LIFE_S = 60
"""Of an entry: short, so that what is kept is soon as much as it gets."""
SETTINGS = {
    "ENCORE_TTL_S": str(LIFE_S),
    "ENCORE_STALE_WHILE_REVALIDATE_S": "20",
    "ENCORE_STALE_IF_ERROR_S": "20",
    "ENCORE_DRAIN_S": "2",
}
PLANNED = LogPlan(requests=1_000_000, tenants=2, questions=3000, unique=0.1)
PLANNED_TENANTS = ("tenant-1", "tenant-2")
PAUSE_S = 0.03
PURGE_EVERY_S = 10.0
RESTART_EVERY_S = 45.0
SAMPLE_EVERY_S = 5.0
LOOK_EVERY_S = 0.1
GOOD = frozenset({"hit", "generated", "purge", "without Redis", "stale-if-error"})


@dataclass(frozen=True, kw_only=True)
class Sample:
    """What the processes hold at a time. Sizes in MB, times in seconds since the traffic began."""

    at_s: float
    edge_mb: float
    origin_mb: float
    redis_mb: float
    edge_files: int
    origin_files: int
    redis_keys: int


class Planned:
    """Asks a made-up log, one request after another, and notes when each was asked."""

    def __init__(self, url: str, keys: dict[str, str]) -> None:
        self._url, self._keys = url, keys
        self.rows: list[dict[str, Any]] = []
        self.outcomes: Counter[str] = Counter()
        self.failures: list[str] = []

    def run(self, over: threading.Event) -> None:
        """Ask until it is over."""
        limits = httpx.Limits(max_keepalive_connections=0)
        with httpx.Client(base_url=self._url, timeout=20, limits=limits) as http:
            for row in generated(PLANNED):
                if over.wait(PAUSE_S):
                    return
                self._ask(http, row)

    def _ask(self, http: httpx.Client, row: dict[str, Any]) -> None:
        row["body"]["model"] = MODEL
        row |= {"time": time.time(), "location": "here"}
        headers = {"authorization": f"Bearer {self._keys[row['tenant']]}", **row.get("headers", {})}
        path = row.get("endpoint", Endpoint.CHAT)
        try:
            response = http.post(path, json=row["body"], headers=headers)
        except httpx.HTTPError as exc:
            self.failures.append(repr(exc))
            return
        if response.status_code != httpx.codes.OK:
            self.failures.append(f"{response.status_code} {response.text[:200]}")
            return
        self.rows.append(row)
        status = response.headers["cache-status"]
        bypass = "fwd=bypass" in status.rpartition("encore-edge")[2]
        self.outcomes["hit" if "; hit" in status else "bypass" if bypass else "miss"] += 1

    @property
    def hit_rate(self) -> float:
        """Hits by hits and misses."""
        return self.outcomes["hit"] / max(self.outcomes["hit"] + self.outcomes["miss"], 1)

    def predicted(self, one: Origin) -> float:
        """What `encore plan` says of the same log under the same settings."""
        log = one.folder / "asked.jsonl"
        log.write_text("".join(json.dumps(row) + "\n" for row in self.rows))
        options = ["--ttl", f"{LIFE_S}s", "--normalisation", "exact", "--admit-after", "1"]
        options += ["--generation-s", "0.02", "--json"]
        said = json.loads(one.command("plan", str(log), *options))
        return float(said["settings"][0]["hit_rate"])


class Soak:
    """One run."""

    def __init__(self, running: System, planned: Planned) -> None:
        self._running = running
        self._over = threading.Event()
        self._began_s = time.monotonic()
        self.planned = planned
        self.traffic = Traffic(
            [
                replace(client, pause_s=PAUSE_S, purge_every_s=PURGE_EVERY_S)
                for client in running.clients()
            ]
        )
        self.samples: list[Sample] = []
        self.restarts = 0

    def run(self, minutes: float) -> None:
        """Let it go on for so long. Raises AssertionError on a violation."""
        work = [
            self._every(LOOK_EVERY_S, self._balance),
            self._every(RESTART_EVERY_S, self._restart),
            self._every(SAMPLE_EVERY_S, self._sample),
            lambda: self.planned.run(self._over),
        ]
        threads = [threading.Thread(target=one) for one in work]
        with self.traffic.running():
            for thread in threads:
                thread.start()
            try:
                self._watch(minutes * 60)
            finally:
                self._over.set()
                for thread in threads:
                    thread.join()

    def _watch(self, seconds: float) -> None:
        while (at_s := time.monotonic() - self._began_s) < seconds:
            time.sleep(min(60, seconds - at_s + 0.1))
            said = f"{at_s / 60:4.1f} min {dict(self.traffic.counts())} planned"
            sys.stderr.write(f"{said} {dict(self.planned.outcomes)}, {self.restarts} restarts\n")
            sys.stderr.write(f"         {self.samples[-1:]} {self.traffic.violations[:1]}\n")

    def _every(self, pause_s: float, do: Callable[[], None]) -> Callable[[], None]:
        def run() -> None:
            while not self._over.wait(pause_s):
                do()

        return run

    def _balance(self) -> None:
        """What a load balancer does: new connections go to who is ready."""
        ready = [one.port for one in self._running.origins if _is_ready(one)]
        if ready:
            self._running.balancer.aim(*ready)

    def _restart(self) -> None:
        one = self._running.origins[1]
        one.stop()
        one.start()
        self.restarts += 1

    def _sample(self) -> None:
        # workerd runs below node, which runs it for this machine alone.
        children = psutil.Process(self._running.edge.process.pid).children(recursive=True)
        edge = [one for one in children if "workerd" in one.name()]
        process = self._running.origins[0].process
        assert process is not None
        with psutil.Process(process.pid).oneshot():
            origin = psutil.Process(process.pid)
            origin_mb, origin_files = origin.memory_info().rss / 1e6, origin.num_fds()
        with Redis(port=self._running.redis.port) as redis:
            memory: Any = redis.info("memory")
            keys: Any = redis.dbsize()
        self.samples.append(
            Sample(
                at_s=time.monotonic() - self._began_s,
                edge_mb=sum(one.memory_info().rss for one in edge) / 1e6,
                origin_mb=origin_mb,
                redis_mb=memory["used_memory"] / 1e6,
                edge_files=sum(one.num_fds() for one in edge),
                origin_files=origin_files,
                redis_keys=keys,
            )
        )


@contextmanager
def soaking(folder: Path) -> Iterator[tuple[Soak, Origin]]:
    """A system below `folder`, and what is to run on it."""
    with ExitStack() as stack:
        running = stack.enter_context(system(folder, {}, **SETTINGS))
        first = running.origins[0]
        keys = {tenant: first.command("keys", "create", tenant) for tenant in PLANNED_TENANTS}
        yield Soak(running, Planned(running.edge_proxy.url, keys)), first


def table(samples: list[Sample], rows: int = 10) -> str:
    """Means over equal parts of the run, as markdown."""
    names = [name for name in Sample.__dataclass_fields__ if name != "at_s"]
    size = max(math.ceil(len(samples) / rows), 1)
    lines = [f"| minute | {' | '.join(name.replace('_', ' ') for name in names)} |"]
    lines.append("| ---: |" + " ---: |" * len(names))
    for start in range(0, len(samples), size):
        part = samples[start : start + size]
        means = [statistics.fmean(getattr(one, name) for one in part) for name in names]
        lines.append(f"| {part[-1].at_s / 60:.1f} | {' | '.join(f'{m:.0f}' for m in means)} |")
    return "\n".join(lines)


def _is_ready(one: Origin) -> bool:
    try:
        return httpx.get(one.url + "/readyz", timeout=1).is_success
    except httpx.HTTPError:
        return False


def main() -> int:
    """Run it, and print what came of it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--json", type=Path, help="where figures and samples go")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="encore-soak-") as name, soaking(Path(name)) as made:
        soak, first = made
        violation = ""
        try:
            soak.run(arguments.minutes)
        except AssertionError as exc:
            violation = str(exc)
        predicted = soak.planned.predicted(first)
    counts = soak.traffic.counts()
    failures = {kind: n for kind, n in counts.items() if kind not in GOOD}
    figures = {
        "minutes": arguments.minutes,
        "requests": sum(counts.values()) + len(soak.planned.rows),
        "checked": dict(counts),
        "planned": dict(soak.planned.outcomes),
        "planned_failures": soak.planned.failures,
        "hit_rate": soak.planned.hit_rate,
        "predicted_hit_rate": predicted,
        "restarts": soak.restarts,
        "violations": soak.traffic.violations,
    }
    sys.stdout.write(json.dumps(figures, indent=2) + "\n" + table(soak.samples) + "\n")
    if arguments.json:
        samples = [vars(one) for one in soak.samples]
        arguments.json.write_text(json.dumps(figures | {"samples": samples}))
    return int(bool(violation or failures or soak.planned.failures))


if __name__ == "__main__":
    sys.exit(main())
