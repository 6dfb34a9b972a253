"""The load generator: raw HTTP/1.1 over connections that are kept open, one request at a time each.

It parses no more than it must, so that what is measured is the server. An answer is right where its
head has what the caller expects; whatever else comes is an error.
"""

from __future__ import annotations

import asyncio
import functools
import itertools
import re
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import cast

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


@dataclass(kw_only=True)
class Sent:
    """What came of some requests."""

    wall_s: float = 0.0
    latencies_ms: list[float] = field(default_factory=list)
    errors: list[Exception] = field(default_factory=list)

    def checked(self) -> list[float]:
        """The latencies in ms. Raises the first error, LookupError where an answer was wrong."""
        if self.errors:
            raise self.errors[0]
        return self.latencies_ms


async def send(
    address: tuple[str, int], requests: Iterable[bytes], connections: int, expected: bytes
) -> Sent:
    """Send all requests over so many connections; the head of each answer must have `expected`.

    A connection that fails is replaced: every request is either answered or an error.
    """
    sent, source, loop = Sent(), iter(requests), asyncio.get_running_loop()

    async def keep_one() -> None:
        for first in source:
            rest = itertools.chain([first], source)
            make = functools.partial(Connection, rest, expected, sent.latencies_ms)
            try:
                _, connection = await loop.create_connection(make, *address)
                await connection.done
            except (OSError, LookupError, ValueError) as error:
                sent.errors.append(error)

    began_s = time.perf_counter()
    await asyncio.gather(*(keep_one() for _ in range(connections)))
    sent.wall_s = time.perf_counter() - began_s
    return sent


class Connection(asyncio.Protocol):
    """One connection that sends a request after another, each when its predecessor is answered."""

    def __init__(self, requests: Iterator[bytes], expected: bytes, latencies: list[float]) -> None:
        self._requests, self._expected, self._latencies = requests, expected, latencies
        self._began_s = 0.0
        self._head: bytes | None = b""
        """What has been read of the head; None once it is whole."""
        self._body = Body(0)
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's has another base
        self._send()

    def data_received(self, data: bytes) -> None:
        """Read on; send the next request once the answer is whole."""
        if self._head is not None:
            self._head += data
            head, end, data = self._head.partition(b"\r\n\r\n")
            if not end:
                return
            if not head.startswith(b"HTTP/1.1 200") or self._expected not in head:
                self._end(LookupError(head.decode("latin-1")))
                return
            self._head = None
            length = _LENGTH.search(head)
            self._body = Body(int(length[1])) if length else Body(None)
        if self._body.is_whole_after(data):
            self._latencies.append((time.perf_counter() - self._began_s) * 1000)
            self._send()

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail where the server hung up."""
        self._end(exc or ConnectionError("the server closed the connection"))

    def _send(self) -> None:
        request = next(self._requests, None)
        if request is None:
            self._end(None)
            return
        self._head = b""
        self._began_s = time.perf_counter()
        self._transport.write(request)

    def _end(self, error: Exception | None) -> None:
        if not self.done.done():
            self.done.set_result(None) if error is None else self.done.set_exception(error)
            self._transport.close()


class Body:
    """How much of a body is to come: so many bytes, or chunks (RFC 9112, section 7.1)."""

    def __init__(self, length: int | None) -> None:
        self._awaits_chunk = length is None
        self._missing = length or 0
        """Bytes that are passed over: of the body, or of a chunk with the line end behind it."""
        self._line = b""

    def is_whole_after(self, data: bytes) -> bool:
        """Take what has come. Raises ValueError where something comes behind the end."""
        while data and (self._missing or self._awaits_chunk):
            if not self._missing:
                data = self._chunk(data)
            taken = min(self._missing, len(data))
            self._missing -= taken
            data = data[taken:]
        if data:
            raise ValueError(f"{len(data)} bytes behind the end of an answer")
        return not self._missing and not self._awaits_chunk

    def _chunk(self, data: bytes) -> bytes:
        """Read the line that says how long the next chunk is; what comes behind it."""
        line, end, rest = (self._line + data).partition(b"\r\n")
        if not end:
            self._line = line
            return b""
        self._line = b""
        size = int(line.split(b";")[0], 16)
        self._missing, self._awaits_chunk = size + 2, size > 0
        return rest
