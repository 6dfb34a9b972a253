"""Controls: what request headers ask, read with caution. Most cases are in the golden vectors."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.controls import (
    MAX_DELTA_S,
    Controls,
    Directives,
    parse_controls,
    parse_directives,
)
from shared.envelope import MAX_TAGS
from shared.errors import ClientError

DELTAS = ("max-age", "max-stale", "min-fresh", "stale-if-error")
MEMBERS = st.sampled_from(
    ["no-cache", "No-Store", "only-if-cached", "max-stale", "foo", 'foo="a, no-store\\", b"', ""]
) | st.builds("{}={}".format, st.sampled_from(DELTAS), st.integers(0, 10**12))


def test_without_headers_nothing_is_asked() -> None:
    """Nor by headers of others."""
    assert parse_controls({}) == parse_controls({"accept": "*/*"}) == Controls()
    assert parse_directives(None) == parse_directives("") == Directives()


@given(st.text(st.characters()))
def test_no_cache_control_is_an_error(text: str) -> None:
    """Whatever it says, it is read."""
    parse_directives(text)


def test_a_quotation_mark_that_never_closes_hides_nothing() -> None:
    """A comma in a quoted string ends no member; in half of one it does."""
    assert parse_directives('foo="a, no-store, b"') == Directives()
    assert parse_directives('foo="a, no-store, b') == Directives(no_store=True)


@given(st.lists(MEMBERS), st.lists(st.sampled_from(["", " ", "\t "]), min_size=1))
def test_members_are_read_wherever_the_commas_are(members: list[str], spaces: list[str]) -> None:
    """A list gives what its members give, the first of each name."""
    text = ",".join(spaces[i % len(spaces)] + member for i, member in enumerate(members))
    found: dict[str, str | None] = {}
    for member in members:
        name, equals, value = member.lower().partition("=")
        found.setdefault(name, value if equals else None)

    def delta(name: str) -> int | None:
        value = found.get(name)
        return None if value is None else min(int(value), MAX_DELTA_S)

    assert parse_directives(text) == Directives(
        no_cache="no-cache" in found,
        no_store="no-store" in found,
        only_if_cached="only-if-cached" in found,
        max_age_s=delta("max-age"),
        max_stale_s=-1 if found.get("max-stale", "") is None else delta("max-stale"),
        min_fresh_s=delta("min-fresh"),
        stale_if_error_s=delta("stale-if-error"),
    )


@pytest.mark.parametrize("name", DELTAS)
@given(
    value=st.text(st.characters(exclude_characters=',"')).filter(lambda v: not v.strip().isdigit())
)
def test_a_delta_that_is_no_number_is_zero(name: str, value: str) -> None:
    """The cautious reading: nothing is young enough, nothing stale is accepted."""
    directives = parse_directives(f"{name}={value}")
    assert getattr(directives, name.replace("-", "_") + "_s") == 0


@pytest.mark.parametrize(
    "text",
    [
        "a" * 20_000 + "(",
        "a" + " " * 20_000 + "(",
        '"' * 20_001,
        '"\\' * 10_000,
        '"' + '\\"' * 10_000,
        "," * 20_000,
        "max-age=" + "9" * 20_000,
    ],
    ids=["token", "spaces", "quotes", "open", "escapes", "commas", "digits"],
)
def test_long_junk_takes_no_time(text: str) -> None:
    """Reading is linear: quadratic work on these would take seconds (they take milliseconds)."""
    began = time.process_time()
    parse_directives(text)
    assert time.process_time() - began < 1


@pytest.mark.parametrize(
    "name",
    ["ttl", "tags", "semantic", "bucket", "class", "scope"],
    ids=lambda name: f"encore-{name}",
)
@given(value=st.text(st.characters()))
def test_a_control_is_read_or_refused_by_name(name: str, value: str) -> None:
    """Nothing but a ClientError that names the header and does not quote it."""
    refusal = None
    try:
        parse_controls({f"encore-{name}": value})
    except ClientError as error:
        refusal = error
    if refusal is not None:
        assert (refusal.status, refusal.code) == (400, "invalid_header")
        assert (refusal.param or "").lower() == f"encore-{name}"


@given(st.text(st.characters()), st.text(st.characters()))
def test_two_scopes_are_never_taken_for_one(left: str, right: str) -> None:
    """Only the spaces that HTTP itself takes away are taken away."""
    scopes = []
    for text in (left, right):
        try:
            scopes.append(parse_controls({"encore-scope": text}).scope)
        except ClientError:
            return
    assert (scopes[0] == scopes[1]) == (left.strip(" \t") == right.strip(" \t"))


def test_an_empty_scope_is_refused() -> None:
    """An application that lost its user's id must not share what it meant to keep apart."""
    with pytest.raises(ClientError, match="Encore-Scope"):
        parse_controls({"encore-scope": ""})


def test_tags_are_counted_once_each() -> None:
    """Repeating a tag takes no room."""
    tags = [f"t{i}" for i in range(MAX_TAGS)]
    assert parse_controls({"encore-tags": ",".join(tags * 3)}).tags == tuple(tags)
    with pytest.raises(ClientError, match="at most 16"):
        parse_controls({"encore-tags": ",".join([*tags, "one-more"])})
