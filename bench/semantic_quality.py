"""Questions with known answers, and what is served to them; for `bench.semantic`.

`wordings` are the generator's that also made what taught the verifier, in another draw: they show
all sides the same, but flatter Encore. The pairs of `tools/verifier/data` taught nothing.
"""

from __future__ import annotations

import gzip
import json
import os
import random
import subprocess
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.results import Comparison, Result, Table
from origin.semantic.calibration import Calibration
from origin.semantic.decision import Decision
from origin.semantic.encoder import Encoder
from origin.semantic.evaluation import decided, judge, plain_cosine
from origin.semantic.verifier import Verifier
from tools.verifier.corpora import FOLDER
from tools.verifier.generate import Generator, rows

SEED = 2
GENERATED = 3
"""How many pairs are generated for each text that is wanted."""
BOUND = 0.01
GPTCACHE_COSINE = 0.60
"""What GPTCache's default decides: 0.8 of a squared distance of at most 4."""
COSINES = (GPTCACHE_COSINE, 0.80, 0.90, 0.95)


@dataclass(frozen=True, kw_only=True)
class Wordings:
    """Texts and what each asks, as a name: of half the questions another wording is an entry."""

    entries: list[str]
    questions: list[str]
    group: dict[str, str]

    def served(self, answers: Sequence[str | None]) -> tuple[int, int]:
        """(right, wrong) of what was served to the questions: an entry's text, or nothing."""
        right = [
            self.group[text] == self.group[question]
            for question, text in zip(self.questions, answers, strict=True)
            if text is not None
        ]
        return sum(right), len(right) - sum(right)

    def cells(self, name: str, answers: Sequence[str | None]) -> list[str]:
        """A row of the table of what was served."""
        right, wrong = self.served(answers)
        return [name, str(right), str(wrong)]


def wordings(entries: int, questions: int) -> Wordings:
    """At most so many entries, and so many questions."""
    groups: dict[str, set[str]] = defaultdict(set)
    for row in rows(Generator(seed=SEED).pairs(GENERATED * entries)):
        groups[str(row["group"])].add(str(row["a"]))
        if row["same"]:
            groups[str(row["group"])].add(str(row["b"]))
    chosen = [(name, sorted(texts)) for name, texts in groups.items() if len(texts) > 1]
    random.Random(SEED).shuffle(chosen)  # noqa: S311 - the same each time
    asked = [texts[0] for _, texts in chosen[:questions]]
    known = [texts[1] for _, texts in chosen[: questions // 2]]
    others = [text for _, texts in chosen[questions:] for text in texts]
    return Wordings(
        entries=(known + others)[:entries],
        questions=asked,
        group={text: name for name, texts in chosen for text in texts},
    )


def by_cosine(
    given: Wordings,
    entries: NDArray[np.float32],
    questions: NDArray[np.float32],
    threshold: float,
) -> list[str | None]:
    """What a plain threshold serves: the nearest entry, where it is near enough."""
    cosines = questions @ entries.T
    nearest = cosines.argmax(axis=1)
    return [
        given.entries[place] if row[place] >= threshold else None
        for place, row in zip(nearest, cosines, strict=True)
    ]


def asked_of_gptcache(
    program: Path, entries: NDArray[np.float32], questions: NDArray[np.float32]
) -> dict[str, Any]:
    """What `bench/gptcache_lookup.py` says; `program` is the Python of GPTCache's environment."""
    with tempfile.TemporaryDirectory(prefix="encore-bench-") as folder:
        vectors = Path(folder) / "vectors.npz"
        np.savez(vectors, entries=entries, queries=questions)
        script = Path(__file__).with_name("gptcache_lookup.py")
        environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": ""}
        output = subprocess.run(
            [str(program), str(script), str(vectors)],
            env=environment,
            stdout=subprocess.PIPE,
            check=True,
        ).stdout
    report: dict[str, Any] = json.loads(output.splitlines()[-1])
    return report


def held_out(encoder: Encoder, limit: int | None) -> Result:
    """Pairs of real text that taught nothing: the decision beside plain cosine."""
    decision = Decision.pair_level(Verifier.load(), Calibration.load(), BOUND)
    table_rows, comparisons = [], []
    for path in sorted(FOLDER.glob("*.jsonl.gz")):
        source = path.name.removesuffix(".jsonl.gz")
        lines = gzip.decompress(path.read_bytes()).splitlines()[:limit]
        judged = list(judge([json.loads(line) for line in lines], decision, encoder))
        ours, theirs = decided(judged), {each: plain_cosine(judged, each) for each in COSINES}
        for rate, of, name in (
            ("false_hit_rate", "negatives", "false hits"),
            ("recall", "positives", "recall"),
        ):
            if not ours[of]:
                continue
            cells = [f"{found[rate]:.1%}" for found in (ours, *theirs.values())]
            table_rows.append([f"{source}: {name} of {ours[of]:,}", *cells])
            comparisons.append(
                Comparison(
                    what=f"semantic match, {source}",
                    unit=f"{name}, %",
                    encore=100 * ours[rate],
                    beside=f"cosine {GPTCACHE_COSINE:.2f}, GPTCache's default",
                    other=100 * theirs[GPTCACHE_COSINE][rate],
                )
            )
    columns = ["pairs that taught nothing", f"Encore, bound {BOUND}"]
    columns += [f"cosine {each:.2f}" for each in COSINES]
    title = "How often semantic match is right: pairs"
    return Result(
        comparisons=comparisons, tables=[Table(title=title, columns=columns, rows=table_rows)]
    )
