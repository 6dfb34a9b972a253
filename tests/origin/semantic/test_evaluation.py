"""The report on labelled pairs: counts, rates, intervals and the area under the curve."""

import json
from itertools import product
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from origin.semantic import evaluation
from origin.semantic.decision import Decision
from origin.semantic.encoder import Encoding
from origin.semantic.evaluation import (
    Judged,
    RowError,
    area_under_curve,
    curve,
    decided,
    judge,
    read_rows,
    report,
)
from origin.semantic.intervals import interval
from origin.semantic.verifier import Verifier
from tests.support.encoders import encoder


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


def test_the_curve_ends_where_vetoes_begin() -> None:
    """Pairs of one score come together, and a score of 0 is never served."""
    scored = [(0.5, True), (0.9, True), (0.5, False), (0.0, True), (0.0, False)]
    assert curve(scored) == [(1, 0), (2, 1)]


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
    ("line", "message"),
    [
        ("{", "is no JSON"),
        ("[" * 100_000, "is no JSON"),
        ("[]", "no object"),
        ('{"a": "x", "same": 1}', '"b"'),
        ('{"a": 1, "b": "x", "same": 1}', '"a"'),
        ('{"a": "x", "b": "x", "same": 2}', '"same"'),
        ('{"a": "x", "b": "x", "same": "0"}', '"same"'),
        ('{"a": "x", "b": "x"}', '"same"'),
    ],
)
def test_a_row_that_is_no_pair_is_named(line: str, message: str) -> None:
    """By its line and what is wrong with it."""
    with pytest.raises(RowError, match=f"line 3.*{message}"):
        read_rows(f'{{"a": "x", "b": "y", "same": 0}}\n\n{line}\n'.encode())


@pytest.mark.parametrize("separator", ["\u2028", "\x85"])
def test_only_a_newline_ends_a_row(separator: str) -> None:
    """Texts may hold what else ends a line, and files begin with a byte order mark."""
    row = {"a": f"x{separator}y", "b": "y", "same": 1}
    content = json.dumps(row, ensure_ascii=False)
    assert read_rows(b"\xef\xbb\xbf" + content.encode() + b"\r\n") == [row]


def test_no_rows_are_an_error() -> None:
    """An empty file measures nothing."""
    with pytest.raises(RowError, match="no rows"):
        read_rows(b"\n \n")


def test_pairs_of_equal_form_hit_and_those_past_the_window_do_not() -> None:
    """As in the tier: the first are served without asking, the second never read."""
    rows = [
        {"a": "Hello  world", "b": "Hello world", "same": 1, "source": None},
        {"a": "word " * 600, "b": "another", "same": 0, "kind": "\ud800"},
        {"a": "Prices in Oslo in 2023", "b": "Prices in Oslo in 2024", "same": 0},
    ]
    decision = Decision(verifier=Verifier.load(), threshold=0.0)
    found = list(judge(rows, decision, encoder()))
    assert [(pair.hit, pair.reason) for pair in found] == [
        (True, "equal form"),
        (False, "past the window"),
        (False, "conflict"),
    ]
    assert [(pair.source, pair.kind) for pair in found[:2]] == [("", ""), ("", "?")]
    assert report(found)["past_window"] == 1


def test_a_text_is_encoded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many rows it is in, near or far."""
    monkeypatch.setattr(evaluation, "_ROWS", 2)
    asked: list[str] = []

    class Counting:
        """The encoder, with a list of what it was asked."""

        def encode(self, texts: list[str]) -> list[Encoding | None]:
            asked.extend(texts)
            return encoder().encode(texts)

    rows = [{"a": "one fine text", "b": f"text {number}", "same": 0} for number in range(5)]
    rows.append({"a": "text 0", "b": "text 4", "same": 0})
    decision = Decision(verifier=Verifier.load(), threshold=None)
    assert len(list(judge(rows, decision, cast("Any", Counting())))) == 6
    assert sorted(asked) == ["one fine text", *(f"text {number}" for number in range(5))]
