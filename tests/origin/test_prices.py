"""Prices: which pattern counts, what tokens cost, and what is refused."""

from __future__ import annotations

import pytest

from origin.prices import Prices
from shared.envelope import TokenCounts

PRICES = Prices.parse('{"gpt-4o-mini*": {"input": 0.15}, "gpt-4o*": {"input": 2.5, "output": 10}}')


@pytest.mark.parametrize(
    ("model", "usd"), [("gpt-4o-2024", 12.5), ("gpt-4o-mini", 0.15), ("claude", None)]
)
def test_the_first_pattern_that_matches_counts(model: str, usd: float | None) -> None:
    """Per million tokens; of a model without a price nothing is said."""
    price = PRICES.of(model)
    told = None if price is None else price.of(TokenCounts(prompt=10**6, completion=10**6))
    assert told == usd


def test_they_are_written_as_they_are_read() -> None:
    """What `encore settings` prints can be set."""
    assert Prices.parse(str(PRICES)) == PRICES
    assert str(Prices()) == "{}"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"m": 1}',
        '{"m": {"input": -1}}',
        '{"m": {"input": "1"}}',
        '{"m": {"input": true}}',
        '{"m": {"input": NaN}}',
        '{"m": {"inputs": 1}}',
    ],
)
def test_what_is_no_price_is_refused(text: str) -> None:
    """Each place is checked."""
    with pytest.raises(ValueError, match=r"."):
        Prices.parse(text)
