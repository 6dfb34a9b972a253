"""The transformers engine on real models."""

from __future__ import annotations

import asyncio
import copy
import logging
import shutil
import threading
from collections.abc import Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
import torch

from origin.engine.contract import Chunk, Engine, Finished
from origin.engine.cuts import Cuts
from origin.engine.sampling import Sampler
from origin.engine.transformers_engine import TransformersEngine
from shared.errors import ClientError, EncoreError, InternalError
from shared.requests import Endpoint, Request, validate
from shared.streams import Assembler, rebuildable

HOUSE = "Analyze this property: 123 Main St, 3BR/2BA, $450k"
END_TOKEN = 4


def chat(text: str = HOUSE, **fields: Any) -> Request:
    """A chat request to the demo model."""
    messages = [{"role": "user", "content": text}]
    return validate(Endpoint.CHAT, {"model": "encore-demo", "messages": messages} | fields)


def completion(prompt: Any = "Hello", *, model: str = "encore-demo", **fields: Any) -> Request:
    """A completion request."""
    return validate(Endpoint.COMPLETIONS, {"model": model, "prompt": prompt} | fields)


async def run(engine: Engine, request: Request) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """All chunks of a run, and its answer."""
    chunks: list[dict[str, Any]] = []
    answer: dict[str, Any] | None = None
    async for event in engine.run(request):
        assert answer is None, "nothing follows Finished"
        if isinstance(event, Chunk):
            chunks.append(event.payload)
        else:
            answer = event.answer
    assert answer is not None
    return chunks, answer


async def text_of(engine: Engine, request: Request) -> str:
    """The text of the first choice."""
    _, answer = await run(engine, request)
    choice = answer["choices"][0]
    text: str = choice["message"]["content"] if "message" in choice else choice["text"]
    return text


async def refusal(engine: Engine, request: Request) -> EncoreError:
    """The error a run raises."""
    with pytest.raises(EncoreError) as caught:
        await run(engine, request)
    return caught.value


async def until(condition: Callable[[], bool]) -> None:
    """Wait for what another thread does."""
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 -- a thread sets no asyncio.Event
            await asyncio.sleep(0.005)


class Gate:
    """Lets the model's forward passes through one permit at a time, and counts them."""

    def __init__(self, engine: TransformersEngine) -> None:
        self._permits = threading.Semaphore(0)
        self.steps = 0
        self._hook = engine._model.module.register_forward_pre_hook(self._pass)

    def _pass(self, *_: object) -> None:
        assert self._permits.acquire(timeout=30)
        self.steps += 1

    def open(self, permits: int) -> None:
        """Let so many more passes through."""
        self._permits.release(permits)

    async def idle(self, engine: TransformersEngine) -> None:
        """Open for good, and wait until no job is left."""
        self._hook.remove()
        self.open(10_000)
        await until(lambda: not engine._scheduler.jobs)


async def test_greedy_answers_are_equal(demo: TransformersEngine) -> None:
    """Without a temperature the demo model answers the same every time."""
    assert await text_of(demo, chat()) == await text_of(demo, chat(temperature=0, seed=9))


@pytest.mark.parametrize(
    "text", [HOUSE, "Hello", "How much is 9 Raven Ct, Austin, TX, 2BR/1BA, $1.2M?", "é 日本 🙂"]
)
async def test_greedy_equals_generate(demo: TransformersEngine, text: str) -> None:
    """The decode loop says what transformers' own `generate` says."""
    prompt = demo._prompts._tokenizer.apply_chat_template(
        [{"role": "user", "content": text}], tokenize=False, add_generation_prompt=True
    )
    ids = torch.tensor([demo._prompts.encode(prompt, special=False)])
    with torch.inference_mode():
        made = demo._model.module.generate(
            ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=80
        )
    expected = demo._prompts.decode(made[0, ids.shape[1] :].tolist())
    assert await text_of(demo, chat(text, max_tokens=80)) == expected


