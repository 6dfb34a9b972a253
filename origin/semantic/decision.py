"""The decision of semantic match: whether the answer to one text may be served for another.

Pure. The veto forbids, the verifier scores, the threshold decides; every verdict says why. Equal
normalised texts are decided before this, without any encoding.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Final, Literal, Self

from origin.semantic.calibration import Calibration
from origin.semantic.verifier import Reading, Verifier, agree, may_agree
from shared.veto import Facts, asks_nothing, conflicts
from shared.veto.facts import CODE, QUANTITY

MIN_CONTENT_WORDS: Final = 2
"""Below it a text ("hi", "continue", "yes please") says too little to be matched."""

_POINTERS: Final = frozenset({"this", "these", "below", "above", "following", "given", "attached"})
_WITHIN_REACH: Final = frozenset(
    {
        *("year", "month", "week", "weekend", "day", "morning", "afternoon", "evening", "time"),
        *("season", "spring", "summer", "autumn", "fall", "winter", "century", "decade", "moment"),
        *("world", "planet", "country", "age", "way", "kind", "sort", "type", "point"),
    }
)
"""What "this" may come before without pointing at anything: everyone's own, or nothing's."""

Reason = Literal[
    "too short",
    "points outside",
    "asks nothing",
    "another order",
    "conflict",
    "similarity",
    "no threshold",
    "score",
    "served",
]


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What was decided and why.

    `similarity`: the cosine of the two vectors. `score` is None where it was not needed: a hit is
    `score >= threshold`. `threshold` is None where the calibration cannot show the bound.
    """

    hit: bool
    similarity: float
    score: float | None
    threshold: float | None
    reason: Reason


@dataclass(frozen=True, kw_only=True)
class Decision:
    """A verifier with its threshold. May be called from any thread.

    With `in_order` texts that name what they share in another order are not matched, whatever the
    veto makes of it: of what is served too much would be "A for B" given for "B for A".
    """

    verifier: Verifier
    threshold: float | None
    in_order: bool = False

    @classmethod
    def end_to_end(cls, verifier: Verifier, calibration: Calibration, bound: float) -> Self:
        """Serve so that at most `bound` of what is served is wrong, as far as that can be shown.

        Raises ValueError where the calibration is of another verifier.
        """
        _check(verifier, calibration)
        return cls(verifier=verifier, threshold=calibration.threshold(bound), in_order=True)

    @classmethod
    def pair_level(cls, verifier: Verifier, calibration: Calibration, bound: float) -> Self:
        """Accept at most `bound` of the pairs that must not match. Raises ValueError, as above."""
        _check(verifier, calibration)
        return cls(verifier=verifier, threshold=calibration.pair_threshold(bound))

    def floor(self, a: Facts, b: Facts | None = None) -> float:
        """The cosine below which no text is served for `a`, or not `b`, whatever else it has.

        Above 1 where nothing is served. It spares candidates that no score can save.
        """
        if self.threshold is None:
            return 2.0
        wordings, facts = self._floors
        return facts if (may_agree(a) if b is None else agree(a, b)) else wordings

    @cached_property
    def _floors(self) -> tuple[float, float]:
        threshold = self.threshold or 0.0
        return (
            self.verifier.least_cosine(threshold),
            self.verifier.least_cosine(threshold, agreeing=True),
        )

    def decide(self, a: Reading, b: Reading, *, min_similarity: float = -1) -> Verdict:
        """Whether the answer to one may be served for the other. Symmetric.

        `min_similarity`: a cosine that the client demands besides; it only tightens.
        """
        # Of equal vectors float32 makes a little more than 1, which no entry may say of itself.
        similarity = min(1.0, float(a.encoding.vector @ b.encoding.vector))
        score: float | None = None
        reason: Reason | None = refusal(a.facts, b.facts, in_order=self.in_order)
        if reason is None and similarity < min_similarity:
            reason = "similarity"
        if reason is None:
            score = self.verifier.score(a, b)
            if self.threshold is None:
                reason = "no threshold"
            else:
                reason = "served" if score >= self.threshold else "score"
        return Verdict(
            hit=reason == "served",
            similarity=similarity,
            score=score,
            threshold=self.threshold,
            reason=reason,
        )


def refusal(a: Facts, b: Facts, *, in_order: bool) -> Reason | None:
    """Why two texts are not matched whatever their score; None where that decides. Symmetric.

    `in_order`: see `Decision`.
    """
    if is_too_short(a) or is_too_short(b):
        return "too short"
    if points_outside(a) or points_outside(b):
        return "points outside"
    if asks_nothing(a) or asks_nothing(b):
        return "asks nothing"
    if conflicts(a, b):
        return "conflict"
    if in_order and not keeps_order(a, b):
        return "another order"
    return None


def keeps_order(a: Facts, b: Facts) -> bool:
    """Whether the terms that both texts have come in one order."""
    one, other = ({term.key: None for term in each.terms} for each in (a, b))
    return [key for key in one if key in other] == [key for key in other if key in one]


def is_too_short(facts: Facts) -> bool:
    """Whether a text has too few content words to be matched at all."""
    return len({term.key for term in facts.terms}) < MIN_CONTENT_WORDS


def points_outside(facts: Facts) -> bool:
    """Whether a text asks about something that it does not carry ("solve this problem").

    Two such texts may mean two things, however alike. What follows a colon, a number or code is
    taken to be what it points at.
    """
    if facts.blocks or any(term.sort in {QUANTITY, CODE} for term in facts.terms):
        return False
    words = facts.plain
    for place, word in enumerate(words):
        if word == ":" and place < len(words) - 1:
            return False
        if word in _POINTERS and not _WITHIN_REACH.intersection(words[place + 1 : place + 2]):
            return ":" not in words[place:-1]
    return False


def is_unmatched(facts: Facts) -> bool:
    """Whether a text is never matched, whatever the other: such texts need no search either."""
    return is_too_short(facts) or points_outside(facts) or asks_nothing(facts)


def _check(verifier: Verifier, calibration: Calibration) -> None:
    if (calibration.verifier, calibration.encoder) != (verifier.version, verifier.encoder):
        raise ValueError(
            f"the calibration is of verifier {calibration.verifier} on {calibration.encoder}, "
            f"not of {verifier.version} on {verifier.encoder}"
        )
