"""The trainer: deterministic, and run by the product as scikit-learn runs it."""

import base64
import zlib

import numpy as np
import pytest
from sklearn.ensemble import HistGradientBoostingClassifier

from origin.semantic.verifier import FEATURES, Verifier
from tools.verifier.examples import Examples
from tools.verifier.model import fit, flattened, scores, written
from tools.verifier.train import fold_models, fold_of, out_of_fold
from tools.verifier.weights import token_weights

WEIGHTS = np.full(30, 200, dtype=np.uint8)


def made(pairs: int = 600) -> Examples:
    """Pairs whose label follows the cosine, with noise."""
    rng = np.random.default_rng(3)
    found = rng.uniform(-1, 1, size=(pairs, len(FEATURES)))
    return Examples(
        found=found,
        same=found[:, 0] + 0.3 * rng.normal(size=pairs) > 0,
        barred=rng.random(pairs) < 0.2,
        source=np.array(["synthetic", "real"] * (pairs // 2)),
        kind=np.array(["paraphrase"] * pairs),
        family=np.array([f"family {i % 7}" for i in range(pairs)]),
    )


def test_training_twice_gives_the_same_bytes() -> None:
    """Nothing is drawn anew."""
    one, other = (fit(made(), weights=WEIGHTS, encoder="e1") for _ in range(2))
    assert written(one) == written(other)


def test_the_flattened_trees_give_scikit_learns_log_odds() -> None:
    """To the last digits, on pairs not trained on."""
    taught, unseen = made(), np.random.default_rng(9).uniform(-1, 1, size=(200, len(FEATURES)))
    trees = HistGradientBoostingClassifier(max_iter=30, early_stopping=False, random_state=0)
    trees.fit(taught.found, taught.same)
    model = fit(taught, weights=WEIGHTS, encoder="e1") | {"trees": flattened(trees)}
    verifier = Verifier.from_json(written(model))
    ours = [verifier.trees.log_odds(row) for row in unseen]
    assert ours == pytest.approx(trees.decision_function(unseen), abs=1e-9)


def test_the_file_carries_the_tokens_weights() -> None:
    """As bytes, of 255."""
    model = fit(made(), weights=WEIGHTS, encoder="e1")
    assert zlib.decompress(base64.b64decode(model["weights"])) == WEIGHTS.tobytes()
    assert Verifier.from_json(written(model)).weights == pytest.approx(WEIGHTS / 255)


def test_barred_pairs_teach_nothing_and_score_nothing() -> None:
    """Their labels can be turned around without any change."""
    examples = made()
    turned = Examples(**(vars(examples) | {"same": examples.same ^ examples.barred}))
    model = fit(examples, weights=WEIGHTS, encoder="e1")
    assert written(model) == written(fit(turned, weights=WEIGHTS, encoder="e1"))
    found = scores(model, examples)
    assert (found[examples.barred] == 0).all()
    assert (found[~examples.barred] > 0).all()


def test_a_pair_is_scored_by_the_model_that_never_saw_its_fold() -> None:
    """Turning a fold's own labels around leaves its scores alone."""
    examples = made()
    fold = fold_of("family 0")
    own = np.array([fold_of(family) == fold for family in examples.family])
    turned = Examples(**(vars(examples) | {"same": examples.same ^ own}))
    one, other = (
        out_of_fold(each, fold_models(each, WEIGHTS, "e1")) for each in (examples, turned)
    )
    kept = [(a.score, b.score) for a, b in zip(one, other, strict=True) if a.group == fold]
    assert kept
    assert all(a == b for a, b in kept)


def test_every_fold_has_families() -> None:
    """Five of them, of any fifty families."""
    assert len({fold_of(f"family {i}") for i in range(50)}) == 5


def test_rare_tokens_weigh_more_than_common_and_function_words() -> None:
    """Punctuation and special tokens weigh nothing."""
    tokens = ["[PAD]", "[CLS]", "?", "##.", "the", "city", "zymurgy"]
    weights = token_weights({token: place for place, token in enumerate(tokens)})
    assert weights[:4].tolist() == [0, 0, 0, 0]
    assert 0 < weights[4] < weights[5] < weights[6]
