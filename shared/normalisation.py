"""Normalisation profiles: requests that differ in spelling only get one cache key.

A profile is a tenant's choice. It makes fields *for the key only*: what is sent to a model is
always the request as it came. Only the text of the last user message of a chat, or the prompt of a
completion, is replaced; every other field, message and part stays.

- `exact`: nothing is folded. The default.
- `text`: spellings of one text, see `shared.text_form`.
- `property`: ways to ask about one property, see `shared.property_form`; other texts as in `text`.

A profile preserves meaning or it is wrong, so a request is left alone where its form might matter:
where other messages tell the model to judge, repeat or translate what the user writes, where a
message has several texts, and for embeddings (the vector is of the spelling). A completion goes on
with its prompt, so only what is within that is folded: not its end, and no polite words.

Invariants: pure; fields are never changed in place; `normalise` of its result is the same; the same
object comes back where nothing changes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from shared.property_form import property_form
from shared.requests import Endpoint
from shared.text_form import about_form, bare_request, continued_form, text_form

PROFILES = ("exact", "text", "property")

MAX_CONTEXT_CHARACTERS = 32_768
"""Other messages are searched for instructions about form; with more text than this in them,
nothing is folded."""


def normalise(profile: str, endpoint: Endpoint, fields: dict[str, Any]) -> dict[str, Any]:
    """The fields a key is made of. `fields` itself where the profile finds nothing to fold.

    `fields` need not be valid: what is not as documented is left as it is. Raises ValueError for a
    profile that does not exist.
    """
    if profile not in PROFILES:
        raise ValueError(f"there is no normalisation profile {profile[:40]!r}")
    if profile == "exact":
        return fields
    if endpoint is Endpoint.CHAT:
        messages = fields.get("messages")
        if type(messages) is list and not form_matters(messages):
            return with_user_text(fields, lambda text: form(profile, text))
    prompt = fields.get("prompt")
    if endpoint is Endpoint.COMPLETIONS and type(prompt) is str:
        # With `echo` the answer repeats the prompt, with `suffix` it goes between two texts.
        if fields.get("echo") or fields.get("suffix"):
            return fields
        folded = _continued_form(profile, prompt)
        return fields if folded == prompt else {**fields, "prompt": folded}
    return fields


def form(profile: str, text: str) -> str:
    """The form of one text under a profile; `text` itself where nothing is folded."""
    if profile == "exact":
        return text
    folded = text_form(text)
    if profile == "text":
        return folded
    return property_form(folded) or property_form(bare_request(text, folded)) or folded


def with_user_text(fields: dict[str, Any], change: Callable[[str], Any]) -> dict[str, Any]:
    """Chat fields with the text of the last user message changed.

    The text is the content itself, or that of its only text part. `fields` itself where there is
    none or more than one, or where `change` returns its argument.
    """
    messages = fields.get("messages")
    if type(messages) is not list:
        return fields
    place = last_user_message(messages)
    if place is None:
        return fields
    message = messages[place]
    content = message.get("content")
    if type(content) is str:
        changed = change(content)
        if changed is content or changed == content:
            return fields
    elif type(content) is list:
        texts = [i for i, part in enumerate(content) if _is_text(part)]
        if len(texts) != 1:
            return fields
        part = content[texts[0]]
        text = change(part["text"])
        if text == part["text"]:
            return fields
        changed = [*content[: texts[0]], {**part, "text": text}, *content[texts[0] + 1 :]]
    else:
        return fields
    replaced = {**message, "content": changed}
    return {**fields, "messages": [*messages[:place], replaced, *messages[place + 1 :]]}


def last_user_message(messages: list[Any]) -> int | None:
    """The index of the last message whose role is `user`."""
    for place in range(len(messages) - 1, -1, -1):
        if type(messages[place]) is dict and messages[place].get("role") == "user":
            return place
    return None


def _continued_form(profile: str, prompt: str) -> str:
    """The form of a prompt whose end stays as it is, because the answer goes on there."""
    if profile == "property":
        body = prompt.rstrip(" \t\r\n.,;:!?-")
        understood = property_form(text_form(body))
        if understood is not None:
            return understood + prompt[len(body) :]
    return continued_form(prompt)


def form_matters(messages: list[Any]) -> bool:
    """Whether messages beside the last user's ask about how that one is put, or may do so."""
    last = last_user_message(messages)
    size = 0
    for place, message in enumerate(messages):
        if place == last or type(message) is not dict:
            continue
        content = message.get("content")
        parts: list[Any] = content if type(content) is list else [content]
        for text in (part["text"] if _is_text(part) else part for part in parts):
            if type(text) is not str:
                continue
            size += len(text)
            if size > MAX_CONTEXT_CHARACTERS or about_form(text):
                return True
    return False


def _is_text(part: Any) -> bool:
    return type(part) is dict and part.get("type") == "text" and type(part.get("text")) is str
