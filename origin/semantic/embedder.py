"""Sentence embeddings on this machine, by sentence-transformers; all-MiniLM-L6-v2 by default.

The default model comes as a Python package, so nothing is downloaded. Work runs on one thread, in
small batches: a single question never waits behind the whole of a long list. This module knows no
request: `origin.engine.embedding_engine` speaks OpenAI's API for it.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

import numpy as np
import sentence_transformers
import torch
import transformers

from origin.engine.fingerprints import checkpoint_folder, fingerprint
from origin.semantic.default_model import DEFAULT_NAME, default_folder
from shared.errors import ClientError, InternalError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

_BATCH_TEXTS: Final = 32
_RETRY_AFTER_S: Final = 1


class Embedder:
    """Turns texts into vectors of unit length. Made by `load`; safe from many tasks of one loop.

    `name` is what clients call it, `dimensions` the length of a vector, `max_tokens` the longest
    text it reads (special tokens included), `fingerprint` changes with the vectors, `created` is in
    Unix seconds.
    """

    def __init__(
        self, *, model: Any, name: str, fingerprint: str, created: int, queue_limit: int = 64
    ) -> None:
        self._model = model
        self.name = name
        self.fingerprint = fingerprint
        self.created = created
        self.dimensions = int(model.get_embedding_dimension())
        self.max_tokens = int(model.max_seq_length)
        self._queue_limit = queue_limit
        self._waiting = 0
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="encore-embedder")

    @classmethod
    def load(
        cls,
        source: str | Path | None = None,
        *,
        name: str | None = None,
        device: str = "cpu",
        queue_limit: int = 64,
    ) -> Self:
        """Load a folder or a hub id; None is the packaged default. Blocking: seconds.

        Raises FileNotFoundError where the default's package is not installed, and what
        sentence-transformers raises (OSError, ValueError) where there is no such model.
        """
        if name is None:
            name = DEFAULT_NAME if source is None else str(source)
            name = Path(name).resolve().name if Path(name).is_dir() else name
        source = str(default_folder() if source is None else source)
        folder = Path(source)
        transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # theirs
        model = sentence_transformers.SentenceTransformer(
            source,
            device=device,
            local_files_only=folder.is_dir(),
        )
        model.eval()
        folder = checkpoint_folder(source)
        return cls(
            model=model,
            name=name,
            fingerprint=fingerprint(
                source,
                folder,
                torch.device(device).type,
                sentence_transformers.__version__,
                transformers.__version__,
                torch.__version__,
            ),
            created=int((folder / "config.json").stat().st_mtime),
            queue_limit=queue_limit,
        )

    async def embed(self, texts: Sequence[str]) -> tuple[NDArray[np.float32], list[int]]:
        """Vectors, shape [len(texts), dimensions], and how many tokens each text has.

        Raises ClientError naming `input[i]` where a text is longer than the window, InternalError
        503 where too many callers wait.
        """
        if self._waiting > self._queue_limit:
            raise InternalError(
                "The embedder is busy: too many requests are waiting.",
                status=503,
                code="overloaded",
                retry_after_s=_RETRY_AFTER_S,
            )
        loop = asyncio.get_running_loop()
        vectors: list[NDArray[np.float32]] = []
        counts: list[int] = []
        self._waiting += 1
        try:
            for start in range(0, len(texts), _BATCH_TEXTS):
                batch = texts[start : start + _BATCH_TEXTS]
                counts += await loop.run_in_executor(self._executor, self._count, batch)
                self._check_lengths(counts, start)
                vectors.append(await loop.run_in_executor(self._executor, self._encode, batch))
        finally:
            self._waiting -= 1
        if not vectors:
            return np.empty((0, self.dimensions), dtype=np.float32), []
        return np.concatenate(vectors), counts

    async def close(self) -> None:
        """Wait for the batch in progress; the rest is dropped."""
        await asyncio.to_thread(self._executor.shutdown, wait=True, cancel_futures=True)

    def _count(self, batch: Sequence[str]) -> list[int]:
        encoded = self._model.tokenizer(list(batch), truncation=False, verbose=False)
        return [len(ids) for ids in encoded.input_ids]

    def _check_lengths(self, counts: Sequence[int], start: int) -> None:
        for index in range(start, len(counts)):
            if counts[index] > self.max_tokens:
                raise ClientError(
                    f"This model's maximum context length is {self.max_tokens} tokens. However, "
                    f"'input[{index}]' resulted in {counts[index]} tokens.",
                    param=f"input[{index}]",
                    code="context_length_exceeded",
                )

    def _encode(self, batch: Sequence[str]) -> NDArray[np.float32]:
        with torch.inference_mode():
            vectors: NDArray[np.float32] = self._model.encode(
                list(batch),
                batch_size=_BATCH_TEXTS,
                normalize_embeddings=True,
                convert_to_numpy=True,
                show_progress_bar=False,
            )
        return vectors.astype(np.float32, copy=False)
