"""Numbers in running text: digits, words, scales, units, money, times, days, fractions.

A quantity has one value in one spelling ("450k", "$450,000" and "four hundred fifty thousand" are
450000) and a unit, "" where none is named. Units are never converted: 1 km is not 1000 m here.
"""

from __future__ import annotations

from typing import NamedTuple

from shared.veto import words_grammar as grammar
from shared.veto.lexer import Token
from shared.veto.lexicon import ENTRIES, MONTH, NUMBER, PHRASES, SCALES, UNIT_OF

SYMBOLS = {"$": "usd", "€": "eur", "£": "gbp", "¥": "yen", "₹": "inr", "₽": "rub", "₿": "btc"}
_FRACTIONS = {"½": "5", "¼": "25", "¾": "75"}
_HALVES = {"1/2": "5", "1/4": "25", "3/4": "75"}
_ORDINAL_ENDINGS = frozenset({"st", "nd", "rd", "th"})
_MAX_NUMERALS = 16


class Quantity(NamedTuple):
    """Value, unit, rule that speaks for it, and the index of the token after it."""

    value: str
    unit: str
    rule: str
    end: int


def read_digits(tokens: list[Token], i: int, currency: str) -> Quantity:
    """The quantity whose digits are token `i`; `currency` is that of the sign before it, or ""."""
    token = tokens[i]
    value, i = token.low.replace(",", ""), i + 1
    if value.startswith("."):
        value = "0" + value
    follow = tokens[i] if i < len(tokens) else None
    if follow is not None and follow.glued and follow.kind == "word":
        low = follow.low
        if low in _ORDINAL_ENDINGS:
            return Quantity(value, "th", "ordinal", i + 1)
        if low == "s":
            return Quantity(value, "s", "year", i + 1)
        if low in {"am", "pm"}:
            return _clock(value, low, i + 1)
        if low in SCALES and (low != "m" or currency or follow.text == "M"):
            value, i = shifted(value, SCALES[low]), i + 1
            return _with_unit(tokens, i, value, currency)
        if len(low) == 1 and low not in "mlgk" and not (low in "fc" and follow.text.isupper()):
            return Quantity(value + low, "", "number", i + 1)
    elif follow is not None:
        fraction = follow.text if follow.kind == "ratio" else ""
        if fraction in _HALVES and "." not in value:
            return _with_unit(tokens, i + 1, f"{value}.{_HALVES[fraction]}", currency)
        if follow.low in _FRACTIONS and "." not in value:
            return _with_unit(tokens, i + 1, f"{value}.{_FRACTIONS[follow.low]}", currency)
        if follow.low in {"am", "pm"} or (follow.low in {"a", "p"} and _dotted_m(tokens, i)):
            return _clock(value, follow.low[0] + "m", i + (1 if len(follow.low) == 2 else 4))
        if follow.low in SCALES and len(follow.low) > 2:
            return _with_unit(tokens, i + 1, shifted(value, SCALES[follow.low]), currency)
    return _with_unit(tokens, i, value, currency)


def read_words(tokens: list[Token], i: int) -> Quantity | None:
    """The quantity that is spelt out from token `i` on; None where it is a bare "one"."""
    total, part, seen, start = 0, 0, 0, i
    while i < len(tokens) and i - start < _MAX_NUMERALS:
        low = tokens[i].low
        if low == "and" and seen and _is_numeral(tokens, i + 1):
            i += 1
            continue
        if low == "-" and seen and _is_numeral(tokens, i + 1):
            i += 1
            continue
        entry = ENTRIES.get(low)
        if entry is None or entry.kind != NUMBER:
            break
        number = int(entry.key)
        if number == 100:
            part = max(part, 1) * 100
        elif number in {12, 6, 2} and low in {"dozen", "halfdozen", "couple"}:
            part = max(part, 1) * number
        elif number >= 1000:
            total, part = total + max(part, 1) * number, 0
        elif part and (part % 100 == 0 or (part % 100 >= 20 and part % 10 == 0 and number < 10)):
            part += number
        elif seen:
            break
        else:
            part = number
        seen, i = seen + 1, i + 1
    value = str(total + part)
    if [token.low for token in tokens[i : i + 3]] == ["and", "a", "half"]:
        value, i = value + ".5", i + 3
    found = _with_unit(tokens, i, value, "")
    if value == "1" and i == start + 1 and not found.unit:
        return None
    return found


