"""Exact limits of rates: against tabled values, and the definition itself."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from origin.semantic.intervals import interval, lower_limit, upper_limit


def at_most(count: int, of: int, rate: float) -> float:
    """P(X <= count) of a binomial, term by term: the naive oracle."""
    terms = (math.comb(of, k) * rate**k * (1 - rate) ** (of - k) for k in range(count + 1))
    return math.fsum(terms)


@pytest.mark.parametrize(
    ("count", "of", "low", "high"),
    [(0, 10, 0.0, 0.3085), (10, 10, 0.6915, 1.0), (1, 20, 0.0013, 0.2487), (5, 50, 0.0333, 0.2181)],
)
def test_two_sided_intervals_are_the_tabled_ones(
    count: int, of: int, low: float, high: float
) -> None:
    """Values of Clopper and Pearson's tables."""
    assert interval(count, of) == pytest.approx((low, high), abs=1e-4)


@given(st.integers(1, 120).flatmap(lambda of: st.tuples(st.integers(0, of - 1), st.just(of))))
def test_at_the_upper_limit_so_few_are_seen_once_in_twenty(drawn: tuple[int, int]) -> None:
    """The definition of the one-sided limit."""
    count, of = drawn
    assert at_most(count, of, upper_limit(count, of)) == pytest.approx(0.05, abs=1e-6)


@given(st.integers(1, 120).flatmap(lambda of: st.tuples(st.integers(1, of), st.just(of))))
def test_at_the_lower_limit_so_many_are_seen_once_in_twenty(drawn: tuple[int, int]) -> None:
    """The definition of the other one."""
    count, of = drawn
    assert 1 - at_most(count - 1, of, lower_limit(count, of)) == pytest.approx(0.05, abs=1e-6)


def test_none_of_many_still_allows_three_of_them() -> None:
    """The rule of three."""
    assert upper_limit(0, 1000) == pytest.approx(3 / 1000, rel=0.01)


def test_nothing_seen_allows_everything() -> None:
    """No pair, no claim."""
    assert interval(0, 0) == (0.0, 1.0)
