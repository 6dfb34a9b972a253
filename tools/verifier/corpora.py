"""Pairs of real text, from `data/` (its README names origins and licences).

Every text also gives a near-miss (one word or number changed, so the answer changes) and a pair
with itself as typed by somebody else, so that real vocabulary meets both labels.
"""

import gzip
import json
import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tools.verifier import words
from tools.verifier.surface import typed

FOLDER: Final = Path(__file__).parent / "data"
_NUMBER: Final = re.compile(r"(?<![\w.,-])(?:[2-9]|[1-9]\d{1,3})(?![\w.,%-]|\s*th\b)")


def rows(seed: int, folder: Path = FOLDER) -> Iterator[dict[str, str | int]]:
    """The labelled pairs of every file, and what is made of their texts; `source` is the file."""
    for path in sorted(folder.glob("*.jsonl.gz")):
        source = path.name.removesuffix(".jsonl.gz")
        rng = random.Random(f"{seed} {source}")  # noqa: S311 (a reproducible draw, no secret)
        with gzip.open(path, "rt", encoding="utf-8") as lines:
            pairs = [json.loads(line) for line in lines]
        kinds = ("other", "paraphrase")
        texts: dict[str, str] = {}
        for index, pair in enumerate(pairs):
            group = f"{source}/{index}"
            other = group if pair["same"] else f"{source}/{index}b"
            yield _row(source, pair["a"], pair["b"], kinds[pair["same"]], (group, other))
            texts.setdefault(pair["a"], group)
            texts.setdefault(pair["b"], other)
        for text, group in texts.items():
            yield from _made(source, text, group, rng)


def _made(source: str, text: str, group: str, rng: random.Random) -> Iterator[dict[str, str | int]]:
    changed = _renumbered(text, rng) or words.contrasting(text, rng)
    if changed:
        kind, other = changed
        if rng.random() < 0.5:
            other = typed(other, rng, noise=1.0)
        yield _row(source, text, other, kind, (group, f"{group}!"))
    again = typed(text, rng, noise=1.0)
    if again != text and rng.random() < 0.5:
        yield _row(source, text, again, "surface", (group, group))


def _renumbered(text: str, rng: random.Random) -> tuple[str, str] | None:
    """The text with one whole number changed, or None where there is none."""
    places = list(_NUMBER.finditer(text))
    if not places:
        return None
    place = rng.choice(places)
    number = int(place[0]) + rng.choice([1, 1, 2, 3, 10])
    return "number", text[: place.start()] + str(number) + text[place.end() :]


def _row(source: str, a: str, b: str, kind: str, groups: tuple[str, str]) -> dict[str, str | int]:
    return {
        "a": a,
        "b": b,
        "same": int(groups[0] == groups[1]),
        "source": source,
        "kind": kind,
        "template": source,
        "group": groups[0],
        "other_group": groups[1],
    }
