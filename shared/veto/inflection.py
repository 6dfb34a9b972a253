"""Base forms of English words: a small stemmer proposes, the lexicon chooses."""

from __future__ import annotations

from shared.veto.words_grammar import IRREGULAR as _IRREGULAR_FORMS

IRREGULAR = dict(pair.split() for pair in _IRREGULAR_FORMS.replace("\n", "|").split("|") if pair)
"""Inflected form → base form."""


def bases(word: str) -> list[str]:
    """What `word` may be an inflection of, likeliest first."""
    found: list[str] = []
    size = len(word)
    if word.endswith("s") and size > 3 and not word.endswith("ss"):
        if word.endswith("ies") and size > 4:
            found.append(word[:-3] + "y")
        found.append(word[:-1])
        if word.endswith("es"):
            found.append(word[:-2])
    for ending in ("ing", "ed", "er", "est"):
        if word.endswith(ending) and size > len(ending) + 1:
            stem = word[: -len(ending)]
            found += (stem, stem + "e") if len(stem) > 2 else (stem + "e",)
            if stem[-1] == stem[-2]:
                found.append(stem[:-1])
            if stem.endswith("i"):
                found.append(stem[:-1] + "y")
    if word.endswith("ers") and size > 5:
        found += (word[:-3], word[:-2])
    if word.endswith("ly") and size > 4:
        found += (word[:-2], word[:-2] + "le", word[:-1] + "e")
        if word.endswith("ily"):
            found.append(word[:-3] + "y")
    return found


def singular(word: str) -> str:
    """An unknown word without the endings of plural and tense."""
    if len(word) > 3 and word.endswith("s") and word[-2] not in "siu'":
        return word[:-1]
    if len(word) > 6 and word.endswith("ed"):
        return word[:-2]
    if len(word) > 7 and word.endswith("ing"):
        return word[:-3]
    return word
