"""What a hit costs the Worker, by count: no clock is read."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from tests.edge.local_edge import StartEdge
from tests.edge.projects import Projects
from tests.edge.stack import Stack, is_hit, stacked

CROSSINGS = 23
"""Between Python and JavaScript, for each hit. Fewer is better: write down what you have saved."""
HITS = 20
MANY_HITS = 500


@pytest.fixture
def counting(
    request: pytest.FixtureRequest, projects: Projects, start_edge: StartEdge
) -> Iterator[Stack]:
    """A stack whose edge counts what the test's parameter names."""
    with stacked(start_edge, config=projects.counting(), COUNT=request.param) as stack:
        yield stack


def _counted(stack: Stack) -> int:
    count: int = httpx.get(stack.edge.url + "/counted", timeout=30).json()
    return count


def _hit(stack: Stack, hits: int) -> None:
    assert all(is_hit(stack.ask("counted")) for _ in range(hits))


@pytest.mark.parametrize("counting", ["crossings"], indirect=True)
def test_crossings_of_a_hit(counting: Stack) -> None:
    """The number is exact, the same for each hit."""
    counting.hit("counted")
    _counted(counting)
    _hit(counting, 1)  # what an isolate keeps is made once
    _counted(counting)
    asking = _counted(counting)
    _hit(counting, HITS)
    assert _counted(counting) - asking == CROSSINGS * HITS


@pytest.mark.parametrize("counting", ["objects"], indirect=True)
def test_hits_leave_nothing_behind(counting: Stack) -> None:
    """Python has as many objects after hundreds of hits as before."""
    counting.hit("counted")
    _hit(counting, HITS)
    before = _counted(counting)
    _hit(counting, MANY_HITS)
    assert _counted(counting) <= before
