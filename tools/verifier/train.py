"""Trains the verifier and calibrates it: writes the files of `origin/semantic/model`.

    python -m tools.verifier.train [--pairs FILE] [--entries FILE] [--out FOLDER]

The files are what `tools.verifier.generate` writes; without them they are generated. Deterministic
on one machine and one encoder. Only synthetic pairs teach. Every score in the calibration is out of
fold: the model that gave it never saw the pair's family of templates.
"""

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
import zlib
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from origin.semantic.calibration import Calibration, Scored, end_to_end_steps, pair_steps
from origin.semantic.encoder import Encoder
from origin.semantic.encoder_model import EncoderModel
from origin.semantic.verifier import DEFAULT_MODEL, Reading, Verifier, features
from tools.verifier import search
from tools.verifier.examples import Examples, Reader, examples, load_rows
from tools.verifier.model import fit, scores, written
from tools.verifier.weights import token_weights

FOLDS: Final = 5
SEED: Final = 1
SYNTHETIC: Final = "synthetic"
EASY: Final = ("topic", "random")
"""Kinds of false pairs that no bound should rest on: hardly any decision takes them."""
REAL: Final = frozenset({"banking77", "gptcache", "paws_wiki"})
"""Held out whole, to report on. Their labels are too noisy to bound one per cent: banking77's
intents split questions that one answer serves, PAWS counts small differences as none."""


def main() -> None:
    """Train, calibrate, write, and print what the folds showed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=Path)
    parser.add_argument("--entries", type=Path)
    parser.add_argument("--out", type=Path, default=DEFAULT_MODEL.parent)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        pairs = options.pairs or Path(folder) / "pairs.jsonl"
        entries = options.entries or Path(folder) / "entries.jsonl.gz"
        if not (options.pairs and options.entries):
            command = [sys.executable, "-m", "tools.verifier.generate", str(pairs)]
            command += ["--entries", str(entries), "--seed", str(SEED)]
            subprocess.run(command, check=True)  # noqa: S603 - our own module
        rows, entry_rows = load_rows(pairs), load_rows(entries)
    reader = Reader(Encoder.load())
    with threadpool_limits(1):  # sums in one order: the same file again
        model, calibration, real = train(rows, entry_rows, reader)
    options.out.mkdir(exist_ok=True)
    (options.out / "verifier.json").write_bytes(model)
    (options.out / "calibration.json").write_text(calibration.to_json(), encoding="utf-8")
    print(f"verifier {hashlib.sha256(model).hexdigest()}")  # noqa: T201 - a tool's output
    for bound in (0.005, 0.01, 0.02, 0.05):
        print(f"{bound}: {calibration.describe(bound)}")  # noqa: T201
        print(f"{bound}: {calibration.describe_pairs(bound)}")  # noqa: T201
        print(f"{bound}: {held_out(model, real, calibration.pair_threshold(bound))}")  # noqa: T201


def train(
    rows: list[dict[str, Any]], entry_rows: list[dict[str, Any]], reader: Reader
) -> tuple[bytes, Calibration, Examples]:
    """The model's file, its calibration, and the real pairs, which neither has seen.

    `rows` are pairs and `entry_rows` texts, as `generate` writes them.
    """
    weights = vocabulary_weights()
    every = examples(rows, reader, weights.astype(np.float32) / np.float32(255))
    made = every.source == SYNTHETIC
    found = every.of(made)
    drawn = search.draw(entry_rows, SEED, REAL)
    reader.read(drawn.texts())
    folds = fold_models(found, weights, reader.identity)
    model = written(fit(found, weights=weights, encoder=reader.identity))
    verifier = Verifier.from_json(model)
    pairs = out_of_fold(found.of(~np.isin(found.kind, EASY)), folds)
    by_fold = {name: Verifier.from_json(written(fold)) for name, fold in folds.items()}

    def score(row: dict[str, Any], query: Reading, entry: Reading) -> float:
        fold = by_fold[fold_of(row["template"])]
        return fold.score_features(features(query, entry, fold.weights))

    positives = sum(pair.same for pair in pairs)
    calibration = Calibration(
        verifier=verifier.version,
        encoder=verifier.encoder,
        base_rate=search.BASE_RATE,
        queries=len(drawn.queries),
        entries=len(drawn.entries),
        positives=positives,
        negatives=len(pairs) - positives,
        steps=end_to_end_steps(search.outcomes(drawn, reader, score)),
        pair_steps=pair_steps(pairs),
    )
    return model, calibration, every.of(~made)


def held_out(model: bytes, real: Examples, threshold: float | None) -> dict[str, str]:
    """Of each real source: true and false hits at a threshold, as the shipped model decides."""
    if threshold is None:
        return {}
    hits = scores(json.loads(model), real) >= threshold
    found = {}
    for source in np.unique(real.source):
        for same, label in ((True, "true"), (False, "false")):
            chosen = (real.source == source) & (real.same == same)
            found[f"{source} {label}"] = f"{hits[chosen].sum()}/{chosen.sum()}"
    return found


def vocabulary_weights() -> NDArray[np.uint8]:
    """Of the default encoder's tokens."""
    tokenizer = EncoderModel.find(None).folder / "tokenizer.json"
    return token_weights(json.loads(tokenizer.read_text(encoding="utf-8"))["model"]["vocab"])


def fold_of(family: str) -> str:
    """The fold of a family of templates: never split."""
    return f"fold {zlib.crc32(family.encode()) % FOLDS}"


def fold_models(
    found: Examples, weights: NDArray[np.uint8], encoder: str
) -> dict[str, dict[str, Any]]:
    """For each fold the model trained on all others."""
    names = _folds(found)
    return {
        str(name): fit(found.of(names != name), weights=weights, encoder=encoder)
        for name in np.unique(names)
    }


def out_of_fold(found: Examples, folds: dict[str, dict[str, Any]]) -> list[Scored]:
    """Each pair with the score of the model that never saw its fold."""
    names = _folds(found)
    scored = np.zeros(len(names))
    for name, model in folds.items():
        chosen = names == name
        scored[chosen] = scores(model, found.of(chosen))
    return [
        Scored(float(score), bool(same), str(name))
        for score, same, name in zip(scored, found.same, names, strict=True)
    ]


def _folds(found: Examples) -> NDArray[np.str_]:
    return np.array([fold_of(family) for family in found.family])


if __name__ == "__main__":
    main()
