"""`encore` with an encoder that fails as the file ENCODER_FAULT says: `python -m` this module.

The file has the name of a fault below, or nothing.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from origin.cli import main
from origin.semantic.encoder import Encoder, Encoding

Encodings = list[Encoding | None]


def _raises(found: Encodings) -> Encodings:
    raise MemoryError(str(len(found)))


def _slow(found: Encodings) -> Encodings:
    time.sleep(0.5)
    return found


def _full_of(number: float) -> Callable[[Encodings], Encodings]:
    return lambda found: [
        one and replace(one, vector=one.vector * np.float32(number)) for one in found
    ]


FAULTS: dict[str, Callable[[Encodings], Encodings]] = {
    "raises": _raises,
    "slow": _slow,
    "NaN": _full_of(np.nan),
    "zero": _full_of(0),
    "short vectors": lambda found: [one and replace(one, vector=one.vector[:7]) for one in found],
    "too few": lambda found: found[1:],
}


def _install(file: Path) -> None:
    encode = Encoder.encode

    def faulty(self: Encoder, texts: Sequence[str]) -> Encodings:
        found = encode(self, texts)
        fault = file.read_text()
        return FAULTS[fault](found) if fault else found

    Encoder.encode = faulty  # type: ignore[method-assign]


if __name__ == "__main__":
    _install(Path(os.environ["ENCODER_FAULT"]))
    main()
