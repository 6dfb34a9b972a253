"""The tests' side of fixtures/kv_lab.py: an edge's KV, to look at, change, count and make fail."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import httpx

from tests.edge.local_edge import Edge


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

    def delete(self, name: str) -> None:
        """Take a value away."""
        assert httpx.delete(f"{self.edge.url}/lab/value", params={"name": name}).is_success

    def calls(self, what: str) -> int:
        """How often the Worker has made a call: `get control`, `get entry`, `put entry` or so."""
        return int(self._get("calls").json().get(what, 0))

    @contextmanager
    def failing(self, *calls: str) -> Iterator[None]:
        """For the length of the block these calls fail."""
        self._set_faults(calls)
        try:
            yield
        finally:
            self._set_faults(())

    def wait_for(self, name: str) -> bytes:
        """The value of a name, once it is there."""
        deadline = time.monotonic() + 10
        while (found := self.value(name)) is None:
            assert time.monotonic() < deadline, f"no {name} in KV"
            time.sleep(0.05)
        return found[0]

    def _get(self, what: str, **params: str) -> httpx.Response:
        return httpx.get(f"{self.edge.url}/lab/{what}", params=params)

    def _set_faults(self, calls: tuple[str, ...]) -> None:
        response = httpx.put(f"{self.edge.url}/lab/faults", json=calls)
        assert response.is_success
