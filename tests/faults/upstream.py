"""An OpenAI-compatible upstream as a process of its own: `python -m tests.faults.upstream PORT`.

Each answer says its question and the moment it was made (nanoseconds since 1970), which no other
answer has: so a wrong answer is seen, one from before a purge, and one that another tenant was
given. A vector of an embedding is made of its input alone.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time

import uvicorn
from starlette.types import Receive, Scope, Send

from shared.requests import Endpoint
from shared.streams import event_stream
from tests.support.engines import chat_answer, embeddings_answer

MODEL = "m"
PIECE_BYTES = 512
PAUSE_S = 0.002


class Numbers:
    """The time in nanoseconds, never the same twice."""

    def __init__(self) -> None:
        self._last = 0

    def next(self) -> int:
        """One more."""
        self._last = max(self._last + 1, time.time_ns())
        return self._last


_numbers = Numbers()


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer one request; a stream in pieces, with pauses."""
    assert scope["type"] == "http"
    number = _numbers.next()
    body = b""
    while (message := await receive())["type"] == "http.request":
        body += message["body"]
        if not message["more_body"]:
            break
    kind = b"application/json"
    if scope["path"] == "/v1/chat/completions":
        asked = json.loads(body)
        answer = chat_answer(f"{asked['messages'][0]['content']} #{number}")
        answer["model"] = asked["model"]
        said = json.dumps(answer).encode()
        if asked.get("stream"):
            kind = b"text/event-stream"
            said = event_stream(Endpoint.CHAT, answer, include_usage=True)
    elif scope["path"] == "/v1/embeddings":
        given = json.loads(body)["input"]
        answer = embeddings_answer([given] if isinstance(given, str) else given)
        answer["model"] = MODEL
        said = json.dumps(answer).encode()
    else:
        said = json.dumps({"object": "list", "data": [{"id": MODEL}]}).encode()
    headers = [(b"content-type", kind)]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    for start in range(0, len(said), PIECE_BYTES):
        piece = said[start : start + PIECE_BYTES]
        await send({"type": "http.response.body", "body": piece, "more_body": True})
        await asyncio.sleep(PAUSE_S)
    await send({"type": "http.response.body", "body": b""})


if __name__ == "__main__":
    uvicorn.run(
        app,
        host="127.0.0.1",
        port=int(sys.argv[1]),
        log_level="critical",
        lifespan="off",
        timeout_keep_alive=75,
    )
