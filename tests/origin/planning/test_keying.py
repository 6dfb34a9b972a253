"""Keys of rows: those that edge and origin would make, and what else a replay needs."""

from __future__ import annotations

from typing import Any

import pytest

from origin.planning import keying
from origin.planning.keying import Asked, Keying, number_of
from origin.planning.log import Bad, Row
from origin.prices import Prices
from shared.control_document import ControlDocument, Policy, canonical_for
from shared.controls import Controls
from shared.keys import cache_key, key_ring
from shared.requests import Endpoint

RING = key_ring("a secret of the tests, long enough")
PROFILES = ("exact", "text", "property")
HOME = "Analyze this property: 12 Oak Street, 3 bedrooms, 2 bathrooms, $450,000"
PRICES = Prices.parse('{"m": {"input": 1, "output": 10}}')


def chat(text: str = HOME, **fields: Any) -> dict[str, Any]:
    """The body of a chat request."""
    return {"model": "m", "messages": [{"role": "user", "content": text}], **fields}


def row(fields: dict[str, Any], endpoint: Endpoint = Endpoint.CHAT, **more: Any) -> Row:
    """A row with such a body."""
    given: dict[str, Any] = {
        "number": 1,
        "time_ms": 1000,
        "tenant": "acme",
        "location": "",
        "controls": Controls(),
        "body_bytes": 100,
        "tokens": None,
    }
    return Row(endpoint=endpoint, fields=fields, **(given | more))


def asked(*rows: Row, profiles: tuple[str, ...] = PROFILES) -> tuple[list[Asked], Keying, Bad]:
    """(what they ask, what keyed them, bad lines)."""
    made = Keying(
        RING,
        profiles,
        prices=PRICES,
        max_body_bytes=1000,
        answer_tokens=100,
        interval_ms=500,
    )
    bad = Bad()
    return list(made.asked(iter(rows), bad)), made, bad


def one(given: Row) -> Asked:
    """What one row asks."""
    found, _, bad = asked(given)
    assert not bad.count, bad.lines
    return found[0]


@pytest.mark.parametrize("place", range(len(PROFILES)))
def test_keys_are_those_of_edge_and_origin(place: int) -> None:
    """By the tenant's document, under each profile, the first time and the next."""
    fields = chat("Please  analyze this property: 12 Oak St, 3BR/2BA, $450k")
    controls = Controls(scope="s", bucket=2)
    document = ControlDocument(
        tenant="acme", revision=1, policy=Policy(normalisation=PROFILES[place])
    )
    form = canonical_for(document, endpoint=Endpoint.CHAT, controls=controls, fields=fields)
    expected = number_of(cache_key(RING, form.canonical))
    found, _, _ = asked(row(fields, controls=controls), row(fields, controls=controls))
    assert [each.keys[place] for each in found] == [(expected,)] * 2


def test_profiles_fold_what_they_fold() -> None:
    """Spellings under `text`, ways to put a home under `property`."""
    plain, spelt, put = (
        one(row(chat(text))).keys
        for text in (HOME, HOME.lower(), "Analyze this property: 12 Oak St, 3BR/2BA, $450k")
    )
    assert len({plain[0], spelt[0], put[0]}) == 3
    assert plain[2] == spelt[2] == put[2]
    assert plain[1] != put[1]


def test_each_input_of_a_batch_has_the_key_it_has_alone() -> None:
    """However it is written."""
    many = one(row({"model": "m", "input": ["a", "b"]}, Endpoint.EMBEDDINGS))
    alone = one(row({"model": "m", "input": "b", "encoding_format": "base64"}, Endpoint.EMBEDDINGS))
    assert many.is_batch
    assert not alone.is_batch
    assert many.keys[0][1:] == alone.keys[0]


def test_time_never_goes_back() -> None:
    """A row without one comes an interval after the one before."""
    times = (5000, 3000, None, 9000)
    found, made, _ = asked(*(row(chat(), time_ms=time_ms) for time_ms in times))
    assert [each.time_ms for each in found] == [5000, 5000, 5500, 9000]
    facts = made.facts
    assert (facts.requests, facts.out_of_order, facts.untimed) == (4, 1, 1)
    assert (facts.first_ms, facts.last_ms) == (5000, 9000)


@pytest.mark.parametrize(
    ("given", "tokens"),
    [
        (row(chat("x" * 40)), (10, 100)),
        (row(chat("x" * 40, max_tokens=7)), (10, 7)),
        (row(chat(), tokens=(3, 4)), (3, 4)),
        (row({"model": "m", "prompt": [1, 2, 3]}, Endpoint.COMPLETIONS), (3, 100)),
        (row({"model": "m", "input": "x" * 9}, Endpoint.EMBEDDINGS), (3, 0)),
        (
            row(chat(messages=[{"role": "user", "content": [{"type": "text", "text": "abcd"}]}])),
            (1, 100),
        ),
    ],
)
def test_tokens_are_those_of_the_log_or_estimated(given: Row, tokens: tuple[int, int]) -> None:
    """By characters, and what the request allows."""
    found = one(given)
    assert (found.prompt_tokens, found.completion_tokens) == tokens


def test_money_is_known_of_models_with_a_price() -> None:
    """In USD, of a generation."""
    found, made, _ = asked(row(chat(), tokens=(1000, 100)), row(chat(model="other")))
    assert [each.usd for each in found] == [pytest.approx(0.002), None]
    assert made.facts.unpriced == 1


@pytest.mark.parametrize(
    ("given", "why"),
    [
        (row(chat()), None),
        (row(chat(web_search_options={})), "web_search"),
        (row(chat("x" * 2000), body_bytes=2100), "too-large"),
        (row(chat(), body_bytes=2100), None),  # the line has more than the body
    ],
)
def test_what_is_never_stored_says_why(given: Row, why: str | None) -> None:
    """As the origin does."""
    assert one(given).bypass == why


@pytest.mark.parametrize(
    "fields",
    [
        {"model": "m"},
        chat(messages=[]),
        chat(temperature="hot"),
        chat(stream="yes"),
        chat(stream_options={"include_usage": True}),
        chat(model=3),
    ],
)
def test_what_would_be_refused_is_a_bad_line(fields: dict[str, Any]) -> None:
    """Named by its number; the rows around it are read."""
    found, made, bad = asked(row(chat()), row(fields, number=7), row(chat()))
    assert (len(found), made.facts.requests) == (2, 2)
    ((number, _),) = bad.lines
    assert number == 7


def test_fields_outside_the_key_are_looked_at_each_time() -> None:
    """For an equal key proves nothing of them."""
    found, _, bad = asked(row(chat()), row(chat(user=5)))
    assert (len(found), bad.count) == (1, 1)


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first goes first, and has the same keys when it comes again."""
    monkeypatch.setattr(keying, "MAX_REMEMBERED", 3)
    texts = ["a", "b", "c", "d", "a"]
    found, made, _ = asked(*(row(chat(text)) for text in texts))
    assert len(made._known) == 3
    assert found[0].keys == found[-1].keys
    assert len({each.keys for each in found}) == 4
