"""All rules over the facts of two texts, in the order in which they are told."""

from __future__ import annotations

from collections.abc import Iterator

from shared.veto import leftovers
from shared.veto.conflict import Conflict
from shared.veto.facts import Facts, Term
from shared.veto.products import products
from shared.veto.questions import apart
from shared.veto.roles import exchanges


def conflicts(a: Facts, b: Facts) -> tuple[Conflict, ...]:
    """Every difference in meaning that the words of two texts show, once each."""
    if a.plain == b.plain:
        return ()
    if (b.plain, b.line) < (a.plain, a.line):
        return tuple(conflict.swapped() for conflict in _found(b, a))
    return tuple(_found(a, b))


def _found(a: Facts, b: Facts) -> dict[Conflict, None]:
    ours, theirs = leftovers.left_over(a, b), leftovers.left_over(b, a)
    found: dict[Conflict, None] = {}
    if ours or theirs:
        if leftovers.degree_opposites(a, b):
            ours = [term for term in ours if term.key not in _DEGREES]
            theirs = [term for term in theirs if term.key not in _DEGREES]
            turned = True
        else:
            turned = False
        found.update(dict.fromkeys(leftovers.quantities(ours, theirs, a, b)))
        found.update(dict.fromkeys(leftovers.code(ours, theirs, a, b)))
        found.update(dict.fromkeys(leftovers.things(ours, theirs)))
        if not turned:
            found.update(dict.fromkeys(leftovers.opposites(ours, theirs)))
        found.update(dict.fromkeys(leftovers.names(ours, theirs, a, b)))
    for rule in (
        _negation(a, b, ours, theirs),
        _written(a, b),
        _asked(a, b),
        products(a, b),
        exchanges(a, b),
    ):
        found.update(dict.fromkeys(rule))
    return found


_APART = frozenset({"instead", "than", "not", "prior_to", "after", "from", "into", "to"})
_DEGREES = frozenset({"least", "less"})


def _negation(a: Facts, b: Facts, ours: list[Term], theirs: list[Term]) -> Iterator[Conflict]:
    """Negations and negative prefixes: their number must agree, and what they stand before."""
    pairs = leftovers.prefixed(ours, theirs)
    here, there = a.negations, b.negations
    balance = len(here) - len(there)
    turned = sum(sign for _, _, sign in pairs)
    if balance + turned == 0 and (balance or pairs):
        return
    if balance + turned != 0 and balance:
        yield Conflict("negation", _said(here), _said(there))
    elif pairs:
        yield from (Conflict("negation", one.text, other.text) for one, other, _ in pairs)
    elif here:
        one, other = {target for _, target in here}, {target for _, target in there}
        left, right = one - other, other - one
        if left & b.keys and right & a.keys:
            yield Conflict("negation", _said(here), _said(there))


def _said(negations: tuple[tuple[str, str], ...]) -> str:
    return ", ".join(f"{word} {target}".strip() for word, target in negations)


def _written(a: Facts, b: Facts) -> Iterator[Conflict]:
    """What must be equal as it is written: code blocks, quotations, operators, the material."""
    if a.blocks != b.blocks:
        yield Conflict("code block", " ".join(a.blocks)[:80], " ".join(b.blocks)[:80])
    if a.operators != b.operators:
        yield Conflict("operator", " ".join(a.operators), " ".join(b.operators))
    if a.quoted != b.quoted and (set(a.quoted) != set(b.quoted)):
        left = [text for text in a.quoted if text not in b.quoted]
        right = [text for text in b.quoted if text not in a.quoted]
        if left and right:
            yield Conflict("quotation", left[0], right[0])
        elif not (_quoted_words(left, b) and _quoted_words(right, a)):
            yield Conflict("quotation", "".join(left[:1]), "".join(right[:1]))
    elif a.quoted != b.quoted and len(a.quoted) == len(b.quoted) == 2 and _set_apart(a, b):
        yield Conflict("order", " … ".join(a.quoted), " … ".join(b.quoted))
    if a.payload and b.payload and a.payload != b.payload and not a.quoted:
        yield Conflict("material", " ".join(a.payload)[:80], " ".join(b.payload)[:80])


def _set_apart(a: Facts, b: Facts) -> bool:
    """Whether both texts set one thing against the other: "'lie' instead of 'lay'"."""
    return not (_APART.isdisjoint(a.line) or _APART.isdisjoint(b.line))


def _quoted_words(texts: list[str], other: Facts) -> bool:
    """Whether the other text has the words of these quotations, without the marks."""
    return all(
        any(key in other.keys or key in other.line or key in other.plain for key in [word])
        for text in texts
        for word in text.lower().split()
    )


_BOUNDS = {"ge": "at least", "gt": "more than", "le": "at most", "lt": "less than"}


def _asked(a: Facts, b: Facts) -> Iterator[Conflict]:
    """The kind of answer, the tense, and bounds."""
    if a.bounds != b.bounds:
        one, other = (", ".join(_BOUNDS[key] for key in sorted(each.bounds)) for each in (a, b))
        yield Conflict("bound", one, other)
    if apart(a.questions, b.questions):
        yield Conflict("question", " ".join(sorted(a.questions)), " ".join(sorted(b.questions)))
    if {a.tense, b.tense} == {"past", "future"}:
        yield Conflict("tense", a.tense, b.tense)
    elif a.aspect != b.aspect and "did" in {a.aspect, b.aspect} and a.aspect and b.aspect:
        yield Conflict("tense", a.aspect, b.aspect)
    elif a.modal_perfect != b.modal_perfect:
        yield Conflict("tense", "perfect" * a.modal_perfect, "perfect" * b.modal_perfect)
