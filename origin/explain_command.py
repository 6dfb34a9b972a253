"""`encore explain REQUEST.json`: why a request is answered as it is; `encore explain semantic A B`.

A client like any other, with a tenant's admin key: it asks `POST /cache/explain`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text
from typer.core import TyperGroup

from origin.client_target import client_target
from origin.control_commands import CommandError
from origin.semantic_commands import explain_semantic

TIMEOUT_S = 30.0
SHOWN_CANONICAL_CHARACTERS = 600
SHOWN_TEXT_CHARACTERS = 60
_ENDPOINT_OF = {
    "messages": "/v1/chat/completions",
    "prompt": "/v1/completions",
    "input": "/v1/embeddings",
}
_STYLES = {"hit": "green", "stale": "yellow", "refuse": "red"}
out = Console()


class _Group(TyperGroup):
    """What is no subcommand is a file."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args and args[0] not in self.commands:
            args = ["request", *args]
        return super().resolve_command(ctx, args)

    def parse_args(self, ctx: Any, args: list[str]) -> Any:
        # Options of `request` may come before the file.
        if args and args[0] not in self.commands and args[0] not in {"--help", "-h"}:
            args = ["request", *args]
        return super().parse_args(ctx, args)


explain_app = typer.Typer(
    cls=_Group,
    help="Say why something is decided as it is: `encore explain REQUEST.json`.",
    no_args_is_help=True,
)
explain_app.command("semantic")(explain_semantic)


@explain_app.command("request")
def explain_request(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="REQUEST.json",
            help="A request's body, or a line of `encore warm`'s files; `-` reads standard input.",
        ),
    ],
    *,
    header: Annotated[
        list[str] | None,
        typer.Option(metavar="'NAME: VALUE'", help="Cache-Control or Encore-*; may be repeated."),
    ] = None,
    base_url: Annotated[
        str | None, typer.Option(help="Edge or origin; by default ENCORE_EDGE_URL or the origin.")
    ] = None,
    api_key: Annotated[
        str | None, typer.Option(envvar="ENCORE_API_KEY", help="An admin key of the tenant.")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print what POST /cache/explain answers.")
    ] = False,
) -> None:
    """Say how REQUEST.json is keyed, what each tier would do with it, and why.

    Nothing is generated or changed.
    """
    request = _request(file, header or [])
    url, key = client_target(base_url, api_key)
    told = _ask(url, key, request)
    if as_json:
        sys.stdout.write(json.dumps(told, ensure_ascii=False, indent=2) + "\n")
        return
    for part in _shown(told):
        out.print(part)


def _request(file: Path, headers: Iterable[str]) -> dict[str, Any]:
    """What to send. Raises CommandError."""
    try:
        raw = sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes()
        fields = json.loads(raw)
    except OSError as error:
        raise CommandError(f"{file}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise CommandError(f"{file}: this is not JSON ({error})") from error
    if not isinstance(fields, dict):
        raise CommandError(f"{file}: a request is a JSON object")
    if "body" not in fields:
        endpoint = next((path for name, path in _ENDPOINT_OF.items() if name in fields), None)
        if endpoint is None:
            raise CommandError(
                f"{file}: no request's body: there is no 'messages', 'prompt' or 'input' in it"
            )
        fields = {"endpoint": endpoint, "body": fields}
    given = dict(fields.get("headers") or {})
    for line in headers:
        name, colon, value = line.partition(":")
        if not colon:
            raise CommandError(f"--header {line!r}: a header is 'NAME: VALUE'")
        given[name.strip()] = value.strip()
    return fields | {"headers": given}


def _ask(url: str, key: str, request: Mapping[str, Any]) -> dict[str, Any]:
    import httpx  # noqa: PLC0415 - quick start

    try:
        response = httpx.post(
            f"{url}/cache/explain",
            json=request,
            headers={"authorization": f"Bearer {key}"},
            timeout=TIMEOUT_S,
        )
    except httpx.HTTPError as error:
        raise CommandError(
            f"{url}: nobody answers there ({type(error).__name__}); is it running, and --base-url "
            "right?"
        ) from error
    try:
        said = response.json()
    except ValueError:
        said = {}
    if not response.is_success:
        error_said = said.get("error") or {}
        where = f"{error_said['param']}: " if error_said.get("param") else ""
        raise CommandError(
            f"{url}: {response.status_code}: {where}{error_said.get('message', 'no explanation')}"
        )
    return dict(said)


def _shown(told: Mapping[str, Any]) -> Iterable[Table | Text]:
    """One screen. What is quoted is text, never markup."""
    by = {"l1": "from Redis", "semantic": "by another question's answer", "engine": "by the model"}
    answered = by.get(told["answered_by"] or "", "not at all")
    yield Text(f"{told['endpoint']} of {told['tenant']}: answered {answered}", "bold")
    keyed = f"key {told['short_key'] or 'none'} ({told['strategy']})"
    yield Text(f"{keyed}, of {', '.join(told['in_key'])}")
    if told["left_out"]:
        yield Text(f"left out: {', '.join(told['left_out'])}")
    if told["unstorable"] is not None:
        yield Text(f"its answer is not kept: {told['unstorable']}", "yellow")
    tiers = Table("tier", "would", "why", box=None, title_justify="left", pad_edge=False)
    for tier in told["tiers"]:
        would = Text(tier["would"], _STYLES.get(tier["would"], ""))
        tiers.add_row(tier["tier"], would, Text(tier["why"]))
    yield tiers
    for tier in told["tiers"]:
        if entry := tier.get("entry"):
            yield _entry(entry)
        if neighbours := tier.get("neighbours"):
            yield _neighbours(neighbours)
    text = told["canonical"]
    if len(text) > SHOWN_CANONICAL_CHARACTERS:
        text = f"{text[:SHOWN_CANONICAL_CHARACTERS]}… ({len(text)} characters; --json has all)"
    yield Text(f"canonical form: {text}", "dim")


def _entry(entry: Mapping[str, Any]) -> Table:
    table = Table(box=None, title="Entry in Redis", title_justify="left", show_header=False)
    for name, value in entry.items():
        if value is not None:
            shown = json.dumps(value) if isinstance(value, dict) else str(value)
            table.add_row(name.replace("_", " "), Text(shown))
    return table


def _neighbours(neighbours: Iterable[Mapping[str, Any]]) -> Table:
    table = Table(
        "cosine",
        "score",
        "verdict",
        "question",
        box=None,
        title="Nearest questions",
        title_justify="left",
    )
    for each in neighbours:
        why = each["why"]
        if each.get("conflicts"):
            why = "; ".join(
                f"{conflict['rule']}: {conflict['asked'] or '-'} / {conflict['known'] or '-'}"
                for conflict in each["conflicts"]
            )
        text = each["text"][:SHOWN_TEXT_CHARACTERS]
        verdict = each["verdict"] if each["verdict"] == "served" else f"refused: {why}"
        table.add_row(
            _number(each.get("similarity")), _number(each.get("score")), Text(verdict), Text(text)
        )
    return table


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"
