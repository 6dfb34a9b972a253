"""How `encore origin` goes: real processes, told to stop under load."""

from __future__ import annotations

import asyncio
import itertools
import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import httpx
import pytest
from starlette.types import Receive, Scope, Send

from origin.departure import Patience
from origin.embedded_redis import embedded_redis
from shared.requests import Endpoint
from shared.streams import chunks
from tests.support.commands import encore, environ
from tests.support.engines import chat_answer
from tests.support.origins import CHAT, SECRET, Origin, echo, said_in
from tests.support.ports import free_port
from tests.support.serving import serving

STREAMS = 20
GOING = {"ENCORE_DRAIN_S": "3", "ENCORE_SEMANTIC": "off"}


class SlowModel:
    """An upstream whose streams say half, wait for `go_on`, and say the rest."""

    def __init__(self) -> None:
        self.go_on = threading.Event()

    async def __call__(self, _scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        body = b""
        while (message := await receive())["type"] == "http.request":
            body += message["body"]
            if not message["more_body"]:
                break
        is_stream = b'"stream":true' in body.replace(b" ", b"")
        kind = b"text/event-stream" if is_stream else b"application/json"
        headers = [(b"content-type", kind)]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        if not is_stream:
            said = chat_answer("At once.") | {"data": [{"id": "m"}]}
            await send({"type": "http.response.body", "body": json.dumps(said).encode()})
            return
        events = [json.dumps(chunk) for chunk in chunks(Endpoint.CHAT, chat_answer("Two words"))]
        half = len(events) // 2
        for index, event in enumerate([*events, "[DONE]"]):
            if index == half:
                await asyncio.to_thread(self.go_on.wait)
            piece = f"data: {event}\n\n".encode()
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b""})


