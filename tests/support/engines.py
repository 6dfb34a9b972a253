"""Engines whose every step the test decides: only to make faults and races happen on purpose."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from typing import Any
from zlib import crc32

from origin.engine.contract import Chunk, Event, Finished, ModelInfo
from shared.errors import ClientError
from shared.requests import EmbeddingRequest, Endpoint, Request
from shared.streams import chunks

MODEL = "scripted"


def chat_answer(text: str, *, finish_reason: str = "stop") -> dict[str, Any]:
    """A plain chat answer that says `text`."""
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": MODEL,
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": text, "refusal": None},
                "logprobs": None,
                "finish_reason": finish_reason,
            }
        ],
        "usage": {
            "prompt_tokens": 3,
            "completion_tokens": 2,
            "total_tokens": 5,
            "prompt_tokens_details": {"cached_tokens": 0},
        },
    }


def vector_of(given: object) -> list[float]:
    """What the engines below say of an input: decimals that no float32 is equal to."""
    size = len(given) if isinstance(given, str | list) else 0
    return [0.1, -size / 7, crc32(str(given).encode()) * 1e-12]


def embeddings_answer(inputs: Sequence[Any]) -> dict[str, Any]:
    """A plain answer with their vectors; one token a character or id."""
    used = sum(map(len, inputs))
    data = [
        {"object": "embedding", "index": index, "embedding": vector_of(given)}
        for index, given in enumerate(inputs)
    ]
    usage = {"prompt_tokens": used, "total_tokens": used}
    return {"object": "list", "data": data, "model": MODEL, "usage": usage}


class ScriptedEngine:
    """Says `Answer N` in its Nth run, or embeds. `gate` holds every run back until it is set."""

    def __init__(self) -> None:
        self.runs = 0
        self.cancelled = 0
        self._loops: set[asyncio.AbstractEventLoop] = set()
        self.gate = asyncio.Event()
        self.gate.set()
        self.talking = False
        self.text: str | None = None
        self.listings = 0
        self.forgotten: list[str | None] = []
        self.whole: dict[str, Any] | None = None
        self.model_fingerprint = "f1"
        self.usage: object = chat_answer("")["usage"]
        self.failure: Exception | None = None
        self.failure_after_chunks: Exception | None = None

    def open_gate(self) -> None:
        """Let every run go on; may be called from another thread than the engine's."""
        for loop in self._loops:
            loop.call_soon_threadsafe(self.gate.set)
        if not self._loops:
            self.gate.set()

    async def models(self) -> Sequence[ModelInfo]:
        """One model."""
        self.listings += 1
        return [
            ModelInfo(id=MODEL, created=1, owned_by="tests", fingerprint=self.model_fingerprint)
        ]

    async def fingerprint(self, model: str) -> str:
        """The one model's."""
        if model != MODEL:
            raise ClientError("No such model.", status=404, param="model", code="model_not_found")
        return self.model_fingerprint

    def check(self, request: Request) -> None:
        """Refuse nothing."""

    async def run(
        self,
        request: Request,
        *,
        tenant: str | None = None,  # noqa: ARG002
        scope: str | None = None,  # noqa: ARG002
    ) -> AsyncGenerator[Event, None]:
        """Say the next answer."""
        self.runs += 1
        self._loops.add(asyncio.get_running_loop())
        text = f"Answer {self.runs}" if self.text is None else self.text
        answer = chat_answer(text) | {"usage": self.usage}
        try:
            if self.failure is not None:
                raise self.failure
            if self.whole is not None:
                yield Finished(answer=self.whole)
                return
            if isinstance(request, EmbeddingRequest):
                yield Finished(answer=embeddings_answer(request.inputs))
                return
            said = chunks(Endpoint.CHAT, answer)
            yield Chunk(payload=said[0])
            while self.talking:
                await asyncio.sleep(0.05)
                yield Chunk(payload=said[0])
            await self.gate.wait()
            if self.failure_after_chunks is not None:
                raise self.failure_after_chunks
            for payload in said[1:]:
                yield Chunk(payload=payload)
            yield Finished(answer=answer)
        except (asyncio.CancelledError, GeneratorExit):
            self.cancelled += 1
            raise

    def forget(self, tenant: str | None = None) -> None:
        """Note whom."""
        self.forgotten.append(tenant)

    async def close(self) -> None:
        """Nothing is held."""


class VectorEngine(ScriptedEngine):
    """Embeds, one token a character or id. `asked` are the inputs of each run.

    An input called `bad` is refused by its place in the run. `whole`, `failure` and `gate` are as
    in its parent; with `counts` it tells the tokens of each input.
    """

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[list[Any]] = []
        self.encodings: list[str | None] = []
        self.begun = asyncio.Semaphore(0)
        self.counts = False

    async def run(
        self,
        request: Request,
        *,
        tenant: str | None = None,  # noqa: ARG002
        scope: str | None = None,  # noqa: ARG002
    ) -> AsyncGenerator[Event, None]:
        """Embed the inputs."""
        assert isinstance(request, EmbeddingRequest)
        self.runs += 1
        self.asked.append(list(request.inputs))
        self.encodings.append(request.fields.get("encoding_format"))
        self.begun.release()
        try:
            await self.gate.wait()
            if self.failure is not None:
                raise self.failure
            for index, given in enumerate(request.inputs):
                if given == "bad":
                    where = f"input[{index}]"
                    raise ClientError(f"No vector for '{where}'.", param=where, code="bad")
            tokens = [len(given) for given in request.inputs] if self.counts else None
            answer = self.whole or embeddings_answer(request.inputs)
            yield Finished(answer=answer, input_tokens=tokens)
        except (asyncio.CancelledError, GeneratorExit):
            self.cancelled += 1
            raise
