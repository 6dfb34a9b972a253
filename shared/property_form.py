"""The `property` profile: one form for all the ways to ask for a look at one property.

A request is read only if *all* of it is understood: a verb, what is to be looked at, and slots
(address, beds, baths, area, lot, price, year built, date). Then its form states each slot once, in
one spelling and one order. A text with one more word in it is none of this module's business, so no
word is ever dropped. Verbs and nouns stay as they are: to evaluate is not to analyze.

Invariants
1. Two texts have one form only if every slot is equal; an absent slot is no default.
2. A form is read as itself, and `shared.text_form` leaves it as it is.
"""

from __future__ import annotations

import re
from functools import cache

from shared.addresses import find_address
from shared.slots import (
    DASHES,
    Tokens,
    glued,
    read_area,
    read_baths,
    read_beds,
    read_date,
    read_money,
    read_year,
    tokenise,
    word_list,
)

MAX_CHARACTERS = 600


def property_form(text: str) -> str | None:
    """The form of a request about a property, or None where not all of the text is understood."""
    if len(text) > MAX_CHARACTERS or not text:
        return None
    tokens = tokenise(text)
    intent = _intent(tokens)
    if intent is None:
        return None
    verb, noun, i = intent
    slots: dict[str, str] = {}
    anchored, open_ended = False, False
    while tokens[i].kind != "end":
        parted = _after_separators(tokens, i, beds_before="baths" not in slots and "beds" in slots)
        prefix, i = _connectives(tokens, parted)
        found = _slot(tokens, i, prefix)
        if found is None:
            # What parts slots may end a text, what introduces one may not.
            if tokens[i].kind == "end" and not prefix:
                break
            return None
        name, value, i, anchored_here, open_here = found
        if name in slots or (open_here and slots):
            return None
        slots[name] = value
        anchored, open_ended = anchored or anchored_here, open_ended or open_here
    if not _is_sure(slots, noun=noun, anchored=anchored):
        return None
    if open_ended and list(slots) != [name for name in _ORDER if name in slots]:
        # A free word at the end of the address may belong to the slot behind it ("… Street
        # formerly 3 beds"): then only the one order has the form.
        return None
    stated = "; ".join(slots[name] for name in _ORDER if name in slots)
    return f"{verb} this {noun or 'property'}: {stated}"


_VERBS = {
    "analyze": "analyze",
    "analyse": "analyze",
    "appraise": "appraise",
    "assess": "assess",
    "describe": "describe",
    "evaluate": "evaluate",
    "review": "review",
    "summarize": "summarize",
    "summarise": "summarize",
    "underwrite": "underwrite",
}
_NOUNS = frozenset(word_list("apartment condo home house listing property townhouse"))
_ORDER = ("address", "beds", "baths", "area", "lot", "built", "dated", "price")
_CONNECTIVES = frozenset(
    word_list("""
    : a an and as asking at built date for has in is it its list listed listing located lot of
    on price priced size the was which with year""")
)
_LAND = ("acres", "hectares")


def _intent(tokens: Tokens) -> tuple[str, str, int] | None:
    """The verb, the noun (empty where there is none), and the index of what follows."""
    verb = _VERBS.get(tokens[0].text.lower())
    if verb is None:
        return None
    i = 1
    determined = tokens[i].text.lower() in {"this", "the"}
    noun = tokens[i + determined].text.lower()
    if noun in _NOUNS:
        i += 1 + determined
    elif determined:
        return None
    else:
        noun = ""
    colon = tokens[i].text == ":"
    return verb, noun, i + colon


def _after_separators(tokens: Tokens, i: int, *, beds_before: bool) -> int:
    while True:
        text = tokens[i].text
        apart = tokens[i].kind == "symbol" and not glued(tokens, i + 1)
        legal = (
            text in {",", ";", "\n", "|"}
            # Not the point of ".5 baths".
            or (text == "." and (apart or tokens[i + 1].kind == "symbol"))
            or (text in DASHES and apart and not glued(tokens, i))
            or (text == "/" and beds_before)
        )
        if not legal:
            return i
        i += 1


def _connectives(tokens: Tokens, i: int) -> tuple[str, int]:
    """The words that lead to a slot, in lower case, each with a space behind it."""
    start = i
    while tokens[i].text.lower() in _CONNECTIVES and i - start < 8:
        i += 1
    return "".join(f"{token.text.lower()} " for token in tokens[start:i]), i


def _slot(tokens: Tokens, i: int, prefix: str) -> tuple[str, str, int, bool, bool] | None:
    """Name, value and end of the slot at `i`; whether it is an anchored, an open-ended address."""
    leads = _leads()
    for name, read in (("beds", read_beds), ("baths", read_baths), ("price", read_money)):
        found = read(tokens, i)
        if found is not None:
            return (name, *found, False, False) if leads[name].fullmatch(prefix) else None
    found = read_area(tokens, i)
    if found is not None:
        return _area(tokens, *found, prefix)
    found = read_date(tokens, i)
    if found is not None:
        role = _DATE_ROLES.get(prefix)
        return None if role is None else ("dated", f"{role} {found[0]}", found[1], False, False)
    found = read_year(tokens, i)
    if found is not None and leads["built"].fullmatch(prefix):
        return "built", f"built {found[0]}", found[1], False, False
    address = find_address(tokens, i)
    if address is None or leads["address"].fullmatch(prefix) is None:
        return None
    return "address", address[0].text, address[1], address[0].anchored, address[0].open_ended


def _area(
    tokens: Tokens, value: str, i: int, prefix: str
) -> tuple[str, str, int, bool, bool] | None:
    """An area is the lot's where that is said, or where it is in acres; else the living area."""
    said = "lot " in prefix
    if tokens[i].text.lower() == "lot" and not said:
        said, i = True, i + 1
    if said or value.endswith(_LAND):
        if _leads()["lot"].fullmatch(prefix) is None:
            return None
        return "lot", f"lot {value}", i, False, False
    return ("area", value, i, False, False) if _leads()["area"].fullmatch(prefix) else None


def _is_sure(slots: dict[str, str], *, noun: str, anchored: bool) -> bool:
    """Whether this is about a property at all: `analyze 12 Angry Men` is about a film."""
    if "address" not in slots:
        return False
    rooms = "beds" in slots or "baths" in slots
    return (anchored or len(slots) > 1) if noun else (anchored and rooms)


@cache
def _leads() -> dict[str, re.Pattern[str]]:
    """What may lead to a slot of each kind, as `_connectives` gives it."""
    has = r"(?:and )?(?:(?:it |which )?(?:has |is )|with )?"
    plain = re.compile(has)
    return {
        "address": re.compile(r"(?:(?:it |which )?is )?(?:located )?(?:at )?"),
        "beds": plain,
        "baths": plain,
        "area": plain,
        "lot": re.compile(
            rf"{has}(?:on )?(?:a |an )?(?:(?:the |its )?lot (?:size )?(?:is |of |: )?)?"
        ),
        "built": re.compile(
            r"(?:and )?(?:it )?(?:was |is )?(?:built (?:in )?|(?:the )?year built (?:is |: )?)"
        ),
        "price": re.compile(
            rf"{has}(?:the |its |a |an )?(?:asking |list |listing |listed )?"
            r"(?:price |priced )?(?:is |at |of |for |: )?"
        ),
    }


_DATE_ROLES = {
    "": "dated",
    "date ": "dated",
    "date : ": "dated",
    "as of ": "as of",
    "listed ": "listed",
    "listed on ": "listed",
    "and listed on ": "listed",
}
