"""How a failure is logged: what kind it is and where it happened, never what it says.

An exception's text may quote a prompt (an upstream's complaint, a tokenizer's), and no prompt is
logged. What it says of an operator's own files and settings the operator is told: `first_line`.
"""

from __future__ import annotations

import traceback

from shared.errors import EncoreError

MAX_LINE_CHARACTERS = 300


def describe(exc: BaseException) -> str:
    """One line for an error meant for clients; type and stack, without messages, for any other."""
    if isinstance(exc, EncoreError):
        return f"{exc.status} {exc.code or exc.type}"
    frames = traceback.extract_tb(exc.__traceback__)
    return "\n".join(
        (type(exc).__name__, *(f"  {f.filename}:{f.lineno} in {f.name}" for f in frames))
    )


def first_line(exc: BaseException) -> str:
    """What an exception says, in one line: its kind where it says nothing."""
    line = str(exc).strip().partition("\n")[0][:MAX_LINE_CHARACTERS]
    return line or type(exc).__name__
