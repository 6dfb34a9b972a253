"""What an operator's monitoring reads (`GET /metrics`): all instruments of the origin, named here.

Names and units are Prometheus' conventions. Labels take few values, all ours but for models and
classes (`origin.usage_metrics`): no tenant, key or text of a client is ever one. What is told by
tenant is in `GET /cache/stats`.

With several processes `PROMETHEUS_MULTIPROC_DIR` must name an empty folder before this module is
imported; a gauge's mode says how theirs become one.
"""

from __future__ import annotations

import os

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import REGISTRY

disable_created_metrics()  # type: ignore[no-untyped-call]  # half of all series, read by nobody

REQUEST_SECONDS = Histogram(
    "encore_request_seconds",
    "Requests by endpoint and by what answered them; seconds until all of the answer was sent.",
    ["endpoint", "outcome"],
    buckets=(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.25, 1, 2.5, 10, 30, 60, 120),
)
"""`outcome` as in `shared.counts.Outcome`; `endpoint` is its path, `other` for what is passed
through."""

REQUESTS = Counter(
    "encore_requests_total",
    "Requests of tenants by tier, outcome, what earned a hit, model and content class.",
    ["tier", "outcome", "strategy", "model", "class"],
)
"""`tier`: edge, origin; what the edge forwards is counted by both. `strategy`: exact, normalised,
template, semantic. These three are a few seconds late."""

TOKENS_SAVED = Counter(
    "encore_saved_tokens_total", "Tokens that entries answered with.", ["tier", "kind"]
)
"""`kind`: prompt, completion."""

USD_SAVED = Counter(
    "encore_saved_usd_total", "What those tokens would have cost, by ENCORE_PRICES.", ["tier"]
)

L1_ERRORS = Counter(
    "encore_l1_errors_total", "Times L1 could not be asked, by what for.", ["operation"]
)
"""`operation`: read, clock, grant. Writes are `encore_store_writes_total`."""

STORE_WRITES = Counter(
    "encore_store_writes_total",
    "Entries to be written to L1, by what became of them.",
    ["outcome"],
)
"""`outcome`: stored, extended (a sliding end was moved), too-large, failed (after retries), dropped
(too many were waiting), purged (while it was made)."""

SEMANTIC_INDEX_WRITES = Counter(
    "encore_semantic_index_writes_total",
    "Changes of the semantic index to be written to Redis, by what became of them.",
    ["outcome"],
)
"""`outcome`: stored, dropped (after retries, or too many were waiting)."""

GENERATIONS = Gauge(
    "encore_generations",
    "Generations under way, those waiting in the engine's queue included.",
    multiprocess_mode="livesum",
)

ENGINE_JOBS = Gauge(
    "encore_engine_jobs",
    "Generations that the local model has taken, running or waiting for their turn.",
    multiprocess_mode="livesum",
)

TIME_TO_FIRST_TOKEN = Histogram(
    "encore_time_to_first_token_seconds",
    "Seconds from the local model's taking a request to its first token, by the prompt's prefix.",
    ["prefix"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60),
)
"""`prefix`: warm (some of the prompt was known), cold."""

PROMPT_TOKENS = Counter(
    "encore_prompt_tokens_total", "Tokens of prompts that the local model has answered."
)

PREFIX_HIT_TOKENS = Counter(
    "encore_prefix_hit_tokens_total", "Of these, tokens taken from the prefix cache."
)

GENERATED_TOKENS = Counter(
    "encore_generated_tokens_total", "Tokens that the local model has generated."
)

DECODE_SECONDS = Counter(
    "encore_decode_seconds_total",
    "Seconds from first to last token, over all choices: divides the tokens generated.",
)

PREFIX_BYTES = Gauge(
    "encore_prefix_cache_bytes",
    "Bytes of keys and values that the prefix cache holds.",
    multiprocess_mode="livesum",
)

PREFIX_LIMIT_BYTES = Gauge(
    "encore_prefix_cache_limit_bytes",
    "The most that the prefix cache may hold.",
    multiprocess_mode="livesum",
)

