"""Which requests may be matched by meaning, and with which others."""

from __future__ import annotations

import json
from typing import Any

import pytest

from origin.pipeline import Pipeline
from origin.queries import Query
from origin.semantic.questions import Question, question_of
from origin.stores.memory import MemoryStore
from shared.control_document import ControlDocument, Policy
from shared.controls import parse_controls
from shared.freshness import Lifetimes
from shared.keys import KeyRings, key_rings
from shared.requests import Endpoint
from tests.support.engines import ScriptedEngine

SECRET = "a secret of the tests, long enough"
KEYS = key_rings(SECRET)
DOCUMENT = ControlDocument(tenant="acme", revision=1)
USER = {"role": "user", "content": "How do I bake bread?"}
SYSTEM = {"role": "system", "content": "Be brief."}
TOOL_CALL = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
IMAGE = {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}


def asked(
    *messages: dict[str, Any],
    keys: KeyRings = KEYS,
    document: ControlDocument = DOCUMENT,
    headers: dict[str, str] | None = None,
    cacheable: bool = True,
    **fields: Any,
) -> Query:
    """A chat request as the routes would read it."""

    async def clock() -> int:
        return 0

    pipeline = Pipeline(
        keys=keys,
        store=MemoryStore(),
        engine=ScriptedEngine(),
        lifetimes=Lifetimes(
            ttl_s=100, stale_while_revalidate_s=0, stale_if_error_s=0, max_ttl_s=1000
        ),
        deadline_s=5,
        store_clock=clock,
    )
    body = {"model": "m", "messages": list(messages or (USER,)), **fields}
    return pipeline.query(
        Endpoint.CHAT,
        document,
        parse_controls(headers or {}),
        json.dumps(body).encode(),
        ring=keys.current,
        cacheable=cacheable,
    )


def question(*messages: dict[str, Any], **changes: Any) -> Question:
    """What may be matched of a request that may."""
    found = question_of(asked(*messages, **changes))
    assert found is not None
    return found


def said(text: str) -> dict[str, Any]:
    """A user's message."""
    return {"role": "user", "content": text}


PART = {"role": "user", "content": [{"type": "text", "text": "How do I bake bread?"}]}


@pytest.mark.parametrize("message", [USER, PART])
def test_the_last_user_message_is_what_is_asked(message: dict[str, Any]) -> None:
    """As a text, or as its only part."""
    assert question(SYSTEM, message).text == "How do I bake bread?"


@pytest.mark.parametrize(
    "request_",
    [
        asked(SYSTEM),
        asked(USER, {"role": "assistant", "content": "So"}),
        asked(said("  ")),
        asked({"role": "user", "content": [{"type": "text", "text": "a"}, IMAGE]}),
        asked({"role": "user", "content": [IMAGE]}),
        asked({"role": "assistant", "content": None, "tool_calls": [TOOL_CALL]}, USER),
        asked({"role": "tool", "tool_call_id": "1", "content": "5"}, USER),
        asked({"role": "function", "name": "f", "content": "5"}, USER),
        asked({"role": "system", "content": "Translate what the user writes into French."}, USER),
        asked(USER, cacheable=False),
        asked(USER, keys=key_rings(SECRET, "the secret before it, long enough too")),
        asked(
            said("bake bread"),
            document=ControlDocument(
                tenant="acme", revision=1, policy=Policy(templates={"t@1": "bake {what:text}"})
            ),
        ),
    ],
    ids=[
        "no user",
        "a prefix of the answer",
        "blank",
        "a text and an image",
        "an image",
        "a tool call before",
        "a tool's result before",
        "a function's result before",
        "its form matters",
        "too large",
        "between two secrets",
        "a template's",
    ],
)
def test_what_is_not_matched(request_: Query) -> None:
    """Whatever else is alike."""
    assert question_of(request_) is None


@pytest.mark.parametrize("content", [["a"], [None], [[]], [{}], [1], [], [{"type": []}]])
def test_what_no_schema_allows_is_not_matched(content: Any) -> None:
    """It is refused afterwards, as it would be without."""
    assert question_of(asked({"role": "user", "content": content})) is None


