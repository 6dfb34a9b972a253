"""Why a request is answered as it is: its key, what each tier would do with it, and by what rule.

Pure but for `Pipeline.look`, which gathers the facts: nothing is generated, stored or refreshed for
an explanation. It quotes the request and, where semantic match took part, questions that the same
tenant asked before: it is for a tenant's admins.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from origin.queries import Query
from shared.canonical import UNKEYED
from shared.control_document import canonical_for
from shared.controls import Directives
from shared.envelope import Header
from shared.freshness import MIN_EDGE_LIFE_S, Forward, Serve, age_seconds, is_of_the_future
from shared.keys import short_key

if TYPE_CHECKING:
    from origin.semantic.matcher import Neighbour

_NO_ENTRY = {
    None: "there is none under this key",
    "l1-error": "Redis could not be read",
    "l1-undecodable": "what is stored under this key cannot be read",
    "purged": "a purge names it",
    "not-encrypted": "it was stored in clear, and the policy wants it encrypted",
    "recalibrated": "it was matched by another calibration or bound than rules now",
    "too-dissimilar": "it was matched, and Encore-Semantic wants a closer question",
    "model-changed": "the model has changed since it was made",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Look:
    """What the pipeline goes by for a request. `header` is of what is stored under its key, be it
    fit to answer or not; `decision` is None where nothing there may answer.

    `trouble` says why, in the words of `Cache-Status`; `unstorable` why its answer would not be
    kept; `refusal` what the engine says to the request. `generating` is whether its answer is
    being made now.
    """  # noqa: D205 - one sentence of several facts

    header: Header | None
    decision: Serve | Forward | None
    trouble: str | None
    unstorable: str | None
    refusal: str | None
    fingerprint: str | None
    generating: bool


def explanation(
    query: Query, look: Look, semantic: dict[str, Any], *, now_ms: int, admit_after: int
) -> dict[str, Any]:
    """The whole of it, as `POST /cache/explain` answers."""
    form = canonical_for(
        query.document, endpoint=query.endpoint, controls=query.controls, fields=query.fields
    )
    given = [name for name, value in query.fields.items() if value is not None]
    tiers = [
        _edge(query, look, admit_after),
        _l1(query, look, now_ms),
        semantic,
        _engine(query, look),
    ]
    return {
        "tenant": query.tenant,
        "endpoint": query.endpoint.value,
        "key": query.key,
        "short_key": None if query.key is None else short_key(query.key),
        "strategy": form.strategy,
        "canonical": form.canonical.decode(),
        "in_key": sorted(name for name in given if name not in UNKEYED),
        "left_out": sorted(name for name in given if name in UNKEYED),
        "unstorable": look.unstorable,
        "tiers": tiers,
        "answered_by": next(
            (tier["tier"] for tier in tiers[1:] if tier["would"] in {"hit", "stale", "generate"}),
            None,
        ),
    }


def semantic_tier(found: Sequence[Neighbour] | str) -> dict[str, Any]:
    """What semantic match would do; `found` is what it found, or why it does not look."""
    tier: dict[str, Any] = {"tier": "semantic", "neighbours": []}
    if isinstance(found, str):
        return tier | {"would": "miss", "why": found}
    tier["neighbours"] = [_neighbour(each) for each in found]
    served = [each for each in found if each.verdict is None or each.verdict.hit]
    if served:
        return tier | {"would": "hit", "why": "a question that means the same has an answer"}
    if not found:
        return tier | {"would": "miss", "why": "nothing was asked before in this partition"}
    closest = found[0].verdict
    reason = "" if closest is None else closest.reason
    return tier | {"would": "miss", "why": f"the nearest question is refused: {reason}"}


def _neighbour(found: Neighbour) -> dict[str, Any]:
    verdict = found.verdict
    said: dict[str, Any] = {"key": short_key(found.key), "text": found.text}
    if verdict is None:
        return said | {"verdict": "served", "why": "equal form"}
    return said | {
        "verdict": "served" if verdict.hit else "refused",
        "why": verdict.reason,
        "similarity": round(verdict.similarity, 4),
        "score": None if verdict.score is None else round(verdict.score, 4),
        "threshold": None if verdict.threshold is None else round(verdict.threshold, 4),
        "conflicts": [
            {"rule": conflict.rule, "asked": conflict.a, "known": conflict.b}
            for conflict in found.conflicts
        ],
    }


def _edge(query: Query, look: Look, admit_after: int) -> dict[str, Any]:
    """What KV may hold: the origin grants its writes, and cannot look into it."""
    policy, header = query.document.policy, look.header
    if query.key is None:
        would, why = "forward", "the body is too large to be kept"
    elif policy.residency == "origin-only" or (header is not None and header.origin_only):
        would, why = "forward", "answers of this tenant or class stay out of Workers KV"
    elif look.unstorable is not None:
        would, why = "forward", f"its answer is not kept ({look.unstorable})"
    else:
        asked = "" if admit_after == 1 else f" after {admit_after} requests"
        would = "depends on the location"
        why = (
            f"KV is written{asked} with what has {MIN_EDGE_LIFE_S} s or more to live, at most once "
            "a minute; send the request with `Cache-Control: only-if-cached` to see"
        )
    return {"tier": "edge", "would": would, "why": why}


def _l1(query: Query, look: Look, now_ms: int) -> dict[str, Any]:
    tier: dict[str, Any] = {"tier": "l1"}
    header, decision = look.header, look.decision
    if query.controls.directives.no_store:
        return tier | {"would": "miss", "why": "the request says no-store"}
    if header is not None:
        tier["entry"] = _entry(header, now_ms)
    if header is None or decision is None or look.trouble is not None:
        return tier | {"would": "miss", "why": _NO_ENTRY.get(look.trouble, look.trouble)}
    if isinstance(decision, Serve):
        would = "stale" if decision.ttl_s < 0 else "hit"
        why = "it is fresh" if would == "hit" else "it is stale, and may be served while refreshed"
        if decision.revalidate:
            why += "; a refresh begins behind the answer"
        return tier | {"would": would, "why": why}
    return tier | {"would": "miss", "why": _forbidden(header, now_ms, query.controls.directives)}


def _entry(header: Header, now_ms: int) -> dict[str, Any]:
    source = header.source
    return {
        "model": header.model,
        "engine": header.fingerprint,
        "age_s": age_seconds(header, now_ms),
        "created": _time(header.created_ms),
        "generation_started": _time(header.generation_started_ms),
        "fresh_until": _time(header.fresh_until_ms),
        "fresh_for_s": (header.fresh_until_ms - now_ms) // 1000,
        "stale_while_revalidate_until": _time(header.stale_until_ms),
        "stale_if_error_until": _time(header.error_until_ms),
        "matched": None
        if source is None
        else {"key": short_key(source.key), "similarity": round(source.similarity, 4)},
        "encrypted": header.encryption is not None,
        "tags": len(header.tags),
    }


def _forbidden(header: Header, now_ms: int, directives: Directives) -> str:
    """Which of the request's directives, or of the entry's times, keeps it from answering."""
    age_s = age_seconds(header, now_ms)
    left_s = (header.fresh_until_ms - now_ms) / 1000
    if directives.no_cache:
        return "the request says no-cache"
    max_age_s, max_stale_s = directives.max_age_s, directives.max_stale_s
    if max_age_s is not None and now_ms - header.created_ms > max_age_s * 1000:
        return f"the request says max-age={max_age_s}, and it is {age_s} s old"
    if directives.min_fresh_s is not None and left_s < directives.min_fresh_s:
        return f"the request says min-fresh={directives.min_fresh_s}, and {left_s:.0f} s are left"
    stale_s = -left_s
    if max_stale_s is not None and stale_s > max_stale_s:
        return f"the request says max-stale={max_stale_s}, and it is stale for {stale_s:.0f} s"
    if is_of_the_future(header, now_ms):
        return "it was made in the future: this machine's clock is wrong, or that one's was"
    if now_ms > header.expires_ms:
        return f"it expired {(now_ms - header.expires_ms) // 1000} s ago"
    return f"it is stale for {stale_s:.0f} s, longer than it may be served while refreshed"


def _engine(query: Query, look: Look) -> dict[str, Any]:
    tier: dict[str, Any] = {"tier": "engine", "fingerprint": look.fingerprint}
    if query.controls.directives.only_if_cached:
        return tier | {"would": "refuse", "why": "the request says only-if-cached: a 504"}
    if look.refusal is not None:
        return tier | {"would": "refuse", "why": look.refusal}
    if look.generating:
        return tier | {"would": "generate", "why": "it is being made now: the request would join"}
    kept = "kept" if look.unstorable is None else f"not kept ({look.unstorable})"
    return tier | {"would": "generate", "why": f"the answer would be {kept}"}


def _time(time_ms: int) -> str:
    return datetime.fromtimestamp(time_ms / 1000, UTC).isoformat(timespec="milliseconds")
