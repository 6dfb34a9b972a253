"""One look-up for all word lists: what a word, in whatever inflection, is to the veto.

The lists are read once, at import. A look-up tries the word as it stands, then its base forms, then
its negative prefix and its derivations; what is left is unknown, thus perhaps a name.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from shared.slots import word_list
from shared.veto import words_antonyms, words_ordinary, words_places, words_synonyms, words_things
from shared.veto import words_grammar as grammar
from shared.veto.inflection import IRREGULAR, bases, singular

STOP, WORD, UNKNOWN, UNIT, NUMBER, ORDINAL, MONTH, WEEKDAY, RELATIVE, NEGATION, BOUND, QUESTION = (
    "stop", "word", "unknown", "unit", "number", "ordinal", "month", "weekday", "relative",
    "negation",
    "bound", "question",
)  # fmt: skip
QUESTIONS = frozenset(
    word_list("""
        why when where who how what which howto howmany howmuch howlong howfar howold
        howoften howbig howtall howhigh howfast howdeep howheavy""")
)
ADJECTIVES = frozenset(words_antonyms.GRADED.split())
ORDINARY = frozenset(words_ordinary.WORDS.split())
BOUNDS = frozenset({"gt", "lt", "ge", "le"})
NO_GROUPS: frozenset[str] = frozenset()


class Entry(NamedTuple):
    """A word as the veto knows it: what it counts as, its one spelling, and its classes."""

    kind: str
    key: str
    groups: frozenset[str] = NO_GROUPS


Phrase = tuple[tuple[str, ...], str]


def _synonyms() -> dict[str, str]:
    heads: dict[str, str] = {}
    for line in words_synonyms.SETS.split("\n"):
        head, *others = line.split() or [""]
        for other in others:
            heads.setdefault(other, head)
    return heads


SYNONYMS = _synonyms()
UNIT_OF = {
    spelling: line.split()[0]
    for line in grammar.UNITS.split("\n")
    if line
    for spelling in line.split()
}


def _build() -> tuple[dict[str, Entry], frozenset[str], dict[str, list[Phrase]]]:
    entries: dict[str, Entry] = {}
    for word, head in SYNONYMS.items():
        entries[word] = Entry(WORD, head)
        entries.setdefault(head, Entry(WORD, head))
    for word in words_antonyms.PAIRS.replace("/", " ").split():
        if word.endswith(("er", "est")) and any(base in ADJECTIVES for base in bases(word)):
            continue
        entries.setdefault(word, Entry(WORD, SYNONYMS.get(word, word)))
    strict = _add_classes(entries)
    for word in grammar.STRICT.split():
        head = SYNONYMS.get(word, word)
        entries[word] = Entry(WORD, head, entries.get(word, Entry(WORD, head)).groups | {"bound"})
    for word in grammar.STOP.split():
        entries[word] = Entry(QUESTION if word in QUESTIONS else STOP, word)
    for word in QUESTIONS:
        entries[word] = Entry(QUESTION, word)
    for word in BOUNDS:
        entries[word] = Entry(BOUND, word)
    for word in grammar.NEGATIONS:
        entries[word] = Entry(NEGATION, word)
    _add_quantities(entries)
    return entries, strict | {"bound"}, _phrases(entries)


def _add_classes(entries: dict[str, Entry]) -> frozenset[str]:
    strict = {"country", "continent", "state", "city", "language"}
    for line in (words_places.CLASSES + words_things.CLASSES).replace("\n  ", " ").split("\n"):
        name, _, members = line.partition(":")
        if name.endswith("!"):
            name = name[:-1]
            strict.add(name)
        names = frozenset({name, _WIDER.get(name, name)})
        for member in members.split():
            spellings = member.split("/")
            head = SYNONYMS.get(spellings[0], spellings[0])
            for spelling in spellings:
                known = entries.get(spelling)
                groups = known.groups | names if known else names
                key = known.key if known and known.groups else head
                entries[spelling] = Entry(WORD, key, groups)
    # A synonym is of the classes of what it is read as, and the other way round.
    for word, head in SYNONYMS.items():
        groups = entries[word].groups | entries[head].groups
        if groups:
            entries[word] = entries[word]._replace(key=entries[head].key, groups=groups)
            entries[head] = entries[head]._replace(groups=groups)
    return frozenset(strict)


_WIDER = {
    "fruit": "food", "vegetable": "food", "drink": "food", "metal": "substance",
    "element": "substance",
    "instrument": "skill", "sport": "skill",
}  # fmt: skip


def _add_quantities(entries: dict[str, Entry]) -> None:
    bare = frozenset(grammar.BARE_UNITS.split())
    periods = frozenset(grammar.PERIODS.split())
    for spelling, unit in UNIT_OF.items():
        if len(spelling) < 2:
            continue
        if unit in grammar.CURRENCIES:
            entries[spelling] = Entry(UNIT, unit, frozenset({"currency"}))
        elif unit in bare:
            entries[spelling] = Entry(UNIT, unit, frozenset({"unit"}))
        elif unit in periods:
            entries[spelling] = Entry(UNIT, unit, frozenset({"period"}))
    for word, unit in grammar.ADVERBS_OF_PERIOD.items():
        entries[word] = Entry(UNIT, unit, frozenset({"period"}))
    for value, word in enumerate(grammar.NUMERALS.split()):
        entries[word] = Entry(NUMBER, str(value))
    for value, word in enumerate(grammar.TENS.split(), start=2):
        entries[word] = Entry(NUMBER, str(10 * value))
    for word, number in (("hundred", 100), ("dozen", 12), ("halfdozen", 6), ("couple", 2)):
        entries[word] = Entry(NUMBER, str(number))
    for word, places in SCALES.items():
        if len(word) > 2:
            entries[word] = Entry(NUMBER, str(10**places))
    for value, word in enumerate(grammar.ORDINALS.split(), start=1):
        entries[word] = Entry(ORDINAL, str(value))
    for number, word in enumerate(grammar.MONTHS.split(), start=1):
        entries[word] = Entry(MONTH, f"month {number}", frozenset({"month"}))
    for word, number in grammar.MONTH_SHORT.items():
        entries[word] = Entry(MONTH, f"month {number}", frozenset({"month"}))
    entries["may"] = Entry(STOP, "may")
    for number, word in enumerate(grammar.WEEKDAYS.split(), start=1):
        entries[word] = Entry(WEEKDAY, f"weekday {number}", frozenset({"weekday"}))
    for word, number in grammar.WEEKDAY_SHORT.items():
        entries[word] = Entry(WEEKDAY, f"weekday {number}", frozenset({"weekday"}))
    for word in grammar.RELATIVE.split():
        entries[word] = Entry(RELATIVE, word, frozenset({"relative date"}))


SCALES = {
    "k": 3, "m": 6, "mm": 6, "mn": 6, "b": 9, "bn": 9, "tn": 12, "thousand": 3, "million": 6,
    "billion": 9,
    "trillion": 12, "lakh": 5, "lakhs": 5, "crore": 7, "crores": 7, "millions": 6, "thousands": 3,
    "billions": 9,
}  # fmt: skip


def _phrases(entries: dict[str, Entry]) -> dict[str, list[Phrase]]:
    found: dict[str, list[Phrase]] = {}
    named = dict(pair.split("=") for pair in grammar.PHRASES.split())
    for word in list(entries):
        if "_" in word:
            named.setdefault(word, word)
            named.setdefault(f"{word}s", word)
            named.setdefault(f"{word}es", word)
    for phrase, word in named.items():
        first, *rest = phrase.split("_")
        found.setdefault(first, []).append((tuple(rest), word))
        if word not in entries:
            kind = RELATIVE if word.startswith("rel_") else WORD
            groups = frozenset({"relative date"}) if kind == RELATIVE else NO_GROUPS
            entries[word] = Entry(kind, word, groups)
    for phrases in found.values():
        phrases.sort(key=lambda phrase: -len(phrase[0]))
    return found


ENTRIES, STRICT, PHRASES = _build()


def _listed(word: str) -> Entry | None:
    known = ENTRIES.get(word)
    return Entry(WORD, word) if known is None and word in ORDINARY else known


@lru_cache(maxsize=16_384)
def look_up(word: str) -> Entry:
    """The entry of a word in lower case. One of kind UNKNOWN where no list has it."""
    irregular = IRREGULAR.get(word)
    known = _listed(word if irregular is None else irregular)
    if known is not None:
        return known
    for base in bases(word):
        known = _listed(base)
        if known is not None:
            if word.endswith(("er", "est")) and base in ADJECTIVES:
                return known._replace(groups=known.groups | {"degree"})
            return known
    for prefix in NEGATIVE_PREFIXES:
        rest = word.removeprefix(prefix)
        if rest != word and len(rest) > 3 and look_up(rest).kind == WORD:
            return Entry(WORD, prefix + look_up(rest).key)
    for ending in _DERIVATIONS:
        if word.endswith(ending) and len(word) > len(ending) + 3:
            stem = word[: -len(ending)]
            if any((_listed(stem + more) or _NONE).kind == WORD for more in ("", "e", "y", "t")):
                return Entry(WORD, SYNONYMS.get(word, word))
    if len(word) > 6 and word.endswith(_COMMON_ENDINGS):
        return Entry(WORD, singular(word))
    return Entry(UNKNOWN, singular(word))


NEGATIVE_PREFIXES = ("un", "in", "im", "il", "ir", "dis", "non", "mis", "anti", "de")
_DERIVATIONS = word_list("""
    ness ment ation ition tion sion ion able ible ability ful less ity ize ise ized ised al ally
    ist ism ive ous ic ical ically ship hood ance ence ant ent or ors age ish like ward y an ian
    ary ments ations ions ists ities izing ising fully lessly nesses ships""")
# Hardly a name ends like this.
_COMMON_ENDINGS = word_list("""
    ing ings ed ly tion tions sion ness ment ments ity ities ous ive able ible ical ically ism
    ist ists ize ise izes ises ify ence ance ful less ish ward wards ship hood ial ual ional
    ated ating fied ency ancy worthy""")
_NONE = Entry(UNKNOWN, "")


def _opposites() -> dict[str, frozenset[str]]:
    found: dict[str, set[str]] = {}
    for line in words_antonyms.PAIRS.split("\n"):
        if not line:
            continue
        left, right = ([_content_key(word) for word in side.split("/")] for side in line.split())
        for one in left:
            for other in right:
                if one != other:
                    found.setdefault(one, set()).add(other)
                    found.setdefault(other, set()).add(one)
    return {word: frozenset(others) for word, others in found.items()}


def _content_key(word: str) -> str:
    entry = look_up(word)
    return entry.key if entry.kind == WORD else word


OPPOSITES = _opposites()
