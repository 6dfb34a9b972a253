"""The contract of an engine: something that answers a miss.

An engine must not know of clients' keys, tiers or storage. It is given a validated request and
yields what it says, in OpenAI's own objects, as it says it.

Invariants
1. The last event of a run that did not fail is `Finished`, exactly once. Whatever ends earlier
   raised an `EncoreError` or was closed by its consumer.
2. `Chunk`s come before `Finished`. A run may have none (an upstream asked without streaming).
3. `Finished.answer` is the plain answer of the same run: a client that asked without streaming gets
   it, and reassembling the chunks gives it too.
4. Closing the iterator (`aclose`) or cancelling its task stops the generation soon: within one
   token locally, by closing the connection upstream.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from shared.requests import Request


@dataclass(frozen=True, kw_only=True, slots=True)
class Chunk:
    """One `chat.completion.chunk` or streamed `text_completion` object, as it goes to the client.

    Usage chunks (`stream_options.include_usage`) are not among them: whoever serves adds one, where
    asked.
    """

    payload: dict[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class Finished:
    """The end of a run: the whole plain answer, usage included.

    `unstorable` says why the answer must not be kept although it is complete (a chunk that
    cannot be rebuilt from the answer without loss); None where nothing forbids it. `input_tokens`
    are those of each input of an embedding request, where the engine knows them apart.
    """

    answer: dict[str, Any]
    unstorable: str | None = None
    input_tokens: Sequence[int] | None = None


Event = Chunk | Finished


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelInfo:
    """A model this engine answers for, as `GET /v1/models` lists it.

    `fingerprint` changes whenever the same request could get another answer: weights, revision,
    dtype, chat template, upstream address. At most 32 characters.
    """

    id: str
    created: int
    owned_by: str
    fingerprint: str
    max_tokens: int | None = None


class Engine(Protocol):
    """Answers requests. Safe to call from many tasks of one event loop."""

    async def models(self) -> Sequence[ModelInfo]:
        """The models served now. Raises UpstreamError where an upstream cannot be asked."""
        ...

    async def fingerprint(self, model: str) -> str:
        """The fingerprint of `model`. Raises ClientError 404 `model_not_found` naming the field."""
        ...

    def check(self, request: Request) -> None:
        """Raise ClientError naming the field this engine cannot honour. Cheap; does no I/O."""
        ...

    def run(
        self, request: Request, *, tenant: str | None = None, scope: str | None = None
    ) -> AsyncGenerator[Event, None]:
        """Generate. Raises EncoreError from the first `__anext__` or later.

        `tenant` is whose request it is, and `scope` the part of that tenant (`Encore-Scope`): who
        may share what the engine has computed, and by whose key a provider is asked. They change
        nothing in what is said.
        """
        ...

    def forget(self, tenant: str | None = None) -> None:
        """Let go of what has been kept of a tenant's prompts, or of all: they were purged.

        Returns at once. What is under way may still use what it has begun with.
        """
        ...

    async def close(self) -> None:
        """Stop what runs and free what is held."""
        ...
