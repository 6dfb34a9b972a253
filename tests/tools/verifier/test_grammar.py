"""The notation of the families, and surface forms that leave the question alone."""

import random

import pytest

from tools.verifier import grammar
from tools.verifier.grammar import Intent, choose, read_families, read_lists
from tools.verifier.surface import article, typed
from tools.verifier.values import MADE


def test_every_slot_and_constraint_has_a_list() -> None:
    """Every slot and constraint has a list."""
    known = set(read_lists()) | set(MADE)
    used = {
        slot.rstrip("0123456789")
        for family in read_families()
        for intent in family.intents
        for slot in intent.slots
    }
    constraints = {name for family in read_families() for name in family.constraints}
    assert used - known == set()
    assert constraints - known == set()


def test_no_alias_names_two_values_of_one_list() -> None:
    """No alias names two values of one list."""
    for values in read_lists().values():
        aliases = [alias.lower() for value in values for alias in value]
        assert len(aliases) == len(set(aliases))


def test_constraints_name_intents_of_their_family() -> None:
    """Constraints name intents of their family."""
    for family in read_families():
        named = {name for intents in family.constraints.values() for name in intents}
        assert named <= {intent.name for intent in family.intents}


def test_wordings_of_one_intent_have_the_same_slots() -> None:
    """Wordings of one intent have the same slots."""
    with pytest.raises(ValueError, match="other slots"):
        Intent(name="x", wordings=("What is {drug}", "What is it"))


def test_choices_are_made_by_the_draws() -> None:
    """Choices are made by the draws."""
    assert choose("[big/large] car[s/]", [0.0, 0.9]) == "big car"


def test_a_frame_has_no_slot_but_the_constraint() -> None:
    """A frame has no slots of its own but the constraint's."""
    intent = Intent(name="x", wordings=tuple(grammar.FRAMES["CAN"]))
    assert intent.slots == ()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A elephant eats a apple", "An elephant eats an apple"),
        ("I take an vitamin", "I take a vitamin"),
        ("a university, an hour, a 8-line poem", "a university, an hour, an 8-line poem"),
        ("How much vitamin A is in eggs", "How much vitamin A is in eggs"),
    ],
)
def test_articles(text: str, expected: str) -> None:
    """The sound of the next word decides; a letter named A stays."""
    assert article(text) == expected


def test_typing_without_noise_only_adds_the_stop() -> None:
    """Typing without noise only adds the stop."""
    assert typed("why is grass green", random.Random(1), noise=0.0) == "Why is grass green?"  # noqa: S311
