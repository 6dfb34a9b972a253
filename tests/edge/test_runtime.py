"""What `worker/runtime.py` makes of the platform, in workerd."""

from __future__ import annotations

import httpx
import pytest

from tests.edge.local_edge import Edge, StartEdge
from tests.edge.projects import Projects


@pytest.fixture(scope="module")
def event_loop(start_edge: StartEdge, projects: Projects) -> Edge:
    """An edge with the Worker in fixtures/event_loop.py."""
    return start_edge(projects.event_loop())


@pytest.mark.parametrize(
    ("fact", "order"),
    [
        ("tasks", ["this one", "the started one"]),
        ("futures", ["the setting one", "the waiting one"]),
        ("timers", ["the timer", "made ready"]),
        ("deadlines", ["too late"]),
        ("promises", ["20 ms", "40 ms", "60 ms"]),
    ],
)
def test_event_loop_keeps_its_order(event_loop: Edge, fact: str, order: list[str]) -> None:
    """The hastened event loop does nothing in the middle of something else."""
    assert httpx.get(f"{event_loop.url}/{fact}", timeout=10).json() == order


def test_failure_that_is_handled_is_not_logged(event_loop: Edge) -> None:
    """Futures whose exception nobody has taken are complained of."""
    assert httpx.get(f"{event_loop.url}/failures", timeout=10).json() == ["Error: it failed"]
    for _ in range(3):
        httpx.get(f"{event_loop.url}/tasks", timeout=10)
    assert "never retrieved" not in event_loop.log()


def test_event_loop_outlives_an_interrupted_request(event_loop: Edge) -> None:
    """The CPU limit of one request may strike anywhere; the isolate serves the next ones."""
    assert httpx.get(f"{event_loop.url}/interrupts", timeout=10).status_code == 500
    assert httpx.get(f"{event_loop.url}/tasks", timeout=10).is_success
