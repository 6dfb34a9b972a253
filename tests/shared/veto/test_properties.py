"""What holds for any texts."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from shared.slots import word_list
from shared.veto import read, veto

_WORDS = st.sampled_from(
    word_list("""
        what is the price of a house in Boston for $450k before 3 March not without "fine"
        `x_y` 3BR 5pm Q2 half dozen two hundred from to by and or than least most user_id
        a.b() --flag 1/2 12:30 US us I me may May twice first 20% Müller 東京 don't  < >= !
        (x) : ; 450,000 3.11 C++ non-vegan ½ 2½ US$450 neither nor""")
)
_TEXTS = st.one_of(st.text(max_size=60), st.lists(_WORDS, max_size=25).map(" ".join))
_PROSE = st.lists(
    st.sampled_from(
        word_list("""
        what is the best price of a house in Boston Apple us may who it turkey march 450 3
        miles five not before python rust than from to and convert flight london don't free
        polish""")
    ),
    min_size=1,
    max_size=15,
).map(" ".join)


@given(_TEXTS, _TEXTS)
def test_symmetric(a: str, b: str) -> None:
    """Swapping the texts swaps the sides, and no text raises."""
    assert set(veto(a, b)) == {conflict.swapped() for conflict in veto(b, a)}


@given(_TEXTS)
def test_no_conflict_with_itself(text: str) -> None:
    """A text agrees with itself."""
    assert veto(text, text) == ()


@given(_PROSE, st.sampled_from([str.upper, str.lower, str.title, str.capitalize]), st.data())
def test_case_space_and_closing_signs_say_nothing(
    text: str, case: object, data: st.DataObject
) -> None:
    """Another case, more space or a question mark at the end are no difference."""
    assert callable(case)
    spaced = data.draw(st.sampled_from([" ", "  ", "\n", " \t"])).join(case(text).split())
    other = spaced + data.draw(st.sampled_from(["", "?", ".", "!", "...", " ?"]))
    assert veto(text, other) == ()


_CARRIERS = (
    "What is {} plus tax?",
    "Analyze this property: 12 Oak St, {} sqft",
    "How many gallons are in {} liters?",
    "Sell the bond for ${}",
    "Explain error {} to me",
    "Summarise it in {} words",
)


@given(
    st.sampled_from(_CARRIERS),
    st.from_regex(r"[1-9][0-9]{0,7}(\.[0-9]{0,2}[1-9])?", fullmatch=True),
    st.data(),
)
def test_another_digit_is_another_number(carrier: str, number: str, data: st.DataObject) -> None:
    """Any digit of any number counts."""
    places = [match.start() for match in re.finditer(r"[0-9]", number)]
    place = data.draw(st.sampled_from(places))
    first = "123456789" if place in {0, len(number) - 1} else "0123456789"
    digit = data.draw(st.sampled_from([each for each in first if each != number[place]]))
    other = number[:place] + digit + number[place + 1 :]
    assert veto(carrier.format(number), carrier.format(other))


@given(_TEXTS)
def test_reading_is_a_function(text: str) -> None:
    """Reading twice gives the same facts."""
    assert read(text) == read(text)
