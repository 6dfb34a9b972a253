"""Sequences read together: what each is told is what it would be told alone, nearly."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import Iterator
from contextlib import aclosing
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from transformers import BloomConfig, BloomForCausalLM, MistralConfig, MistralForCausalLM

from origin.engine.causal_model import CausalModel, State
from origin.engine.contract import Finished
from origin.engine.decode_batch import DecodeBatch, works_with
from origin.engine.transformers_engine import TransformersEngine
from shared.errors import InternalError
from shared.requests import Endpoint, Request, validate
from tests.origin.engine.conftest import save_tokenizer


@pytest.fixture(params=["llama_folder", "gpt2_folder"])
def model(request: pytest.FixtureRequest) -> Iterator[CausalModel]:
    """A model of rotary positions, and one of learned ones."""
    engine = TransformersEngine.load(request.getfixturevalue(request.param))
    with torch.inference_mode():
        yield engine._model
    asyncio.run(engine.close())


def begun(model: CausalModel, ids: list[int]) -> State:
    """A sequence that has been read so far."""
    state = model.begin()
    model.read(state, ids)
    return model.decoding(state, last=True)


def test_sequences_that_come_and_go(model: CausalModel) -> None:
    """At random, of any lengths, some not asking now and then: logits as alone, within noise."""
    draw = Random(3)  # noqa: S311 -- reproducible
    batch = DecodeBatch(model)
    together: list[State] = []
    alone: list[State] = []
    met = 0
    for _ in range(40):
        if len(together) < 4 and draw.random() < 0.4:
            ids = [draw.randrange(257) for _ in range(draw.randint(1, 20))]
            together.append(begun(model, ids))
            alone.append(begun(model, ids))
        if together and draw.random() < 0.2:
            gone = draw.randrange(len(together))
            batch.leave(together.pop(gone))
            alone.pop(gone)
        asking = [at for at in range(len(together)) if draw.random() < 0.8]
        for at in asking:
            token = draw.randrange(257)
            batch.ask(together[at], token)
            model.read(alone[at], [token])
        for at in asking:
            batch.collect(together[at])
            said, expected = together[at].logits, alone[at].logits
            assert said is not None
            assert expected is not None
            torch.testing.assert_close(said, expected, rtol=1e-4, atol=1e-4)
        met += len(asking) > 1
    assert met > 10
    for state in together:
        batch.leave(state)
    assert all(layer.keys is None for layer in batch._rows.layers)


def test_models_that_heed_no_mask_are_told_apart(model: CausalModel) -> None:
    """By trying; a layer that slides is not tried."""
    assert works_with(model)
    read = model.module.forward

    def deaf(**given: Any) -> Any:
        return read(**{**given, "attention_mask": None})

    model.module.forward = deaf
    try:
        assert not works_with(model)
    finally:
        del model.module.forward


@pytest.mark.parametrize(
    "made",
    [
        lambda: BloomForCausalLM(BloomConfig(vocab_size=257, hidden_size=16, n_layer=1, n_head=2)),
        lambda: MistralForCausalLM(
            MistralConfig(
                vocab_size=257,
                hidden_size=16,
                intermediate_size=16,
                num_hidden_layers=1,
                num_attention_heads=2,
                num_key_value_heads=1,
                sliding_window=8,
            )
        ),
    ],
    ids=["bloom", "mistral"],
)
async def test_model_that_cannot_runs_without(
    made: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Its positions are in a mask of its own, or a layer slides: it says so, and answers."""
    folder = tmp_path / "tiny"
    save_tokenizer(folder)
    torch.manual_seed(1)
    made().save_pretrained(folder)
    engine = TransformersEngine.load(folder, batching=True)
    assert engine._batch is None
    assert "no batching" in caplog.text
    assert await text_of(engine, completion("Hello", model="tiny")) is not None
    await engine.close()


def completion(prompt: str, **fields: Any) -> Request:
    """A completion that does not end by itself."""
    fields = {"model": "tiny-llama", "max_tokens": 12, "temperature": 0} | fields
    return validate(
        Endpoint.COMPLETIONS, {"prompt": prompt, "logit_bias": {"0": -100}, "n": 2} | fields
    )


async def text_of(engine: TransformersEngine, request: Request) -> str:
    """What the first choice says."""
    events = [event async for event in engine.run(request)]
    assert isinstance(events[-1], Finished)
    text: str = events[-1].answer["choices"][0]["text"]
    return text


async def test_answers_are_made_together(llama_folder: Path) -> None:
    """As they are alone, in fewer passes; the model is another one to the cache."""
    engine = TransformersEngine.load(llama_folder, concurrency=4, batching=True)
    plain = TransformersEngine.load(llama_folder)
    sizes: list[int] = []
    engine._model.module.register_forward_pre_hook(
        lambda _module, _args, given: sizes.append(len(given["input_ids"])), with_kwargs=True
    )
    prompts = ["Hello", "How much is it, then?", "x" * 70, "12 Oak Ave"]
    told = await asyncio.gather(*(text_of(engine, completion(prompt)) for prompt in prompts))
    assert told == [await text_of(plain, completion(prompt)) for prompt in prompts]
    assert max(sizes) > 1
    assert len(sizes) < 4 * 2 * 11
    assert await engine.fingerprint("tiny-llama") != await plain.fingerprint("tiny-llama")
    assert engine._batch is not None
    assert not engine._batch._seats
    await engine.close()
    await plain.close()


async def test_who_leaves_or_fails_takes_nobody_along(llama_folder: Path) -> None:
    """The others' answers are what they are alone."""
    engine = TransformersEngine.load(llama_folder, concurrency=4, batching=True)
    alone = await text_of(engine, completion("Hello", max_tokens=60))
    passes = itertools.count()
    reached, left = threading.Event(), threading.Event()

    def fail(_module: object, _args: object, given: dict[str, Any]) -> None:
        at = next(passes) if len(given["input_ids"]) > 1 else -1
        if at == 10:
            reached.set()
            assert left.wait(30)
        if at == 20:
            raise RuntimeError

    hook = engine._model.module.register_forward_pre_hook(fail, with_kwargs=True)

    async def leave_early() -> None:
        async with aclosing(engine.run(completion("Bye", max_tokens=60, echo=True))) as events:
            await anext(events)
            assert await asyncio.to_thread(reached.wait, 30)
        left.set()

    told = await asyncio.gather(
        *(text_of(engine, completion("Hello", max_tokens=60)) for _ in range(3)),
        leave_early(),
        return_exceptions=True,
    )
    hook.remove()
    errors = [each for each in told if isinstance(each, BaseException)]
    assert [type(error) for error in errors] == [InternalError]
    assert [each for each in told[:3] if each not in errors] == [alone] * 2
    await engine.close()
