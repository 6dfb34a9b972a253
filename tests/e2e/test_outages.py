"""Parts that are killed under load: what clients notice, and what was acknowledged before.

Real processes: `encore origin`, redis-server, a Cluster of them. The upstream's answers name their
question and are numbered, so that a wrong one, or one from before a purge, is seen.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from random import Random

import httpx
import pytest
from redis import Redis

from shared.envelope import decode
from shared.keys import key_id
from tests.support.origins import Echo, Origin, Said, echo, origin, said_in
from tests.support.redis_servers import Node, cluster, durable_server, programs

THREADS = 6
QUESTIONS = [f"Question {number}: what is {number} squared?" for number in range(40)]
PATIENCE_S = 30
KILLS = 6


@pytest.fixture
def upstream() -> Iterator[Echo]:
    """The model."""
    with echo() as running:
        yield running


class Load:
    """Clients that ask one question after another, and what they were answered."""

    def __init__(self, origin: Origin, api_key: str, *, may_break: bool = False) -> None:
        self._origin = origin
        self._api_key = api_key
        self._may_break = may_break
        self._over = threading.Event()
        self._lock = threading.Lock()
        self.said: list[Said] = []
        self.failures: list[str] = []

    @contextmanager
    def running(self) -> Iterator[None]:
        """Ask for the length of the block. What failed, or was wrong, is raised at its end."""
        threads = [threading.Thread(target=self._ask, args=(seed,)) for seed in range(THREADS)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._over.set()
            for thread in threads:
                thread.join()
        assert self.failures == []

    def until(self, enough: Callable[[list[Said]], bool]) -> None:
        """Wait until what is answered from now on is enough."""
        begun, deadline_s = len(self.said), time.monotonic() + PATIENCE_S
        while not enough(self.said[begun:]):
            assert time.monotonic() < deadline_s, Counter(s.status for s in self.said[begun:])
            assert self.failures == []
            time.sleep(0.02)

    def _ask(self, seed: int) -> None:
        draw = Random(seed)  # noqa: S311 - seeded on purpose
        while not self._over.is_set():
            question, stream = draw.choice(QUESTIONS), draw.random() < 0.3
            try:
                said = said_in(
                    self._origin.ask(self._api_key, question, stream=stream, encore_tags="load")
                )
                assert said.question == question
            except httpx.HTTPError as exc:
                if not self._may_break:
                    self.failures.append(repr(exc))
                time.sleep(0.02)
            except AssertionError as exc:
                self.failures.append(str(exc))
            else:
                self.said.append(said)


def hits(least: int) -> Callable[[list[Said]], bool]:
    """So many answers out of L1."""
    return lambda said: sum("; hit" in one.status for one in said) >= least


def without_l1(least: int) -> Callable[[list[Said]], bool]:
    """So many answers that say that L1 failed."""
    return lambda said: sum("l1-error" in one.status for one in said) >= least


@pytest.mark.parametrize("apart", [False, True], ids=["one Redis", "control data apart"])
def test_redis_that_is_killed_costs_no_request(
    tmp_path: Path, upstream: Echo, *, apart: bool
) -> None:
    """Under load, twice: every answer is of its question; hits come back without a restart; and a
    purge that was acknowledged just before the kill holds.
    """  # noqa: D205 - one sentence
    with ExitStack() as stack:
        program = list(programs().values())[-1]
        redis = stack.enter_context(durable_server(program, tmp_path / "l1"))
        variables = {"REDIS_URL": redis.url}
        if apart:
            control = stack.enter_context(durable_server(program, tmp_path / "control"))
            variables["ENCORE_CONTROL_REDIS_URL"] = control.url
        one = stack.enter_context(origin(tmp_path, upstream, **variables))
        admin = one.command("keys", "create", "acme", "--role", "admin")
        one.start()
        load = Load(one, admin)
        with load.running():
            for _ in range(2):
                load.until(hits(50))
                old = said_in(one.ask(admin, "purged", encore_tags="gone"))
                purged = one.post("/cache/purge", admin, {"tags": ["gone"]})
                assert purged.status_code == 200
                redis.kill()
                load.until(without_l1(20))
                new = said_in(one.ask(admin, "purged", encore_tags="gone"))
                assert new.number > old.number
                redis.start()
                load.until(hits(50))
                new = said_in(one.ask(admin, "purged", encore_tags="gone"))
                assert new.number > old.number
        assert one.process is not None
        assert one.process.poll() is None


def test_origin_that_is_killed_loses_nothing_acknowledged(tmp_path: Path, upstream: Echo) -> None:
    """`kill -9` while it writes, again and again: purges and keys hold, no answer is half of one or
    another's, and nobody waits long for a lease of the dead.
    """  # noqa: D205 - one sentence
    draw = Random(1)  # noqa: S311 - seeded on purpose
    with (
        durable_server(list(programs().values())[-1], tmp_path / "redis") as redis,
        origin(tmp_path, upstream, REDIS_URL=redis.url) as one,
    ):
        admin = one.command("keys", "create", "acme", "--role", "admin")
        revoked = one.command("keys", "create", "acme")
        one.start()
        assert one.ask(revoked, "mine").status_code == 200
        one.command("keys", "revoke", "acme", key_id(revoked)[:12])
        for _ in range(KILLS):
            load = Load(one, admin, may_break=True)
            with load.running():
                load.until(lambda said: len(said) > 20)
                before = upstream.count
                response = one.post("/cache/purge", admin, {"tags": ["load"]})
                assert response.status_code == 200
                time.sleep(draw.uniform(0.0, 0.3))
                one.kill()
            _check_entries(redis)
            one.start()
            assert one.ask(revoked, "mine").status_code == 401
            for question in QUESTIONS:
                began_s = time.monotonic()
                said = said_in(one.ask(admin, question, encore_tags="load"))
                assert said.question == question
                assert said.number > before  # made since the purge was acknowledged
                assert time.monotonic() - began_s < PATIENCE_S / 2


def _check_entries(redis: Node) -> None:
    """Every entry that is there is whole, and under its own key."""
    with Redis.from_url(redis.url) as client:
        names = list(client.scan_iter("*:entry"))
        for name, encoded in zip(names, client.mget(names), strict=True):
            header = decode(encoded).header
            assert header.key in name.decode()


def test_cluster_node_that_is_killed_costs_no_request(tmp_path: Path, upstream: Echo) -> None:
    """Each of the three in turn, under load, and back again: generations, and no request."""
    durable = {"appendonly": "yes", "appendfsync": "always", "cluster_node_timeout": "1000"}
    with (
        cluster(list(programs().values())[-1], tmp_path / "nodes", **durable) as (url, nodes),
        origin(tmp_path, upstream, REDIS_URL=url) as one,
    ):
        admin = one.command("keys", "create", "acme", "--role", "admin")
        one.start()
        load = Load(one, admin)
        with load.running():
            for node in nodes:
                _kill_and_start(node, load)


def _kill_and_start(node: Node, load: Load) -> None:
    load.until(hits(50))
    node.kill()
    load.until(without_l1(20))
    node.start()
    node.until_ready()
    # All of them: those of this node, too.
    load.until(
        lambda said: len({one.key for one in said if "; hit" in one.status}) == len(QUESTIONS)
    )
