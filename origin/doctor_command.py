"""`encore doctor`: what is wrong with this deployment, and the fix."""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.text import Text

from origin.settings import SettingsError, http_url, load_settings

if TYPE_CHECKING:
    from origin.doctor import Finding

EXIT_FAULT = 1
_MARKS = {
    "ok": ("✓", "green"),
    "note": ("·", "dim"),
    "warning": ("!", "yellow"),
    "fault": ("✗", "red"),
}
out = Console()


def doctor(
    *,
    edge: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Where the edge is; by default ENCORE_EDGE_URL."),
    ] = None,
    load: Annotated[
        bool, typer.Option("--load", help="Load the local model too, and let it say a token.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False,
) -> None:
    """Look at settings, Redis, model, encoder, origin and edge, and say how to mend what is wrong.

    The exit status is 1 where there is a fault. Nothing is changed.
    """
    found = asyncio.run(_examine(edge, load=load, show=not as_json))
    faults = sum(finding.state == "fault" for finding in found)
    warnings = sum(finding.state == "warning" for finding in found)
    if as_json:
        sys.stdout.write(json.dumps([asdict(finding) for finding in found], indent=2) + "\n")
    else:
        style = "bold red" if faults else "bold green"
        out.print(Text(f"{_number(faults, 'fault')}, {_number(warnings, 'warning')}.", style))
    if faults:
        raise typer.Exit(EXIT_FAULT)


async def _examine(edge: str | None, *, load: bool, show: bool) -> list[Finding]:
    from origin.doctor import Finding, examine, of_settings  # noqa: PLC0415 - quick start

    found = []

    def take(finding: Finding) -> None:
        found.append(finding)
        if show:
            _show(finding)

    try:
        settings = load_settings()
        edge_url = None if edge is None else _edge_url(edge)
    except SettingsError as error:
        for finding in of_settings(error):
            take(finding)
        return found
    take(Finding(part="settings", state="ok", text=f"{settings.mode} mode, all are understood"))
    async for finding in examine(settings, edge_url=edge_url, load=load):
        take(finding)
    return found


def _edge_url(value: str) -> str:
    try:
        return http_url(value)
    except ValueError as error:
        raise SettingsError(f"--edge {value!r}: {error}; give a URL as https://HOST") from error


def _show(finding: Finding) -> None:
    mark, style = _MARKS[finding.state]
    line = Text.assemble((f"{mark} ", style), (finding.part, "bold"), f"  {finding.text}")
    out.print(line, soft_wrap=True)
    if finding.fix:
        out.print(Text(f"    fix: {finding.fix}", style), soft_wrap=True)


def _number(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"
