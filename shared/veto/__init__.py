"""The veto: every material difference in meaning between two user messages that their words show.

Pure, and quick enough for every candidate of a search. It objects, it never approves: two texts
without a conflict may still mean different things, in ordinary words. That is for the verifier.

Invariants
1. `conflicts(read(a), read(b))` is that of `b` and `a` with the sides swapped.
2. A text has no conflict with itself, whatever its case, spacing and closing punctuation.
3. No text raises; time is linear in the longer text, but for a bounded number of pairs of terms.
"""

from __future__ import annotations

from shared.veto.conflict import Conflict
from shared.veto.facts import Facts
from shared.veto.reading import read
from shared.veto.rules import conflicts
from shared.veto.statements import asks_nothing

__all__ = ["Conflict", "Facts", "asks_nothing", "conflicts", "read", "veto"]


def veto(a: str, b: str) -> tuple[Conflict, ...]:
    """What speaks against serving the answer to `a` for `b`. Empty: nothing in the words."""
    return conflicts(read(a), read(b))
