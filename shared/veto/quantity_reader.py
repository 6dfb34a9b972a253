"""The part of reading that knows numbers: amounts, dates, times, house numbers, and their signs."""

from __future__ import annotations

from shared.veto import words_grammar as grammar
from shared.veto.facts import PLAIN, QUANTITY
from shared.veto.lexer import Token
from shared.veto.notes import Notes
from shared.veto.quantities import SYMBOLS, Quantity, is_day, read_digits

GONE = Token("gone", "", "", glued=False)
"""Stands for a token that was read together with one before it."""
DOLLAR_PREFIXES = {
    "us": "usd",
    "c": "cad",
    "ca": "cad",
    "a": "aud",
    "au": "aud",
    "nz": "nzd",
    "hk": "hkd",
}


class QuantityReader(Notes):
    """Notes what a number or a sign begins. Methods return the index behind what they read."""

    def _sign(self, i: int) -> int:
        tokens, sign = self.tokens, self.tokens[i].text
        follow = tokens[i + 1] if i + 1 < len(tokens) else None
        if sign in SYMBOLS and follow is not None and follow.kind == "number":
            currency = SYMBOLS[sign]
            if sign == "$" and i and tokens[i].glued and tokens[i - 1].low in DOLLAR_PREFIXES:
                currency = DOLLAR_PREFIXES[tokens[i - 1].low]
            quantity = read_digits(tokens, i + 1, currency)
            return self._quantity(i + 1, quantity, sign + follow.text)
        if sign in {"½", "¼", "¾"}:
            digits = {"½": "0.5", "¼": "0.25", "¾": "0.75"}[sign]
            return self._quantity(i, Quantity(digits, "", "number", i + 1), sign)
        if sign == "&":
            self.line.append("and")
        elif sign == ":" and self.payload_from < 0:
            self.payload_from = len(self.line)
        elif sign == "-" and follow is not None and self._is_minus(i):
            self.operators.append("-")
            self.line.append("-")
        elif sign == "/" and i > 0 and follow is not None and tokens[i].glued and follow.glued:
            if tokens[i - 1].kind == "word" and follow.kind == "word":
                self.line.append("or")
        elif sign == "," and self.line and self.line[-1] != ",":
            self.line.append(",")
        return i + 1

    def _is_minus(self, i: int) -> bool:
        before, after = self.tokens[i - 1] if i else None, self.tokens[i + 1]
        if before is None:
            return after.kind == "number" and after.glued
        free = not self.tokens[i].glued and not after.glued
        negative = after.kind == "number" and after.glued and not self.tokens[i].glued
        operand = before.kind in {"number", "code"} or len(before.low) == 1
        return (
            free and operand and (after.kind in {"number", "code"} or len(after.low) == 1)
        ) or negative

    def _date(self, text: str) -> None:
        if "-" in text:
            year, month, day = text.split("-")
        else:
            first, second, year = text.split("/")
            month, day = (first, second) if first <= "12" and len(first) <= 2 else (second, first)
            if not (len(second) == 2 and second > "12") and not (len(first) == 2 and first > "12"):
                self._add(QUANTITY, f"# {text}", text, "date", value=text)
                return
        month, day = month.lstrip("0"), day.lstrip("0")
        for key in (f"month {month}", f"day {day}"):
            self._add(QUANTITY, key, text, "date", value=key)
        self._add(QUANTITY, f"# {year}", text, "year", value=year)

    def _clock(self, i: int, text: str) -> None:
        hour, _, minute = text.partition(":")
        follow = self.tokens[i + 1].low if i + 1 < len(self.tokens) else ""
        hours = int(hour)
        if follow in {"a", "p"} and [t.low for t in self.tokens[i + 2 : i + 5]] == [".", "m", "."]:
            follow += "m"
            for j in range(i + 2, i + 5):
                self.tokens[j] = GONE
        if follow in {"am", "pm"} and hours <= 12:
            hours = hours % 12 + (12 if follow == "pm" else 0)
            self.tokens[i + 1] = GONE
        value = f"{hours}:{minute}"
        self._add(QUANTITY, f"# {value} clock", text, "time", value=value, unit="clock")

    def _quantity(self, i: int, quantity: Quantity, text: str) -> int:
        tokens, end = self.tokens, quantity.end
        if quantity.unit in {"", "th"} and is_day(tokens, i, quantity):
            key = f"day {quantity.value}"
            self._add(QUANTITY, key, text, "date", value=key)
            return end
        written = _written(tokens, i, end, text)
        rule = quantity.rule
        if quantity.unit == "":
            self._find_street(end)
            if self.street_end > end:
                rule = "address"
        if quantity.rule == "ordinal":
            return self._ordinal(quantity.value, written, end)
        key = f"# {quantity.value} {quantity.unit}".rstrip()
        self._add(QUANTITY, key, written, rule, value=quantity.value, unit=quantity.unit)
        if quantity.unit:
            self.keys.add(quantity.unit)
        return end

    def _find_street(self, start: int) -> None:
        """Note how far a street name goes behind a house number."""
        tokens = self.tokens
        for j in range(start + 1, min(start + 5, len(tokens))):
            if tokens[j].kind not in {"word", "number"} and tokens[j].text != ".":
                return
            if tokens[j].low in grammar.SUFFIXES and tokens[start].kind in {"word", "number"}:
                self.street_end = j
                return

    def _ordinal(self, value: str, text: str, end: int) -> int:
        follow = self.tokens[end].low if end < len(self.tokens) else ""
        if follow in {"quarter", "half"} and value in {"1", "2", "3", "4"}:
            key = f"{follow[0]}{value}"
            self._add(QUANTITY, key, f"{text} {follow}", "quarter", value=key)
            return end + 1
        key = "first" if value == "1" else f"ordinal {value}"
        rule = "" if value == "1" else "ordinal"
        self._add(QUANTITY if rule else PLAIN, key, text, rule, value=key if rule else "")
        return end


def _written(tokens: list[Token], i: int, end: int, text: str) -> str:
    rest = "".join(("" if t.glued else " ") + t.text for t in tokens[i + 1 : end])
    return text + rest
