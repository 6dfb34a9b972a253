"""The semantic tier's encoder for tests, exported once for this machine."""

from __future__ import annotations

import functools
from typing import Final

from origin.semantic.encoder import Encoder, Precision
from origin.semantic.onnx_export import default_cache

CACHE: Final = default_cache()


@functools.cache
def encoder(precision: Precision = "int8") -> Encoder:
    """The packaged model."""
    return Encoder.load(precision=precision, cache=CACHE)
