"""The upstream dies, hangs, or answers nonsense, under traffic: none of it is ever an answer."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial

import httpx
import pytest

from tests.faults.endure import LASTS_S, RECOVERS_S, Row, hold
from tests.faults.misbehaviour import ANSWERS, misbehaving_server
from tests.faults.system import TENANTS, System, system
from tests.faults.traffic import CHAT, Asked, Traffic
from tests.faults.upstream import MODEL
from tests.support.tcp_proxy import Fault

DEADLINE_S = 3
OUTAGES = {
    "refused": Fault(resetting=True),
    "silent": Fault(silent=True),
    "slow": Fault(delay_s=0.2),
    "trickling": Fault(bytes_per_s=500),
    "reset in the middle": Fault(reset_after_bytes=600),
    "closed in the middle": Fault(close_after_bytes=600),
    "no UTF-8 in the middle": Fault(garbles=0.5),
}


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """A system that waits for no answer for long."""
    folder = tmp_path_factory.mktemp("system")
    with system(folder, {}, ENCORE_REQUEST_DEADLINE_S=str(DEADLINE_S)) as one:
        yield one


@contextmanager
def killed(running: System) -> Iterator[None]:
    """`kill -9`, then started again."""
    running.upstream.kill()
    yield
    running.upstream.start()


@contextmanager
def hanging(running: System) -> Iterator[None]:
    """SIGSTOP, then SIGCONT."""
    running.upstream.send(signal.SIGSTOP)
    try:
        yield
    finally:
        running.upstream.send(signal.SIGCONT)


def cut_off(fault: Fault, running: System) -> AbstractContextManager[None]:
    """The network to the upstream misbehaves."""
    return running.upstream_proxy.misbehaving(fault)


@contextmanager
def answering(name: str, running: System) -> Iterator[None]:
    """Something else stands where the upstream was, and answers like this."""
    proxy = running.upstream_proxy
    with misbehaving_server(ANSWERS[name]) as port:
        aim_anew(running, port)
        try:
            yield
        finally:
            aim_anew(running, running.upstream.port)
    assert proxy.fault == Fault()


def aim_anew(running: System, port: int) -> None:
    """End what is connected to the one server, and connect to the other."""
    with running.upstream_proxy.misbehaving(Fault(resetting=True)):
        running.upstream_proxy.aim(port)
        time.sleep(0.05)


def is_refused(asked: list[Asked]) -> bool:
    """Whether several were refused for it."""
    return sum(one.failure is not None for one in asked) >= 5


FAULTS: dict[str, Callable[[System], AbstractContextManager[None]]] = {
    "killed": killed,
    "hanging": hanging,
    **{name: partial(cut_off, fault) for name, fault in OUTAGES.items()},
    **{name: partial(answering, name) for name in ANSWERS},
}


@pytest.mark.parametrize("fault", FAULTS)
def test_upstream(running: System, fault: str, note: Callable[[Row], None]) -> None:
    """It costs answers, each with an error of its own; what is known is still answered."""
    traffic = Traffic(running.clients())

    def during(began_s: float) -> None:
        if fault not in ANSWERS:
            time.sleep(LASTS_S)
        if fault not in ("slow", "trickling"):
            traffic.until(is_refused, since_s=began_s)

    fails = FAULTS[fault](running)
    hold(traffic, fails, name="upstream", does=fault, note=note, during=during)


def test_stale_answers_meanwhile(running: System) -> None:
    """Then an upstream that is down is left alone, and tried again by itself."""
    api_key = running.keys[TENANTS[0]]

    def ask(question: str, url: str, **headers: str) -> httpx.Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return httpx.post(
            url + CHAT,
            json={"model": MODEL, "messages": [{"role": "user", "content": question}]},
            headers={"authorization": f"Bearer {api_key}", **named},
            timeout=30,
        )

    places = (running.edge_proxy.url, running.balancer.url)
    for url in places:
        assert ask("Known?", url).status_code == 200
    with killed(running):
        refused = [ask(f"Unknown {number}?", places[1]).json()["error"] for number in range(12)]
        assert "upstream_suspended" in {error["code"] for error in refused}
        for url in places:
            stale = ask("Known?", url, cache_control="max-age=0")
            assert stale.json()["choices"][0]["message"]["content"].startswith("Known? #")
            assert "detail=stale-if-error" in stale.headers["cache-status"]
    deadline_s = time.monotonic() + RECOVERS_S
    while (again := ask("Unknown again?", places[1])).status_code != 200:
        assert time.monotonic() < deadline_s, again.text
        time.sleep(0.2)
