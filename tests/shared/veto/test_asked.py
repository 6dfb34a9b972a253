"""What is asked for: the kind of answer, the time, the product."""

import pytest

from shared.veto import veto

OTHERS = [
    ("Where do I verify my card?", "How do I verify my card?", "question"),
    ("I cannot see where to verify it", "I cannot see how to verify it", "question"),
    ("When do you get a work visa?", "How to get a work visa", "question"),
    ("Tips for getting a work visa", "When do you get a work visa?", "question"),
    ("How long do fleas live?", "How often do fleas live?", "question"),
    ("How much do you charge?", "How often do you charge?", "question"),
    ("How long did I bake it?", "How long do I bake it?", "tense"),
    ("Do I need a visa?", "Did I need a visa?", "tense"),
    ("What influence will it have?", "What influence did it have?", "tense"),
    ("As a cook, which knife do I pick?", "As a cook, which knife did I pick?", "tense"),
    (
        "Write a function that sorts words",
        "Write tests for a function that sorts words",
        "product",
    ),
    ("Draw a map of the town", "Write a summary of a map of the town", "product"),
]

ALIKE = [
    ("Why is snow white?", "How come snow is white?"),
    ("Why is snow white?", "What's the reason snow is white?"),
    ("How can I sleep better?", "What is the best way to sleep better?"),
    ("Ways to sleep better", "Tips for sleeping better"),
    ("Where can I buy yeast?", "How can I buy yeast?"),
    ("Where do I start learning chess?", "How do I start learning chess?"),
    ("How often should I run?", "How many times should I run?"),
    ("How long does it take?", "How much time does it take?"),
    ("Why is not my phone working?", "Why isn't my phone working?"),
    ("Why did I get charged twice?", "Why was I charged twice?"),
    ("Has my card arrived?", "Did my card arrive?"),
    ("Write a summary of Hamlet", "Create a summary of Hamlet"),
    ("Explain the tests for a function", "What are the tests for a function?"),
]


@pytest.mark.parametrize(("a", "b", "rule"), OTHERS)
def test_something_else_is_asked(a: str, b: str, rule: str) -> None:
    """The rule speaks, from either side."""
    assert rule in {conflict.rule for conflict in veto(a, b)}
    assert rule in {conflict.rule for conflict in veto(b, a)}


@pytest.mark.parametrize(("a", "b"), ALIKE)
def test_the_same_is_asked(a: str, b: str) -> None:
    """Other ways to put one question."""
    assert veto(a, b) == ()
