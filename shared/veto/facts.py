"""What the veto keeps of a text: its terms in order, and the facts that rules compare."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from shared.veto.lexicon import NO_GROUPS

QUANTITY, NAME, THING, PLAIN, CODE = "quantity", "name", "thing", "plain", "code"

UNSURE = "unknown word"
"""The rule that speaks for a name which may be but a word that no list has."""


class Term(NamedTuple):
    """A piece of content.

    `sort`: a QUANTITY (number, date, time), a NAME, a THING of a known class, a PLAIN word, CODE.
    `key`: its one spelling; equal keys mean the same. `place`: its index in `Facts.line`.
    `value` and `unit` are a quantity's. `rule` is the name of the rule that speaks for it.
    """

    sort: str
    key: str
    text: str
    place: int
    rule: str = ""
    groups: frozenset[str] = NO_GROUPS
    value: str = ""
    unit: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Facts:
    """All that the rules need of one text, read once.

    `plain`: the text's tokens in lower case; equal ones need no comparison. `line`: its words in
    their one spelling, function words too, without articles. `keys`: the keys of all terms and more
    under which a term of another text may find its like.
    """

    plain: tuple[str, ...]
    line: tuple[str, ...]
    terms: tuple[Term, ...]
    keys: frozenset[str]
    negations: tuple[tuple[str, str], ...] = ()
    bounds: frozenset[str] = frozenset()
    questions: frozenset[str] = frozenset()
    tense: str = ""
    aspect: str = ""
    question_mark: bool = False
    modal_perfect: bool = False
    soft_ones: bool = False
    operators: tuple[str, ...] = ()
    quoted: tuple[str, ...] = ()
    blocks: tuple[str, ...] = ()
    payload: tuple[str, ...] = ()
    """What a text-work instruction is about: the words behind its colon."""
