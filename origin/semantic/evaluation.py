"""How a decision does on labelled pairs, beside plain cosine: counts, rates, intervals."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from origin.semantic.decision import Decision, Reason
from origin.semantic.encoder import Encoder
from origin.semantic.intervals import interval
from origin.semantic.verifier import Reading
from shared.veto import read

COSINES: Final = tuple(hundredths / 100 for hundredths in range(80, 100))
_BATCH: Final = 256


@dataclass(frozen=True, kw_only=True)
class Judged:
    """One labelled pair and what was made of it. Past the window: similarity and score are 0."""

    a: str
    b: str
    same: bool
    source: str
    kind: str
    hit: bool
    similarity: float
    score: float
    reason: Reason | str


class RowError(ValueError):
    """A row that is no labelled pair; the message says which and why."""


def check_rows(rows: Iterable[Any]) -> list[dict[str, Any]]:
    """The rows as dictionaries with "a", "b" (texts) and "same" (0 or 1). Raises RowError."""
    checked = []
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, dict):
            raise RowError(f"row {number}: not an object")
        for name in ("a", "b"):
            if not isinstance(row.get(name), str):
                raise RowError(f'row {number}: "{name}" is no text')
        if row.get("same") not in (0, 1):
            raise RowError(f'row {number}: "same" is neither 0 nor 1')
        checked.append(row)
    return checked


def judge(rows: Sequence[Mapping[str, Any]], decision: Decision, encoder: Encoder) -> list[Judged]:
    """Decide every row. Blocking: about 2 ms a new text. Raises EncoderError."""
    texts = sorted({row[name] for row in rows for name in ("a", "b")})
    readings: dict[str, Reading | None] = {}
    for start in range(0, len(texts), _BATCH):
        batch = texts[start : start + _BATCH]
        for text, encoding in zip(batch, encoder.encode(batch), strict=True):
            readings[text] = None
            if encoding is not None:
                readings[text] = Reading(text=text, facts=read(text), encoding=encoding)
    return [_judged(row, readings, decision) for row in rows]


def report(judged: Sequence[Judged]) -> dict[str, Any]:
    """One object of numbers: the decision's, by source and kind, and the cosine's by threshold."""

    def by(name: Callable[[Judged], str]) -> dict[str, Any]:
        groups: dict[str, list[Judged]] = {}
        for pair in judged:
            groups.setdefault(name(pair), []).append(pair)
        return {group: decided(pairs) for group, pairs in sorted(groups.items()) if group}

    return {
        "decision": decided(judged),
        "by_source": by(lambda pair: pair.source),
        "by_kind": by(lambda pair: pair.kind),
        "cosine": {f"{cosine:.2f}": plain_cosine(judged, cosine) for cosine in COSINES},
        "cosine_by_source": {
            source: {
                f"{cosine:.2f}": plain_cosine(
                    [pair for pair in judged if pair.source == source], cosine
                )
                for cosine in COSINES
            }
            for source in sorted({pair.source for pair in judged} - {""})
        },
    }


def decided(judged: Sequence[Judged]) -> dict[str, Any]:
    """The numbers of the decision on some pairs."""
    return _numbers(judged, [pair.hit for pair in judged], [pair.score for pair in judged])


def plain_cosine(judged: Sequence[Judged], threshold: float) -> dict[str, Any]:
    """The numbers of a plain threshold on the cosine on some pairs."""
    similarities = [pair.similarity for pair in judged]
    return _numbers(judged, [each >= threshold for each in similarities], similarities)


def area_under_curve(scores: Sequence[float], same: Sequence[bool]) -> float | None:
    """How often a true pair scores above a false one, ties counted half; None without both."""
    wanted = np.array(same, dtype=bool)
    positives, negatives = int(wanted.sum()), int((~wanted).sum())
    if not positives or not negatives:
        return None
    values, inverse, counts = np.unique(np.array(scores), return_inverse=True, return_counts=True)
    ranks = np.cumsum(counts) - (counts - 1) / 2
    total = float(ranks[inverse[wanted]].sum()) if len(values) else 0.0
    return (total - positives * (positives + 1) / 2) / (positives * negatives)


def _judged(
    row: Mapping[str, Any], readings: Mapping[str, Reading | None], decision: Decision
) -> Judged:
    a, b = readings[row["a"]], readings[row["b"]]
    facts = {
        "a": row["a"],
        "b": row["b"],
        "same": bool(row["same"]),
        "source": str(row.get("source", "")),
        "kind": str(row.get("kind", "")),
    }
    if a is None or b is None:
        return Judged(**facts, hit=False, similarity=0.0, score=0.0, reason="too long")
    verdict = decision.decide(a, b)
    return Judged(
        **facts,
        hit=verdict.hit,
        similarity=verdict.similarity,
        score=verdict.score or 0.0,
        reason=verdict.reason,
    )


def _numbers(
    judged: Sequence[Judged], hits: Sequence[bool], scores: Sequence[float]
) -> dict[str, Any]:
    positives = sum(pair.same for pair in judged)
    negatives = len(judged) - positives
    true_hits = sum(hit and pair.same for hit, pair in zip(hits, judged, strict=True))
    false_hits = sum(hits) - true_hits
    return {
        "pairs": len(judged),
        "positives": positives,
        "negatives": negatives,
        "hits": true_hits + false_hits,
        "true_hits": true_hits,
        "false_hits": false_hits,
        "recall": _rate(true_hits, positives),
        "recall_interval": _interval(true_hits, positives),
        "false_hit_rate": _rate(false_hits, negatives),
        "false_hit_rate_interval": _interval(false_hits, negatives),
        "precision": _rate(true_hits, true_hits + false_hits),
        "auc": area_under_curve(scores, [pair.same for pair in judged]),
    }


def _rate(count: int, of: int) -> float | None:
    return count / of if of else None


def _interval(count: int, of: int) -> list[float] | None:
    return list(interval(count, of)) if of else None
