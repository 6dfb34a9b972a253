"""`/v1/embeddings` on the real embedder."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from origin.engine.contract import Finished
from origin.engine.embedding_engine import EmbeddingEngine
from origin.semantic.embedder import Embedder
from shared.errors import ClientError
from shared.requests import Endpoint, Request, validate


@pytest.fixture(scope="module")
def engine() -> Iterator[EmbeddingEngine]:
    """The engine on the packaged model."""
    engine = EmbeddingEngine(Embedder.load())
    yield engine
    asyncio.run(engine.close())


def embeddings(given: Any, **fields: Any) -> Request:
    """An embeddings request."""
    return validate(Endpoint.EMBEDDINGS, {"model": "all-MiniLM-L6-v2", "input": given} | fields)


async def answer(engine: EmbeddingEngine, request: Request) -> dict[str, Any]:
    """The answer of a run, its only event."""
    (event,) = [event async for event in engine.run(request)]
    assert isinstance(event, Finished)
    return event.answer


async def test_answer_is_openais(engine: EmbeddingEngine) -> None:
    """Objects, indices in order, the model's name and the tokens used."""
    got = await answer(engine, embeddings(["a house", "a much larger house"], user="u"))
    assert got["object"] == "list"
    assert [entry["index"] for entry in got["data"]] == [0, 1]
    assert {entry["object"] for entry in got["data"]} == {"embedding"}
    assert got["model"] == "all-MiniLM-L6-v2"
    assert got["usage"] == {"prompt_tokens": 10, "total_tokens": 10}


async def test_base64_and_floats_are_equal(engine: EmbeddingEngine) -> None:
    """Both encodings hold the same float32 values, to the bit."""
    floats = (await answer(engine, embeddings("a house")))["data"][0]["embedding"]
    encoded = (await answer(engine, embeddings("a house", encoding_format="base64")))["data"][0]
    decoded = np.frombuffer(base64.b64decode(encoded["embedding"]), dtype="<f4")
    assert len(floats) == 384
    assert floats == decoded.tolist()


async def test_tokens_are_told_input_by_input(engine: EmbeddingEngine) -> None:
    """So that each can be kept with its own."""
    (event,) = [e async for e in engine.run(embeddings(["a house", "a much larger house"]))]
    assert isinstance(event, Finished)
    assert event.input_tokens == (4, 6)


async def test_own_dimensions_are_accepted(engine: EmbeddingEngine) -> None:
    """`dimensions` may say what the model has."""
    got = await answer(engine, embeddings("a house", dimensions=384))
    assert len(got["data"][0]["embedding"]) == 384


@pytest.mark.parametrize(
    ("request_", "param"),
    [
        (embeddings("x", dimensions=256), "dimensions"),
        (embeddings([1, 2]), "input"),
        (embeddings([[1], [2]]), "input[0]"),
        (embeddings("x", truncate=True), "truncate"),
        (
            embeddings("x") and validate(Endpoint.COMPLETIONS, {"model": "m", "prompt": "x"}),
            "model",
        ),
    ],
)
def test_refused_by_name(engine: EmbeddingEngine, request_: Request, param: str) -> None:
    """What cannot be honoured is a 4xx naming the field."""
    with pytest.raises(ClientError) as caught:
        engine.check(request_)
    assert caught.value.param == param


async def test_unknown_model_is_404(engine: EmbeddingEngine) -> None:
    """Another model's name is a 404."""
    with pytest.raises(ClientError) as caught:
        await engine.fingerprint("text-embedding-3-small")
    assert (caught.value.status, caught.value.code) == (404, "model_not_found")
    (info,) = await engine.models()
    assert await engine.fingerprint(info.id) == info.fingerprint
