"""What tiers decide: by tables, and that a class only ever makes it stricter."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from origin.lifetimes import Tiers
from shared.controls import Controls
from shared.freshness import Lifetimes

LIFETIMES = Lifetimes(
    ttl_s=1000, stale_while_revalidate_s=10, stale_if_error_s=20, max_ttl_s=100_000
)
TIERS = Tiers.parse(
    """{
    "models": {"gpt-4o*": 500, "gpt-*": 700, "off": 0},
    "classes": {
        "listing": {"ttl_s": 60},
        "page": {},
        "memo": {"sensitivity": "internal"},
        "contract": {"sensitivity": "confidential"},
        "secret": {"sensitivity": "confidential", "ttl_s": 7200},
        "brief": {"sensitivity": "confidential", "ttl_s": 5},
        "never": {"ttl_s": 0}
    }}"""
)
NOW_MS = 1_000_000


def kept(*wishes: Controls, model: str = "m") -> tuple[int, bool, bool] | None:
    """(freshness in seconds, at the edge, sealed), or None for not kept."""
    storing = TIERS.storing(LIFETIMES, model, wishes, NOW_MS)
    if storing is None:
        return None
    return (storing.expiry_ms[0] - NOW_MS) // 1000, storing.edge, storing.sealed


@pytest.mark.parametrize(
    ("model", "content_class", "ttl_s", "expected"),
    [
        ("m", None, None, (1000, True, False)),
        ("m", None, 50_000, (50_000, True, False)),
        ("m", None, 200_000, (100_000, True, False)),
        ("gpt-4o-mini", None, None, (500, True, False)),
        ("gpt-5", None, None, (700, True, False)),
        ("gpt-5", None, 900, (900, True, False)),
        ("off", None, None, None),
        ("off", None, 30, (30, True, False)),
        ("m", "page", None, (1000, True, False)),
        ("m", "listing", None, (60, True, False)),
        ("m", "listing", 30, (30, True, False)),
        ("m", "listing", 900, (60, True, False)),
        ("m", "memo", None, (1000, False, False)),
        ("m", "contract", None, (1000, False, True)),
        ("m", "contract", 50_000, (3600, False, True)),
        ("m", "secret", 50_000, (3600, False, True)),
        ("m", "brief", None, (5, False, True)),
        ("m", "never", 900, None),
        ("m", "unheard-of", None, None),
    ],
)
def test_model_class_and_request_decide_together(
    model: str, content_class: str | None, ttl_s: int | None, expected: object
) -> None:
    """The model's tier is a default, the class a maximum, the request a wish."""
    assert kept(Controls(content_class=content_class, ttl_s=ttl_s), model=model) == expected


@given(
    st.lists(
        st.builds(
            Controls,
            content_class=st.sampled_from([None, *TIERS.classes, "unheard-of"]),
            ttl_s=st.none() | st.integers(0, 200_000),
        ),
        min_size=1,
        max_size=4,
    )
)
def test_of_several_requests_the_strictest_rules(wishes: list[Controls]) -> None:
    """No answer is kept longer, or in more places, than one of those that wait for it allows."""
    alone = [kept(wish) for wish in wishes]
    together = kept(*wishes)
    if None in alone:
        assert together is None
        return
    limits = [limit for limit in alone if limit is not None]
    assert together == (
        min(ttl_s for ttl_s, _, _ in limits),
        all(edge for _, edge, _ in limits),
        any(sealed for _, _, sealed in limits),
    )


def test_nobody_waiting_keeps_nothing() -> None:
    """There is no wish to go by."""
    assert TIERS.storing(LIFETIMES, "m", [], NOW_MS) is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"class": {}}',
        '{"models": {"m": -1}}',
        '{"models": {"m": true}}',
        '{"models": {"m": 1.5}}',
        '{"classes": {"c": {"ttl_s": "60"}}}',
        '{"classes": {"c": {"sensitivity": "secret"}}}',
        '{"classes": {"c": {"ttl": 60}}}',
    ],
)
def test_what_makes_no_sense_is_refused(text: str) -> None:
    """At start, not when the first answer is stored."""
    with pytest.raises(ValueError, match=r"."):
        Tiers.parse(text)


@pytest.mark.parametrize(
    ("model", "content_class", "ttl_s"),
    [
        ("m", None, 1000),
        ("gpt-4o-mini", None, 500),
        ("off", None, 0),
        ("gpt-5", "listing", 60),
        ("gpt-5", "page", 700),
        ("m", "contract", 1000),
        ("m", "unknown", 1000),
    ],
)
def test_what_a_request_that_names_no_time_gets(
    model: str, content_class: str | None, ttl_s: int
) -> None:
    """As an entry of such a request lives, where it is kept at all."""
    assert TIERS.default_ttl_s(LIFETIMES, model, content_class) == ttl_s
    stored = kept(Controls(content_class=content_class), model=model)
    assert stored is None or stored[0] == ttl_s
