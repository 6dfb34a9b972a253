"""Whether a warm answer is bitwise the cold one, over random conversations; for `bench.prefix`.

A conversation begins with one of a few system prompts and grows by turns of random length; some are
under way at once, so that prefixes branch, meet and are evicted. Every turn is asked of an engine
that has seen the turns before, of one that has seen nothing of it (a tenant of its own), and of
plain `transformers`, with the K/V of the last turn (reuse at any token) and without. Compared are
the logits, bit by bit, of the prompt's last token and of every token decoded, and the tokens.

Meanwhile the bytes that the prefix cache reports are held against its limit and against the
storages that its tensors really have.
"""

from __future__ import annotations

import asyncio
import copy
import random
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import torch
from transformers import AutoModelForCausalLM

from origin.engine.contract import Finished
from origin.engine.prefix_tree import PrefixTree
from origin.engine.transformers_engine import TransformersEngine
from shared.requests import CompletionRequest

SEED: Final = 6
AT_ONCE: Final = 8
SYSTEM_PROMPTS: Final = 12
SYSTEM_TOKENS: Final = (30, 260)
TURN_TOKENS: Final = (5, 90)
TURNS: Final = (2, 4)
ANSWER_TOKENS: Final = 6
PROGRESS: Final = 50
LIMIT_TOKENS: Final = 3_000
"""The prefix cache's limit, in tokens: less than the conversations under way have."""


@dataclass(kw_only=True)
class Conversation:
    """What has been said, and what became of its turns."""

    ids: list[int]
    turns: int
    kept: Any = None
    """The K/V of the last prompt, as plain transformers keeps them."""


@dataclass(kw_only=True)
class Tally:
    """Conversations and turns whose answers were the cold ones."""

    turns: int = 0
    same_bits: int = 0
    same_tokens: int = 0
    broken: set[int] = field(default_factory=set)
    other: set[int] = field(default_factory=set)

    def add(self, number: int, cold: Sequence[torch.Tensor], warm: Sequence[torch.Tensor]) -> None:
        """Compare the logits of one turn of a conversation."""
        bits = len(cold) == len(warm) and all(map(torch.equal, cold, warm))
        tokens = [int(row.argmax()) for row in cold] == [int(row.argmax()) for row in warm]
        self.turns += 1
        self.same_bits += bits
        self.same_tokens += tokens
        if not bits:
            self.broken.add(number)
        if not tokens:
            self.other.add(number)


class Witness:
    """An engine, and the logits that its model gives."""

    def __init__(self, folder: Path, dtype: str, limit_bytes: int) -> None:
        self.engine = TransformersEngine.load(
            folder, name="m", dtype=dtype, prefix_cache_bytes=limit_bytes
        )
        self._logits: list[torch.Tensor] = []
        self.model = self.engine._model.module  # noqa: SLF001 - what the engine really computes
        self.model.register_forward_hook(
            lambda _module, _given, out: self._logits.append(out.logits[0, -1].clone())
        )

    @property
    def tree(self) -> PrefixTree[Any]:
        """The prefix tree, to be read between two requests."""
        return self.engine._prefixes.tree  # noqa: SLF001 - what is really held

    async def answer(self, ids: list[int], tenant: str) -> tuple[list[torch.Tensor], int]:
        """The logits of an answer's tokens; how many tokens of the prompt were cached."""
        self._logits.clear()
        request = CompletionRequest(
            fields={}, extra={}, model="m", prompt=ids, max_tokens=ANSWER_TOKENS, temperature=0
        )
        async with aclosing(self.engine.run(request, tenant=tenant)) as events:
            async for event in events:
                if isinstance(event, Finished):
                    usage = event.answer["usage"]
                    # Those before are of the prompt's earlier blocks, which a warm one has not.
                    ended = event.answer["choices"][0]["finish_reason"] == "stop"
                    read = usage["completion_tokens"] + ended
                    known = usage["prompt_tokens_details"]["cached_tokens"]
                    return self._logits[-read:], known
        raise AssertionError("an engine's last event is Finished")


def run(folder: Path, dtype: str, conversations: int) -> None:
    """Print how many conversations were the same, and what the cache held."""
    torch.manual_seed(SEED)
    asyncio.run(_run(folder, dtype, conversations))


