"""uvicorn's HTTP/1.1 over httptools, with what it lacks against clients that waste connections.

httptools takes a head of any size, and uvicorn waits for one, and for a client to read, without
end. Bodies have their limits elsewhere (`origin.api.http.BodyReader`): they are an application's.

Invariants
1. A head arrives within `HEAD_S` of the connection, or of its own first byte, and takes at most
   `MAX_HEAD_BYTES`, or the piece that it came in (256 KiB). What follows an answer that did not
   wait for its request has the same time.
2. A client that an answer waits for reads `MIN_READ_BYTES` in each `READ_S`, or is cut off.
3. Whatever is refused here is refused in OpenAI's shape, unless another answer is under way.
4. An offer of another protocol (`Upgrade`: HTTP/2 by Java's clients, WebSocket) is not taken up
   (RFC 9110, section 7.8): the request is the one that it is without, its body is no other request.
"""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from shared.errors import ClientError, error_body, error_headers

HEAD_S = 20.0
MAX_HEAD_BYTES = 64 << 10
READ_S = 30.0
MIN_READ_BYTES = 16 << 10
_FRAMING = (b"content-length", b"transfer-encoding")


class Protocol(HttpToolsProtocol):
    """One connection."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._in_head = True
        self._in_message = False
        self._head_bytes = 0
        self._has_begun = False
        self._is_offered = False
        self._is_resumed = False
        self._late: asyncio.TimerHandle | None = None
        self._unread: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for a request."""
        super().connection_made(transport)
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait for nothing any more."""
        self._wait_no_more()
        self.resume_writing()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Read on, within the limits."""
        self._unset_keepalive_if_required()
        self._has_begun = False
        rest = self._parsed(data)
        while rest:
            rest = self._parsed(rest)
        if self._in_head:
            # Of a piece in which a head begins nobody knows how much is of it.
            self._head_bytes += 1 if self._has_begun else len(data)
            if self._head_bytes > MAX_HEAD_BYTES:
                self._refuse(431, "headers_too_large", "The request's headers are too large.")
        if self._late is not None or self.transport.is_closing():
            return
        if self._is_owed():
            self._wait()
        elif not self._in_message and not self._is_answering():
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )

    def on_message_begin(self) -> None:
        """Of the parser."""
        super().on_message_begin()
        self._in_head = self._in_message = self._has_begun = True

    def on_headers_complete(self) -> None:
        """Of the parser."""
        if not self._is_resumed:
            super().on_headers_complete()
            self._is_offered = self.parser.should_upgrade()
        self._in_head = False
        self._head_bytes = 0
        self._wait_no_more()

    def on_message_complete(self) -> None:
        """Of the parser, which takes an offer of another protocol for the end of a message."""
        if self._is_offered:
            return
        super().on_message_complete()
        self._in_message = False
        self._wait_no_more()

    def pause_writing(self) -> None:
        """Begin to wait for the client to read."""
        super().pause_writing()
        self._wait_for_reader(self.transport.get_write_buffer_size())

    def resume_writing(self) -> None:
        """It has."""
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None
        super().resume_writing()

    def _parsed(self, data: bytes) -> bytes:
        """What is still to be parsed: what follows a head that offers another protocol."""
        try:
            try:
                self.parser.feed_data(data)
            except httptools.HttpParserUpgrade as offer:
                self._resume()
                return data[offer.args[0] :]
        except httptools.HttpParserError:
            self._refuse(400, "invalid_http", "Invalid HTTP request received.")
        return b""

    def _resume(self) -> None:
        """Go on behind a head that offers another protocol, as if it did not.

        httptools reads no body behind it, and no further request: another parser does, which is
        told how long the body is.
        """
        framing = [b"%b: %b\r\n" % header for header in self.headers if header[0] in _FRAMING]
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn's
        self._is_offered, self._is_resumed = False, True
        try:
            self.parser.feed_data(b"POST / HTTP/1.1\r\n%b\r\n" % b"".join(framing))
        finally:
            self._is_resumed = False

    def _is_owed(self) -> bool:
        """Whether the client has to send something for which nobody else has a limit."""
        if self._in_head:
            return self._head_bytes > 0
        return self._in_message and self.cycle.response_complete

    def _wait(self) -> None:
        self._late = self.loop.call_later(HEAD_S, self._is_late)

    def _wait_no_more(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def _is_late(self) -> None:
        self._late = None
        if self._is_answering():
            self._wait()  # it is ahead of itself: the next request comes during an answer
        elif self._in_head and self._head_bytes:
            self._refuse(408, "request_timeout", "The request took too long to arrive.")
        else:
            self.transport.close()

    def _is_answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _may_refuse(self) -> bool:
        """Whether an answer of ours would be taken for that to what is refused."""
        if not self._is_answering():
            return True
        its_body = self._in_message and not self._in_head and not self.pipeline
        return its_body and not self.cycle.response_started

    def _refuse(self, status: int, code: str, message: str) -> None:
        if self._may_refuse() and not self.transport.is_closing():
            if self._is_answering():
                self.cycle.disconnected = True  # nobody hears what the application says
                self.cycle.message_event.set()
            error = ClientError(message, status=status, code=code)
            body = error_body(error)
            headers = [(n.encode(), v.encode()) for n, v in error_headers(error).items()]
            headers += [(b"content-length", b"%d" % len(body)), (b"connection", b"close")]
            lines = [b"HTTP/1.1 %d %b" % (status, HTTPStatus(status).phrase.encode())]
            lines += [b"%b: %b" % header for header in headers]
            self.transport.write(b"\r\n".join([*lines, b"", body]))
        self._wait_no_more()
        self.transport.close()

    def _wait_for_reader(self, left_bytes: int) -> None:
        self._unread = self.loop.call_later(READ_S, self._is_unread, left_bytes)

    def _is_unread(self, before_bytes: int) -> None:
        left_bytes = self.transport.get_write_buffer_size()
        if left_bytes > before_bytes - MIN_READ_BYTES:
            self.transport.abort()
        else:
            self._wait_for_reader(left_bytes)
