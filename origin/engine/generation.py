"""One request's generation: its prompts read, its choices decoded, its events said.

A generation is a generator for the scheduler: it yields events, and a turn before every pass of the
model. Choices are made one after another; those of one prompt share what was read of it.

Usage counts every token sampled except the end-of-turn token; a prompt counts once, whatever `n`.
"""

from __future__ import annotations

import time
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from origin.engine.answers import Choice, Reply
from origin.engine.contract import Chunk, Event, Finished
from origin.engine.parameters import stops
from origin.engine.sampling import Sampler, Sampling
from origin.engine.scheduler import Turn
from origin.engine.text_output import Detokenizer, StopFilter
from origin.metrics import (
    DECODE_SECONDS,
    GENERATED_TOKENS,
    PREFIX_HIT_TOKENS,
    PROMPT_TOKENS,
    TIME_TO_FIRST_TOKEN,
)
from shared.requests import ChatRequest, CompletionRequest

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from origin.engine.causal_model import CausalModel, State
    from origin.engine.decode_batch import DecodeBatch
    from origin.engine.prefix_cache import PrefixCache, Root
    from origin.engine.prompts import Prompt

_CONTEXT_OF_TEXT_TOKENS: Final = 6  # enough for any decoder to see what the text continues


@dataclass(frozen=True, kw_only=True)
class Generation:
    """What it takes to answer one request. `asked_s` is when it came, on the monotonic clock."""

    request: ChatRequest | CompletionRequest
    prompts: Sequence[Prompt]
    reply: Reply
    model: CausalModel
    prefixes: PrefixCache
    root: Root
    decode: Callable[[Sequence[int]], str]
    asked_s: float
    batch: DecodeBatch | None = None
    """Where tokens of several sequences are read together."""

    def steps(self) -> Generator[Event | Turn, None, None]:
        """Generate; the last event is `Finished`. Holds nothing once closed."""
        request, reply = self.request, self.reply
        sampling = self._sampling()
        choices: list[Choice] = []
        sampled = cached = 0
        for prompt in self.prompts:
            state, known = yield from self._read(prompt)
            cached += known
            for remaining in range((request.n or 1) - 1, -1, -1):
                index = len(choices)
                decoding = _Decoding(
                    sampler=Sampler(sampling, choice=index),
                    text=Detokenizer(self.decode, context=self._context(prompt)),
                    stops=StopFilter(stops(request.stop)),
                )
                opening = reply.opening(index)
                if opening is not None:
                    yield Chunk(payload=opening)
                pieces: list[str] = []
                if isinstance(request, CompletionRequest) and request.echo:
                    pieces.append(prompt.text)
                    yield Chunk(payload=reply.delta(index, prompt.text))
                if not choices and prompt.max_tokens:
                    warmth = "warm" if cached else "cold"
                    waited_s = time.monotonic() - self.asked_s
                    TIME_TO_FIRST_TOKEN.labels(warmth).observe(waited_s)
                own = self.model.decoding(state, last=not remaining)
                with closing(self._choice(prompt, decoding, own)) as saying:
                    for said in saying:
                        if isinstance(said, str):
                            pieces.append(said)
                            yield Chunk(payload=reply.delta(index, said))
                        else:
                            yield said
                self.prefixes.keep(self.root, [*prompt.ids, *decoding.tokens], own)
                del own  # its memory is free before the next choice begins
                yield Chunk(payload=reply.closing(index, decoding.finish_reason))
                choices.append(Choice(text="".join(pieces), finish_reason=decoding.finish_reason))
                sampled += len(decoding.tokens)
            del state
        prompt_tokens = sum(len(prompt.ids) for prompt in self.prompts)
        PROMPT_TOKENS.inc(prompt_tokens)
        PREFIX_HIT_TOKENS.inc(cached)
        yield Finished(
            answer=reply.answer(
                choices,
                prompt_tokens=prompt_tokens,
                cached_tokens=cached,
                completion_tokens=sampled,
            )
        )

    def _read(self, prompt: Prompt) -> Generator[Turn, None, tuple[State, int]]:
        """Read a prompt; what was read, and how many of its tokens were known."""
        # Known is what is known when its turn has come: who was before it may have read the same.
        yield Turn.PREFILL
        with self.prefixes.begin(self.root, prompt.ids) as reading:
            reading.read_block()
            while not reading.is_over:
                yield Turn.PREFILL
                reading.read_block()
            return reading.state, reading.cached

    def _choice(
        self, prompt: Prompt, decoding: _Decoding, state: State
    ) -> Generator[str | Turn, None, None]:
        """Yield the text of one choice as it grows; the rest of the outcome is in `decoding`."""
        begun_s = time.monotonic()
        try:
            yield from self._decode_choice(prompt, decoding, state)
        finally:
            if self.batch is not None:
                self.batch.leave(state)
            GENERATED_TOKENS.inc(len(decoding.tokens))
            DECODE_SECONDS.inc(time.monotonic() - begun_s)

    def _decode_choice(
        self, prompt: Prompt, decoding: _Decoding, state: State
    ) -> Generator[str | Turn, None, None]:
        tokens, limit = decoding.tokens, prompt.max_tokens
        while len(tokens) < limit:
            assert state.logits is not None  # noqa: S101 -- a prompt has at least one token
            token = decoding.sampler.pick(state.logits)
            if token in self.model.ends:
                decoding.finish_reason = "stop"
                break
            tokens.append(token)
            piece = decoding.stops.feed(decoding.text.feed(token))
            if piece:
                yield piece
            if decoding.stops.stopped:
                decoding.finish_reason = "stop"
                break
            if len(tokens) < limit:
                yield from self._read_token(state, token)
        rest = decoding.stops.flush()
        if rest:
            yield rest

    def _read_token(self, state: State, token: int) -> Generator[Turn, None, None]:
        if self.batch is None:
            yield Turn.DECODE
            self.model.read(state, [token])
        else:
            self.batch.ask(state, token)
            yield Turn.DECODE
            self.batch.collect(state)

    def _context(self, prompt: Prompt) -> Sequence[int]:
        if isinstance(self.request, ChatRequest):
            return ()
        return prompt.ids[-_CONTEXT_OF_TEXT_TOKENS:]

    def _sampling(self) -> Sampling:
        request, default = self.request, self.model.defaults
        temperature, top_p = request.temperature, request.top_p
        return Sampling(
            temperature=default.temperature if temperature is None else temperature,
            top_p=default.top_p if top_p is None else top_p,
            top_k=default.top_k,
            presence_penalty=request.presence_penalty or 0.0,
            frequency_penalty=request.frequency_penalty or 0.0,
            logit_bias={int(token): bias for token, bias in (request.logit_bias or {}).items()},
            seed=request.seed,
        )


@dataclass(kw_only=True, slots=True)
class _Decoding:
    """One choice in the making. Mutable; of one thread."""

    sampler: Sampler
    text: Detokenizer
    stops: StopFilter
    tokens: list[int] = field(default_factory=list)
    finish_reason: str = "length"
