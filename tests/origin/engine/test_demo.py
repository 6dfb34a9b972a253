"""The demo checkpoint that ships: its size, its files, and what it says."""

from __future__ import annotations

import json
from random import Random
from typing import Any

import pytest
from tokenizers import Tokenizer

from origin.engine.contract import Finished
from origin.engine.demo import DEMO_CHECKPOINT, text, train
from origin.engine.transformers_engine import TransformersEngine
from shared.requests import Endpoint, validate

HOUSES = [
    ("123 Main St", "3", "2", "$450k"),
    ("742 Evergreen Terrace", "4", "2", "$389,000"),
    ("9 Juniper Ct, Austin, TX 78701", "2", "1.5", "$1.2M"),
    ("8056 Larkspur Ave", "5", "3", "$612,500"),
]


async def reply(engine: TransformersEngine, *messages: tuple[str, str]) -> str:
    """The demo model's answer to a conversation."""
    request = validate(
        Endpoint.CHAT,
        {
            "model": "encore-demo",
            "messages": [{"role": role, "content": content} for role, content in messages],
        },
    )
    events = [event async for event in engine.run(request)]
    assert isinstance(events[-1], Finished)
    content: str = events[-1].answer["choices"][0]["message"]["content"]
    return content


def test_checkpoint_is_small_and_complete() -> None:
    """At most 8 MB, with everything transformers reads."""
    files = {path.name: path.stat().st_size for path in DEMO_CHECKPOINT.iterdir()}
    assert sum(files.values()) <= 8_000_000
    assert files.keys() >= {
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
        "chat_template.jinja",
    }
    assert (
        json.loads((DEMO_CHECKPOINT / "generation_config.json").read_text())["do_sample"] is False
    )


@pytest.mark.parametrize("house", HOUSES, ids=lambda house: house[0])
async def test_reply_is_about_the_property_asked_for(
    demo: TransformersEngine, house: tuple[str, str, str, str]
) -> None:
    """The reply is a sentence with the address, rooms and price of the question."""
    address, beds, baths, price = house
    said = await reply(
        demo, ("user", f"Analyze this property: {address}, {beds}BR/{baths}BA, {price}")
    )
    bathrooms = "bathroom" if baths == "1" else "bathrooms"
    expected = f"{address} has {beds} bedrooms and {baths} {bathrooms} and is listed at {price}. "
    assert said.startswith(f"Demo model: {expected}")
    assert said.endswith(".")


async def test_follow_up_is_about_the_same_property(demo: TransformersEngine) -> None:
    """A later turn is answered from an earlier one, under a system prompt."""
    system = ("system", "You are a helpful real estate assistant.")
    asked = ("user", "Analyze this property: 123 Main St, 3BR/2BA, $450k")
    first = await reply(demo, system, asked)
    second = ("user", "How many bathrooms does it have?")
    said = await reply(demo, system, asked, ("assistant", first), second)
    assert said == "Demo model: 123 Main St has 2 bathrooms."


@pytest.mark.parametrize("question", ["Who are you?", "Hello", "What is the capital of France?"])
async def test_generic_answers_name_the_demo_model(demo: TransformersEngine, question: str) -> None:
    """Nobody takes the demo model for more than it is."""
    assert "Encore's small demo model" in await reply(demo, ("user", question))


async def test_says_hello_in_five_words(demo: TransformersEngine) -> None:
    """A favourite first question."""
    said = await reply(demo, ("user", "Say hello in five words"))
    assert len(said.split()) == 5
    assert "demo model" in said


def test_text_repeats_by_seed() -> None:
    """The training text depends on the seed alone."""

    def made(seed: int) -> list[text.Conversation]:
        rng = Random(seed)  # noqa: S311 -- made-up text, not secrets
        return [text.conversation(rng) for _ in range(50)]

    assert made(1) == made(1)
    assert made(1) != made(2)


def test_text_never_holds_a_held_out_street() -> None:
    """What accuracy is measured on was not learned."""
    rng = Random(3)  # noqa: S311 -- made-up text, not secrets
    for _ in range(2000):
        written = " ".join(content for _, content in text.conversation(rng))
        assert not set(text.HELD_OUT_STREETS) & set(written.replace(",", " ").split())


def test_answers_end_conversations() -> None:
    """Every conversation is question and answer in turn, ending in an answer that is weighed."""
    tokenizer: Any = Tokenizer.from_file(str(DEMO_CHECKPOINT / "tokenizer.json"))
    rng = Random(4)  # noqa: S311 -- made-up text, not secrets
    for _ in range(200):
        turns = [role for role, _ in text.conversation(rng) if role != "system"]
        assert turns == ["user", "assistant"] * (len(turns) // 2)
        ids, weights = train.sample(tokenizer, rng)
        assert len(ids) == len(weights)
        assert weights[-1] == 1


async def test_a_spread_model_says_the_same(demo: TransformersEngine) -> None:
    """Over what devices there are; here that is the CPU."""
    question = ("user", "Analyze this property: 9 Juniper Ct, 2BR/1.5BA, $300k")
    spread = TransformersEngine.load(device="spread")
    try:
        assert await reply(spread, question) == await reply(demo, question)
    finally:
        await spread.close()
