"""What a pass over a text has noted so far, and the `Facts` that come of it."""

from __future__ import annotations

from shared.slots import word_list
from shared.veto.facts import Facts, Term
from shared.veto.lexer import Token
from shared.veto.questions import aspect_of, questions_of, tense_of
from shared.veto.roles import negation_targets

_TEXT_WORK = frozenset(
    word_list("""
        translate translation rewrite rephrase paraphrase proofread correct summarize
        summarise shorten polish edit polite formal grammar spelling classify reply respond
        continue improve""")
)


class Notes:
    """The state of one pass. `_add` notes a term at the end of the line."""

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

    def facts(self) -> Facts:
        """What the rules need of it."""
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


def _plain(tokens: list[Token]) -> tuple[str, ...]:
    kept = [
        token.text if token.kind in {"block", "tick", "quoted"} else token.low for token in tokens
    ]
    while kept and kept[-1] in {".", "!", "?", ",", ";", ":", "…"}:
        kept.pop()
    return tuple(kept)
