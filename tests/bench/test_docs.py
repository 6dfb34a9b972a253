"""The commands that the benchmarks' documentation names are there."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs/benchmarks.md").read_text("utf-8")
COMMANDS = re.findall(r"`([^`]*\bpython -m [^`]*)`", TEXT)
OF_THE_PAGE = re.findall(r'`(?:make bench )?ARGS="([^`]*)"`', TEXT)


def source_of(module: str) -> str:
    """The source of a script, or of what a package runs."""
    found = importlib.util.find_spec(module)
    assert found is not None, module
    if found.origin is None:
        found = importlib.util.find_spec(f"{module}.__main__")
    assert found is not None
    assert found.origin is not None
    return Path(found.origin).read_text("utf-8")


def unknown(module: str, arguments: str) -> list[str]:
    """The options that a script does not have."""
    source = source_of(module)
    return [each for each in re.findall(r"--[a-z-]+", arguments) if f'"{each}"' not in source]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_script_and_its_options_exist(command: str) -> None:
    """Of each command line in the text."""
    module, _, arguments = command.partition("python -m ")[2].partition(" ")
    assert unknown(module, arguments) == []


def test_options_of_the_page_exist() -> None:
    """Those that `make bench` is given."""
    assert len(OF_THE_PAGE) >= 3
    assert unknown("bench", " ".join(OF_THE_PAGE)) == []


def test_make_targets_exist() -> None:
    """Every `make` that is named."""
    targets = set(re.findall(r"`make ([a-z]+)", TEXT))
    made = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    assert targets
    assert targets <= made
