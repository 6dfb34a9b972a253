"""Fits the verifier's model and writes it as `origin.semantic.verifier` reads it."""

import base64
import json
import zlib
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression

from origin.semantic.verifier import FEATURES, FORMAT, Verifier
from tools.verifier.examples import Examples

SHARE: Final = 0.1
"""Of the trees' log-odds in the score. Small, and chosen with sight of the development pairs: the
encoder's cosine was trained on far more pairs than ours and carries over to other domains better
than the trees do."""
AGREEMENT: Final = 7.0
"""Log-odds of texts that share four specifics or more and differ in no content term."""
_SIGNS: Final = {
    "cosine": 1,
    "differing_cosine": 1,
    "differing_content_cosine": 1,
    "overlap": -1,  # at one cosine, more shared words mean that less of the likeness is meaning
    "bigrams": -1,
    "weakest_low": 1,
    "weakest_high": 1,
    "second_low": 1,
    "second_high": 1,
}


def fit(
    examples: Examples, *, weights: NDArray[np.uint8], encoder: str, share: float = SHARE
) -> dict[str, Any]:
    """A model file's content. Deterministic. Vetoed pairs teach nothing: they are never scored."""
    taught = examples.of(~examples.barred)
    cosine = LogisticRegression(C=100.0).fit(taught.found[:, :1], taught.same)
    trees = HistGradientBoostingClassifier(
        learning_rate=0.05,
        max_iter=150,
        max_leaf_nodes=8,
        min_samples_leaf=50,
        monotonic_cst=[_SIGNS.get(name, 0) for name in FEATURES],
        early_stopping=False,
        random_state=0,
    ).fit(taught.found, taught.same)
    return {
        "format": FORMAT,
        "encoder": encoder,
        "features": list(FEATURES),
        "slope": float(cosine.coef_[0, 0]),
        "intercept": float(cosine.intercept_[0]),
        "share": share,
        "agreement": AGREEMENT,
        "weights": base64.b64encode(zlib.compress(weights.tobytes(), 9)).decode(),
        "trees": flattened(trees),
    }


def flattened(trees: Any) -> dict[str, Any]:
    """The trees of a HistGradientBoostingClassifier, as `Trees` keeps them."""
    flat: dict[str, list[Any]] = {
        name: [] for name in ("roots", "feature", "threshold", "left", "right", "value")
    }
    depth = 0
    for (tree,) in trees._predictors:  # noqa: SLF001 - the only way to what was fitted
        first = len(flat["feature"])
        flat["roots"].append(first)
        for place, node in enumerate(tree.nodes):
            leaf = bool(node["is_leaf"])
            depth = max(depth, int(node["depth"]))
            flat["feature"].append(0 if leaf else int(node["feature_idx"]))
            flat["threshold"].append(0.0 if leaf else float(node["num_threshold"]))
            flat["left"].append(first + (place if leaf else int(node["left"])))
            flat["right"].append(first + (place if leaf else int(node["right"])))
            flat["value"].append(float(node["value"]) if leaf else 0.0)
    bias = float(np.ravel(trees._baseline_prediction)[0])  # noqa: SLF001
    return {**flat, "bias": bias, "depth": depth}


def written(model: dict[str, Any]) -> bytes:
    """The file: the same bytes for the same model."""
    return (json.dumps(model, separators=(",", ":")) + "\n").encode()


def scores(model: dict[str, Any], examples: Examples) -> NDArray[np.float64]:
    """The verifier's score of each pair, [pairs]; 0 where the veto or the length bars it."""
    verifier = Verifier.from_json(written(model))
    found = [verifier.score_features(row) for row in examples.found]
    return np.where(examples.barred, 0.0, found)
