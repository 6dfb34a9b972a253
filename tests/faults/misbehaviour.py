"""A server of HTTP that does wrong on purpose what no HTTP library would: bytes as they come.

    with misbehaving_server(ANSWERS["cut JSON"]) as port:
        ...

Every request gets the same pieces; what never ends goes on until its client leaves.
"""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import re
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from tests.support.engines import chat_answer

PAUSE_S = 0.01
"""Between pieces of what never ends."""
FOREVER = 100_000
"""As many pieces as nobody waits for."""


def _answer(body: bytes, status: str = "200 OK", *headers: str, length: int | None = None) -> bytes:
    """One response, whole; `length` is what it says of its body, where that is a lie."""
    lines = [f"HTTP/1.1 {status}", "connection: close", *headers]
    lines.append(f"content-length: {len(body) if length is None else length}")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


_JSON = "content-type: application/json"
_STREAM = "content-type: text/event-stream"
_GOOD = json.dumps(chat_answer("What nobody asked for #1")).encode()
_CHUNK = (
    b'data: {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", '
    b'"choices": [{"index": 0, "delta": {"content": "on and on "}, "finish_reason": null}]}\n\n'
)
_PAGE = b"<html><body><h1>Sorry</h1></body></html>"
_ERROR = b'{"error": {"message": "Sorry.", "type": "server_error", "param": null, "code": null}}'

_ENDLESS = b"HTTP/1.1 200 OK\r\nconnection: close\r\n"
# Unpacked it is more than an upstream's answer may have.
_BOMB = gzip.compress(b" " * (80 << 20), compresslevel=1)

ANSWERS: dict[str, Sequence[bytes]] = {
    "429": [_answer(_ERROR, "429 Too Many Requests", _JSON, "retry-after: 40")],
    "500 page": [_answer(_PAGE, "500 Internal Server Error", "content-type: text/html")],
    "502 page": [_answer(_PAGE, "502 Bad Gateway", "content-type: text/html")],
    "503 page": [_answer(_PAGE, "503 Service Unavailable", "content-type: text/html")],
    "200 page": [_answer(_PAGE, "200 OK", "content-type: text/html")],
    "200 with an error": [_answer(_ERROR, "200 OK", _JSON)],
    "200 with nothing": [_answer(b"", "200 OK", _JSON)],
    "204": [_answer(b"", "204 No Content")],
    "redirect": [_answer(b"", "302 Found", "location: http://127.0.0.1:9/v1/chat/completions")],
    "cut JSON": [_answer(_GOOD[:-20], "200 OK", _JSON)],
    "JSON of nothing": [_answer(b"null", "200 OK", _JSON)],
    "no choices": [_answer(b'{"choices": null, "data": {}}', "200 OK", _JSON)],
    "too short": [_answer(_GOOD[:-20], "200 OK", _JSON, length=len(_GOOD))],
    "too long": [_answer(_GOOD, "200 OK", _JSON, length=len(_GOOD) - 20)],
    "no UTF-8": [_answer(_GOOD.replace(b"What", b"\xff\xff"), "200 OK", _JSON)],
    "JSON as a stream": [_answer(_GOOD, "200 OK", _STREAM)],
    "a stream as JSON": [_answer(_CHUNK + b"data: [DONE]\n\n", "200 OK", _JSON)],
    "no gzip": [_answer(_GOOD, "200 OK", _JSON, "content-encoding: gzip")],
    "a stream without an end": [_answer(_CHUNK * 3, "200 OK", _STREAM)],
    "a stream of nothing": [_answer(b"data: [DONE]\n\n", "200 OK", _STREAM)],
    "a stream that breaks": [_answer(_CHUNK + _CHUNK[:-40], "200 OK", _STREAM, length=9999)],
    "a stream of no UTF-8": [_answer(_CHUNK.replace(b"on and", b"\xff"), "200 OK", _STREAM)],
    "no HTTP": [b"SSH-2.0-OpenSSH_9.2p1\r\n"],
    "endless headers": [b"HTTP/1.1 200 OK\r\n", *[b"x: y\r\n" * 100] * 1000],
    "an endless stream": [_ENDLESS + _STREAM.encode() + b"\r\n\r\n", *[_CHUNK] * FOREVER],
    "an endless answer": [_ENDLESS + _JSON.encode() + b"\r\n\r\n", *[b" " * 1000] * FOREVER],
    "a bomb": [_answer(_BOMB, "200 OK", _JSON, "content-encoding: gzip")],
}


@contextmanager
def misbehaving_server(pieces: Sequence[bytes]) -> Iterator[int]:
    """The port of a server that answers so, in a thread of its own."""
    loop = asyncio.new_event_loop()
    listener = socket.create_server(("127.0.0.1", 0))
    over = asyncio.Event()
    serving = _serve(listener, pieces, over)
    thread = threading.Thread(target=loop.run_until_complete, args=(serving,))
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        loop.call_soon_threadsafe(over.set)
        thread.join()
        loop.close()


async def _serve(listener: socket.socket, pieces: Sequence[bytes], over: asyncio.Event) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with (
            contextlib.closing(writer),
            contextlib.suppress(OSError, asyncio.IncompleteReadError),
        ):
            head = await reader.readuntil(b"\r\n\r\n")
            length = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
            await reader.readexactly(int(length[1]) if length else 0)
            for number, piece in enumerate(pieces):
                writer.write(piece)
                await writer.drain()
                if number:
                    await asyncio.sleep(PAUSE_S)

    server = await asyncio.start_server(answer, sock=listener)
    await over.wait()
    server.close()
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
