"""`encore eval semantic`, `encore explain semantic`, `encore calibrate`: the decision, in numbers.

They decide as the settings say (ENCORE_SEMANTIC_MODEL, _VERIFIER, _CALIBRATION), and need neither a
running Encore nor its secret.
"""

from __future__ import annotations

import contextlib
import gzip
import json
import secrets
import sys
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import track
from rich.table import Table
from rich.text import Text

from origin.control_commands import CommandError
from origin.settings import Settings, load_settings
from shared.control_document import STRICT_BOUND

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from origin.semantic.calibration import Calibration
    from origin.semantic.decision import Decision, Verdict
    from origin.semantic.encoder import Encoder
    from origin.semantic.evaluation import Judged
    from origin.semantic.verifier import Verifier

SHOWN_COSINES = ("0.80", "0.85", "0.90", "0.95", "0.97", "0.99")
GZIP = b"\x1f\x8b"
REASONS = {
    "too short": "too little is said to be matched",
    "points outside": "a text is about something that it does not carry",
    "conflict": "a veto forbids it",
    "no threshold": "no score is high enough, for the bound cannot be shown",
    "score": "the verifier's score is below the threshold",
    "served": "no veto, and the verifier's score is high enough",
}
out = Console()
err = Console(stderr=True)
eval_app = typer.Typer(help="Measure a decision on labelled pairs.", no_args_is_help=True)


def share(value: float | None) -> float | None:
    """Check an option that is neither 0 nor 1."""
    if value is None or 0 < value < 1:
        return value
    raise typer.BadParameter(f"{value:g} is not between 0 and 1, as 0.01 is.")


File = Annotated[
    Path,
    typer.Argument(metavar="FILE", help='Rows of JSON: {"a", "b", "same": 0 or 1}; gzip or not.'),
]
Bound = Annotated[
    float | None, typer.Option(callback=share, help="The pair-level false-hit rate aimed at.")
]


@eval_app.command("semantic")
def eval_semantic(
    file: File,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    plot: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Draw recall over false hits: a .png, .svg or .pdf."),
    ] = None,
    bound: Bound = None,
) -> None:
    """Recall and false hits of the decision on FILE, beside plain cosine thresholds.

    Without --bound the decision is that of mode `strict`. Rows may name their "source" and "kind".
    """
    from origin.semantic.evaluation import report  # noqa: PLC0415 - quick start

    rows = _rows(file)
    figure = None if plot is None else _figure(plot)
    encoder, verifier, calibration = _decider()
    decision, basis = _decision(verifier, calibration, bound)
    judged = _judged(rows, decision, encoder)
    found = {**report(judged), "bound": bound, "threshold": decision.threshold, "basis": basis}
    if plot is not None and figure is not None:
        _draw(figure, judged, found["decision"])
        try:
            figure.savefig(plot)
        except OSError as error:
            raise _unwritable(plot, error) from error
    if as_json:
        sys.stdout.write(json.dumps(found, indent=2, allow_nan=False) + "\n")
        return
    out.print(Text(basis))
    out.print(_table(found))
    if found["past_window"]:
        out.print(f"Pairs past the encoder's window, never matched: {found['past_window']:,}.")


def explain_semantic(
    a: Annotated[str, typer.Argument(metavar="A", help="The text whose answer is cached.")],
    b: Annotated[str, typer.Argument(metavar="B", help="The text that asks.")],
    *,
    bound: Bound = None,
) -> None:
    """Why the answer to A is served for B, or is not: vetoes, scores and the verdict.

    Without --bound the decision is that of mode `strict`.
    """
    from origin.semantic.evaluation import have_equal_form  # noqa: PLC0415
    from origin.semantic.verifier import Reading  # noqa: PLC0415
    from shared.veto import read  # noqa: PLC0415

    encoder, verifier, calibration = _decider()
    decision, basis = _decision(verifier, calibration, bound)
    readings = []
    for name, text, encoding in zip("AB", (a, b), encoder.encode([a, b]), strict=True):
        if encoding is None:
            raise CommandError(
                f"{name} is no valid text, or longer than the encoder's window of "
                f"{encoder.max_tokens} tokens; such texts are never matched: shorten it"
            )
        readings.append(Reading(text=text, facts=read(text), encoding=encoding))
    if have_equal_form(a, b):
        out.print(Text("match: the two are of equal form, and served without asking", "bold"))
        return
    verdict = decision.decide(*readings)
    for line in _explained(verdict, verifier.score(*readings)):
        out.print(line)
    out.print(Text(basis, "dim"))


