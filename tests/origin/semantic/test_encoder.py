"""The encoder on the real model, beside sentence-transformers as the oracle."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sentence_transformers
from hypothesis import given, settings
from hypothesis import strategies as st

from origin.semantic.default_model import default_folder
from origin.semantic.encoder import Encoder, EncoderError, Encoding, Precision
from tests.support.encoders import CACHE, encoder

TEXTS = [
    "",
    " ",
    "\n\t ",
    "?",
    "a",
    "What is the capital of France?",
    "  WHAT is   the capital\nof France ?  ",
    "Analyze this property: 123 Main St, 3BR/2BA, $450k",
    "Ça coûte 1.234,50 € à Besançon, naïve façade",
    "What does \U0001f600\U0001f468\u200d\U0001f469\u200d\U0001f467 mean?",
    "房子有几个卧室。价格是多少",
    "Сколько спален в доме?",
    "كم عدد غرف النوم؟",
    "def f(x): return x != 0 and x**2 <= 10  # [SEP] <|endoftext|>",
    "x" * 300,
    "a\x00b\ufffdc\u200b\u00ad",
    "word " * 254,
    "one two three four five six seven eight nine ten. " * 20,
]


@pytest.fixture(scope="module")
def oracle() -> sentence_transformers.SentenceTransformer:
    """The model as its makers run it."""
    return sentence_transformers.SentenceTransformer(str(default_folder()), device="cpu")


def one(text: str, precision: Precision = "int8") -> Encoding:
    """The encoding of a text within the window."""
    (encoding,) = encoder(precision).encode([text])
    assert encoding is not None
    return encoding


@pytest.mark.parametrize("text", TEXTS)
def test_vector_is_the_models_own(
    text: str, oracle: sentence_transformers.SentenceTransformer
) -> None:
    """In full precision, whatever the script."""
    wanted = oracle.encode([text], normalize_embeddings=True)[0]
    assert np.abs(one(text, "fp32").vector - wanted).max() < 1e-5


@pytest.mark.parametrize("text", TEXTS)
def test_int8_is_near(text: str) -> None:
    """Quantisation turns a vector a little, and never to another meaning."""
    assert one(text).vector @ one(text, "fp32").vector > 0.98


def test_parts_of_an_encoding() -> None:
    """Word pieces without the special tokens around them, a state for each, and a unit vector."""
    encoding = one("how many bedrooms?")
    assert encoding.ids.tolist() == [2129, 2116, 18390, 1029]
    assert encoding.ids.dtype == np.int32
    assert encoding.states.shape == (4, 384)
    assert encoding.states.dtype == encoding.vector.dtype == np.float32
    assert encoding.vector.shape == (encoder().dims,) == (384,)
    assert np.linalg.norm(encoding.vector) == pytest.approx(1, abs=1e-6)
    assert encoding.size_bytes == 4 * 384 + 4 * 4 + 4 * 4 * 384


def test_states_are_the_models_own(oracle: sentence_transformers.SentenceTransformer) -> None:
    """The last hidden states, in the order of the text."""
    text = "how many bedrooms?"
    wanted = oracle.encode([text], output_value="token_embeddings")[0].numpy()
    assert np.abs(one(text, "fp32").states - wanted[1:-1]).max() < 1e-4


def test_encodings_are_read_only() -> None:
    """They are shared by whoever asks for the text again."""
    with pytest.raises(ValueError, match="read-only"):
        one("a house").vector[0] = 1


def test_empty_text_has_no_tokens() -> None:
    """And still a vector."""
    assert one("").states.shape == (0, 384)
    assert np.isfinite(one("").vector).all()


@pytest.mark.parametrize(
    ("text", "fits"),
    [
        ("house " * 254, True),
        ("house " * 255, False),
        ("house " * 100_000, False),
        ("word\ud800", False),
    ],
    ids=["window", "one more", "far more", "half a surrogate pair"],
)
def test_window(text: str, fits: bool) -> None:
    """What the model cannot read whole has no encoding; its neighbours keep theirs."""
    assert encoder().max_tokens == 256
    near, encoding, far = encoder().encode(["a", text, "b"])
    assert (encoding is not None) is fits
    assert near is not None
    assert far is not None


def test_no_texts() -> None:
    """Nothing in, nothing out."""
    assert encoder().encode([]) == []


@pytest.mark.parametrize("precision", ["fp32", "int8"])
@settings(max_examples=15)
@given(
    texts=st.lists(
        st.sampled_from([*TEXTS, *(f"What does {n} Oak Street cost?" for n in range(9))]),
        min_size=2,
        max_size=12,
    )
)
def test_company_does_not_matter(precision: Precision, texts: list[str]) -> None:
    """A text's encoding is that of the text alone, whatever it was encoded with."""
    for text, among in zip(texts, encoder(precision).encode(texts), strict=True):
        alone = one(text, precision)
        assert among is not None
        assert among.ids.tolist() == alone.ids.tolist()
        assert np.abs(among.vector - alone.vector).max() < 1e-6
        assert np.abs(among.states - alone.states).max(initial=0) < 1e-5


def test_texts_of_one_length_run_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """In as few runs as there are lengths, and in the order that was asked for."""
    shapes = []
    mine = Encoder.load(cache=CACHE)
    run = mine._run

    def noted(rows: list[list[int]]) -> Any:
        shapes.append((len(rows), len(rows[0])))
        return run(rows)

    monkeypatch.setattr(mine, "_run", noted)
    texts = ["a", "b c", "d", "house " * 300, "e f", "g"]
    ids = [encoding and len(encoding.ids) for encoding in mine.encode(texts)]
    assert ids == [1, 2, 1, None, 2, 1]
    assert shapes == [(3, 3), (2, 4)]


def test_identity() -> None:
    """It names the model, and tells precisions and contents apart."""
    assert encoder("int8").identity.startswith("all-MiniLM-L6-v2@")
    assert encoder("int8").identity != encoder("fp32").identity
    assert encoder("int8").identity == Encoder.load(cache=CACHE).identity


def test_runs_without_torch() -> None:
    """What was exported once needs neither torch nor transformers nor onnx to run."""
    encoder()
    program = (
        "import sys; from pathlib import Path; from origin.semantic.encoder import Encoder;"
        f"Encoder.load(cache=Path({str(CACHE)!r})).encode(['a house']);"
        "print({'torch', 'transformers', 'onnx'} & set(sys.modules))"
    )
    root = Path(__file__).parents[3]
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=root
    )
    assert done.stdout.strip() == "set()"


def test_failing_model() -> None:
    """What ONNX Runtime raises comes as our error."""
    broken = Encoder.load(cache=CACHE)
    broken._session = None
    with pytest.raises(EncoderError, match="failed"):
        broken.encode(["a"])
