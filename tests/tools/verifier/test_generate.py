"""The training pairs: reproducible, consistent labels, every family with both."""

import gzip
import json
import sys
from collections import defaultdict
from itertools import pairwise
from pathlib import Path
from typing import TypeAlias

import pytest

from tools.verifier import corpora, generate
from tools.verifier.generate import Generator, rows

COUNT = 6_000
Rows: TypeAlias = list[dict[str, str | int]]


@pytest.fixture(scope="module")
def made() -> Rows:
    """One run's rows."""
    return list(rows(Generator(seed=1).pairs(COUNT)))


def test_a_seed_gives_the_same_pairs(made: Rows) -> None:
    """A seed gives the same pairs."""
    assert list(rows(Generator(seed=1).pairs(COUNT))) == made


def test_another_seed_gives_other_pairs(made: Rows) -> None:
    """Another seed gives other pairs."""
    other = {(row["a"], row["b"]) for row in rows(Generator(seed=2).pairs(COUNT))}
    common = other & {(row["a"], row["b"]) for row in made}
    assert len(common) < len(made) / 5


def test_no_pair_comes_twice_in_either_order(made: Rows) -> None:
    """No pair comes twice in either order."""
    pairs = {frozenset((str(row["a"]).lower(), str(row["b"]).lower())) for row in made}
    assert len(pairs) == len(made)


def test_no_text_belongs_to_two_questions(made: Rows) -> None:
    """No text belongs to two questions."""
    groups = defaultdict(set)
    for row in made:
        groups[str(row["a"]).lower()].add(row["group"])
        groups[str(row["b"]).lower()].add(row["other_group"])
    assert {text for text, named in groups.items() if len(named) > 1} == set()


def test_a_pair_is_the_same_exactly_where_the_question_is(made: Rows) -> None:
    """A pair is the same exactly where the question is."""
    assert all(bool(row["same"]) == (row["group"] == row["other_group"]) for row in made)


def test_every_family_has_both_labels(made: Rows) -> None:
    """Every family has both labels."""
    labels = defaultdict(set)
    for row in made:
        labels[row["template"]].add(row["same"])
    assert set(labels) == {family.name for family in Generator(seed=1).families}
    assert {name for name, found in labels.items() if found != {0, 1}} == set()


def test_there_are_enough_families_and_a_fair_share_of_paraphrases(made: Rows) -> None:
    """There are enough families and a fair share of paraphrases."""
    assert len({row["template"] for row in made}) >= 60
    assert 0.3 < sum(int(row["same"]) for row in made) / len(made) < 0.5


def test_nothing_of_the_notation_is_left_in_a_text(made: Rows) -> None:
    """Nothing of the notation is left in a text."""
    texts = [str(row[side]) for row in made for side in "ab"]
    assert [
        text for text in texts if any(mark in text for mark in "{}|<") and " if " not in text
    ] == []


def test_each_word_order_of_a_symmetric_question_is_the_same_question() -> None:
    """Each word order of a symmetric question is the same question."""
    generator = Generator(seed=1)
    family = next(one for one in generator.families if one.name == "company_pair")
    by_name = {intent.name: intent for intent in family.intents}
    pairs = [pair for pair in generator.pairs(COUNT) if pair.a.template == "company_pair"]
    assert by_name["choose"].symmetric
    assert not by_name["acquire"].symmetric
    assert {pair.same for pair in pairs if pair.kind == "symmetry"} == {True}
    assert {pair.same for pair in pairs if pair.kind == "swap"} == {False}


def test_real_rows_keep_their_labels_and_add_changed_ones() -> None:
    """Real rows keep their labels and add changed ones."""
    real = list(corpora.rows(seed=1))
    assert {row["source"] for row in real} == {"banking77", "gptcache", "paws_wiki"}
    assert {row["same"] for row in real if row["kind"] == "surface"} == {1}
    assert {row["same"] for row in real if row["kind"] in {"number", "antonym", "negation"}} == {0}
    assert list(corpora.rows(seed=1)) == real


def test_the_command_writes_pairs_and_entries(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command writes pairs and entries."""
    pairs, entries = tmp_path / "pairs.jsonl", tmp_path / "entries.jsonl.gz"
    monkeypatch.setattr(
        sys, "argv", ["generate", str(pairs), "--entries", str(entries), "--count", "2000"]
    )
    generate.main()
    written = [json.loads(line) for line in pairs.read_text(encoding="utf-8").splitlines()]
    with gzip.open(entries, "rt", encoding="utf-8") as lines:
        listed = [json.loads(line) for line in lines]
    texts = [entry["text"].lower() for entry in listed]
    assert {row["source"] for row in written} == {"synthetic", "banking77", "gptcache", "paws_wiki"}
    assert {tuple(entry) for entry in listed} == {("text", "group", "template")}
    assert all(first != second for first, second in pairwise(sorted(texts)))
