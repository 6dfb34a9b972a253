"""Ports for servers that are started a moment later."""

from __future__ import annotations

import contextlib
import os
import random
import socket
from typing import Final

# Systems give outgoing connections ports from 32768 or 49152 on. One of those could be taken by any
# of them between now and the start of the server that is told this one.
# Nor by another process of this test run: each has ports of its own.
_PROCESS: Final = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
_PROCESSES: Final = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
_PORTS: Final = range(10_000 + _PROCESS, 22_000, _PROCESSES)  # leaves a Cluster its bus, 10,000 up
_random: Final = random.SystemRandom()


def free_port() -> int:
    """A port of 127.0.0.1 on which nobody listens, and which no outgoing connection is given."""
    while True:
        port = _random.choice(_PORTS)
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
