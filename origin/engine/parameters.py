"""What a local model can honour of a request, and what is refused by name.

Pure; knows neither tensors nor threads. Every field of a request is either honoured, harmless (it
cannot change the answer), at a value that asks for nothing, or refused: none is ignored.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from shared.errors import ClientError
from shared.requests import ChatRequest, CompletionRequest, Endpoint

MAX_CHOICES: Final = 128

_SAMPLING: Final = frozenset(
    {"model", "frequency_penalty", "logit_bias", "n", "presence_penalty", "seed", "stop"}
    | {"temperature", "top_p", "max_tokens"}
)
# They steer the account, the transport or the upstream's own caches, never the answer.
_HARMLESS: Final = frozenset(
    {"metadata", "prompt_cache_key", "prompt_cache_options", "prompt_cache_retention"}
    | {"safety_identifier", "service_tier", "store", "stream", "stream_options", "user"}
)
_HONOURED: Final = {
    Endpoint.CHAT: _SAMPLING | _HARMLESS | {"messages", "max_completion_tokens"},
    Endpoint.COMPLETIONS: _SAMPLING | _HARMLESS | {"prompt", "echo"},
}
# Values that ask for what is done anyway.
_Neutral = Callable[[Any, Mapping[str, Any]], bool]
_ASKS_FOR_NOTHING: Final[Mapping[Endpoint, Mapping[str, _Neutral]]] = {
    Endpoint.CHAT: {
        "tools": lambda value, _: not value,
        "functions": lambda value, _: not value,
        "tool_choice": lambda value, _: value == "none",
        "function_call": lambda value, _: value == "none",
        "logprobs": lambda value, _: value is False,
        "top_logprobs": lambda value, fields: value == 0 and not fields.get("logprobs"),
        "response_format": lambda value, _: value == {"type": "text"},
        "modalities": lambda value, _: value == ["text"],
    },
    Endpoint.COMPLETIONS: {
        "best_of": lambda value, fields: value == (fields.get("n") or 1),
        "suffix": lambda value, _: not value,
    },
}
_MESSAGE_FIELDS: Final = frozenset({"role", "content"})
_ROLES: Final = frozenset({"system", "developer", "user", "assistant"})


def check_parameters(request: ChatRequest | CompletionRequest, *, vocabulary: int) -> None:
    """Raise ClientError naming the first field that a local model cannot honour.

    `vocabulary` is the number of token ids the model has.
    """
    honoured = _HONOURED[request.endpoint]
    neutral = _ASKS_FOR_NOTHING[request.endpoint]
    for name, value in request.fields.items():
        if value is None or name in honoured:
            continue
        if name not in neutral or not neutral[name](value, request.fields):
            raise unsupported(name)
    for token in request.logit_bias or {}:
        if int(token) >= vocabulary:
            raise ClientError(
                f"Invalid key in 'logit_bias': the model has no token {token[:20]}.",
                param="logit_bias",
                code="invalid_value",
            )
    choices = request.n or 1
    if isinstance(request, ChatRequest):
        for index, message in enumerate(request.messages):
            _check_message(message, f"messages[{index}]")
    else:
        prompts = request.prompts
        choices *= len(prompts)
        for index, prompt in enumerate(prompts):
            if not isinstance(prompt, str) and max(prompt, default=0) >= vocabulary:
                where = "prompt" if prompt is request.prompt else f"prompt[{index}]"
                raise ClientError(
                    f"Invalid '{where}': the model's token ids end at {vocabulary - 1}.",
                    param=where,
                    code="invalid_value",
                )
    if choices > MAX_CHOICES:
        raise ClientError(
            f"Invalid 'n': this asks for {choices} choices, at most {MAX_CHOICES} are made.",
            param="n",
            code="integer_above_max_value",
        )


def chat_messages(request: ChatRequest, *, developer: bool) -> list[dict[str, str]]:
    """The messages as a chat template takes them: a role and a text each.

    `developer` says whether the template knows that role; else it is given as `system`. Parts of a
    content are joined by line breaks. The request must have passed `check_parameters`.
    """
    messages = []
    for message in request.messages:
        content = message["content"]
        if not isinstance(content, str):
            content = "\n".join(part["text"] for part in content)
        role = message["role"]
        if role == "developer" and not developer:
            role = "system"
        messages.append({"role": role, "content": content})
    return messages


def stops(stop: str | Sequence[str] | None) -> tuple[str, ...]:
    """The stop strings of a request."""
    if stop is None:
        return ()
    return (stop,) if isinstance(stop, str) else tuple(stop)


def unsupported(param: str) -> ClientError:
    """Make the error for a field that a local model cannot honour."""
    return ClientError(
        f"Unsupported parameter: '{param}' is not supported with this model.",
        param=param,
        code="unsupported_parameter",
    )


def _check_message(message: Mapping[str, Any], where: str) -> None:
    if message["role"] not in _ROLES:
        raise ClientError(
            f"Unsupported value: '{where}.role' must be one of {', '.join(sorted(_ROLES))} with "
            "this model.",
            param=f"{where}.role",
            code="unsupported_value",
        )
    for name, value in message.items():
        if name not in _MESSAGE_FIELDS and value is not None and value != []:
            raise unsupported(f"{where}.{name}")
    content = message.get("content")
    if content is None:
        raise ClientError(
            f"Missing required parameter: '{where}.content'.",
            param=f"{where}.content",
            code="missing_required_parameter",
        )
    if isinstance(content, str):
        return
    for index, part in enumerate(content):
        if part["type"] != "text":
            raise unsupported(f"{where}.content[{index}].type")
        for name, value in part.items():
            if name not in {"type", "text"} and value is not None:
                raise unsupported(f"{where}.content[{index}].{name}")
