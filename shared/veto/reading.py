"""Read a text into `Facts`: one pass over its tokens, longest phrase first."""

from __future__ import annotations

from shared.slots import word_list
from shared.veto import words_grammar as grammar
from shared.veto.contractions import expanded
from shared.veto.facts import CODE, NAME, PLAIN, QUANTITY, THING, UNSURE, Facts, Term
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
from shared.veto.questions import aspect_of, questions_of, tense_of
from shared.veto.roles import negation_targets

_STARTS = frozenset({".", "!", "?", ":", "\n", "(", '"', "-", "*", "•"})
_TEXT_WORK = frozenset(
    word_list("""
        translate translation rewrite rephrase paraphrase proofread correct summarize
        summarise shorten polish edit polite formal grammar spelling classify reply respond
        continue improve""")
)
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


class _Reader:
    """The state of one pass."""

    def __init__(self, tokens: list[Token]) -> None:
        self.tokens = tokens
        self.plain = _plain(tokens)
        self.line: list[str] = []
        self.terms: list[Term] = []
        self.keys: set[str] = set()
        self.lows: list[str] = []
        self.bounds: set[str] = set()
        self.quoted: list[str] = []
        self.blocks: list[str] = []
        self.operators: list[str] = []
        self.soft_ones = False
        self.street_end = -1
        self.payload_from = -1
        words = [t for t in tokens if t.kind == "word" and len(t.text) > 3]
        capitals = sum(t.text[0].isupper() for t in words[1:])
        self.cased = capitals <= max(2, 0.6 * (len(words) - 1))
        self.shouted = bool(words) and all(t.text.isupper() for t in words)

    def run(self) -> None:
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

    def facts(self) -> Facts:
        line = tuple(self.line)
        questions = questions_of(self.lows)
        tense, modal_perfect = tense_of(self.lows)
        return Facts(
            plain=self.plain,
            line=line,
            terms=tuple(self.terms),
            keys=frozenset(self.keys),
            negations=negation_targets(line, self.terms),
            bounds=frozenset(self.bounds),
            questions=questions if self._asks_once() else frozenset(),
            tense=tense,
            question_mark=any(token.text == "?" for token in self.tokens),
            aspect=aspect_of(self.lows) if self._asks_once() else "",
            modal_perfect=modal_perfect,
            soft_ones=self.soft_ones,
            operators=tuple(sorted(self.operators)),
            quoted=tuple(self.quoted),
            blocks=tuple(self.blocks),
            payload=self._payload(),
        )

    def _asks_once(self) -> bool:
        return sum(token.text == "?" for token in self.tokens) < 2

    def _payload(self) -> tuple[str, ...]:
        if self.payload_from < 0 or not _TEXT_WORK.intersection(self.line[: self.payload_from]):
            return ()
        return tuple(self.line[self.payload_from :])

    def _add(
        self, sort: str, key: str, text: str, rule: str, *, groups: frozenset[str] = frozenset(),
        value: str = "", unit: str = "",
    ) -> None:  # fmt: skip
        self.terms.append(Term(sort, key, text, len(self.line), rule, groups, value, unit))
        self.keys.add(key)
        self.line.append(key)

    def _sign(self, i: int) -> int:
        tokens, sign = self.tokens, self.tokens[i].text
        follow = tokens[i + 1] if i + 1 < len(tokens) else None
        if sign in SYMBOLS and follow is not None and follow.kind == "number":
            currency = SYMBOLS[sign]
            if sign == "$" and i and tokens[i].glued and tokens[i - 1].low in _DOLLAR_PREFIXES:
                currency = _DOLLAR_PREFIXES[tokens[i - 1].low]
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
                self.tokens[j] = _GONE
        if follow in {"am", "pm"} and hours <= 12:
            hours = hours % 12 + (12 if follow == "pm" else 0)
            self.tokens[i + 1] = _GONE
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

    def _word(self, i: int) -> int:
        tokens, token = self.tokens, self.tokens[i]
        low = token.low
        if i <= self.street_end:
            return self._street(i, token)
        end = self._phrase(i)
        if end > i:
            return end
        if low == "us" and token.text == "US" and not self.shouted:
            self._known(i, look_up("usa"), token, 1)
            return i + 1
        follow = tokens[i + 1] if i + 1 < len(tokens) else None
        if follow is not None and follow.glued:
            if follow.text == "(":
                self.lows.append(low)
                self._add(CODE, low, token.text, "identifier")
                return i + 1
            if follow.text == "-" and i + 2 < len(tokens) and tokens[i + 2].glued:
                if low in {"non", "anti"}:
                    word = low + tokens[i + 2].low
                    self._known(i, look_up(word), Token("word", word, word, glued=False), 1)
                    return i + 3
                if tokens[i + 2].low == "free" and low in _FREE:
                    self.line.append("not")
                    self._known(i, look_up(low), token, 1)
                    return i + 3
            if follow.text == "$" and low in _DOLLAR_PREFIXES:
                return i + 1
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


_GONE = Token("gone", "", "", glued=False)
_WITHIN = frozenset("-./")
_LIMITS = {"over": "gt", "above": "gt", "under": "lt", "below": "lt"}
_ACRONYMS = frozenset({"it", "who", "or", "in", "me"})
_FIELD_WORDS = frozenset({"key", "column", "field", "attribute", "property"})
_CODE_GROUPS = frozenset({"proglang", "database", "framework"})
_DOLLAR_PREFIXES = {
    "us": "usd",
    "c": "cad",
    "ca": "cad",
    "a": "aud",
    "au": "aud",
    "nz": "nzd",
    "hk": "hkd",
}


def _written(tokens: list[Token], i: int, end: int, text: str) -> str:
    rest = "".join(("" if t.glued else " ") + t.text for t in tokens[i + 1 : end])
    return text + rest


def _plain(tokens: list[Token]) -> tuple[str, ...]:
    kept = [
        token.text if token.kind in {"block", "tick", "quoted"} else token.low for token in tokens
    ]
    while kept and kept[-1] in {".", "!", "?", ",", ";", ":", "…"}:
        kept.pop()
    return tuple(kept)