def calibrate(
    file: File,
    *,
    to: Annotated[
        Path, typer.Option("--out", metavar="FILE", help="Where to write the calibration.")
    ],
    base_rate: Annotated[
        float, typer.Option(callback=share, help="Share of requests with a match in the cache.")
    ] = 0.2,
    bound: Annotated[
        float, typer.Option(callback=share, help="Wrong among served, to be reported on.")
    ] = STRICT_BOUND,
) -> None:
    """Fit thresholds on FILE's labelled pairs: your own questions say more than ours.

    None of the pairs may have trained the verifier. Rows may name their "source": each of some size
    must then keep the bound by itself. ENCORE_SEMANTIC_CALIBRATION names the result.
    """
    from origin.semantic.calibration import CalibrationError, Scored, fit  # noqa: PLC0415
    from origin.semantic.decision import Decision  # noqa: PLC0415

    rows = _rows(file)
    _check_writable(to)
    with _loading() as settings:
        from origin.semantic.loading import load_scorer  # noqa: PLC0415

        encoder, verifier = load_scorer(settings)
    judged = _judged(rows, Decision(verifier=verifier, threshold=None), encoder)
    scored = [
        Scored(pair.score, pair.same, pair.source) for pair in judged if pair.reason != "equal form"
    ]
    try:
        found = fit(
            scored, verifier=verifier.version, encoder=verifier.encoder, base_rate=base_rate
        )
    except CalibrationError as error:
        raise CommandError(f"{file}: {error}") from error
    try:
        to.write_text(found.to_json(), encoding="utf-8")
    except OSError as error:
        raise _unwritable(to, error) from error
    out.print(Text(found.describe(bound)))
    out.print(Text(f"{to}: calibration {found.version}; set ENCORE_SEMANTIC_CALIBRATION={to}"))


def _rows(file: Path) -> list[dict[str, Any]]:
    from origin.semantic.evaluation import RowError, read_rows  # noqa: PLC0415 - quick start

    try:
        content = file.read_bytes()
        if content.startswith(GZIP):
            content = gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise CommandError(
            f"{file} cannot be read: {why}; name a file of labelled pairs"
        ) from error
    try:
        return read_rows(content)
    except RowError as error:
        raise CommandError(f"{file}: {error}") from error


def _check_writable(file: Path) -> None:
    """Complain now rather than after minutes."""
    if file.is_dir():
        raise CommandError(f"{file} is a folder; name a file in it")
    if not file.parent.is_dir():
        raise CommandError(f"{file} cannot be written: there is no folder {file.parent}; make it")


def _unwritable(file: Path, error: OSError) -> CommandError:
    return CommandError(f"{file} cannot be written: {error.strerror}; name another file")


@contextlib.contextmanager
def _loading() -> Iterator[Settings]:
    """The settings, for a block that loads what they name."""
    settings = load_settings(secret=secrets.token_hex(32))  # it signs nothing here
    try:
        from origin.semantic.loading import MissingError  # noqa: PLC0415 - quick start
    except ImportError as error:
        raise CommandError(f"{error}; install encore[local]") from error
    try:
        with err.status("Loading the encoder"):
            yield settings
    except MissingError as error:
        raise CommandError(f"{error}; install encore[local]") from error


def _decider() -> tuple[Encoder, Verifier, Calibration]:
    with _loading() as settings:
        from origin.semantic.loading import load_decider  # noqa: PLC0415

        return load_decider(settings)


def _decision(
    verifier: Verifier, calibration: Calibration, bound: float | None
) -> tuple[Decision, str]:
    """The decision and on what it rests, in words."""
    from origin.semantic.decision import Decision  # noqa: PLC0415

    if bound is None:
        decision = Decision.end_to_end(verifier, calibration, STRICT_BOUND)
        return decision, f"Mode strict. {calibration.describe(STRICT_BOUND)}"
    decision = Decision.pair_level(verifier, calibration, bound)
    return decision, calibration.describe_pairs(bound)


