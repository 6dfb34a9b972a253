"""Read a text into `Facts`: one pass over its tokens, longest phrase first."""

from __future__ import annotations

from shared.slots import word_list
from shared.veto import words_grammar as grammar
from shared.veto.contractions import expanded
from shared.veto.facts import CODE, NAME, PLAIN, QUANTITY, THING, UNSURE, Facts
from shared.veto.inflection import singular
from shared.veto.lexer import Token, cut
from shared.veto.lexicon import (
    BOUND,
    ENTRIES,
    MONTH,
    NEGATION,
    NUMBER,
    ORDINAL,
    PHRASES,
    QUESTION,
    RELATIVE,
    STOP,
    STRICT,
    UNIT,
    UNKNOWN,
    WEEKDAY,
    Entry,
    look_up,
)
from shared.veto.quantities import SYMBOLS, Quantity, is_day, read_digits, read_words
from shared.veto.quantity_reader import DOLLAR_PREFIXES, QuantityReader

_STARTS = frozenset({".", "!", "?", ":", "\n", "(", '"', "-", "*", "•"})
_FREE = frozenset(
    word_list("""
        sugar gluten dairy fat nut lactose alcohol caffeine tax error risk interest carbon
        salt""")
)


def read(text: str) -> Facts:
    """The facts of `text`. Any text can be read."""
    tokens = expanded(cut(text))
    reader = _Reader(tokens)
    reader.run()
    return reader.facts()


