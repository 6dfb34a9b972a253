"""What the dashboard shows, told to every page that is open by server-sent events.

    usage store (all processes, edge) ─┐
    parts' health (this process)       ├─> state, made once for all who look ──> streams
    Redis' own facts (the operator's)  ┘

Invariants
1. Counts are of all processes and of the edge: they come from the usage store. What is of this
   process alone is marked so.
2. Of Redis, other tenants and this process nobody but the operator is told.
3. A stream ends when its process is to stop, and after `STREAM_S` under a server that does not say
   so; the page begins another one, where there is one.
"""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from origin.api.health import Health
from origin.dashboard.series import series
from origin.limits import Room, overloaded
from origin.stores.contract import StoreError
from origin.stores.control_contract import ControlStore
from origin.stores.redis_facts import RedisFacts
from origin.tasks import end
from origin.usage import Recorder
from origin.usage_report import Terms, read_report
from shared import json_text

if TYPE_CHECKING:
    from origin.semantic.matcher import Matcher

TICK_S = 2.0
STREAM_S = 20.0
RETRY_MS = 500
MAX_STREAMS = 64
"""Pages that are told at once by one process; each takes the room of a request."""
CHECK_S = 10.0
"""How long what the embedder said is remembered."""
MAX_TENANTS = 20
MAX_MODELS = 12
MAX_NAMES = 1000
"""Tenants that the operator may choose from by name; others can be typed."""
_PARTS = {
    "redis": "Redis (L1)",
    "control": "Redis (control)",
    "engine": "Engine",
    "models": "Models",
}


class Live:
    """One per process. `facts` are of the Redis of L1, where there is one.

    `pushes` is whether control documents are pushed to an edge.
    """

    def __init__(
        self,
        *,
        recorder: Recorder,
        terms: Terms,
        health: Health,
        control_store: ControlStore,
        matcher: Matcher | None,
        facts: RedisFacts | None,
        pushes: bool,
    ) -> None:
        self._recorder = recorder
        self._terms = terms
        self._health = health
        self._control_store = control_store
        self._matcher = matcher
        self._facts = facts
        self._pushes = pushes
        self._room = Room(MAX_STREAMS, lambda: overloaded("Too many pages are open."))
        self._states: dict[tuple[str, bool], tuple[float, asyncio.Task[bytes]]] = {}
        self._embedder = "off"
        self._checked_s = -CHECK_S
        self._checking = asyncio.Lock()

    async def events(
        self,
        tenant: str,
        *,
        operator: bool,
        still: Callable[[], Awaitable[bool]],
        stopping: asyncio.Event | None = None,
    ) -> AsyncGenerator[bytes, None]:
        """The stream of one page: a `state` whenever something has changed, else a `beat`.

        It ends when the process is `stopping`, and, with `signed-out`, once `still` says no.
        Raises InternalError 503 at its beginning.
        """
        self._room.take()
        try:
            yield f"retry: {RETRY_MS}\n\n".encode()
            stopping = stopping or asyncio.Event()
            ends_s = time.monotonic() + STREAM_S
            told = b""
            while True:
                state = await self.state(tenant, operator=operator)
                if state == told:
                    yield _event("beat", b"{}")
                else:
                    yield _event("state", state)
                    told = state
                if time.monotonic() >= ends_s:
                    return
                with suppress(TimeoutError):
                    async with asyncio.timeout(TICK_S):
                        await stopping.wait()
                if stopping.is_set():
                    return
                if not await still():
                    yield _event("signed-out", b"{}")
                    return
        finally:
            self._room.give()

    async def state(self, tenant: str, *, operator: bool) -> bytes:
        """What there is to show, as JSON, at most `TICK_S` old."""
        now_s = time.monotonic()
        made_s, task = self._states.get((tenant, operator), (0.0, None))
        if task is None or now_s - made_s >= TICK_S:
            self._states = {
                name: each for name, each in self._states.items() if now_s - each[0] < TICK_S
            }
            task = asyncio.create_task(self._make(tenant, operator=operator))
            self._states[tenant, operator] = now_s, task
        # Others wait for the same one: a page that is closed must not end it.
        return await asyncio.shield(task)

    async def close(self) -> None:
        """Close what was opened for it. What is made for nobody any more ends."""
        await end([task for _, task in self._states.values()])
        if self._facts is not None:
            await self._facts.close()

    async def _make(self, tenant: str, *, operator: bool) -> bytes:
        counted: dict[str, Any] | None = None
        try:
            # What this process has counted so far; others' last seconds are missing.
            await self._recorder.flush()
            report = await read_report(self._recorder.store, tenant, self._terms)
            recent = await self._recorder.store.recent(tenant)
            # Some thousand numbers take milliseconds.
            counted = {"report": _shown(report), **await asyncio.to_thread(series, recent)}
        except StoreError:
            pass  # told by what is missing, and by the health of Redis
        state = {
            "tenant": tenant,
            "operator": operator,
            "counted": counted,
            "health": await self._parts(counted, operator=operator),
            "redis": await self._redis() if operator else None,
            "process": f"{socket.gethostname()}, process {os.getpid()}" if operator else None,
        }
        return json_text.dumps(state)

    async def _parts(
        self, counted: Mapping[str, Any] | None, *, operator: bool
    ) -> list[dict[str, Any]]:
        states = await self._health.parts()
        parts: list[dict[str, Any]] = [
            {"name": label, "state": states[name], "here": name not in {"redis", "control"}}
            for name, label in _PARTS.items()
        ]
        parts.append({"name": "Embedder", "state": await self._ask_embedder(), "here": True})
        heard_s = None if counted is None else counted["edge_heard_s"]
        heard = "ok" if heard_s is not None else "unknown" if counted is None else "quiet"
        pending = await self._pending() if operator and self._pushes else None
        parts.append(
            {
                "name": "Edge",
                "state": heard,
                "heard_s": heard_s,
                "pending": pending,
                "here": False,
            }
        )
        return parts

    async def _ask_embedder(self) -> str:
        async with self._checking:  # who comes meanwhile is told the same
            if self._matcher is not None and time.monotonic() - self._checked_s >= CHECK_S:
                self._embedder = await self._matcher.check()
                self._checked_s = time.monotonic()
        return self._embedder

    async def _pending(self) -> int | None:
        """Control documents that the edge has not acknowledged, as all processes know it."""
        try:
            return len(await self._control_store.owed_to_edge())
        except StoreError:
            return None

    async def _redis(self) -> dict[str, Any] | None:
        try:
            facts = None if self._facts is None else await self._facts.read()
        except StoreError:
            return None
        return None if facts is None else asdict(facts)


