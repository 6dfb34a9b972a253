"""Usage as Prometheus has it: requests by tier, outcome, model and class; tokens and money saved.

Told of what is flushed, a few seconds late and all tenants together. Of the edge it is what its
isolates sent to this process: the sum over all origins is the whole.
"""

from __future__ import annotations

from origin.metrics import REQUESTS, TOKENS_SAVED, USD_SAVED
from origin.prices import Prices
from shared.counts import OTHER, TenantCounts, Tier
from shared.envelope import TokenCounts

MAX_NAMED = 200
"""(model, class) that have series of their own in a process; more are counted as `OTHER`."""


class UsageMetrics:
    """One per process."""

    def __init__(self, prices: Prices) -> None:
        self._prices = prices
        self._named: set[tuple[str, str]] = set()

    def add(self, tier: Tier, counts: TenantCounts) -> None:
        """Count what one tenant did between two flushes."""
        for (outcome, strategy, model, content_class), cell in counts.cells.items():
            requests, prompt, completion = cell
            labels = self._labels(model or "", content_class or "")
            REQUESTS.labels(tier, outcome, strategy or "", *labels).inc(requests)
            TOKENS_SAVED.labels(tier, "prompt").inc(prompt)
            TOKENS_SAVED.labels(tier, "completion").inc(completion)
            price = None if model is None else self._prices.of(model)
            if price is not None:
                saved = TokenCounts(prompt=prompt, completion=completion)
                USD_SAVED.labels(tier).inc(price.of(saved))

    def _labels(self, model: str, content_class: str) -> tuple[str, str]:
        """Models are named by clients: how many there are is bounded."""
        name = model, content_class
        if name not in self._named:
            if len(self._named) >= MAX_NAMED:
                return OTHER, OTHER
            self._named.add(name)
        return name
