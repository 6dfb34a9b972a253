"""What a rule of the veto says: which words of two texts do not agree."""

from __future__ import annotations

from typing import NamedTuple


class Conflict(NamedTuple):
    """A difference in meaning: the rule's name and the words on either side, "" where missing."""

    rule: str
    a: str
    b: str

    def swapped(self) -> Conflict:
        """The same, seen from the other text."""
        return Conflict(self.rule, self.b, self.a)
