"""The circuit breaker, by a clock of the test's."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from origin.engine.breaker import Breaker

FAILURES, PAUSE_S, LONGEST_S = 3, 10.0, 30.0


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        """The time."""
        return self.now_s


def breaker(clock: Clock, failures: int = 0) -> Breaker:
    """A breaker that has seen so many failures."""
    made = Breaker(
        failures=FAILURES, first_pause_s=PAUSE_S, longest_pause_s=LONGEST_S, clock_s=clock
    )
    for _ in range(failures):
        assert made.admit() == 0
        made.failed()
    return made


def test_failures_in_a_row_open_it() -> None:
    """One less does not; the wait is the pause."""
    assert breaker(Clock(), FAILURES - 1).admit() == 0
    assert breaker(Clock(), FAILURES).admit() == PAUSE_S


def test_success_between_failures_starts_the_count_anew() -> None:
    """Only an upstream that does nothing but fail is left alone."""
    made = breaker(Clock(), FAILURES - 1)
    made.succeeded()
    for _ in range(FAILURES - 1):
        made.failed()
    assert made.admit() == 0


def test_one_probe_goes_in_each_pause() -> None:
    """Whatever becomes of it: even a probe that says nothing keeps nobody out for ever."""
    clock = Clock()
    made = breaker(clock, FAILURES)
    pause_s = PAUSE_S
    for next_s in (2 * PAUSE_S, LONGEST_S, LONGEST_S):
        clock.now_s += pause_s
        assert made.wait_s == 0
        assert made.admit() == 0
        assert made.admit() == next_s
        clock.now_s += next_s / 2
        assert made.admit() == next_s / 2
        clock.now_s -= next_s / 2
        pause_s = next_s


def test_pauses_begin_anew_when_it_opens_again() -> None:
    """What failed for long once is not left alone for long the next time."""
    clock = Clock()
    made = breaker(clock, FAILURES)
    for pause_s in (PAUSE_S, 2 * PAUSE_S, LONGEST_S):
        clock.now_s += pause_s
        assert made.admit() == 0
    made.succeeded()
    for _ in range(FAILURES):
        made.failed()
    assert made.admit() == PAUSE_S


def test_probe_that_succeeds_closes_it() -> None:
    """All may go again."""
    clock = Clock()
    made = breaker(clock, FAILURES)
    clock.now_s += PAUSE_S
    made.admit()
    made.succeeded()
    assert [made.admit() for _ in range(5)] == [0] * 5


def test_late_failures_do_not_prolong_the_pause() -> None:
    """What was under way when it opened may go on failing."""
    clock = Clock()
    made = breaker(clock, FAILURES)
    clock.now_s += PAUSE_S - 1
    made.failed()
    assert made.admit() == 1


@given(st.lists(st.sampled_from(["ask", "fail", "succeed", "wait"]), max_size=60))
def test_it_is_what_its_rules_say(steps: list[str]) -> None:
    """Whatever happens in whatever order, as a plain account of the rules has it."""
    clock = Clock()
    made = breaker(clock)
    in_a_row, shut_until_s, pause_s = 0, 0.0, PAUSE_S
    for step in steps:
        match step:
            case "wait":
                clock.now_s += PAUSE_S / 3
            case "fail":
                made.failed()
                in_a_row += 1
                if in_a_row == FAILURES:
                    pause_s = PAUSE_S
                    shut_until_s = clock.now_s + pause_s
            case "succeed":
                made.succeeded()
                in_a_row = 0
            case _:
                is_open = in_a_row >= FAILURES
                waits = is_open and clock.now_s < shut_until_s
                assert (made.admit() > 0) == waits
                if is_open and not waits:
                    pause_s = min(2 * pause_s, LONGEST_S)
                    shut_until_s = clock.now_s + pause_s
