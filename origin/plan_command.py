"""`encore plan`: what the cache would do with a log of requests, setting beside setting.

It needs neither a running Encore nor its secret, and asks no model. The log is read line by line,
never whole. Nothing that it prints quotes a request.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import sys
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO

import typer
from rich.console import Console

from origin.control_commands import CommandError, duration_s
from origin.settings import Settings, load_settings
from shared.normalisation import PROFILES

if TYPE_CHECKING:
    from origin.planning.keying import Asked
    from origin.planning.replay import Replay
    from origin.planning.semantic import Decider
    from origin.planning.tally import Setting

DEFAULT_TTLS_S = (300, 3600, 86_400, 604_800)
DEFAULT_ADMISSIONS = (1, 2, 4)
MAX_SETTINGS = 64
EVERY = 100_000
"""Requests after which a line says how far it is, where there is no terminal."""
_SECRET = "a plan signs nothing; its keys are the same each time"  # noqa: S105
out = Console()
err = Console(stderr=True)


def plan(
    log: Annotated[
        str | None,
        typer.Argument(metavar="LOG", help="Requests with times, or prompts; gzip; - for stdin."),
    ] = None,
    *,
    ttl: Annotated[
        str | None, typer.Option(help="Lifetimes to compare: 300,1h,7d. The first is the base.")
    ] = None,
    normalisation: Annotated[
        str | None, typer.Option(help="Profiles to compare: exact,text,property.")
    ] = None,
    admit_after: Annotated[
        str | None, typer.Option(help="ENCORE_ADMIT_AFTER to compare: 1,2,4.")
    ] = None,
    semantic: Annotated[
        str, typer.Option(help="Semantic modes to compare: off,strict,0.005. Slow.")
    ] = "off",
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first so many.")] = None,
    prompts: Annotated[
        bool | None, typer.Option("--prompts/--requests", help="What a line is; else found out.")
    ] = None,
    tenant: Annotated[str, typer.Option(help="Whose requests, where the log says none.")] = "plan",
    model: Annotated[str, typer.Option(help="The model that a list of prompts asks.")] = "gpt-4o",
    rate: Annotated[
        float, typer.Option(min=1e-6, help="Requests a second, where the log has no times.")
    ] = 1.0,
    generation_s: Annotated[
        float, typer.Option(min=0, max=3600, help="How long a generation takes.")
    ] = 2.0,
    answer_tokens: Annotated[
        int, typer.Option(min=0, help="Tokens of an answer, where the log has no usage.")
    ] = 250,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Draw it: a .png, .svg or .pdf.")
    ] = None,
    generate: Annotated[
        int | None, typer.Option(min=1, help="Make up a log of so many requests instead.")
    ] = None,
    to: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="Where that goes; .gz packs it.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of --generate.")] = 1,
    zipf: Annotated[float, typer.Option(help="Of --generate: the exponent.")] = 1.0,
    questions: Annotated[
        int | None, typer.Option(min=1, help="Of --generate: how many there are.")
    ] = None,
    unique: Annotated[
        float, typer.Option(help="Of --generate: the share that nobody asks again.")
    ] = 0.2,
    reworded: Annotated[
        float, typer.Option(help="Of --generate: the share asked in other words.")
    ] = 0.3,
    tenants: Annotated[int, typer.Option(min=1, help="Of --generate.")] = 5,
    locations: Annotated[int, typer.Option(min=1, help="Of --generate: 6 at most.")] = 6,
    days: Annotated[float, typer.Option(help="Of --generate.")] = 7.0,
) -> None:
    """Replay LOG through the cache's own rules under several settings, and say which to choose.

    The settings of this folder and environment are the base; each line changes one choice of it.
    """
    if (log is None) == (generate is None):
        raise CommandError("name a log to replay, or --generate N --out FILE to make one up")
    if generate is not None:
        from origin.planning.generate import LogPlan  # noqa: PLC0415 - quick start

        if to is None:
            raise CommandError("--generate needs --out FILE: where the log goes")
        try:
            made_up = LogPlan(
                requests=generate,
                seed=seed,
                zipf=zipf,
                questions=questions,
                unique=unique,
                reworded=reworded,
                tenants=tenants,
                locations=locations,
                days=days,
            )
        except ValueError as error:
            raise CommandError(f"--generate: {error}") from error
        _generate(made_up, to)
        return
    from origin.planning.keying import Keying, Rules  # noqa: PLC0415
    from origin.planning.log import Bad, Reading, are_prompts, numbered  # noqa: PLC0415
    from origin.planning.reading import LogFacts, asked  # noqa: PLC0415
    from origin.planning.replay import Replay  # noqa: PLC0415
    from origin.planning.report import report  # noqa: PLC0415
    from origin.planning.tables import show  # noqa: PLC0415
    from shared.keys import key_ring  # noqa: PLC0415

    configured = _configured(tenant)
    base, compared = settings_of(configured, ttl, normalisation, admit_after, semantic)
    figure = None
    if plot is not None:
        from origin.semantic_commands import empty_figure  # noqa: PLC0415

        figure = empty_figure(plot)
    path, bad, facts = Path(log or "-"), Bad(), LogFacts()
    with contextlib.ExitStack() as exits:
        deciders = _semantic(exits, compared, configured)
        replay = Replay(
            compared,
            lifetimes=configured.lifetimes,
            tiers=configured.tiers,
            generation_ms=round(generation_s * 1000),
            semantic=deciders,
        )
        with _reading(path) as (opened, watched):
            lines = numbered(opened, bad)
            if prompts is None:
                prompts, lines = are_prompts(lines)
            rules = Rules(
                ring=key_ring(_SECRET),
                profiles=replay.profiles,
                reading=Reading(tenant=tenant, model=model, prompts=prompts),
                prices=configured.prices,
                max_body_bytes=configured.max_cached_body_bytes,
                answer_tokens=answer_tokens,
                fields=bool(deciders),
            )
            requests = asked(lines, Keying(rules), facts, bad, interval_ms=1000 / rate)
            with contextlib.closing(requests):
                replay.add_all(watched(islice(requests, limit)))
    found = report(replay, base, facts, bad)
    if figure is not None and plot is not None:
        _draw(figure, plot, replay, base)
    if as_json:
        sys.stdout.write(json.dumps(found, indent=2, allow_nan=False) + "\n")
    else:
        show(found, _name(path), bad, out=out, err=err)
    if not facts.requests:
        raise CommandError(f"{_name(path)}: there is no request in it")


def _configured(tenant: str) -> Settings:
    """The settings of this folder and environment. Raises CommandError for no tenant's name."""
    from shared.keys import check_tenant  # noqa: PLC0415

    try:
        check_tenant(tenant)
    except ValueError as error:
        raise CommandError(f"--tenant: {error}") from error
    configured = load_settings(secret=secrets.token_hex(32))  # it signs nothing here
    if configured.l1 == "off":
        err.print("ENCORE_L1=off is not replayed: Redis is taken to keep answers")
    return configured


