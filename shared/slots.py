"""Typed values in running text: amounts, quantities, areas and dates, each read into one spelling.

A reader starts at one token and either reads as far as a value of its type goes, without ever going
back, or reads nothing. It knows nothing of addresses, profiles, templates or requests.

Invariants
1. Two texts get one spelling only if they state the same value exactly: arithmetic is on decimal
   digits, units are never converted into each other, and a currency that is not said is not
   guessed ("$" alone means US dollars).
2. What can be read in two ways is not read: 1.250 (thousands in half of the world), 3/4/2024.
3. A spelling reads as itself.
4. Time is linear in the text: a reader looks at a bounded number of tokens.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import cache
from typing import NamedTuple

MAX_DIGITS = 18
DASHES = frozenset("-\u2013\u2014")
"""With space on both sides they part, as a comma does."""


class Token(NamedTuple):
    """A number, fraction, word, symbol, or the end; `start` and `end` are places in the text."""

    kind: str
    text: str
    start: int
    end: int


Tokens = Sequence[Token]
Reading = tuple[str, int] | None
"""The value in its one spelling, and the index of the token after it."""
Reader = Callable[[Tokens, int], Reading]


def word_list(text: str) -> tuple[str, ...]:
    """The words of a list that is written as a text."""
    return tuple(text.split())


def tokenise(text: str) -> list[Token]:
    """Cut text into tokens; spaces fall between them, line breaks are symbols. Ends in an `end`.

    The end stands apart from the last token: nothing is glued to nothing.
    """
    found = [
        Token(match.lastgroup or "", match[0], match.start(), match.end())
        for match in _token().finditer(text)
    ]
    found.append(Token("end", "", len(text) + 1, len(text) + 1))
    return found


def glued(tokens: Tokens, i: int) -> bool:
    """Whether token `i` follows the one before it without a space."""
    return i > 0 and tokens[i].start == tokens[i - 1].end


def decimal(text: str) -> str | None:
    """The one spelling of a decimal number: no commas, no idle zeros.

    None where groups are not of three digits, where the whole part starts with an idle zero, and
    for 1.250: a thousand and more to some, little more than one to others.
    """
    match = _DECIMAL.fullmatch(text)
    if match is None or len(text) > MAX_DIGITS:
        return None
    whole, fraction = match[1].replace(",", ""), match[2] or ""
    if len(fraction) == 3 and fraction.endswith("0") and whole != "0":
        return None
    fraction = fraction.rstrip("0")
    return f"{whole}.{fraction}" if fraction else whole


def read_integer(tokens: Tokens, i: int) -> Reading:
    """A whole number in digits, with a sign or without."""
    reading = read_number(tokens, i)
    return None if reading is None or "." in reading[0] else reading


def read_number(tokens: Tokens, i: int) -> Reading:
    """A decimal number in digits, with a sign or without."""
    sign = "-" if tokens[i].text in _MINUS and glued(tokens, i + 1) else ""
    i += len(sign)
    value = decimal(tokens[i].text) if tokens[i].kind == "number" else None
    if value is None:
        return None
    return ("0" if value == "0" else sign + value), i + 1


def read_beds(tokens: Tokens, i: int) -> Reading:
    """`3BR`, `3-bed`, `three bedrooms` → `3 beds`; never a part of one."""
    reading = _counted(tokens, i, _BEDS, "beds")
    return None if reading is None or "." in reading[0] else reading


def read_baths(tokens: Tokens, i: int) -> Reading:
    """`2.5BA`, `2 1/2 baths`, `two and a half bathrooms` → `2.5 baths`."""
    return _counted(tokens, i, _BATHS, "baths")


def read_area(tokens: Tokens, i: int) -> Reading:
    """`1,200 sq. ft.` → `1200 sqft`, `90 m²` → `90 sqm`, and acres and hectares as they are."""
    number = _quantity(tokens, i)
    if number is None:
        return None
    value, i = number
    i = _after_hyphen(tokens, i)
    first = _word(tokens, i)
    unit = _AREA_UNITS.get(first)
    if unit is not None:
        return f"{value} {unit}", i + 1
    if first in {"ft", "m"} and tokens[i + 1].text == "2" and glued(tokens, i + 1):
        return f"{value} {_SQUARES[first]}", i + 2
    if first not in {"sq", "square"}:
        return None
    i += 2 if tokens[i + 1].text == "." and glued(tokens, i + 1) else 1
    i = _after_hyphen(tokens, i)
    unit = _SQUARES.get(_word(tokens, i))
    return None if unit is None else (f"{value} {unit}", i + 1)


def read_money(tokens: Tokens, i: int) -> Reading:
    """`$450k`, `450,000 dollars`, `USD 450,000.00` → `450000 USD`. A currency must be named."""
    named, i = _currency_before(tokens, i)
    if tokens[i].kind == "number":
        amount, i = decimal(tokens[i].text), i + 1
    else:
        words = _number_words(tokens, i)
        amount, i = (None, i) if words is None else words
    if amount is None:
        return None
    places = _LETTER_SCALES.get(_word(tokens, i)) if glued(tokens, i) else None
    if places is None:
        places = _WORD_SCALES.get(_word(tokens, i))
    if places is not None:
        amount, i = _shifted(amount, places), i + 1
    after = _CURRENCIES_AFTER.get(_word(tokens, i))
    if after is not None:
        i += 1
        # "$" is any dollar until a code says which; all else must say one thing.
        if named not in {None, after} and not (named == "$" and after in _DOLLARS):
            return None
        named = after
    if named is None:
        return None
    return f"{amount} {'USD' if named == '$' else named}", i


def read_date(tokens: Tokens, i: int) -> Reading:
    """`May 1, 2024`, `1st of May 2024`, `2024-05-01`, `5/21/2024` → `2024-05-01`."""
    for read in (_date_in_digits, _date_month_first, _date_day_first):
        found = read(tokens, i)
        if found is not None:
            year, month, day, after = found
            legal = 1 <= month <= 12 and 1 <= day <= _days(year, month)
            return (f"{year:04}-{month:02}-{day:02}", after) if legal else None
    return None


def read_year(tokens: Tokens, i: int) -> Reading:
    """A year in four digits, 1500 to 2199."""
    token = tokens[i]
    is_year = token.kind == "number" and _YEAR.fullmatch(token.text) is not None
    return (token.text, i + 1) if is_year else None


_DECIMAL = re.compile(r"(0|[1-9][0-9]{0,2}(?:,[0-9]{3})+|[1-9][0-9]*)(?:\.([0-9]+))?")
_YEAR = re.compile(r"1[5-9][0-9]{2}|2[01][0-9]{2}")
_MINUS = frozenset({"-", "\N{MINUS SIGN}"})
_BEDS = frozenset(word_list("br brs bd bds bdr bdrm bdrms bed beds bedroom bedrooms"))
_BATHS = frozenset(word_list("ba bth bath baths bathroom bathrooms"))
_SQUARES = {
    **dict.fromkeys(("ft", "feet", "foot"), "sqft"),
    **dict.fromkeys(("m", "meter", "meters", "metre", "metres"), "sqm"),
}
_AREA_UNITS = {
    **dict.fromkeys(("sqft", "sf", "ft²"), "sqft"),
    **dict.fromkeys(("sqm", "m²"), "sqm"),
    **dict.fromkeys(("acre", "acres"), "acres"),
    **dict.fromkeys(("hectare", "hectares"), "hectares"),
}
_FRACTIONS = {"½": "5", "¼": "25", "¾": "75", "1/2": "5", "1/4": "25", "3/4": "75"}
# The yen sign is also the yuan's: it stays what it is.
_SYMBOLS = {"$": "$", "€": "EUR", "£": "GBP", "¥": "¥", "₹": "INR"}
_DOLLARS_BY_PREFIX = {
    "us": "USD",
    "c": "CAD",
    "ca": "CAD",
    "a": "AUD",
    "au": "AUD",
    "nz": "NZD",
    "hk": "HKD",
}
_DOLLARS = frozenset(_DOLLARS_BY_PREFIX.values())
_CODES = {
    code.lower(): code for code in (*_DOLLARS, "EUR", "GBP", "CHF", "JPY", "CNY", "INR", "MXN")
}
_CURRENCIES_AFTER = {
    **_CODES,
    "dollar": "USD",
    "dollars": "USD",
    "euro": "EUR",
    "euros": "EUR",
}
_LETTER_SCALES = {"k": 3, "m": 6, "mm": 6, "b": 9, "bn": 9}
_WORD_SCALES = {"thousand": 3, "million": 6, "billion": 9}
_ONES = {
    word: value
    for value, word in enumerate(
        word_list(
            "one two three four five six seven eight nine ten eleven twelve thirteen fourteen "
            "fifteen sixteen seventeen eighteen nineteen"
        ),
        start=1,
    )
}
_TENS = {
    word: 10 * value
    for value, word in enumerate(
        word_list("twenty thirty forty fifty sixty seventy eighty ninety"), start=2
    )
}
NUMBER_WORDS = frozenset({*_ONES, *_TENS, "hundred", *_WORD_SCALES, "half"})
_MONTHS = {
    **{
        name[:length]: number
        for number, name in enumerate(
            word_list(
                "january february march april may june july august september october november "
                "december"
            ),
            start=1,
        )
        for length in (3, len(name))
    },
    "sept": 9,
}
_ORDINALS = frozenset({"st", "nd", "rd", "th"})


@cache
def _token() -> re.Pattern[str]:
    # A run of digits, points and commas is one token, so that a malformed number is not cut into
    # two good ones. "m²" is a word. Letters are spelt out, not Unicode's: edge and origin may run
    # versions of Python that know different ones, and must read the same.
    letters = "[A-Za-z\u00b2\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u024f]+"
    return re.compile(
        rf"(?P<number>[0-9]+(?:[.,][0-9]+)*)|(?P<fraction>[½¼¾])"
        rf"|(?P<word>{letters}(?:['\u2019]{letters})*)|(?P<symbol>[^ \t\xa0])"
    )


def _word(tokens: Tokens, i: int) -> str:
    """The word at `i` in lower case; empty where there is none."""
    return tokens[i].text.lower() if tokens[i].kind == "word" else ""


def _after_hyphen(tokens: Tokens, i: int) -> int:
    hyphen = tokens[i].text == "-" and glued(tokens, i) and glued(tokens, i + 1)
    return i + 1 if hyphen else i


def _counted(tokens: Tokens, i: int, units: frozenset[str], unit: str) -> Reading:
    number = _quantity(tokens, i)
    if number is None:
        return None
    i = _after_hyphen(tokens, number[1])
    return (f"{number[0]} {unit}", i + 1) if _word(tokens, i) in units else None


def _quantity(tokens: Tokens, i: int) -> Reading:
    """A number that may have a fraction: `2.5`, `2½`, `2 1/2`, `1/2`, `two and a half`."""
    half = _fraction(tokens, i)
    if half is not None:
        return f"0.{half[0]}", half[1]
    if tokens[i].kind == "number":
        value, i = decimal(tokens[i].text), i + 1
    else:
        words = _number_words(tokens, i)
        value, i = (None, i) if words is None else words
    if value is None or "." in value:
        return None if value is None else (value, i)
    half = _fraction(tokens, i)
    if half is not None and (tokens[i].kind == "fraction" or not glued(tokens, i)):
        return f"{value}.{half[0]}", half[1]
    if [_word(tokens, j) for j in range(i, min(i + 3, len(tokens)))] == ["and", "a", "half"]:
        return f"{value}.5", i + 3
    return value, i


def _fraction(tokens: Tokens, i: int) -> Reading:
    """The digits after the point of a fraction, `5` for a half."""
    if tokens[i].kind == "fraction":
        return _FRACTIONS[tokens[i].text], i + 1
    if tokens[i].kind == "number" and tokens[i + 1].text == "/":
        digits = _FRACTIONS.get(f"{tokens[i].text}/{tokens[i + 2].text}")
        if digits is not None and glued(tokens, i + 1) and glued(tokens, i + 2):
            return digits, i + 3
    return None


def _number_words(tokens: Tokens, i: int) -> Reading:
    """`two hundred and five`, `four hundred fifty thousand`; scales fall from left to right."""
    total, places = 0, 10
    while True:
        part = _hundreds(tokens, i)
        if part is None:
            return (str(total), i) if total else None
        value, i = part
        scale = _WORD_SCALES.get(_word(tokens, i), 0)
        if scale >= places:
            return None
        total += value * 10**scale
        if scale == 0:
            return str(total), i
        places, i = scale, i + 1


def _hundreds(tokens: Tokens, i: int) -> tuple[int, int] | None:
    head = _below_hundred(tokens, i)
    if head is None:
        return None
    value, i = head
    if value < 10 and _word(tokens, i) == "hundred":
        value, i = value * 100, i + 1
        rest = _below_hundred(tokens, i + 1 if _word(tokens, i) == "and" else i)
        if rest is not None:
            return value + rest[0], rest[1]
    return value, i


def _below_hundred(tokens: Tokens, i: int) -> tuple[int, int] | None:
    word = _word(tokens, i)
    if word in _ONES:
        return _ONES[word], i + 1
    if word not in _TENS:
        return None
    i = _after_hyphen(tokens, i + 1)
    one = _ONES.get(_word(tokens, i), 10)
    return (_TENS[word] + one, i + 1) if one < 10 else (_TENS[word], i)


def _currency_before(tokens: Tokens, i: int) -> tuple[str | None, int]:
    if tokens[i].kind == "symbol":
        named = _SYMBOLS.get(tokens[i].text)
        return named, i if named is None else i + 1
    word = _word(tokens, i)
    if word in _DOLLARS_BY_PREFIX and tokens[i + 1].text == "$" and glued(tokens, i + 1):
        return _DOLLARS_BY_PREFIX[word], i + 2
    return (_CODES[word], i + 1) if word in _CODES else (None, i)


def _shifted(number: str, places: int) -> str:
    """`number` times ten to the power of `places`, exactly."""
    whole, _, fraction = number.partition(".")
    digits = whole + fraction[:places].ljust(places, "0")
    rest = fraction[places:]
    digits = digits.lstrip("0") or "0"
    return f"{digits}.{rest}" if rest else digits


def _date_in_digits(tokens: Tokens, i: int) -> tuple[int, int, int, int] | None:
    parts = tokens[i : i + 5]
    if len(parts) < 5 or any(part.kind != "number" for part in parts[::2]):
        return None
    if parts[1].text != parts[3].text or not all(glued(tokens, j) for j in range(i + 1, i + 5)):
        return None
    texts = [part.text for part in parts[::2]]
    if not all(text.isdecimal() and len(text) <= 4 for text in texts):
        return None
    first, second, third = (int(text) for text in texts)
    if parts[1].text == "-" and [len(text) for text in texts] == [4, 2, 2]:
        return first, second, third, i + 5
    if parts[1].text == "/" and len(texts[2]) == 4:
        # Only where one of the two cannot be a month does the order show.
        if first <= 12 < second:
            return third, first, second, i + 5
        if second <= 12 < first:
            return third, second, first, i + 5
    return None


def _date_month_first(tokens: Tokens, i: int) -> tuple[int, int, int, int] | None:
    month = _MONTHS.get(_word(tokens, i))
    if month is None:
        return None
    i += 2 if tokens[i + 1].text == "." and glued(tokens, i + 1) else 1
    day = _day(tokens, i)
    if day is None:
        return None
    i = day[1] + 1 if tokens[day[1]].text == "," else day[1]
    year = read_year(tokens, i)
    return None if year is None else (int(year[0]), month, day[0], year[1])


def _date_day_first(tokens: Tokens, i: int) -> tuple[int, int, int, int] | None:
    day = _day(tokens, i)
    if day is None:
        return None
    i = day[1] + 1 if _word(tokens, day[1]) == "of" else day[1]
    month = _MONTHS.get(_word(tokens, i))
    if month is None:
        return None
    i += 2 if tokens[i + 1].text in {".", ","} and glued(tokens, i + 1) else 1
    year = read_year(tokens, i)
    return None if year is None else (int(year[0]), month, day[0], year[1])


def _day(tokens: Tokens, i: int) -> tuple[int, int] | None:
    token = tokens[i]
    if token.kind != "number" or not token.text.isdecimal() or len(token.text) > 2:
        return None
    ordinal = _word(tokens, i + 1) in _ORDINALS and glued(tokens, i + 1)
    return int(token.text), i + 2 if ordinal else i + 1


def _days(year: int, month: int) -> int:
    if month == 2:
        return 29 if year % 4 == 0 and (year % 100 != 0 or year % 400 == 0) else 28
    return 30 if month in {4, 6, 9, 11} else 31
