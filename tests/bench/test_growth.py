"""`bench.growth`: each curve measures what it says, at tiny sizes; how figures are told."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest

from bench import growth_entries, growth_tenants
from bench.growth import Curve, relative, shown, sparkline, table
from bench.growth_stack import Row, upstream

COSTS = ("CPU (ms)", "p50 (ms)", "p99 (ms)")


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """The model of all curves."""
    with upstream() as running:
        yield running


def check(row: Row, *loads: str) -> None:
    """Every load is in the row, and every figure is one."""
    assert {f"{load}, {cost}" for load in loads for cost in COSTS} <= set(row)
    assert all(math.isfinite(figure) and figure >= 0 for figure in row.values())
    assert all(0 < row[f"{load}, p50 (ms)"] <= row[f"{load}, p99 (ms)"] for load in loads)


def test_a_curve_of_entries(url: str) -> None:
    """Ten entries: all of them are hit, and all are dead after the purges."""
    row = growth_entries.measure(url, 10, 20, matching=False)
    check(row, "hit", "miss and store")
    assert 500 < row["Redis (bytes an entry)"] < 5000
    assert {"purge by tag (ms)", "purge of the tenant (ms)", "statistics (ms)"} <= set(row)


def test_a_curve_of_tenants(url: str) -> None:
    """Two tenants, at the origin alone: the edge takes seconds to start."""
    row = growth_tenants.measure(url, 2, 10, at_edge=False)
    check(row, "hit at the origin")
    assert row["/metrics (bytes)"] > 1000


def test_a_table_has_each_figure_beside_the_first() -> None:
    """What was not measured at a size is a dash, and no curve breaks of it."""
    rows: list[Row] = [{"a (ms)": 2.0, "b (ms)": 0.5}, {"a (ms)": 5.0}]
    lines = table(Curve(name="entries", sizes=(1, 1000), rows=rows, took_s=1.0)).splitlines()
    assert lines[0] == "| entries | 1 | 1,000 | relative to the first | |"
    assert lines[2] == "| a (ms) | 2.00 | 5.00 | 1.00 · 2.50 | ▄█ |"
    assert lines[3] == "| b (ms) | 0.500 | – | 1.00 · – | █  |"  # noqa: RUF001


@pytest.mark.parametrize(
    ("figure", "text"),
    [(0, "0.000"), (0.25, "0.250"), (1.234, "1.23"), (12.34, "12.3"), (1234.5, "1,234")],
)
def test_figures_have_three_digits_that_count(figure: float, text: str) -> None:
    """More only before the point, and three behind it below one."""
    assert shown(figure) == text


def test_nothing_is_relative_to_nothing() -> None:
    """A first figure of 0 is nothing to divide by."""
    assert relative([0.0, 3.0]) == [None, None]
    assert sparkline([0.0, 0.0]) == "▁▁"