@pytest.mark.parametrize(
    ("field", "value"), [("echo", True), ("prompt_logprobs", 0), ("return_token_ids", True)]
)
def test_an_answer_that_quotes_its_question_is_not_matched(field: str, value: Any) -> None:
    """It would show one client what another has asked."""
    assert question_of(asked(**{field: value})) is None


def test_a_field_that_is_turned_off_keeps_nothing_from_being_matched() -> None:
    """As where it is absent."""
    assert question_of(asked(echo=False, prompt_logprobs=None)) is not None


def test_completions_are_not_matched() -> None:
    """A prompt is gone on with, so its wording matters."""
    query = asked(USER)
    object.__setattr__(query, "endpoint", Endpoint.COMPLETIONS)
    assert question_of(query) is None


@pytest.mark.parametrize(
    "other",
    [
        question(SYSTEM, said("What is the best way to bake bread?")),
        question(SYSTEM, USER, stream=True, user="me", metadata={"a": "b"}),
        question(SYSTEM, USER, headers={"encore-tags": "a", "encore-ttl": "5"}),
    ],
    ids=["another question", "how it is sent", "what concerns the cache"],
)
def test_one_partition(other: Question) -> None:
    """What is asked last may differ, and what changes no answer."""
    assert other.partition == question(SYSTEM, USER).partition


@pytest.mark.parametrize(
    "other",
    [
        question(USER),
        question({"role": "developer", "content": "Be brief."}, USER),
        question({"role": "system", "content": "Be long."}, USER),
        question(SYSTEM, USER, model="n"),
        question(SYSTEM, USER, temperature=0.5),
        question(SYSTEM, USER, seed=2**60),
        question(SYSTEM, USER, max_tokens=5),
        question(SYSTEM, USER, response_format={"type": "json_object"}),
        question(SYSTEM, USER, tools=[{"type": "function", "function": {"name": "f"}}]),
        question(SYSTEM, USER, unknown=1),
        question(SYSTEM, USER, headers={"encore-scope": "them"}),
        question(SYSTEM, USER, headers={"encore-bucket": "1"}),
        question(SYSTEM, USER, headers={"encore-class": "faq"}),
        question(SYSTEM, USER, document=ControlDocument(tenant="other", revision=1)),
        question(SYSTEM, USER, keys=key_rings("another secret of the tests, as long")),
        question(SYSTEM, {**USER, "name": "Bob"}),
        question(SYSTEM, said("hi"), {"role": "assistant", "content": "Hello!"}, USER),
    ],
    ids=[
        "no system prompt",
        "another role",
        "another system prompt",
        "another model",
        "temperature",
        "seed",
        "length",
        "format",
        "tools",
        "an unknown field",
        "scope",
        "bucket",
        "class",
        "tenant",
        "secret",
        "who asks",
        "what was said before",
    ],
)
def test_another_partition(other: Question) -> None:
    """Everything but the text asked last is equal, or there is no match."""
    assert other.partition != question(SYSTEM, USER).partition


def test_a_conversation_is_matched_within_itself() -> None:
    """Of several turns all but the last are in the partition."""
    before = (said("I have rye."), {"role": "assistant", "content": "Nice."})
    one, two = question(*before, USER), question(*before, said("Any idea how to bake bread?"))
    assert one.partition == two.partition
    assert question(said("I have wheat."), before[1], USER).partition != one.partition


def test_spellings_of_a_text_have_one_form() -> None:
    """The `text` profile's, whatever the tenant's own is."""
    assert question(said("Please,  how do I bake bread?")).form == question(USER).form
    assert question(said("How do I bake rye bread?")).form != question(USER).form


def test_nothing_tells_what_was_asked() -> None:
    """Digests are keyed: without the secret nobody can test a guess."""
    one, two = (
        question(USER),
        question(USER, keys=key_rings("another secret of the tests, as long")),
    )
    assert one.form != two.form
