"""How the origin is served: one process, one event loop, by uvicorn."""

from __future__ import annotations

import asyncio
import gc
import socket

import uvicorn
from starlette.types import ASGIApp

from origin.api.http import STOPPING


def server(app: ASGIApp) -> uvicorn.Server:
    """A server of `app`; run it on a listening socket. On SIGTERM it has 30 s to finish."""
    # What is loaded stays: no collection need look through it again (a model's library has a
    # million objects, and requests would wait meanwhile).
    gc.collect()
    gc.freeze()
    return _Server(
        uvicorn.Config(
            app,
            loop="uvloop",
            http="httptools",
            ws="none",
            lifespan="on",
            access_log=False,
            log_config=None,
            server_header=False,
            timeout_graceful_shutdown=30,
        )
    )


class _Server(uvicorn.Server):
    """Tells what runs without end that the end has come."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self.lifespan.state[STOPPING] = asyncio.Event()
        await super().startup(sockets)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self.lifespan.state[STOPPING].set()
        await super().shutdown(sockets)
