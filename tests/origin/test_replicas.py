"""Two `encore origin` processes on one Redis, as users run them."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import pytest

from origin.embedded_redis import embedded_redis
from shared.requests import Endpoint
from shared.streams import chunks
from tests.origin.engine.fake_upstream import FakeUpstream, Reply, fake_upstream
from tests.support.commands import encore, environ
from tests.support.engines import chat_answer
from tests.support.ports import free_port

SECRET = "0123456789abcdef0123456789abcdef"
CHAT = "/v1/chat/completions"


class Replicas:
    """Two of them, and what they ask."""

    def __init__(self, folder: Path, redis_url: str, upstream: FakeUpstream) -> None:
        self.upstream = upstream
        variables = {"ENCORE_SECRET": SECRET, "REDIS_URL": redis_url}
        self._headers = {
            "authorization": "Bearer "
            + encore(folder, "keys", "create", "acme", **variables).stdout.strip()
        }
        self.urls: list[str] = []
        self.processes: list[subprocess.Popen[bytes]] = []
        for _ in range(2):
            port = str(free_port())
            self.urls.append(f"http://127.0.0.1:{port}")
            with (folder / f"log-{port}").open("wb") as log:
                self.processes.append(
                    subprocess.Popen(
                        [sys.executable, "-m", "origin.cli", "origin"],
                        cwd=folder,
                        env=environ(
                            ENCORE_ORIGIN_PORT=port, ENCORE_UPSTREAM=upstream.url, **variables
                        ),
                        stdout=log,
                        stderr=subprocess.STDOUT,
                    )
                )

    def ask(self, url: str, text: str) -> httpx.Response:
        """Ask a replica."""
        body = {"model": "m", "messages": [{"role": "user", "content": text}]}
        return httpx.post(url + CHAT, json=body, headers=self._headers, timeout=60)

    @contextmanager
    def stream(self, url: str, text: str) -> Iterator[Iterator[str]]:
        """The lines of a streamed answer."""
        body = {"model": "m", "messages": [{"role": "user", "content": text}], "stream": True}
        with httpx.stream("POST", url + CHAT, json=body, headers=self._headers, timeout=60) as got:
            assert got.status_code == 200
            yield (line for line in got.iter_lines() if line)

    def generations(self) -> int:
        """How often the upstream was asked for an answer."""
        return sum(seen.path == CHAT for seen in self.upstream.seen)

    def until_ready(self) -> None:
        """Wait for both."""
        deadline_s = time.monotonic() + 60
        for url in self.urls:
            while True:
                try:
                    if httpx.get(url + "/readyz").is_success:
                        break
                except httpx.HTTPError:
                    pass
                assert time.monotonic() < deadline_s
                time.sleep(0.05)


@pytest.fixture
def upstream() -> Iterator[FakeUpstream]:
    """The model behind all replicas."""
    with fake_upstream() as fake:
        fake.say(chat_answer("One answer.") | {"data": [{"id": "m"}]})
        yield fake


@pytest.fixture
def replicas(tmp_path: Path, upstream: FakeUpstream) -> Iterator[Replicas]:
    """Two replicas that are ready."""
    with embedded_redis(tmp_path / "redis") as url:
        both = Replicas(tmp_path, url, upstream)
        try:
            both.until_ready()
            yield both
        finally:
            for process in both.processes:
                process.terminate()
            for process in both.processes:
                process.wait(timeout=30)


def test_eight_at_once_over_two_processes_cost_one_generation(replicas: Replicas) -> None:
    """Exactly one, whoever comes first."""
    with ThreadPoolExecutor(8) as pool:
        for number in range(5):
            before = replicas.generations()
            asks = [
                pool.submit(replicas.ask, url, f"Question {number}") for url in replicas.urls * 4
            ]
            responses = [ask.result() for ask in asks]
            assert {response.status_code for response in responses} == {200}
            assert len({response.content for response in responses}) == 1
            assert replicas.generations() - before == 1


def test_killed_leader_costs_its_followers_the_lease(replicas: Replicas) -> None:
    """`kill -9` in the midst of a generation: who follows elsewhere gets an answer."""
    answer = replicas.upstream.reply
    replicas.upstream.reply = Reply(end="never")
    with ThreadPoolExecutor(4) as pool:
        first = pool.submit(replicas.ask, replicas.urls[0], "Hello")
        deadline_s = time.monotonic() + 30
        while replicas.generations() < 1:
            assert time.monotonic() < deadline_s
            time.sleep(0.01)
        others = [pool.submit(replicas.ask, replicas.urls[1], "Hello") for _ in range(3)]
        with pytest.raises(TimeoutError):
            others[0].result(timeout=0.5)
        assert replicas.generations() == 1
        replicas.upstream.reply = answer
        replicas.processes[0].send_signal(signal.SIGKILL)
        assert [other.result().status_code for other in others] == [200] * 3
        assert replicas.generations() == 2
        with pytest.raises(httpx.HTTPError):
            first.result()


def test_stream_is_joined_late_elsewhere_and_ends_with_its_last_listener(
    replicas: Replicas,
) -> None:
    """What was said is there at once; the leader's client may leave, and then the other one."""
    said = chunks(Endpoint.CHAT, chat_answer("Two words"))[:2]
    replicas.upstream.stream(*said, end="never")
    with ExitStack() as leader:
        first = leader.enter_context(replicas.stream(replicas.urls[0], "Hello"))
        begun = [next(first), next(first)]
        assert "Two" in begun[1]
        with replicas.stream(replicas.urls[1], "Hello") as late:
            assert [next(late), next(late)] == begun
            leader.close()
            assert not replicas.upstream.left.wait(1)
        assert replicas.upstream.left.wait(30)
    assert replicas.generations() == 1
