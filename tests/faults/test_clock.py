"""Wall clocks jump: of an origin, of all, of Redis, of the edge, of everything, under traffic."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.faults.endure import LASTS_S, Row, hold
from tests.faults.system import System, system
from tests.faults.traffic import Asked, Traffic
from tests.support.skewed_clock import set_clock, skewed

HOUR_S = 3600
YEAR_S = 365 * 24 * HOUR_S
RECOVERS_S = 15.0
LIFE_S = 3
WHO = {
    "an origin": ("one/{python}",),
    "the origins": ("one/{python}", "two/{python}"),
    "Redis": ("clocks/redis-server",),
    "the edge": ("clocks/workerd",),
    "all": ("one/{python}", "two/{python}", "clocks/redis-server", "clocks/workerd"),
}
JUMPS_S = {
    "an hour behind": -HOUR_S,
    "ten years ahead": 10 * YEAR_S,
    "a little behind": -0.7,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the system keeps all, its clocks too."""
    return tmp_path_factory.mktemp("system")


@pytest.fixture(scope="module")
def running(folder: Path) -> Iterator[System]:
    """A system of which each clock can be set, and whose answers are fresh for a short time only.

    KV takes them all the same, for they may stand in for a failure.
    """
    clocks = folder / "clocks"
    clocks.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in skewed(folder, clocks).items():
            patch.setenv(name, value)
        with system(
            folder,
            {},
            ENCORE_TTL_S=str(LIFE_S),
            ENCORE_STALE_WHILE_REVALIDATE_S="0",
            ENCORE_STALE_IF_ERROR_S="600",
            SKEW_FOLDER=".",
        ) as one:
            yield one


@pytest.fixture(params=WHO)
def clocks(request: pytest.FixtureRequest, folder: Path) -> list[Path]:
    """The clocks of whoever it is."""
    python = Path(sys.executable).name
    return [folder / name.format(python=python) for name in WHO[request.param]]


@contextmanager
def set_ahead(clocks: list[Path], ahead_s: float) -> Iterator[None]:
    """Set them at the same time, and right again after the block."""
    for clock in clocks:
        set_clock(clock, ahead_s)
    try:
        yield
    finally:
        for clock in clocks:
            set_clock(clock, 0)


@pytest.mark.parametrize("jump", JUMPS_S)
def test_purges_hold(
    running: System,
    clocks: list[Path],
    jump: str,
    request: pytest.FixtureRequest,
    note: Callable[[Row], None],
) -> None:
    """Those from before the jump, in it, and after it."""
    who = f"clock of {request.node.callspec.params['clocks']}"
    traffic = Traffic(running.clients())
    jumped = set_ahead(clocks, JUMPS_S[jump])
    hold(traffic, jumped, name=who, does=jump, note=note, recovers_s=RECOVERS_S)


@pytest.mark.parametrize("clocks", ["the origins", "the edge", "all"], indirect=True)
@pytest.mark.parametrize("jump", ["ten years ahead", "an hour behind"])
def test_answers_end(running: System, clocks: list[Path], jump: str) -> None:
    """Nothing that was made while the clocks were wrong is served for longer than they were wrong.

    Or than an hour, beyond which clocks are not believed.
    """
    forget_all(running)
    traffic = Traffic([client for client in running.clients() if not client.purges])
    skew_s = min(max(JUMPS_S[jump], 0), HOUR_S)
    with traffic.running():
        traffic.until(is_hit_everywhere, since_s=time.monotonic())
        with set_ahead(clocks, JUMPS_S[jump]):
            time.sleep(LASTS_S)
        since_s = time.monotonic()
        traffic.until(is_hit_everywhere, since_s=since_s)
        traffic.longest_life_s = LIFE_S + skew_s + 2
        time.sleep(LIFE_S + 1)
        took_s = traffic.until(is_hit_everywhere, since_s=time.monotonic())
        assert took_s < RECOVERS_S


def forget_all(running: System) -> None:
    """Purge what another test's wrong clock gave a long life."""
    for api_key in running.keys.values():
        purged = httpx.post(
            f"{running.edge_proxy.url}/cache/purge",
            json={"everything": True},
            headers={"authorization": f"Bearer {api_key}"},
            timeout=30,
        )
        assert purged.json()["edge"] == "acknowledged"


def is_hit_everywhere(asked: list[Asked]) -> bool:
    """Whether both places had hits of their own."""
    return {one.where for one in asked if one.is_hit} == {"edge", "origin"}
