"""Runs an ASGI application on a loopback port, in a thread with an event loop of its own."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn
from starlette.types import ASGIApp


@contextmanager
def serving(
    app: ASGIApp,
    port: int = 0,
    *,
    lifespan: bool = False,
    http: Any = "auto",
    keep_alive_s: int = 5,
) -> Iterator[str]:
    """The base URL of `app` for the length of the block; a free port unless one is named.

    With `lifespan` the application closes what it holds, as one with real connections must. `http`
    is uvicorn's setting: `origin.http_protocol.Protocol` is how the origin itself is served. An
    idle connection is closed after `keep_alive_s`.
    """
    listener = socket.create_server(("127.0.0.1", port))
    server = uvicorn.Server(
        uvicorn.Config(
            app,
            log_level="critical",
            timeout_graceful_shutdown=1,
            timeout_keep_alive=keep_alive_s,
            lifespan="on" if lifespan else "off",
            http=http,
            ws="none",
        )
    )
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
        listener.close()
