"""US street addresses in running text, read into one spelling.

Only three kinds of words are rewritten, and only in their places: a directional before or behind
the name (`North` → `N`), the street suffix behind it (`St` → `Street`), a state behind a city
(`Nevada` → `NV`). Every other word stays, in its order, with the case of a title. So `5 St James
Place` keeps its saint and `12 Dr Smith Road` its doctor.

What can be read in two ways is not read: `12 Oak Avenue West Palm Beach`. Apartment, unit, suite
and `#` stay apart, and so do `St.` and `Saint`.

Source: USPS Publication 28, appendices B and C1, the common part of them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from shared.slots import DASHES, NUMBER_WORDS, Reading, Token, Tokens, glued, read_date, word_list

MAX_WORDS = 8
"""Words in a street line, city included where no comma parts it off."""
MAX_NAME_WORDS = 3
"""Words in a city, or in a street without a suffix."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Address:
    """An address as read.

    `anchored`: it has a street suffix, a state or a ZIP code, so it is hardly anything else.
    `open_ended`: its last words are free ones that might belong to what follows, because no
    punctuation parts it off, or because they have no capitals.
    """

    text: str
    anchored: bool
    open_ended: bool


def read_address(tokens: Tokens, i: int) -> Reading:
    """`123 n. main st., apt 4b, reno, nevada 89501` → `123 N Main Street Apt 4B, Reno, NV 89501`.

    Reads as far as an address goes: city, state and ZIP code belong to it where they are given.
    """
    found = find_address(tokens, i)
    return None if found is None else (found[0].text, found[1])


def find_address(tokens: Tokens, i: int) -> tuple[Address, int] | None:
    """The address that starts at token `i`, and the index of the token after it."""
    number = _house_number(tokens, i)
    if number is None:
        return None
    words, i = _words(tokens, number[1])
    street = _street([word for word, _ in words])
    if street is None:
        return None
    line, suffixed, city = street
    line = f"{number[0]} {line}"
    state = unit = None
    capitals = True
    if city:
        sources = [source for _, source in words[-len(city) :]]
        if len(city) > 1 and _is_state(sources[-1]):
            state = city.pop().upper()
        if len(city) > MAX_NAME_WORDS or not all(word.text[0].isupper() for word in sources):
            return None
    else:
        unit = _unit(tokens, i)
        if unit is not None:
            line, i = f"{line} {unit[0]}", unit[1]
        town = _city(tokens, i)
        if town is not None:
            city, i, capitals = town
    if state is None:
        region = _state(tokens, i, after_city=bool(city))
        if region is not None:
            state, i = region
    code = _zip_code(tokens, i, after_place=bool(city) or state is not None)
    if code is not None:
        i = code[1]
    last = " ".join(part for part in (state, code and code[0]) if part)
    free = not last and (bool(city) or not (suffixed or unit))
    address = Address(
        text=", ".join(part for part in (line, " ".join(city), last) if part),
        anchored=suffixed or bool(last),
        open_ended=free and not (capitals and _parted(tokens, i)),
    )
    return address, i


