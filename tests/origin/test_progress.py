"""How far a file is read, as a terminal shows it."""

from __future__ import annotations

import io
import os
from pathlib import Path

from rich.console import Console

from origin.progress import file_bar

WORDS = "{task.percentage:>3.0f} % {task.fields[lines]} lines"


def terminal() -> Console:
    """One whose screen can be read."""
    return Console(file=io.StringIO(), force_terminal=True, width=80)


def screen(console: Console) -> str:
    """What was shown."""
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_a_file_is_as_far_as_it_is_read(tmp_path: Path) -> None:
    """By its bytes."""
    path = tmp_path / "log"
    path.write_bytes(b"0123456789")
    console = terminal()
    with path.open("rb") as file, file_bar(console, "log", file, WORDS, lines=0) as move:
        file.read(4)
        move(lines=7)
    assert " 40 % 7 lines" in screen(console)


def test_a_pipe_has_no_end_that_is_known() -> None:
    """It says what it can."""
    reading, writing = os.pipe()
    os.close(writing)
    console = terminal()
    with open(reading, "rb") as file, file_bar(console, "stdin", file, WORDS, lines=0) as move:  # noqa: PTH123
        move(lines=7)
    assert "7 lines" in screen(console)
