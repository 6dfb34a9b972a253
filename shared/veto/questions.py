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
        "where": "who how howto measure yesno",
        "who": "how howto yesno measure",
        "how": "yesno measure",
        "howto": "measure",
        "yesno": "measure",
    }.items()
    for other in others.split()
}
_MEASURED = {
    "howmany": "howmuch howlong howoften",
    "howlong": "howfar howbig howtall howmuch howsoon",
    "howold": "howmany howlong",
    "howfar": "howmany howmuch",
    "howoften": "",
    "howbig": "howtall howhigh howdeep howmany howmuch howheavy",
    "howtall": "howhigh howmuch",
    "howhigh": "howdeep howmuch howfar",
    "howfast": "howmuch howlong",
    "howheavy": "howmuch",
    "howdeep": "howfar howmuch",
}
"""What may be measured alike: "how many" years is how old, thus two pairs are not apart."""
_TIMES = frozenset(
    word_list("""
        time times day days hour hours week weeks month months minute minutes year years
        often""")
)
_SOUGHT = frozenset(
    word_list("""
        find buy purchase watch see rent sell invest put start begin""")
)
"""Where to find it is how to find it."""
_TIME_OF = {"did": "did", "do": "do", "does": "do", "will": "will"}
_SUBJECTS = frozenset(word_list("i you we they he she it the my your people one"))
_GREETINGS = frozenset(word_list("please so but hi hey hello question wondering ok guys"))
_ASKED = frozenset(
    word_list("""
        to do does did can could should will""")
)


def questions_of(lows: Sequence[str]) -> frozenset[str]:
    """The question words of a text, in classes; "yesno" where it opens with an auxiliary."""
    found: set[str] = set()
    for i, word in enumerate(lows):
        if word in QUESTIONS:
            if word == "how" and i + 1 < len(lows) and lows[i + 1] in _DEGREES:
                continue
            # "when" within a sentence is a condition, but not in "… when to …".
            asked = word in {"when", "where"} and not _ASKED.isdisjoint(lows[i + 1 : i + 2])
            if word in {"when", "where", "who", "which"} and i > 2 and not asked:
                continue
            found.add(word)
            if word == "where" and not _SOUGHT.isdisjoint(lows[i + 1 : i + 5]):
                found.add("howto")
            if word in _MEASURES:
                found.add("measure")
                if lows[i + 1 : i + 2] and lows[i + 1] in _TIMES:
                    found |= {"howlong", "howoften", "howold"}
    if not found:
        first = next((word for word in lows if word != "please"), "")
        if first in _AUXILIARIES:
            found.add("yesno")
    return frozenset(found)


def apart(a: frozenset[str], b: frozenset[str]) -> bool:
    """Whether two texts ask for different kinds of answers."""
    if not a or not b:
        return False
    if "measure" in a and "measure" in b:
        measured = ((one, other) for one in a & _MEASURES for other in b & _MEASURES)
        return not any(_measured_alike(one, other) for one, other in measured)
    if a & b:
        return False
    a, b = a - _MEASURES, b - _MEASURES
    return all(frozenset({one, other}) in _APART for one in a for other in b)


def _measured_alike(one: str, other: str) -> bool:
    return (
        one == other
        or other in _MEASURED.get(one, "").split()
        or (one in _MEASURED.get(other, "").split())
    )


def aspect_of(lows: Sequence[str]) -> str:
    """The time of a question's own auxiliary: "did", "do" or "will"; "" where it has none."""
    for i, word in enumerate(lows[:40]):
        if word in _TIME_OF and lows[i + 1 : i + 2] and lows[i + 1] != "not":
            before = lows[i - 1] if i else "^"
            if before == "^" or before in QUESTIONS or before in _GREETINGS or i < 2:
                return _TIME_OF[word]
            if lows[i + 1] in _SUBJECTS and not QUESTIONS.isdisjoint(lows[max(0, i - 4) : i]):
                return _TIME_OF[word]
    first = lows[0] if lows else ""
    return "do" if first == "howto" else ""


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
