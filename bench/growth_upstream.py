"""The model behind the origins of `bench.growth`: an OpenAI-compatible API that takes no time.

    python -m uvicorn bench.growth_upstream:upstream --port 9000

A last message that begins with a number is answered with so many characters that hardly compress,
any other one with some 900.
"""

from __future__ import annotations

import base64
import json
import random
from functools import lru_cache

from starlette.types import Receive, Scope, Send

from bench.origin_hit import WORDS
from tests.support.engines import MODEL, chat_answer

NOISE_SEED = 8


async def upstream(scope: Scope, receive: Receive, send: Send) -> None:
    """Serve one request."""
    if scope["type"] != "http":
        return
    body = b""
    while (message := await receive())["type"] == "http.request":
        body += message["body"]
        if not message["more_body"]:
            break
    said = b'{"object": "list", "data": [{"id": "%s"}]}' % MODEL.encode()
    if scope["method"] == "POST":
        size = json.loads(body)["messages"][-1]["content"].split(" ", 1)[0]
        said = answer_of(int(size) if size.isdigit() else 0)
    headers = [(b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": said})


@lru_cache
def answer_of(size: int) -> bytes:
    """The answer of so many characters, or of the usual length for 0."""
    noise = random.Random(NOISE_SEED).randbytes(size)  # noqa: S311 - reproducible filler
    text = base64.b64encode(noise).decode()[:size] if size else WORDS * 10
    return json.dumps(chat_answer(text)).encode()
