"""`/v1/embeddings` from an embedder on this machine: OpenAI's request in, its answer out."""

from __future__ import annotations

import base64
import logging
from typing import TYPE_CHECKING, Any

from origin.engine.contract import Event, Finished, ModelInfo
from origin.engine.parameters import unsupported
from shared.errors import ClientError, EncoreError, InternalError
from shared.requests import EmbeddingRequest

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from origin.semantic.embedder import Embedder
    from shared.requests import Request

logger = logging.getLogger(__name__)


class EmbeddingEngine:
    """Implements `Engine` for embedding requests; a run has no chunks."""

    def __init__(self, embedder: Embedder) -> None:
        self._embedder = embedder

    async def models(self) -> Sequence[ModelInfo]:
        """The one embedding model."""
        embedder = self._embedder
        return (
            ModelInfo(
                id=embedder.name,
                created=embedder.created,
                owned_by="local",
                fingerprint=embedder.fingerprint,
                max_tokens=embedder.max_tokens,
            ),
        )

    async def fingerprint(self, model: str) -> str:
        """The fingerprint of `model`. Raises ClientError 404."""
        self._check_model(model)
        return self._embedder.fingerprint

    def check(self, request: Request) -> None:
        """Raise ClientError naming the first field that cannot be honoured."""
        self._check_model(request.model)
        if not isinstance(request, EmbeddingRequest):
            raise ClientError(
                f"The model '{self._embedder.name}' makes embeddings only.",
                param="model",
                code="unsupported_model",
            )
        for name, value in request.extra.items():
            if value is not None:
                raise unsupported(name)
        for index, text in enumerate(request.inputs):
            if not isinstance(text, str):
                where = "input" if text is request.input else f"input[{index}]"
                raise ClientError(
                    f"Unsupported value: '{where}' must be text with this model, not token ids.",
                    param=where,
                    code="unsupported_value",
                )
        if request.dimensions not in (None, self._embedder.dimensions):
            raise ClientError(
                "Unsupported value: 'dimensions' can only be "
                f"{self._embedder.dimensions} with this model.",
                param="dimensions",
                code="unsupported_value",
            )

    async def run(
        self,
        request: Request,
        *,
        tenant: str | None = None,  # noqa: ARG002 - of the contract
        scope: str | None = None,  # noqa: ARG002 - of the contract
    ) -> AsyncGenerator[Event, None]:
        """Embed. Raises what `check` and the embedder raise."""
        self.check(request)
        assert isinstance(request, EmbeddingRequest)  # noqa: S101 -- `check` refuses others
        texts = [text for text in request.inputs if isinstance(text, str)]
        try:
            vectors, tokens = await self._embedder.embed(texts)
        except EncoreError:
            raise
        except Exception as error:  # noqa: BLE001 -- the boundary of the library
            # Neither its message nor a chained traceback: they may quote the text.
            logger.error("embedding failed: %s", type(error).__name__)  # noqa: TRY400
            raise InternalError("The embedder failed.", code="engine_error") from None
        yield Finished(
            answer=embeddings_answer(request, vectors, tokens), input_tokens=tuple(tokens)
        )

    def forget(self, tenant: str | None = None) -> None:
        """Nothing is kept."""

    async def close(self) -> None:
        """Stop the embedder."""
        await self._embedder.close()

    def _check_model(self, model: str) -> None:
        if model != self._embedder.name:
            raise ClientError(
                f"The model '{model[:80]}' does not exist. For embeddings this origin serves "
                f"'{self._embedder.name}'.",
                status=404,
                param="model",
                code="model_not_found",
            )


def embeddings_answer(
    request: EmbeddingRequest, vectors: NDArray[np.float32], tokens: Sequence[int]
) -> dict[str, Any]:
    """The plain answer. `vectors`: shape [inputs, dimensions]; `tokens`: one count per input.

    Floats are the float32 values themselves, which a double holds exactly; base64 is of
    little-endian float32.
    """

    def shown(vector: NDArray[np.float32]) -> str | list[float]:
        if request.encoding_format == "base64":
            return base64.b64encode(vector.astype("<f4").tobytes()).decode()
        floats: list[float] = vector.tolist()
        return floats

    used = sum(tokens)
    return {
        "object": "list",
        "data": [
            {"object": "embedding", "index": index, "embedding": shown(vector)}
            for index, vector in enumerate(vectors)
        ],
        "model": request.model,
        "usage": {"prompt_tokens": used, "total_tokens": used},
    }
