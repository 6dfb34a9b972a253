"""All that is claimed of speed and rightness, measured here, on one page.

    make bench    or    .venv/bin/python -m bench [--quick] [--only edge,origin] [--output FILE]
        [--without-peers] [--peer litellm=VENV]...

Runs the scripts of this folder one after another, in shorter variants than they have by themselves.
The page has ratios and CPU first, then absolute times. CPU per request says more than times where
the load generator shares the cores with what it measures. A script that fails says so in its place;
the page goes on, and the exit status is 1.

LiteLLM, GPTCache and llama.cpp are installed in environments of their own under .cache/peers,
unless `--peer` names one that is there; what cannot be had is said not to be measured.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench import machine
from bench.peers import PEERS, AbsentError, program_of
from bench.results import Result, comparison_table, details

ROOT = Path(__file__).resolve().parents[1]
TIMEOUT_S = 1800


@dataclass(frozen=True, kw_only=True)
class Section:
    """One script, and with which options it is run for the page, and for a quick one."""

    name: str
    title: str
    module: str
    short: Sequence[str] = ()
    quick: Sequence[str] = ()
    peer: str | None = None
    """What it is measured beside, by the name of the option that says where it is."""
    is_data: bool = True
    """Whether it writes data; else the page has what it prints."""


@dataclass(kw_only=True)
class Measured:
    """What became of a section. `text` is what one without data has printed."""

    section: Section
    result: Result = field(default_factory=Result)
    text: str = ""
    wall_s: float = 0.0
    is_absent: bool = False


SECTIONS = (
    Section(
        name="edge",
        title="A hit at the edge, beside a hand-written JavaScript Worker",
        module="bench.edge",
        short=("--rounds", "3", "--requests", "200", "--cold-starts", "3"),
        quick=("--rounds", "1", "--requests", "40", "--cold-starts", "1"),
    ),
    Section(
        name="origin",
        title="A hit at the origin, beside a bare application and LiteLLM's proxy",
        module="bench.origin_hit",
        short=("--rounds", "4"),
        quick=("--rounds", "1", "--requests", "400"),
        peer="litellm",
    ),
    Section(
        name="path",
        title="What a miss adds to the model, and a hit saves",
        module="bench.path",
        short=("--rounds", "5"),
        quick=("--rounds", "1", "--batch", "50"),
    ),
    Section(
        name="semantic",
        title="Semantic match, beside GPTCache and plain cosine",
        module="bench.semantic",
        short=("--rounds", "20"),
        quick=("--rounds", "3", "--entries", "1000", "--queries", "100", "--held-out", "200"),
        peer="gptcache",
    ),
    Section(
        name="prefix",
        title="A known prefix: time to the first token, beside transformers and llama.cpp",
        module="bench.prefix",
        short=("--prefixes", "512,2048", "--rounds", "1", "--only", "float32"),
        quick=("--prefixes", "128", "--rounds", "1", "--only", "float32"),
        peer="llama-cpp",
    ),
    Section(
        name="load",
        title="A hit under load",
        module="bench.load",
        short=("--rounds", "2", "--requests", "3000"),
        quick=("--rounds", "1", "--requests", "512"),
    ),
    Section(
        name="memory",
        title="Memory over time",
        module="bench.load",
        short=("--memory", "6", "--requests", "5000"),
        quick=("--memory", "3", "--requests", "1000"),
    ),
    Section(
        name="growth",
        title="How cost grows: entries, size of the body, tenants",
        module="bench.growth",
        short=("--quick",),  # all sizes take as long as the rest of the page
        quick=("--quick", "--only", "tenants"),
        is_data=False,
    ),
)


def measure(
    section: Section, *, quick: bool, peers: dict[str, Path] | None, folder: Path
) -> Measured:
    """Run a section's script. `peers`: environments that are there already; None: without peers."""
    measured = Measured(section=section)
    if importlib.util.find_spec(section.module) is None:
        measured.is_absent = True
        measured.result.remarks.append(f"not measured: there is no {section.module}")
        return measured
    command = [sys.executable, "-m", section.module, *(section.quick if quick else section.short)]
    target = folder / f"{section.name}.json"
    if section.is_data:
        command += ["--json", str(target)]
    absent = ""
    if section.peer and peers is not None:
        try:
            command += [f"--{section.peer}", str(program_of(section.peer, peers))]
        except AbsentError as error:
            absent = f"{PEERS[section.peer].name} could not be had: {error}"
    began_s = time.monotonic()
    status, said, errors = run(command)
    measured.wall_s = time.monotonic() - began_s
    if section.is_data and target.exists():
        measured.result = Result.from_json(target.read_text("utf-8"))
    elif not section.is_data:
        measured.text = said.strip()
    if status:
        print(errors, file=sys.stderr, flush=True)
    if status and not measured.result.failures:
        last = errors.strip().splitlines()[-1:]
        measured.result.failures.append(f"exit status {status}: {' '.join(last)}")
    if absent:
        measured.result.remarks.append(absent)
    return measured


