"""Child processes that do not outlive their parent.

A child runs in a session of its own, so Ctrl-C reaches the parent alone and the parent decides the
order in which its children stop. If the parent is killed outright, Linux sends the child SIGTERM
(PR_SET_PDEATHSIG); elsewhere the child is left behind.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

# Runs as the child before it becomes the program: asks the kernel to be told of the parent's death,
# then makes sure the parent had not died already. (A preexec_fn is not safe beside threads.)
_LAUNCHER = """
import ctypes, os, signal, sys
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)
if os.getppid() != int(sys.argv[1]):
    sys.exit(1)
os.execvp(sys.argv[2], sys.argv[2:])
"""


def leashed(command: Sequence[str]) -> list[str]:
    """Return the command that runs `command` as a child of this process, bound to its life.

    Start it with `start_new_session=True`, from a thread that outlives it: the kernel counts the
    starting thread as the parent.
    """
    return [sys.executable, "-I", "-S", "-c", _LAUNCHER, str(os.getpid()), *command]
