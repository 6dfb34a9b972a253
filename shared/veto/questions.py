"""What kind of answer a text asks for, and the tense it asks in."""

from __future__ import annotations

from collections.abc import Sequence

from shared.slots import word_list
from shared.veto.lexicon import QUESTIONS
from shared.veto.words_grammar import FUTURE, MODALS, PAST, PAST_FORMS

_AUXILIARIES = frozenset(
    word_list("""
        is are was were am do does did can could will would should shall has have had may
        might must""")
)
_MEASURES = frozenset(
    word_list("""
        howmany howmuch howlong howfar howold howoften howbig howtall howhigh howfast
        howdeep howheavy""")
)
_DEGREES = frozenset(
    word_list("""
        good bad safe effective important likely true accurate common hard easy difficult""")
)
_APART = {
    frozenset({one, other})
    for one, others in {
        "why": "when where who how measure yesno howto",
        "when": "where who how howto yesno measure",
        "where": "who how measure yesno",
        "who": "how howto yesno measure",
        "how": "yesno measure",
        "howto": "measure",
        "yesno": "measure",
    }.items()
    for other in others.split()
}


def questions_of(lows: Sequence[str]) -> frozenset[str]:
    """The question words of a text, in classes; "yesno" where it opens with an auxiliary."""
    found: set[str] = set()
    for i, word in enumerate(lows):
        if word in QUESTIONS:
            if word == "how" and i + 1 < len(lows) and lows[i + 1] in _DEGREES:
                continue
            # "when" within a sentence is a condition.
            if word in {"when", "where", "who", "which"} and i > 2:
                continue
            found.add("measure" if word in _MEASURES else word)
    if not found:
        first = next((word for word in lows if word != "please"), "")
        if first in _AUXILIARIES:
            found.add("yesno")
    return frozenset(found)


def apart(a: frozenset[str], b: frozenset[str]) -> bool:
    """Whether two texts ask for different kinds of answers."""
    if not a or not b or a & b:
        return False
    return all(frozenset({one, other}) in _APART for one in a for other in b)


def tense_of(lows: Sequence[str]) -> tuple[str, bool]:
    """Tense: "past", "future" or ""; and whether a modal looks back: "should have bought"."""
    seen = set(lows[:40])
    opening = lows[1:3] if lows and lows[0] in QUESTIONS else ()
    past = any(word in PAST_FORMS or (word.endswith("ed") and len(word) > 4) for word in opening)
    past = past or not seen.isdisjoint(PAST) or "yesterday" in seen or "ago" in seen
    future = not seen.isdisjoint(FUTURE) or "tomorrow" in seen
    perfect = any(
        word in MODALS and "have" in lows[i + 1 : i + 4] for i, word in enumerate(lows[:40])
    )
    if past == future:
        return "", perfect
    return ("past" if past else "future"), perfect
