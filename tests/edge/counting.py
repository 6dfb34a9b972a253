"""The tests' side of fixtures/kv_counting.py, and of the counters that the edge sends."""

from __future__ import annotations

import base64
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import httpx

from shared.wire import COUNTERS_PATH
from tests.edge.local_edge import Edge
from tests.edge.stack import API_KEY, Stack

REQUESTS_OF_A_FLUSH = 200
CRON = "/cdn-cgi/local/scheduled?cron=*/5+*+*+*+*"


@dataclass(frozen=True, kw_only=True, slots=True)
class Planted:
    """A value that is to stand in KV. `metadata` is any JSON value."""

    name: str
    value: bytes
    metadata: Any = None


@dataclass(frozen=True, kw_only=True, slots=True)
class CountedKV:
    """The KV of one edge, which runs that fixture."""

    edge: Edge

    def forget(self) -> None:
        """Note calls anew."""
        assert httpx.delete(f"{self.edge.url}/counting/calls").is_success

    def calls(self, call: str = "", name: str = "") -> list[dict[str, Any]]:
        """What was asked of KV since then, in order: the calls and names that begin like this."""
        noted: list[dict[str, Any]] = httpx.get(f"{self.edge.url}/counting/calls").json()
        return [
            one
            for one in noted
            if str(one["call"]).startswith(call) and str(one["name"]).startswith(name)
        ]

    def writes(self, at_least: int = 0) -> list[dict[str, Any]]:
        """The writes of entries, once there are so many: they are made behind the answers."""
        deadline = time.monotonic() + 10
        while len(writes := self.calls("put", "e:")) < at_least:
            assert time.monotonic() < deadline, writes
            time.sleep(0.02)
        return writes

    def plant(self, values: Iterable[Planted]) -> None:
        """Put these into KV, whatever they are."""
        body = [
            [one.name, base64.b64encode(one.value).decode(), {"metadata": one.metadata}]
            for one in values
        ]
        response = httpx.put(f"{self.edge.url}/counting/values", json=body, timeout=60)
        assert response.is_success, response.text

    def refuse_writes(self, count: int) -> None:
        """Let the next writes of entries fail with a 429."""
        assert httpx.put(f"{self.edge.url}/counting/refusals", content=f"{count}").is_success

    def limit_values(self, size_bytes: int) -> None:
        """Let the Worker take KV for one that holds no larger values."""
        assert httpx.put(f"{self.edge.url}/counting/limit", content=f"{size_bytes}").is_success


def run_cron(stack: Stack) -> None:
    """Let the cron trigger fire; returns when what it runs has ended."""
    assert httpx.get(stack.edge.url + CRON, timeout=60).is_success


def counted(stack: Stack, api_key: str = API_KEY) -> dict[str, Any]:
    """What `GET /cache/stats` says of the edge to a client."""
    response = stack.client.get("/cache/stats", headers={"authorization": f"Bearer {api_key}"})
    assert response.status_code == 200
    edge: dict[str, Any] = response.json()["edge"]
    return edge


def flush(stack: Stack) -> None:
    """Ask until the edge has sent what it had counted before, and the origin has taken it."""
    before = stack.front.was_asked(f"POST {COUNTERS_PATH}")
    refused = 0
    while stack.front.was_asked(f"POST {COUNTERS_PATH}") == before:
        stack.client.post("/v1/chat/completions", content=b"")  # a counted error, and quick
        refused += 1
        assert refused <= 2 * REQUESTS_OF_A_FLUSH
    counted_then = -1
    while (count := counted(stack)["latency_ms"]["count"]) != counted_then:
        counted_then = count
        time.sleep(0.1)
