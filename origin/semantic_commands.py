"""`encore eval semantic`, `encore explain semantic`, `encore calibrate`: the decision, in numbers.

They need no running Encore: only the encoder and the shipped model, or a calibration file.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from origin.control_commands import CommandError

if TYPE_CHECKING:
    from origin.semantic.calibration import Calibration
    from origin.semantic.decision import Decision, Verdict
    from origin.semantic.encoder import Encoder
    from origin.semantic.verifier import Verifier

SHOWN_COSINES = ("0.80", "0.85", "0.90", "0.95", "0.97", "0.99")
out = Console()
eval_app = typer.Typer(help="Measure a decision on labelled pairs.", no_args_is_help=True)
explain_app = typer.Typer(help="Say why something is decided as it is.", no_args_is_help=True)

File = Annotated[
    Path, typer.Argument(metavar="FILE", help='Rows of JSON: {"a", "b", "same": 0 or 1}.')
]
CalibrationFile = Annotated[
    Path | None, typer.Option("--calibration", help="What `encore calibrate` wrote.")
]
Bound = Annotated[
    float | None, typer.Option(min=0, max=1, help="The pair-level false-hit rate aimed at.")
]


@eval_app.command("semantic")
def eval_semantic(
    file: File,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    plot: Annotated[
        Path | None, typer.Option(help="Draw recall over false hits into this picture.")
    ] = None,
    bound: Bound = None,
    calibration: CalibrationFile = None,
) -> None:
    """Recall and false hits of the decision on FILE, beside plain cosine thresholds.

    Without --bound the decision is that of mode `strict`.
    """
    from origin.semantic.evaluation import RowError, check_rows, judge, report  # noqa: PLC0415

    try:
        rows = check_rows(_rows(file))
    except RowError as error:
        raise CommandError(f"{file}: {error}") from error
    encoder, verifier, chosen = _parts(calibration)
    decision, basis = _decision(verifier, chosen, bound)
    judged = judge(rows, decision, encoder)
    found = {**report(judged), "bound": bound, "threshold": decision.threshold, "basis": basis}
    if plot is not None:
        _draw(plot, [(pair.same, pair.score, pair.similarity) for pair in judged])
    if as_json:
        sys.stdout.write(json.dumps(found, ensure_ascii=False, indent=2) + "\n")
        return
    out.print(Text(basis))
    out.print(_table("Decision", {"all pairs": found["decision"]}))
    for title, key in (("By source", "by_source"), ("By kind", "by_kind")):
        if found[key]:
            out.print(_table(title, found[key]))
    shown = {f"at {cosine}": found["cosine"][cosine] for cosine in SHOWN_COSINES}
    out.print(_table("Plain cosine", shown))


@explain_app.command("semantic")
def explain_semantic(
    a: Annotated[str, typer.Argument(metavar="A", help="The text whose answer is cached.")],
    b: Annotated[str, typer.Argument(metavar="B", help="The text that asks.")],
    *,
    bound: Bound = None,
    calibration: CalibrationFile = None,
) -> None:
    """Why the answer to A is served for B, or is not: vetoes, scores and the verdict."""
    from origin.semantic.verifier import Reading  # noqa: PLC0415
    from shared.veto import read  # noqa: PLC0415

    encoder, verifier, chosen = _parts(calibration)
    decision, basis = _decision(verifier, chosen, bound)
    first, second = encoder.encode([a, b])
    if first is None or second is None:
        raise CommandError(
            f"{'A' if first is None else 'B'} is longer than the encoder's window of "
            f"{encoder.max_tokens} tokens; such texts are never matched"
        )
    verdict = decision.decide(
        Reading(text=a, facts=read(a), encoding=first),
        Reading(text=b, facts=read(b), encoding=second),
    )
    for line in _explained(verdict, basis):
        out.print(line)


def calibrate(
    file: File,
    *,
    to: Annotated[Path, typer.Option("--out", help="Where to write the calibration.")],
    base_rate: Annotated[
        float, typer.Option(min=0, max=1, help="Share of requests with a true match in the cache.")
    ] = 0.2,
    bound: Annotated[float, typer.Option(min=0, max=1, help="Wrong among served.")] = 0.01,
) -> None:
    """Fit thresholds on FILE's labelled pairs: your own questions say more than ours.

    None of the pairs may have trained the verifier. Rows may name their "source": each of some size
    must then keep the bound by itself.
    """
    from origin.semantic.calibration import CalibrationError, Scored, fit  # noqa: PLC0415
    from origin.semantic.decision import Decision  # noqa: PLC0415
    from origin.semantic.evaluation import RowError, check_rows, judge  # noqa: PLC0415

    encoder, verifier, _ = _parts(None)
    try:
        rows = check_rows(_rows(file))
        judged = judge(rows, Decision(verifier=verifier, threshold=None), encoder)
        found = fit(
            [Scored(pair.score, pair.same, pair.source) for pair in judged],
            verifier=verifier.version,
            encoder=verifier.encoder,
            base_rate=base_rate,
        )
    except (RowError, CalibrationError) as error:
        raise CommandError(f"{file}: {error}") from error
    to.write_text(found.to_json(), encoding="utf-8")
    out.print(Text(found.describe(bound)))
    out.print(Text(f"{to}: calibration {found.version}"))


def _rows(file: Path) -> list[Any]:
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise CommandError(f"{file} cannot be read: {error}") from error
    rows = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            rows.append(json.loads(line))
        except ValueError as error:
            raise CommandError(f"{file}: line {number} is no JSON: {error}") from error
    if not rows:
        raise CommandError(f"{file} has no rows")
    return rows


def _parts(calibration: Path | None) -> tuple[Encoder, Verifier, Calibration]:
    from origin.semantic.calibration import (  # noqa: PLC0415
        DEFAULT_CALIBRATION,
        Calibration,
        CalibrationError,
    )
    from origin.semantic.encoder import Encoder, EncoderError  # noqa: PLC0415
    from origin.semantic.verifier import Verifier, VerifierError  # noqa: PLC0415

    try:
        encoder = Encoder.load()
        verifier = Verifier.load()
        chosen = Calibration.load(calibration or DEFAULT_CALIBRATION)
    except (EncoderError, VerifierError, CalibrationError) as error:
        raise CommandError(str(error)) from error
    if encoder.identity != verifier.encoder:
        raise CommandError(
            f"the verifier was trained on {verifier.encoder}, the encoder is {encoder.identity}"
        )
    return encoder, verifier, chosen


def _decision(
    verifier: Verifier, calibration: Calibration, bound: float | None
) -> tuple[Decision, str]:
    """The decision and on what it rests, in words."""
    from origin.semantic.calibration import STRICT_BOUND  # noqa: PLC0415
    from origin.semantic.decision import Decision  # noqa: PLC0415

    try:
        if bound is None:
            decision = Decision.end_to_end(verifier, calibration, STRICT_BOUND)
            return decision, f"Mode strict. {calibration.describe(STRICT_BOUND)}"
        decision = Decision.pair_level(verifier, calibration, bound)
    except ValueError as error:
        raise CommandError(str(error)) from error
    return decision, calibration.describe_pairs(bound)


def _explained(verdict: Verdict, basis: str) -> list[Text]:
    lines = [Text(f"{'match' if verdict.hit else 'no match'}: {verdict.reason}", "bold")]
    lines.append(Text(f"cosine similarity  {verdict.similarity:.4f}"))
    score = "not asked" if verdict.score is None else f"{verdict.score:.4f}"
    threshold = "none" if verdict.threshold is None else f"{verdict.threshold:.4f}"
    lines.append(Text(f"verifier's score   {score}, threshold {threshold}"))
    lines += [
        Text(f"veto               {conflict.rule}: {conflict.a or '–'} / {conflict.b or '–'}")  # noqa: RUF001 - a dash for nothing
        for conflict in verdict.conflicts
    ]
    return [*lines, Text(basis, "dim")]


def _table(title: str, named: Mapping[str, Mapping[str, Any]]) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column("", overflow="fold")
    for name in ("pairs", "recall", "false\nhits", "false-hit rate\n(95 % interval)", "precision"):
        table.add_column(name, justify="right")
    table.add_column("AUC", justify="right")
    for label, each in named.items():
        interval = each["false_hit_rate_interval"]
        rate = _percent(each["false_hit_rate"])
        if interval is not None:
            rate += f" ({interval[0]:.2%} to {interval[1]:.2%})"
        area = each["auc"]
        table.add_row(
            Text(label),
            f"{each['pairs']:,}",
            _percent(each["recall"]),
            f"{each['false_hits']:,}",
            rate,
            _percent(each["precision"]),
            "–" if area is None else f"{area:.3f}",  # noqa: RUF001
        )
    return table


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{share:.2%}"  # noqa: RUF001


def _draw(file: Path, scored: list[tuple[bool, float, float]]) -> None:
    """Recall over the false-hit rate, of the score and of the cosine, the rate on a log axis."""
    try:
        from matplotlib.figure import Figure  # noqa: PLC0415
    except ImportError as error:
        raise CommandError("--plot needs matplotlib: pip install matplotlib") from error
    figure = Figure(figsize=(7, 5), layout="constrained")
    axes = figure.subplots()
    positives = max(1, sum(same for same, *_ in scored))
    negatives = max(1, len(scored) - positives)
    for label, place in (("decision", 1), ("plain cosine", 2)):
        hits = false_hits = 0
        recall, rate = [], []
        for pair in sorted(scored, key=lambda pair: pair[place], reverse=True):
            hits, false_hits = hits + pair[0], false_hits + (not pair[0])
            recall.append(hits / positives)
            rate.append(max(false_hits, 0.5) / negatives)
        axes.plot(rate, recall, label=label)
    axes.set(xscale="log", xlabel="false-hit rate", ylabel="recall", ylim=(0, 1))
    axes.legend()
    figure.savefig(file)
