"""How cost grows: with the entries of a tenant, the size of bodies, and the tenants.

    .venv/bin/python -m bench.growth [--quick] [--only entries,body,tenants] [--json [FILE]]
        [--plot FILE.png]

Real processes: `encore origin` with its bundled Redis, the edge in workerd with a local KV, and a
model that takes no time. CPU is user and system time of the one process that is named, per request;
one client on one connection; each request is another one in bytes, so that none is known by heart.
Beside each figure at a size stands, at the end of its line, what it is relative to the first.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench import growth_body, growth_entries, growth_tenants
from bench.growth_stack import Row, upstream

CURVES = ("entries", "body", "tenants")
QUICK_SIZES = {"entries": (100, 1_000), "body": (1_000, 100_000), "tenants": (1, 50)}
SIZES = {
    "entries": growth_entries.SIZES,
    "body": growth_body.SIZES,
    "tenants": growth_tenants.SIZES,
}
REQUESTS = {"entries": 2000, "body": 600, "tenants": 4000}
QUICK_REQUESTS = 200
BARS = "▁▂▃▄▅▆▇█"


@dataclass(frozen=True, kw_only=True)
class Curve:
    """What was measured at each size, and how long all of it took."""

    name: str
    sizes: Sequence[int]
    rows: Sequence[Row]
    took_s: float

    def lines(self) -> dict[str, list[float | None]]:
        """Each figure at every size, None where it was not measured there."""
        names = dict.fromkeys(name for row in self.rows for name in row)
        return {name: [row.get(name) for row in self.rows] for name in names}


def measure(
    only: Sequence[str] = CURVES,
    *,
    sizes: dict[str, Sequence[int]] | None = None,
    requests: int | None = None,
) -> list[Curve]:
    """The curves that are wanted; `body` is two. `requests` are the hits of a kind at a size."""
    wanted: dict[str, Sequence[int]] = {**SIZES, **(sizes or {})}
    curves = []
    with upstream() as url:
        for name in only:
            count = requests or REQUESTS[name]
            began_s = time.monotonic()
            if name == "body":
                both = growth_body.measure(url, wanted[name], count)
                parts = dict(zip(("answer (bytes)", "request (bytes)"), both, strict=True))
            else:
                one = {"entries": growth_entries.measure, "tenants": growth_tenants.measure}[name]
                parts = {name: [said(name, size, one(url, size, count)) for size in wanted[name]]}
            took_s = time.monotonic() - began_s
            curves += [
                Curve(name=part, sizes=wanted[name], rows=rows, took_s=took_s)
                for part, rows in parts.items()
            ]
    return curves


def said(name: str, size: int, row: Row) -> Row:
    """The same row, told of while more are measured."""
    print(f"{size:,} {name}: {json.dumps(row)}", file=sys.stderr)
    return row


def table(curve: Curve) -> str:
    """The curve in Markdown, a figure a line."""
    sizes = [f"{size:,}" for size in curve.sizes]
    lines = [
        f"| {curve.name} | {' | '.join(sizes)} | relative to the first | |",
        f"| --- | {'---: | ' * len(sizes)}--- | --- |",
    ]
    for name, figures in curve.lines().items():
        cells = ["–" if each is None else shown(each) for each in figures]  # noqa: RUF001
        ratios = relative(figures)
        told = " · ".join("–" if each is None else f"{each:.2f}" for each in ratios)  # noqa: RUF001
        lines.append(f"| {name} | {' | '.join(cells)} | {told} | {sparkline(figures)} |")
    return "\n".join(lines)


def shown(figure: float) -> str:
    """Three digits that count, or more where there are more before the point."""
    decimals = max(0, 2 - len(str(int(abs(figure)))) + 1) if figure >= 1 else 3
    return f"{figure:,.{decimals}f}"


def relative(figures: Sequence[float | None]) -> list[float | None]:
    """Each divided by the first, None where that cannot be said."""
    first = figures[0]
    return [None if each is None or not first else each / first for each in figures]


def sparkline(figures: Sequence[float | None]) -> str:
    """Bars between nothing and the largest."""
    most = max((each for each in figures if each is not None), default=0.0) or 1.0
    return "".join(
        " " if each is None else BARS[min(len(BARS) - 1, int(each / most * len(BARS)))]
        for each in figures
    )


def plot(curves: Sequence[Curve], file: Path) -> None:
    """Draw every figure relative to its first, both axes logarithmic."""
    import matplotlib as mpl  # noqa: PLC0415 - of an extra

    mpl.use("agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415

    figure, axes = plt.subplots(
        len(curves), 1, figsize=(9, 5 * len(curves)), squeeze=False, layout="constrained"
    )
    for curve, (axis,) in zip(curves, axes, strict=True):
        for name, figures in curve.lines().items():
            points = [
                (size, ratio)
                for size, ratio in zip(curve.sizes, relative(figures), strict=True)
                if ratio
            ]
            if points:
                axis.plot(*zip(*points, strict=True), marker="o", markersize=3, label=name)
        axis.set(xscale="log", yscale="log", xlabel=curve.name, ylabel="relative to the first")
        axis.legend(fontsize=6, loc="center left", bbox_to_anchor=(1, 0.5))
    figure.savefig(file, dpi=120)


def main() -> None:
    """Run and print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="two small sizes, fewer requests")
    parser.add_argument("--only", default=",".join(CURVES), help="some of them, by commas")
    parser.add_argument(
        "--json",
        nargs="?",
        const="-",
        metavar="FILE",
        help="write the figures there, or print them",
    )
    parser.add_argument("--plot", type=Path, help="draw the curves into this PNG file")
    arguments = parser.parse_args()
    only = arguments.only.split(",")
    if unknown := set(only) - set(CURVES):
        parser.error(f"--only: {', '.join(CURVES)}; not {', '.join(sorted(unknown))}")
    quick = arguments.quick
    curves = measure(
        only,
        sizes=dict(QUICK_SIZES) if quick else None,
        requests=QUICK_REQUESTS if quick else None,
    )
    machine = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    if arguments.json is not None:
        told = {
            "machine": machine,
            "curves": {
                curve.name: {"sizes": curve.sizes, "figures": curve.lines(), "took_s": curve.took_s}
                for curve in curves
            },
        }
        text = json.dumps(told, indent=2)
        if arguments.json == "-":
            sys.stdout.write(text + "\n")
            return
        Path(arguments.json).write_text(text + "\n")
    print(machine)
    for curve in curves:
        print(f"\n{table(curve)}\n\n{curve.name}: measured in {curve.took_s:.0f} s")
    if arguments.plot is not None:
        plot(curves, arguments.plot)


if __name__ == "__main__":
    main()
