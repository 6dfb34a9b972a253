"""Contracted words as the words they stand for, and words without their possessive ending."""

from __future__ import annotations

from shared.veto.lexer import Token
from shared.veto.words_grammar import CONTRACTIONS

_CURLY = "\N{RIGHT SINGLE QUOTATION MARK}"


def expanded(tokens: list[Token]) -> list[Token]:
    """Contractions as the words they stand for; no possessive endings."""
    found: list[Token] = []
    for token in tokens:
        if token.kind == "word":
            low = token.low
            if _CURLY in low:
                low = low.replace(_CURLY, "'")
            full = CONTRACTIONS.get(low) if token.text != "U" else None
            if full is None and low.endswith("n't"):
                full = low[:-3] + " not"
            if full is not None:
                found += [Token("word", word, word, glued=False) for word in full.split()]
                continue
            if "'" in low:
                low = low.removesuffix("'")
                head, _, ending = low.rpartition("'")
                if ending in {"s", "re", "ve", "ll", "d", "m"} and head:
                    found.append(Token("word", token.text[: len(head)], head, token.glued))
                    if ending == "ll":
                        found.append(Token("word", "will", "will", glued=False))
                    continue
                found.append(Token("word", token.text, low, token.glued))
                continue
        found.append(token)
    return found
