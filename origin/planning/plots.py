"""Two pictures of a replay: what answered under each setting, and the hit rate over the log's time.

matplotlib is imported by who hands a figure in.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from origin.planning.report import label
from origin.planning.tally import OUTCOMES, Setting, Tally

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from origin.planning.replay import CacheReplay

MAX_POINTS = 60
"""Hours are put together where there are more."""
_COLOURS = {
    "edge": "#1b7837",
    "l1": "#7fbf7b",
    "semantic": "#2166ac",
    "joined": "#fdb863",
    "model": "#d6604d",
    "bypass": "#999999",
    "refused": "#4d4d4d",
}


def draw(figure: Figure, caches: Sequence[CacheReplay], base: Setting) -> None:
    """Draw both into a figure that is empty."""
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    names = [label(cache.setting, base) for cache in caches]
    from_left = [0.0] * len(caches)
    for outcome in OUTCOMES:
        shares = [_percent(cache.tally, outcome) for cache in caches]
        if not any(shares):
            continue
        left.barh(names, shares, left=from_left, label=outcome, color=_COLOURS[outcome])
        from_left = [sum(pair) for pair in zip(from_left, shares, strict=True)]
    left.invert_yaxis()
    left.set(xlabel="% of requests", xlim=(0, 100), title="what answered")
    figure.legend(loc="outside lower center", ncols=len(OUTCOMES), frameon=False)
    for cache, name in zip(caches, names, strict=True):
        if cache.setting.changed(base) == "admit_after":
            continue  # which tier answers differs, not whether one does
        times, rates = over_time(cache.tally)
        right.plot(times, rates, label=name, linewidth=1)
    right.set(xlabel="hours of the log", ylabel="% hits", ylim=(0, 100), title="hit rate")
    right.legend(fontsize="x-small", frameon=False)


def over_time(tally: Tally) -> tuple[list[float], list[float]]:
    """(hours since the first, hit rates in %), at most `MAX_POINTS` of them."""
    if not tally.hours:
        return [], []
    first, last = min(tally.hours), max(tally.hours)
    step = -(-(last - first + 1) // MAX_POINTS)
    sums: dict[int, list[float]] = {}
    for hour, (looked_up, hits) in sorted(tally.hours.items()):
        found = sums.setdefault((hour - first) // step, [0.0, 0.0])
        found[0] += looked_up
        found[1] += hits
    return (
        [(place + 0.5) * step for place in sums],
        [100 * hits / looked_up for looked_up, hits in sums.values()],
    )


def _percent(tally: Tally, outcome: str) -> float:
    requests = tally.requests
    return 100 * tally.outcomes[outcome] / requests if requests else 0.0  # type: ignore[index]
