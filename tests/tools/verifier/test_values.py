"""Made values: equal forms of one thing, and near ones that are another."""

import random

import pytest

from tools.verifier import values


@pytest.mark.parametrize("kind", sorted(values.MADE))
def test_a_near_value_shares_no_form(kind: str) -> None:
    """A near value shares no form."""
    rng = random.Random(5)  # noqa: S311
    for _ in range(200):
        value = values.make(kind, rng)
        _, near = values.vary(kind, value, rng)
        assert not set(value.forms) & set(near.forms)


def test_money_is_written_as_people_write_it() -> None:
    """Money is written as people write it."""
    rng = random.Random(1)  # noqa: S311
    forms = {form for _ in range(300) for form in values.make("money", rng).forms}
    assert any(form.endswith("k") for form in forms)
    assert any(form.endswith(" million") for form in forms)
    assert any(form.startswith("€") for form in forms)


def test_numbers_in_words_and_thousands() -> None:
    """Numbers in words and thousands."""
    assert values.number(3) == ("3", "three")
    assert values.number(12_000) == ("12,000", "12000", "12k", "12 thousand")