def settings_of(
    configured: Settings,
    ttl: str | None,
    normalisation: str | None,
    admit_after: str | None,
    semantic: str,
) -> tuple[Setting, list[Setting]]:
    """(the base, all that are compared): the base with one choice changed each time.

    A choice that is given begins with its base. Raises CommandError.
    """
    from dataclasses import replace  # noqa: PLC0415

    from origin.planning.tally import Setting  # noqa: PLC0415

    ttls = _ttls(ttl, configured.max_ttl_s) or [
        configured.ttl_s,
        *(each for each in DEFAULT_TTLS_S if each <= configured.max_ttl_s),
    ]
    profiles = _profiles(normalisation) or list(PROFILES)
    admissions = _admissions(admit_after) or [configured.admit_after, *DEFAULT_ADMISSIONS]
    modes = _modes(semantic)
    base = Setting(
        ttl_s=ttls[0], normalisation=profiles[0], admit_after=admissions[0], semantic=modes[0]
    )
    compared = dict.fromkeys(
        [
            base,
            *(replace(base, ttl_s=each) for each in sorted(ttls)),
            *(replace(base, normalisation=each) for each in profiles),
            *(replace(base, admit_after=each) for each in sorted(admissions)),
            *(replace(base, semantic=each) for each in modes),
        ]
    )
    if len(compared) > MAX_SETTINGS:
        raise CommandError(f"{len(compared)} settings are too many, at most {MAX_SETTINGS}")
    return base, list(compared)


def _ttls(text: str | None, most_s: int) -> list[int]:
    found = []
    for each in _members(text):
        seconds = duration_s("--ttl", each + "s" * each.isdigit(), else_=", or seconds")
        if seconds > most_s:
            raise CommandError(f"--ttl: {each} is more than ENCORE_MAX_TTL_S={most_s}")
        found.append(seconds)
    return found


def _profiles(text: str | None) -> list[str]:
    found = _members(text)
    for each in found:
        if each not in PROFILES:
            raise CommandError(f"--normalisation: {each!r} is none of {', '.join(PROFILES)}")
    return found


