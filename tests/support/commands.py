"""The `encore` command, run to its end as users run it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def environ(**variables: str) -> dict[str, str]:
    """The environment of a command, with the repository on its path. An origin stops at once."""
    ours = {"PYTHONPATH": str(ROOT), "COLUMNS": "200", "ENCORE_DRAIN_S": "0"}
    return {**os.environ, **ours, **variables}


def encore(tmp_path: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end in `tmp_path`."""
    return subprocess.run(
        [sys.executable, "-m", "origin.cli", *arguments],
        cwd=tmp_path,
        env=environ(**variables),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
