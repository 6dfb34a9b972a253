"""Whether an entry may answer, by RFC 9111 and RFC 5861. Pure: the caller brings the time.

    created ──fresh──> fresh_until ──stale-while-revalidate──> stale_until
                                   ──stale-if-error─────────────────────────> error_until

An entry is fresh up to and including `fresh_until`. Deltas are seconds, times milliseconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from shared.controls import Directives
from shared.envelope import Header


@dataclass(frozen=True, kw_only=True, slots=True)
class Lifetimes:
    """How long entries live, in seconds, by the operator's settings."""

    ttl_s: int
    stale_while_revalidate_s: int
    stale_if_error_s: int
    max_ttl_s: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Serve:
    """Answer from the entry. `ttl_s` is what is left of its freshness, negative when stale.

    `revalidate` asks for a refresh behind the answer.
    """

    age_s: int
    ttl_s: int
    revalidate: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Forward:
    """Ask the next tier. `reason` is RFC 9211's `fwd` value.

    `stale_if_error` allows the entry to answer should the next tier fail.
    """

    reason: Literal["miss", "stale", "request"]
    stale_if_error: bool = False


Decision = Serve | Forward
MISS = Forward(reason="miss")


def decide(header: Header, now_ms: int, directives: Directives) -> Decision:
    """What to do with an entry found for a request."""
    ttl_ms = header.fresh_until_ms - now_ms
    fallback = usable_on_error(header, now_ms, directives)
    if directives.no_cache or directives.no_store:
        # Only a request that itself allows it may get, after a failure, what it asked not to get.
        allowed = directives.stale_if_error_s is not None and not directives.no_store
        return Forward(reason="request", stale_if_error=fallback and allowed)
    age_s = age_seconds(header, now_ms)
    if directives.max_age_s is not None and age_s > directives.max_age_s:
        return Forward(reason="request", stale_if_error=fallback)
    if directives.min_fresh_s is not None and ttl_ms < directives.min_fresh_s * 1000:
        return Forward(reason="request", stale_if_error=fallback)
    serve = Serve(age_s=age_s, ttl_s=ttl_ms // 1000)
    if ttl_ms >= 0:
        return serve
    if now_ms <= header.stale_until_ms:
        return Serve(age_s=serve.age_s, ttl_s=serve.ttl_s, revalidate=True)
    if directives.max_stale_s is not None and now_ms <= header.expires_ms:
        if directives.max_stale_s < 0 or -ttl_ms <= directives.max_stale_s * 1000:
            return serve
    if now_ms > header.expires_ms:
        return MISS
    return Forward(reason="stale", stale_if_error=fallback)


def usable_on_error(header: Header, now_ms: int, directives: Directives) -> bool:
    """Whether the entry may answer when the next tier failed (RFC 5861 section 4).

    A request's `stale-if-error=N` narrows the entry's own window; it cannot bring back an entry
    that is past it.
    """
    if now_ms > max(header.error_until_ms, header.fresh_until_ms):
        return False
    limit_s = directives.stale_if_error_s
    return limit_s is None or now_ms - header.fresh_until_ms <= limit_s * 1000


def age_seconds(header: Header, now_ms: int) -> int:
    """The `Age` of an answer: whole seconds since it was made, never negative."""
    return max(0, (now_ms - header.created_ms) // 1000)


def expiry(lifetimes: Lifetimes, ttl_s: int | None, created_ms: int) -> tuple[int, int, int] | None:
    """(fresh-until, stale-until, error-until) in ms for an answer made at `created_ms`.

    `ttl_s` is the request's own wish (`Encore-TTL`), clamped to the operator's maximum. None where
    the entry would live 0 seconds: it is not to be stored.
    """
    ttl = min(lifetimes.ttl_s if ttl_s is None else ttl_s, lifetimes.max_ttl_s)
    if ttl <= 0:
        return None
    fresh_until = created_ms + ttl * 1000
    return (
        fresh_until,
        fresh_until + lifetimes.stale_while_revalidate_s * 1000,
        fresh_until + lifetimes.stale_if_error_s * 1000,
    )