_DIRECTIONS = {
    **{name: name[0].upper() for name in ("north", "south", "east", "west")},
    **{
        f"{first}{second}": (first[0] + second[0]).upper()
        for first in ("north", "south")
        for second in ("east", "west")
    },
    **{short: short.upper() for short in ("n", "s", "e", "w", "ne", "nw", "se", "sw")},
}
_SUFFIXES = {
    spelling: name.capitalize()
    for name, *short in map(
        str.split,
        """alley aly
        avenue ave av
        boulevard blvd
        circle cir
        court ct
        cove cv
        crescent cres
        crossing xing
        drive dr
        expressway expy
        freeway fwy
        highway hwy
        lane ln
        loop
        parkway pkwy pky
        pike
        place pl
        plaza plz
        road rd
        row
        square sq
        street st str
        terrace ter terr
        trail trl
        turnpike tpke
        walk
        way""".splitlines(),
    )
    for spelling in (name, *short)
}
# Saint and Doctor, unless they end the line.
_AMBIGUOUS = frozenset({"st", "dr"})
_UNITS = {
    "apt": "Apt",
    "apartment": "Apt",
    "unit": "Unit",
    "suite": "Suite",
    "ste": "Suite",
    "bldg": "Building",
    "building": "Building",
    "#": "#",
}
_STATES = {
    spelling: line[:2]
    for line in """AL Alabama
AK Alaska
AZ Arizona
AR Arkansas
CA California
CO Colorado
CT Connecticut
DE Delaware
DC District of Columbia
FL Florida
GA Georgia
HI Hawaii
ID Idaho
IL Illinois
IN Indiana
IA Iowa
KS Kansas
KY Kentucky
LA Louisiana
ME Maine
MD Maryland
MA Massachusetts
MI Michigan
MN Minnesota
MS Mississippi
MO Missouri
MT Montana
NE Nebraska
NV Nevada
NH New Hampshire
NJ New Jersey
NM New Mexico
NY New York
NC North Carolina
ND North Dakota
OH Ohio
OK Oklahoma
OR Oregon
PA Pennsylvania
RI Rhode Island
SC South Carolina
SD South Dakota
TN Tennessee
TX Texas
UT Utah
VT Vermont
VA Virginia
WA Washington
WV West Virginia
WI Wisconsin
WY Wyoming""".splitlines()
    for spelling in (line[:2].lower(), line[3:].lower())
}
# No part of a name: what a listing says between and about its slots, and what turns a meaning.
_NOT_NAMES = (
    frozenset(
        word_list("""
        a about above acre acres also although an and any approx approximately are around as
        asking at available ba bath bathroom bathrooms baths bd bed bedroom bedrooms beds
        below br built but by compared currently down each either estimated except excluding
        fixer for formerly former from had has have hectare hectares if in includes
        including incl is it its just last less like list listed listing lot maybe minus
        more nearly near needs neither never no nor not now of off offered on only or
        originally over per plus possibly previously price priced probably reduced recently
        rent rented sale seller size sf sold sqft sqm studio than that the then this
        to under unless until up used usually versus via vs was were when where which while
        will with without worth year""")
    )
    | NUMBER_WORDS
)
# Letters that have one other case each, and come back from it.
_NAME = re.compile(r"[A-Za-zÀ-ÖØ-Þà-öø-þ]+(?:['\u2019][A-Za-zÀ-ÖØ-Þà-öø-þ]+)*")
_HOUSE = re.compile(r"[1-9][0-9]{0,5}")
_SHORT_NUMBER = re.compile(r"[0-9]{1,5}")
_ORDINAL = frozenset({"st", "nd", "rd", "th"})
_DOTTED = (
    frozenset(word for word in _SUFFIXES if len(word) < 5)
    | frozenset(short for short in _DIRECTIONS if len(short) < 3)
    | {"mt", "ft", "jr", "sr"}
)
_PARTING = frozenset({",", ";", "\n", ""})


def _house_number(tokens: Tokens, i: int) -> Reading:
    """`123`, `123B`, `12-34` or `123 1/2`."""
    if tokens[i].kind != "number" or _HOUSE.fullmatch(tokens[i].text) is None:
        return None
    text, i = tokens[i].text, i + 1
    if glued(tokens, i) and tokens[i].kind == "word":
        letter = tokens[i].text
        return (text + letter.upper(), i + 1) if _is_letter(letter) else None
    if glued(tokens, i) and tokens[i].text == "-":
        second = tokens[i + 1]
        legal = second.kind == "number" and second.text.isdecimal() and glued(tokens, i + 1)
        return (f"{text}-{second.text}", i + 2) if legal else None
    if [token.text for token in tokens[i : i + 3]] == ["1", "/", "2"]:
        return f"{text} 1/2", i + 3
    return text, i


def _words(tokens: Tokens, i: int) -> tuple[list[tuple[str, Token]], int]:
    """The words of a street line, in title case, each with the token it starts with."""
    words: list[tuple[str, Token]] = []
    while len(words) < MAX_WORDS:
        found = _ordinal(tokens, i) or _name(tokens, i)
        if found is None or (tokens[i].text.lower() in _UNITS and words):
            break
        words.append((found[0], tokens[i]))
        i = found[1]
    return words, i


def _ordinal(tokens: Tokens, i: int) -> Reading:
    """The name of a numbered street: `42nd`."""
    number, ending = tokens[i], tokens[min(i + 1, len(tokens) - 1)]
    legal = number.kind == "number" and _SHORT_NUMBER.fullmatch(number.text) is not None
    if legal and ending.text.lower() in _ORDINAL and ending.start == number.end:
        return number.text + ending.text.lower(), i + 2
    return None


def _name(tokens: Tokens, i: int) -> Reading:
    """A word of a name in title case; hyphens join, and the point of an abbreviation is dropped."""
    spelling = ""
    while True:
        text = tokens[i].text
        if tokens[i].kind != "word" or _NAME.fullmatch(text) is None or text.lower() in _NOT_NAMES:
            return None
        spelling += text.replace("\u2019", "'").capitalize()
        i += 1
        if tokens[i].text != "-" or not glued(tokens, i) or not glued(tokens, i + 1):
            break
        spelling += "-"
        i += 1
    dotted = spelling.lower() in _DOTTED or len(spelling) == 1
    return spelling, i + 1 if dotted and tokens[i].text == "." and glued(tokens, i) else i


