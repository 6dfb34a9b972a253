"""Order: the same words in other places, where the place says who, what and which way."""

import pytest

from shared.veto import veto

SWAPPED = [
    ("Is the shop open between 6 pm and 7 am?", "Is the shop open between 7 am and 6 pm?"),
    ("Should I learn Unity before Photoshop?", "Should I learn Photoshop before Unity?"),
    ("Do I need to know algebra before calculus?", "Do I need to know calculus before algebra?"),
    ("What influence did Plato have on Kant?", "How was Plato influenced by Kant?"),
    ("How did Plato influence Kant?", "In what way was Plato influenced by Kant?"),
    ("Did Napoleon cause Waterloo?", "Did Waterloo cause Napoleon?"),
    ("Did Waterloo happen before Leipzig?", "Did Leipzig happen before Waterloo?"),
    ("Is a Toyota RAV4 larger than a Volvo XC60?", "Is a Volvo XC60 bigger than a Toyota RAV4?"),
    ("My mother-in-law owes my daughter money", "My daughter owes my mother-in-law money"),
    (
        "With experience as a graphic designer, how do I become a librarian?",
        "With experience as a librarian, how do I become a graphic designer?",
    ),
    ("How do I embed RTF in SVG?", "How do I embed SVG in RTF?"),
    ("Could I use butter instead of brown sugar?", "Could I use brown sugar instead of butter?"),
    ("How do I implement DNS using Raft?", "How do I implement Raft using DNS?"),
    ("Does capitalism lead to war?", "Does war lead to capitalism?"),
    ("Rename old_name to new_name in it", "Rename new_name to old_name in it"),
    ("Do I study physics first and then biology?", "Do I study biology first and then physics?"),
    ("Is Lima as big as Oslo?", "Is Oslo as big as Lima?"),
    ("Is it safer with Visa than with Oyster?", "Is it safer with Oyster than with Visa?"),
    (
        "Is it more secure with Visa than with Maestro?",
        "Is Maestro more secure than with Visa?",
    ),
    (
        "Is it Chinese but not Cantonese?",
        "Is it Cantonese but not all Chinese?",
    ),
    ("Does heat turn to cold?", "Does cold turn to heat?"),
    ("Sort it by price from high to low", "Sort it by price from low to high"),
    ("When do I say 'lie' instead of 'lay'?", "When do I say 'lay' instead of 'lie'?"),
    (
        "Was it produced by Anna Berg and directed by Boris Falk?",
        "Was it produced by Boris Falk and directed by Anna Berg?",
    ),
]

FREE = [
    ("Is it warm and cool?", "Is it cool and warm?"),
    ("`use_it()` compared to `map()`", "`map()` compared to `use_it()`"),
    ("Is successful Kant famous?", "Is Kant as successful as famous?"),
    ("Is Plato like Kant or Hegel?", "Is Plato like Hegel or Kant?"),
    ("What did Tesla do in 2014?", "In 2014, what did Tesla do?"),
    ("How do Unity and Photoshop compare?", "How do Photoshop and Unity compare?"),
    ("Is Plato related to Kant, the same as Hegel?", "Is Plato related to Kant, same as Hegel?"),
    ("How did Plato influence Kant?", "In what way was Kant influenced by Plato?"),
    ("Did Plato teach Kant?", "Was Kant taught by Plato?"),
    ("How do I get from Oslo to Rome?", "How do I get to Rome from Oslo?"),
    ("Use Raft to implement DNS", "Implement DNS using Raft"),
    ("Should I learn Unity or Photoshop first?", "Photoshop or Unity: which should I learn first?"),
    ("By how many hours is Oslo ahead of Lima?", "How many hours ahead of Lima is Oslo?"),
    ("Can I mix bleach with vinegar?", "Can I mix vinegar with bleach?"),
    ("Tesla revenue in Germany", "revenue in Germany of Tesla"),
]


@pytest.mark.parametrize(("a", "b"), SWAPPED)
def test_another_order_is_another_meaning(a: str, b: str) -> None:
    """Where direction matters, nothing but the order speaks, and from either side."""
    assert {conflict.rule for conflict in veto(a, b)} == {"order"}
    assert {conflict.rule for conflict in veto(b, a)} == {"order"}


@pytest.mark.parametrize(("a", "b"), FREE)
def test_order_that_says_nothing(a: str, b: str) -> None:
    """Lists, comparisons and what takes its preposition along."""
    assert veto(a, b) == ()
    assert veto(b, a) == ()
