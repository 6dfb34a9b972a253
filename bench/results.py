"""What a script of this folder has measured: comparisons, tables and remarks, as data.

Each script prints its result and, with `--json FILE`, writes it, so that the page (`python -m
bench`) is made of data and not of what was printed.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Self


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One quantity of Encore, and the same of what stands beside it.

    `other` is None where that could not be measured, or where nothing stands beside it.
    """

    what: str
    unit: str
    encore: float
    beside: str = ""
    other: float | None = None

    @property
    def ratio(self) -> float | None:
        """Encore's to the other's; None where there is none."""
        return self.encore / self.other if self.other else None


@dataclass(frozen=True, kw_only=True)
class Table:
    """Cells as they are printed; the first column names the row, the others are figures."""

    title: str
    columns: list[str]
    rows: list[list[str]]


@dataclass(frozen=True, kw_only=True)
class Result:
    """What one script has measured. `failures` says what makes it no result to rely on."""

    comparisons: list[Comparison] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def to_json(self) -> str:
        """What `from_json` reads."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Raises ValueError, KeyError or TypeError where it is not what `to_json` writes."""
        fields = json.loads(text)
        return cls(
            comparisons=[Comparison(**each) for each in fields["comparisons"]],
            tables=[Table(**each) for each in fields["tables"]],
            remarks=fields["remarks"],
            failures=fields["failures"],
        )


def comparison_table(comparisons: Sequence[Comparison]) -> str:
    """Ratios, one a line."""
    rows = [
        [
            each.what,
            each.unit,
            figure(each.encore),
            each.beside,
            "" if each.other is None else figure(each.other),
            "" if each.ratio is None else figure(each.ratio),
        ]
        for each in comparisons
    ]
    columns = ["what", "in", "Encore", "beside", "its figure", "Encore to it"]
    return markdown(columns, rows, left={0, 1, 3})


def details(result: Result) -> str:
    """Everything but the comparisons."""
    parts = []
    for table in result.tables:
        title = [table.title, ""] if table.title else []
        parts.append("\n".join([*title, markdown(table.columns, table.rows)]))
    if result.remarks:
        parts.append("\n".join(f"- {remark}" for remark in result.remarks))
    if result.failures:
        parts.append("\n".join(f"**Failed**: {failure}" for failure in result.failures))
    return "\n\n".join(parts)


def markdown(
    columns: Sequence[str], rows: Sequence[Sequence[str]], left: set[int] | None = None
) -> str:
    """A table; columns other than `left` (the first one) are set right."""
    left = {0} if left is None else left
    rule = ["---" if number in left else "---:" for number in range(len(columns))]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [columns, rule, *rows])


def figure(value: float) -> str:
    """Three significant digits, or all that stand before the point."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:,.{digits}f}"


def p50(values: Sequence[float]) -> float:
    """The median."""
    return float(statistics.median(values))


def p99(values: Sequence[float]) -> float:
    """What 99 of 100 are not above."""
    return sorted(values)[int(len(values) * 0.99)]


def add_json_option(parser: argparse.ArgumentParser) -> None:
    """Give a script the option that the page needs."""
    parser.add_argument("--json", type=Path, help="also write the result to this file, as data")


def deliver(result: Result, path: Path | None) -> None:
    """Print it and write it; exits with status 1 where it has failures."""
    if result.comparisons:
        print(comparison_table(result.comparisons), end="\n\n")
    print(details(result))
    if path is not None:
        path.write_text(result.to_json(), encoding="utf-8")
    if result.failures:
        raise SystemExit(1)
