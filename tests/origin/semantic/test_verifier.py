"""The verifier: features of pairs, the trees as scikit-learn runs them, and the shipped model."""

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from origin.semantic.calibration import Calibration
from origin.semantic.encoder import Encoding
from origin.semantic.verifier import (
    DEFAULT_MODEL,
    FEATURES,
    Reading,
    Verifier,
    VerifierError,
    agree,
    features,
    may_agree,
)
from shared.veto import read

DIMS = 8
WEIGHTS = np.array([0.0, 0.2, 0.2, *([0.8] * 17)], dtype=np.float32)


def reading(ids: list[int]) -> Reading:
    """A text of these tokens, each with a state of its own that its place bends a little."""
    rng = np.random.default_rng(5)
    table = rng.normal(size=(len(WEIGHTS), DIMS))
    states = np.array([table[token] + 0.1 * place for place, token in enumerate(ids)])
    states = states.reshape(len(ids), DIMS).astype(np.float32)
    vector = states.sum(axis=0) + np.float32(1e-3)
    return Reading(
        text=" ".join(map(str, ids)),
        facts=read(""),
        encoding=Encoding(
            vector=(vector / np.linalg.norm(vector)).astype(np.float32),
            ids=np.array(ids, dtype=np.int32),
            states=states,
        ),
    )


def named(a: list[int], b: list[int]) -> dict[str, float]:
    """The features of two texts by name."""
    return dict(zip(FEATURES, features(reading(a), reading(b), WEIGHTS), strict=True))


TOKENS = st.lists(st.integers(0, len(WEIGHTS) - 1), max_size=12)


@given(TOKENS, TOKENS)
def test_features_are_finite_and_the_same_for_swapped_texts(a: list[int], b: list[int]) -> None:
    """Whatever the tokens, none included."""
    one = features(reading(a), reading(b), WEIGHTS)
    other = features(reading(b), reading(a), WEIGHTS)
    assert one.shape == (len(FEATURES),)
    assert np.isfinite(one).all()
    assert one == pytest.approx(other, abs=1e-5)


def test_a_text_beside_itself_differs_in_nothing() -> None:
    """All shared, in order, nothing alone."""
    found = named([1, 4, 5, 6], [1, 4, 5, 6])
    for name in ("cosine", "differing_cosine", "overlap", "bigrams", "order", "weakest_low"):
        assert found[name] == pytest.approx(1, abs=1e-5)
    assert (found["inversions"], found["alone_high"]) == (0, 0)


def test_a_word_on_one_side_only_is_alone() -> None:
    """One text has more: the smaller of the two weights is 0, the larger the word's."""
    found = named([1, 4, 5], [1, 4, 5, 6])
    assert (found["alone_low"], found["differing_cosine"]) == (0, -1)
    assert found["alone_high"] == pytest.approx(0.8)


def test_swapped_words_show_in_the_order_alone() -> None:
    """The same words: full overlap, fewer pairs in a row."""
    found = named([4, 5, 6, 7], [6, 5, 4, 7])
    assert found["overlap"] == pytest.approx(1)
    assert found["bigrams"] < 1
    assert found["order"] == pytest.approx(0.5)


@given(TOKENS, TOKENS)
def test_the_common_subsequence_is_the_textbooks(a: list[int], b: list[int]) -> None:
    """Bit by bit against the quadratic table."""
    x, y = [token for token in a if token], [token for token in b if token]
    if not x or not y:
        return
    table = [[0] * (len(y) + 1) for _ in range(len(x) + 1)]
    for i, one in enumerate(x):
        for j, other in enumerate(y):
            longer = max(table[i][j + 1], table[i + 1][j])
            table[i + 1][j + 1] = table[i][j] + 1 if one == other else longer
    assert named(a, b)["order"] == pytest.approx(2 * table[-1][-1] / (len(x) + len(y)))