def is_day(tokens: list[Token], i: int, quantity: Quantity) -> bool:
    """Whether the quantity that starts at token `i` is the day of a month named beside it."""
    if quantity.unit not in {"", "th"} or len(quantity.value) > 2 or not quantity.value.isdecimal():
        return False
    j = quantity.end
    if j < len(tokens) and tokens[j].low == "of":
        j += 1
    return (
        _is_month(tokens, j)
        or (i > 0 and _is_month(tokens, i - 1))
        or (i > 1 and tokens[i - 1].low in {".", "the"} and _is_month(tokens, i - 2))
    )


def shifted(number: str, places: int) -> str:
    """`number` times ten to the power of `places`, exactly, without idle zeros."""
    whole, _, fraction = number.partition(".")
    fraction = fraction.replace(".", "")
    digits = (whole + fraction[:places].ljust(places, "0")).lstrip("0") or "0"
    rest = fraction[places:].rstrip("0")
    return f"{digits}.{rest}" if rest else digits


def _with_unit(tokens: list[Token], i: int, value: str, currency: str) -> Quantity:
    unit, end = _unit(tokens, i)
    if unit in grammar.CURRENCIES:
        named = unit if currency in {"", "usd", "yen"} else currency
        return Quantity(shifted(value, 0), named, "money", end)
    if currency:
        return Quantity(shifted(value, 0), currency, "money", i)
    if not unit:
        year = len(value) == 4 and value.isdecimal() and "1500" <= value < "2200"
        return Quantity(value, "", "year" if year else "number", i)
    if unit in {"year", "month"} and [t.low for t in tokens[end : end + 1]] == ["old"]:
        end += 1
    rule = {"percent": "percent"}.get(unit, "quantity")
    return Quantity(shifted(value, 0), unit, rule, end)


def _unit(tokens: list[Token], i: int) -> tuple[str, int]:
    """The unit that starts at token `i`, and the index of the token after it."""
    if i < len(tokens) and tokens[i].low == "-" and tokens[i].glued:
        i += 1
    if i >= len(tokens):
        return "", i
    low = tokens[i].low
    if low == "%":
        return "percent", i + 1
    if low == "°" or (low in {"degrees", "degree"} and i + 1 < len(tokens)):
        follow = tokens[i + 1].low if i + 1 < len(tokens) else ""
        scale = {
            "c": "celsius",
            "f": "fahrenheit",
            "celsius": "celsius",
            "fahrenheit": "fahrenheit",
        }
        return (scale[follow], i + 2) if follow in scale else ("degree", i + 1)
    if low in {"f", "c"} and tokens[i].text.isupper():
        return ("fahrenheit" if low == "f" else "celsius"), i + 1
    for rest, word in PHRASES.get(low, ()):
        size = len(rest)
        if UNIT_OF.get(word) and tuple(t.low for t in tokens[i + 1 : i + 1 + size]) == rest:
            return UNIT_OF[word], i + 1 + size
    if low == "sq" and [t.low for t in tokens[i + 1 : i + 3]] in ([".", "ft"], [".", "m"]):
        end = i + 4 if i + 3 < len(tokens) and tokens[i + 3].low == "." else i + 3
        return "sq" + tokens[i + 2].low, end
    unit = UNIT_OF.get(low, "")
    if low in {"m", "l", "g"} and not tokens[i].glued:
        unit = unit if i + 1 >= len(tokens) or tokens[i + 1].kind != "code" else ""
    return unit, (i + 1 if unit else i)


def _clock(value: str, half: str, end: int) -> Quantity:
    hours, _, minutes = value.replace(".", ":").partition(":")
    if len(hours) > 2:
        return Quantity(value, half, "time", end)
    hour = int(hours) % 12 + (12 if half == "pm" else 0)
    return Quantity(f"{hour}:{minutes or '00'}", "clock", "time", end)


def _dotted_m(tokens: list[Token], i: int) -> bool:
    return [token.low for token in tokens[i + 1 : i + 4]] == [".", "m", "."]


def _is_numeral(tokens: list[Token], i: int) -> bool:
    entry = ENTRIES.get(tokens[i].low) if i < len(tokens) else None
    return entry is not None and entry.kind == NUMBER


def _is_month(tokens: list[Token], i: int) -> bool:
    if not 0 <= i < len(tokens):
        return False
    entry = ENTRIES.get(tokens[i].low)
    return (entry is not None and entry.kind == MONTH) or tokens[i].low == "may"
