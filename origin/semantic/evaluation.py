"""How a decision does on labelled pairs, beside plain cosine: counts, rates, intervals."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Final, Literal

import numpy as np

from origin.semantic.decision import Decision, Reason
from origin.semantic.encoder import Encoder, Encoding
from origin.semantic.intervals import interval
from origin.semantic.verifier import Reading
from shared.normalisation import form
from shared.veto import read

COSINES: Final = tuple(hundredths / 100 for hundredths in range(80, 100))
_ROWS: Final = 1024
"""Rows whose texts are held in memory at once: a token's state takes 1.5 KB."""
_BATCH: Final = 128


@dataclass(frozen=True, kw_only=True)
class Judged:
    """One labelled pair and what was made of it.

    Past the window: similarity and score are 0. Of equal form: the score is 1, for the tier serves
    these without asking.
    """

    a: str
    b: str
    same: bool
    source: str
    kind: str
    hit: bool
    similarity: float
    score: float
    reason: Reason | Literal["equal form", "past the window"]


class RowError(ValueError):
    """A row that is no labelled pair; the message says which and why."""


def read_rows(content: bytes) -> list[dict[str, Any]]:
    """Lines of JSON, each an object with "a", "b" (texts) and "same" (0 or 1). Raises RowError.

    Empty lines are left out.
    """
    rows = []
    for number, line in enumerate(content.removeprefix(b"\xef\xbb\xbf").split(b"\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            why = getattr(error, "msg", str(error))  # without a line number of its own
            raise RowError(f"line {number} is no JSON: {why}") from error
        if not isinstance(row, dict):
            raise RowError(f"line {number} is no object")
        for name in ("a", "b"):
            if not isinstance(row.get(name), str):
                raise RowError(f'line {number}: "{name}" is missing or no text')
        if row.get("same") not in (0, 1):
            raise RowError(f'line {number}: "same" is neither 0 nor 1')
        rows.append(row)
    if not rows:
        raise RowError('there are no rows; write {"a": "…", "b": "…", "same": 0}, one a line')
    return rows


def judge(
    rows: Sequence[Mapping[str, Any]], decision: Decision, encoder: Encoder
) -> Iterator[Judged]:
    """Decide every row. Blocking: about 2 ms a new text, on every core. Raises EncoderError."""
    last_use = {row[name]: place for place, row in enumerate(rows) for name in ("a", "b")}
    readings: dict[str, Reading | None] = {}
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for start in range(0, len(rows), _ROWS):
            held = rows[start : start + _ROWS]
            new = {row[name] for row in held for name in ("a", "b")} - readings.keys()
            texts = sorted(new, key=lambda text: (len(text), text))  # of one length, of one run
            batches = [texts[first : first + _BATCH] for first in range(0, len(texts), _BATCH)]
            for batch, encodings in zip(batches, pool.map(encoder.encode, batches), strict=True):
                readings.update(zip(batch, map(_reading, batch, encodings), strict=True))
            yield from (_judged(row, readings, decision) for row in held)
            end = start + len(held)
            readings = {text: each for text, each in readings.items() if last_use[text] >= end}


def have_equal_form(a: str, b: str) -> bool:
    """Whether the tier serves the answer to one text for the other without asking the decision."""
    return bool(a.strip()) and form("text", a) == form("text", b)


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
        "past_window": sum(pair.reason == "past the window" for pair in judged),
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


def curve(scored: Sequence[tuple[float, bool]]) -> list[tuple[int, int]]:
    """Hits that are right and that are wrong, at each score as the threshold, from the highest.

    A score of 0 is no threshold: what a veto forbids is never served.
    """
    found = []
    right = wrong = 0
    for _, group in groupby(sorted(scored, reverse=True), key=lambda each: each[0]):
        pairs = list(group)
        if pairs[0][0] <= 0:
            break
        right += sum(same for _, same in pairs)
        wrong += sum(not same for _, same in pairs)
        found.append((right, wrong))
    return found


def _reading(text: str, encoding: Encoding | None) -> Reading | None:
    return None if encoding is None else Reading(text=text, facts=read(text), encoding=encoding)


def _judged(
    row: Mapping[str, Any], readings: Mapping[str, Reading | None], decision: Decision
) -> Judged:
    a, b = readings[row["a"]], readings[row["b"]]
    equal = have_equal_form(row["a"], row["b"])
    hit, similarity, score = equal, 0.0, float(equal)
    reason: Reason | Literal["equal form", "past the window"] = "equal form"
    if a is not None and b is not None:
        verdict = decision.decide(a, b)
        similarity = verdict.similarity
        if not equal:
            hit, score, reason = verdict.hit, verdict.score or 0.0, verdict.reason
    elif not equal:
        reason = "past the window"
    return Judged(
        a=row["a"],
        b=row["b"],
        same=bool(row["same"]),
        source=_label(row.get("source")),
        kind=_label(row.get("kind")),
        hit=hit,
        similarity=similarity,
        score=score,
        reason=reason,
    )


def _label(value: Any) -> str:
    """A group's name as it can be printed, whatever the row has."""
    return "" if value is None else str(value).encode(errors="replace").decode()


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
