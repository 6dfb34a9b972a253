"""The semantic tier's encoder: texts to unit vectors and hidden states, by ONNX Runtime on the CPU.

A text's encoding does not depend on the texts encoded with it, for scores are calibrated: each
token has a range of its own (`quantization`), and only texts of one length run together. Padding
adds nothing but another order of float32 sums; rounding to eight bits makes much of such a trifle.
Knows neither torch nor requests; `batcher` is its asynchronous front.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

import numpy as np
import onnxruntime
from tokenizers import Tokenizer

from origin.semantic.encoder_model import EncoderError, EncoderModel
from origin.semantic.onnx_export import RECIPE, Precision, default_cache, exported

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["DEFAULT_PRECISION", "Encoder", "EncoderError", "Encoding", "Precision"]

DEFAULT_PRECISION: Final[Precision] = "int8"
_RUN_TOKENS: Final = 2048
"""Tokens of one run: bounds what ONNX Runtime's arena grows to."""
_MAX_CHARACTERS_PER_TOKEN: Final = 64
"""Past it on average is no prose; such a text is past the window without being read."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Encoding:
    """One text, read by the model. The arrays are read-only.

    `vector`: float32 [dims], of unit length. `ids`: int32 [n], the token ids without the special
    ones around them. `states`: float32 [n, dims], the last hidden state of each of these.
    """

    vector: NDArray[np.float32]
    ids: NDArray[np.int32]
    states: NDArray[np.float32]

    @property
    def size_bytes(self) -> int:
        """What the arrays take."""
        return self.vector.nbytes + self.ids.nbytes + self.states.nbytes


class Encoder:
    """Encodes texts. Made by `load`; may be called from any thread.

    `identity` names model and precision: encodings of two identities are never compared. `dims` is
    the length of a vector, `max_tokens` the window, special tokens included.
    """

    def __init__(
        self,
        *,
        session: onnxruntime.InferenceSession,
        tokenizer: Tokenizer,
        model: EncoderModel,
        precision: Precision,
    ) -> None:
        self._session = session
        self._tokenizer = tokenizer
        self._model = model
        self.identity = f"{model.name}@{model.fingerprint[:12]}.{RECIPE}/{precision}"
        self.max_tokens = model.max_tokens
        self.dims = int(session.get_outputs()[0].shape[-1])

    @classmethod
    def load(
        cls,
        source: str | Path | None = None,
        *,
        precision: Precision = DEFAULT_PRECISION,
        cache: Path | None = None,
        threads: int = 1,
    ) -> Self:
        """Load a folder or a hub id of sentence-transformers; None is the packaged default.

        Blocking: 0.3 s, and the first time some ten more for the export, which stays in `cache`
        (a folder; `default_cache()` by default). Raises EncoderError, whatever is wrong.
        """
        model = EncoderModel.find(source)
        content = exported(model, precision, default_cache() if cache is None else cache)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            session = onnxruntime.InferenceSession(
                content, options, providers=["CPUExecutionProvider"]
            )
            tokenizer = Tokenizer.from_file(str(model.folder / "tokenizer.json"))
        except Exception as error:  # ONNX Runtime's and tokenizers' own have no common class
            raise EncoderError(f"{model.name} cannot be loaded: {error}") from error
        tokenizer.no_truncation()
        tokenizer.no_padding()
        return cls(session=session, tokenizer=tokenizer, model=model, precision=precision)

    def encode(self, texts: Sequence[str]) -> list[Encoding | None]:
        """The encoding of each text; None where it is past the window or no valid Unicode.

        Blocking: about 2 ms for a short question. Raises EncoderError where the model fails.
        """
        read = [self._tokens(text) for text in texts]
        encodings: list[Encoding | None] = [None] * len(texts)
        for indexes in _runs([len(ids) for ids, _ in read]):
            states = self._run([read[index][0] for index in indexes])
            for index, row in zip(indexes, states, strict=True):
                encodings[index] = self._encoding(*read[index], row)
        return encodings

    def _tokens(self, text: str) -> tuple[list[int], list[int]]:
        """Ids, and 1 for each that is special; both empty where the text cannot be encoded."""
        if len(text) > self.max_tokens * _MAX_CHARACTERS_PER_TOKEN:
            return [], []
        try:
            text.encode()
        except UnicodeEncodeError:  # half a surrogate pair, which JSON can carry
            return [], []
        read = self._tokenizer.encode(text.lower() if self._model.lower_case else text)
        if len(read.ids) > self.max_tokens:
            return [], []
        return read.ids, read.special_tokens_mask

    def _run(self, rows: list[list[int]]) -> NDArray[np.float32]:
        """Shape [rows, tokens, dims]."""
        ids = np.array(rows, dtype=np.int64)
        mask = np.ones_like(ids)
        try:
            (states,) = self._session.run(None, {"input_ids": ids, "attention_mask": mask})
        except Exception as error:  # ONNX Runtime's own have no common class
            raise EncoderError(f"{self._model.name} failed: {error}") from error
        found: NDArray[np.float32] = states
        return found

    def _encoding(
        self, ids: list[int], special: list[int], states: NDArray[np.float32]
    ) -> Encoding:
        vector = states.mean(axis=0) if self._model.pooling == "mean" else states[0]
        vector = vector / np.linalg.norm(vector)
        own = np.array(special, dtype=np.int8) == 0
        encoding = Encoding(
            vector=vector.astype(np.float32, copy=False),
            ids=np.array(ids, dtype=np.int32)[own],
            states=states[own],
        )
        for array in (encoding.vector, encoding.ids, encoding.states):
            array.setflags(write=False)
        return encoding


def _runs(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Indexes of what runs together: of one length. Length 0 is left out."""
    by_length: defaultdict[int, list[int]] = defaultdict(list)
    for index, length in enumerate(lengths):
        by_length[length].append(index)
    by_length.pop(0, None)
    for length, indexes in by_length.items():
        step = max(1, _RUN_TOKENS // length)
        for start in range(0, len(indexes), step):
            yield indexes[start : start + step]
