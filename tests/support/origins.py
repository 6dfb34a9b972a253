"""`encore origin` processes as users run them, and a model whose answers can be told apart."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import httpx
from starlette.types import Receive, Scope, Send

from shared.requests import Endpoint
from shared.streams import event_stream
from tests.support.commands import encore, environ
from tests.support.engines import chat_answer
from tests.support.ports import free_port
from tests.support.serving import serving

SECRET = "0123456789abcdef0123456789abcdef"
CHAT = "/v1/chat/completions"
START_TIMEOUT_S = 60


class Echo:
    """An upstream that answers `QUESTION #N`: each answer tells its question, and is of its own."""

    def __init__(self) -> None:
        self.count = 0
        self.url = ""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        body = b""
        while (message := await receive())["type"] == "http.request":
            body += message["body"]
            if not message["more_body"]:
                break
        if scope["path"] == CHAT:
            self.count += 1
            asked = json.loads(body)
            answer = chat_answer(f"{asked['messages'][0]['content']} #{self.count}")
            answer["model"] = asked["model"]
            is_stream = asked.get("stream", False)
            said = (
                event_stream(Endpoint.CHAT, answer, include_usage=True)
                if is_stream
                else json.dumps(answer).encode()
            )
            kind = b"text/event-stream" if is_stream else b"application/json"
        else:
            said, kind = b'{"object": "list", "data": [{"id": "m"}]}', b"application/json"
        headers = [(b"content-type", kind)]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": said})


@contextmanager
def echo() -> Iterator[Echo]:
    """A running one."""
    upstream = Echo()
    with serving(upstream) as upstream.url:
        yield upstream


@dataclass(frozen=True, kw_only=True)
class Said:
    """An answer: its text without the number, the number, and how it came about."""

    question: str
    number: int
    status: str
    key: str


def said_in(response: httpx.Response) -> Said:
    """What is said in a good answer, plain or streamed. Raises AssertionError for any other."""
    assert response.status_code == 200, (response.status_code, response.text)
    if response.headers["content-type"].startswith("text/event-stream"):
        events = [line.removeprefix("data: ") for line in response.text.splitlines() if line]
        assert events[-1] == "[DONE]", response.text
        deltas = (json.loads(event)["choices"] for event in events[:-1])
        text = "".join(d[0]["delta"].get("content") or "" for d in deltas if d)
    else:
        text = response.json()["choices"][0]["message"]["content"]
    question, _, number = text.rpartition(" #")
    return Said(
        question=question,
        number=int(number),
        status=response.headers["cache-status"],
        key=response.headers["encore-key"],
    )


@dataclass(kw_only=True)
class Origin:
    """An `encore origin` that can be killed and started again."""

    folder: Path
    variables: dict[str, str]
    module: str = "origin.cli"
    port: int = 0
    process: subprocess.Popen[bytes] | None = None
    url: str = ""
    client: httpx.Client = field(default_factory=partial(httpx.Client, timeout=30))

    def __post_init__(self) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"

    def command(self, *arguments: str) -> str:
        """What an `encore` command prints on standard output."""
        result = encore(self.folder, *arguments, **self.variables)
        assert result.returncode == 0, result.stderr
        return result.stdout.strip()

    def start(self) -> None:
        """Start it, and wait until it is ready."""
        with (self.folder / "origin.log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", self.module, "origin"],
                cwd=self.folder,
                env=environ(ENCORE_ORIGIN_PORT=str(self.port), **self.variables),
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        deadline_s = time.monotonic() + START_TIMEOUT_S
        while True:
            try:
                if httpx.get(self.url + "/readyz").is_success:
                    return
            except httpx.HTTPError:
                pass
            assert time.monotonic() < deadline_s, (self.folder / "origin.log").read_text()
            time.sleep(0.02)

    def kill(self) -> None:
        """`kill -9`."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def stop(self) -> None:
        """Ask it to end, and wait until it has."""
        if self.process is not None:
            self.process.terminate()
            self.process.wait(timeout=30)

    def post(
        self, path: str, api_key: str, body: dict[str, object], **headers: str
    ) -> httpx.Response:
        """Send a request; any thread may."""
        sent = {"authorization": f"Bearer {api_key}"}
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        return self.client.post(self.url + path, json=body, headers=sent)

    def ask(
        self, api_key: str, question: str, *, stream: bool = False, **headers: str
    ) -> httpx.Response:
        """Ask the model."""
        body: dict[str, object] = {
            "model": "m",
            "messages": [{"role": "user", "content": question}],
            "stream": stream,
        }
        return self.post(CHAT, api_key, body, **headers)


@contextmanager
def origin(folder: Path, upstream: Echo, **variables: str) -> Iterator[Origin]:
    """An origin in front of the upstream, not started yet; killed with the block."""
    one = Origin(
        folder=folder,
        variables={"ENCORE_SECRET": SECRET, "ENCORE_UPSTREAM": upstream.url, **variables},
    )
    try:
        yield one
    finally:
        one.kill()
        one.client.close()


@contextmanager
def origin_process(folder: Path, **variables: str) -> Iterator[Origin]:
    """An origin with these variables, ready, for the length of the block; it may die within."""
    one = Origin(folder=folder, variables=variables)
    try:
        one.start()
        yield one
    finally:
        one.stop()
        one.client.close()