@contextmanager
def running(
    folder: Path, upstream: str, *options: str, **more: str
) -> Iterator[tuple[Origin, str, Path]]:
    """An origin with these options that is ready, an API key of it, and its log."""
    port, log = free_port(), folder / "log"
    variables = {"ENCORE_SECRET": SECRET, "ENCORE_UPSTREAM": upstream, **GOING, **more}
    origin = Origin(folder=folder, variables=variables)
    origin.port, origin.url = port, f"http://127.0.0.1:{port}"
    with log.open("wb") as output:
        origin.process = subprocess.Popen(
            [sys.executable, "-m", "origin.cli", "origin", *options],
            cwd=folder,
            env=environ(ENCORE_ORIGIN_PORT=str(port), **variables),
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        until(lambda: is_ready(origin.url), log)
        yield origin, encore(folder, "keys", "create", "acme", **variables).stdout.strip(), log
    finally:
        origin.kill()
        origin.client.close()


def is_ready(url: str) -> bool:
    """Whether it says so, on a connection of its own."""
    with suppress(httpx.HTTPError):
        return httpx.get(url + "/readyz").is_success
    return False


def is_refused(url: str) -> bool:
    """Whether nobody listens there; who listens answers."""
    try:
        httpx.get(url + "/healthz")
    except httpx.ConnectError:
        return True
    except (httpx.ReadError, httpx.RemoteProtocolError):
        return False  # it came in the very moment of the close
    return False


def until(works: Callable[[], bool], log: Path) -> None:
    """Wait for something to be true."""
    deadline_s = time.monotonic() + 60
    while not works():
        assert time.monotonic() < deadline_s, log.read_text()
        time.sleep(0.02)


@pytest.mark.parametrize("options", [(), ("--workers", "2")], ids=["one process", "two workers"])
def test_sigterm_breaks_no_stream_and_turns_nobody_away_before_it_is_known(
    tmp_path: Path, options: tuple[str, ...]
) -> None:
    """First `/readyz` is 503, then no connection is taken, and all the time streams go on."""
    model = SlowModel()
    with ExitStack() as stack:
        upstream = stack.enter_context(serving(model))
        stack.callback(model.go_on.set)  # or the upstream does not end
        origin, api_key, log = stack.enter_context(running(tmp_path, upstream, *options))
        assert origin.process is not None
        client = stack.enter_context(httpx.Client(timeout=60))
        streams = []
        for number in range(STREAMS):
            body = {
                "model": "m",
                "messages": [{"role": "user", "content": f"Question {number}"}],
                "stream": True,
            }
            sent = {"authorization": f"Bearer {api_key}"}
            stream = client.stream("POST", origin.url + CHAT, json=body, headers=sent)
            lines = stack.enter_context(stream).iter_lines()
            assert next(lines).startswith("data: {"), log.read_text()
            streams.append(lines)

        origin.process.send_signal(signal.SIGTERM)

        until(lambda: not is_ready(origin.url), log)
        for number in range(10):  # half a second
            late = origin.ask(api_key, f"Late {number}")
            assert (late.status_code, late.headers["connection"]) == (200, "close")
            time.sleep(0.05)
        until(lambda: is_refused(origin.url), log)
        model.go_on.set()
        for lines in streams:
            assert [line for line in lines if line][-1] == "data: [DONE]"
        assert origin.process.wait(60) == 0, log.read_text()
    assert "Traceback" not in log.read_text()
    assert "ERROR" not in log.read_text()


def test_answer_that_never_ends_keeps_nobody(tmp_path: Path) -> None:
    """At the deadline its client is told so, and the process has ended soon after."""
    model = SlowModel()
    settings = {"ENCORE_DRAIN_S": "0", "ENCORE_REQUEST_DEADLINE_S": "4"}
    with ExitStack() as stack:
        upstream = stack.enter_context(serving(model))
        stack.callback(model.go_on.set)  # or the upstream does not end
        origin, api_key, log = stack.enter_context(running(tmp_path, upstream, **settings))
        assert origin.process is not None
        body = {"model": "m", "messages": [{"role": "user", "content": "Hello"}], "stream": True}
        sent = {"authorization": f"Bearer {api_key}"}
        stream = httpx.stream("POST", origin.url + CHAT, json=body, headers=sent, timeout=60)
        lines = stack.enter_context(stream).iter_lines()
        assert next(lines).startswith("data: {")
        origin.process.send_signal(signal.SIGTERM)
        assert '"error"' in [line for line in lines if line][-1]
        assert origin.process.wait(Patience(drain_s=0, finish_s=4).total_s) == 0, log.read_text()


class Balancer:
    """Sends requests to the replicas in turn, leaving out those whose `/readyz` is not 200."""

    def __init__(self, replicas: list[Origin]) -> None:
        self._replicas = replicas
        self._ready = list(replicas)
        self._turns = itertools.count()
        self._over = threading.Event()
        self._looking = threading.Thread(target=self._look)
        self._looking.start()

    def next(self) -> Origin:
        """The replica whose turn it is."""
        ready = self._ready
        return ready[next(self._turns) % len(ready)]

    def _look(self) -> None:
        while not self._over.wait(0.05):
            self._ready = [replica for replica in self._replicas if is_ready(replica.url)]

    def close(self) -> None:
        """Look no more."""
        self._over.set()
        self._looking.join()


def test_rolling_restart_of_two_replicas_fails_no_request(tmp_path: Path) -> None:
    """Under steady traffic, plain and streamed, over connections that are kept."""
    with ExitStack() as stack:
        upstream = stack.enter_context(echo())
        redis_url = stack.enter_context(embedded_redis(tmp_path / "redis"))
        replicas = []
        for name in ("one", "two"):
            folder = tmp_path / name
            folder.mkdir()
            variables = {
                "ENCORE_SECRET": SECRET,
                "ENCORE_UPSTREAM": upstream.url,
                "REDIS_URL": redis_url,
                **GOING,
            }
            replica = Origin(folder=folder, variables=variables)
            replica.start()
            stack.callback(replica.client.close)
            stack.callback(replica.kill)
            replicas.append(replica)
        api_key = replicas[0].command("keys", "create", "acme")
        balancer = Balancer(replicas)
        stack.callback(balancer.close)
        over = threading.Event()

        def ask_on(asker: int) -> int:
            """Ask until all is over; how many were answered."""
            for number in itertools.count():
                if over.is_set():
                    return number
                question = f"Question {asker} {number}"
                answer = balancer.next().ask(api_key, question, stream=number % 2 == 0)
                assert said_in(answer).question == question
                time.sleep(0.02)
            raise AssertionError

        with ThreadPoolExecutor(3) as pool:
            askers = [pool.submit(ask_on, asker) for asker in range(3)]
            try:
                for replica in replicas:
                    assert replica.process is not None
                    replica.stop()
                    assert replica.process.returncode == 0
                    replica.start()
                    until(lambda: len(balancer._ready) == 2, replica.folder / "origin.log")
            finally:
                over.set()
            assert all(asker.result() > 10 for asker in askers)
