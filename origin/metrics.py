"""What an operator's monitoring reads (`GET /metrics`): all instruments of the origin, named here.

Names and units are Prometheus' conventions. Labels take few values, all ours: no tenant, key or
text of a client is ever one. What is told by tenant is in `GET /cache/stats`.
"""

from __future__ import annotations

from prometheus_client import Counter

STORE_WRITES = Counter(
    "encore_store_writes_total",
    "Entries to be written to L1, by what became of them.",
    ["outcome"],
)
"""`outcome`: stored, too-large, failed (after retries), dropped (too many were waiting)."""

WARM_UPS = Counter(
    "encore_warm_ups_total",
    "Requests of warm-up jobs, by what became of them.",
    ["outcome"],
)
"""`outcome`: cached (known already), generated, failed."""
