"""Whether an entry may answer, by RFC 9111 and RFC 5861. Pure: the caller brings the time.

    created ──fresh──> fresh_until ──stale-while-revalidate──> stale_until
                                   ──stale-if-error─────────────────────────> error_until

An entry is fresh up to and including `fresh_until`, and each later window ends the same way. Deltas
are seconds, times milliseconds; a delta is compared to the millisecond, so `max-age=0` accepts
nothing that is older than its own making.

As time passes and the directives stay, a decision goes from `Serve` to `Forward`, never back: but
for entries of the future, which are a miss until then.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

from shared.controls import Directives

MAX_AHEAD_MS = 3_600_000
"""How far clocks may differ for an entry's times to be believed."""
MIN_EDGE_LIFE_S = 60
"""Workers KV refuses an expiry nearer than this."""


class Dated(Protocol):
    """What a decision goes by: the times of an entry, as `shared.envelope.Header` has them."""

    @property
    def created_ms(self) -> int:
        """When the answer was made."""
        ...

    @property
    def fresh_until_ms(self) -> int:
        """The end of its freshness."""
        ...

    @property
    def stale_until_ms(self) -> int:
        """The end of stale-while-revalidate."""
        ...

    @property
    def error_until_ms(self) -> int:
        """The end of stale-if-error."""
        ...

    @property
    def expires_ms(self) -> int:
        """The later of the two."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Lifetimes:
    """How long entries live, in seconds, by the operator's settings."""

    ttl_s: int
    stale_while_revalidate_s: int
    stale_if_error_s: int
    max_ttl_s: int

    def __post_init__(self) -> None:
        for name in self.__slots__:
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative, not {getattr(self, name)}")


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
    """Ask the next tier.

    `reason` is RFC 9211's `fwd` value; `request` is a fresh entry that the directives forbid.
    `stale_if_error` allows the entry to answer should the next tier fail.
    """

    reason: Literal["miss", "stale", "request"]
    stale_if_error: bool = False


Decision = Serve | Forward
MISS = Forward(reason="miss")


def decide(header: Dated, now_ms: int, directives: Directives) -> Decision:
    """What to do with an entry found for a request.

    `only-if-cached` is the caller's: it turns `Forward` into 504.
    """
    if now_ms > header.expires_ms or is_of_the_future(header, now_ms):
        return MISS
    stale_ms = now_ms - header.fresh_until_ms
    if not _accepts(header, now_ms, directives):
        return Forward(
            reason="request" if stale_ms <= 0 else "stale",
            stale_if_error=usable_on_error(header, now_ms, directives),
        )
    return serve(header, now_ms, revalidate=stale_ms > 0 and now_ms <= header.stale_until_ms)


def is_of_the_future(header: Dated, now_ms: int) -> bool:
    """Whether an entry bears a time at which no clock that is nearly right can have put it.

    One of the two clocks was wrong by far, so how long the entry may live nobody knows.
    """
    return header.created_ms - now_ms > MAX_AHEAD_MS


def serve(header: Dated, now_ms: int, *, revalidate: bool = False) -> Serve:
    """An entry's answer at `now_ms`, for who has decided to give it."""
    return Serve(
        age_s=age_seconds(header, now_ms),
        ttl_s=(header.fresh_until_ms - now_ms) // 1000,
        revalidate=revalidate,
    )


def is_lasting(header: Dated, now_ms: int) -> bool:
    """Whether the entry has long enough to live for KV to take it."""
    return header.expires_ms - now_ms >= MIN_EDGE_LIFE_S * 1000


def recency(header: Dated) -> tuple[int, int]:
    """Of two entries of a key, or states of one that slides, the later one has the larger."""
    return header.created_ms, header.fresh_until_ms


def usable_on_error(header: Dated, now_ms: int, directives: Directives) -> bool:
    """Whether the entry may answer when the next tier failed (RFC 5861 section 4).

    A request's `stale-if-error=N` narrows the entry's own window; it cannot bring back an entry
    that is past it. With `no-cache` only a request that itself says `stale-if-error` gets what it
    asked not to get, with `no-store` none does. A failure overrides the other directives.
    """
    limit_s = directives.stale_if_error_s
    if directives.no_store or (directives.no_cache and limit_s is None):
        return False
    if limit_s is not None and now_ms - header.fresh_until_ms > limit_s * 1000:
        return False
    return now_ms <= header.error_until_ms


def is_failure(status: int) -> bool:
    """Whether an answer of the next tier is a failure that a stale entry may stand in for.

    RFC 5861 names 500, 502, 503 and 504; who is told to come later (429) has no answer either.
    """
    return status >= 500 or status == 429


def age_seconds(header: Dated, now_ms: int) -> int:
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


def _accepts(header: Dated, now_ms: int, directives: Directives) -> bool:
    """Whether entry and request together allow the entry to answer."""
    if directives.no_cache or directives.no_store:
        return False
    stale_ms = now_ms - header.fresh_until_ms
    max_age_s = directives.max_age_s
    if max_age_s is not None and now_ms - header.created_ms > max_age_s * 1000:
        return False
    if directives.min_fresh_s is not None and -stale_ms < directives.min_fresh_s * 1000:
        return False
    if directives.max_stale_s is None:
        # RFC 9111 section 5.2.1.1: max-age without max-stale does not want a stale answer.
        return now_ms <= (header.stale_until_ms if max_age_s is None else header.fresh_until_ms)
    return directives.max_stale_s < 0 or stale_ms <= directives.max_stale_s * 1000
