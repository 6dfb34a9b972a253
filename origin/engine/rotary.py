"""Rotary positions of cached keys: how a model turns them, and how to turn them on.

A rotary model (Su et al. 2021, RoFormer) rotates each pair of numbers of a key by the angle
position * frequency before the key is cached. A cached key that moves from one position to
another is therefore rotated by the difference of the two angles, and needs nothing else.

Nothing here knows architectures by name. `ropes_of` takes the frequencies that the loaded model
holds and believes a layout (which numbers form a pair) only if the model's own keys turn so.

What this must not know: windows, caches that grow, requests.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import torch
from transformers import DynamicCache

if TYPE_CHECKING:
    from collections.abc import Sequence

_TOKENS_PROBED: Final = 4
_GPTJ_THETA: Final = 10000.0


class UnsupportedRopeError(ValueError):
    """The model's keys do not turn with their positions in a way that is known here."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Rope:
    """How one layer rotates its keys; the numbers beyond the pairs are left as they are.

    `frequencies`: radians per position of each pair, float32. Shape: [pairs].
    `interleaved`: pairs are neighbours (GPT-J, Cohere); else the number `pairs` further on is the
    other half (Llama, GPT-NeoX).
    """

    frequencies: torch.Tensor
    interleaved: bool = False

    def turn(self, old: torch.Tensor, new: torch.Tensor) -> Turn:
        """What moves keys from the positions `old` to `new`. Shape of both: [tokens].

        The two angles are rounded to float32 each, as models round them, so that a moved key
        equals one that the model would have made there.
        """
        angles = _angles(new, self.frequencies) - _angles(old, self.frequencies)
        return Turn(
            cos=angles.cos().float(), sin=angles.sin().float(), interleaved=self.interleaved
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Turn:
    """A rotation of each of `tokens` keys. Shape of `cos` and `sin`: [tokens, pairs], float32."""

    cos: torch.Tensor
    sin: torch.Tensor
    interleaved: bool

    def last(self, tokens: int) -> Turn:
        """The rotation of the last `tokens` keys alone."""
        start = len(self.cos) - tokens
        return Turn(cos=self.cos[start:], sin=self.sin[start:], interleaved=self.interleaved)

    def to(self, device: torch.device) -> Turn:
        """The same on another device, or itself."""
        if self.cos.device == device:
            return self
        cos, sin = self.cos.to(device), self.sin.to(device)
        return Turn(cos=cos, sin=sin, interleaved=self.interleaved)

    def __call__(self, keys: torch.Tensor) -> torch.Tensor:
        """The rotated keys, computed in float32, rounded once; `keys` is left as it is.

        Shape: [..., tokens, head_dim].
        """
        rotary = 2 * self.cos.shape[-1]
        halves = (
            (slice(0, rotary, 2), slice(1, rotary, 2))
            if self.interleaved
            else (slice(0, rotary // 2), slice(rotary // 2, rotary))
        )
        first, second = (keys[..., half].float() for half in halves)
        turned = keys.clone()
        turned[..., halves[0]] = first * self.cos - second * self.sin
        turned[..., halves[1]] = second * self.cos + first * self.sin
        return turned


def rerotate(keys: torch.Tensor, old: torch.Tensor, new: torch.Tensor, rope: Rope) -> torch.Tensor:
    """The keys as if made at the positions `new` rather than `old`. A copy.

    Shape: keys [..., tokens, head_dim], positions [tokens].
    """
    return rope.turn(old, new)(keys)


def ropes_of(model: Any, *, positions: Sequence[int]) -> tuple[Rope | None, ...]:
    """How each layer of a loaded model rotates its keys; None where it does not.

    The model reads single tokens at position 0 and at each of `positions` (the farthest that
    will be used among them): the keys must differ by the rotation alone, the values not at all.
    Raises UnsupportedRopeError.
    """
    with torch.inference_mode():
        start = _read(model, 0)
        moved = [(position, _read(model, position)) for position in positions]
        candidates = _candidates(model)
        ropes = tuple(
            _rope_of_layer(layer, start, moved, candidates) for layer in range(len(start))
        )
    if not any(ropes):
        raise UnsupportedRopeError("its keys are not rotated by their positions")
    return ropes


_Layers = list[tuple[torch.Tensor, torch.Tensor] | None]


def _read(model: Any, position: int) -> _Layers:
    """Keys and values of all layers after one token per sequence, which stands at `position`."""
    vocabulary = model.get_input_embeddings().num_embeddings
    device = model.get_input_embeddings().weight.device
    ids = torch.linspace(1, vocabulary - 1, _TOKENS_PROBED, device=device).long()[:, None]
    cache = DynamicCache(config=model.config)
    model(
        input_ids=ids,
        position_ids=torch.full_like(ids, position),
        past_key_values=cache,
        use_cache=True,
    )
    layers: list[Any] = cache.layers
    return [None if layer.keys is None else (layer.keys, layer.values) for layer in layers]


def _candidates(model: Any) -> list[Rope | None]:
    """What a layer may do: nothing, or turn at frequencies that the model holds, in a layout."""
    found = [
        buffer.float()
        for name, buffer in model.named_buffers()
        if name.endswith("inv_freq") and "original" not in name and buffer.dim() == 1
    ]
    rotary_dim = getattr(model.config.get_text_config(decoder=True), "rotary_dim", None)
    if not found and rotary_dim:  # GPT-J and CodeGen hold a table of angles instead
        found = [_GPTJ_THETA ** -(torch.arange(0, rotary_dim, 2).float() / rotary_dim)]
    several: list[torch.Tensor] = []
    for frequencies in found:
        if not any(torch.equal(frequencies, known) for known in several):
            several.append(frequencies)
    return [
        None,
        *(
            Rope(frequencies=frequencies, interleaved=interleaved)
            for frequencies in several
            for interleaved in (False, True)
        ),
    ]


def _rope_of_layer(
    layer: int, start: _Layers, moved: list[tuple[int, _Layers]], candidates: list[Rope | None]
) -> Rope | None:
    at_start = start[layer]
    if at_start is None:  # it reads another layer's keys
        return None
    pairs = [(position, here) for position, layers in moved if (here := layers[layer]) is not None]
    if not all(_close(at_start[1], values) for _, (_, values) in pairs):
        raise UnsupportedRopeError(f"the values of layer {layer} depend on their positions")
    for rope in candidates:
        if all(_close(_moved(at_start[0], position, rope), keys) for position, (keys, _) in pairs):
            return rope
    raise UnsupportedRopeError(
        f"the keys of layer {layer} do not turn with their positions as rotary ones do"
    )


def _moved(keys: torch.Tensor, position: int, rope: Rope | None) -> torch.Tensor:
    if rope is None:
        return keys
    if 2 * len(rope.frequencies) > keys.shape[-1]:  # another layer's
        return torch.full_like(keys, torch.nan)
    device = keys.device
    rope = Rope(frequencies=rope.frequencies.to(device), interleaved=rope.interleaved)
    old, new = torch.zeros(1, device=device), torch.full((1,), float(position), device=device)
    return rerotate(keys, old, new, rope)


def _close(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Equal but for rounding: a wrong layout or frequency is off by the size of the numbers."""
    tolerance = max(1e-3, 16 * torch.finfo(one.dtype).eps)
    difference = (one.float() - other.float()).abs().max()
    return bool(difference <= tolerance * other.float().abs().max())


def _angles(positions: torch.Tensor, frequencies: torch.Tensor) -> torch.Tensor:
    return (positions.float()[:, None] * frequencies).double()