PREFIX_NODES = Gauge(
    "encore_prefix_cache_nodes",
    "Blocks of tokens that the prefix cache holds.",
    multiprocess_mode="livesum",
)

PREFIX_EVICTIONS = Counter(
    "encore_prefix_cache_evictions_total",
    "Blocks that the prefix cache has let go of, by why.",
    ["reason"],
)
"""`reason`: limit (others needed the room), dropped (the tenant was purged)."""

UPSTREAM_SUSPENDED = Gauge(
    "encore_upstream_suspended",
    "1 while an upstream is left alone because it failed again and again (in any process).",
    ["upstream"],
    multiprocess_mode="livemax",
)
"""`upstream` is its host."""

EDGE_COUNTERS = Counter(
    "encore_edge_counters_total", "Flushes of counters from the edge, by outcome.", ["outcome"]
)
"""`outcome`: stored, refused (no flush of ours), failed (the edge sends it again)."""

USAGE_FLUSHES = Counter(
    "encore_usage_flushes_total", "Flushes of this origin's own counters, by outcome.", ["outcome"]
)
"""`outcome`: stored, failed (it is sent again)."""

CONTROL_ERRORS = Counter(
    "encore_control_errors_total",
    "Times a control document could not be looked at: the one last known is used on, or a 503.",
)

EDGE_PUSHES = Gauge(
    "encore_edge_pushes_pending",
    "Control documents that the edge has not acknowledged yet.",
    multiprocess_mode="livemax",
)

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

WARM_UPS = Counter(
    "encore_warm_ups_total",
    "Requests of warm-up jobs, by what became of them.",
    ["outcome"],
)
"""`outcome`: cached (known already), generated, failed."""

SEMANTIC_OUTCOMES = ("hit", "none", "refused", "gone", "unread", "late", "failed")
SEMANTIC = Counter(
    "encore_semantic_total",
    "Requests that exact match could not answer, by what semantic match made of them.",
    ["outcome"],
)
"""`outcome`: hit, none (nothing like it), refused (the likest differ in meaning), gone (the likest
has no entry any more), unread (too long for the encoder), late (past its deadline), failed."""

SEMANTIC_SECONDS = Histogram(
    "encore_semantic_seconds",
    "Seconds that semantic match took of a request, whatever came of it.",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25),
)

SEMANTIC_ENTRIES = Counter(
    "encore_semantic_entries_total", "Entries to be indexed, by what became of them.", ["outcome"]
)
"""`outcome`: indexed, unread (too long), failed, dropped (too many were waiting)."""

# What has not happened yet is 0: an alert on a rate would miss the first time otherwise.
for _source in ("channel", "stream"):
    for _value in ("applied", "covered", "bad", "failed"):
        INVALIDATION_EVENTS.labels(_source, _value)
for _counter, _values in (
    (L1_ERRORS, ("read", "clock", "grant")),
    (STORE_WRITES, ("stored", "extended", "too-large", "failed", "dropped", "purged")),
    (SEMANTIC_INDEX_WRITES, ("stored", "dropped")),
    (EDGE_COUNTERS, ("stored", "refused", "failed")),
    (USAGE_FLUSHES, ("stored", "failed")),
    (PREFIX_EVICTIONS, ("limit", "dropped")),
    (WARM_UPS, ("cached", "generated", "failed")),
    (SEMANTIC, SEMANTIC_OUTCOMES),
    (SEMANTIC_ENTRIES, ("indexed", "unread", "failed", "dropped")),
):
    for _value in _values:
        _counter.labels(_value)
for _value in ("warm", "cold"):
    TIME_TO_FIRST_TOKEN.labels(_value)


def exposition(accept: str) -> tuple[bytes, str]:
    """(all instruments in the format that an `Accept` header asks for, its media type).

    Blocking: of several processes it reads files.
    """
    registry = REGISTRY
    if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
        registry = CollectorRegistry()
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]  # theirs
    encode, content_type = choose_encoder(accept)
    return encode(registry), content_type
