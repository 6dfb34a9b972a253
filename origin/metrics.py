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
"""`outcome`: stored, extended (a sliding end was moved), too-large, failed (after retries), dropped
(too many were waiting)."""
