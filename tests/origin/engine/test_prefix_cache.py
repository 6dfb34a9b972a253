"""The prefix cache through the engine: the same bits, nobody else's prefixes, a hard limit."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from transformers import Lfm2Config, Lfm2ForCausalLM

from origin.engine.contract import Finished
from origin.engine.cuts import Cuts
from origin.engine.sampling import Sampler
from origin.engine.transformers_engine import TransformersEngine
from origin.metrics import PREFIX_BYTES, PREFIX_NODES
from shared.requests import Endpoint, Request, validate
from tests.origin.engine.conftest import save_tokenizer
from tests.support.instruments import value_of

CUTS = Cuts(((0, 16), (64, 32)))
TOKEN_BYTES = 2 * 2 * 2 * 12 * 4  # keys and values, layers, heads, numbers, bytes each
SYSTEM = "You are a model of random weights and single bytes, whom nobody has trained at all."


def chat(*turns: str, system: str = SYSTEM, **fields: Any) -> Request:
    """A conversation that begins with a system message."""
    messages = [{"role": "system", "content": system}]
    messages += [
        {"role": "assistant" if at % 2 else "user", "content": turn}
        for at, turn in enumerate(turns)
    ]
    fields = {"max_tokens": 4, "temperature": 0, "logit_bias": {"0": -100}} | fields
    return validate(Endpoint.CHAT, {"model": "tiny-llama", "messages": messages} | fields)


async def answer(engine: TransformersEngine, request: Request, **who: str) -> dict[str, Any]:
    """The plain answer."""
    events = [event async for event in engine.run(request, **who)]
    assert isinstance(events[-1], Finished)
    return events[-1].answer


async def cached(engine: TransformersEngine, request: Request, **who: str) -> int:
    """How many of the prompt's tokens were known."""
    tokens: int = (await answer(engine, request, **who))["usage"]["prompt_tokens_details"][
        "cached_tokens"
    ]
    return tokens


class Passes:
    """How many tokens each pass of the model reads, and what is to be looked at before it."""

    def __init__(self, engine: TransformersEngine) -> None:
        self.tokens: list[int] = []
        self.look: Callable[[], object] = lambda: None
        engine._model.module.register_forward_pre_hook(self._passed, with_kwargs=True)

    def _passed(self, _module: object, _args: object, given: dict[str, Any]) -> None:
        self.look()
        self.tokens.append(given["input_ids"].shape[1])


@pytest.fixture
def load(llama_folder: Path) -> Callable[..., Any]:
    """An engine of the tiny Llama, closed after the block."""

    @asynccontextmanager
    async def loaded(**options: Any) -> AsyncIterator[TransformersEngine]:
        engine = TransformersEngine.load(llama_folder, cuts=CUTS, **options)
        yield engine
        await engine.close()

    return loaded


async def test_a_prefix_is_read_once(load: Callable[..., Any]) -> None:
    """What is known of the next prompt is not read again, up to the last cut."""
    async with load() as engine:
        passes = Passes(engine)
        assert await cached(engine, chat("Hello")) == 0
        told = len(engine._prompts.of(chat("Hello"))[0].ids)
        assert sum(passes.tokens[:-3]) == told
        passes.tokens.clear()
        assert await cached(engine, chat("Howdy")) == CUTS.floor(len(f"[system]{SYSTEM}[user]H"))
        assert sum(passes.tokens[:-3]) == told - CUTS.floor(len(f"[system]{SYSTEM}[user]H"))


async def test_usage_is_in_the_answer_of_a_stream(load: Callable[..., Any]) -> None:
    """And the same asked twice is known but for its last block."""
    async with load() as engine:
        first = await answer(engine, chat("Hello", stream=True))
        again = await answer(engine, chat("Hello", stream=True))
    length = first["usage"]["prompt_tokens"]
    assert again["usage"]["prompt_tokens_details"] == {"cached_tokens": CUTS.floor(length - 1)}
    assert again["choices"] == first["choices"]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
async def test_warm_is_cold_bit_for_bit(
    load: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, dtype: str
) -> None:
    """Random conversations, each told anew to somebody else: every logit of every token."""
    seen: list[bytes] = []
    pick = Sampler.pick

    def recording(sampler: Sampler, logits: torch.Tensor) -> int:
        seen.append(logits.float().numpy().tobytes())
        return pick(sampler, logits)

    monkeypatch.setattr(Sampler, "pick", recording)
    draw = Random(5)  # noqa: S311 -- reproducible
    known = 0
    async with load(dtype=dtype) as engine:
        for number in range(12):
            turns = ["".join(draw.choices("abc", k=draw.randint(1, 60))) for _ in range(5)]
            for length in (1, 3, 5):
                request = chat(*turns[:length], system=SYSTEM[: draw.choice([0, 40, 83])] or "S")
                seen.clear()
                await answer(engine, request, tenant=f"{number} {length}")
                cold = list(seen)
                seen.clear()
                known += await cached(engine, request, tenant="warm")
                assert seen == cold
    assert known > 1000


