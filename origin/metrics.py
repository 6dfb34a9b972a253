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
"""`outcome`: stored, too-large, failed (after retries), dropped (too many were waiting), purged
(while it was made)."""

INVALIDATION_EVENTS = Counter(
    "encore_invalidation_events_total",
    "Events that ask for a purge, by how they came and by what became of them.",
    ["source", "outcome"],
)
"""`source`: channel, stream. `outcome`: applied, covered (another replica was first), bad,
failed (of the stream: tried again)."""

AUDIT_DENIALS_LOST = Counter(
    "encore_audit_denials_lost_total", "Refused requests that the audit log has no record of."
)
