"""How many bytes a model's key-value cache takes, from the model's config alone.

Theory of operation: the model is built on torch's meta device, where tensors have shapes and no
storage, and reads one token; what its own cache then holds of it is measured. So every
architecture answers for itself (grouped-query heads, a head dimension of its own, layers that
share keys and values), and no table of config names can fall behind.

What this must not know: weights, tokenizers, requests.

Invariants
1. `KvSize.size_bytes` is what the tensors of transformers' `DynamicCache` measure after a forward
   pass over as many tokens, byte for byte; or the model is refused by name.
2. No weight is read, and nothing is allocated in the model's size.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import torch
import transformers
from transformers import AutoConfig, AutoModelForCausalLM, DynamicCache
from transformers.cache_utils import DummyLayer, DynamicLayer, DynamicSlidingWindowLayer

from origin.engine.demo import DEMO_CHECKPOINT, DEMO_NAME
from origin.failures import first_line

# Experts multiplied in groups want this type on the meta device. Only shapes are taken from it.
_PROBE_DTYPE: Final = torch.bfloat16
_HUB_ID: Final = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
_CONTEXT_FIELDS: Final = ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length")


class KvSizeError(ValueError):
    """The model cannot be measured. The message is one line and says why."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LayerSize:
    """What one layer holds of one sequence.

    `kind`: `full` attention; `sliding` over the last tokens, of which at most `limit_tokens` are
    held between forward passes; `shared`: another layer's keys and values are read, none held.
    """

    kind: Literal["full", "sliding", "shared"]
    heads: int
    key_dim: int
    value_dim: int
    limit_tokens: int | None

    @property
    def token_elements(self) -> int:
        """Numbers held of one token: its keys and values."""
        return self.heads * (self.key_dim + self.value_dim)

    def held_tokens(self, tokens: int) -> int:
        """How many of a sequence's tokens are held."""
        if self.kind == "shared":
            return 0
        return tokens if self.limit_tokens is None else min(tokens, self.limit_tokens)


@dataclass(frozen=True, kw_only=True, slots=True)
class KvSize:
    """The sizes of one model's cache. `context_tokens` is None where the config names no limit."""

    config: Any
    layers: tuple[LayerSize, ...]
    dtype: torch.dtype
    context_tokens: int | None

    @classmethod
    def of(cls, source: str, dtype: torch.dtype | None = None) -> KvSize:
        """Measure a folder, a hub id or the demo model. Raises KvSizeError.

        Without `dtype` the one that the engine would choose here: float32 on a CPU, the
        checkpoint's own where there is CUDA.
        """
        config = _config(source)
        text = config.get_text_config(decoder=True)
        if dtype is None:
            dtype = (text.dtype or config.dtype) if torch.cuda.is_available() else None
        return cls(
            config=config,
            layers=layer_sizes(config),
            dtype=dtype or torch.float32,
            context_tokens=context_tokens(text),
        )

    def layer_bytes(self, layer: LayerSize, tokens: int, batch: int = 1) -> int:
        """The bytes that `layer` holds of `batch` sequences of `tokens` tokens each."""
        return batch * layer.held_tokens(tokens) * layer.token_elements * self.dtype.itemsize

    def size_bytes(self, tokens: int, batch: int = 1) -> int:
        """The bytes that all layers hold of `batch` sequences of `tokens` tokens each."""
        return sum(self.layer_bytes(layer, tokens, batch) for layer in self.layers)


def context_tokens(text_config: Any) -> int | None:
    """The longest sequence that a config allows, in tokens; None where it does not say."""
    for name in _CONTEXT_FIELDS:
        value = getattr(text_config, name, None)
        if isinstance(value, int) and value > 0:
            return value
    return None


def layer_sizes(config: Any) -> tuple[LayerSize, ...]:
    """What each layer of the model of `config` holds. Raises KvSizeError."""
    try:
        with torch.device("meta"), torch.inference_mode():
            build: Any = AutoModelForCausalLM.from_config
            model = build(
                config, attn_implementation="eager", dtype=_PROBE_DTYPE, trust_remote_code=False
            )
            cache = DynamicCache(config=model.config)
            _check_kinds(cache)
            ids = torch.zeros((1, 1), dtype=torch.long)
            out = model.eval()(input_ids=ids, past_key_values=cache, use_cache=True)
    except KvSizeError:
        raise
    except Exception as error:  # a config can be wrong in any way
        raise KvSizeError(
            f"a model of type {config.model_type!r} cannot be measured: {first_line(error)}"
        ) from error
    if getattr(out, "past_key_values", None) is not cache:
        raise KvSizeError(
            f"a model of type {config.model_type!r} is not measured: it keeps no key-value cache "
            "of transformers' common kind"
        )
    return tuple(_layer_size(layer, index) for index, layer in enumerate(cache.layers))


def _check_kinds(cache: DynamicCache) -> None:
    for index, layer in enumerate(cache.layers):
        if type(layer) not in (DynamicLayer, DynamicSlidingWindowLayer, DummyLayer):
            raise KvSizeError(
                f"layer {index} is not measured: its cache is a {type(layer).__name__}, neither "
                "full nor sliding attention over keys and values"
            )


def _layer_size(layer: Any, index: int) -> LayerSize:
    if type(layer) is DummyLayer:
        return LayerSize(kind="shared", heads=0, key_dim=0, value_dim=0, limit_tokens=0)
    keys, values = layer.keys, layer.values
    if keys is None or values is None:
        raise KvSizeError(f"layer {index} is not measured: it has put nothing into its cache")
    batch, heads, tokens, key_dim = keys.shape
    if (batch, tokens) != (1, 1) or values.shape[:3] != keys.shape[:3]:
        raise KvSizeError(
            f"layer {index} is not measured: keys of shape {tuple(keys.shape)} beside values of "
            f"{tuple(values.shape)}"
        )
    window = layer.sliding_window if type(layer) is DynamicSlidingWindowLayer else None
    return LayerSize(
        kind="full" if window is None else "sliding",
        heads=heads,
        key_dim=key_dim,
        value_dim=values.shape[-1],
        # The token to come is the window's last, so it holds one less. (A window of one token
        # holds all: transformers cuts at -0.)
        limit_tokens=None if window is None or window < 2 else window - 1,
    )


def _config(source: str) -> Any:
    transformers.utils.logging.set_verbosity_error()  # type: ignore[no-untyped-call]  # theirs
    if source == DEMO_NAME:
        source = str(DEMO_CHECKPOINT)
    folder = Path(source)
    if folder.exists() and not (folder / "config.json").is_file():
        raise KvSizeError("it is no folder with a config.json")
    if not folder.exists() and _HUB_ID.fullmatch(source) is None:
        raise KvSizeError("there is no such folder")
    try:
        config = AutoConfig.from_pretrained(source, trust_remote_code=False)
    except Exception as error:  # what is in the file decides what goes wrong
        raise KvSizeError(f"no config can be read ({first_line(error)})") from error
    if type(config) not in transformers.MODEL_FOR_CAUSAL_LM_MAPPING:
        raise KvSizeError(f"a model of type {config.model_type!r} is not a causal language model")
    return config