async def test_nothing_is_shared_with_others(load: Callable[..., Any]) -> None:
    """Neither between tenants nor between scopes of one; without a scope is one scope."""
    async with load() as engine:
        request = chat("Hello")
        for who in (
            {"tenant": "a"},
            {"tenant": "b"},
            {"tenant": "a", "scope": "x"},
            {"tenant": "a", "scope": "y"},
            {"tenant": "b", "scope": "x"},
            {},
        ):
            assert await cached(engine, request, **who) == 0
            assert await cached(engine, request, **who) > 0
        assert await cached(engine, request, tenant="a", scope="") > 0
        nodes = [
            {id(node) for node in branch.children.values()}
            for branch in engine._prefixes.tree._roots.values()
        ]
        assert sum(map(len, nodes)) == len(set().union(*nodes)) == 6


async def test_of_several_at_once_the_first_reads_the_prefix(load: Callable[..., Any]) -> None:
    """The others wait for their turn and find it."""
    async with load(concurrency=4) as engine:
        passes = Passes(engine)
        requests = [chat(f"{number} of four", max_tokens=1) for number in range(4)]
        told = await asyncio.gather(*(cached(engine, request) for request in requests))
        length = len(engine._prompts.of(requests[0])[0].ids)
        floor = CUTS.floor(len(f"[system]{SYSTEM}[user]"))
    assert sorted(told) == [0, floor, floor, floor]
    assert sum(passes.tokens) == 4 * length - 3 * floor


async def test_long_prompt_does_not_stop_a_stream(load: Callable[..., Any]) -> None:
    """While one is read the other goes on, token by token."""
    async with load() as engine:
        passes = Passes(engine)
        async with aclosing(engine.run(chat("Go on", max_tokens=2000))) as stream:
            await anext(stream)
            passes.tokens.clear()
            await cached(engine, chat("long " * 200, max_tokens=1))
        blocks = [at for at, tokens in enumerate(passes.tokens) if tokens > 1]
        assert len(blocks) > 20
        assert all(next_ == at + 2 for at, next_ in pairwise(blocks))


async def test_choices_share_what_was_read(load: Callable[..., Any]) -> None:
    """The prompt is read once for all of them, and each is what it is alone."""
    async with load() as engine:
        passes = Passes(engine)
        several = await answer(engine, chat("Hi", n=3, temperature=1.5, seed=4, max_tokens=20))
        length = several["usage"]["prompt_tokens"]
        assert sum(passes.tokens) == length + 3 * 19
        one = await answer(engine, chat("Hi", temperature=1.5, seed=4, max_tokens=20))
        texts = [choice["message"]["content"] for choice in several["choices"]]
        assert len(set(texts)) == 3
        assert texts[0] == one["choices"][0]["message"]["content"]


async def test_never_more_than_the_limit(load: Callable[..., Any]) -> None:
    """Whoever asks for what, several at once, some leaving early."""
    limit = 300 * TOKEN_BYTES
    draw = Random(7)  # noqa: S311 -- reproducible
    async with load(prefix_cache_bytes=limit, concurrency=3) as engine:
        tree = engine._prefixes.tree
        held: list[int] = []
        Passes(engine).look = lambda: held.append(tree.bytes)

        async def ask() -> None:
            request = chat("x" * draw.randint(1, 200), system=draw.choice("AB") * 60)
            async with aclosing(engine.run(request, tenant=draw.choice("ab"))) as events:
                for _ in range(draw.randint(1, 9)):
                    await anext(events, None)

        for _ in range(15):
            await asyncio.gather(*(ask() for _ in range(3)))
        await until_idle(engine)
        assert max(held) <= limit
        assert tree.bytes > limit // 2
        assert tree.evictions["limit"] > 0
        assert tree.bytes == tree._idle_bytes
        real = [node.payload for node in tree._idle]
        assert tree.bytes == sum(block.size_bytes for block in real)
        assert value_of(PREFIX_BYTES) == tree.bytes
        assert value_of(PREFIX_NODES) == tree.nodes


async def until_idle(engine: TransformersEngine) -> None:
    """Wait until no job is left."""
    async with asyncio.timeout(30):
        while engine._scheduler.jobs:  # noqa: ASYNC110 -- a thread sets no asyncio.Event
            await asyncio.sleep(0.005)