async def _run(folder: Path, dtype: str, count: int) -> None:
    plain = Plain(folder, dtype)
    limit_bytes = LIMIT_TOKENS * plain.token_bytes()
    warm, cold = (Witness(folder, dtype, limit_bytes) for _ in range(2))
    drawn = random.Random(SEED)  # noqa: S311 - the same each time

    def ids(lengths: tuple[int, int]) -> list[int]:
        return drawn.choices(range(10, plain.vocabulary), k=drawn.randint(*lengths))

    systems = [ids(SYSTEM_TOKENS) for _ in range(SYSTEM_PROMPTS)]
    exact, reuse, held = Tally(), Tally(), Held()
    under_way: dict[int, Conversation] = {}
    begun = cached = prompts = 0
    began_s = time.perf_counter()
    while begun < count or under_way:
        if begun < count and len(under_way) < AT_ONCE:
            under_way[begun] = Conversation(
                ids=list(drawn.choice(systems)), turns=drawn.randint(*TURNS)
            )
            begun += 1
        number = drawn.choice(list(under_way))
        said = under_way[number]
        said.ids += ids(TURN_TOKENS)
        expected, none = await cold.answer(said.ids, f"cold {exact.turns}")
        got, known = await warm.answer(said.ids, "warm")
        assert none == 0
        exact.add(number, expected, got)
        again, reused = plain.both(said)
        if reused is not None:
            reuse.add(number, again, reused)
        held.look(warm.tree)
        held.look(cold.tree)
        cached += known
        prompts += len(said.ids)
        said.ids += ids(TURN_TOKENS)  # an answer, as the client says it was
        said.turns -= 1
        if not said.turns:
            del under_way[number]
            if not (ended := begun - len(under_way)) % PROGRESS:
                print(f"{ended:,} conversations, {len(exact.broken)} not bitwise", file=sys.stderr)
    print(
        f"{count:,} conversations, {dtype}, {exact.turns:,} turns of {prompts / exact.turns:.0f} "
        f"tokens, {cached / prompts:.0%} of them cached, {time.perf_counter() - began_s:,.0f} s:\n"
    )
    print("| | conversations bitwise equal to cold | same tokens | turns bitwise | same tokens |")
    print("| --- | ---: | ---: | ---: | ---: |")
    for name, tally in (("Encore, exact", exact), ("plain reuse", reuse)):
        print(
            f"| {name} | {count - len(tally.broken):,} of {count:,} | {count - len(tally.other):,} "
            f"| {tally.same_bits:,} of {tally.turns:,} | {tally.same_tokens:,} of {tally.turns:,} |"
        )
    print(f"\n{held.said(warm.tree)}\n")
    await warm.engine.close()
    await cold.engine.close()


class Plain:
    """Plain transformers: prompts read in one pass, K/V taken again at any token."""

    def __init__(self, folder: Path, dtype: str) -> None:
        loaded: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)
        self._model: Any = loaded.eval()
        self._model.generation_config.eos_token_id = None
        self.vocabulary = int(self._model.config.vocab_size)

    def token_bytes(self) -> int:
        """The K/V of one token in all layers."""
        config = self._model.config
        heads = config.num_key_value_heads * config.num_hidden_layers
        return int(2 * heads * config.head_dim * self._model.dtype.itemsize)

    @torch.inference_mode()
    def both(self, said: Conversation) -> tuple[list[torch.Tensor], list[torch.Tensor] | None]:
        """The logits of the answer cold, and with the K/V of the turn before, if there is one."""
        cold, kept = self._generate(said.ids, None)
        warm = None if said.kept is None else self._generate(said.ids, said.kept)[0]
        said.kept = kept
        return cold, warm

    def _generate(self, ids: list[int], kept: Any) -> tuple[list[torch.Tensor], Any]:
        prompt = torch.tensor([ids])
        out = self._model.generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            past_key_values=copy.deepcopy(kept),
            max_new_tokens=ANSWER_TOKENS,
            do_sample=False,
            pad_token_id=0,
            output_logits=True,
            return_dict_in_generate=True,
        )
        cache = out.past_key_values
        cache.crop(len(ids) - cache.get_seq_length())
        return [logits[0].clone() for logits in out.logits], cache


class Held:
    """What a prefix cache said it held, and what it did hold."""

    def __init__(self) -> None:
        self._looks = self._over = self._wrong = 0
        self._most = 0

    def look(self, tree: PrefixTree[Any]) -> None:
        """Compare once."""
        storages = {
            storage.data_ptr(): storage.nbytes()
            for payload in payloads(tree)
            for pair in payload.layers
            for storage in (tensor.untyped_storage() for tensor in pair)
        }
        self._looks += 1
        self._over += tree.bytes > tree.limit_bytes
        self._wrong += tree.bytes != sum(storages.values())
        self._most = max(self._most, tree.bytes)

    def said(self, tree: PrefixTree[Any]) -> str:
        """One line."""
        return (
            f"Bytes: {self._looks:,} looks, {self._over} over the limit of {tree.limit_bytes:,}, "
            f"{self._wrong} times other than the storages held; at most {self._most:,}; "
            f"evicted {tree.evictions['limit']:,} nodes."
        )


def payloads(tree: PrefixTree[Any]) -> Iterator[Any]:
    """Of every node."""
    below: list[Any] = list(tree._roots.values())  # noqa: SLF001 - what is really held
    while below:
        branch = below.pop()
        below.extend(branch.children.values())
        if hasattr(branch, "payload"):
            yield branch.payload
