"""The verifier: how likely two texts ask for the same answer, from what the encoder saw of both.

A cosine alone rewards shared words: a near-miss shares more of them than a paraphrase does. So the
score is the cosine's own log-odds plus a correction by small boosted trees over how the tokens of
the two texts align. `tools/verifier` trains it; here it is read and run, with numpy only. Knows
neither thresholds (`calibration`) nor what a conflict forbids (`shared.veto`).

Invariants
1. `score(a, b) == score(b, a)`: every feature is the same for swapped texts.
2. A model is of one encoder, precision included, and of one list of features; another is refused.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
import zlib
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

import numpy as np

from shared.veto import Facts
from shared.veto.facts import CODE, NAME, QUANTITY

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from origin.semantic.encoder import Encoding

FORMAT: Final = 1
DEFAULT_MODEL: Final = Path(__file__).parent / "model" / "verifier.json"
FEATURES: Final = (
    "cosine",  # of the two vectors
    "differing_cosine",  # of the mean states of the tokens that the other text lacks; -1: one side
    "differing_content_cosine",  # the same, of content tokens
    "overlap",  # weight of the shared tokens, of all tokens' weight
    "bigrams",  # share of token pairs in a row that both have (Dice)
    "order",  # longest common subsequence of tokens, of their mean number
    "inversions",  # how often the best alignment steps back
    "weakest_low",  # per text the content token with the worst best match: the worse text's
    "weakest_high",
    "second_low",  # and the second-worst
    "second_high",
    "aligned_low",  # weighted mean of the best matches: the worse text's
    "aligned_high",
    "alone_low",  # weight of the content tokens that the other text lacks: the smaller
    "alone_high",
    "shared_specifics",  # numbers, names and code that both texts have, at most _MAX_SPECIFICS
    "shared_terms",  # content terms in the veto's one spelling that both have (Jaccard)
    "terms_alone_low",  # how many of them the other text lacks: the smaller number
    "terms_alone_high",
)
_SPECIFICS: Final = FEATURES.index("shared_specifics")
_ALONE: Final = FEATURES.index("terms_alone_high")
_MAX_SPECIFICS: Final = 4
_CONTENT_WEIGHT: Final = 0.3
"""From this weight on a token is content. Function words weigh less, punctuation nothing."""
_SPECIFIC: Final = frozenset({QUANTITY, NAME, CODE})
_SAID_BY_NUMBERS: Final = frozenset({"price", "ask", "cost", "list", "property"})
"""What an amount, rooms or an address beside them say already."""
_TINY: Final = 1e-9
_SURE: Final = 1 - 1e-9
"""Above it a score says little of the log-odds: too few digits are left."""
_ROUNDING: Final = 1e-5
"""Of a cosine, whoever adds it up, and of scores."""


class VerifierError(Exception):
    """A model file that this code cannot run; the message says why."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Reading:
    """One text, read once: what the veto and what the encoder found in it."""

    text: str
    facts: Facts
    encoding: Encoding


@dataclass(frozen=True, kw_only=True, eq=False)
class Trees:
    """Boosted trees over the features, all nodes in one row of arrays, each of shape [nodes].

    From node i go to `left[i]` where `feature[i] <= threshold[i]`, else to `right[i]`. A leaf leads
    to itself. `roots`: [trees]. The log-odds are `bias` and the `value` of each tree's leaf.
    """

    roots: NDArray[np.int32]
    feature: NDArray[np.int32]
    threshold: NDArray[np.float64]
    left: NDArray[np.int32]
    right: NDArray[np.int32]
    value: NDArray[np.float64]
    bias: float
    depth: int

    def log_odds(self, features: NDArray[np.float64]) -> float:
        """`features`: [F]."""
        nodes = self.roots
        for _ in range(self.depth):
            below = features[self.feature[nodes]] <= self.threshold[nodes]
            nodes = np.where(below, self.left[nodes], self.right[nodes])
        return self.bias + float(self.value[nodes].sum())

    @cached_property
    def most(self) -> float:
        """No features have more log-odds than this."""
        own = np.arange(len(self.left))
        best = np.where(self.left == own, self.value, -np.inf)
        for _ in range(self.depth):
            best = np.maximum(best[self.left], best[self.right])
        return self.bias + float(best[self.roots].sum())


