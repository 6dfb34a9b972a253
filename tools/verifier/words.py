"""Words that may stand for each other, and words that may not.

`synonyms.txt`: a line `a=b` lets either stand for the other, `a > b=c` only the right for the left;
`v:`, `n:` or `a:` before it says which endings are added, to the first word of a phrase (v) or the
last (n). `contrasts.txt`: `kind v: a/b/c`; to put one for another changes what is asked.
"""

import random
import re
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Final

from tools.verifier.grammar import FOLDER

_DOUBLED_TEXT: Final = (
    "get run stop plan cut put set quit swim win begin sit chat shop bet let rid drop ship tip "
    "wrap map hit beg trim jog log debug format refer transfer submit admit commit forget dig "
    "skip grab rob step strip swap tan spin dip pop zip program plug flip ban cram stir fit chop "
    "nap hug occur prefer pin pat rub mop scan slim spot top up dub sum"
)
_DOUBLED: Final = frozenset(_DOUBLED_TEXT.split())
_PAST: Final = {
    "get": "got", "run": "ran", "cut": "cut", "put": "put", "set": "set", "quit": "quit",
    "buy": "bought", "sell": "sold", "make": "made", "take": "took", "give": "gave", "go": "went",
    "find": "found", "build": "built", "pay": "paid", "write": "wrote", "read": "read",
    "speak": "spoke", "grow": "grew", "keep": "kept", "leave": "left", "lose": "lost", "win": "won",
    "choose": "chose", "begin": "began", "break": "broke", "eat": "ate", "drink": "drank",
    "sleep": "slept", "feel": "felt", "fall": "fell", "rise": "rose", "send": "sent",
    "spend": "spent", "tell": "told", "teach": "taught", "understand": "understood", "do": "did",
    "freeze": "froze", "hide": "hid", "drive": "drove", "fly": "flew", "ride": "rode",
    "lend": "lent", "shut": "shut", "wake": "woke", "meet": "met", "become": "became",
    "overcome": "overcame", "throw": "threw", "draw": "drew", "bring": "brought",
}  # fmt: skip


def gerund(phrase: str) -> str:
    """The phrase with its first word in -ing: `not lie` gives `not lying`."""
    lead = "not " if phrase.startswith("not ") else ""
    verb, space, rest = phrase.removeprefix("not ").partition(" ")
    return lead + _ing(verb) + space + rest


@cache
def synonyms(path: Path = FOLDER / "synonyms.txt") -> dict[str, tuple[str, ...]]:
    """For each word or phrase, in lower case, what may stand for it."""
    found: dict[str, set[str]] = {}
    for _, body, forms in _read(path):
        one_way, arrow, others = body.partition(">")
        for form in forms:
            names = [form(word.strip()) for word in (others if arrow else body).split("=")]
            for word in [form(one_way.strip())] if arrow else names:
                found.setdefault(word.lower(), set()).update(set(names) - {word})
    return {word: tuple(sorted(others)) for word, others in found.items()}


@cache
def contrasts(path: Path = FOLDER / "contrasts.txt") -> dict[str, tuple[tuple[str, str], ...]]:
    """For each word or phrase, in lower case: (kind, what changes the question in its place)."""
    found: dict[str, set[tuple[str, str]]] = {}
    for kind, body, forms in _read(path):
        for form in forms:
            names = [form(word.strip()) for word in body.split("/")]
            for word in names:
                others = {(kind, other) for other in names if other != word}
                found.setdefault(word.lower(), set()).update(others)
    return {word: tuple(sorted(others)) for word, others in found.items()}


def reword(text: str, rng: random.Random, *, share: float) -> str:
    """The text with about `share` of the replaceable words replaced by synonyms."""
    table = synonyms()

    def replace(match: re.Match[str]) -> str:
        word = match[0]
        if rng.random() >= share:
            return word
        return _cased(rng.choice(table[word.lower()]), word)

    return _pattern("synonyms").sub(replace, text)


def contrasting(text: str, rng: random.Random) -> tuple[str, str] | None:
    """(kind, the text with one word changed to a contrasting one), or None."""
    places = list(_pattern("contrasts").finditer(text))
    if not places:
        return None
    place = rng.choice(places)
    kind, other = rng.choice(contrasts()[place[0].lower()])
    if re.search(rf"\b{re.escape(other)}\b", text, re.IGNORECASE):
        return None
    return kind, text[: place.start()] + _cased(other, place[0]) + text[place.end() :]


@cache
def _pattern(name: str) -> re.Pattern[str]:
    table = synonyms() if name == "synonyms" else contrasts()
    ordered = sorted(table, key=lambda word: (-len(word), word))
    body = "|".join(re.escape(word) for word in ordered)
    return re.compile(rf"(?<![\w{{<:'/-])(?:{body})(?![\w}}>:'/-])", re.IGNORECASE)


def _cased(word: str, like: str) -> str:
    return word[0].upper() + word[1:] if like[0].isupper() and like != "I" else word


def _read(path: Path) -> Iterator[tuple[str, str, tuple[Callable[[str], str], ...]]]:
    """Each line's kind, its body, and the forms that its words take."""
    for raw in path.read_text(encoding="utf-8").splitlines():
        line = raw.strip()
        if not line or line.startswith("#"):
            continue
        head, _, body = line.rpartition(": ")
        kind, _, part = head.rpartition(" ")
        known = part in _FORMS
        yield kind if known else head, body, _FORMS[part if known else ""]


def _same(word: str) -> str:
    return word


def _third(phrase: str) -> str:
    verb, space, rest = phrase.partition(" ")
    return {"have": "has", "do": "does", "go": "goes"}.get(verb, _s(verb)) + space + rest


def _past(phrase: str) -> str:
    verb, space, rest = phrase.partition(" ")
    if verb in _PAST:
        past = _PAST[verb]
    elif verb.endswith("e"):
        past = verb + "d"
    elif verb.endswith("y") and verb[-2] not in "aeiou":
        past = verb[:-1] + "ied"
    else:
        past = verb + (verb[-1] if verb in _DOUBLED else "") + "ed"
    return past + space + rest


def plural(phrase: str) -> str:
    """The phrase with its last word in the plural."""
    lead, space, noun = phrase.rpartition(" ")
    irregular = {"child": "children", "person": "people", "man": "men", "woman": "women"}
    return lead + space + irregular.get(noun, _s(noun))


def _s(word: str) -> str:
    if word.endswith(("s", "x", "z", "ch", "sh")):
        return word + "es"
    if word.endswith("y") and word[-2] not in "aeiou":
        return word[:-1] + "ies"
    return word + "s"


def _ing(verb: str) -> str:
    if verb in {"be", "see", "free", "agree", "dye"}:
        return verb + "ing"
    if verb in {"lie", "die", "tie"}:
        return verb[:-2] + "ying"
    if verb in _DOUBLED:
        return verb + verb[-1] + "ing"
    return (verb[:-1] if verb.endswith("e") and not verb.endswith("ee") else verb) + "ing"


_FORMS: Final[dict[str, tuple[Callable[[str], str], ...]]] = {
    "": (_same,),
    "a": (_same,),
    "n": (_same, plural),
    "v": (_same, _third, _past, gerund),
}
