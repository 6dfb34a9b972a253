"""Server-sent events, both directions, as bytes: an incremental parser and an encoder.

It follows the WHATWG HTML standard, section 9.2.6 ("Interpreting an event stream"), but for bytes
that are not UTF-8: the standard would repair them, here they are refused. It knows nothing of JSON,
nor of OpenAI but the sentinel that ends their streams.

Invariants
1. The events of a byte string do not depend on how it was cut into pieces.
2. An event is delivered by the piece that holds its last byte; a CR ends a line at once.
3. Memory is bounded: an event in progress never holds more than `limit_bytes`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from shared.errors import UpstreamError

DONE = "[DONE]"
"""The data of the event that ends a stream of OpenAI's."""

LIMIT_BYTES = 8 * 2**20

_LINE_END = re.compile(rb"\r\n|\n|\r")
_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True, kw_only=True, slots=True)
class SSEEvent:
    """One dispatched event: its type, its data lines joined by LF, and the last id seen so far."""

    event: str = "message"
    data: str
    id: str = ""


class SSEParser:
    """Cuts a stream of bytes into events. For one stream, by one task."""

    __slots__ = (
        "_at_start",
        "_data",
        "_data_bytes",
        "_event",
        "_id",
        "_limit_bytes",
        "_line",
        "_line_bytes",
        "_skip_lf",
    )

    def __init__(self, *, limit_bytes: int = LIMIT_BYTES) -> None:
        self._limit_bytes = limit_bytes
        self._line: list[bytes] = []  # pieces of a line whose end has not come yet
        self._line_bytes = 0
        self._skip_lf = False  # the last byte was a CR: an LF now belongs to it
        self._at_start = True
        self._event = ""
        self._data: list[bytes] = []
        self._data_bytes = 0
        self._id = ""

    def feed(self, piece: bytes) -> list[SSEEvent]:
        """Return the events that `piece` completes.

        Raises UpstreamError (502) when one event grows beyond the limit.
        """
        if self._skip_lf and piece:
            self._skip_lf = False
            piece = piece.removeprefix(b"\n")
        *lines, rest = _LINE_END.split(piece)
        events: list[SSEEvent] = []
        if lines:
            self._skip_lf = piece.endswith(b"\r")
            lines[0] = b"".join((*self._line, lines[0]))
            self._line.clear()
            self._line_bytes = 0
            for line in lines:
                self._read(line, events)
        if rest:
            self._line.append(rest)
            self._line_bytes += len(rest)
            self._check_size()
        return events

    def close(self) -> list[SSEEvent]:
        """End the stream: an event without its blank line is dropped, as the standard says.

        The sentinel alone is let through: some servers end their last line and hang up, and
        `[DONE]` cannot be half of something else.
        """
        events: list[SSEEvent] = []
        self._read(b"".join(self._line), events)
        self._read(b"", events)
        self._line.clear()
        self._line_bytes = 0
        return [event for event in events if event.data == DONE]

    def _read(self, line: bytes, events: list[SSEEvent]) -> None:
        if self._at_start:
            self._at_start = False
            line = line.removeprefix(_BOM)
        if not line:
            if self._data:
                data = _text(b"\n".join(self._data))
                events.append(SSEEvent(event=self._event or "message", data=data, id=self._id))
                self._data = []
                self._data_bytes = 0
            self._event = ""
            return
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"data":
            self._data.append(value)
            self._data_bytes += len(value) + 1
            self._check_size()
        elif name == b"event":
            self._event = _text(value)
        elif name == b"id" and b"\0" not in value:
            self._id = _text(value)

    def _check_size(self) -> None:
        if self._line_bytes + self._data_bytes > self._limit_bytes:
            raise UpstreamError(
                f"The upstream sent an event of more than {self._limit_bytes} bytes.",
                code="event_too_large",
            )


def _text(data: bytes) -> str:
    """What was sent as text. What was damaged on its way would, repaired, be another answer."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise UpstreamError(
            "The upstream sent an event that is not UTF-8.", code="upstream_garbage"
        ) from None


def encode_event(data: bytes) -> bytes:
    """Return the event that carries `data`: one `data:` line for each of its lines."""
    if b"\n" in data or b"\r" in data:
        data = b"\ndata: ".join(_LINE_END.split(data))
    return b"data: %b\n\n" % data


DONE_EVENT = encode_event(DONE.encode())
