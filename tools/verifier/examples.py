"""What the trainer reads: pairs of texts, each text read once, and their features in one matrix."""

import gzip
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from origin.semantic.decision import refusal
from origin.semantic.encoder import Encoder
from origin.semantic.verifier import FEATURES, Reading, features
from shared.veto import read

_BATCH = 512


@dataclass(frozen=True, kw_only=True, eq=False)
class Examples:
    """Pairs by column.

    `found`: float64 [pairs, F]; `same`, `barred` (never scored): bool [pairs]; `source`, `kind`,
    `family`: str [pairs].
    """

    found: NDArray[np.float64]
    same: NDArray[np.bool_]
    barred: NDArray[np.bool_]
    source: NDArray[np.str_]
    kind: NDArray[np.str_]
    family: NDArray[np.str_]

    def of(self, chosen: NDArray[np.bool_]) -> "Examples":
        """The chosen pairs; `chosen`: bool [pairs]."""
        return Examples(**{name: column[chosen] for name, column in vars(self).items()})


class Reader:
    """Reads texts once each, many in a batch."""

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        self.identity = encoder.identity
        self._readings: dict[str, Reading | None] = {}

    def read(self, texts: Iterable[str]) -> None:
        """Encode and read those not read yet."""
        new = sorted(set(texts) - self._readings.keys())
        for start in range(0, len(new), _BATCH):
            batch = new[start : start + _BATCH]
            for text, encoding in zip(batch, self._encoder.encode(batch), strict=True):
                self._readings[text] = None
                if encoding is not None:
                    self._readings[text] = Reading(text=text, facts=read(text), encoding=encoding)

    def __getitem__(self, text: str) -> Reading | None:
        """None where the text is past the encoder's window."""
        return self._readings[text]


def load_rows(path: Path) -> list[dict[str, Any]]:
    """Rows of a .jsonl or .jsonl.gz file."""
    content = path.read_bytes()
    text = (gzip.decompress(content) if path.suffix == ".gz" else content).decode()
    return [json.loads(line) for line in text.splitlines()]


def examples(
    rows: Sequence[dict[str, Any]], reader: Reader, weights: NDArray[np.float32]
) -> Examples:
    """The pairs of `rows`, without those past the window."""
    reader.read(text for row in rows for text in (row["a"], row["b"]))
    kept, found, objected = [], [], []
    for row in rows:
        a, b = reader[row["a"]], reader[row["b"]]
        if a is None or b is None:
            continue
        kept.append(row)
        found.append(features(a, b, weights))
        objected.append(refusal(a.facts, b.facts, in_order=False) is not None)
    return Examples(
        found=np.array(found).reshape(len(kept), len(FEATURES)),
        same=np.array([bool(row["same"]) for row in kept], dtype=np.bool_),
        barred=np.array(objected, dtype=np.bool_),
        source=np.array([str(row.get("source", "")) for row in kept]),
        kind=np.array([str(row.get("kind", "")) for row in kept]),
        family=np.array([str(row.get("template", row.get("source", ""))) for row in kept]),
    )
