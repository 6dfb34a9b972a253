"""The decision of semantic match: whether the answer to one text may be served for another.

Pure. The veto forbids, the verifier scores, the threshold decides; every verdict says why. Equal
normalised texts are decided before this, without any encoding.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, Self

from origin.semantic.calibration import Calibration
from origin.semantic.verifier import Reading, Verifier
from shared.veto import Conflict, Facts, asks_nothing, conflicts
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
    conflicts: tuple[Conflict, ...]
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

    def decide(self, a: Reading, b: Reading, *, min_similarity: float = -1) -> Verdict:
        """Whether the answer to one may be served for the other. Symmetric but for `conflicts`.

        `min_similarity`: a cosine that the client demands besides; it only tightens.
        """
        similarity = float(a.encoding.vector @ b.encoding.vector)
        found = conflicts(a.facts, b.facts)
        score: float | None = None
        reason: Reason
        if is_too_short(a.facts) or is_too_short(b.facts):
            reason = "too short"
        elif points_outside(a.facts) or points_outside(b.facts):
            reason = "points outside"
        elif asks_nothing(a.facts) or asks_nothing(b.facts):
            reason = "asks nothing"
        elif found:
            reason = "conflict"
        elif self.in_order and not keeps_order(a.facts, b.facts):
            reason = "another order"
        elif similarity < min_similarity:
            reason = "similarity"
        else:
            score = self.verifier.score(a, b)
            if self.threshold is None:
                reason = "no threshold"
            else:
                reason = "served" if score >= self.threshold else "score"
        return Verdict(
            hit=reason == "served",
            similarity=similarity,
            conflicts=found,
            score=score,
            threshold=self.threshold,
            reason=reason,
        )


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