async def test_greedy_equals_generate_on_gpt2(
    gpt2: TransformersEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same holds, token by token, for a model of another architecture."""
    ids = torch.tensor([[72, 73, 74]])
    with torch.inference_mode():
        made = gpt2._model.module.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            do_sample=False,
            max_new_tokens=24,
            pad_token_id=0,
        )
    picked: list[int] = []
    pick = Sampler.pick

    def recording(sampler: Sampler, logits: torch.Tensor) -> int:
        picked.append(pick(sampler, logits))
        return picked[-1]

    monkeypatch.setattr(Sampler, "pick", recording)
    await run(gpt2, completion([72, 73, 74], model="tiny-gpt2", max_tokens=24, temperature=0))
    assert picked == made[0, 3:].tolist()


async def test_prompt_is_prefilled_in_blocks(demo: TransformersEngine) -> None:
    """A prompt read in small blocks is answered as one read at once."""
    engine = TransformersEngine.load(cuts=Cuts(((0, 5),)))
    assert await text_of(engine, chat()) == await text_of(demo, chat())
    await engine.close()


async def test_seed_reproduces(demo: TransformersEngine) -> None:
    """One seed gives one answer, whatever runs beside it."""
    request = chat(temperature=1.5, seed=11)
    texts = await asyncio.gather(*(text_of(demo, request) for _ in range(3)))
    assert len(set(texts)) == 1


async def test_seeds_differ(demo: TransformersEngine) -> None:
    """Different seeds give different answers."""
    texts = {await text_of(demo, chat(temperature=1.5, seed=seed)) for seed in range(4)}
    assert len(texts) == 4


async def test_no_seed_differs(demo: TransformersEngine) -> None:
    """Without a seed, sampled answers differ."""
    texts = {await text_of(demo, chat(temperature=2)) for _ in range(4)}
    assert len(texts) > 1


async def test_choices_differ_and_first_is_the_only_one(demo: TransformersEngine) -> None:
    """The choices of one seed differ; the first equals the answer without `n`."""
    _, several = await run(demo, chat(n=3, temperature=1.5, seed=5))
    texts = [choice["message"]["content"] for choice in several["choices"]]
    assert [choice["index"] for choice in several["choices"]] == [0, 1, 2]
    assert len(set(texts)) == 3
    assert texts[0] == await text_of(demo, chat(temperature=1.5, seed=5))


async def test_low_top_p_is_greedy(demo: TransformersEngine) -> None:
    """With `top_p` near 0 only the most probable token is left."""
    assert await text_of(demo, chat(temperature=2, top_p=0, seed=3)) == await text_of(demo, chat())


@pytest.mark.parametrize("stop", ["bedrooms", ["never said", "d 2 bath"], "St has 3 b"])
async def test_stop_cuts_before_the_string(demo: TransformersEngine, stop: str | list[str]) -> None:
    """Text ends before a stop string, wherever tokens begin and end, in the stream too."""
    whole = await text_of(demo, chat())
    met = stop if isinstance(stop, str) else stop[1]
    chunks, answer = await run(demo, chat(stop=stop))
    choice = answer["choices"][0]
    assert met in whole
    assert choice["message"]["content"] == whole[: whole.index(met)]
    assert choice["finish_reason"] == "stop"
    streamed = "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks)
    assert streamed == choice["message"]["content"]


async def test_unmet_stop_changes_nothing(demo: TransformersEngine) -> None:
    """Text held back for a stop string that never came is given out at the end."""
    whole = await text_of(demo, chat())
    assert await text_of(demo, chat(stop=whole[-3:] + "!")) == whole


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
async def test_limit_ends_with_length(demo: TransformersEngine, name: str) -> None:
    """The limit counts tokens, and the finish reason says so."""
    fields: dict[str, Any] = {name: 5}
    _, answer = await run(demo, chat(**fields))
    assert answer["choices"][0]["finish_reason"] == "length"
    assert answer["usage"]["completion_tokens"] == 5
    assert (await text_of(demo, chat())).startswith(answer["choices"][0]["message"]["content"])


async def test_completions_stop_after_16_tokens_by_default(demo: TransformersEngine) -> None:
    """As OpenAI documents for completions."""
    _, answer = await run(demo, completion(HOUSE))
    assert answer["usage"]["completion_tokens"] == 16


async def test_zero_tokens_echo_the_prompt(demo: TransformersEngine) -> None:
    """`max_tokens` 0 with `echo` gives the prompt back."""
    _, answer = await run(demo, completion("12 Oak Ave", max_tokens=0, echo=True))
    assert answer["choices"][0]["text"] == "12 Oak Ave"
    assert answer["usage"]["completion_tokens"] == 0


async def test_window_ends_the_answer(gpt2: TransformersEngine) -> None:
    """An answer ends where the context window does."""
    _, answer = await run(
        gpt2,
        completion(
            [65] * 60, model="tiny-gpt2", max_tokens=500, temperature=0, logit_bias={"0": -100}
        ),
    )
    assert answer["usage"] == {
        "prompt_tokens": 60,
        "completion_tokens": 4,
        "total_tokens": 64,
        "prompt_tokens_details": {"cached_tokens": 0},
    }
    assert answer["choices"][0]["finish_reason"] == "length"


@pytest.mark.parametrize("penalty", ["presence_penalty", "frequency_penalty"])
async def test_penalties_change_the_answer(gpt2: TransformersEngine, penalty: str) -> None:
    """A penalty for repetition changes a greedy answer; a penalty of 0 does not."""

    def request(value: float) -> Request:
        fields: dict[str, Any] = {penalty: value, "max_tokens": 30, "temperature": 0}
        return completion("abc", model="tiny-gpt2", logit_bias={"0": -100}, **fields)

    plain = await text_of(gpt2, completion("abc", model="tiny-gpt2", max_tokens=30))
    assert await text_of(gpt2, request(0)) == plain
    assert await text_of(gpt2, request(2)) != plain


async def test_bias_forces_a_token(demo: TransformersEngine) -> None:
    """A token with a bias of 100 is chosen, and one of -100 never."""
    (token,) = demo._prompts.encode("7", special=False)
    request = chat(logit_bias={str(token): 100}, max_tokens=3)
    assert await text_of(demo, request) == "777"
    endless = await run(demo, chat("Hello", logit_bias={str(END_TOKEN): -100}, max_tokens=60))
    assert endless[1]["choices"][0]["finish_reason"] == "length"


REQUESTS = [
    chat(),
    chat(n=2, temperature=1.0, seed=1),
    chat("Hello", max_tokens=2),
    chat(stop=["$"]),
    completion(HOUSE, max_tokens=20),
    completion(["12 Oak Ave", "9 Elm St"], n=2, temperature=1, seed=2, max_tokens=8, echo=True),
    completion([[20, 21], [22]], max_tokens=4),
    completion("", max_tokens=4),
]


@pytest.mark.parametrize("request_", REQUESTS)
async def test_chunks_give_the_answer(demo: TransformersEngine, request_: Request) -> None:
    """Putting the chunks together gives the plain answer, and the other way round."""
    chunks, answer = await run(demo, request_)
    assembler = Assembler(request_.endpoint)
    for chunk in chunks:
        assembler.feed(chunk)
    assert assembler.lossless
    assert assembler.answer() | {"usage": answer["usage"]} == answer
    assert rebuildable(request_.endpoint, answer)


async def test_chat_stream_looks_like_openais(demo: TransformersEngine) -> None:
    """First the role, then text, last an empty delta with the finish reason; one id for all."""
    chunks, answer = await run(demo, chat("Hello"))
    assert chunks[0]["choices"][0]["delta"] == {"role": "assistant", "content": "", "refusal": None}
    assert chunks[-1]["choices"][0]["delta"] == {}
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks[-2:]] == [None, "stop"]
    assert {chunk["id"] for chunk in chunks} == {answer["id"]}
    assert answer["id"].startswith("chatcmpl-")
    assert answer["system_fingerprint"] == await demo.fingerprint("encore-demo")
    assert len(chunks) > 5


async def test_usage_counts_tokens(demo: TransformersEngine) -> None:
    """Usage counts the rendered prompt once, and what was sampled without the end token."""
    prompt = demo._prompts._tokenizer.apply_chat_template(
        [{"role": "user", "content": HOUSE}], tokenize=False, add_generation_prompt=True
    )
    _, answer = await run(demo, chat(n=2))
    text = answer["choices"][0]["message"]["content"]
    used = answer["usage"]
    assert used["prompt_tokens"] == len(demo._prompts.encode(prompt, special=False))
    assert used["completion_tokens"] == 2 * len(demo._prompts.encode(text, special=False))
    assert used["total_tokens"] == used["prompt_tokens"] + used["completion_tokens"]


async def test_prompts_are_answered_in_order(demo: TransformersEngine) -> None:
    """Several prompts with `n`: choices stand prompt by prompt, token ids as well as text."""
    first = demo._prompts._tokenizer("12 Oak Ave").input_ids
    second = demo._prompts._tokenizer("9 Elm St").input_ids
    _, by_text = await run(demo, completion(["12 Oak Ave", "9 Elm St"], n=2, max_tokens=6))
    _, by_ids = await run(demo, completion([first, second], n=2, max_tokens=6))
    texts = [choice["text"] for choice in by_text["choices"]]
    assert texts == [choice["text"] for choice in by_ids["choices"]]
    assert texts[0] == texts[1]
    assert texts[0] == await text_of(demo, completion("12 Oak Ave", max_tokens=6))
    assert texts[2] == await text_of(demo, completion("9 Elm St", max_tokens=6))
    assert by_text["usage"]["prompt_tokens"] == len(first) + len(second)


async def test_unicode_arrives_whole(
    gpt2: TransformersEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Characters of several byte tokens are streamed whole, half ones never."""
    ids = gpt2._prompts.encode("é🙂日", special=False)
    assert len(ids) == 9
    said = iter([*ids, 0])
    monkeypatch.setattr(Sampler, "pick", lambda *_: next(said))
    chunks, answer = await run(gpt2, completion("x", model="tiny-gpt2", max_tokens=20))
    assert [chunk["choices"][0]["text"] for chunk in chunks] == ["é", "🙂", "日", ""]
    assert answer["choices"][0]["text"] == "é🙂日"


async def test_limit_inside_a_character_drops_the_half(
    gpt2: TransformersEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A character that the limit cuts in half is not shown."""
    said = iter(gpt2._prompts.encode("a🙂", special=False))
    monkeypatch.setattr(Sampler, "pick", lambda *_: next(said))
    _, answer = await run(gpt2, completion("x", model="tiny-gpt2", max_tokens=3))
    assert answer["choices"][0]["text"] == "a"
    assert answer["choices"][0]["finish_reason"] == "length"


async def test_closing_stops_within_one_token(gpt2: TransformersEngine) -> None:
    """A consumer that leaves stops the model: at most the pass under way is finished."""
    gate = Gate(gpt2)
    request = completion("xyz", model="tiny-gpt2", max_tokens=50, logit_bias={"0": -100})
    async with aclosing(gpt2.run(request)) as events:
        gate.open(12)
        await anext(events)
        await until(lambda: gate.steps >= 12)
    await gate.idle(gpt2)
    assert gate.steps <= 13


async def test_cancelled_task_stops_the_job(gpt2: TransformersEngine) -> None:
    """Cancelling the task that iterates frees the thread."""
    gate = Gate(gpt2)
    request = completion("xyz", model="tiny-gpt2", max_tokens=50, logit_bias={"0": -100})
    task = asyncio.create_task(run(gpt2, request))
    await until(lambda: bool(gpt2._scheduler.jobs))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await gate.idle(gpt2)
    assert gate.steps <= 1


async def test_full_queue_is_refused(gpt2_folder: Path) -> None:
    """Beyond the jobs that run and wait, a request gets a 503 that says when to come back."""
    engine = TransformersEngine.load(gpt2_folder, concurrency=1, queue_limit=1)
    gate = Gate(engine)
    request = completion("xyz", model="tiny-gpt2", max_tokens=2)
    running = [asyncio.create_task(run(engine, request)) for _ in range(2)]
    await until(lambda: engine._scheduler.jobs >= 2)
    error = await refusal(engine, request)
    await gate.idle(engine)
    await asyncio.gather(*running)
    assert isinstance(error, InternalError)
    assert (error.status, error.code) == (503, "overloaded")
    assert error.retry_after_s is not None
    assert (await run(engine, request))[1]["usage"]["completion_tokens"] <= 2
    await engine.close()


async def test_waiting_job_that_is_left_never_runs(gpt2_folder: Path) -> None:
    """A consumer that leaves the queue costs no forward pass."""
    engine = TransformersEngine.load(gpt2_folder, concurrency=1, queue_limit=1)
    gate = Gate(engine)
    request = completion("xyz", model="tiny-gpt2", max_tokens=1)
    first = asyncio.create_task(run(engine, request))
    await until(lambda: bool(engine._scheduler._running))
    second = asyncio.create_task(run(engine, request))
    await until(lambda: bool(engine._scheduler._waiting))
    second.cancel()
    await asyncio.gather(second, return_exceptions=True)
    gate.open(10)
    await first
    await gate.idle(engine)
    assert gate.steps == 1
    await engine.close()


async def test_close_ends_runs(gpt2_folder: Path) -> None:
    """Closing ends what runs and what waits with a 503, and refuses what comes after."""
    engine = TransformersEngine.load(gpt2_folder, concurrency=1)
    gate = Gate(engine)
    request = completion("xyz", model="tiny-gpt2", max_tokens=50, logit_bias={"0": -100})
    tasks = [asyncio.create_task(refusal(engine, request)) for _ in range(2)]
    await until(lambda: engine._scheduler.jobs >= 2)
    closing = asyncio.create_task(engine.close())
    await asyncio.sleep(0)
    gate.open(10_000)
    await closing
    errors = [*await asyncio.gather(*tasks), await refusal(engine, request)]
    assert [error.status for error in errors] == [503] * 3


async def test_failure_is_ours_and_says_nothing_of_the_prompt(
    gpt2: TransformersEngine, caplog: pytest.LogCaptureFixture
) -> None:
    """A failing model is a 500 whose message and log hold no content."""
    secret = "the " + "secret".upper()

    def fail(*_: object) -> None:
        raise ValueError(secret)

    hook = gpt2._model.module.register_forward_pre_hook(fail)
    with caplog.at_level(logging.DEBUG):
        error = await refusal(gpt2, completion(secret, model="tiny-gpt2"))
    hook.remove()
    assert isinstance(error, InternalError)
    assert error.status == 500
    assert "SECRET" not in error.message
    assert "ValueError" in caplog.text
    assert "SECRET" not in caplog.text


async def test_model_without_template_refuses_chat(gpt2: TransformersEngine) -> None:
    """It says what to set, and serves completions all the same."""
    request = validate(
        Endpoint.CHAT, {"model": "tiny-gpt2", "messages": [{"role": "user", "content": "Hi"}]}
    )
    with pytest.raises(ClientError, match="ENCORE_CHAT_TEMPLATE") as caught:
        gpt2.check(request)
    assert (caught.value.status, caught.value.param) == (400, "messages")
    _, answer = await run(gpt2, completion("Hi", model="tiny-gpt2"))
    assert answer["object"] == "text_completion"


async def test_template_can_be_given(gpt2_folder: Path, gpt2: TransformersEngine) -> None:
    """With a template from the operator the same model serves chat, under another fingerprint."""
    template = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    engine = TransformersEngine.load(gpt2_folder, name="gpt2-chat", chat_template=template)
    request = validate(
        Endpoint.CHAT,
        {
            "model": "gpt2-chat",
            "messages": [{"role": "developer", "content": [{"type": "text", "text": "Hi"}]}],
            "max_completion_tokens": 3,
        },
    )
    _, answer = await run(engine, request)
    assert answer["usage"]["prompt_tokens"] == len("system: Hi\n")
    assert await engine.fingerprint("gpt2-chat") != await gpt2.fingerprint("tiny-gpt2")
    await engine.close()


async def test_template_that_refuses_is_the_clients_error(gpt2_folder: Path) -> None:
    """A template that raises is a 400 on `messages`, without the template's own words."""
    template = "{{ raise_exception('no: ' + messages[0].content) }}"
    engine = TransformersEngine.load(gpt2_folder, name="strict", chat_template=template)
    request = validate(
        Endpoint.CHAT, {"model": "strict", "messages": [{"role": "user", "content": "secret"}]}
    )
    error = await refusal(engine, request)
    assert (error.status, error.param) == (400, "messages")
    assert "secret" not in error.message
    await engine.close()


async def test_template_that_is_wrong_is_our_error(
    gpt2_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """One that fails in its own way is a 500, without the conversation."""
    template = "{{ 1 + messages[0].content }}"
    engine = TransformersEngine.load(gpt2_folder, name="wrong", chat_template=template)
    request = validate(
        Endpoint.CHAT, {"model": "wrong", "messages": [{"role": "user", "content": "secret"}]}
    )
    error = await refusal(engine, request)
    assert (error.status, error.code) == (500, "engine_error")
    assert "secret" not in error.message + caplog.text
    await engine.close()


@pytest.mark.parametrize(
    ("request_", "param"),
    [
        (completion("x" * 64, model="tiny-gpt2"), "prompt"),
        (completion(["x", "x" * 99], model="tiny-gpt2"), "prompt[1]"),
        (completion([[1], [2] * 64], model="tiny-gpt2"), "prompt[1]"),
    ],
)
async def test_long_prompt_is_refused(
    gpt2: TransformersEngine, request_: Request, param: str
) -> None:
    """A prompt that fills the window is a 400 naming it."""
    error = await refusal(gpt2, request_)
    assert isinstance(error, ClientError)
    assert (error.status, error.code, error.param) == (400, "context_length_exceeded", param)


async def test_long_chat_is_refused(demo: TransformersEngine) -> None:
    """A conversation that fills the window is a 400 naming `messages`."""
    error = await refusal(demo, chat("word " * 3000))
    assert (error.code, error.param) == ("context_length_exceeded", "messages")


async def test_unknown_model_is_404(demo: TransformersEngine) -> None:
    """Another model's name is a 404 naming the field, everywhere."""
    error = await refusal(demo, completion(model="gpt-4o"))
    assert (error.status, error.code, error.param) == (404, "model_not_found", "model")
    with pytest.raises(ClientError, match="does not exist"):
        demo.check(completion(model="gpt-4o"))
    with pytest.raises(ClientError, match="does not exist"):
        await demo.fingerprint("gpt-4o")


async def test_embeddings_are_refused(demo: TransformersEngine) -> None:
    """A language model makes no embeddings."""
    request = validate(Endpoint.EMBEDDINGS, {"model": "encore-demo", "input": "x"})
    assert (await refusal(demo, request)).param == "model"


async def test_models_lists_the_model(demo: TransformersEngine, gpt2: TransformersEngine) -> None:
    """The demo model is named as one; others are named after their folder."""
    (info,) = await demo.models()
    assert (info.id, info.owned_by, info.max_tokens) == ("encore-demo", "encore-demo", 2048)
    assert len(info.fingerprint) <= 32
    (info,) = await gpt2.models()
    assert (info.id, info.owned_by, info.max_tokens) == ("tiny-gpt2", "local", 64)


async def test_fingerprint_follows_the_weights(gpt2_folder: Path, tmp_path: Path) -> None:
    """A copy has the same fingerprint, wherever it lies; a changed weight or dtype another."""
    first, second = tmp_path / "a", tmp_path / "b"
    prints = []
    for folder, change, dtype in (
        (first, False, "float32"),
        (second, False, "float32"),
        (second, True, "float32"),
        (second, True, "bfloat16"),
    ):
        if not folder.exists():
            shutil.copytree(gpt2_folder, folder)
        if change:
            weights = folder / "model.safetensors"
            content = bytearray(weights.read_bytes())
            content[-2] ^= 1 if dtype == "float32" else 0
            weights.write_bytes(content)
        engine = TransformersEngine.load(folder, name="m", dtype=dtype)
        prints.append(await engine.fingerprint("m"))
        await engine.close()
    assert prints[0] == prints[1]
    assert len(set(prints)) == 3


async def test_sampling_defaults_come_from_the_checkpoint(
    gpt2_folder: Path, tmp_path: Path
) -> None:
    """A checkpoint that samples does so where a request names no temperature."""
    folder = tmp_path / "sampling"
    shutil.copytree(gpt2_folder, folder)
    (folder / "generation_config.json").write_text(
        '{"do_sample": true, "temperature": 0.7, "top_p": 0.9, "top_k": 20, "eos_token_id": [0, 7]}'
    )
    engine = TransformersEngine.load(folder, name="m")
    assert engine._model.defaults.temperature == 0.7
    assert engine._model.defaults.top_p == 0.9
    assert engine._model.defaults.top_k == 20
    assert engine._model.ends == {0, 7}
    texts = {await text_of(engine, completion("x", model="m")) for _ in range(4)}
    assert len(texts) > 1
    await engine.close()


async def test_finished_is_storable(demo: TransformersEngine) -> None:
    """The engine has no objection to keeping a complete answer."""
    events = [event async for event in demo.run(chat("Hello"))]
    assert isinstance(events[-1], Finished)
    assert events[-1].unstorable is None


@pytest.mark.parametrize("asked", [chat(stop=["x"], n=1), completion(["Hello"], stop="x")])
async def test_the_request_is_left_as_it_was(demo: TransformersEngine, asked: Request) -> None:
    """Who asks the same later is read once and shares it."""
    before = copy.deepcopy(asked.fields)
    await run(demo, asked)
    assert asked.fields == before
