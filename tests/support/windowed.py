"""Reading in a context window with transformers' own cache, as simply as it can be done."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from transformers import DynamicCache
from transformers.cache_utils import DummyLayer

from origin.engine.context_window import ContextWindow, WindowTrimmer
from tests.support.tiny_models import measured


class TrimmableCache(DynamicCache):
    """A cache of transformers with what a trim needs."""

    @property
    def tokens(self) -> int:
        """How many tokens it holds."""
        return self.get_seq_length()

    def keep(
        self, first: int, last: int, moved: Callable[[int, torch.Tensor], torch.Tensor]
    ) -> None:
        """As `Trimmable` says."""
        layers: list[Any] = self.layers
        for index, layer in enumerate(layers):
            if isinstance(layer, DummyLayer):
                continue
            keys, values = layer.keys, layer.values
            kept = min(last, keys.shape[2])
            head = first if keys.shape[2] >= first + last else 0
            layer.keys = torch.cat((keys[:, :, :head], moved(index, keys[:, :, -kept:])), dim=2)
            layer.values = torch.cat((values[:, :, :head], values[:, :, -kept:]), dim=2)
            layer.cumulative_length = first + last


class Windowed:
    """Reads tokens in the window as a scheduler does, in blocks of at most `block` tokens."""

    def __init__(self, model: Any, window: ContextWindow, *, block: int = 512) -> None:
        self.model = model
        self.block = block
        self.trimmer = WindowTrimmer.of(model, window)
        self.cache = TrimmableCache(config=model.config)
        self.most_bytes = 0

    def read(self, ids: Sequence[int]) -> torch.Tensor:
        """The logits after `ids`. Shape: [vocabulary]."""
        window, rest = self.trimmer.window, list(ids)
        while rest:
            if window.room(self.cache.tokens) == 0:
                self.trimmer.trim(self.cache)
            size = min(self.block, window.room(self.cache.tokens))
            now, rest = rest[:size], rest[size:]
            out = self.model(input_ids=torch.tensor([now]), past_key_values=self.cache)
            self.most_bytes = max(self.most_bytes, sum(measured(self.cache)))
        logits: torch.Tensor = out.logits[0, -1]
        return logits
