"""Inflection, words that may be exchanged, words that may not."""

import random

import pytest

from tools.verifier import words


@pytest.mark.parametrize(
    ("phrase", "expected"),
    [
        ("lose weight", "losing weight"),
        ("get rid of ants", "getting rid of ants"),
        ("be happy", "being happy"),
        ("not lie", "not lying"),
        ("dye wool", "dyeing wool"),
        ("play chess", "playing chess"),
    ],
)
def test_gerund(phrase: str, expected: str) -> None:
    """The first word of a phrase takes the ending, spelled as it should be."""
    assert words.gerund(phrase) == expected


@pytest.mark.parametrize(
    ("noun", "expected"),
    [("child", "children"), ("UX designer", "UX designers"), ("bus", "buses"), ("city", "cities")],
)
def test_plural(noun: str, expected: str) -> None:
    """The last word of a phrase takes the ending."""
    assert words.plural(noun) == expected


def test_one_way_synonyms_do_not_run_back() -> None:
    """One way synonyms do not run back."""
    assert "fix" in words.synonyms()["repair"]
    assert "repair" not in words.synonyms().get("fix", ())


def test_no_synonym_is_also_a_contrast() -> None:
    """No synonym is also a contrast."""
    table = words.synonyms()
    clashes = {
        (word, other)
        for word, others in words.contrasts().items()
        for _, other in others
        if other in table.get(word, ()) or word in table.get(other, ())
    }
    assert clashes == set()


def test_a_contrast_changes_one_place_and_says_of_which_kind() -> None:
    """A contrast changes one place and says of which kind."""
    changed = words.contrasting("How do trees gain height", random.Random(3))  # noqa: S311
    assert changed is not None
    kind, text = changed
    assert kind in {"antonym", "question", "negation", "tense", "object"}
    assert text != "How do trees gain height"


def test_no_contrast_without_a_known_word() -> None:
    """No contrast without a known word."""
    assert words.contrasting("zebra xylophone", random.Random(1)) is None  # noqa: S311
