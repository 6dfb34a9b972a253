"""The engine that asks another OpenAI-compatible API: OpenAI, vLLM, SGLang and the like.

A request goes upstream as its client wrote it, with our key or its tenant's own, never the
client's, and with the usage chunk asked for whenever it streams. How it is sent, and sent again, is
`upstream_client`'s. A stream is finished by `[DONE]` and by nothing else.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import math
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing, suppress
from typing import Any

import httpx

from origin.engine.contract import Chunk, Event, Finished, ModelInfo
from origin.engine.decoding import pieces
from origin.engine.upstream_client import UpstreamClient
from origin.engine.upstream_json import error_fields, garbage, parse
from shared.errors import UpstreamError
from shared.json_text import dumps
from shared.requests import Endpoint, Request
from shared.sse import DONE, SSEEvent, SSEParser
from shared.streams import Assembler

MAX_ANSWER_BYTES = 64 << 20
DRAIN_TIMEOUT_S = 0.05
MODELS_MEMO_S = 30.0
"""How long a list of models is used: `/v1/models` and `/readyz` must not burden the upstream."""

_JSON = {"content-type": "application/json"}


class UpstreamEngine:
    """The engine contract over one upstream."""

    def __init__(
        self,
        client: UpstreamClient,
        *,
        max_answer_bytes: int = MAX_ANSWER_BYTES,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """The engine closes `client` with itself."""
        self.client = client
        self._max_answer_bytes = max_answer_bytes
        self._clock_s = clock_s
        self._models: list[ModelInfo] = []
        self._models_until_s = -math.inf

    async def models(self) -> Sequence[ModelInfo]:
        """Ask `GET /v1/models`, every `MODELS_MEMO_S` at most. Raises UpstreamError."""
        self.client.check_healthy()
        if self._clock_s() >= self._models_until_s:
            self._models = await self._listed()
            self._models_until_s = self._clock_s() + MODELS_MEMO_S
        return self._models

    async def fingerprint(self, model: str) -> str:
        """Hash the upstream's address and `model`.

        Names no model unknown: an upstream may serve models that it does not list, and says so
        itself when it does not.
        """
        return self._fingerprint(model)

    def check(self, request: Request) -> None:
        """Refuse nothing: what the upstream cannot honour it refuses itself."""

    async def run(
        self,
        request: Request,
        *,
        tenant: str | None = None,
        scope: str | None = None,  # noqa: ARG002 - of the contract
    ) -> AsyncGenerator[Event, None]:
        """Ask upstream; see Engine.run."""
        body = dict(request.fields)
        if request.stream:
            body["stream_options"] = {**(body.get("stream_options") or {}), "include_usage": True}
        path = request.endpoint.value
        async with self.client.exchange(
            "POST", path, tenant=tenant, headers=_JSON, body=dumps(body)
        ) as response:
            kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
            if kind == "text/event-stream":
                async with aclosing(self._stream(request.endpoint, response)) as events:
                    async for event in events:
                        yield event
            else:  # also where a stream was asked for, and the upstream cannot
                answer = parse(await self._body(response))
                yield Finished(answer=self._checked(request.endpoint, answer))

    def forget(self, tenant: str | None = None) -> None:
        """Nothing is kept here."""

    async def close(self) -> None:
        """Close all connections."""
        await self.client.close()

    async def _listed(self) -> list[ModelInfo]:
        async with self.client.exchange("GET", "/v1/models") as response:
            listed = parse(await self._body(response)).get("data")
        if not isinstance(listed, list):
            raise garbage("its list of models has no 'data'")
        return [
            ModelInfo(
                id=model["id"],
                created=_integer(model.get("created")) or 0,
                owned_by=str(model.get("owned_by") or "upstream"),
                fingerprint=self._fingerprint(model["id"]),
                max_tokens=_integer(model.get("max_model_len")),
            )
            for model in listed
            if isinstance(model, dict) and isinstance(model.get("id"), str)
        ]

    def _fingerprint(self, model: str) -> str:
        return hashlib.sha256(json.dumps([self.client.root, model]).encode()).hexdigest()[:32]

    async def _stream(
        self, endpoint: Endpoint, response: httpx.Response
    ) -> AsyncGenerator[Event, None]:
        assembler = Assembler(endpoint)
        async with aclosing(self._events(response)) as events:
            async for event in events:
                if event.data == DONE:
                    await _drain(events)
                    answer = assembler.answer()
                    if not answer["choices"]:
                        raise garbage("its stream says nothing")
                    yield Finished(answer=answer, unstorable=assembler.unstorable)
                    return
                if event.event == "ping":
                    continue
                chunk = parse(event.data.encode())
                error = error_fields(chunk)
                if error or event.event == "error":
                    raise self.client.failure(502, error, "The upstream broke its stream off.")
                assembler.feed(chunk)
                if chunk.get("choices") or chunk.get("usage") is None:
                    yield Chunk(payload={k: v for k, v in chunk.items() if k != "usage"})
        raise UpstreamError(
            "The upstream's stream ended before it was complete.", code="upstream_interrupted"
        )

    async def _events(self, response: httpx.Response) -> AsyncGenerator[SSEEvent, None]:
        parser = SSEParser()
        async with aclosing(self._pieces(response)) as pieces:
            async for piece in pieces:
                for event in parser.feed(piece):
                    yield event
        for event in parser.close():
            yield event

    async def _pieces(self, response: httpx.Response) -> AsyncGenerator[bytes, None]:
        """Yield the body, decoded, up to the limit."""
        size_bytes = 0
        async for piece in pieces(response):
            size_bytes += len(piece)
            if size_bytes > self._max_answer_bytes:
                raise UpstreamError(
                    f"The upstream's answer is larger than {self._max_answer_bytes} bytes.",
                    code="upstream_too_large",
                )
            yield piece

    async def _body(self, response: httpx.Response) -> bytes:
        return b"".join([piece async for piece in self._pieces(response)])

    def _checked(self, endpoint: Endpoint, answer: dict[str, Any]) -> dict[str, Any]:
        if error := error_fields(answer):  # some gateways say 200 and mean an error
            raise self.client.failure(502, error, "The upstream failed.")
        content = "data" if endpoint is Endpoint.EMBEDDINGS else "choices"
        if not isinstance(answer.get(content), list):
            raise garbage(f"it has no '{content}'")
        return answer


async def _drain(events: AsyncGenerator[SSEEvent, None]) -> None:
    """Read what little follows `[DONE]`, so that the connection can be used again."""
    with suppress(TimeoutError, httpx.RequestError, UpstreamError):
        async with asyncio.timeout(DRAIN_TIMEOUT_S):
            async for _ in events:
                pass


def _integer(value: Any) -> int | None:
    return value if type(value) is int else None
