"""Fuzz one target, guided by coverage: `python -m tests.fuzz TARGET [--runs N] [--seconds S]`.

Needs `pip install atheris` (CPython 3.11 to 3.13, Linux). What crashes is written to a file of
libFuzzer's (`crash-…`), and printed. The same targets run for a moment each in the test suite.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

INSTRUMENTED = [
    "shared",
    "origin.api.http",
    "origin.dashboard.sessions",
    "origin.engine.upstream_json",
    "origin.planning.log",
    "origin.purge_requests",
    "origin.vectors",
    "origin.warm_requests",
]


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    import atheris  # type: ignore[import-untyped, import-not-found, unused-ignore]  # noqa: PLC0415

    with atheris.instrument_imports(include=INSTRUMENTED):
        from tests.fuzz.targets import SEEDS, TARGETS  # noqa: PLC0415 - instrumented as it loads

    parser.add_argument("target", choices=sorted(TARGETS))
    parser.add_argument("--runs", type=int, default=1_000_000)
    parser.add_argument("--seconds", type=int, default=0, help="the longest it runs; 0: no limit")
    parser.add_argument("--most-bytes", type=int, default=2048, help="of an input (default: 2048)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="encore-fuzz-") as corpus:
        for number, seed in enumerate(SEEDS[options.target]):
            (Path(corpus) / str(number)).write_bytes(seed)
        arguments = [sys.argv[0], corpus, f"-runs={options.runs}", f"-max_len={options.most_bytes}"]
        if options.seconds:
            arguments.append(f"-max_total_time={options.seconds}")
        atheris.Setup(arguments, TARGETS[options.target])
        atheris.Fuzz()


if __name__ == "__main__":
    main()
