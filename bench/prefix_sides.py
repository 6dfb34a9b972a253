"""Who is asked in `bench.prefix`: Encore's engine, plain transformers, the floor, llama.cpp.

Each answers token ids and says how long its first token took. A prompt's last `SUFFIX_TOKENS` are
what follows a prefix.
"""

from __future__ import annotations

import asyncio
import copy
import json
import os
import subprocess
import time
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from transformers import AutoModelForCausalLM
from transformers.cache_utils import Cache, DynamicLayer

from origin.engine.contract import Chunk, Finished
from origin.engine.transformers_engine import TransformersEngine
from shared.requests import CompletionRequest

SUFFIX_TOKENS: Final = 16
LIMIT_BYTES: Final = 1 << 30
AT_ONCE: Final = 4
"""How many requests an engine has under way."""


@dataclass(frozen=True, kw_only=True)
class Taken:
    """How long one answer took, and its first token where the side tells it."""

    wall_ms: float
    cpu_ms: float
    token: int | None = None


class Stopwatch:
    """Wall time and this process's CPU time since it was made."""

    def __init__(self) -> None:
        self._wall_s, self._cpu_s = time.perf_counter(), time.process_time()

    def taken(self, token: int | None = None) -> Taken:
        """As of now."""
        cpu_ms = (time.process_time() - self._cpu_s) * 1000
        wall_ms = (time.perf_counter() - self._wall_s) * 1000
        return Taken(wall_ms=wall_ms, cpu_ms=cpu_ms, token=token)


class Encore:
    """The engine itself, on an event loop."""

    def __init__(self, folder: Path, dtype: str) -> None:
        self.engine = TransformersEngine.load(
            folder, name="m", dtype=dtype, prefix_cache_bytes=LIMIT_BYTES, concurrency=AT_ONCE
        )
        self.loop = asyncio.new_event_loop()

    def ask(self, ids: Sequence[int]) -> Taken:
        """To the first chunk; then the rest, which takes no time that counts."""
        return self.loop.run_until_complete(self.first(ids))

    async def first(self, ids: Sequence[int], *, tenant: str = "bench") -> Taken:
        """As `ask`."""
        watch, taken = Stopwatch(), None
        async with aclosing(self.engine.run(request(ids), tenant=tenant)) as events:
            async for event in events:
                if taken is None and isinstance(event, Chunk):
                    taken = watch.taken(token_of(event.payload["choices"][0]["text"]))
                if isinstance(event, Finished):
                    break
        assert taken is not None
        return taken

    def close(self) -> None:
        """Stop its threads."""
        self.loop.run_until_complete(self.engine.close())
        self.loop.close()


class Transformers:
    """`generate` of a model of its own, with the prefix's cache kept by hand."""

    def __init__(self, folder: Path, dtype: str) -> None:
        loaded: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)
        self.model: Any = loaded.eval()
        self._kept: Any = None

    @torch.inference_mode()
    def cold(self, ids: Sequence[int]) -> Taken:
        """One token of a prompt nobody has seen; keeps the cache of its prefix."""
        self._kept = None
        watch = Stopwatch()
        out = self._generate(ids, None)
        taken = watch.taken(int(out.sequences[0, -1]))
        self._kept = out.past_key_values
        self._kept.crop(-SUFFIX_TOKENS)
        return taken

    @torch.inference_mode()
    def warm(self, ids: Sequence[int]) -> Taken:
        """One token of a prompt whose prefix is kept."""
        watch = Stopwatch()
        out = self._generate(ids, copy.deepcopy(self._kept))
        return watch.taken(int(out.sequences[0, -1]))

    def _generate(self, ids: Sequence[int], cache: Cache | None) -> Any:
        prompt = torch.tensor([ids])
        return self.model.generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            past_key_values=cache,
            max_new_tokens=1,
            do_sample=False,
            pad_token_id=0,
            return_dict_in_generate=True,
        )

    def prefix(self) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Keys and values of the prefix, by layer."""
        return [(layer.keys, layer.values) for layer in self._kept.layers]


class InPlace(DynamicLayer):  # type: ignore[no-untyped-call]  # theirs
    """Keys and values with room behind them for one forward pass, which may be repeated."""

    def __init__(self, keys: torch.Tensor, values: torch.Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        room = torch.zeros_like(keys[..., :SUFFIX_TOKENS, :])
        self.keys, self.values = torch.cat([keys, room], -2), torch.cat([values, room], -2)
        self.dtype, self.device, self.is_initialized = keys.dtype, keys.device, True
        self._tokens = keys.shape[-2]

    def get_seq_length(self) -> int:
        """Without the room."""
        return self._tokens

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_: Any, **__: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write into the room."""
        assert self.keys is not None
        assert self.values is not None
        self.keys[..., self._tokens :, :] = key_states
        self.values[..., self._tokens :, :] = value_states
        return self.keys, self.values


class Floor:
    """The suffix's forward pass on the prefix that plain transformers keeps."""

    def __init__(self, model: Any, kept: Transformers) -> None:
        self._model = model
        self._kept = kept
        self._cache: Any = None

    @torch.inference_mode()
    def prepare(self) -> None:
        """Put the prefix in place; takes no time that counts."""
        self._cache = Cache(layers=[InPlace(*pair) for pair in self._kept.prefix()])

    @torch.inference_mode()
    def warm(self, ids: Sequence[int]) -> Taken:
        """The token after a prompt with that prefix."""
        watch = Stopwatch()
        out = self._model(
            input_ids=torch.tensor([ids[-SUFFIX_TOKENS:]]),
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=1,
        )
        return watch.taken(int(out.logits[0, -1].argmax()))


class LlamaCpp:
    """A process of another environment; see `bench/prefix_llama_cpp.py`."""

    def __init__(self, program: Path, folder: Path, dtype: str) -> None:
        script = Path(__file__).with_name("prefix_llama_cpp.py")
        target = folder / f"{dtype}.gguf"
        threads = torch.get_num_threads()
        self._process = subprocess.Popen(
            [str(program), str(script), str(folder), dtype, str(threads), str(target)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=os.environ | {"PYTHONPATH": ""},
        )
        assert self._read() == "ready\n"

    def ask(self, ids: Sequence[int], tokens: int = 1) -> Taken:
        """To the first token."""
        report = self.answer(ids, tokens)
        return Taken(wall_ms=report["wall_ms"], cpu_ms=report["cpu_ms"], token=report["tokens"][0])

    def answer(self, ids: Sequence[int], tokens: int) -> dict[str, Any]:
        """What the process says."""
        assert self._process.stdin
        print(
            json.dumps({"ids": list(ids), "tokens": tokens}), file=self._process.stdin, flush=True
        )
        report: dict[str, Any] = json.loads(self._read())
        return report

    def _read(self) -> str:
        assert self._process.stdout
        return self._process.stdout.readline()

    def close(self) -> None:
        """End the process."""
        self._process.communicate("")


def request(ids: Sequence[int], max_tokens: int = 1) -> CompletionRequest:
    """A greedy completion of token ids."""
    return CompletionRequest(
        fields={}, extra={}, model="m", prompt=list(ids), max_tokens=max_tokens, temperature=0
    )


def token_of(text: str) -> int | None:
    """The token of a text of the 135 M model, whose words are their ids; None for another's."""
    word = text.strip().removeprefix("w")
    return int(word) if word.isdecimal() else None