@pytest.mark.parametrize("passes", range(1, 12))
async def test_leaving_at_any_step_holds_nothing(load: Callable[..., Any], passes: int) -> None:
    """What was read before is kept, whole; what comes after is the same."""
    async with load() as engine:
        told = Passes(engine)
        task = asyncio.create_task(answer(engine, chat("Hello")))
        loop = asyncio.get_running_loop()

        def look() -> None:
            if len(told.tokens) == passes - 1:
                loop.call_soon_threadsafe(task.cancel)

        told.look = look
        await asyncio.gather(task, return_exceptions=True)
        await until_idle(engine)
        tree = engine._prefixes.tree
        assert tree.bytes == tree._idle_bytes
        warm = await answer(engine, chat("Hello"))
        cold = await answer(engine, chat("Hello"), tenant="another")
        assert warm["choices"] == cold["choices"]


async def test_off_keeps_nothing_and_says_the_same(load: Callable[..., Any]) -> None:
    """It is the same model to all who ask, so that its answers may stay."""
    async with load() as exact, load(prefix_cache="off") as off, load(prefix_cache="fast") as fast:
        request = chat("Hello")
        said = [(await answer(engine, request))["choices"] for engine in (exact, off)]
        assert said[0] == said[1]
        assert await cached(off, request) == 0
        assert off._prefixes.tree.nodes == 0
        prints = [await engine.fingerprint("tiny-llama") for engine in (exact, off, fast)]
        assert prints[0] == prints[1] != prints[2]


async def test_fast_mode_knows_answers_too(load: Callable[..., Any]) -> None:
    """The next turn begins where the last one ended, but for what was never read."""
    async with load(prefix_cache="fast") as engine:
        request = chat("Hello", max_tokens=30, logit_bias={str(40 + at): 100 for at in range(40)})
        first = await answer(engine, request)
        said = first["choices"][0]["message"]["content"]
        read = first["usage"]["prompt_tokens"] + 29
        # What the template adds to an answer in the next turn, it has said before it here.
        prompt = engine._prompts.of(request)[0].text
        again = validate(
            Endpoint.COMPLETIONS,
            {"model": "tiny-llama", "prompt": prompt + said + "and", "max_tokens": 1},
        )
        assert await cached(engine, again) == read
        assert await cached(engine, again) == read + 3


async def test_cuts_are_part_of_the_fingerprint(llama_folder: Path) -> None:
    """With others the same request may get other bits."""
    prints = set()
    for cuts in (CUTS, Cuts(((0, 32),))):
        engine = TransformersEngine.load(llama_folder, cuts=cuts)
        prints.add(await engine.fingerprint("tiny-llama"))
        await engine.close()
    assert len(prints) == 2


async def test_pinned_prompts_stay(
    load: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    """Each tenant's own, once it was read, whatever else is asked; half of the room at most."""
    other = "Another system prompt that somebody has pinned, and for which no room is left."
    limit = 250 * TOKEN_BYTES
    async with load(
        prefix_cache_bytes=limit, pinned_prompts={"house": SYSTEM, "other": other}
    ) as engine:
        assert await cached(engine, chat("Hello")) == 0
        await cached(engine, chat("Hello", system=other))
        pinned = engine._prefixes.tree.pinned_bytes
        assert 0 < pinned <= limit // 2
        for number in range(5):
            await cached(engine, chat("x" * 100, system=str(number) * 60))
        assert await cached(engine, chat("Welcome")) == CUTS.floor(len(f"[system]{SYSTEM}[user]"))
        assert await cached(engine, chat("Hello", system=other)) == 0
        assert engine._prefixes.tree.pinned_bytes == pinned
    assert caplog.text.count("no room left to pin 'other'") == 1


async def test_purged_prefixes_are_forgotten(load: Callable[..., Any]) -> None:
    """Of a tenant in every scope, pinned or not, or of all."""
    async with load(pinned_prompts={"house": SYSTEM}) as engine:
        whom = [{"tenant": "a"}, {"tenant": "a", "scope": "x"}, {"tenant": "b"}]
        for who in whom:
            await cached(engine, chat("Hello"), **who)
        engine.forget("a")
        assert [await cached(engine, chat("Hello"), **who) > 0 for who in whom] == [
            False,
            False,
            True,
        ]
        engine.forget()
        assert [await cached(engine, chat("Hello"), **who) for who in whom] == [0, 0, 0]
        assert engine._prefixes.tree.pinned_bytes > 0


async def test_model_with_another_state_runs_without(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """One that keeps more than keys and values: said once, and it answers all the same."""
    folder = tmp_path / "tiny-llama"
    save_tokenizer(folder, "{% for m in messages %}{{ m.content }}{% endfor %}")
    torch.manual_seed(3)
    config = Lfm2Config(
        vocab_size=257,
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        layer_types=["conv", "full_attention"],
        bos_token_id=0,
        eos_token_id=0,
    )
    Lfm2ForCausalLM(config).save_pretrained(folder)
    engine = TransformersEngine.load(folder)
    first = await answer(engine, chat("Hello", n=2, max_tokens=8))
    assert first["choices"][0]["message"] == first["choices"][1]["message"]
    assert await cached(engine, chat("Hello")) == 0
    assert caplog.text.count("no prefix cache") == 1
    await engine.close()
