"""Thresholds from scores: what a bound allows, what cannot be shown, what is kept in a file."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from origin.semantic.calibration import (
    Calibration,
    CalibrationError,
    Scored,
    Step,
    end_to_end_steps,
    fit,
    pair_steps,
)
from origin.semantic.intervals import lower_limit, upper_limit


def true(score: float, group: str) -> Scored:
    """A pair that should match."""
    return Scored(score=score, same=True, group=group)


def false(score: float, group: str) -> Scored:
    """A pair that should not."""
    return Scored(score=score, same=False, group=group)


def calibration(**changes: object) -> Calibration:
    """500 right answers above a wrong one; 4 false hits of 2,000 below 400 true ones."""
    made = Calibration(
        verifier="v1",
        encoder="e1/int8",
        base_rate=0.2,
        queries=1000,
        entries=10_000,
        positives=400,
        negatives=2000,
        steps=end_to_end_steps([(0.9 - i / 10_000, False) for i in range(500)] + [(0.7, True)]),
        pair_steps=pair_steps(
            [true(0.9, "a")] * 400 + [false(0.8, "a")] * 4 + [false(0.1, "a")] * 1996
        ),
    )
    return replace(made, **changes)  # type: ignore[arg-type]  # the fields' own types


def served(steps: tuple[Step, ...]) -> list[tuple[float, int, int]]:
    """Without the limits."""
    return [step[:3] for step in steps]


def test_steps_count_what_is_served_and_wrong_from_the_top() -> None:
    """Equal scores are one step; a score of 0 is never served."""
    steps = end_to_end_steps([(0.5, False), (0.9, False), (0.5, True), (0.0, True)])
    assert served(steps) == [(0.9, 1, 0), (0.5, 3, 1)]
    assert steps[1].upper == upper_limit(1, 3)


def test_the_threshold_is_the_lowest_that_keeps_the_bound() -> None:
    """One wrong below 500 right ones breaks half a percent, not one."""
    found = calibration()
    assert found.threshold(0.01) == pytest.approx(0.7)
    assert found.threshold(0.0065) == pytest.approx(0.85, abs=0.01)


def test_what_the_numbers_cannot_show_is_refused() -> None:
    """500 served cannot show one in a thousand: nothing is served, and the text says so."""
    found = calibration()
    assert found.threshold(0.001) is None
    assert "Nothing is served" in found.describe(0.001)
    assert found.pair_threshold(0.0001) is None
    assert "Nothing is matched" in found.describe_pairs(0.0001)


def test_the_estimate_names_its_numbers() -> None:
    """n, base rate, and that it is an estimate."""
    text = calibration().describe(0.01)
    for part in ("Estimate", "1 of 501", "1,000 queries", "10,000 entries", "20%", "3/n"):
        assert part in text


def test_every_group_keeps_the_pair_bound_by_itself() -> None:
    """A group with many false hits is not hidden behind a big one with none."""
    big = [false(0.1, "big")] * 20_000
    bad = [false(0.8, "bad")] * 20 + [false(0.1, "bad")] * 980
    steps = pair_steps([true(0.9, "big")] * 10 + big + bad)
    assert (steps[1].threshold, steps[1].worst) == (0.8, "bad")
    assert steps[1].upper == 20 / 1000


def test_small_groups_speak_together() -> None:
    """Fifty groups of forty negatives are one group of two thousand."""
    pairs = [false(0.1, f"g{i}") for i in range(50) for _ in range(40)]
    (first, *_) = pair_steps([true(0.9, "g0"), *pairs])
    assert (first.worst, first.upper) == ("others", upper_limit(0, 2000))


def test_a_long_table_is_thinned_to_real_steps() -> None:
    """What is kept is a step of the whole table, the last one included."""
    outcomes = [(i / 5000, i % 100 == 0) for i in range(1, 5001)]
    steps = end_to_end_steps(outcomes)
    assert len(steps) <= 400
    for step in steps[:: len(steps) // 7]:
        above = [wrong for score, wrong in outcomes if score >= step.threshold]
        assert (step.served, step.wrong) == (len(above), sum(above))


def test_an_operators_pairs_give_the_rate_at_the_base_rate() -> None:
    """P(wrong | served) by Bayes, from the unfavourable limits of the two rates."""
    pairs = [true(0.9, "")] * 300 + [false(0.2, "")] * 700
    found = fit(pairs, verifier="v1", encoder="e1", base_rate=0.25)
    right, wrong = 0.25 * lower_limit(300, 300), 0.75 * upper_limit(0, 700)
    assert found.steps[0].upper == pytest.approx(wrong / (right + wrong))
    assert found.threshold(0.02) == pytest.approx(0.9)
    assert "1,000 pairs" in found.describe(0.02)


@pytest.mark.parametrize(
    ("pairs", "base_rate"),
    [
        ([true(0.9, "")], 0.2),
        ([false(0.9, "")], 0.2),
        ([true(0.9, ""), false(0.1, "")], 0.0),
    ],
)
def test_pairs_that_cannot_calibrate_are_refused(pairs: list[Scored], base_rate: float) -> None:
    """One kind alone says nothing; nor does a base rate of none."""
    with pytest.raises(CalibrationError):
        fit(pairs, verifier="v1", encoder="e1", base_rate=base_rate)


def test_a_file_gives_back_what_was_written(tmp_path: Path) -> None:
    """The same calibration, the same version."""
    made = calibration()
    path = tmp_path / "calibration.json"
    path.write_text(made.to_json(), encoding="utf-8")
    found = Calibration.load(path)
    assert found == made
    assert found.version == made.version


def test_the_version_is_of_numbers_verifier_and_encoder() -> None:
    """Any change is another version."""
    made = calibration()
    others = [calibration(verifier="v2"), calibration(encoder="e2"), calibration(base_rate=0.3)]
    assert len({each.version for each in (made, *others)}) == 4


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{}", json.dumps({"format": 2}), json.dumps({"format": 1, "steps": [], "x": 1})],
)
def test_a_damaged_file_is_refused(tmp_path: Path, content: str) -> None:
    """Never a guess."""
    path = tmp_path / "calibration.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(CalibrationError):
        Calibration.load(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """The message says which."""
    with pytest.raises(CalibrationError, match=r"none\.json"):
        Calibration.load(tmp_path / "none.json")


@given(
    st.lists(st.tuples(st.integers(1, 20).map(lambda n: n / 20), st.booleans()), max_size=60),
    st.sampled_from([0.05, 0.2, 0.5]),
)
def test_at_the_threshold_the_limit_is_kept(
    outcomes: list[tuple[float, bool]], bound: float
) -> None:
    """Counted anew, by the definition."""
    found = calibration(steps=end_to_end_steps(outcomes))
    threshold = found.threshold(bound)
    if threshold is not None:
        wrong = [is_wrong for score, is_wrong in outcomes if score >= threshold]
        assert upper_limit(sum(wrong), len(wrong)) <= bound
