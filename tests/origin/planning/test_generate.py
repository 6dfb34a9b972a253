"""Made-up logs: as asked for, the same each time, and read as what they are."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from origin.planning.generate import LOCATIONS, LogPlan, generated, line_of, writing
from origin.planning.keying import Keying, Rules
from origin.planning.log import Bad, Reading, numbered, opened
from origin.planning.reading import LogFacts, asked
from origin.prices import Prices
from shared.keys import key_ring

ROWS = 3000
PLAN = LogPlan(requests=ROWS)


@pytest.fixture(scope="module")
def rows() -> list[dict[str, Any]]:
    """A log of some size."""
    return list(generated(PLAN))


def distinct(plan: LogPlan, profile: str = "exact") -> int:
    """How many keys its requests have."""
    keying = Keying(
        Rules(
            ring=key_ring("a secret of the tests, long enough"),
            profiles=(profile,),
            reading=Reading(tenant="acme", model="m"),
            prices=Prices(),
            max_body_bytes=1 << 20,
            answer_tokens=1,
        )
    )
    bad = Bad()
    lines = enumerate(map(line_of, generated(plan)), 1)
    found = asked(lines, keying, LogFacts(), bad, interval_ms=1, processes=0)
    keys = {each.keys[0] for each in found}
    assert not bad.count, bad.lines
    return len(keys)


def test_a_seed_makes_one_log(rows: list[dict[str, Any]]) -> None:
    """And another seed another."""
    assert list(generated(PLAN)) == rows
    assert next(generated(LogPlan(requests=ROWS, seed=2))) != rows[0]


def test_it_lasts_as_long_as_asked_for(rows: list[dict[str, Any]]) -> None:
    """In the order of time, busier by day."""
    times = [row["time"] for row in rows]
    assert times == sorted(times)
    assert 6.5 < (times[-1] - times[0]) / 86_400 < 7.5
    by_hour = Counter(int(time / 3600) % 24 for time in times)
    busiest = sum(count for _, count in by_hour.most_common(6))
    assert busiest > 1.5 * sum(count for _, count in by_hour.most_common()[-6:])


def test_who_asks_and_where(rows: list[dict[str, Any]]) -> None:
    """All tenants and locations, the first ones more than the last."""
    tenants = Counter(row["tenant"] for row in rows)
    assert set(tenants) == {f"tenant-{number}" for number in range(1, 6)}
    locations = Counter(row["location"] for row in rows)
    assert set(locations) == {name for name, _, _ in LOCATIONS}
    assert locations["fra"] > locations["gru"]


def test_few_questions_are_asked_often(rows: list[dict[str, Any]]) -> None:
    """The more so, the larger the exponent."""
    texts = Counter(str(row["body"]) for row in rows)
    assert texts.most_common(1)[0][1] > 20
    assert distinct(LogPlan(requests=500, zipf=1.4)) < distinct(LogPlan(requests=500, zipf=0.6))


def test_spellings_are_one_under_text() -> None:
    """And ways to put a home under `property`; other words are not."""
    plan: dict[str, Any] = {
        "requests": 400,
        "questions": 20,
        "unique": 0,
        "embeddings": 0,
        "bypass": 0,
    }
    spelt = LogPlan(**plan, respelt=0.5, reworded=0)
    assert distinct(spelt, "text") == distinct(LogPlan(**plan, respelt=0, reworded=0))
    assert distinct(spelt, "text") < distinct(spelt)
    put = LogPlan(**plan, respelt=0, reworded=0.5)
    assert 20 < distinct(put, "property") < distinct(put, "text") == distinct(put)


@pytest.mark.parametrize(
    "changes",
    [
        {"requests": 0},
        {"requests": 1, "unique": 1.5},
        {"requests": 1, "locations": 7},
        {"requests": 1, "zipf": -1},
        {"requests": 1, "days": 0},
        {"requests": 1, "tenants": 0},
    ],
)
def test_what_cannot_be_made_is_refused(changes: dict[str, Any]) -> None:
    """Naming what is wrong."""
    with pytest.raises(ValueError, match="must"):
        LogPlan(**changes)


@pytest.mark.parametrize("name", ["log.jsonl", "log.jsonl.gz"])
def test_it_is_written_as_its_name_says(tmp_path: Path, name: str) -> None:
    """Packed or not, it reads the same, and is the same each time."""
    path = tmp_path / name
    contents = []
    for _ in range(2):
        with writing(path) as file:
            for row in generated(LogPlan(requests=20)):
                file.write(line_of(row))
        contents.append(path.read_bytes())
    assert contents[0] == contents[1]
    with path.open("rb") as nothing, opened(path, nothing) as (lines, _):
        assert len(list(numbered(lines, Bad()))) == 20
