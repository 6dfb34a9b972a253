"""What may be kept: which requests, and which of their answers.

Reasons are short fixed words, fit for counters. None means: may be stored.

Of a request
- `web_search`: it asks for a search (an option, a search model, a known upstream's switch).
- `non_function_tool`: a tool the API's side would run, or one we do not know.
- `previous_response_id`, `conversation`, `background`: it leans on state kept elsewhere.
- `audio`: spoken answers, or one referred to by id, which expires; their streams carry base64 that
  cannot be cut anew. `modality`: any other output than text.
- `plugins`: an upstream's extensions, whose effects nobody here knows.
`store`, `metadata` and `user` are no reasons: they concern the upstream's records, not the answer.

Of an answer
- `error`; `incomplete` (a choice or a vector is missing, or did not finish); `content_filter`;
  `length`, unless the request set the limit itself; `finish_reason`: one OpenAI does not document;
  `empty`: nothing said, called or refused; `not_rebuildable`: its stream would say less than it
  does; `not_json`: it holds what JSON cannot say.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from shared.json_text import dumps, is_list_of_objects
from shared.requests import ChatRequest, CompletionRequest, EmbeddingRequest, Request
from shared.streams import rebuildable

# gpt-4o-search-preview, gpt-5-search-api; the suffix `:online` is OpenRouter's.
_SEARCH_MODEL = re.compile(r"-search-(preview|api)\b|:online$")
# Undocumented fields of chat requests that reach outside, by the reason they give.
_REACHES_OUT = {
    "previous_response_id": "previous_response_id",
    "conversation": "conversation",
    "background": "background",
    "plugins": "plugins",
    "web_search": "web_search",
    "enable_search": "web_search",
    "search_parameters": "web_search",
}
_FINISHED = ("stop", "length", "tool_calls", "function_call")


def request_storability(request: Request) -> str | None:
    """Return why no answer to this request may be stored, or None."""
    for name, reason in _REACHES_OUT.items():
        if request.extra.get(name):
            return reason
    if isinstance(request, ChatRequest):
        return _chat_request_storability(request)
    return None


def storability(request: Request, answer: Mapping[str, Any]) -> str | None:
    """Return why this plain answer may not be stored, or None; the request's reasons come first."""
    reason = request_storability(request)
    if reason is not None:
        return reason
    if answer.get("error") is not None:
        return "error"
    if isinstance(request, EmbeddingRequest):
        reason = _vectors_storability(request, answer)
    else:
        reason = _choices_storability(request, answer)
    if reason is not None:
        return reason
    try:
        dumps(answer)
    except ValueError:
        return "not_json"
    return None


def exact_only(answer: Mapping[str, Any]) -> bool:
    """Whether an answer that may be stored must never be matched semantically: it calls a tool."""
    messages = [_message(choice) for choice in answer.get("choices") or ()]
    return any(message.get("tool_calls") or message.get("function_call") for message in messages)


def _chat_request_storability(request: ChatRequest) -> str | None:
    if request.web_search_options is not None or _SEARCH_MODEL.search(request.model):
        return "web_search"
    if any(tool.get("type") != "function" for tool in request.tools or ()):
        return "non_function_tool"
    modalities = request.modalities or ()
    if (
        request.audio is not None
        or "audio" in modalities
        or any(message.get("audio") is not None for message in request.messages)
    ):
        return "audio"
    if any(modality != "text" for modality in modalities):
        return "modality"
    return None


def _choices_storability(
    request: ChatRequest | CompletionRequest, answer: Mapping[str, Any]
) -> str | None:
    choices = answer.get("choices")
    if not choices:
        return "empty"
    if not is_list_of_objects(choices):
        return "not_rebuildable"
    wanted = request.n or 1
    limited = request.max_tokens is not None
    if isinstance(request, CompletionRequest):
        wanted *= len(request.prompts)
    else:
        limited = limited or request.max_completion_tokens is not None
    if len(choices) < wanted:
        return "incomplete"
    for choice in choices:
        finish = choice.get("finish_reason")
        if finish is None:
            return "incomplete"
        if finish == "content_filter" or (finish == "length" and not limited):
            return str(finish)
        if finish not in _FINISHED:
            return "finish_reason"
        if not _says_something(request, choice):
            return "empty"
    return None if rebuildable(request.endpoint, answer) else "not_rebuildable"


def _says_something(request: Request, choice: Mapping[str, Any]) -> bool:
    if isinstance(request, CompletionRequest):
        return bool(choice.get("text"))
    message = _message(choice)
    content = message.get("content")
    if isinstance(content, str):
        content = content.strip()
    return any(
        (content, *(message.get(name) for name in ("tool_calls", "function_call", "refusal")))
    )


def _vectors_storability(request: EmbeddingRequest, answer: Mapping[str, Any]) -> str | None:
    data = answer.get("data")
    if not data:
        return "empty"
    if (
        not is_list_of_objects(data)
        or len(data) != len(request.inputs)
        or not all(item.get("embedding") for item in data)
    ):
        return "incomplete"
    return None


def _message(choice: Any) -> Mapping[str, Any]:
    message = choice.get("message") if isinstance(choice, dict) else None
    return message if isinstance(message, dict) else {}
