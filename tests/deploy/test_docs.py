"""What the operator's guide computes and links to."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
OPERATIONS = (ROOT / "docs" / "operations.md").read_text("utf-8")
# USD: a million requests, a million ms of CPU, a million KV reads, a million KV writes.
REQUESTS, CPU, READS, WRITES = 0.30, 0.02, 0.50, 5.00
HIT_MS, MISS_MS = 3, 11


def anchors(page: Path) -> set[str]:
    """The names of a page's headings, as GitHub makes them."""
    text = re.sub(r"```.*?```", "", page.read_text("utf-8"), flags=re.DOTALL)
    return {
        re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")
        for heading in re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    }


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_to_a_heading_leads_to_one(page: Path) -> None:
    """Of this page or another."""
    for target, anchor in re.findall(r"\]\(([\w./-]*)#([\w-]+)\)", page.read_text("utf-8")):
        other = (page.parent / target).resolve() if target else page
        assert anchor in anchors(other), f"{target}#{anchor}"


def test_cost_per_million_requests_is_what_the_prices_make() -> None:
    """Each row of the table, to the cent, by the prices and times beside it."""
    rows = re.findall(
        r"^\| (\d+) % \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \|$",
        OPERATIONS,
        re.MULTILINE,
    )
    assert len(rows) >= 3
    for percent, *said in rows:
        hits = int(percent) / 100
        parts = [
            REQUESTS,
            CPU * (HIT_MS * hits + MISS_MS * (1 - hits)),
            READS,
            WRITES * (1 - hits),
        ]
        assert [float(value) for value in said] == pytest.approx([*parts, sum(parts)], abs=0.0051)
    assert f"{CPU} × ({HIT_MS} *h* + {MISS_MS} (1 − *h*))" in OPERATIONS  # noqa: RUF001 - as printed
    for price in (f"{REQUESTS:.2f}", f"{CPU:.2f}", f"{READS:.2f}", f"{WRITES:.2f}"):
        assert re.search(rf"\| {price} a million", OPERATIONS)


def test_environment_of_the_guide_names_all_that_is_not_inherited() -> None:
    """Bindings and variables that wrangler.toml has at its top level."""
    top = tomllib.loads((ROOT / "wrangler.toml").read_text())
    (block,) = re.findall(r"```toml\n(\[env\.staging\.vars\].*?)```", OPERATIONS, re.DOTALL)
    staging = tomllib.loads(block)["env"]["staging"]
    assert set(staging["vars"]) == set(top["vars"])
    bound = {name: {one["binding"] for one in top[name]} for name in ("kv_namespaces",)}
    assert {name: {one["binding"] for one in staging[name]} for name in bound} == bound
