"""A causal language model of transformers, one sequence and one pass at a time.

Knows no request, no text and no prefix cache. Of one thread, under `torch.inference_mode`.
"""

from __future__ import annotations

import copy
import inspect
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import torch

from origin.engine.kv_cache import KvCache, KvLayout, UnsupportedCacheError
from origin.engine.kv_size import context_tokens
from origin.engine.sampling import Sampling

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from transformers.cache_utils import Cache

    from origin.engine.context_window import WindowTrimmer
    from origin.engine.kv_cache import KvBlock

DEFAULT_CONTEXT_TOKENS: Final = 2048


@dataclass(kw_only=True, slots=True, eq=False)
class State:
    """What the model has read of one sequence: its K/V, and the logits of the next token.

    `cache` is a `KvCache`, or what transformers itself makes of a model that cannot have one; None
    where a batch has taken the sequence over.
    `logits`: shape [vocabulary]; None where nothing has been read here. `is_whole`: whether the K/V
    are of all that has been read; false once a context window has dropped some. Mutable.
    """

    cache: Any
    logits: torch.Tensor | None = None
    is_whole: bool = True


class CausalModel:
    """A model that is loaded, and what its configuration says of it."""

    def __init__(self, module: Any, tokenizer: Any) -> None:
        self.module = module
        self.vocabulary = int(module.get_input_embeddings().num_embeddings)
        self.ends = _end_tokens(module, tokenizer)
        """The tokens that end an answer."""
        self.defaults = _default_sampling(module)
        self.context_tokens = _context_tokens(module, tokenizer)
        """The length of the context window, prompt and answer together."""
        self.layout: KvLayout | None = None
        self.why_no_layout = ""
        try:
            self.layout = KvLayout.of(module)
        except UnsupportedCacheError as error:
            self.why_no_layout = error.reason
        self.trimmer: WindowTrimmer | None = None
        """Keeps sequences within a context window; None where they end at `context_tokens`."""
        self._keeps_logits = "logits_to_keep" in inspect.signature(module.forward).parameters

    @property
    def identity(self) -> str:
        """What may change the bits of a pass beside the weights: dtype, attention, device."""
        attention = getattr(self.module.config, "_attn_implementation", None)
        return f"{self.module.dtype} {attention} {self.module.device.type}"

    def begin(self, parts: Sequence[tuple[KvBlock, int]] = ()) -> State:
        """A sequence that begins with what is known of it, nothing copied."""
        return State(cache=None if self.layout is None else KvCache(self.layout, parts))

    def read(self, state: State, ids: Sequence[int]) -> torch.Tensor:
        """Extend a sequence by tokens; the logits of the next, shape [vocabulary].

        One pass; several where a context window has no room for all of them at a time.
        """
        for part in self._parts(state, ids):
            logits = self._pass(state, part)
        return logits

    def _parts(self, state: State, ids: Sequence[int]) -> Iterator[Sequence[int]]:
        """What to read at a time, once the cache has been trimmed where it was full."""
        if self.trimmer is None:
            yield ids
            return
        window, start = self.trimmer.window, 0
        while start < len(ids):
            if window.room(state.cache.tokens) == 0:
                self.trimmer.trim(state.cache)
                state.is_whole = False
            end = start + window.room(state.cache.tokens)
            yield ids[start:end]
            start = end

    def _pass(self, state: State, ids: Sequence[int]) -> torch.Tensor:
        kept = {"logits_to_keep": 1} if self._keeps_logits else {}
        out = self.module(
            input_ids=torch.tensor([ids], device=self.module.device),
            past_key_values=state.cache,
            use_cache=True,
            **kept,
        )
        state.cache = out.past_key_values
        logits: torch.Tensor = out.logits[0, -1]
        state.logits = logits
        return logits

    def read_together(
        self, rows: Cache, tokens: Sequence[int], lengths: Sequence[int]
    ) -> torch.Tensor:
        """Extend several sequences by a token each, in one pass; logits [rows, vocabulary].

        `rows` has the keys and values of all, each row of another length.
        """
        device, dtype = self.module.device, self.module.dtype
        ends = torch.tensor(lengths, device=device)
        hidden = torch.arange(max(lengths) + 1, device=device) > ends[:, None]
        # Shape: [rows, 1, 1, positions]; added to scores.
        mask = hidden[:, None, None, :].to(dtype) * torch.finfo(dtype).min
        out = self.module(
            input_ids=torch.tensor(tokens, device=device)[:, None],
            position_ids=ends[:, None],
            attention_mask=mask,
            past_key_values=rows,
            use_cache=True,
        )
        logits: torch.Tensor = out.logits[:, -1]
        return logits

    def decoding(self, state: State, *, last: bool) -> State:
        """A sequence to be extended token by token: the given one itself if it is the last."""
        if not isinstance(state.cache, KvCache):
            return state if last else copy.deepcopy(state)
        if not last:
            state = State(cache=state.cache.fork(), logits=state.logits, is_whole=state.is_whole)
        state.cache.reserve()
        return state


def _end_tokens(module: Any, tokenizer: Any) -> frozenset[int]:
    """The generation config's and the tokenizer's."""
    ends: set[int] = set()
    for given in (module.generation_config.eos_token_id, tokenizer.eos_token_id):
        if given is not None:
            ends.update(given if isinstance(given, list | tuple) else [given])
    return frozenset(ends)


def _default_sampling(module: Any) -> Sampling:
    config = module.generation_config
    if not config.do_sample:
        return Sampling()
    return Sampling(
        temperature=1.0 if config.temperature is None else config.temperature,
        top_p=1.0 if config.top_p is None else config.top_p,
        top_k=config.top_k,
    )


def _context_tokens(module: Any, tokenizer: Any) -> int:
    said = context_tokens(module.config.get_text_config())
    if said is not None:
        return said
    # transformers says 1e30 where the tokenizer does not know.
    length = tokenizer.model_max_length
    return int(length) if 0 < length < 2**31 else DEFAULT_CONTEXT_TOKENS