def _street(words: list[str]) -> tuple[str, bool, list[str]] | None:
    """The street line, whether it has a suffix, and the city where that follows without a comma."""
    before, behind = "", ""
    low = [word.lower() for word in words]
    if len(low) > 1 and low[-1] in _DIRECTIONS and low[-2] in _SUFFIXES and len(low) > 2:
        behind = f" {_DIRECTIONS[low.pop()]}"
    if len(low) > 1 and low[0] in _DIRECTIONS and not (len(low) == 2 and low[1] in _SUFFIXES):
        before = f"{_DIRECTIONS[low.pop(0)]} "
    names = words[1:] if before else words
    names = names[:-1] if behind else names
    if not names:
        return None
    places = [
        place
        for place, word in enumerate(low)
        if place > 0 and word in _SUFFIXES and (word not in _AMBIGUOUS or place == len(low) - 1)
    ]
    if not places:
        if len(names) > MAX_NAME_WORDS:
            return None
        return f"{before}{' '.join(names)}", False, []
    place = places[0]
    city = names[place + 1 :]
    in_doubt = len(places) > 1 or len(city) > MAX_NAME_WORDS + 1
    if in_doubt or (city and (city[0].lower() in _DIRECTIONS or behind)):
        return None
    line = f"{before}{' '.join(names[:place])} {_SUFFIXES[low[place]]}{behind}"
    return line, True, city


def _unit(tokens: Tokens, i: int) -> Reading:
    """`, Apt. 4b` → `Apt 4B`."""
    i = _after_comma(tokens, i)
    unit = _UNITS.get(tokens[i].text.lower())
    if unit is None:
        return None
    i += 2 if tokens[i + 1].text == "." and glued(tokens, i + 1) else 1
    text = ""
    while len(text) < 8:
        token = tokens[i]
        is_part = _is_letter(token.text) or (
            token.kind == "number" and _SHORT_NUMBER.fullmatch(token.text) is not None
        )
        if not is_part:
            return None
        text += token.text.upper()
        i += 1
        if not glued(tokens, i) or tokens[i].kind not in {"number", "word", "symbol"}:
            break
        if tokens[i].kind == "symbol":
            if tokens[i].text != "-":
                break
            text += "-"
            i += 1
    return f"{unit} {text}", i


def _city(tokens: Tokens, i: int) -> tuple[list[str], int, bool] | None:
    """A city behind a comma, and if it has capitals: without them punctuation has to end it."""
    if tokens[i].text != "," or read_date(tokens, i + 1) is not None:
        return None
    i += 1
    if _is_state(tokens[i]):
        return None
    city: list[str] = []
    capitals = True
    while len(city) < MAX_NAME_WORDS + 1 and not (city and _is_state(tokens[i])):
        found = _name(tokens, i)
        if found is None or tokens[i].text.lower() in _UNITS:
            break
        capitals = capitals and tokens[i].text[0].isupper()
        city.append(found[0])
        i = found[1]
    parted = _parted(tokens, i) or _is_state(tokens[i])
    if not 0 < len(city) <= MAX_NAME_WORDS or not (capitals or parted):
        return None
    return city, i, capitals


def _state(tokens: Tokens, i: int, *, after_city: bool) -> Reading:
    """`NV` in capitals, or `, Nevada` behind a city."""
    start, i = i, _after_comma(tokens, i)
    if _is_state(tokens[i]):
        return _STATES[tokens[i].text.lower()], i + 1
    if not after_city or i == start:
        return None
    for count in (1, 2, 3):
        words = tokens[i : i + count]
        state = _STATES.get(" ".join(word.text.lower() for word in words))
        long = state is not None and (count > 1 or len(words[0].text) > 2)
        if (
            state is not None
            and long
            and (_parted(tokens, i + count) or _is_zip(tokens, i + count))
        ):
            return state, i + count
    return None


def _zip_code(tokens: Tokens, i: int, *, after_place: bool) -> Reading:
    """`89501` or `89501-1234`, behind a state, a city or a comma."""
    start, i = i, _after_comma(tokens, i)
    if not _is_zip(tokens, i) or (i == start and not after_place):
        return None
    code, i = tokens[i].text, i + 1
    if glued(tokens, i) and tokens[i].text == "-":
        more = tokens[i + 1]
        if len(more.text) != 4 or not more.text.isdecimal() or not glued(tokens, i + 1):
            return None
        return f"{code}-{more.text}", i + 2
    return code, i


def _is_zip(tokens: Tokens, i: int) -> bool:
    """Five digits that no unit follows: `12500 sqft` is an area."""
    token = tokens[i]
    return (
        token.kind == "number"
        and len(token.text) == 5
        and token.text.isdecimal()
        and (tokens[i + 1].kind != "word" or tokens[i + 1].text.lower() in {"and", "at", "with"})
    )


def _is_state(token: Token) -> bool:
    return len(token.text) == 2 and token.text.isupper() and token.text.lower() in _STATES


def _is_letter(text: str) -> bool:
    return len(text) == 1 and text.isascii() and text.isalpha()


def _after_comma(tokens: Tokens, i: int) -> int:
    return i + 1 if tokens[i].text == "," else i


def _parted(tokens: Tokens, i: int) -> bool:
    """Whether punctuation or the end of the text parts off what follows."""
    text = tokens[i].text
    if text == "." or text in DASHES:
        return not glued(tokens, i + 1) and (text == "." or not glued(tokens, i))
    return text in _PARTING
