"""Wall clocks of processes that a test sets, forwards and back, while they run.

    environment = skewed(library_folder, clocks)
    subprocess.Popen(["redis-server"], env={**os.environ, **environment})
    set_clock(clocks / "redis-server", 3600)

Monotonic clocks are as ever. It works for programs that ask libc for the time: CPython, Redis,
workerd.
"""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
from pathlib import Path

import pytest

SOURCE = Path(__file__).with_suffix(".c")


def skewed(library_folder: Path, clocks: Path) -> dict[str, str]:
    """The environment in which each program's clock is the file of its name below `clocks`.

    A relative `clocks` is below the program's working folder. Skips where there is no C compiler.
    """
    compiler = shutil.which("cc")
    if compiler is None:
        if os.environ.get("ENCORE_REQUIRE_ALL") == "1":
            pytest.fail("there is no C compiler")
        pytest.skip("there is no C compiler")
    library = library_folder / "skewed_clock.so"
    if not library.exists():
        command = [compiler, "-shared", "-fPIC", "-O1", "-o", str(library), str(SOURCE), "-ldl"]
        subprocess.run(command, check=True)
    return {"LD_PRELOAD": str(library), "SKEW_FOLDER": str(clocks)}


def set_clock(clock: Path, ahead_s: float) -> None:
    """Let the clock be wrong by so much from now on."""
    with clock.open("r+b") as file:
        file.write(struct.pack("=q", round(ahead_s * 1e9)))
