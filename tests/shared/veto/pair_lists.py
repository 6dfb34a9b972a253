"""The pair lists beside this file."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

FOLDER = Path(__file__).parent


class Pair(NamedTuple):
    """Two texts, whether one answer serves both, and what kind of difference there is."""

    a: str
    b: str
    same: bool
    kind: str


def pairs_of(name: str) -> list[Pair]:
    """The pairs of a list.

    `=` opens a group, `+` says the same. `- kind | text` says something else. So does `~`, in
    ordinary words that no list knows: the veto is silent there, and the verifier judges.
    """
    found: list[Pair] = []
    group: list[str] = []
    for line in (FOLDER / name).read_text("utf-8").splitlines():
        sign, _, text = line.partition(" ")
        if sign == "=":
            group = [text]
        elif sign == "+":
            found += [Pair(each, text, same=True, kind="paraphrase") for each in group]
            group.append(text)
        elif sign == "-":
            kind, _, other = text.partition(" | ")
            found.append(Pair(group[0], other, same=False, kind=kind))
    return found
