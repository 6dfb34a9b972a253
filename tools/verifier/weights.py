"""How much each token of a vocabulary says, 0 to 1: made once and stored with the model.

A WordPiece vocabulary is sorted by frequency, so that a token's place in it stands for its rarity.
"""

import re
from typing import Final

import numpy as np
from numpy.typing import NDArray

_FUNCTION_WORDS: Final = frozenset(
    """a an the is are was were be been am do does did of in on at to for from with by and or that
    this these those it its i my me you your we our they their he she his her him them as if so can
    could would should will shall may might must have has had there here which what who whom whose
    how why when where please tell about some any s t m re ve ll d""".split()  # noqa: SIM905 - a list of words reads better as text
)
_FUNCTION_WEIGHT: Final = 0.15
_COMMON_WEIGHT: Final = 0.35


def token_weights(vocabulary: dict[str, int]) -> NDArray[np.uint8]:
    """One byte a token, [vocabulary]: 0 for punctuation and special tokens, most for the rarest."""
    size = max(vocabulary.values()) + 1
    first = vocabulary.get("the", 0)
    weights = np.zeros(size)
    for token, place in vocabulary.items():
        if not re.search(r"[^\W_]", token) or re.fullmatch(r"\[.*\]", token):
            continue
        rarity = np.log(max(place - first, 1)) / np.log(max(size - first, 2))
        weights[place] = _COMMON_WEIGHT + (1 - _COMMON_WEIGHT) * rarity
        if token in _FUNCTION_WORDS:
            weights[place] = _FUNCTION_WEIGHT
    return np.round(weights * 255).astype(np.uint8)
