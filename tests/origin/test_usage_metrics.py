"""What monitoring is told of usage."""

from __future__ import annotations

import pytest

import origin.usage_metrics
from origin.metrics import REQUESTS, TOKENS_SAVED, USD_SAVED
from origin.prices import Prices
from origin.usage_metrics import UsageMetrics
from shared.counts import OTHER, TenantCounts
from tests.support.instruments import value_of

PRICES = Prices.parse('{"gpt-*": {"input": 2.0, "output": 10.0}}')


def test_hits_tokens_and_money_are_told() -> None:
    """By tier, outcome, strategy, model and class; the price is per million tokens."""
    counts = TenantCounts(cells={("hit", "semantic", "gpt-x", "faq"): [3, 1_000_000, 500_000]})
    hits = REQUESTS.labels("edge", "hit", "semantic", "gpt-x", "faq")
    told = (hits, TOKENS_SAVED.labels("edge", "prompt"), USD_SAVED.labels("edge"))
    before = [value_of(each) for each in told]
    UsageMetrics(PRICES).add("edge", counts)
    grown = [value_of(each) - then for each, then in zip(told, before, strict=True)]
    assert grown == [3, 1_000_000, 7.0]


def test_names_of_clients_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever models they name."""
    monkeypatch.setattr(origin.usage_metrics, "MAX_NAMED", 2)
    metrics = UsageMetrics(Prices())
    other = REQUESTS.labels("origin", "miss", "", OTHER, OTHER)
    before = value_of(other)
    for number in range(5):
        name = f"bounded-{number}"
        metrics.add("origin", TenantCounts(cells={("miss", None, name, None): [1, 0, 0]}))
    assert value_of(other) - before == 3
