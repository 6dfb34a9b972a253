"""What an instrument of `origin.metrics` says now."""

from __future__ import annotations

from prometheus_client import Counter, Gauge


def value_of(instrument: Counter | Gauge) -> float:
    """The value of one without labels, or of one labelled already."""
    (metric,) = instrument.collect()
    value: float = metric.samples[0].value
    return value
