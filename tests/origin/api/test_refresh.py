"""Refreshes that the edge asks for behind stale answers, of what the origin has not (any more)."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import httpx
import pytest
from pydantic import SecretStr

import origin.api.answers
import origin.pipeline
from origin.app import create_app
from origin.settings import Settings
from origin.stores.contract import StoreError
from origin.stores.memory import MemoryStore
from origin.stores.memory_control import MemoryControlStore
from shared.envelope import MEDIA_TYPE, decode
from shared.errors import UpstreamError
from shared.keys import edge_bearer, key_ring, make_api_key
from shared.wire import EDGE_AUTHORIZATION, EDGE_REFRESH
from tests.support.control import control_store
from tests.support.engines import MODEL, ScriptedEngine
from tests.support.serving import serving

SECRET = "a secret of the tests, long enough"
KEYS = key_ring(SECRET)
API_KEY = make_api_key(KEYS, "acme", bytes(15))
REFRESH = {
    "authorization": f"Bearer {API_KEY}",
    EDGE_AUTHORIZATION: f"Bearer {edge_bearer(KEYS)}",
    EDGE_REFRESH: "1",
    "accept": MEDIA_TYPE,
}


class Running:
    """An origin, and what it does when the edge refreshes."""

    def __init__(self) -> None:
        self.engine = ScriptedEngine()
        self.control = control_store(API_KEY)
        self._exits = ExitStack()
        app = create_app(
            Settings(secret=SecretStr(SECRET)),
            engine=self.engine,
            store=MemoryStore(),
            control_store=self.control,
        )
        url = self._exits.enter_context(serving(app, lifespan=True))
        self._client = self._exits.enter_context(
            httpx.Client(base_url=url, headers=REFRESH, timeout=30)
        )

    def refresh(self, text: str, *, stream: bool = False, timeout_s: float = 30) -> httpx.Response:
        """Ask as the edge does."""
        body = {"model": MODEL, "messages": [{"role": "user", "content": text}], "stream": stream}
        return self._client.post("/v1/chat/completions", json=body, timeout=timeout_s)

    def close(self) -> None:
        """End it."""
        self._exits.close()


@pytest.fixture
def running() -> Iterator[Running]:
    """One of a test's own, whose engine waits for nothing in the end."""
    running = Running()
    try:
        yield running
    finally:
        running.engine.open_gate()
        running.close()


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Edges that are kept waiting for a moment only."""
    monkeypatch.setattr(origin.api.answers, "REFRESH_WAIT_S", 0.1)


def until(is_so: Callable[[], bool]) -> None:
    """Wait for it."""
    deadline = time.monotonic() + 10
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
def test_quick_one_is_answered_with_the_entry(running: Running, stream: bool) -> None:
    """Whole, whatever form the client had asked for."""
    answer = running.refresh("quick", stream=stream)
    assert (answer.status_code, answer.headers["content-type"]) == (200, MEDIA_TYPE)
    assert decode(answer.content).header.tenant == "acme"


@pytest.mark.usefixtures("hurried")
def test_slow_one_goes_on_behind_a_202(running: Running) -> None:
    """One generation, however often it is asked for; its entry is there afterwards."""
    running.engine.gate.clear()
    for stream in (False, True):
        answer = running.refresh("slow", stream=stream)
        assert answer.status_code == 202
        assert answer.json() == {"status": "refreshing"}
    running.engine.open_gate()
    until(lambda: running.refresh("slow").status_code == 200)
    assert (running.engine.runs, running.engine.cancelled) == (1, 0)


def test_it_goes_on_when_the_edge_has_left(running: Running) -> None:
    """As it must after 30 s: what is begun is paid for."""
    running.engine.gate.clear()
    with pytest.raises(httpx.ReadTimeout):
        running.refresh("left", timeout_s=0.3)
    time.sleep(0.2)  # the origin notices
    running.engine.open_gate()
    until(lambda: running.refresh("left").status_code == 200)
    assert (running.engine.runs, running.engine.cancelled) == (1, 0)


@pytest.mark.usefixtures("hurried")
def test_they_are_bounded(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """One too many is refused, and stopped; there is room again when one has ended."""
    monkeypatch.setattr(origin.pipeline, "MAX_DETACHED", 1)
    running.engine.gate.clear()
    assert running.refresh("one").status_code == 202
    refused = running.refresh("another")
    assert refused.status_code == 503
    assert int(refused.headers["retry-after"]) > 0
    running.engine.open_gate()
    until(lambda: running.refresh("one").status_code == 200)
    assert running.engine.runs - running.engine.cancelled == 1
    assert running.refresh("another").status_code == 200


@pytest.mark.usefixtures("hurried")
def test_they_end_with_the_origin() -> None:
    """It does not wait for them."""
    running = Running()
    running.engine.gate.clear()
    assert running.refresh("ended").status_code == 202
    running.close()
    assert running.engine.cancelled == 1


def test_failure_is_told(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that the edge waits before it asks again."""
    monkeypatch.setattr(running.engine, "failure", UpstreamError("no", code="upstream_failed"))
    assert running.refresh("fails").status_code == 502


def test_what_could_not_be_stored_is_not_made(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the clock of purges there would be no entry, and nobody waits for an answer."""

    async def now_ms(_: MemoryControlStore) -> int:
        raise StoreError("no clock")

    running.refresh("the document is known now")
    monkeypatch.setattr(MemoryControlStore, "now_ms", now_ms)
    assert running.refresh("not stored").status_code == 503
    assert running.engine.runs - running.engine.cancelled == 1
