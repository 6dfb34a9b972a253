"""What the operator's guide computes and links to."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.metrics import MetricWrapperBase
from typer.main import get_command

import origin.metrics
from origin.cli import app
from origin.settings import Settings, variable

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


def sources() -> str:
    """All of the product's own Python."""
    folders = (ROOT / "shared", ROOT / "worker", ROOT / "origin")
    return "\n".join(path.read_text("utf-8") for each in folders for path in each.rglob("*.py"))


def edge_variables() -> set[str]:
    """What the Worker reads."""
    return set(re.findall(r'"(ENCORE_\w+)"', (ROOT / "worker" / "edge_settings.py").read_text()))


def test_every_setting_that_is_named_exists() -> None:
    """In the README, the pages and the changelog; `ENCORE_API_KEY` is the commands'."""
    known = {variable(name) for name in Settings.model_fields} | edge_variables()
    for page in (*PAGES, ROOT / "CHANGELOG.md"):
        named = set(re.findall(r"\bENCORE_[A-Z0-9_]+\b", page.read_text("utf-8")))
        assert named <= known | {"ENCORE_API_KEY"}, page.name


def test_the_edges_variables_are_all_in_the_guide() -> None:
    """And the table has no others."""
    table = OPERATIONS[OPERATIONS.index("## Deploy the edge") :]
    table = table[: table.index("### What the edge does")]
    assert set(re.findall(r"^\| `(ENCORE_\w+)` ", table, re.MULTILINE)) == edge_variables()


def test_metrics_of_the_guide_are_those_there_are() -> None:
    """By name and labels; and no page names another one."""
    said = {
        name: {label for label in labels.split(", ") if label}
        for names, labels in re.findall(r"^\| (`encore_.*`) \| (.*?) ?\|", OPERATIONS, re.MULTILINE)
        for name in re.findall(r"`(\w+)`", names)
    }
    made = {
        metric._name + ("_total" if metric._type == "counter" else ""): set(metric._labelnames)
        for metric in vars(origin.metrics).values()
        if isinstance(metric, MetricWrapperBase)
    }
    assert said == made
    series = {name + suffix for name in made for suffix in ("", "_count", "_sum", "_bucket")}
    for page in (*PAGES, ROOT / "CHANGELOG.md"):
        assert set(re.findall(r"\bencore_\w+\b", page.read_text("utf-8"))) <= series, page.name


def test_every_error_code_that_is_named_exists() -> None:
    """As `503 `overloaded``, and the details of `Cache-Status`."""
    product = sources()
    for page in PAGES:
        text = page.read_text("utf-8")
        named = re.findall(r"\b[45]\d\d `(\w+)`", text) + re.findall(r"`detail=([\w-]+)`", text)
        assert [name for name in named if f'"{name}"' not in product] == [], page.name


def commands_named(text: str) -> list[str]:
    """What stands behind `encore` in blocks of shell, and between single backticks."""
    blocks = re.findall(r"```(?:sh|bash)\n(.*?)```", text, re.DOTALL)
    lines = [line.partition("#")[0] for block in blocks for line in block.splitlines()]
    inline = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    return [
        *(found for line in lines for found in re.findall(r"(?:^|\| )encore ([^|]+)", line)),
        *re.findall(r"`encore ([^`]+)`", inline),
    ]


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CHANGELOG.md"], ids=lambda page: page.name)
def test_every_command_and_option_that_is_named_exists(page: Path) -> None:
    """As the command line itself knows them."""
    for named in commands_named(page.read_text("utf-8")):
        command: Any = get_command(app)
        for word in named.replace("|", " ").split():
            if word in getattr(command, "commands", {}):
                command = command.commands[word]
        command = getattr(command, "commands", {}).get("request", command)  # `explain` alone
        assert command.name, named
        options = {option for each in command.params for option in each.opts + each.secondary_opts}
        assert set(re.findall(r"(?<!\S)\[?(--[a-z-]+)", named)) <= options, named


def test_environment_of_the_guide_names_all_that_is_not_inherited() -> None:
    """Bindings and variables that wrangler.toml has at its top level."""
    top = tomllib.loads((ROOT / "wrangler.toml").read_text())
    (block,) = re.findall(r"```toml\n(\[env\.staging\.vars\].*?)```", OPERATIONS, re.DOTALL)
    staging = tomllib.loads(block)["env"]["staging"]
    assert set(staging["vars"]) == set(top["vars"])
    bound = {name: {one["binding"] for one in top[name]} for name in ("kv_namespaces",)}
    assert {name: {one["binding"] for one in staging[name]} for name in bound} == bound
