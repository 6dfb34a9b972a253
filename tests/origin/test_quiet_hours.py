"""The daily window of low traffic."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from origin.quiet_hours import QuietHours

DAY_MS = 86_400_000
TIMES = st.integers(0, 1439).map(lambda minute: f"{minute // 60:02}:{minute % 60:02}")
WINDOWS = st.tuples(TIMES, TIMES).filter(lambda times: times[0] != times[1]).map("-".join)
MOMENTS = st.integers(0, 4_000_000_000_000)


def ms(text: str) -> int:
    """Unix time of an ISO 8601 moment in UTC."""
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)


@pytest.mark.parametrize(
    ("window", "now", "wait_s"),
    [
        ("02:00-05:00", "2026-11-21T02:00:00", 0),
        ("02:00-05:00", "2026-11-21T04:59:59", 0),
        ("02:00-05:00", "2026-11-21T05:00:00", 21 * 3600),
        ("02:00-05:00", "2026-11-21T01:59:00", 60),
        ("22:30-01:00", "2026-11-21T23:00:00", 0),
        ("22:30-01:00", "2026-11-22T00:59:59", 0),
        ("22:30-01:00", "2026-11-22T01:00:00", 21.5 * 3600),
    ],
)
def test_wait(window: str, now: str, wait_s: float) -> None:
    """Nothing within the window, else until it begins; it may pass midnight."""
    assert QuietHours.parse(window).wait_ms(ms(now)) == wait_s * 1000


@given(window=WINDOWS, now_ms=MOMENTS)
def test_after_the_wait_they_have_just_begun(window: str, now_ms: int) -> None:
    """They are quiet then, and were not a millisecond before."""
    hours = QuietHours.parse(window)
    wait_ms = hours.wait_ms(now_ms)
    assert 0 <= wait_ms < DAY_MS
    assert hours.wait_ms(now_ms + wait_ms) == 0
    if wait_ms:
        assert hours.wait_ms(now_ms + wait_ms - 1) == 1
        time = datetime.fromtimestamp((now_ms + wait_ms) / 1000, UTC)
        assert window.startswith(time.strftime("%H:%M"))


@given(window=WINDOWS)
def test_text_comes_back(window: str) -> None:
    """As it was written."""
    assert str(QuietHours.parse(window)) == window


@pytest.mark.parametrize(
    "text",
    [
        "",
        "02:00",
        "2:00-5:00",
        "02:00-24:00",
        "02:60-05:00",
        "02:00-02:00",
        "\u0660\u0662:00-05:00",
    ],
)
def test_what_is_no_window_is_refused(text: str) -> None:
    """Two times of day that differ, and nothing else."""
    with pytest.raises(ValueError, match=r"02:00-05:00|begins"):
        QuietHours.parse(text)
