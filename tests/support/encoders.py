"""The semantic tier's encoder for tests: exported once for this checkout."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Final

from origin.semantic.encoder import Encoder, Precision

CACHE: Final = Path(__file__).parents[2] / ".cache" / "encoder"


@functools.cache
def encoder(precision: Precision = "int8") -> Encoder:
    """The packaged model."""
    return Encoder.load(precision=precision, cache=CACHE)