@dataclass(frozen=True, kw_only=True, eq=False)
class Verifier:
    """A trained model. May be called from any thread.

    `encoder`: the identity of the encoder whose encodings it reads. `weights`: float32
    [vocabulary], how much a token says, 0 to 1. `version`: a digest of the model. The score is the
    sigmoid of `slope * cosine + intercept + share * trees`, and of `agreement` more where the two
    texts share many specifics and neither has a content term that the other lacks: the wording
    matters little.
    """

    encoder: str
    version: str
    weights: NDArray[np.float32]
    slope: float
    intercept: float
    share: float
    agreement: float
    trees: Trees

    @classmethod
    def load(cls, path: Path = DEFAULT_MODEL) -> Self:
        """Read a model file. Raises VerifierError where it is none of this code's."""
        try:
            return cls.from_json(path.read_bytes())
        except OSError as error:
            raise VerifierError(f"{path} cannot be read: {error.strerror}") from error

    @classmethod
    def from_json(cls, content: bytes) -> Self:
        """As `load`, from the file's bytes."""
        try:
            model: dict[str, Any] = json.loads(content)
            if (model["format"], tuple(model["features"])) != (FORMAT, FEATURES):
                raise VerifierError("the verifier's model is of another format or other features")
            packed = zlib.decompress(base64.b64decode(model["weights"]))
            trees = model["trees"]
            return cls(
                encoder=str(model["encoder"]),
                version=hashlib.sha256(content).hexdigest()[:12],
                weights=np.frombuffer(packed, dtype=np.uint8).astype(np.float32) / np.float32(255),
                slope=float(model["slope"]),
                intercept=float(model["intercept"]),
                share=float(model["share"]),
                agreement=float(model["agreement"]),
                trees=Trees(
                    roots=np.array(trees["roots"], dtype=np.int32),
                    feature=np.array(trees["feature"], dtype=np.int32),
                    threshold=np.array(trees["threshold"], dtype=np.float64),
                    left=np.array(trees["left"], dtype=np.int32),
                    right=np.array(trees["right"], dtype=np.int32),
                    value=np.array(trees["value"], dtype=np.float64),
                    bias=float(trees["bias"]),
                    depth=int(trees["depth"]),
                ),
            )
        except (ValueError, KeyError, TypeError, zlib.error) as error:
            raise VerifierError(f"the verifier's model is damaged: {error!r}") from error

    def score(self, a: Reading, b: Reading) -> float:
        """How likely the answer to one fits the other, 0 to 1; a rank, not a probability."""
        return self.score_features(features(a, b, self.weights))

    def score_features(self, found: NDArray[np.float64]) -> float:
        """The score of features, float64 [F], as `features` gives them."""
        log_odds = self.slope * float(found[0]) + self.intercept
        log_odds += self.share * self.trees.log_odds(found)
        if found[_SPECIFICS] >= _MAX_SPECIFICS and not found[_ALONE]:
            log_odds += self.agreement
        return 1 / (1 + math.exp(-log_odds)) if log_odds > -700 else 0.0

    def least_cosine(self, score: float, *, agreeing: bool = False) -> float:
        """No two texts with a lower cosine have `score`, 0 to 1; of those that `agree`, or not.

        -1 where that cannot be said.
        """
        if self.slope <= 0 or self.share < 0 or score <= 0:
            return -1.0
        score = min(score, _SURE)
        log_odds = math.log(score / (1 - score)) - self.intercept - self.share * self.trees.most
        if agreeing:
            log_odds -= self.agreement
        return max(-1.0, log_odds / self.slope - _ROUNDING)


def features(a: Reading, b: Reading, weights: NDArray[np.float32]) -> NDArray[np.float64]:
    """How the two texts compare: float64 [F], in the order of FEATURES. About 0.15 ms."""
    x, y = _Tokens(a.encoding, weights), _Tokens(b.encoding, weights)
    cosine = float(a.encoding.vector @ b.encoding.vector)
    if not len(x.ids) or not len(y.ids):
        return np.array([cosine] + [0.0] * (len(FEATURES) - 5) + _terms(a.facts, b.facts))
    similar = x.unit @ y.unit.T
    equal = x.ids[:, None] == y.ids[None, :]
    x_alone, y_alone = ~equal.any(axis=1), ~equal.any(axis=0)
    weakest = [_weakest(similar.max(axis=1), x), _weakest(similar.max(axis=0), y)]
    aligned = [_mean(similar.max(axis=1), x), _mean(similar.max(axis=0), y)]
    alone = [float(x.weights @ (x_alone & x.content)), float(y.weights @ (y_alone & y.content))]
    shared = float(x.weights @ ~x_alone + y.weights @ ~y_alone)
    return np.array(
        [
            cosine,
            _between(x.states[x_alone], y.states[y_alone]),
            _between(x.states[x_alone & x.content], y.states[y_alone & y.content]),
            shared / (float(x.weights.sum() + y.weights.sum()) + _TINY),
            _bigrams(x.ids.tolist(), y.ids.tolist()),
            _common_subsequence(x.ids.tolist(), y.ids.tolist()),
            _inversions(similar),
            min(weakest[0][0], weakest[1][0]),
            max(weakest[0][0], weakest[1][0]),
            min(weakest[0][1], weakest[1][1]),
            max(weakest[0][1], weakest[1][1]),
            min(aligned),
            max(aligned),
            min(alone),
            max(alone),
            *_terms(a.facts, b.facts),
        ]
    )


