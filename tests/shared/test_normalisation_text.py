"""The text profile: what is folded, and what is never touched."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.text_form import MAX_CHARACTERS, text_form

SAME = [
    ["Can you explain node.js? Briefly", "explain node.js. Briefly"],
    [
        "What is the capital of France?",
        "  what is the  capital of France?\n",
        "Please, what is the capital of France?",
        "Hi, what is the capital of France?",
        "Hello there! Please what is the capital of France? Thanks!",
        "what is\xa0the capital of France?",
    ],
    [
        "explain recursion",
        "Explain recursion.",
        "Please explain recursion",
        "Can you explain recursion?",
        "Could you please explain recursion?",
        "Would you kindly explain recursion.",
        "Hey, could you explain recursion, please? Thank you so much!",
        "Explain recursion, thanks.",
    ],
    ["Tell me a joke", "can you tell me a joke?", "Could you please tell me a joke"],
    ["Please don't sort it", "don't sort it."],
    ["Can you explain tries? I know trees.", "Explain tries. I know trees."],
    ["Is Down\u2019s syndrome hereditary?", "is Down's syndrome hereditary?"],
    ["Is cafe\u0301 French?", "is caf\u00e9 French?"],
    ["Where do I \ufb01nd \uff21\uff30\uff29 keys?", "where do I find API keys?"],
    ['Please explain "Please  Stop." now.', 'explain "Please  Stop." now'],
    ["Please explain `x  = Y`.", "Explain `x  = Y`"],
    ["Please fix this:\r\n  Please\r\n", "Please fix this:\r\n  Please"],
    ["List the planets.", "please list the planets"],
    ['Explain "tries".', 'Please explain "tries", thanks.'],
]
STAYS = [
    "best st. bernard breeders",
    "Turkey is large",
    "May is warm",
    "Please Please Me",
    "Please is a word",
    "Hello, World",
    "Yahoo!",
    "How many letters are in  Please?",
    "Is this sentence  correct.",
    "Correct the punctuation: you are ready.",
    "translate you are ready.",
    "how do you say hello, please",
    "what is the meaning of no, thanks",
    "can you swim?",
    "can you write poems?",
    "can you analyze images?",
    "could you describe the economy as strong?",
    "save!",
    "wait...",
    ".",
    ", thanks",
    "is it 3.",
    "open x.org.",
    "a\t\tb",
    "x  = 1",
    "Check = True",
    "for  i in x:\n  pass",
    "sum 1  000",
    "    def f():\n        Please  stop.",
    "`unclosed  Please. ",
    "\ufb01",
    "x\u00b2 \u00bd \u2460 \u2126 \uff21",
    "",
    " ",
]


@pytest.mark.parametrize("texts", SAME, ids=lambda texts: texts[0][:30])
def test_spellings_of_one_text_have_one_form(texts: list[str]) -> None:
    """Spaces, case of the first word, Unicode, full stop and polite words are folded."""
    assert len({text_form(text) for text in texts}) == 1


@pytest.mark.parametrize("text", STAYS)
def test_what_may_mean_something_stays(text: str) -> None:
    """Beyond its outer space, a text in doubt stays as it is."""
    assert text_form(text).strip() == text.strip()


@given(
    st.text(st.characters(exclude_characters='`"\u201c\u201d\n', exclude_categories=["Cs"])),
    st.sampled_from(["``", "``````", '""', "\u201c\u201d"]),
    st.sampled_from(["Please explain ", "what is  ", "Can you show me ", ""]),
    st.sampled_from([".", " now. Thanks", "?", ""]),
)
def test_code_and_quotations_are_untouched(
    inside: str, marks: str, before: str, behind: str
) -> None:
    """Whatever stands in backticks or quotation marks stands there afterwards."""
    half = len(marks) // 2
    quoted = marks[:half] + inside + marks[half:]
    assert quoted in text_form(before + quoted + behind)


@given(st.lists(st.sampled_from(["1", "23", "4.5", ",", " ", "  ", ".", "a", "K", "$", "-", "%"])))
def test_numbers_are_untouched(pieces: list[str]) -> None:
    """The numbers of a text are those of its form, and the space between two digits too."""
    text = "Please explain " + "".join(pieces)
    numbers = re.compile(r"[0-9]+(?:[.,][0-9]+)*(?: +(?=[0-9]))?")
    assert numbers.findall(text_form(text)) == numbers.findall(text)


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_the_rest_of_any_text_is_kept(text: str) -> None:
    """Behind the first word only spaces, accents and one full stop may differ."""
    form = text_form("Zq " + text + " zq")
    letters = re.compile(r"[^\s\xa0.\u0300-\u036f\u3099\u309a]")
    assert letters.findall(form)[:2] == ["Z", "q"]
    if text.isascii():
        assert letters.findall(form) == letters.findall("Zq " + text + " zq")


def test_a_long_text_is_left_alone() -> None:
    """The cost is bounded: beyond the limit nothing is looked at."""
    text = "Please explain " + "x" * MAX_CHARACTERS
    assert text_form(text) is text


@pytest.mark.parametrize(
    "unit",
    [
        "`",
        '"',
        "\u201c",
        "'",
        "please ",
        "hi, ",
        "? thanks",
        " ",
        ". ",
        "a(",
        ", thanks",
        "\ufb01",
        ": ",
    ],
)
def test_hostile_repetitions_end(unit: str) -> None:
    """A text of nothing but openings is folded without going over it again and again."""
    text = (unit * MAX_CHARACTERS)[:MAX_CHARACTERS]
    assert text_form(text_form(text)) == text_form(text)
