"""From a request to token ids: a conversation is rendered as a whole, then tokenised as a whole.

Text boundaries are not token boundaries: parts tokenised apart would be other tokens. Knows the
tokenizer and the chat template, no model. Safe to call from several threads.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import jinja2

from origin.engine.parameters import chat_messages
from shared.errors import ClientError
from shared.requests import ChatRequest, CompletionRequest

COMPLETION_MAX_TOKENS: Final = 16
_TEMPLATE_REFUSES: Final = (
    "The model's chat template does not accept these messages (their roles or their order)."
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Prompt:
    """A prompt, at least one token, and how many tokens an answer to it may have.

    `text` is empty where only tokens were given and none is to be echoed.
    """

    ids: Sequence[int]
    text: str
    max_tokens: int


class Prompts:
    """What a tokenizer, a chat template (or none) and a context make of requests.

    `is_endless`: prompts and answers may go beyond the context; an answer without a limit may be as
    long as it.
    """

    def __init__(
        self,
        tokenizer: Any,
        *,
        template: str | None,
        context_tokens: int,
        is_endless: bool = False,
    ) -> None:
        self._tokenizer = tokenizer
        self._template = template or tokenizer.chat_template
        self._context_tokens = context_tokens
        self._is_endless = is_endless
        # Undoes a truncation that a tokenizer's file may set, before threads share it.
        tokenizer("")

    @property
    def serves_chat(self) -> bool:
        """Whether there is a chat template."""
        return bool(self._template)

    def of(self, request: ChatRequest | CompletionRequest) -> list[Prompt]:
        """The prompts of a request. Raises ClientError where one leaves no room for an answer."""
        if isinstance(request, ChatRequest):
            text = self._rendered(
                chat_messages(request, developer="developer" in str(self._template))
            )
            return [self._fitting(request, self.encode(text, special=False), text, "messages")]
        several = request.prompts[0] is not request.prompt
        made = []
        for index, given in enumerate(request.prompts):
            where = f"prompt[{index}]" if several else "prompt"
            if isinstance(given, str):
                text, ids = given, self.encode(given, special=True)
            else:
                text, ids = "", list(given)
            # Nothing to begin with: the model's own beginning of a text.
            ids = ids or [self._begin_token(where)]
            if request.echo:
                text = text or self.decode(ids)
            made.append(self._fitting(request, ids, text, where))
        return made

    def system_prefix(self, text: str) -> Sequence[int]:
        """The tokens that every conversation begins with whose system message is `text`.

        Raises ClientError where the template refuses a system message; empty without a template.
        """
        if not self.serves_chat:
            return []
        first, second = (
            self.encode(
                self._rendered(
                    [{"role": "system", "content": text}, {"role": "user", "content": said}]
                ),
                special=False,
            )
            for said in ("A", "7")
        )
        pairs = zip(first, second, strict=False)
        differ = next((at for at, (one, other) in enumerate(pairs) if one != other), 0)
        return first[:differ]

    def encode(self, text: str, *, special: bool) -> list[int]:
        """The tokens of a text; `special`: with those that the tokenizer puts around one."""
        ids: list[int] = self._tokenizer(text, add_special_tokens=special, verbose=False).input_ids
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """The text of tokens, special ones left out."""
        text: str = self._tokenizer.decode(
            list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return text

    def _rendered(self, messages: Sequence[Mapping[str, Any]]) -> str:
        try:
            text: str = self._tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=True, chat_template=self._template
            )
        except jinja2.TemplateError:
            # Not its message: a template may quote the conversation.
            raise ClientError(
                _TEMPLATE_REFUSES, param="messages", code="invalid_messages"
            ) from None
        return text

    def _fitting(
        self, request: ChatRequest | CompletionRequest, ids: Sequence[int], text: str, param: str
    ) -> Prompt:
        room = self._context_tokens - (0 if self._is_endless else len(ids))
        if room < 1:
            raise ClientError(
                f"This model's maximum context length is {self._context_tokens} tokens. However, "
                f"'{param}' resulted in {len(ids)} tokens. Please reduce its length.",
                param=param,
                code="context_length_exceeded",
            )
        limit = request.max_tokens
        if isinstance(request, ChatRequest):
            if request.max_completion_tokens is not None:
                limit = request.max_completion_tokens
            limit = room if limit is None else limit
        elif limit is None:
            limit = COMPLETION_MAX_TOKENS
        return Prompt(
            ids=ids, text=text, max_tokens=limit if self._is_endless else min(limit, room)
        )

    def _begin_token(self, param: str) -> int:
        for token in (self._tokenizer.bos_token_id, self._tokenizer.eos_token_id):
            if token is not None:
                return int(token)
        raise ClientError(
            f"Invalid '{param}': this model needs a prompt.", param=param, code="empty_string"
        )