def _event(name: str, data: bytes) -> bytes:
    """JSON has no line end, so an event's data is one line."""
    return b"event: " + name.encode() + b"\ndata: " + data + b"\n\n"


def _shown(report: Mapping[str, Any]) -> dict[str, Any]:
    """Of the report what the page shows: bounded, whatever there is."""
    names = ("since", "hits", "misses", "hit_rate", "tokens", "usd", "top_keys", "semantic")
    shown: dict[str, Any] = {name: report[name] for name in names}
    for tier in ("edge", "origin"):
        of = report[tier]
        latency = {
            speed: {p: each[p] for p in ("count", "p50", "p90", "p99")}
            for speed, each in of["latency_ms"].items()
        }
        shown[tier] = {**of, "latency_ms": latency}
    shown["models"] = [
        {
            "name": name,
            "hits": each["hits"],
            "misses": each["misses"],
            "hit_rate": each["hit_rate"],
            "tokens": each["tokens"],
            "usd": each["usd"],
        }
        for name, each in _largest(report["models"], MAX_MODELS)
    ]
    if "tenants" in report:
        shown["tenants"] = [
            {"name": name, **each} for name, each in _largest(report["tenants"], MAX_TENANTS)
        ]
        shown["tenant_names"] = sorted(report["tenants"])[:MAX_NAMES]
    return shown


def _largest(named: Mapping[str, Any], count: int) -> list[tuple[str, Any]]:
    """Those with the most that was looked up."""
    return sorted(named.items(), key=lambda each: -(each[1]["hits"] + each[1]["misses"]))[:count]
