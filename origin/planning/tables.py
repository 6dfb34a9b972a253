"""A report as a terminal shows it: a table of the settings, and a sentence for each choice."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from rich.console import Console

    from origin.planning.log import Bad

SHOWN_BAD = 5


def show(found: Mapping[str, Any], name: str, bad: Bad, *, out: Console, err: Console) -> None:
    """Print what a replay came to; lines that are no requests go to `err`."""
    said = found["log"]
    out.print(Text(_log_words(said, name)), soft_wrap=True)
    for number, why in bad.lines[:SHOWN_BAD]:
        err.print(f"{name}:{number}: {why}", markup=False, highlight=False, soft_wrap=True)
    if bad.count > SHOWN_BAD:
        err.print(f"{name}: {bad.count:,} lines in all are no requests", highlight=False)
    if not said["requests"]:
        return
    out.print(_table(found))
    if said["without_price"]:
        words = f"money is unknown of {said['without_price']:,} requests: set ENCORE_PRICES"
        out.print(Text(words, "dim"))
    if any(kept < 1 for kept in said["keys_kept"].values()):
        least = min(said["keys_kept"].values())
        out.print(Text(f"estimated from every {round(1 / least)}th key", "dim"))
    for each in found["advice"].values():
        out.print(Text(each["why"]), soft_wrap=True)


def _log_words(said: Mapping[str, Any], name: str) -> str:
    words = [f"{name}: {said['requests']:,} requests over {said['hours']:,.1f} h"]
    if said["bad_lines"]:
        words.append(f"{said['bad_lines']:,} lines that are none")
    if said["without_time"]:
        words.append(f"{said['without_time']:,} without a time (--rate)")
    if said["out_of_order"]:
        words.append(f"{said['out_of_order']:,} out of order")
    if said["tokens_estimated"]:
        words.append(f"tokens of {said['tokens_estimated']:,} estimated")
    return ", ".join(words)


def _table(found: Mapping[str, Any]) -> Table:
    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("", overflow="fold")
    names = (
        "hit\nrate",
        "edge",
        "L1",
        "mean-\ning",
        "joined",
        "model",
        "tokens\nsaved",
        "USD\nsaved",
    )
    for title in (*names, "cost\ncut", "KV\nreads", "KV\nwrites", "L1\npeak"):
        table.add_column(title, justify="right", no_wrap=True)
    for each in found["settings"]:
        shares, tokens, usd = each["shares"], each["tokens"], each["usd"]
        net = sum(tokens["saved"].values()) - sum(tokens["refreshed"].values())
        saved = None if usd["saved"] is None else usd["saved"] - usd["refreshed"]
        table.add_row(
            Text(each["name"]),
            _percent(each["hit_rate"]),
            *(_percent(shares[tier]) for tier in ("edge", "l1", "semantic", "joined", "model")),
            _short(net),
            "-" if saved is None else f"{saved:,.2f}",
            _percent(each["cut"]),
            _short(each["kv"]["reads"]),
            _short(each["kv"]["writes"]),
            f"{each['l1']['peak_bytes'] / 2**20:,.0f} MiB",
        )
    return table


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.1%}"


def _short(number: float) -> str:
    """A number in four characters or so."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(number) >= size:
            return f"{number / size:.1f} {unit}"
    return f"{number:.0f}"
