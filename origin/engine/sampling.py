"""Choosing the next token from logits, as OpenAI's sampling parameters say.

Knows tensors, no model and no request. A sampler has its own random generator: the same seed and
the same logits give the same tokens, whatever else runs in the process.

Order: bias, penalties, temperature, top-k, top-p. Penalties count the tokens generated so far, not
the prompt's: `logit - frequency * count - presence * (count > 0)`
(source: OpenAI API reference, "Frequency and presence penalties").
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch


@dataclass(frozen=True, kw_only=True, slots=True)
class Sampling:
    """How to sample. Temperature 0 is greedy; `seed` None draws from the system's entropy."""

    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int | None = None
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    seed: int | None = None


class Sampler:
    """The state of one choice. Mutable; used by one thread.

    `choice` is the index of the choice in the answer: choices of one seed differ from each other,
    and choice 0 of several equals the only choice of one.
    """

    def __init__(self, sampling: Sampling, *, choice: int) -> None:
        self._sampling = sampling
        self._counts: Counter[int] = Counter()
        self._generator = torch.Generator()  # on the CPU: the draw does not depend on the device
        if sampling.seed is None:
            self._generator.seed()
        else:
            digest = hashlib.sha256(f"{sampling.seed}:{choice}".encode()).digest()
            self._generator.manual_seed(int.from_bytes(digest[:7], "big"))
        self._bias_at = torch.tensor(list(sampling.logit_bias), dtype=torch.long)
        self._bias = torch.tensor(list(sampling.logit_bias.values()), dtype=torch.float32)

    def pick(self, logits: torch.Tensor) -> int:
        """The next token. `logits`: shape [vocabulary], any dtype and device; not changed."""
        sampling = self._sampling
        penalised = bool(sampling.presence_penalty or sampling.frequency_penalty)
        if sampling.temperature == 0 and not penalised and not sampling.logit_bias:
            return int(logits.argmax())
        scores = logits.to(device="cpu", dtype=torch.float32, copy=True)
        scores.index_add_(0, self._bias_at, self._bias)
        if penalised and self._counts:
            at = torch.tensor(list(self._counts))
            counts = torch.tensor(list(self._counts.values()), dtype=torch.float32)
            penalty = sampling.frequency_penalty * counts + sampling.presence_penalty
            scores.index_add_(0, at, -penalty)
        token = int(scores.argmax()) if sampling.temperature == 0 else self._draw(scores)
        if penalised:
            self._counts[token] += 1
        return token

    def _draw(self, scores: torch.Tensor) -> int:
        sampling = self._sampling
        # Relative to the largest, and above float32's underflow: no temperature gives infinities.
        scores = (scores - scores.max()) / max(sampling.temperature, 1e-6)
        if sampling.top_k is not None and 0 < sampling.top_k < len(scores):
            scores[scores < scores.topk(sampling.top_k).values[-1]] = -torch.inf
        probabilities = scores.softmax(0)
        if sampling.top_p < 1:
            ordered, at = probabilities.sort(descending=True, stable=True)
            # Kept: the fewest tokens that together reach top_p, the most probable one always.
            outside = ordered.cumsum(0) - ordered >= sampling.top_p
            outside[0] = False
            probabilities[at[outside]] = 0
        return int(torch.multinomial(probabilities, 1, generator=self._generator))