def _admissions(text: str | None) -> list[int]:
    found = _members(text)
    for each in found:
        if not (each.isascii() and each.isdigit() and 1 <= int(each) <= 10**6):
            raise CommandError(f"--admit-after: {each!r} is no number of requests from 1 on")
    return [int(each) for each in found]


def _modes(text: str) -> list[str]:
    from shared.control_document import ControlError, Policy  # noqa: PLC0415

    found = _members(text) or ["off"]
    for each in found:
        try:
            Policy(semantic=each)
        except ControlError as error:
            raise CommandError(f"--semantic: {error}") from error
    return found


def _members(text: str | None) -> list[str]:
    return [each.strip() for each in (text or "").split(",") if each.strip()]


def _semantic(
    exits: contextlib.ExitStack, compared: list[Setting], configured: Settings
) -> list[Any]:
    """For each setting what matches by meaning, None where it is off."""
    if all(setting.semantic == "off" for setting in compared):
        return []
    from origin.semantic_commands import loading  # noqa: PLC0415

    with loading() as settings:
        from origin.planning.semantic import Decider, SemanticReplay  # noqa: PLC0415
        from origin.semantic.loading import load_decider  # noqa: PLC0415
        from shared.keys import key_ring  # noqa: PLC0415

        encoder, verifier, calibration = load_decider(settings)
    decider: Decider = Decider(
        encoder,
        verifier,
        calibration,
        ring=key_ring(_SECRET),
        tiers=configured.tiers,
        max_entries=configured.semantic_max_entries,
    )
    exits.callback(decider.close)
    return [
        None
        if setting.semantic == "off"
        else SemanticReplay(decider, semantic=setting.semantic, normalisation=setting.normalisation)
        for setting in compared
    ]


@contextlib.contextmanager
def _reading(
    path: Path,
) -> Iterator[tuple[Any, Callable[[Iterator[Asked]], Iterator[Asked]]]]:
    """(the lines, what watches requests pass): a bar on a terminal, else a line now and then."""
    from concurrent.futures.process import BrokenProcessPool  # noqa: PLC0415

    from origin.planning.log import LogError, opened  # noqa: PLC0415

    try:
        with opened(path, sys.stdin.buffer) as (lines, file), _watching(path, file) as watched:
            yield lines, watched
    except BrokenProcessPool as error:
        raise CommandError("a process that read the log was ended; was memory short?") from error
    except LogError as error:
        raise CommandError(f"{_name(path)} cannot be read on: {error}") from error
    except OSError as error:
        raise CommandError(f"{_name(path)} cannot be read: {error.strerror or error}") from error


@contextlib.contextmanager
def _watching(path: Path, file: BinaryIO) -> Iterator[Callable[[Iterator[Asked]], Iterator[Asked]]]:
    if not err.is_terminal:

        def told(asked: Iterator[Asked]) -> Iterator[Asked]:
            for number, each in enumerate(asked, 1):
                yield each
                if number % EVERY == 0:
                    err.print(f"{_name(path)}: {number:,} requests", highlight=False)

        yield told
        return
    from origin.progress import file_bar  # noqa: PLC0415

    words = "{task.fields[requests]:,} requests"
    with file_bar(err, _name(path), file, words, transient=True, requests=0) as move:

        def shown(asked: Iterator[Asked]) -> Iterator[Asked]:
            for number, each in enumerate(asked, 1):
                yield each
                if number % 1000 == 0:
                    move(requests=number)

        yield shown


def _generate(made_up: Any, to: Path) -> None:
    from rich.progress import track  # noqa: PLC0415

    from origin.planning.generate import generated, line_of, writing  # noqa: PLC0415

    making = track(
        generated(made_up),
        "Making it up",
        total=made_up.requests,
        console=err,
        transient=True,
        disable=not err.is_terminal,
    )
    try:
        with writing(to) as file:
            for row in making:
                file.write(line_of(row))
    except OSError as error:
        raise CommandError(f"{to} cannot be written: {error.strerror or error}") from error
    err.print(f"{to}: {made_up.requests:,} requests", markup=False, highlight=False)


def _draw(figure: Any, plot: Path, replay: Replay, base: Setting) -> None:
    from origin.planning.plots import draw  # noqa: PLC0415

    figure.set_size_inches(13, 1.5 + 0.45 * len(replay.caches))
    draw(figure, replay.caches, base)
    try:
        figure.savefig(plot)
    except OSError as error:
        raise CommandError(f"{plot} cannot be written: {error.strerror or error}") from error


def _name(path: Path) -> str:
    return "stdin" if str(path) == "-" else path.name
