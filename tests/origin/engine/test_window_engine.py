"""An engine that generates in a context window."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import torch

from origin.engine.context_window import ContextWindow, UnsupportedWindowError, WindowTrimmer
from origin.engine.contract import Finished
from origin.engine.kv_cache import KvCache, KvLayout
from origin.engine.kv_size import KvSize
from origin.engine.local import load_local_engine
from origin.engine.transformers_engine import TransformersEngine
from origin.settings import SettingsError, load_settings
from shared.errors import ClientError
from shared.requests import Endpoint, validate
from tests.support.tiny_models import tiny_model
from tests.support.windowed import Windowed

WINDOW = ContextWindow(tokens=256, sink=4)
LONG = "A house with three rooms, a garden and a view of the lake. " * 50


@pytest.fixture(scope="module")
async def engine() -> AsyncIterator[TransformersEngine]:
    """The demo model in a window of 256 tokens."""
    engine = await asyncio.to_thread(TransformersEngine.load, context_window=WINDOW)
    yield engine
    await engine.close()


async def answer(engine: TransformersEngine, prompt: str, **fields: Any) -> dict[str, Any]:
    """The answer to a completion."""
    request = validate(
        Endpoint.COMPLETIONS, {"model": "encore-demo", "prompt": prompt, "temperature": 0} | fields
    )
    async for event in engine.run(request):
        if isinstance(event, Finished):
            return event.answer
    raise AssertionError


async def test_prompts_and_answers_go_beyond_the_window(
    engine: TransformersEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same again, when what was read before the first trim is known, and nothing after it."""
    held: list[tuple[int, int]] = []
    forward = engine._model.module.forward

    def watched(*args: Any, past_key_values: KvCache, **kwargs: Any) -> Any:
        out = forward(*args, past_key_values=past_key_values, **kwargs)
        held.append((past_key_values.tokens, past_key_values.size_bytes))
        return out

    monkeypatch.setattr(engine._model.module, "forward", watched)
    first = await answer(engine, LONG, max_tokens=300, logit_bias={"4": -100})
    again = await answer(engine, LONG, max_tokens=300, logit_bias={"4": -100})
    assert first["usage"]["prompt_tokens"] > 2 * WINDOW.tokens
    assert first["usage"]["completion_tokens"] == 300
    assert max(tokens for tokens, _ in held) == WINDOW.tokens
    stated = KvSize.of("encore-demo", torch.float32).size_bytes(WINDOW.tokens)
    assert max(size_bytes for _, size_bytes in held) == stated
    assert again["choices"] == first["choices"]
    assert 0 < again["usage"]["prompt_tokens_details"]["cached_tokens"] <= WINDOW.tokens


async def test_several_choices_share_what_was_read(engine: TransformersEngine) -> None:
    """Each trims a cache of its own."""
    fields = {"max_tokens": 150, "logit_bias": {"4": -100}}
    alone = await answer(engine, LONG[:900], **fields)
    (first, second) = (await answer(engine, LONG[:900], n=2, **fields))["choices"]
    assert first["text"] == second["text"] == alone["choices"][0]["text"]


async def test_answers_beyond_the_window_are_not_kept() -> None:
    """In fast mode, which keeps answers: a trimmed cache is no prefix of anything."""
    engine = await asyncio.to_thread(
        TransformersEngine.load, context_window=WINDOW, prefix_cache="fast"
    )
    fields = {"max_tokens": 300, "logit_bias": {"4": -100}}
    first = await answer(engine, "A house", **fields)
    again = await answer(engine, "A house" + first["choices"][0]["text"], **fields)
    assert again["usage"]["prompt_tokens"] > WINDOW.tokens
    assert again["usage"]["prompt_tokens_details"]["cached_tokens"] <= len("A house")
    await engine.close()


async def test_a_short_conversation_is_as_without_a_window(engine: TransformersEngine) -> None:
    """Token by token."""
    plain = await asyncio.to_thread(TransformersEngine.load)
    expected = await answer(plain, "A house", max_tokens=20)
    with pytest.raises(ClientError, match="maximum context length"):
        await answer(plain, LONG * 16)
    await plain.close()
    assert (await answer(engine, "A house", max_tokens=20))["choices"] == expected["choices"]


async def test_entries_of_another_window_are_not_its_own(engine: TransformersEngine) -> None:
    """The model's fingerprint says so."""
    other = await asyncio.to_thread(
        TransformersEngine.load, context_window=ContextWindow(tokens=257)
    )
    assert await other.fingerprint("encore-demo") != await engine.fingerprint("encore-demo")
    await other.close()


@pytest.mark.parametrize("name", ["llama", "gemma3", "mistral"])
def test_a_cache_of_blocks_is_trimmed_like_any_other(name: str) -> None:
    """Read in blocks, token by token into a growing buffer, and as transformers' own: the same."""
    torch.set_num_threads(1)
    model = tiny_model(name)
    window = ContextWindow(tokens=36)
    ids = [(7 * place * place + 3) % 96 + 1 for place in range(150)]
    with torch.inference_mode():
        trimmer = WindowTrimmer.of(model, window)
        found = []
        for block in (1, 512):
            cache, rest = KvCache(KvLayout.of(model)), list(ids)
            if block == 1:
                cache.reserve()
            while rest:
                if window.room(cache.tokens) == 0:
                    trimmer.trim(cache)
                size = min(block, window.room(cache.tokens))
                out = model(input_ids=torch.tensor([rest[:size]]), past_key_values=cache)
                rest = rest[size:]
            found.append(out.logits[0, -1])
        found.append(Windowed(model, window).read(ids))
    for logits in found[1:]:
        torch.testing.assert_close(logits, found[0], rtol=1e-3, atol=1e-4)


def test_a_model_without_rotary_positions_is_refused(gpt2_folder: Path) -> None:
    """As it is loaded."""
    with pytest.raises(UnsupportedWindowError, match="no rotary positions"):
        TransformersEngine.load(gpt2_folder, context_window=ContextWindow(tokens=32))


def test_batches_are_not_trimmed(tmp_path: Path) -> None:
    """So a window excludes them."""
    environ = {"ENCORE_MODE": "development", "ENCORE_CONTEXT_WINDOW": "256"}
    with pytest.raises(SettingsError, match=r"ENCORE_CONTEXT_WINDOW=256 and .*BATCHING=on exclude"):
        load_settings(environ | {"ENCORE_ENGINE_BATCHING": "on"}, tmp_path)
    with pytest.raises(ValueError, match="no context window with batching"):
        TransformersEngine.load(context_window=WINDOW, batching=True)


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"ENCORE_CONTEXT_WINDOW": "5"}, "ENCORE_CONTEXT_WINDOW=5 with ENCORE_CONTEXT_SINK=4: a"),
        ({"ENCORE_CONTEXT_WINDOW": "99999"}, "more than the model's context of 2048"),
    ],
)
def test_settings_that_cannot_be_are_refused(
    tmp_path: Path, variables: dict[str, str], said: str
) -> None:
    """By their names."""
    settings = load_settings({"ENCORE_MODE": "development"} | variables, tmp_path)
    with pytest.raises(SettingsError, match=said):
        load_local_engine(settings)
