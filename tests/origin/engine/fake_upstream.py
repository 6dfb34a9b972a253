"""A small OpenAI-compatible server on loopback whose faults a test chooses."""

from __future__ import annotations

import asyncio
import json
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tests.support.serving import serving

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from starlette.types import Receive, Scope, Send


@dataclass(frozen=True, kw_only=True)
class Reply:
    """What to answer: `pieces` one by one, then `end`: properly, by a cut connection, or never.

    `waits` is for `FakeUpstream.go_on` to be set before any of it.
    """

    status: int = 200
    headers: dict[str, str] = field(default_factory=lambda: {"content-type": "application/json"})
    pieces: Sequence[bytes] = ()
    end: str = "whole"
    waits: bool = False


@dataclass(frozen=True, kw_only=True)
class Seen:
    """A request as it arrived."""

    method: str
    path: str
    headers: dict[str, str]
    body: dict[str, Any] | None
    raw: bytes
    target: str
    connection: object


class FakeUpstream:
    """The server: set `reply`, then look at `seen`. What is in `first` is answered before it.

    `arrived` is set when a request has come, `left` when a client hangs up.
    """

    def __init__(self) -> None:
        self.reply = Reply()
        self.first: list[Reply] = []
        self.seen: list[Seen] = []
        self.arrived = threading.Event()
        self.left = threading.Event()
        self.go_on = threading.Event()
        self.url = ""

    def say(self, value: Any, *, status: int = 200, **headers: str) -> None:
        """Answer with JSON; `headers` have underscores for hyphens."""
        names = {name.replace("_", "-"): text for name, text in headers.items()}
        self.reply = Reply(
            status=status,
            headers={"content-type": "application/json"} | names,
            pieces=[json.dumps(value).encode()],
        )

    def stream(self, *data: Any, end: str = "whole") -> None:
        """Answer with an event stream; a str is sent as it is, anything else as JSON."""
        self.reply = Reply(
            headers={"content-type": "text/event-stream; charset=utf-8"},
            pieces=[
                f"data: {item if isinstance(item, str) else json.dumps(item)}\n\n".encode()
                for item in data
            ],
            end=end,
        )

    def reset(self) -> None:
        """Make it as new."""
        self.reply = Reply()
        self.first.clear()
        self.seen.clear()
        self.left.clear()
        self.arrived.clear()
        self.go_on.clear()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        assert scope["type"] == "http"
        body = b""
        while True:
            message = await receive()
            assert message["type"] == "http.request"
            body += message["body"]
            if not message["more_body"]:
                break
        self.seen.append(
            Seen(
                method=scope["method"],
                path=scope["path"],
                headers={name.decode(): value.decode() for name, value in scope["headers"]},
                body=json.loads(body) if body.startswith(b"{") else None,
                raw=body,
                target=scope["raw_path"].decode() + "?" + scope["query_string"].decode(),
                connection=scope["client"],
            )
        )
        self.arrived.set()
        reply = self.first.pop(0) if self.first else self.reply
        if reply.waits:
            await asyncio.to_thread(self.go_on.wait)
        if reply.pieces or reply.end != "never":
            headers = [(name.encode(), value.encode()) for name, value in reply.headers.items()]
            await send(
                {
                    "type": "http.response.start",
                    "status": reply.status,
                    "headers": headers,
                    "trailers": False,
                }
            )
        for piece in reply.pieces:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        if reply.end == "never":
            while (await receive())["type"] != "http.disconnect":
                pass
            self.left.set()
        elif reply.end == "whole":
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        # Returning without the last message makes uvicorn cut the connection.


@contextmanager
def fake_upstream() -> Iterator[FakeUpstream]:
    """Run a FakeUpstream on a free loopback port for the length of the block."""
    fake = FakeUpstream()
    with serving(fake) as fake.url:
        yield fake
