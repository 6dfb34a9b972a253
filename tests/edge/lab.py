"""The tests' side of fixtures/kv_lab.py: an edge's KV, to look at, change, count and make fail."""

from __future__ import annotations

import base64
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx

from tests.edge.local_edge import Edge


@dataclass(frozen=True, kw_only=True, slots=True)
class Planted:
    """A value that is to stand in KV. `metadata` is any JSON value."""

    name: str
    value: bytes
    metadata: Any = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Lab:
    """The KV of one edge, which runs that fixture."""

    edge: Edge

    def names(self, start: str = "") -> list[str]:
        """The names that begin like this."""
        found: list[str] = self._get("names").json()
        return [name for name in found if name.startswith(start)]

    def value(self, name: str) -> tuple[bytes, str] | None:
        """(value, metadata as JSON), or None where there is none."""
        found = self._get("value", name=name)
        return None if found.status_code == 404 else (found.content, found.headers["metadata"])

    def put(self, name: str, value: bytes, metadata: str = "") -> None:
        """Put a value in the place of what is there."""
        response = httpx.put(
            f"{self.edge.url}/lab/value",
            params={"name": name},
            content=value,
            headers={"metadata": metadata},
        )
        assert response.is_success

    def plant(self, values: Iterable[Planted]) -> None:
        """Put all of these, at once."""
        self._set(
            "values",
            [[one.name, base64.b64encode(one.value).decode(), one.metadata] for one in values],
        )

    def delete(self, name: str) -> None:
        """Take a value away."""
        assert httpx.delete(f"{self.edge.url}/lab/value", params={"name": name}).is_success

    def forget(self) -> None:
        """Note calls anew."""
        assert httpx.delete(f"{self.edge.url}/lab/calls").is_success

    def noted(self, what: str = "", name: str = "") -> list[dict[str, Any]]:
        """The calls that the Worker has made, in order, of which both begin like this.

        `what` is `get control`, `get entry`, `put entry` or so.
        """
        return [
            call
            for call in self._get("calls").json()
            if call["call"].startswith(what) and call.get("name", "").startswith(name)
        ]

    def calls(self, what: str) -> int:
        """How many calls those are."""
        return len(self.noted(what))

    def writes(self, at_least: int = 0) -> list[dict[str, Any]]:
        """The writes of entries, once there are so many: they are made behind the answers."""
        deadline = time.monotonic() + 10
        while len(writes := self.noted("put entry")) < at_least:
            assert time.monotonic() < deadline, writes
            time.sleep(0.02)
        return writes

    @contextmanager
    def failing(self, *calls: str, **numbers: int) -> Iterator[None]:
        """For the length of the block these calls fail; reads that are `blind` find nothing.

        See the fixture for more words, and for `percent` and `slow`.
        """
        self._set("faults", {**dict.fromkeys(calls), **numbers})
        try:
            yield
        finally:
            self._set("faults", {})

    def slow_down(self, most_ms: int) -> None:
        """Let reads and writes take up to so long; 0 ends it."""
        self._set("faults", {"slow": most_ms})

    def refuse(self, call: str, times: int) -> None:
        """Let the next of these calls fail."""
        self._set("faults", {call: times})

    @contextmanager
    def limit_values(self, size_bytes: int) -> Iterator[None]:
        """For the length of the block the Worker takes this for the most that a value may have."""
        self._set("limit", size_bytes)
        try:
            yield
        finally:
            self._set("limit", 25 << 20)

    @contextmanager
    def reporting_at_once(self) -> Iterator[None]:
        """For the length of the block a report that failed keeps no other waiting."""
        self._set("pause", 0)
        try:
            yield
        finally:
            self._set("pause", 30)

    def wait_for(self, name: str) -> bytes:
        """The value of a name, once it is there."""
        deadline = time.monotonic() + 10
        while (found := self.value(name)) is None:
            assert time.monotonic() < deadline, f"no {name} in KV"
            time.sleep(0.05)
        return found[0]

    def _get(self, what: str, **params: str) -> httpx.Response:
        return httpx.get(f"{self.edge.url}/lab/{what}", params=params)

    def _set(self, what: str, value: Any) -> None:
        response = httpx.put(f"{self.edge.url}/lab/{what}", json=value, timeout=60)
        assert response.is_success, response.text
