"""The server: what has no end of its own ends when the server is to stop."""

from __future__ import annotations

import socket
import threading

import httpx
from starlette.types import Receive, Scope, Send

from origin.api.http import STOPPING
from origin.departure import Departure, Patience
from origin.server import server


async def until_told(scope: Scope, receive: Receive, send: Send) -> None:
    """An application that answers until the server is to stop."""
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": f"{message['type']}.complete"})
            if message["type"] == "lifespan.shutdown":
                return
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"began, ", "more_body": True})
    await scope["state"][STOPPING].wait()
    await send({"type": "http.response.body", "body": b"ended"})


def test_answers_without_end_are_told_of_it() -> None:
    """They are finished, not cut off."""
    listener = socket.create_server(("127.0.0.1", 0))
    running = server(until_told, Departure(), Patience(drain_s=0, finish_s=30))
    thread = threading.Thread(target=running.run, kwargs={"sockets": [listener]})
    thread.start()
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    try:
        with httpx.Client(timeout=30) as client, client.stream("GET", url) as response:
            pieces = response.iter_raw()
            assert next(pieces) == b"began, "
            running.should_exit = True
            assert b"".join(pieces) == b"ended"
    finally:
        running.should_exit = True
        thread.join()
        listener.close()
