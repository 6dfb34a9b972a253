"""`encore stats`: what the cache has done, read from Redis as `GET /cache/stats` does."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Iterable, Mapping
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from origin.control_commands import NO_REDIS, CommandError
from origin.settings import Settings, load_settings
from origin.stores.control_contract import EVERY_TENANT
from shared.counts import OUTCOMES, STRATEGIES, TIERS
from shared.keys import check_tenant

TIMEOUT_S = 5.0
SHOWN_KEYS = 10
CENTS_BELOW_USD = 1000
_UNITS = (("T", 10**12), ("G", 10**9), ("M", 10**6), ("k", 10**3))
out = Console()


def stats(
    tenant: Annotated[
        str, typer.Argument(metavar="TENANT", help="Whose; by default all tenants'.")
    ] = EVERY_TENANT,
    *,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print what GET /cache/stats answers.")
    ] = False,
) -> None:
    """Show what the cache has done for TENANT: hits, latency, tokens and money saved."""
    settings = load_settings()
    try:
        tenant = tenant if tenant == EVERY_TENANT else check_tenant(tenant)
    except ValueError as error:
        raise CommandError(f"TENANT: {error}") from error
    report = _read(settings, tenant)
    if as_json:
        sys.stdout.write(json.dumps(report, ensure_ascii=False, indent=2) + "\n")
        return
    for part in _shown(report):
        out.print(part)


def short(count: int) -> str:
    """At most six characters of a count, so that a row fits into 80 columns."""
    if count < 100_000:
        return f"{count:,}"
    unit, size = next(each for each in _UNITS if count >= each[1])
    digits = str(count)[:3]
    whole = len(str(count // size))
    return f"{digits[:whole]}{'.' if whole < len(digits) else ''}{digits[whole:]} {unit}"


def _read(settings: Settings, tenant: str) -> dict[str, Any]:
    from origin.embedded_redis import redis_for  # noqa: PLC0415 - quick start
    from origin.stores.contract import StoreError  # noqa: PLC0415
    from origin.stores.redis_usage import RedisUsageStore  # noqa: PLC0415
    from origin.usage_report import Terms, read_report  # noqa: PLC0415

    terms = Terms(prices=settings.prices, tiers=settings.tiers, lifetimes=settings.lifetimes)

    async def run(url: str) -> dict[str, Any]:
        store = RedisUsageStore.from_url(url, prefix=settings.key_prefix, timeout_s=TIMEOUT_S)
        try:
            return await read_report(store, tenant, terms)
        finally:
            await store.close()

    try:
        with redis_for(settings) as url:
            return asyncio.run(run(url))
    except StoreError as error:
        raise CommandError(NO_REDIS) from error


def _shown(report: Mapping[str, Any]) -> Iterable[Table | Text]:
    """The report as tables. Names are text, never markup."""
    every = report["tenant"] == EVERY_TENANT
    whose = "All tenants" if every else report["tenant"]
    if report["since"] is None:
        hint = "" if every else f"; `encore keys list {whose}` says if there is such a tenant"
        yield Text(f"{whose}: nothing counted yet{hint}.")
        return
    asked = report["hits"] + report["misses"]
    yield Text(
        f"{whose} since {report['since']}, approximately: {report['hits']:,} of {asked:,} requests "
        f"answered from the cache ({_percent(report['hit_rate'])})",
        "bold",
    )
    yield _tiers(report)
    yield _models(report)
    if every:
        yield _rates("tenant", report["tenants"])
    if report["classes"]:
        yield _rates("class", report["classes"])
    earned = [f"{name} {sum(report['strategies'][name].values()):,}" for name in STRATEGIES]
    yield Text(f"Hits by key strategy: {', '.join(earned)}")
    if report["top_keys"]:
        yield _keys(report["top_keys"][:SHOWN_KEYS])
    if report["ttl_advice"]:
        yield _advice(report["ttl_advice"])


def _tiers(report: Mapping[str, Any]) -> Table:
    table = Table("", *TIERS, title="Tiers", title_justify="left")
    for column in table.columns[1:]:
        column.justify = "right"
    tiers = [report[tier] for tier in TIERS]
    table.add_row("requests", *(f"{tier['requests']:,}" for tier in tiers))
    for outcome in OUTCOMES:
        name = outcome.replace("_", " ")
        table.add_row(f"  {name}", *(f"{tier['outcomes'][outcome]:,}" for tier in tiers))
    table.add_row("hit rate", *(_percent(tier["hit_rate"]) for tier in tiers))
    for speed in ("hit", "miss"):
        for percentile in ("p50", "p90", "p99"):
            bounds = [_at_most(tier["latency_ms"][speed], percentile) for tier in tiers]
            table.add_row(f"{speed} {percentile}", *bounds)
    table.add_row("bytes from entries", *(f"{tier['bytes']:,}" for tier in tiers))
    return table


def _models(report: Mapping[str, Any]) -> Table:
    table = Table(title="Models", title_justify="left")
    table.add_column("model", overflow="fold", min_width=12)
    sums = [f"{unit}\n{what}" for unit in ("tokens", "USD") for what in ("saved", "spent")]
    for name in ("hits", "hit\nrate", *sums):
        table.add_column(name, justify="right", no_wrap=True)

    def row(label: str, of: Mapping[str, Any]) -> None:
        tokens = [short(sum(of["tokens"][what].values())) for what in ("saved", "spent")]
        usd = [_usd(of["usd"], what) for what in ("saved", "spent")]
        table.add_row(Text(label), f"{of['hits']:,}", _percent(of["hit_rate"]), *tokens, *usd)

    for name, model in report["models"].items():
        row(name, model)
    table.add_section()
    row("all", report)
    return table


def _rates(title: str, named: Mapping[str, Mapping[str, Any]]) -> Table:
    table = Table(title)
    for name in ("hits", "misses", "hit rate"):
        table.add_column(name, justify="right")
    for label, each in named.items():
        rate = _percent(each["hit_rate"])
        table.add_row(Text(label), f"{each['hits']:,}", f"{each['misses']:,}", rate)
    return table


def _keys(keys: Iterable[Mapping[str, Any]]) -> Table:
    table = Table("key", "tenant", title="Keys hit most", title_justify="left")
    table.add_column("hits", justify="right")
    table.add_column("last (UTC)")
    for key in keys:
        table.add_row(key["key"], key["tenant"], f"{key['hits']:,}", key["last"])
    return table


def _advice(advice: Iterable[Mapping[str, Any]]) -> Table:
    table = Table("model", "class", title="TTL that covers 90 % of reuses", title_justify="left")
    for name in ("seconds", "present", "it covers", "reuses seen"):
        table.add_column(name, justify="right")
    for each in advice:
        advised_s = "more than 30 days" if each["ttl_s"] is None else f"{each['ttl_s']:,}"
        table.add_row(
            Text(each["model"]),
            each["class"] or "",
            advised_s,
            f"{each['present_ttl_s']:,}",
            _percent(each["present_share"]),
            f"{each['observations']:,}",
        )
    return table


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{share:.1%}"  # noqa: RUF001 - a dash for nothing


def _at_most(latency: Mapping[str, Any], percentile: str) -> str:
    if not latency["count"]:
        return "–"  # noqa: RUF001
    bound_ms = latency[percentile]
    return "> 60,000 ms" if bound_ms is None else f"≤ {bound_ms:g} ms"


def _usd(usd: Mapping[str, float] | None, what: str) -> str:
    if usd is None:
        return "–"  # noqa: RUF001
    return f"{usd[what]:,.4f}" if usd[what] < CENTS_BELOW_USD else f"{usd[what]:,.0f}"
