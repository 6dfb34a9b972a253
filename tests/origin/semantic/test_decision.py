"""The decision: what forbids, what is scored, and the reason given."""

from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import pytest

from origin.semantic.calibration import Calibration
from origin.semantic.decision import Decision, is_too_short, is_unmatched, points_outside
from origin.semantic.encoder import Encoding
from origin.semantic.verifier import Reading, Verifier
from shared.envelope import SemanticSource
from shared.veto import read


@dataclass
class Scripted:
    """Stands for a verifier: gives the score it is told, and remembers that it was asked."""

    gives: float = 0.5
    version: str = "v1"
    encoder: str = "e1"
    asked: list[tuple[str, str]] = field(default_factory=list)

    def score(self, a: Reading, b: Reading) -> float:
        """The scripted score."""
        self.asked.append((a.text, b.text))
        return self.gives


def reading(text: str, *vector: float) -> Reading:
    """A text with a vector of two dimensions."""
    unit = np.array(vector or (1.0, 0.0), dtype=np.float32)
    encoding = Encoding(
        vector=unit,
        ids=np.zeros(1, dtype=np.int32),
        states=unit[None, :],
    )
    return Reading(text=text, facts=read(text), encoding=encoding)


def decision(verifier: Scripted, threshold: float | None) -> Decision:
    """A decision by the scripted score."""
    return Decision(verifier=cast("Verifier", verifier), threshold=threshold)


A = reading("How do I learn to play the guitar?")
B = reading("What is a good way to learn guitar playing?", 0.8, 0.6)


@pytest.mark.parametrize(("score", "reason"), [(0.7, "served"), (0.5, "served"), (0.49, "score")])
def test_the_score_decides_at_the_threshold(score: float, reason: str) -> None:
    """At the threshold is a hit."""
    verdict = decision(Scripted(score), 0.5).decide(A, B)
    assert (verdict.hit, verdict.reason) == (reason == "served", reason)
    assert (verdict.score, verdict.threshold) == (score, 0.5)
    assert verdict.similarity == pytest.approx(0.8)


def test_equal_vectors_are_a_source_that_an_entry_can_name() -> None:
    """However float32 rounds their product."""
    vectors = np.random.default_rng(1).normal(size=(100, 384)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    assert max(float(vector @ vector) for vector in vectors) > 1
    for vector in vectors:
        one, other = (reading(text, *vector) for text in (A.text, A.text.upper()))
        found = decision(Scripted(0.9), 0.5).decide(one, other).similarity
        source = SemanticSource(similarity=found, key="0" * 64, calibration="c")
        assert source.similarity == pytest.approx(1)


def test_a_conflict_forbids_whatever_the_score() -> None:
    """The verifier is not even asked."""
    verifier = Scripted(1.0)
    one, other = reading("What is 15% of 80 dollars?"), reading("What is 25% of 80 dollars?")
    verdict = decision(verifier, 0.5).decide(one, other)
    assert (verdict.hit, verdict.reason, verdict.score) == (False, "conflict", None)
    assert verifier.asked == []


@pytest.mark.parametrize("text", ["hi", "continue", "yes", "Yes, please!", "", "thanks", "why?"])
def test_texts_that_say_too_little_are_never_matched(text: str) -> None:
    """Not even with themselves."""
    verdict = decision(Scripted(1.0), 0.5).decide(reading(text), reading(text))
    assert (verdict.hit, verdict.reason) == (False, "too short")


@pytest.mark.parametrize(
    ("text", "outside"),
    [
        ("How do I solve this physics question?", True),
        ("What is wrong with the sentence below?", True),
        ("Which breed is this dog?", True),
        ("Analyze this property: main street, three rooms", False),
        ("What is the best phone this year?", False),
        ("How do I learn the guitar?", False),
        ("Explain this line: total = sum(x)", False),
    ],
)
def test_texts_that_point_outside_themselves_are_never_matched(text: str, *, outside: bool) -> None:
    """What they mean is not in them; what follows a colon is."""
    assert points_outside(read(text)) is outside
    verdict = decision(Scripted(1.0), 0.5).decide(reading(text), A)
    assert (verdict.reason == "points outside") is outside


def test_a_bare_statement_is_never_matched() -> None:
    """It asks nothing, so nothing answers it, not even for itself."""
    text = "The film was photographed by Rajiv Menon and edited by Sreekar Prasad."
    verdict = decision(Scripted(1.0), 0.5).decide(reading(text), reading(text))
    assert (verdict.hit, verdict.reason) == (False, "asks nothing")
    assert is_unmatched(read(text))
    assert not is_unmatched(read("Who photographed the film that Sreekar Prasad edited?"))


def test_without_a_threshold_nothing_is_served() -> None:
    """A bound that cannot be shown; the score is still told."""
    verdict = decision(Scripted(1.0), None).decide(A, B)
    assert (verdict.hit, verdict.reason, verdict.score) == (False, "no threshold", 1.0)


def test_a_client_only_tightens() -> None:
    """Its similarity is asked besides the score, never instead of it."""
    assert decision(Scripted(1.0), 0.5).decide(A, B, min_similarity=0.81).reason == "similarity"
    assert decision(Scripted(1.0), 0.5).decide(A, B, min_similarity=0.79).hit
    assert decision(Scripted(0.1), 0.5).decide(A, B, min_similarity=0.0).reason == "score"


def test_the_floor_is_the_verifiers_for_the_threshold() -> None:
    """Lower for what may agree in its specifics; above any cosine where nothing is served."""
    verifier = Verifier.load()
    home, same = read("12 Oak Street, 3 beds, $450,000"), read("12 Oak Street, 3 bed, $450k")
    some = Decision(verifier=verifier, threshold=0.9)
    wordings, facts = verifier.least_cosine(0.9), verifier.least_cosine(0.9, agreeing=True)
    assert some.floor(A.facts) == some.floor(home, A.facts) == wordings
    assert some.floor(home) == some.floor(home, same) == facts < wordings
    assert Decision(verifier=verifier, threshold=None).floor(A.facts) > 1


def test_two_content_words_are_enough() -> None:
    """The limit itself."""
    assert is_too_short(read("What is catnip?"))
    assert not is_too_short(read("Does catnip expire?"))


@pytest.mark.parametrize("make", [Decision.end_to_end, Decision.pair_level])
def test_a_calibration_of_another_verifier_is_refused(make: Any) -> None:
    """Scores of two verifiers are never mixed."""
    other = Calibration(
        verifier="v0",
        encoder="e1",
        base_rate=0.2,
        queries=0,
        entries=0,
        positives=1,
        negatives=1,
        steps=(),
        pair_steps=(),
    )
    with pytest.raises(ValueError, match="v0"):
        make(cast("Verifier", Scripted()), other, 0.01)