class _Reader(QuantityReader):
    """One pass: tokens are told apart here, and words are read."""

    def run(self) -> None:
        """Read all of it."""
        tokens, i, size = self.tokens, 0, len(self.tokens)
        while i < size:
            token = tokens[i]
            kind = token.kind
            if kind == "gone":
                i += 1
            elif kind == "word":
                i = self._word(i)
            elif kind == "number":
                i = self._quantity(i, read_digits(tokens, i, ""), token.text)
            elif kind == "sign":
                i = self._sign(i)
            else:
                self._other(i, token)
                i += 1

    def _other(self, i: int, token: Token) -> None:
        kind, text = token.kind, token.text
        if kind == "block":
            self.blocks.append("".join(text.split()))
            self.line.append("block")
        elif kind == "quoted":
            inner = " ".join(text[1:-1].split()).strip(" .,!?")
            self.quoted.append(inner)
            for each in expanded(cut(inner)):
                entry = look_up(each.low) if each.kind == "word" else None
                key = entry.key if entry else each.low
                if each.kind in {"word", "number", "code"}:
                    self.keys.add(key)
                    self.line.append(key)
        elif kind == "tick":
            inner = "".join(text[1:-1].split())
            self._add(CODE, inner.lower() if inner.isidentifier() else inner, text, "code")
            self.keys.add(singular(inner.lower()))
        elif kind == "operator":
            self._operator(i, text)
        elif kind == "clang":
            entry = look_up(token.low)
            self._add(THING, entry.key, text, "proglang", groups=entry.groups)
        elif kind == "date":
            self._date(text)
        elif kind == "clock":
            self._clock(i, text)
        elif kind == "ratio":
            value = {"1/2": "0.5", "1/4": "0.25", "3/4": "0.75"}.get(text, text)
            self._add(QUANTITY, f"# {value}", text, "number", value=value)
        else:
            self._code(i, token)

    def _code(self, i: int, token: Token) -> None:
        low = token.low.rstrip("/.")
        entry = look_up(low)
        if entry.kind != UNKNOWN and ("_" not in low or low in ENTRIES):
            self._known(i, entry, token, 1)
            return
        self._add(CODE, low.removesuffix("()"), token.text, "identifier")

    def _operator(self, i: int, text: str) -> None:
        tokens = self.tokens
        if text in {"<", ">"}:
            follow = tokens[i + 1] if i + 1 < len(tokens) else None
            if follow is None or follow.kind == "sign":
                return
        if text in {"+", "*", "|", "~", "^"} and not (0 < i < len(tokens) - 1):
            return
        if (
            text in {"*", "~", "|"}
            and tokens[i - 1].kind in {"word", "sign"}
            and len(tokens[i - 1].text) > 1
        ):
            return
        self.operators.append(text)
        self.line.append(text)

    def _word(self, i: int) -> int:
        tokens, token = self.tokens, self.tokens[i]
        low = token.low
        if i <= self.street_end:
            return self._street(i, token)
        end = self._phrase(i)
        if end > i:
            return end
        follow = tokens[i + 1] if i + 1 < len(tokens) else None
        glued = follow.text if follow is not None and follow.glued else ""
        if glued == "$" and low in DOLLAR_PREFIXES:
            return i + 1
        if low == "us" and token.text == "US" and not self.shouted:
            self._known(i, look_up("usa"), token, 1)
            return i + 1
        if glued:
            if glued == "(":
                self.lows.append(low)
                self._add(CODE, low, token.text, "identifier")
                return i + 1
            if glued == "-" and i + 2 < len(tokens) and tokens[i + 2].glued:
                if low in {"non", "anti"}:
                    word = low + tokens[i + 2].low
                    self._known(i, look_up(word), Token("word", word, word, glued=False), 1)
                    return i + 3
                if tokens[i + 2].low == "free" and low in _FREE:
                    self.line.append("not")
                    self._known(i, look_up(low), token, 1)
                    return i + 3
        entry = look_up(low)
        if entry.kind == NUMBER:
            quantity = read_words(tokens, i)
            if quantity is not None and quantity.end > i:
                return self._quantity(i, quantity, token.text)
            self.soft_ones = self.soft_ones or quantity is None
            self.lows.append(low)
            return i + 1
        if entry.kind == ORDINAL and not (low == "second" and i and tokens[i - 1].kind == "number"):
            self.lows.append(low)
            quantity = Quantity(entry.key, "th", "ordinal", i + 1)
            if is_day(tokens, i, quantity):
                return self._quantity(i, quantity, token.text)
            return self._ordinal(entry.key, token.text, i + 1)
        if low == "twice":
            self.lows.append(low)
            return self._quantity(i, Quantity("2", "time", "quantity", i + 1), token.text)
        if (
            low in _LIMITS
            and i + 1 < len(tokens)
            and (tokens[i + 1].kind == "number" or tokens[i + 1].text in SYMBOLS)
        ):
            entry = Entry(BOUND, _LIMITS[low])
        if low == "may" and self._is_may(i):
            entry = Entry(MONTH, "month 5", frozenset({"month"}))
        self._known(i, entry, token, 1)
        return i + 1

    def _phrase(self, i: int) -> int:
        """Read the longest phrase that starts at token `i`; the index behind it, else `i`."""
        tokens = self.tokens
        for rest, word in PHRASES.get(tokens[i].low, ()):
            if not self._matches(i, rest):
                continue
            end = self._skip(i, len(rest))
            if word == "please":
                self.lows.append(word)
                return end
            text = " ".join(token.text for token in tokens[i:end] if token.kind != "sign")
            entry = look_up(word)
            if entry.kind == NUMBER:
                return self._quantity(end - 1, Quantity(entry.key, "", "number", end), text)
            self._known(i, entry, Token("word", text, word, glued=False), len(rest) + 1)
            return end
        return i

    def _matches(self, i: int, rest: tuple[str, ...]) -> bool:
        tokens, j = self.tokens, i + 1
        for word in rest:
            if j < len(tokens) and tokens[j].text in _WITHIN and tokens[j].glued:
                j += 1
            if j >= len(tokens) or tokens[j].low != word:
                return False
            j += 1
        return True

    def _skip(self, i: int, size: int) -> int:
        tokens, j = self.tokens, i + 1
        for _ in range(size):
            if tokens[j].text in _WITHIN:
                j += 1
            j += 1
        return j

    def _is_may(self, i: int) -> bool:
        tokens = self.tokens
        near = [tokens[j] for j in (i - 1, i + 1) if 0 <= j < len(tokens)]
        lead = tokens[i - 1].low if i else ""
        return any(t.kind == "number" for t in near) or (
            lead in {"in", "of", "by", "since", "until", "last", "next", "during"}
        )

    def _street(self, i: int, token: Token) -> int:
        low = token.low
        if i == self.street_end:
            key = grammar.SUFFIX_SHORT.get(low, low)
        else:
            key = grammar.DIRECTIONS.get(low, low)
        self.lows.append(low)
        self._add(NAME, key, token.text, "address")
        return i + 1

    def _known(self, i: int, entry: Entry, token: Token, size: int) -> None:
        kind, key, low = entry.kind, entry.key, token.low
        self.lows.append(low)
        if kind in {STOP, QUESTION}:
            if key not in grammar.SKIPPED:
                self.line.append(key)
            shown = self.cased and not self.shouted and token.text.isupper()
            if shown and (low in _ACRONYMS or (low == "a" and self._is_name(i, token, 1))):
                self._add(NAME, f"{low}.", token.text, "name")
            self.keys.add(f"{low}.")
        elif kind == NEGATION:
            self.line.append(key)
        elif kind == BOUND:
            self.bounds.add(key)
            self.line.append(key)
            self.keys.add({"ge": "minimum", "le": "maximum"}.get(key, key))
        elif kind == UNIT:
            self._add(THING, key, token.text, next(iter(entry.groups)), groups=entry.groups)
        elif kind in {MONTH, WEEKDAY, RELATIVE}:
            self._add(QUANTITY, key, token.text, "date", value=key)
        elif low in grammar.AMBIGUOUS and token.text.islower():
            self._add(PLAIN, key, token.text, "")
        elif self._is_field(i):
            self._add(CODE, low, token.text, "identifier")
        elif entry.groups:
            if "layout" in entry.groups and self.line and self.line[-1] in {"as", "in", "into"}:
                entry = entry._replace(groups=entry.groups | {"format"})
            rule = next(iter(entry.groups & STRICT or entry.groups))
            self._add(THING, key, token.text, rule, groups=entry.groups)
        elif kind == UNKNOWN:
            self._unknown(i, key, token)
        elif self._is_name(i, token, size):
            self._add(NAME, key, token.text, "name")
        else:
            self._add(PLAIN, key, token.text, "")

    def _is_field(self, i: int) -> bool:
        """Whether the word names a field: "sort … by price" in a text about code."""
        low = self.tokens[i].low
        if not self.line or low in _FIELD_WORDS or low.endswith("ing"):
            return False
        before = self.line[-2:]
        if before[-1] != "by" and before[:1] != ["by"]:
            return False
        if before[-1] != "by" and before[-1] not in _FIELD_WORDS:
            return False
        return any(t.sort == CODE or not t.groups.isdisjoint(_CODE_GROUPS) for t in self.terms)

    def _unknown(self, i: int, key: str, token: Token) -> None:
        low = token.low
        if len(low) == 2 and low[0] in "qh" and low[1].isdecimal():
            self._add(QUANTITY, low, token.text, "quarter", value=low)
            return
        if any(c.isdecimal() for c in low):
            self._add(CODE, low, token.text, "identifier")
            return
        sure = self._is_name(i, token, 1)
        self._add(NAME, key, token.text, "name" if sure else UNSURE)

    def _is_name(self, i: int, token: Token, size: int) -> bool:
        text = token.text
        if not self.cased or not text[0].isupper() or self.shouted:
            return False
        before = self.tokens[i - 1] if i else None
        return size == 1 and before is not None and before.text not in _STARTS


_WITHIN = frozenset("-./")
_LIMITS = {"over": "gt", "above": "gt", "under": "lt", "below": "lt"}
_ACRONYMS = frozenset({"it", "who", "or", "in", "me"})
_FIELD_WORDS = frozenset({"key", "column", "field", "attribute", "property"})
_CODE_GROUPS = frozenset({"proglang", "database", "framework"})