@pytest.mark.parametrize(
    "change",
    [
        {"format": 2},
        {"features": ["cosine"]},
        {"weights": "!"},
        {"trees": {}},
        {"slope": "steep"},
    ],
)
def test_a_model_that_does_not_fit_the_code_is_refused(change: dict[str, Any]) -> None:
    """Format, features and damage."""
    model = json.loads(DEFAULT_MODEL.read_bytes()) | change
    with pytest.raises(VerifierError):
        Verifier.from_json(json.dumps(model).encode())


def test_the_shipped_model_fits_the_code_and_its_calibration() -> None:
    """Features by name, and one version in both files."""
    verifier, calibration = Verifier.load(), Calibration.load()
    assert (calibration.verifier, calibration.encoder) == (verifier.version, verifier.encoder)
    assert calibration.pair_threshold(0.01) is not None
    assert calibration.entries >= 10_000


def test_the_shipped_models_score_rises_with_the_cosine() -> None:
    """All else equal: nothing the trees learned turns that around."""
    verifier = Verifier.load()
    rng = np.random.default_rng(1)
    for row in rng.uniform(0, 1, size=(50, len(FEATURES))):
        rising = [_score(verifier, row, cosine) for cosine in np.linspace(0, 1, 21)]
        assert rising == sorted(rising)


@pytest.mark.parametrize("agreeing", [False, True])
def test_no_features_below_the_least_cosine_have_the_score(*, agreeing: bool) -> None:
    """Not the best of many, nor what follows each tree to its best leaf."""
    verifier = Verifier.load()
    rng = np.random.default_rng(2)
    rows = rng.uniform(-1, 2, size=(500, len(FEATURES)))
    rows[:, FEATURES.index("shared_specifics")] = 4 if agreeing else 3
    rows[:, FEATURES.index("terms_alone_high")] = 0
    for row in rows:
        score = verifier.score_features(row)
        assert verifier.least_cosine(score, agreeing=agreeing) <= max(-1.0, row[0])


def test_the_least_cosine_is_that_of_the_best_leaves() -> None:
    """Of one tree that turns on the cosine: 2 at most."""
    model = json.loads(DEFAULT_MODEL.read_bytes()) | {
        "slope": 10.0,
        "intercept": -8.0,
        "share": 0.5,
        "agreement": 3.0,
        "trees": {
            "roots": [0],
            "feature": [0, 0, 0],
            "threshold": [0.5, 0.0, 0.0],
            "left": [1, 1, 2],
            "right": [2, 1, 2],
            "value": [9.0, -2.0, 2.0],
            "bias": 0.0,
            "depth": 1,
        },
    }
    verifier = Verifier.from_json(json.dumps(model).encode())
    assert verifier.least_cosine(0.5) == pytest.approx(0.7, abs=1e-4)
    assert verifier.least_cosine(0.5, agreeing=True) == pytest.approx(0.4, abs=1e-4)
    assert verifier.least_cosine(0.0) == -1
    assert verifier.least_cosine(1.0) > 2


@pytest.mark.parametrize(
    ("a", "b", "found"),
    [
        ("12 Oak Street, $450,000, 3 bedrooms", "Oak Street 12: 3 bedrooms, $450,000", False),
        ("12 Oak Street, 3 bedrooms, $450,000", "12 Oak Street, 3 bed, asking $450k", True),
        ("12 Oak Street, 3 bedrooms, $450,000", "12 Oak Street, 3 bed, $450k, garden", False),
        ("A house in Oak Street, 3 bedrooms", "Oak Street: a house, 3 bed", False),
    ],
)
def test_texts_agree_by_their_specifics(a: str, b: str, *, found: bool) -> None:
    """Many, in one order, and nothing else; whoever may not, never does."""
    assert agree(read(a), read(b)) is found
    assert may_agree(read(a)) or not found


def _score(verifier: Verifier, row: NDArray[np.float64], cosine: float) -> float:
    changed = row.copy()
    changed[0] = cosine
    return verifier.score_features(changed)
