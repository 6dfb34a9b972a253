"""What a replay came to, in numbers and in a sentence for each choice.

Advice goes by what is saved in USD after KV's own cost where the models have prices, else by
tokens. Its rules are the constants below: less than that is no reason to change anything.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from origin.planning.tally import CHOICES, OUTCOMES, Setting, Tally, Tokens

if TYPE_CHECKING:
    from origin.planning.log import Bad
    from origin.planning.reading import LogFacts
    from origin.planning.replay import CacheReplay, Replay

VERSION = 1
ENOUGH = 0.95
"""A shorter lifetime will do if it saves this much of what the best one does."""
WORTHWHILE_POINTS = 0.5
"""Another profile, or matching by meaning, is worth it from so many points of hit rate on."""
EDGE_POINTS = 1.0
"""Admission may move so many points of hits from the edge to the origin."""
_TITLES = {
    "ttl_s": "Lifetime",
    "normalisation": "Normalisation",
    "admit_after": "Admission to KV",
    "semantic": "Semantic match",
}


def report(replay: Replay, base: Setting, facts: LogFacts, bad: Bad) -> dict[str, Any]:
    """Everything, as JSON has it. Shares are from 0 to 1, times UTC, money USD; None is unknown."""
    priced = facts.unpriced < facts.requests
    keys = {
        profile: places.seen for profile, places in zip(replay.profiles, replay.places, strict=True)
    }
    sampled = {
        profile: 1 / places.weight
        for profile, places in zip(replay.profiles, replay.places, strict=True)
    }
    return {
        "version": VERSION,
        "log": {
            "requests": facts.requests,
            "bad_lines": bad.count,
            "first_bad_lines": [{"line": number, "why": why} for number, why in bad.lines],
            "from": _time(facts, facts.first_ms),
            "to": _time(facts, facts.last_ms),
            "hours": round((facts.last_ms - facts.first_ms) / 3_600_000, 3),
            "without_time": facts.untimed,
            "out_of_order": facts.out_of_order,
            "tokens_estimated": facts.estimated,
            "without_price": facts.unpriced,
            "locations": len(replay.locations),
            "keys": keys,
            "keys_kept": sampled,
        },
        "base": _named(base),
        "settings": [_setting(cache, base, priced=priced) for cache in replay.caches],
        "advice": advice(replay.caches, base, priced=priced),
    }


def advice(
    caches: Sequence[CacheReplay], base: Setting, *, priced: bool
) -> dict[str, dict[str, Any]]:
    """By choice what to choose, and why in a sentence."""
    tallies = {cache.setting: cache.tally for cache in caches}
    found = {}
    for name in CHOICES:
        # What differs from the base in this choice alone.
        beside = {
            getattr(setting, name): tally
            for setting, tally in tallies.items()
            if setting.changed(base) in (None, name)
        }
        choose, why = _ADVISERS[name](beside, getattr(base, name), priced)
        found[name] = {"choose": choose, "why": f"{_TITLES[name]}: {why}"}
    return found


def duration(seconds: int) -> str:
    """Seconds as people say them."""
    for unit, length in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= length and seconds % length == 0:
            return f"{seconds // length} {unit}"
    return f"{seconds} s"


def label(setting: Setting, base: Setting) -> str:
    """A setting by what it changes, or all of it."""
    changed = setting.changed(base)
    names = {
        "ttl_s": f"lifetime {duration(setting.ttl_s)}",
        "normalisation": f"normalisation {setting.normalisation}",
        "admit_after": f"admit after {setting.admit_after}",
        "semantic": f"semantic {setting.semantic}",
    }
    if changed is not None:
        return names[changed]
    return f"{duration(setting.ttl_s)}, {setting.normalisation}, admit after {setting.admit_after}"


def _ttl(beside: Mapping[Any, Tally], _: Any, priced: bool) -> tuple[int, str]:  # noqa: FBT001
    values = {ttl_s: _value(tally, priced=priced) for ttl_s, tally in sorted(beside.items())}
    best = max(values, key=lambda ttl_s: (values[ttl_s], -ttl_s))
    if values[best] <= 0:
        return best, "nothing is saved, however long answers are kept."
    choose = next(ttl_s for ttl_s, value in values.items() if value >= ENOUGH * values[best])
    rate = _percent(beside[choose].hit_rate)
    if len(values) == 1:
        return choose, f"only {duration(choose)} was replayed (hit rate {rate})."
    if choose != best:
        share = values[choose] / values[best]
        return choose, (
            f"{duration(choose)} saves {share:.0%} of what {duration(best)} does (hit rate {rate} "
            f"beside {_percent(beside[best].hit_rate)}), and answers are younger."
        )
    shorter = [ttl_s for ttl_s in values if ttl_s < choose]
    if shorter:
        share = max(values[shorter[-1]], 0) / values[choose]
        why = f"{duration(choose)} saves most (hit rate {rate}); {duration(shorter[-1])} saves "
        return choose, f"{why}{share:.0%} of that. Shorter, where answers change sooner."
    return choose, f"{duration(choose)} saves most (hit rate {rate})."


def _normalisation(
    beside: Mapping[Any, Tally],
    base: Any,
    priced: bool,  # noqa: FBT001
) -> tuple[str, str]:
    order = [name for name in ("exact", "text", "property") if name in beside]
    choose = order[0]
    said = [f"`{choose}` has a hit rate of {_percent(beside[choose].hit_rate)}"]
    for name in order[1:]:
        points = _points(beside[name], beside[choose])
        said.append(f"`{name}` {_more(points)}")
        if points >= WORTHWHILE_POINTS and _value(beside[name], priced=priced) >= _value(
            beside[choose], priced=priced
        ):
            choose = name
    if len(order) == 1:
        return base, f"only `{base}` was replayed."
    return choose, f"choose `{choose}`: {', '.join(said)}."


def _admission(
    beside: Mapping[Any, Tally],
    base: Any,
    _: bool,  # noqa: FBT001
) -> tuple[int, str]:
    order = sorted(beside)
    first = order[0]
    if len(order) == 1:
        return base, f"only {base} was replayed."
    lost = {
        after: 100 * (_share(beside[first], "edge") - _share(beside[after], "edge"))
        for after in order
    }
    fitting = [
        after
        for after in order
        if lost[after] <= EDGE_POINTS and beside[after].kv_writes <= beside[first].kv_writes
    ]
    choose = fitting[-1]
    told = choose if choose != first else order[1]
    fewer = 1 - beside[told].kv_writes / beside[first].kv_writes if beside[first].kv_writes else 0
    usd = beside[first].usd_kv - beside[told].usd_kv
    return choose, (
        f"choose {choose}: {told} writes {fewer:.0%} less to KV than {first} (USD {usd:,.2f}) and "
        f"moves {max(lost[told], 0):.1f} points of the hits from the edge to the origin."
    )


def _semantic(
    beside: Mapping[Any, Tally],
    base: Any,
    priced: bool,  # noqa: FBT001
) -> tuple[str | None, str]:
    others = [mode for mode in beside if mode != "off"]
    if not others:
        return None, "was not replayed (--semantic strict does, at some milliseconds a miss)."
    if "off" not in beside:
        return base, "was not replayed without."
    best = max(others, key=lambda mode: _value(beside[mode], priced=priced))
    points = _points(beside[best], beside["off"])
    choose = best if points >= WORTHWHILE_POINTS else "off"
    return choose, f"choose `{choose}`: `{best}` {_more(points)} beyond exact match."


_ADVISERS = {
    "ttl_s": _ttl,
    "normalisation": _normalisation,
    "admit_after": _admission,
    "semantic": _semantic,
}


def _setting(cache: CacheReplay, base: Setting, *, priced: bool) -> dict[str, Any]:
    tally = cache.tally
    requests = tally.requests
    without = tally.usd_without
    return {
        "name": label(cache.setting, base),
        **_named(cache.setting),
        "hit_rate": _rounded(tally.hit_rate),
        "requests": {name: round(tally.outcomes[name], 2) for name in OUTCOMES},
        "shares": {
            name: _rounded(tally.outcomes[name] / requests if requests else None)
            for name in OUTCOMES
        },
        "stale_hits": round(tally.stale),
        "promoted_hits": round(tally.matched),
        "refreshes": round(tally.refreshes),
        "tokens": {
            "saved": _tokens(tally.saved),
            "spent": _tokens(tally.spent),
            "refreshed": _tokens(tally.refreshed),
        },
        "usd": {
            "without_cache": _money(without, priced=priced),
            "saved": _money(tally.saved.usd, priced=priced),
            "spent": _money(tally.spent.usd, priced=priced),
            "refreshed": _money(tally.refreshed.usd, priced=priced),
            "kv": round(tally.usd_kv, 6),
        },
        "cut": _rounded(tally.net_usd / without if priced and without else None),
        "kv": {"reads": round(tally.kv_reads), "writes": round(tally.kv_writes)},
        "l1": {
            "reads": round(tally.l1_reads),
            "writes": round(tally.l1_writes),
            "peak_bytes": cache.l1.peak_bytes,
        },
    }


def _named(setting: Setting) -> dict[str, Any]:
    return {name: getattr(setting, name) for name in CHOICES}


def _time(facts: LogFacts, time_ms: int) -> str | None:
    """The time, None where the log has none of its own."""
    if facts.untimed == facts.requests:
        return None
    try:
        moment = datetime.fromtimestamp(time_ms / 1000, UTC)
    except (ValueError, OverflowError, OSError):
        return None
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _value(tally: Tally, *, priced: bool) -> float:
    return tally.net_usd if priced else tally.net_tokens


def _share(tally: Tally, outcome: Any) -> float:
    return tally.outcomes[outcome] / (tally.requests or 1)


def _points(one: Tally, other: Tally) -> float:
    return 100 * ((one.hit_rate or 0) - (other.hit_rate or 0))


def _more(points: float) -> str:
    return f"adds {points:.1f} points" if points >= 0.05 else "adds nothing"


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.1%}"


def _rounded(share: float | None) -> float | None:
    return None if share is None else round(share, 6)


def _tokens(tokens: Tokens) -> dict[str, int]:
    return {"prompt": round(tokens.prompt), "completion": round(tokens.completion)}


def _money(usd: float, *, priced: bool) -> float | None:
    return round(usd, 6) if priced else None
