"""Where prompts are cut."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from origin.engine.cuts import STEPS, Cuts

FAR = 5000

schedules = st.lists(st.tuples(st.integers(1, 9), st.integers(1, 5)), min_size=1, max_size=4).map(
    lambda rows: tuple(
        (sum(step * count for step, count in rows[:row]), step)
        for row, (step, _) in enumerate(rows)
    )
)
"""Steps that meet: of so many tokens, so many times."""


@given(schedules, st.integers(0, 200))
def test_next_and_floor_agree_with_the_list_of_all_cuts(
    steps: tuple[tuple[int, int], ...], position: int
) -> None:
    """The list: from 0 on, one step of the row that holds there after the other."""
    cuts, all_cuts = Cuts(steps), [0]
    while all_cuts[-1] <= position:
        here = all_cuts[-1]
        all_cuts.append(here + [step for start, step in steps if start <= here][-1])
    assert cuts.next(position) == all_cuts[-1]
    assert cuts.floor(position) == all_cuts[-2]


def test_steps_change_at_cuts() -> None:
    """Every row of the table begins at a cut, and its first step is its own."""
    cuts = Cuts()
    for start, step in STEPS:
        assert cuts.floor(start) == start
        assert cuts.next(start) == start + step
    assert cuts.next(FAR) - cuts.floor(FAR) == STEPS[-1][1]


def test_identity_tells_schedules_apart() -> None:
    """Equal ones are equal."""
    assert Cuts(((0, 64), (128, 32))).identity == "0:64,128:32"
    assert Cuts().identity == Cuts(STEPS).identity != Cuts(((0, 32),)).identity


@pytest.mark.parametrize(
    "steps",
    [(), ((1, 4),), ((0, 0),), ((0, -1),), ((0, 4), (6, 2)), ((0, 4), (0, 8)), ((0, 2), (-2, 2))],
)
def test_steps_that_do_not_meet_are_refused(steps: tuple[tuple[int, int], ...]) -> None:
    """Each row ends where the next begins, and the first begins at 0."""
    with pytest.raises(ValueError, match="steps"):
        Cuts(steps)


def test_no_position_lies_before_0() -> None:
    """Neither has a cut."""
    for of in (Cuts().next, Cuts().floor):
        with pytest.raises(ValueError, match="position"):
            of(-1)
