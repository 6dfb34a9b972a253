"""`encore kv-size`: what a model's key-value cache takes, before anybody buys the memory."""

from __future__ import annotations

import json
import logging
import re
import sys
from collections import Counter
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from origin.control_commands import CommandError
from origin.settings import SettingsError, load_settings

if TYPE_CHECKING:
    from origin.engine.kv_size import KvSize, LayerSize

MOST_TOKENS = 2**40
_UNITS = {
    "B": 1,
    **{f"{letter}B": 10 ** (3 * power) for power, letter in enumerate("kMGT", 1)},
    **{f"{letter}iB": 2 ** (10 * power) for power, letter in enumerate("KMGT", 1)},
}
out = Console()


def kv_size(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL", help="A folder or hub id with a config.json; or encore-demo."
        ),
    ],
    *,
    batch: Annotated[int, typer.Option(min=1, max=2**20, help="Sequences at a time.")] = 1,
    tokens: Annotated[
        int | None,
        typer.Option(
            min=1, max=MOST_TOKENS, help="Tokens of each; by default the longest context."
        ),
    ] = None,
    dtype: Annotated[
        Literal["float32", "bfloat16", "float16"] | None,
        typer.Option(help="By default what the engine would choose on this machine."),
    ] = None,
    window: Annotated[
        int | None,
        typer.Option(min=1, max=MOST_TOKENS, help="As with ENCORE_CONTEXT_WINDOW: tokens held."),
    ] = None,
    sink: Annotated[
        int, typer.Option(min=0, help="As with ENCORE_CONTEXT_SINK: first tokens that never go.")
    ] = 4,
    memory: Annotated[
        str | None,
        typer.Option(
            metavar="8GiB",
            help="Say how many such sequences fit into this; by default into the prefix cache.",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print all of it as JSON.")] = False,
) -> None:
    """Say how many bytes of keys and values MODEL holds, from its config alone."""
    memory_bytes = None if memory is None else bytes_of("--memory", memory)
    size = _measured(model, dtype)
    if memory_bytes is None:
        memory_bytes = _prefix_cache_bytes()
    if window is not None:
        _check_window(size, window, sink)
    limit = size.context_tokens
    if tokens is None and limit is None:
        raise CommandError(f"{model}: its config names no longest context; give --tokens")
    if tokens is not None and limit is not None and tokens > limit and window is None:
        raise CommandError(f"--tokens {tokens}: beyond the model's context of {limit} tokens")
    tokens = tokens or limit or 0
    report = {"model": model} | _report(
        size, batch=batch, tokens=tokens, window=window, memory_bytes=memory_bytes
    )
    if as_json:
        sys.stdout.write(json.dumps(report, ensure_ascii=False, indent=2) + "\n")
        return
    for part in _shown(size, report, is_memory_given=memory is not None):
        out.print(part)


def bytes_of(option: str, text: str) -> int:
    """The bytes that `text` says, such as 8GiB. Raises CommandError naming the option."""
    found = re.fullmatch(r"([0-9]{1,15}(?:\.[0-9]{1,15})?) ?([A-Za-z]+)", text)
    unit = found and _UNITS.get(found[2])
    if found is None or unit is None:
        raise CommandError(f"{option} {text!r}: not a number with a unit of {', '.join(_UNITS)}")
    return int(float(found[1]) * unit)


def _measured(model: str, dtype: str | None) -> KvSize:
    """The sizes of a model's cache. Raises CommandError."""
    # Its words about retries would be more than the one line that says what is wrong.
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    import torch  # noqa: PLC0415 - quick start

    from origin.engine.kv_size import KvSize, KvSizeError  # noqa: PLC0415

    try:
        return KvSize.of(model, None if dtype is None else getattr(torch, dtype))
    except KvSizeError as error:
        raise CommandError(f"{model}: {error}") from error


def _prefix_cache_bytes() -> int:
    """What the prefix cache of an origin with these settings may hold on this machine."""
    import torch  # noqa: PLC0415 - quick start

    from origin.engine.transformers_engine import default_limit_bytes  # noqa: PLC0415

    try:
        told = load_settings().prefix_cache_bytes
    except SettingsError:  # no origin would start; what a model takes is known all the same
        told = None
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return default_limit_bytes(device) if told is None else told


def _check_window(size: KvSize, window: int, sink: int) -> None:
    """Raise CommandError where the engine would refuse to generate in this window."""
    from origin.engine.context_window import ContextWindow, check_window  # noqa: PLC0415

    try:
        check_window(ContextWindow(tokens=window, sink=sink), size.config)
    except ValueError as error:
        raise CommandError(f"--window {window}: {error}") from error


def _report(
    size: KvSize, *, batch: int, tokens: int, window: int | None, memory_bytes: int
) -> dict[str, Any]:
    seen = tokens if window is None else min(tokens, window)
    return {
        "dtype": str(size.dtype).removeprefix("torch."),
        "batch": batch,
        "tokens": tokens,
        "window": window,
        "bytes": size.size_bytes(seen, batch),
        "bytes_without_window": size.size_bytes(tokens, batch),
        "bytes_per_token": size.size_bytes(1),
        # Beyond their windows sliding layers no longer grow; in a context window nothing does.
        "bytes_per_further_token": size.size_bytes(tokens + 1) - size.size_bytes(tokens)
        if seen == tokens and window != tokens
        else 0,
        "layers": [
            {
                "kind": layer.kind,
                "heads": layer.heads,
                "key_dim": layer.key_dim,
                "value_dim": layer.value_dim,
                "tokens_held": layer.held_tokens(seen),
                "bytes_per_token": size.layer_bytes(layer, 1),
                "bytes": size.layer_bytes(layer, seen, batch),
            }
            for layer in size.layers
        ],
        "memory_bytes": memory_bytes,
        "sequences_in_memory": memory_bytes // size.size_bytes(seen),
    }


def _shown(size: KvSize, report: dict[str, Any], *, is_memory_given: bool) -> list[Table | Text]:
    """The report in one look. Names are text, never markup."""
    batch, tokens, window = report["batch"], report["tokens"], report["window"]
    many = "1 sequence" if batch == 1 else f"{batch:,} sequences"
    table = Table(
        title=Text(f"{report['model']}: {many} of {tokens:,} tokens in {report['dtype']}", "bold"),
        title_justify="left",
        show_footer=True,
    )
    table.add_column("layers", f"{len(size.layers)}", justify="right")
    table.add_column("attention", "in all")
    table.add_column("heads x (key + value)", justify="right")
    table.add_column("tokens held", justify="right")
    table.add_column("a token", _human(report["bytes_per_token"]), justify="right")
    table.add_column("in all", _human(report["bytes"]), justify="right")
    seen = tokens if window is None else min(tokens, window)
    for layer, count in Counter(size.layers).items():
        table.add_row(*_row(size, layer, count, seen, batch))
    said: list[Table | Text] = [table]
    if window is None:
        more = report["bytes_per_further_token"]
        said.append(
            Text(f"{report['bytes']:,} bytes. Each further token of one sequence: {more:,} bytes.")
        )
    else:
        without = report["bytes_without_window"]
        saved = 1 - report["bytes"] / without
        said.append(
            Text(
                f"{report['bytes']:,} bytes, and never more, however long the answer: "
                f"{_human(without)} without the window of {window:,} tokens "
                f"({saved:.1%} saved at {tokens:,} tokens)."
            )
        )
    where = "--memory" if is_memory_given else "The prefix cache"
    memory, fit = _human(report["memory_bytes"]), report["sequences_in_memory"]
    said.append(Text(f"{where} of {memory}: room for {fit:,} such sequences."))
    return said


def _row(size: KvSize, layer: LayerSize, count: int, seen: int, batch: int) -> tuple[str, ...]:
    if layer.kind == "shared":
        return f"{count}", "another layer's", "", "0", "0 B", "0 B"
    kind: str = layer.kind
    if layer.limit_tokens is not None:
        kind = f"{kind} {layer.limit_tokens + 1:,}"
    return (
        f"{count}",
        kind,
        f"{layer.heads} x ({layer.key_dim} + {layer.value_dim})",
        f"{layer.held_tokens(seen):,}",
        _human(count * size.layer_bytes(layer, 1)),
        _human(count * size.layer_bytes(layer, seen, batch)),
    )


def _human(size_bytes: int) -> str:
    """At most four digits and a binary unit."""
    if size_bytes < 2**10:
        return f"{size_bytes} B"
    unit = min(4, (size_bytes.bit_length() - 1) // 10)
    return f"{size_bytes / 2 ** (10 * unit):.1f} {'KMGT'[unit - 1]}iB"
