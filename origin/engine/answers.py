"""A local model's words in OpenAI's objects: the chunks of a stream and the plain answer.

Pure: id and time are handed in. The chunks of a run, put together, give its answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from shared.requests import Endpoint


@dataclass(frozen=True, kw_only=True, slots=True)
class Choice:
    """A finished choice: its text and `stop` or `length`."""

    text: str
    finish_reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Reply:
    """What all chunks of one run and its answer share. `created` is in Unix seconds."""

    endpoint: Endpoint
    id: str
    created: int
    model: str
    fingerprint: str

    def opening(self, index: int) -> dict[str, Any] | None:
        """The chunk before a choice's first text; completions have none."""
        if self.endpoint is not Endpoint.CHAT:
            return None
        return self._chunk(index, {"role": "assistant", "content": ""}, None)

    def delta(self, index: int, text: str) -> dict[str, Any]:
        """A chunk of text."""
        return self._chunk(index, {"content": text}, None, text)

    def closing(self, index: int, finish_reason: str) -> dict[str, Any]:
        """The chunk after a choice's last text."""
        return self._chunk(index, {}, finish_reason)

    def answer(
        self,
        choices: Sequence[Choice],
        *,
        prompt_tokens: int,
        cached_tokens: int,
        completion_tokens: int,
    ) -> dict[str, Any]:
        """The plain answer; `choices` in the order of their index.

        `cached_tokens` of the prompts' were not computed for this answer.
        """
        chat = self.endpoint is Endpoint.CHAT
        shown = []
        for index, choice in enumerate(choices):
            body = (
                {"message": {"role": "assistant", "content": choice.text, "refusal": None}}
                if chat
                else {"text": choice.text}
            )
            shown.append(
                {"index": index, **body, "logprobs": None, "finish_reason": choice.finish_reason}
            )
        return {
            "id": self.id,
            "object": "chat.completion" if chat else "text_completion",
            "created": self.created,
            "model": self.model,
            "choices": shown,
            "usage": {
                "prompt_tokens": prompt_tokens,
                "completion_tokens": completion_tokens,
                "total_tokens": prompt_tokens + completion_tokens,
                "prompt_tokens_details": {"cached_tokens": cached_tokens},
            },
            "system_fingerprint": self.fingerprint,
        }

    def _chunk(
        self, index: int, delta: dict[str, Any], finish_reason: str | None, text: str = ""
    ) -> dict[str, Any]:
        chat = self.endpoint is Endpoint.CHAT
        if chat and "role" in delta:
            delta = {**delta, "refusal": None}
        body = {"delta": delta} if chat else {"text": text}
        choice = {"index": index, **body, "logprobs": None, "finish_reason": finish_reason}
        return {
            "id": self.id,
            "object": "chat.completion.chunk" if chat else "text_completion",
            "created": self.created,
            "model": self.model,
            "choices": [choice],
            "system_fingerprint": self.fingerprint,
        }