def _judged(rows: list[dict[str, Any]], decision: Decision, encoder: Encoder) -> list[Judged]:
    from origin.semantic.encoder import EncoderError  # noqa: PLC0415
    from origin.semantic.evaluation import judge  # noqa: PLC0415

    judging = track(
        judge(rows, decision, encoder),
        "Deciding",
        total=len(rows),
        console=err,
        transient=True,
        disable=not err.is_terminal,
    )
    try:
        return list(judging)
    except EncoderError as error:
        raise CommandError(str(error)) from error


def _explained(verdict: Verdict, score: float) -> list[Text]:
    said = "match" if verdict.hit else "no match"
    threshold = "none" if verdict.threshold is None else f"{verdict.threshold:.4f}"
    unasked = " (not asked)" if verdict.score is None else ""
    return [
        Text(f"{said}: {REASONS.get(verdict.reason, verdict.reason)}", "bold"),
        *(
            Text(f"veto               {conflict.rule}: {conflict.a or '-'} / {conflict.b or '-'}")
            for conflict in verdict.conflicts
        ),
        Text(f"verifier's score   {score:.4f}{unasked}, threshold {threshold}"),
        Text(f"cosine similarity  {verdict.similarity:.4f}"),
    ]


def _table(found: Mapping[str, Any]) -> Table:
    """The decision, all of it, by source and by kind, and below it plain cosine thresholds."""
    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("", overflow="fold")
    names = "pairs", "recall", "false\nhits", "false-hit\nrate", "95 %\ninterval", "precision"
    for name in (*names, "AUC"):
        table.add_column(name, justify="right", no_wrap=True)

    def section(title: str, named: Mapping[str, Mapping[str, Any]]) -> None:
        table.add_section()
        table.add_row(Text(title, "bold"))
        for label, each in named.items():
            interval = each["false_hit_rate_interval"]
            table.add_row(
                Text(label),
                f"{each['pairs']:,}",
                _percent(each["recall"]),
                f"{each['false_hits']:,}",
                _percent(each["false_hit_rate"]),
                "-" if interval is None else f"{interval[0] * 100:.1f} to {interval[1]:.1%}",
                _percent(each["precision"]),
                "-" if each["auc"] is None else f"{each['auc']:.3f}",
            )

    section("decision", {"all pairs": found["decision"]})
    for title, key in (("by source", "by_source"), ("by kind", "by_kind")):
        if len(found[key]) > 1:  # one is all pairs
            section(title, found[key])
    section("plain cosine", {cosine: found["cosine"][cosine] for cosine in SHOWN_COSINES})
    return table


def _percent(rate: float | None) -> str:
    return "-" if rate is None else f"{rate:.2%}"


def _figure(file: Path) -> Figure:
    """An empty figure that can be saved there."""
    try:
        from matplotlib.figure import Figure  # noqa: PLC0415
    except ImportError as error:
        raise CommandError(
            "--plot needs matplotlib: pip install matplotlib, or install encore[local]"
        ) from error
    _check_writable(file)
    figure = Figure(figsize=(7, 5), layout="constrained")
    known = figure.canvas.get_supported_filetypes()
    if file.suffix[1:].lower() not in known:
        raise CommandError(f"{file}: no kind of picture; its name may end in .png, .svg or .pdf")
    return figure


def _draw(figure: Figure, judged: list[Judged], decision: Mapping[str, Any]) -> None:
    """Recall over the false-hit rate, of the score and of the cosine, the rate on a log axis.

    Without any false hit the rate is drawn as that of half a one: there is no log of 0.
    """
    from origin.semantic.evaluation import curve  # noqa: PLC0415

    positives, negatives = (max(1, int(decision[name])) for name in ("positives", "negatives"))

    def rate(false_hits: int) -> float:
        return max(false_hits, 0.5) / negatives

    axes = figure.subplots()
    for label, scored in (
        ("decision, by its score", [(pair.score, pair.same) for pair in judged]),
        ("plain cosine", [(pair.similarity, pair.same) for pair in judged]),
    ):
        steps = curve(scored)
        recall = [right / positives for right, _ in steps]
        axes.plot([rate(wrong) for _, wrong in steps], recall, label=label)
    at = (decision["recall"] or 0.0, rate(decision["false_hits"]))
    axes.plot(at[1:], at[:1], "o", color="C0", label="decision, at its threshold")
    axes.set(xscale="log", xlabel="false-hit rate", ylabel="recall", ylim=(0, 1))
    axes.legend()
