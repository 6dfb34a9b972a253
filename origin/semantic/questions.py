"""What may be matched by meaning: one question of a chat, in its partition.

Only the last user message may differ between a request and one whose answer it is given: tenant,
scope, class, bucket, model, tools, parameters and every other message are equal, for they make the
partition's digest. So a conversation of several turns is matched within that very conversation.

Not matched: completions (their prompt is not asked, it is gone on with), embeddings, requests of a
registered template (its slots decide), tool turns, content that is not one text or a long one, and
texts whose very form another message asks about. While the deployment's secret is being replaced
nothing is: a purge may name an entry by either secret's key, and of a source only one is known.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from shared.control_document import canonical_for
from shared.keys import cache_key
from shared.normalisation import form, form_matters, last_user_message, with_user_text
from shared.requests import Endpoint

if TYPE_CHECKING:
    from origin.queries import Query

_PARTITION = b"semantic partition\0"
_FORM = b"semantic form\0"
_FORM_HEX_CHARACTERS = 32
_QUOTING = ("echo", "prompt_logprobs", "return_token_ids")
"""Fields of vLLM by which an answer repeats the very question."""
MAX_CHARACTERS = 4096
"""Of a text that is matched: 16 a token of the usual window. Reading it takes some 10 ms."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Question:
    """A last user message, and where it was asked.

    `partition` is a keyed digest of everything else, `form` one of the text's normal form: texts of
    equal form mean the same, whatever an encoder thinks. Both are hexadecimal.
    """

    tenant: str
    partition: str
    form: str
    text: str


def question_of(query: Query) -> Question | None:
    """What of a request may be matched by meaning, None where nothing may."""
    if (
        query.endpoint is not Endpoint.CHAT
        or query.key is None
        or query.other_key is not None
        or query.strategy == "template"
        or any(_is_set(query.fields.get(name)) for name in _QUOTING)
    ):
        return None
    text = _last_text(query.fields)
    if text is None or not text.strip() or len(text) > MAX_CHARACTERS:
        return None
    others = with_user_text(query.fields, lambda _: "")
    exact = canonical_for(
        query.document, endpoint=query.endpoint, controls=query.controls, fields=others
    )
    normal = form("text", text)
    digest = hmac.digest(query.ring.cache, _FORM + normal.encode(), "sha256").hex()
    return Question(
        tenant=query.tenant,
        partition=cache_key(query.ring, _PARTITION + exact.canonical),
        form=digest[:_FORM_HEX_CHARACTERS],
        text=text,
    )


def _last_text(fields: dict[str, Any]) -> str | None:
    """The text of the message that is to be answered, where it is a user's and nothing else."""
    messages = fields.get("messages")
    if type(messages) is not list or not messages:
        return None
    last = last_user_message(messages)
    if last != len(messages) - 1 or any(map(_is_of_tools, messages)) or form_matters(messages):
        return None
    content = messages[last].get("content")
    if type(content) is str:
        return content
    part = content[0] if type(content) is list and len(content) == 1 else None
    if type(part) is not dict or part.get("type") != "text":
        return None
    text = part.get("text")
    return text if type(text) is str else None


def _is_of_tools(message: Any) -> bool:
    return (
        type(message) is not dict
        or message.get("role") in ("tool", "function")
        or bool(message.get("tool_calls") or message.get("function_call"))
    )


def _is_set(value: Any) -> bool:
    return value is not None and value is not False  # 0 is a number of log probabilities
