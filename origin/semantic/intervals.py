"""Exact limits of a rate from counts (Clopper and Pearson 1934), without scipy."""

from __future__ import annotations

import math
from typing import Final

CONFIDENCE: Final = 0.95
_STEPS: Final = 60
_TINY: Final = 1e-300


def upper_limit(count: int, of: int, confidence: float = CONFIDENCE) -> float:
    """The rate that `count` of `of` still allows, one-sided; 1 where nothing was seen.

    0 of n allows about 3/n at 95 %.
    """
    if count >= of:
        return 1.0
    return _solve(count + 1, of - count, confidence)


def lower_limit(count: int, of: int, confidence: float = CONFIDENCE) -> float:
    """The rate that `count` of `of` at least shows, one-sided."""
    if count <= 0:
        return 0.0
    return _solve(count, of - count + 1, 1 - confidence)


def interval(count: int, of: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """The two-sided interval of the rate."""
    one_sided = (1 + confidence) / 2
    return lower_limit(count, of, one_sided), upper_limit(count, of, one_sided)


def _solve(a: float, b: float, probability: float) -> float:
    """The x at which the beta distribution (a, b) reaches `probability`."""
    low, high = 0.0, 1.0
    for _ in range(_STEPS):
        middle = (low + high) / 2
        if _beta_cdf(a, b, middle) < probability:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def _beta_cdf(a: float, b: float, x: float) -> float:
    """The regularised incomplete beta function (Lentz's continued fraction)."""
    if x <= 0 or x >= 1:
        return float(x >= 1)
    if x > (a + 1) / (a + b + 2):
        return 1 - _beta_cdf(b, a, 1 - x)
    front = math.exp(
        math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    )
    c, d = 1.0, 1 / _away_from_zero(1 - (a + b) * x / (a + 1))
    fraction = d
    for step in range(1, 1000):
        even = step * (b - step) * x / ((a + 2 * step - 1) * (a + 2 * step))
        odd = -(a + step) * (a + b + step) * x / ((a + 2 * step) * (a + 2 * step + 1))
        for term in (even, odd):
            d = 1 / _away_from_zero(1 + term * d)
            c = _away_from_zero(1 + term / c)
            fraction *= c * d
        if abs(c * d - 1) < 1e-13:
            break
    return front * fraction / a


def _away_from_zero(value: float) -> float:
    return value if abs(value) > _TINY else _TINY
