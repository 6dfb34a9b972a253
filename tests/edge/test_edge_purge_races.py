"""Purges against generations, stores, pushes and reads, all at once, in workerd over real KV.

Each tenant has clients that ask at random and an admin who purges at random; engine and KV take
their time, at random too. Whoever asks after a purge was acknowledged must not be answered by a
generation that had begun when it was sent. In the environment PURGE_INTERLEAVINGS is the number of
purges, and PURGE_SEED throws other dice.

What the origin does in all orders of its own steps is shown in `tests/origin/test_purge_races.py`.
"""

from __future__ import annotations

import asyncio
import os
import re
import time
from collections import Counter
from collections.abc import AsyncGenerator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from pathlib import Path
from random import Random
from typing import Any

import pytest

import origin.control
from origin.engine.contract import Event
from shared.keys import make_api_key
from shared.requests import Request
from tests.edge.lab import Lab
from tests.edge.local_edge import StartEdge
from tests.edge.projects import FIXTURES, Projects
from tests.edge.stack import KEYS, Stack, client_of, is_hit, stacked, status
from tests.support.control import control_store
from tests.support.engines import MODEL, ScriptedEngine

INTERLEAVINGS = int(os.environ.get("PURGE_INTERLEAVINGS", "300"))
SEED = int(os.environ.get("PURGE_SEED", "0"))
TENANTS = tuple(f"tenant{i}" for i in range(4))
CLIENTS_OF_A_TENANT = 2
TEXTS = ("One", "Two")
TAG = "listing-7"
KV_MS = 4
STEP_S = 0.002


class Race:
    """One tenant, its clients and its admin."""

    def __init__(self, stack: Stack, tenant: str, purges: int) -> None:
        self._stack = stack
        self._purges = purges
        self._dice = Random(f"{SEED} {tenant}")  # noqa: S311 - seeded on purpose
        self._api_key = make_api_key(KEYS, tenant, bytes(15))
        # The latest generation that a purge named, by text: it and those before it are dead.
        self._dead = dict.fromkeys(TEXTS, 0)
        self._over = False
        self.seen: Counter[str] = Counter()
        self.violations: list[str] = []

    def run(self) -> None:
        """Ask and purge until enough was purged."""
        with ThreadPoolExecutor(CLIENTS_OF_A_TENANT + 1) as pool:
            work = [pool.submit(self._ask_on) for _ in range(CLIENTS_OF_A_TENANT)]
            try:
                pool.submit(self._purge_on).result()
            finally:
                self._over = True
            for one in work:
                one.result()

    def _ask_on(self) -> None:
        with client_of(self._stack.edge, self._api_key) as client:
            while not self._over:
                text = self._dice.choice(TEXTS)
                headers = {"encore-tags": TAG}
                if self._dice.random() < 0.1:
                    headers["cache-control"] = "no-cache"
                stream = self._dice.random() < 0.3
                messages = [{"role": "user", "content": text}]
                body: dict[str, Any] = {"model": MODEL, "messages": messages, "stream": stream}
                dead = self._dead[text]
                answer = client.post("/v1/chat/completions", json=body, headers=headers)
                assert answer.status_code == 200, answer.text
                number = int(re.findall(r"Answer (\d+)", "".join(_said(answer.text)))[0])
                self.seen["hit" if is_hit(answer) else "forwarded"] += 1
                self.seen["dead in KV"] += "detail=purged" in status(answer)
                self.seen["purged while asked"] += dead != self._dead[text]
                if number <= dead:
                    self.violations.append(f"{text}: {number}, dead to {dead}: {status(answer)}")

    def _purge_on(self) -> None:
        stack, names = self._stack, ({"tags": [TAG]}, {"models": [MODEL]}, {"everything": True})
        with client_of(stack.edge, self._api_key) as client:
            for _ in range(self._purges):
                time.sleep(self._dice.random() * 8 * STEP_S)
                url = self._dice.choice((stack.edge.url, stack.origin_url))
                begun = stack.engine.runs
                answer = client.post(url + "/cache/purge", json=self._dice.choice(names))
                assert answer.status_code == 200, answer.text
                assert answer.json()["edge"] == "acknowledged"
                self._dead = dict.fromkeys(TEXTS, begun)
                stack.end_minute()


def _said(body: str) -> Iterator[str]:
    """What an answer says, plain or streamed."""
    return iter(re.findall(r'"content":"([^"]*)"', body))


@pytest.fixture
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Engines take their time between steps; documents are looked up each time, not remembered."""
    dice = Random(SEED)  # noqa: S311 - seeded on purpose
    run = ScriptedEngine.run

    async def slow_run(
        engine: ScriptedEngine, request: Request, **who: Any
    ) -> AsyncGenerator[Event, None]:
        async with aclosing(run(engine, request, **who)) as events:
            async for event in events:
                await asyncio.sleep(dice.random() * STEP_S)
                yield event

    monkeypatch.setattr(ScriptedEngine, "run", slow_run)
    monkeypatch.setattr(origin.control, "MEMO_S", 0)


def race(start_edge: StartEdge, config: Path, purges: int) -> tuple[Counter[str], list[str]]:
    """(what happened, what must not have) over so many purges."""
    control = control_store(admins=[make_api_key(KEYS, tenant, bytes(15)) for tenant in TENANTS])
    with stacked(start_edge, config=config, control=control, pushing=True) as stack:
        Lab(edge=stack.edge).slow_down(KV_MS)
        races = [Race(stack, tenant, purges // len(TENANTS)) for tenant in TENANTS]
        with ThreadPoolExecutor(len(races)) as pool:
            for one in [pool.submit(race.run) for race in races]:
                one.result()
    seen = sum((race.seen for race in races), Counter())
    return seen, [violation for race in races for violation in race.violations]


@pytest.mark.timeout(60 + INTERLEAVINGS)
@pytest.mark.usefixtures("unhurried")
def test_nothing_comes_back_from_the_dead(start_edge: StartEdge, lab_config: Path) -> None:
    """Over all interleavings; everything that can happen does, or nothing would be shown."""
    seen, violations = race(start_edge, lab_config, INTERLEAVINGS)
    assert violations == []
    happened = {name for name, count in seen.items() if count > INTERLEAVINGS / 20}
    assert happened == {"hit", "forwarded", "dead in KV", "purged while asked"}, seen


@pytest.mark.usefixtures("unhurried")
def test_entries_that_nobody_checks_are_seen(start_edge: StartEdge, projects: Projects) -> None:
    """The races show it when the edge does not ask about cut-offs."""
    source = (FIXTURES / "kv_lab.py").read_text()
    source += '\nimportlib.import_module("answers").objection = lambda *_, **__: None\n'
    _, violations = race(start_edge, projects.of_the_worker(source), 20)
    assert violations