def run(command: Sequence[str], timeout_s: float = TIMEOUT_S) -> tuple[int, str, str]:
    """(exit status, output, errors). What takes too long is interrupted, so that it tidies up."""
    environment = {"OMP_NUM_THREADS": "1", **os.environ}
    with subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            said, errors = process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGINT)
            said, errors = process.communicate()
            return 1, said, f"{errors}\nit took longer than {timeout_s:g} s"
        return process.returncode, said, errors


def page(measured: Sequence[Measured], *, head: str, foot: str) -> str:
    """Ratios of all sections, then what each of them has to say."""
    comparisons = [each for one in measured for each in one.result.comparisons]
    parts = [
        head,
        "## Ratios\n\nOf CPU, ms and MB less is better; of requests/s and recall, more.\n\n"
        + comparison_table(comparisons),
    ]
    for one in measured:
        parts.append(f"## {one.section.title}")
        parts += [text for text in (one.text, details(one.result)) if text]
        if not one.is_absent:
            parts.append(f"`{one.section.module}`, {one.wall_s:.0f} s")
    return "\n\n".join([*parts, foot]) + "\n"


def chosen(names: str | None) -> list[Section]:
    """The sections of these names, in the order of the page. Raises ValueError."""
    known = [section.name for section in SECTIONS]
    wanted = names.split(",") if names else known
    if unknown := set(wanted) - set(known):
        raise ValueError(f"{', '.join(sorted(unknown))}: the sections are {', '.join(known)}")
    return [section for section in SECTIONS if section.name in wanted]


def environments(options: Sequence[str]) -> dict[str, Path]:
    """From `NAME=FOLDER`. Raises ValueError."""
    found = {}
    for option in options:
        name, _, folder = option.partition("=")
        if name not in PEERS or not folder:
            raise ValueError(f"{option!r}: write NAME=VENV, NAME one of {', '.join(PEERS)}")
        found[name] = Path(folder)
    return found


def main() -> None:
    """Measure, print the page; status 1 where something failed."""
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--quick", action="store_true", help="a few minutes; figures are rough")
    parser.add_argument("--only", metavar="NAME,NAME", help="of these sections only")
    parser.add_argument("--output", type=Path, help="also write the page to this file")
    parser.add_argument("--without-peers", action="store_true", help="nothing is installed")
    parser.add_argument("--peer", action="append", default=[], metavar="NAME=VENV")
    arguments = parser.parse_args()
    try:
        sections, peers = chosen(arguments.only), environments(arguments.peer)
    except ValueError as error:
        parser.error(str(error))
    warning = machine.warning()
    if warning:
        print(warning, file=sys.stderr, flush=True)
    parts = ["# Encore, measured", machine.description(), warning]
    head, began = "\n\n".join(part for part in parts if part), machine.load_average()
    measured: list[Measured] = []
    text = ""
    with tempfile.TemporaryDirectory(prefix="encore-bench-") as folder:
        for section in sections:
            print(f"measuring: {section.name}", file=sys.stderr, flush=True)
            measured.append(
                measure(
                    section,
                    quick=arguments.quick,
                    peers=None if arguments.without_peers else peers,
                    folder=Path(folder),
                )
            )
            foot = f"Load average at the start {began}, at the end {machine.load_average()}."
            text = page(measured, head=head, foot=foot)
            if arguments.output:  # after each: who interrupts the rest still has these
                arguments.output.write_text(text, "utf-8")
    print(text)
    if any(one.result.failures for one in measured):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
