"""How the origin is served: one process, one event loop, by uvicorn.

uvicorn closes its listener the moment it is told to stop, and every connection that is between two
requests: whoever had just been sent here would lose its request. So a drain comes first
(origin/departure.py).
"""

from __future__ import annotations

import asyncio
import gc
import socket
import time
from types import FrameType

import uvicorn
from starlette.types import ASGIApp

from origin.api.http import STOPPING
from origin.departure import Departure, Patience
from origin.http_protocol import Protocol

KEEP_ALIVE_S = 75
"""Longer than proxies keep an idle connection (nginx, AWS: 60 s), so that they close it, not we
while they are sending a request."""
_CLOSE = (b"connection", b"close")


def server(app: ASGIApp, departure: Departure, patience: Patience) -> uvicorn.Server:
    """A server of `app`; run it on a listening socket. On SIGTERM it leaves as `patience` says."""
    # What is loaded stays: no collection need look through it again (a model's library has a
    # million objects, and requests would wait meanwhile).
    gc.collect()
    gc.freeze()
    config = uvicorn.Config(
        app,
        loop="uvloop",
        http=Protocol,
        ws="none",
        lifespan="on",
        access_log=False,
        log_config=None,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=round(patience.finish_s) + 1,
    )
    return _Server(config, departure, patience.drain_s)


class _Server(uvicorn.Server):
    """uvicorn's, with a drain between the signal and the end of listening.

    Of its own it overrides what a signal does and what a tick (each 0.1 s) does.
    """

    def __init__(self, config: uvicorn.Config, departure: Departure, drain_s: float) -> None:
        super().__init__(config)
        self._departure = departure
        self._drain_s = drain_s
        self._leaves_s: float | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Note a signal. A second Ctrl-C ends everything at once."""
        self._departure.begin()
        self._close_after_answers()
        super().handle_exit(sig, frame)

    async def on_tick(self, counter: int) -> bool:
        """Whether to stop listening now."""
        is_going = await super().on_tick(counter)
        if not is_going:
            return False
        self._close_after_answers()  # uvicorn makes its headers anew each second
        if self._leaves_s is None:
            self._leaves_s = time.monotonic() + self._drain_s
        return self.force_exit or time.monotonic() >= self._leaves_s

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin, with an event that tells what runs without end that the end has come."""
        self.lifespan.state[STOPPING] = asyncio.Event()
        await super().startup(sockets)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop listening, and wait for what is under way."""
        self.lifespan.state[STOPPING].set()
        await super().shutdown(sockets)

    def _close_after_answers(self) -> None:
        if _CLOSE not in self.server_state.default_headers:
            self.server_state.default_headers = [*self.server_state.default_headers, _CLOSE]
