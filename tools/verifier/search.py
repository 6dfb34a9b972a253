"""The end-to-end measure: queries searched in an index of entries, then decided.

A stated share of the queries has a true match among the entries, in another wording; the others
come from questions that are not in the index, though many of its entries are much like them.
"""

import random
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from origin.semantic.decision import refusal
from origin.semantic.verifier import Reading
from tools.verifier.examples import Reader

ENTRIES: Final = 12_000
QUERIES: Final = 25_000
BASE_RATE: Final = 0.2
CONTRAST: Final = "!"
"""What names a group of texts with one word turned around has in it."""
_CANDIDATES: Final = 4
_BATCH: Final = 500


@dataclass(frozen=True, kw_only=True)
class Search:
    """Texts with the groups of wordings that ask the same."""

    entries: list[dict[str, Any]]
    queries: list[dict[str, Any]]

    def texts(self) -> list[str]:
        """All of them."""
        return [row["text"] for row in (*self.entries, *self.queries)]


def draw(rows: Sequence[dict[str, Any]], seed: int, distractors: frozenset[str]) -> Search:
    """Draw index and queries from rows {"text", "group", "template"}.

    `distractors`: templates whose texts are only searched among: two groups of real text may ask
    the same. Contrasts are left out: nobody asks most of them ("go in during the flour"), and two
    of a question may ask the same ("how do I stop …", "what should I do to stop …").
    """
    groups: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        if CONTRAST not in row["group"]:
            groups[row["group"]].append(row)
    rng = random.Random(seed)  # noqa: S311 - a draw, not a secret
    names = sorted(groups)
    rng.shuffle(names)
    asked = [name for name in names if groups[name][0]["template"] not in distractors]
    matched = [name for name in asked if len(groups[name]) > 1][: int(QUERIES * BASE_RATE)]
    known = set(matched)
    left = [name for name in names if name not in known]
    indexed = [*matched, *left[: ENTRIES - len(matched)]]
    free = set(asked) - set(indexed)
    others = [row for name in asked if name in free for row in groups[name]]
    entries, queries = [], []
    for name in indexed:
        first, *second = rng.sample(groups[name], min(2, len(groups[name])))
        entries.append(first)
        queries += second if name in known else []
    queries += rng.sample(others, min(len(others), QUERIES - len(matched)))
    return Search(entries=entries, queries=queries)


def outcomes(
    search: Search, reader: Reader, score: Callable[[dict[str, Any], Reading, Reading], float]
) -> list[tuple[float, bool]]:
    """Of each query that may be served at all: its score and whether that answer is wrong.

    `score` is given the query's row, for the model must not have been trained on its family.
    """
    entries = [(row, found) for row in search.entries if (found := reader[row["text"]])]
    queries = [(row, found) for row in search.queries if (found := reader[row["text"]])]
    index = np.stack([found.encoding.vector for _, found in entries])
    served = []
    for start in range(0, len(queries), _BATCH):
        batch = queries[start : start + _BATCH]
        similar = np.stack([found.encoding.vector for _, found in batch]) @ index.T
        nearest = np.argpartition(-similar, _CANDIDATES, axis=1)[:, :_CANDIDATES]
        for (row, query), places in zip(batch, nearest, strict=True):
            best = max(
                (
                    (score(row, query, entry), each["group"] != row["group"])
                    for each, entry in (entries[place] for place in places)
                    if refusal(query.facts, entry.facts, in_order=True) is None
                ),
                default=None,
            )
            if best is not None:
                served.append(best)
    return served