def agree(a: Facts, b: Facts) -> bool:
    """Whether two texts share many specifics and nothing is alone: the wording matters little."""
    specifics, _, _, alone = _terms(a, b)
    return specifics >= _MAX_SPECIFICS and not alone


def may_agree(a: Facts) -> bool:
    """Whether a text has specifics enough to `agree` with any."""
    return len({term.key for term in a.terms if term.sort in _SPECIFIC}) >= _MAX_SPECIFICS


def _terms(a: Facts, b: Facts) -> list[float]:
    """The last four features."""
    x, y = ({term.key for term in each.terms} - _SAID_BY_NUMBERS for each in (a, b))
    alone = (len(x - y), len(y - x))
    one, other = (
        [t.key for t in each.terms if t.sort in _SPECIFIC and t.key in keys]
        for each, keys in ((a, y), (b, x))
    )
    # In another order, or told of more often, they may not agree at all.
    most = _MAX_SPECIFICS if one == other else _MAX_SPECIFICS - 1
    shared = len(x & y) / max(1, len(x | y))
    return [float(min(len(set(one)), most)), shared, float(min(alone)), float(max(alone))]


class _Tokens:
    """The tokens of a text that weigh anything. Shapes [n], states [n, dims]."""

    def __init__(self, encoding: Encoding, weights: NDArray[np.float32]) -> None:
        found = weights[encoding.ids]
        kept = found > 0
        self.ids = encoding.ids[kept]
        self.weights = found[kept]
        self.states = encoding.states[kept]

    @cached_property
    def unit(self) -> NDArray[np.float32]:
        """The states at unit length."""
        lengths = np.sqrt(np.einsum("nd,nd->n", self.states, self.states)) + _TINY
        unit: NDArray[np.float32] = self.states / lengths[:, None]
        return unit

    @cached_property
    def content(self) -> NDArray[np.bool_]:
        """Which are content; all, where none is."""
        content = self.weights >= _CONTENT_WEIGHT
        return content if content.any() else np.ones_like(content)


def _between(x: NDArray[np.float32], y: NDArray[np.float32]) -> float:
    """The cosine of the mean states; 1 where neither side has any, -1 where one has none."""
    if not len(x) or not len(y):
        return 1.0 if len(x) == len(y) else -1.0
    u, v = x.mean(axis=0), y.mean(axis=0)
    return float(u @ v / math.sqrt(float(u @ u) * float(v @ v) + _TINY))


def _weakest(best: NDArray[np.float32], tokens: _Tokens) -> tuple[float, float]:
    """The worst and the second-worst best match of content tokens."""
    lowest = np.sort(best[tokens.content])[:2]
    return float(lowest[0]), float(lowest[-1])


def _mean(best: NDArray[np.float32], tokens: _Tokens) -> float:
    return float(best @ tokens.weights / (tokens.weights.sum() + _TINY))


def _bigrams(x: list[int], y: list[int]) -> float:
    first, second = set(pairwise(x)), set(pairwise(y))
    return 2 * len(first & second) / max(1, len(first) + len(second))


def _common_subsequence(x: list[int], y: list[int]) -> float:
    """Its length, of the texts' mean length. Bit-parallel (Hyyrö 2004): a word a row."""
    places: dict[int, int] = {}
    for index, token in enumerate(x):
        places[token] = places.get(token, 0) | 1 << index
    full = (1 << len(x)) - 1
    row = full
    for token in y:
        matched = row & places.get(token, 0)
        row = ((row + matched) | (row - matched)) & full
    return 2 * (len(x) - row.bit_count()) / (len(x) + len(y))


def _inversions(similar: NDArray[np.float32]) -> float:
    """The share of steps back in the best alignment, the larger of the two ways."""
    shares = [
        float(np.mean(np.diff(similar.argmax(axis=axis)) < 0)) if similar.shape[1 - axis] > 1 else 0
        for axis in (0, 1)
    ]
    return float(max(shares))
