"""What is said of a replay: numbers that add up, and advice that follows from them."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from origin.lifetimes import Tiers
from origin.planning.log import Bad
from origin.planning.plots import over_time
from origin.planning.reading import LogFacts
from origin.planning.replay import Replay
from origin.planning.report import advice, duration, label, report
from origin.planning.tally import HOUR_MS, Outcome, Setting, Tally
from shared.freshness import Lifetimes

DAY = 86_400
BASE = Setting(ttl_s=DAY, normalisation="exact", admit_after=1, semantic="off")
LIFETIMES = Lifetimes(ttl_s=DAY, stale_while_revalidate_s=0, stale_if_error_s=0, max_ttl_s=30 * DAY)


class Told:
    """A setting and its tally, as a replay has them."""

    def __init__(
        self, edge: float = 50, usd: float = 5, writes: float = 1000, **changes: Any
    ) -> None:
        given = {name: getattr(BASE, name) for name in BASE.__slots__}
        self.setting = Setting(**(given | changes))
        self.tally = Tally(kv_writes=writes)
        self.tally.outcomes["edge"] = edge
        self.tally.outcomes["l1"] = max(0, 50 - edge)
        self.tally.outcomes["model"] = 100 - self.tally.outcomes["l1"] - edge
        self.tally.saved.add(usd * 1000, 0, usd)
        self.tally.spent.add(0, 0, 10 - usd)


def advised(name: str, *told: Told) -> tuple[Any, str]:
    """(what to choose, why)."""
    found = advice(told, BASE, priced=True)[name]  # type: ignore[arg-type]
    return found["choose"], found["why"]


@pytest.mark.parametrize(
    ("usd", "choose"),
    [
        ({60: 1.0, DAY: 5.0, 7 * DAY: 5.1}, DAY),  # 98 % of the best
        ({60: 4.9, DAY: 5.0, 7 * DAY: 5.1}, 60),
        ({60: 1.0, DAY: 5.0, 7 * DAY: 9.0}, 7 * DAY),
        ({DAY: 5.0}, DAY),
        ({60: -1.0, DAY: -2.0}, 60),
    ],
)
def test_the_shortest_lifetime_that_saves_enough(usd: dict[int, float], choose: int) -> None:
    """Of those that were replayed."""
    told = [Told(usd=saved, ttl_s=ttl_s, writes=0) for ttl_s, saved in usd.items()]
    found, why = advised("ttl_s", *told)
    assert found == choose
    assert why.startswith("Lifetime: ")
    assert why.endswith(".")


@pytest.mark.parametrize(
    ("edges", "choose"),
    [
        ({"exact": 50, "text": 55, "property": 55.2}, "text"),
        ({"exact": 50, "text": 50.2, "property": 50.3}, "exact"),
        ({"exact": 50, "text": 50.2, "property": 58}, "property"),
        ({"exact": 50}, "exact"),
    ],
)
def test_a_profile_is_worth_half_a_point(edges: dict[str, float], choose: str) -> None:
    """Beyond the last that was."""
    told = [Told(edge=edge, usd=edge / 10, normalisation=name) for name, edge in edges.items()]
    assert advised("normalisation", *told)[0] == choose


@pytest.mark.parametrize(
    ("edges", "choose"), [({1: 50, 2: 49.5, 4: 40}, 2), ({1: 50, 2: 45}, 1), ({1: 50}, 1)]
)
def test_admission_may_cost_the_edge_a_point(edges: dict[int, float], choose: int) -> None:
    """For fewer writes."""
    told = [Told(edge=edge, admit_after=n, writes=1000 / n) for n, edge in edges.items()]
    assert advised("admit_after", *told)[0] == choose


@pytest.mark.parametrize(
    ("edges", "choose"),
    [
        ({"off": 50}, None),
        ({"off": 50, "strict": 53}, "strict"),
        ({"off": 50, "strict": 50}, "off"),
        ({"off": 50, "0.05": 58, "strict": 53}, "strict"),
        ({"off": 50, "0.05": 58, "strict": 50.1}, "0.05"),
    ],
)
def test_semantic_match_is_worth_half_a_point(edges: dict[str, float], choose: str | None) -> None:
    """The strictest that is, where it was replayed."""
    told = [Told(edge=edge, usd=edge / 10, semantic=mode) for mode, edge in edges.items()]
    assert advised("semantic", *told)[0] == choose


def test_semantic_match_is_compared_with_none() -> None:
    """Where that was not replayed, there is no advice but to stay."""
    base = replace(BASE, semantic="strict")
    told = [Told(edge=50, semantic="strict"), Told(edge=60, semantic="0.05")]
    found = advice(told, base, priced=True)["semantic"]  # type: ignore[arg-type]
    assert (found["choose"], found["why"]) == (
        "strict",
        "Semantic match: was not replayed without.",
    )


def test_what_changes_another_choice_does_not_count() -> None:
    """A profile's hits are none of the lifetime's."""
    told = [Told(usd=5), Told(usd=9, edge=90, normalisation="text")]
    assert "only 1 d was replayed" in advised("ttl_s", *told)[1]


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(86_400, "1 d"), (5400, "90 min"), (3600, "1 h"), (61, "61 s"), (0, "0 s")],
)
def test_durations(seconds: int, words: str) -> None:
    """In the largest unit that fits."""
    assert duration(seconds) == words


def test_a_setting_is_called_by_what_it_changes() -> None:
    """The base by all."""
    assert label(BASE, BASE) == "1 d, exact, admit after 1"
    assert label(Told(ttl_s=60).setting, BASE) == "lifetime 1 min"
    assert label(Told(semantic="strict").setting, BASE) == "semantic strict"


def test_nothing_was_asked() -> None:
    """Then there are no rates, and all of it is JSON."""
    replay = Replay([BASE], lifetimes=LIFETIMES, tiers=Tiers(), generation_ms=0)
    bad = Bad()
    bad.add(3, "no JSON")
    found = report(replay, BASE, LogFacts(), bad)
    json.dumps(found, allow_nan=False)
    (setting,) = found["settings"]
    assert setting["hit_rate"] is None
    assert setting["usd"]["saved"] is None
    assert found["log"]["first_bad_lines"] == [{"line": 3, "why": "no JSON"}]


@pytest.mark.parametrize(("last_ms", "said"), [(0, "1970-01-01T00:00:00.000Z"), (10**18, None)])
def test_a_time_beyond_the_calendar_is_none(last_ms: int, said: str | None) -> None:
    """A log may hold any number."""
    replay = Replay([BASE], lifetimes=LIFETIMES, tiers=Tiers(), generation_ms=0)
    found = report(replay, BASE, LogFacts(requests=1, last_ms=last_ms), Bad())
    assert found["log"]["to"] == said


def test_the_hit_rate_over_time_has_few_points() -> None:
    """Hours are put together."""
    tally = Tally()
    outcomes: tuple[Outcome, ...] = ("edge", "model")
    for hour in range(600):
        for outcome in outcomes:
            tally.count(outcome, (5000 + hour) * HOUR_MS, 1)
    hours, rates = over_time(tally)
    assert len(hours) == 60
    assert set(rates) == {50.0}
    assert over_time(Tally()) == ([], [])
