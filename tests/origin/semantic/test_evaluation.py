"""The report on labelled pairs: counts, rates, intervals and the area under the curve."""

from itertools import product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from origin.semantic.evaluation import (
    Judged,
    RowError,
    area_under_curve,
    check_rows,
    decided,
    report,
)
from origin.semantic.intervals import interval


def judged(*, same: bool, hit: bool, similarity: float = 0.9, **changes: Any) -> Judged:
    """A pair as it was decided."""
    given_: dict[str, Any] = {"a": "a", "b": "b", "source": "s", "kind": "", "score": 0.5}
    return Judged(same=same, hit=hit, similarity=similarity, reason="score", **(given_ | changes))


PAIRS = [
    judged(same=True, hit=True, similarity=0.99, source="s", kind="k"),
    judged(same=True, hit=False, similarity=0.85, source="t"),
    judged(same=False, hit=True, similarity=0.97, source="t"),
    judged(same=False, hit=False, similarity=0.5, source="t"),
]


def test_the_decision_is_counted() -> None:
    """Of two true pairs one is found, of two false ones one."""
    found = decided(PAIRS)
    assert {name: found[name] for name in ("pairs", "positives", "negatives", "hits")} == {
        "pairs": 4,
        "positives": 2,
        "negatives": 2,
        "hits": 2,
    }
    assert (found["recall"], found["false_hits"], found["false_hit_rate"]) == (0.5, 1, 0.5)
    assert (found["precision"], found["false_hit_rate_interval"]) == (0.5, list(interval(1, 2)))


def test_the_report_has_every_source_kind_and_cosine() -> None:
    """Rows without a kind are in none."""
    found = report(PAIRS)
    assert list(found["by_source"]) == ["s", "t"]
    assert list(found["by_kind"]) == ["k"]
    assert (found["by_source"]["s"]["pairs"], found["by_source"]["t"]["false_hits"]) == (1, 1)
    assert list(found["cosine"]) == [f"0.{hundredths}" for hundredths in range(80, 100)]
    assert found["cosine"]["0.98"]["false_hits"] == 0
    assert found["cosine"]["0.80"]["recall"] == 1


def test_what_cannot_be_said_is_null() -> None:
    """No negatives, no false-hit rate; no pairs, nothing."""
    only = decided([judged(same=True, hit=False)])
    assert (only["false_hit_rate"], only["precision"], only["auc"]) == (None, None, None)
    assert decided([])["recall"] is None


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), max_size=30))
def test_the_area_is_the_share_of_pairs_in_order(scored: list[tuple[int, bool]]) -> None:
    """Against the quadratic definition, ties counted half."""
    wins = [
        (score > other) + 0.5 * (score == other)
        for (score, same), (other, other_same) in product(scored, scored)
        if same and not other_same
    ]
    expected = sum(wins) / len(wins) if wins else None
    found = area_under_curve([score for score, _ in scored], [same for _, same in scored])
    assert found == (None if expected is None else pytest.approx(expected))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ([], "not an object"),
        ({"a": "x", "same": 1}, '"b"'),
        ({"a": 1, "b": "x", "same": 1}, '"a"'),
        ({"a": "x", "b": "x", "same": 2}, '"same"'),
        ({"a": "x", "b": "x"}, '"same"'),
    ],
)
def test_a_row_that_is_no_pair_is_named(row: Any, message: str) -> None:
    """By its number and what is wrong with it."""
    with pytest.raises(RowError, match=f"row 2: .*{message}"):
        check_rows([{"a": "x", "b": "y", "same": 0}, row])
