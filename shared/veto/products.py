"""What a request wants made: a function, or but tests, a diagram, a summary of one."""

from __future__ import annotations

from collections.abc import Iterator

from shared.slots import word_list
from shared.veto.conflict import Conflict
from shared.veto.facts import Facts
from shared.veto.lexicon import look_up

_MAKE = frozenset(
    word_list("""
        create write generate draft produce compose prepare build implement code design add provide
        show need want make develop draw""")
)
_PRODUCTS = frozenset(
    look_up(word).key
    for word in word_list("""
        test doc docs documentation docstring example diagram flowchart regex pseudocode summary
        translation explanation comment benchmark tutorial mock outline quiz review proof interface
        wrapper schema template checklist timeline title headline caption""")
)
_LINKS = frozenset(word_list("for of about on that to which with in"))
_REACH = 4


def products(a: Facts, b: Facts) -> Iterator[Conflict]:
    """A product that only one of two requests wants made of the same."""
    here, there = _product(a), _product(b)
    if here is None or there is None or here == there:
        return
    if (here and here not in b.keys) or (there and there not in a.keys):
        yield Conflict("product", here, there)


def _product(facts: Facts) -> str | None:
    """The product a text asks for; "" where it asks for something else, None where for nothing."""
    line = facts.line
    for place, word in enumerate(line[:12]):
        if word not in _MAKE:
            continue
        for at in range(place + 1, min(place + 1 + _REACH, len(line))):
            follow = line[at + 1] if at + 1 < len(line) else ""
            if line[at] in _PRODUCTS and follow in _LINKS:
                return line[at]
            if line[at] in _LINKS:
                break
        return ""
    return None
