"""What tiers decide: by tables, and that a class makes it stricter unless a policy lists it."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from origin.lifetimes import Tiers
from shared.freshness import Lifetimes

LIFETIMES = Lifetimes(
    ttl_s=1000, stale_while_revalidate_s=10, stale_if_error_s=20, max_ttl_s=100_000
)
TIERS = Tiers.parse(
    """{
    "models": {"gpt-4o*": 500, "gpt-*": {"ttl_s": 700, "sliding": true}, "off": 0,
               "slow-*": {"sliding": true}},
    "classes": {
        "listing": {"ttl_s": 60},
        "page": {},
        "memo": {"sensitivity": "internal"},
        "contract": {"sensitivity": "confidential"},
        "secret": {"sensitivity": "confidential", "ttl_s": 7200},
        "brief": {"sensitivity": "confidential", "ttl_s": 5},
        "faq": {"ttl_s": 5000, "sliding": true},
        "still": {"sliding": false},
        "never": {"ttl_s": 0}
    }}"""
)
NOW_MS = 1_000_000


def kept(
    *ttls_s: int | None, content_class: str | None = None, model: str = "m", lax: str = ""
) -> tuple[int, bool, bool] | None:
    """(freshness in seconds, at the edge, sealed), or None for not kept."""
    storing = TIERS.storing(LIFETIMES, model, content_class, ttls_s, NOW_MS, lax_classes=[lax])
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
    assert kept(ttl_s, content_class=content_class, model=model) == expected


@pytest.mark.parametrize(
    ("model", "content_class", "ttl_s", "plain_s", "listed_s"),
    [
        ("m", "faq", None, 1000, 5000),
        ("gpt-5", "faq", None, 700, 5000),
        ("off", "faq", None, None, 5000),
        ("m", "faq", 30, 30, 30),
        ("m", "faq", 50_000, 5000, 5000),
        ("m", "page", None, 1000, 1000),
        ("m", "listing", None, 60, 60),
        ("m", "contract", None, 1000, 1000),
        ("m", "secret", None, 1000, 3600),
        ("m", None, None, 1000, 1000),
        ("m", "unheard-of", None, None, None),
    ],
)
def test_class_that_a_policy_lists_may_be_laxer(
    model: str,
    content_class: str | None,
    ttl_s: int | None,
    plain_s: int | None,
    listed_s: int | None,
) -> None:
    """Its lifetime takes the place of the model's; confidential stays an hour at most."""
    for lax, expected_s in (("", plain_s), (content_class or "", listed_s)):
        found = kept(ttl_s, content_class=content_class, model=model, lax=lax)
        assert (None if found is None else found[0]) == expected_s


@pytest.mark.parametrize(
    ("model", "content_class", "lax", "expected_s"),
    [
        ("m", None, "", None),
        ("gpt-4o", None, "", None),
        ("gpt-5", None, "", 700),
        ("slow-1", None, "", 1000),
        ("m", "faq", "", 1000),
        ("m", "faq", "faq", 5000),
        ("gpt-5", "still", "", None),
        ("gpt-5", "listing", "", 60),
        ("gpt-5", "memo", "", 700),
        ("gpt-5", "contract", "", None),
        ("gpt-5", "contract", "contract", None),
    ],
)
def test_what_slides(model: str, content_class: str | None, lax: str, expected_s: object) -> None:
    """The class says, else the model; what is confidential never does."""
    assert TIERS.sliding_s(LIFETIMES, model, content_class, lax_classes=[lax]) == expected_s
    assert TIERS.any_slides
    assert not Tiers.parse('{"models": {"m": 5}, "classes": {"c": {"sliding": false}}}').any_slides


@given(
    st.sampled_from([None, *TIERS.classes, "unheard-of"]),
    st.lists(st.none() | st.integers(0, 200_000), min_size=1, max_size=4),
)
def test_of_several_requests_the_shortest_wish_rules(
    content_class: str | None, ttls_s: list[int | None]
) -> None:
    """No answer is kept longer than one of those that wait for it allows."""
    alone = [kept(ttl_s, content_class=content_class) for ttl_s in ttls_s]
    together = kept(*ttls_s, content_class=content_class)
    if None in alone:
        assert together is None
        return
    limits = [limit for limit in alone if limit is not None]
    assert together == min(limits)
    assert {limit[1:] for limit in limits} == {min(limits)[1:]}


def test_nobody_waiting_keeps_nothing() -> None:
    """There is no wish to go by."""
    assert TIERS.storing(LIFETIMES, "m", None, [], NOW_MS) is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"class": {}}',
        '{"models": {"m": -1}}',
        '{"models": {"m": true}}',
        '{"models": {"m": 1.5}}',
        '{"models": {"m": {"ttl": 5}}}',
        '{"models": {"m": {"sliding": 1}}}',
        '{"models": {"m": {"sliding": null}}}',
        '{"classes": {"c": {"sliding": "yes"}}}',
        '{"classes": {"c": {"sensitivity": "confidential", "sliding": true}}}',
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
    stored = kept(None, content_class=content_class, model=model)
    assert stored is None or stored[0] == ttl_s


@dataclass(frozen=True, kw_only=True, slots=True)
class Times:
    """Those of an entry."""

    created_ms: int
    fresh_until_ms: int
    stale_until_ms: int
    error_until_ms: int
    expires_ms: int


@pytest.mark.parametrize(
    ("model", "content_class", "lax", "life_ms", "ttl_s"),
    [
        ("m", None, "", 1_000_000, 1000),
        ("m", None, "", 1_000, 1),
        ("m", None, "", 999, 1),
        ("m", None, "", 0, 1),
        ("m", None, "", 5_000_000, 1000),
        ("gpt-5", None, "", 900_000, 700),
        ("gpt-5", "listing", "", 59_999, 59),
        ("gpt-5", "faq", "", 5_000_000, 700),
        ("gpt-5", "faq", "faq", 5_000_000, 5000),
        ("gpt-5", "faq", "faq", 3_000_000, 3000),
        ("off", None, "", 60_000, 0),
    ],
)
def test_a_refresh_lives_no_longer_than_what_it_replaces(
    model: str, content_class: str | None, lax: str, life_ms: int, ttl_s: int
) -> None:
    """Nor than the default: a hit may have moved the end of what it replaces."""
    end_ms = NOW_MS + life_ms
    replaced = Times(
        created_ms=NOW_MS,
        fresh_until_ms=end_ms,
        stale_until_ms=end_ms,
        error_until_ms=end_ms,
        expires_ms=end_ms,
    )
    found = TIERS.refresh_ttl_s(LIFETIMES, model, content_class, replaced, lax_classes=[lax])
    assert found == ttl_s
