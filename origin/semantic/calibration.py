"""Thresholds on the verifier's score, and how often a score at or above them was wrong.

Two measures, which differ by the base rate. End to end: of the answers served, how many were wrong,
`threshold(bound)`. Pair level: of the pairs that must not match, how many did, `pair_threshold`.
Both take the upper limit of a 95 % confidence, not the rate seen. All of it is an estimate for
questions like those measured, never a promise: 0 of n still allows 3/n.

A calibration is made of scores that its verifier gave to pairs it was not trained on.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final, NamedTuple, Self, TypeVar

from origin.semantic.intervals import lower_limit, upper_limit

FORMAT: Final = 1
DEFAULT_CALIBRATION: Final = Path(__file__).parent / "model" / "calibration.json"
_MIN_GROUP: Final = 400
"""Negatives that a group needs to speak for itself; smaller ones speak together."""
_ROWS: Final = 400
"""Rows of a stored table, at most."""


class CalibrationError(Exception):
    """A calibration that cannot be read, or pairs that cannot make one; the message says why."""


class Scored(NamedTuple):
    """One pair and its out-of-fold score. `group`: its source or family. Vetoed pairs score 0."""

    score: float
    same: bool
    group: str


class Step(NamedTuple):
    """What is served at `threshold` and above: how many, how many of them wrong, and the limit."""

    threshold: float
    served: int
    wrong: int
    upper: float


class PairStep(NamedTuple):
    """Pair level, at `threshold` and above.

    `upper`: the upper limit of the share of all false pairs that hits, or the `worst` group's own
    rate where that is larger.
    """

    threshold: float
    hits: int
    false_hits: int
    upper: float
    worst: str


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """Measured once, for one verifier on one encoder. Steps run from the highest threshold down.

    `base_rate`: the share of queries that had a true match. `queries` were searched in `entries`
    (0: estimated from pairs alone). `positives` and `negatives` count the pairs.
    """

    verifier: str
    encoder: str
    base_rate: float
    queries: int
    entries: int
    positives: int
    negatives: int
    steps: tuple[Step, ...]
    pair_steps: tuple[PairStep, ...]

    @classmethod
    def load(cls, path: Path = DEFAULT_CALIBRATION) -> Self:
        """Read a calibration. Raises CalibrationError."""
        try:
            return cls.from_json(path.read_bytes())
        except OSError as error:
            raise CalibrationError(f"{path} cannot be read: {error.strerror}") from error

    @classmethod
    def from_json(cls, content: bytes) -> Self:
        """As `load`, from the file's bytes."""
        try:
            found: dict[str, Any] = json.loads(content)
            if found.pop("format") != FORMAT:
                raise CalibrationError("the calibration is of another format")
            steps = tuple(Step(*step) for step in found.pop("steps"))
            pair_steps = tuple(PairStep(*step) for step in found.pop("pair_steps"))
            return cls(steps=steps, pair_steps=pair_steps, **found)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise CalibrationError(f"the calibration is damaged: {error!r}") from error

    def to_json(self) -> str:
        """What `from_json` reads."""
        return json.dumps({"format": FORMAT, **asdict(self)}, ensure_ascii=False) + "\n"

    @cached_property
    def version(self) -> str:
        """A digest of all of it, verifier and encoder included."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()[:12]

    def threshold(self, bound: float) -> float | None:
        """The lowest score with P(wrong | served) at most `bound`; None where none can be shown."""
        step = self._step(bound)
        return None if step is None else step.threshold

    def pair_threshold(self, bound: float) -> float | None:
        """The lowest score whose false-hit rate is at most `bound` in every group; None: none."""
        found = [step.threshold for step in self.pair_steps if step.upper <= bound]
        return min(found, default=None)

    def describe(self, bound: float) -> str:
        """In words: what is served at `bound`, and on what that rests."""
        how = (
            f"{self.queries:,} queries over {self.entries:,} entries"
            if self.entries
            else f"{self.positives + self.negatives:,} pairs"
        )
        on = f"{how}, base rate {self.base_rate:.0%}"
        step = self._step(bound)
        if step is None:
            best = min((step.upper for step in self.steps), default=1.0)
            return (
                f"Nothing is served: at most {bound:.2%} wrong cannot be shown by {on}; "
                f"the best that can is {best:.2%}. Measure more pairs, or allow more."
            )
        return (
            f"Estimate: at a score of {step.threshold:.4f} and above {step.wrong} of "
            f"{step.served:,} served were wrong, at most {step.upper:.2%} at 95 % confidence "
            f"(0 of n still allows 3/n; {on}). Other questions can do worse."
        )

    def describe_pairs(self, bound: float) -> str:
        """As `describe`, for the pair-level false-hit rate."""
        found = [step for step in self.pair_steps if step.upper <= bound]
        on = f"{self.positives:,} pairs that match and {self.negatives:,} that do not"
        if not found:
            best = min((step.upper for step in self.pair_steps), default=1.0)
            return (
                f"Nothing is matched: a pair-level false-hit rate of at most {bound:.2%} cannot be "
                f"shown by {on}; the best that can is {best:.2%}."
            )
        step = min(found, key=lambda step: step.threshold)
        return (
            f"Estimate: at a score of {step.threshold:.4f} and above {step.false_hits} false pairs "
            f"matched, at most {step.upper:.2%} of them at 95 % confidence and in the worst group "
            f"({step.worst}); {step.hits / max(1, self.positives):.0%} of the true ones ({on}). "
            "Other questions can do worse."
        )

    def _step(self, bound: float) -> Step | None:
        return next((step for step in reversed(self.steps) if step.upper <= bound), None)


def end_to_end_steps(outcomes: Iterable[tuple[float, bool]]) -> tuple[Step, ...]:
    """The steps of searched queries: the score of what each would be served, and if it is wrong.

    A query with no candidate that may be served is left out.
    """
    counts = []
    served = wrong = 0
    for threshold, batch in _falling(outcomes, key=lambda outcome: outcome[0]):
        served += len(batch)
        wrong += sum(is_wrong for _, is_wrong in batch)
        counts.append((threshold, served, wrong))
    return tuple(
        Step(threshold, served, wrong, upper_limit(wrong, served))
        for threshold, served, wrong in _thinned(counts)
    )


def pair_steps(pairs: Sequence[Scored]) -> tuple[PairStep, ...]:
    """The steps of pairs, each with the limit of all of them and the group that does worst."""
    sizes = Counter(pair.group for pair in pairs if not pair.same)
    groups = {name: name if size >= _MIN_GROUP else _OTHERS for name, size in sizes.items()}
    sizes_of = Counter(groups[pair.group] for pair in pairs if not pair.same)
    counts, hits = [], 0
    false: Counter[str] = Counter()
    for threshold, batch in _falling(pairs, key=lambda pair: pair.score):
        hits += sum(pair.same for pair in batch)
        false.update(groups[pair.group] for pair in batch if not pair.same)
        counts.append((threshold, hits, dict(false)))
    steps = []
    for threshold, hits, found in _thinned(counts):
        rates = [(found.get(group, 0) / size, group) for group, size in sizes_of.items()]
        rate, worst = max(rates, default=(1.0, ""))
        false_hits = sum(found.values())
        upper = max(rate, upper_limit(false_hits, sizes_of.total()))
        steps.append(PairStep(threshold, hits, false_hits, upper, worst))
    return tuple(steps)


def fit(pairs: Sequence[Scored], *, verifier: str, encoder: str, base_rate: float) -> Calibration:
    """A calibration of an operator's own pairs, without a search.

    P(wrong | served) is taken from the two rates and `base_rate`, as if each query without a true
    match met one of the false pairs: the false-hit rate's upper limit and the recall's lower.
    Raises CalibrationError where either kind is missing or the base rate is none.
    """
    positives = sum(pair.same for pair in pairs)
    negatives = len(pairs) - positives
    if not positives or not negatives:
        raise CalibrationError("a calibration needs pairs that match and pairs that do not")
    if not 0 < base_rate < 1:
        raise CalibrationError(f"the base rate is {base_rate}, not between 0 and 1")
    by_pair = pair_steps(pairs)
    steps = []
    for step in by_pair:
        right = base_rate * lower_limit(step.hits, positives)
        wrong = (1 - base_rate) * upper_limit(step.false_hits, negatives)
        upper = wrong / (right + wrong)
        steps.append(Step(step.threshold, step.hits + step.false_hits, step.false_hits, upper))
    return Calibration(
        verifier=verifier,
        encoder=encoder,
        base_rate=base_rate,
        queries=0,
        entries=0,
        positives=positives,
        negatives=negatives,
        steps=tuple(steps),
        pair_steps=by_pair,
    )


_T = TypeVar("_T")
_OTHERS: Final = "others"


def _falling(items: Iterable[_T], key: Callable[[_T], float]) -> Iterable[tuple[float, list[_T]]]:
    """The items by falling score, those of one score together; a score of 0 is never served."""
    batch: list[_T] = []
    for item in sorted(items, key=key, reverse=True):
        if key(item) <= 0:
            break
        if batch and key(item) != key(batch[0]):
            yield key(batch[0]), batch
            batch = []
        batch.append(item)
    if batch:
        yield key(batch[0]), batch


def _thinned(steps: list[_T]) -> list[_T]:
    """At most _ROWS of them, evenly; a step left out is served by none but the stricter one."""
    every = max(1, -(-len(steps) // _ROWS))
    return steps[::-1][::every][::-1]
