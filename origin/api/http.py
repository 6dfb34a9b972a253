"""The few things every route does with HTTP: read a body within limits, send, see a client leave.

Plain ASGI (https://asgi.readthedocs.io/en/latest/specs/www.html): a hit is served in microseconds,
and request and response objects would cost more than the lookup.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from starlette.types import Message, Receive, Scope, Send

from origin.limits import Deadline, Room
from origin.tasks import end
from shared import json_text
from shared.errors import ClientError, EncoreError, error_body, error_headers
from shared.keys import LOOPBACK_HOSTS
from shared.wire import PRIVATE, announced_bytes

BODY_DEADLINE_S = 60.0
LARGEST_BODIES = 16
"""How many bodies of the largest size there is room for."""
STOPPING = "encore.stopping"
"""Where the `state` of a request's scope has an `asyncio.Event` that the server sets when it is to
stop: an answer that has no end of its own ends then. Not every server has one."""
_JSON_HEADERS = {"content-type": "application/json", "cache-control": PRIVATE}


class ClientLeftError(Exception):
    """The client closed the connection: there is nobody to answer."""


def headers_of(scope: Scope) -> dict[str, str]:
    """Request headers, names in lower case; of a repeated one the values, joined by commas."""
    raw = scope["headers"]
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in raw}
    if len(headers) < len(raw):
        headers = {}
        for raw_name, raw_value in raw:
            name, value = raw_name.decode("latin-1"), raw_value.decode("latin-1")
            headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return headers


def is_loopback(scope: Scope, headers: Mapping[str, str]) -> bool:
    """Whether the connection comes from this machine and was meant for it.

    A page whose name was rebound to this machine (DNS rebinding) still sends its own name as Host.
    """
    client = scope.get("client")
    host = headers.get("host", "")
    name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
    return client is not None and client[0] in LOOPBACK_HOSTS and name.strip("[]") in LOOPBACK_HOSTS


async def read_body(
    receive: Receive,
    headers: Mapping[str, str],
    limit_bytes: int,
    *,
    deadline_s: float = BODY_DEADLINE_S,
) -> bytes:
    """The whole body. Raises ClientError 413 over the limit, 408 where it takes too long.

    ClientLeftError where it broke off.
    """
    reader = BodyReader(limit_bytes=limit_bytes, large_bytes=limit_bytes, deadline_s=deadline_s)
    try:
        async with asyncio.timeout(deadline_s):
            return await reader.read_on(receive, headers)
    except TimeoutError:
        raise _too_slow() from None


class BodyReader:
    """Reads bodies for the routes that are asked all the time: within a size and a time.

    Of bodies larger than `large_bytes` there are so many bytes in memory at once, and no more.
    """

    def __init__(self, *, limit_bytes: int, large_bytes: int, deadline_s: float) -> None:
        self._limit_bytes = limit_bytes
        self._large_bytes = large_bytes
        self._deadline = Deadline(deadline_s)
        self._room = Room(limit_bytes * LARGEST_BODIES)

    async def read(self, receive: Receive, headers: Mapping[str, str]) -> bytes:
        """The whole body, to be `let_go` of. Raises as `read_body`, and InternalError 503."""
        task = self._deadline.begin()
        try:
            body = await self.read_on(receive, headers)
        except BaseException as exc:
            if self._deadline.end(task) and isinstance(exc, asyncio.CancelledError):
                raise _too_slow() from None
            raise
        self._deadline.end(task)
        return body

    async def read_on(self, receive: Receive, headers: Mapping[str, str]) -> bytes:
        """Read for as long as it takes; see `read`."""
        refuse_larger(announced_bytes(headers) or 0, self._limit_bytes)
        chunks: list[bytes] = []
        size_bytes = taken_bytes = 0
        try:
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise ClientLeftError
                chunk = message.get("body", b"")
                size_bytes += len(chunk)
                if size_bytes > self._large_bytes:
                    refuse_larger(size_bytes, self._limit_bytes)
                    self._room.take(size_bytes - taken_bytes)
                    taken_bytes = size_bytes
                chunks.append(chunk)
                if not message.get("more_body", False):
                    return b"".join(chunks)
        except BaseException:
            self._room.give(taken_bytes)
            raise

    def let_go(self, body: bytes) -> None:
        """Make room for others: of this body only what was read from it is left."""
        if len(body) > self._large_bytes:
            self._room.give(len(body))


async def send_response(
    send: Send, status: int, headers: Mapping[str, str], body: bytes = b""
) -> None:
    """Send a whole response."""
    await start_response(send, status, {**headers, "content-length": str(len(body))})
    await send({"type": "http.response.body", "body": body})


async def start_response(send: Send, status: int, headers: Mapping[str, str]) -> None:
    """Send status and headers; the body follows in pieces, by `send_piece`."""
    raw = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": status, "headers": raw})


async def send_piece(send: Send, piece: bytes, *, more: bool) -> None:
    """Send a piece of a streamed body; `more` is False for the last one."""
    await send({"type": "http.response.body", "body": piece, "more_body": more})


def adding(send: Send, name: str, value: str) -> Send:
    """A `send` that puts one more header on the response, whatever it is."""

    async def send_more(message: Message) -> None:
        if message["type"] == "http.response.start":
            header = (name.encode("latin-1"), value.encode("latin-1"))
            message = {**message, "headers": [*message["headers"], header]}
        await send(message)

    return send_more


async def send_error(send: Send, error: EncoreError) -> None:
    """Send an error in OpenAI's shape."""
    headers = error_headers(error)
    if error.status == 408:
        headers["connection"] = "close"  # RFC 9110, 15.5.9: who sends so slowly would go on
    await send_response(send, error.status, headers, error_body(error))


async def send_json(send: Send, answer: Awaitable[Mapping[str, Any]], *, status: int = 200) -> None:
    """Send what `answer` gives, or the error that it raises; to a client that has left, nothing."""
    try:
        fields = await answer
    except ClientLeftError:
        return
    except EncoreError as error:
        await send_error(send, error)
    else:
        await send_response(send, status, _JSON_HEADERS, json_text.dumps(fields))


@asynccontextmanager
async def while_connected(receive: Receive) -> AsyncIterator[None]:
    """Run the block until the client leaves: then cancel it and raise ClientLeftError.

    The request's body must have been read.
    """
    block = asyncio.current_task()
    left = False

    async def watch() -> None:
        nonlocal left
        while (await receive())["type"] != "http.disconnect":
            pass
        left = True
        if block is not None:
            block.cancel()

    watcher = asyncio.create_task(watch())
    try:
        yield
    except asyncio.CancelledError:
        if left and block is not None and block.uncancel() == 0:
            raise ClientLeftError from None
        raise
    finally:
        await end([watcher])


def _too_slow() -> ClientError:
    return ClientError(
        "The body took too long to arrive.", status=408, code="request_timeout", retry_after_s=1
    )


def refuse_larger(size_bytes: int, limit_bytes: int) -> None:
    """Raise ClientError 413 for a body of more bytes than that."""
    if size_bytes > limit_bytes:
        raise ClientError(
            f"The body is larger than {limit_bytes} bytes.", status=413, code="request_too_large"
        )
