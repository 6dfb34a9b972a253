"""Waiting before something is tried again."""

from __future__ import annotations

import pytest

from origin.waits import MAX_WAITS, Waits

TEN_YEARS_MS = 10 * 365 * 86_400_000


class Clock:
    """A clock that is set by hand."""

    now_ms = 1_700_000_000_000

    def __call__(self) -> int:
        """Tell the time."""
        return self.now_ms


def test_a_key_waits_for_as_long_as_it_was_told() -> None:
    """And no other does."""
    clock = Clock()
    waits = Waits(clock)
    assert waits.is_over("one")
    waits.begin("one", 1000)
    assert (waits.is_over("one"), waits.is_over("two")) == (False, True)
    clock.now_ms += 999
    assert not waits.is_over("one")
    clock.now_ms += 1
    assert waits.is_over("one")


def test_a_wait_can_be_ended() -> None:
    """Also where there is none."""
    waits = Waits(Clock())
    waits.begin("one", 1000)
    waits.end("one")
    waits.end("one")
    assert waits.is_over("one")


@pytest.mark.parametrize("back_ms", [1, 3_600_000, TEN_YEARS_MS])
def test_a_clock_set_back_makes_nobody_wait_longer(back_ms: int) -> None:
    """However far."""
    clock = Clock()
    waits = Waits(clock)
    waits.begin("one", 1000)
    clock.now_ms -= back_ms
    assert waits.is_over("one")
    waits.begin("one", 1000)
    assert not waits.is_over("one")
    clock.now_ms += 1000
    assert waits.is_over("one")


def test_waits_are_bounded() -> None:
    """All that is known is forgotten: trying too early costs less than memory without end."""
    waits = Waits(Clock())
    for number in range(MAX_WAITS):
        waits.begin(str(number), 1000)
    assert not waits.is_over("0")
    waits.begin("one more", 1000)
    assert (waits.is_over("0"), waits.is_over("one more")) == (True, False)
