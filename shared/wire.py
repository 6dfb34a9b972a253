"""What edge and origin agree on beyond the envelope: internal names, and which headers travel.

Header names are lower case, as HTTP/2, ASGI and the Fetch standard have them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache

EDGE_AUTHORIZATION = "encore-edge-authorization"
"""`Bearer …` by which the origin believes that the edge asks; never taken from a client."""

ENTRY_PATH = "/internal/entries/"
"""The origin's route, followed by a cache key, from which the edge fetches a finished entry."""

CONTROL_PATH = "/internal/control/"
"""Followed by a tenant: at the origin the edge fetches the control document there (GET), at the
edge the origin leaves a new one (PUT)."""

DIAGNOSIS_PATH = "/internal/diagnosis"
"""The edge's route where an operator's `encore doctor` learns of its keys, clock and origin."""

COUNTERS_PATH = "/internal/counters"
"""The origin's route to which the edge posts its counters."""

WARMING_PATH = "/internal/warming"
"""The origin's route where the edge asks which entries to fetch ahead of requests."""

CONTROL_REVISION = "encore-control-revision"
"""In an origin's answer to the edge: the revision of the tenant's control document. Clients never
see it."""

EDGE_STORE = "encore-edge-store"
"""`1` in an origin's answer: this entry may be written to KV, by who gets this answer, once.
Clients never see it."""

EDGE_REFRESH = "encore-edge-refresh"
"""`1` in a request of the edge's: it is made behind a stale answer, and nobody waits for it."""

FORWARDED_REQUEST_HEADERS = (
    "authorization",
    "cache-control",
    "content-type",
    "encore-bucket",
    "encore-class",
    "encore-scope",
    "encore-semantic",
    "encore-tags",
    "encore-ttl",
    "traceparent",
    "tracestate",
    "user-agent",
)
"""All of a client's headers that the edge sends on; whatever else a client sends stays out."""

FORWARDED_RESPONSE_HEADERS = (
    "age",
    "allow",
    "cache-control",
    "cache-status",
    "content-type",
    "encore-key",
    "etag",
    "retry-after",
    "server-timing",
    "www-authenticate",
)
"""All of the origin's headers that the edge sends on to the client."""

PASSED_METHODS = ("DELETE", "GET", "PATCH", "POST", "PUT")
"""Of requests below `/v1/` that are passed through to an upstream."""

PASSED_REQUEST_HEADERS = ("accept", "content-type", "idempotency-key", "openai-beta")
"""All of a client's headers that reach an upstream with such a request."""

PASSED_RESPONSE_HEADERS = (
    "content-disposition",
    "content-type",
    "openai-processing-ms",
    "openai-version",
    "retry-after",
    "x-request-id",
)
"""All of an upstream's headers that reach the client; what else they tell is about our account."""

PRIVATE = "private, no-store"
"""`Cache-Control` of every answer: no cache but this one may keep it."""
_SIZE_DIGITS = 18


def end_to_end(headers: Mapping[str, str], names: Iterable[str]) -> dict[str, str]:
    """Those of `names` that are there, but for what `Connection` says is for one hop only.

    No hop-by-hop header (RFC 9110 section 7.6.1) is to be among `names`.
    """
    hop = {name.strip().lower() for name in headers.get("connection", "").split(",")}
    return {name: headers[name] for name in names if name in headers and name not in hop}


def announced_bytes(headers: Mapping[str, str]) -> int | None:
    """The size of a body as `Content-Length` has it, None where it says nothing.

    Of a number that no body can have only the first digits count: `int` refuses thousands of them,
    though they may all be zeros.
    """
    announced = headers.get("content-length", "")
    if not (announced.isascii() and announced.isdigit()):
        return None
    return int(announced.lstrip("0")[:_SIZE_DIGITS] or "0")


@lru_cache(maxsize=64)
def accepts_gzip(accept_encoding: str | None) -> bool:
    """Whether an `Accept-Encoding` (RFC 9110 section 12.5.3) names gzip, or any coding, above q=0.

    Without the header the answer is no: a client that never heard of gzip could not read it.
    """
    wildcard = False
    for item in (accept_encoding or "").lower().split(","):
        coding, _, weight = item.partition(";")
        match coding.strip():
            case "gzip" | "x-gzip":
                return _above_zero(weight)
            case "*":
                wildcard = _above_zero(weight)
            case _:
                pass
    return wildcard


def _above_zero(weight: str) -> bool:
    """Whether a `q=…` is more than nothing; without one it is 1, and nonsense is nothing."""
    if not weight.strip():
        return True
    name, _, quality = weight.partition("=")
    try:
        return name.strip() == "q" and float(quality) > 0
    except ValueError:
        return False
