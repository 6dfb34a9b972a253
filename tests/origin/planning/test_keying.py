"""Keys of rows: those that edge and origin would make, and what else a replay needs."""

from __future__ import annotations

from typing import Any

import pytest

from origin.planning.keying import Asked, Keying, Rules, number_of
from origin.planning.log import Reading
from origin.prices import Prices
from shared.control_document import ControlDocument, Policy, canonical_for
from shared.controls import Controls
from shared.json_text import dumps
from shared.keys import cache_key, key_ring
from shared.requests import Endpoint

RING = key_ring("a secret of the tests, long enough")
PROFILES = ("exact", "text", "property")
HOME = "Analyze this property: 12 Oak Street, 3 bedrooms, 2 bathrooms, $450,000"
PRICES = Prices.parse('{"m": {"input": 1, "output": 10}}')


SILENT = {
    "role": "assistant",
    "content": None,
    "tool_calls": [{"id": "a", "type": "function", "function": {"name": "f", "arguments": ""}}],
}


def chat(text: str = HOME, **fields: Any) -> dict[str, Any]:
    """The body of a chat request."""
    return {"model": "m", "messages": [{"role": "user", "content": text}], **fields}


def line(fields: dict[str, Any], endpoint: Endpoint = Endpoint.CHAT, **more: Any) -> bytes:
    """A line with such a body."""
    return dumps({"body": fields, "endpoint": endpoint.value, **more})


def keying(*profiles: str, max_body_bytes: int = 1000) -> Keying:
    """What keys them."""
    return Keying(
        Rules(
            ring=RING,
            profiles=profiles or PROFILES,
            reading=Reading(tenant="acme", model="m"),
            prices=PRICES,
            max_body_bytes=max_body_bytes,
            answer_tokens=100,
        )
    )


def asked(*lines: bytes) -> list[Asked]:
    """What they ask."""
    keyed, wrong = keying().all_keyed(enumerate(lines, 1))
    assert not wrong
    return [each.asked for each in keyed]


def one(given: bytes) -> Asked:
    """What one line asks."""
    return asked(given)[0]


@pytest.mark.parametrize("place", range(len(PROFILES)))
def test_keys_are_those_of_edge_and_origin(place: int) -> None:
    """By the tenant's document, under each profile, the first time and the next."""
    fields = chat("Please  analyze this property: 12 Oak St, 3BR/2BA, $450k")
    controls = Controls(scope="s", bucket=2)
    headers = {"Encore-Scope": "s", "Encore-Bucket": "2"}
    document = ControlDocument(
        tenant="acme", revision=1, policy=Policy(normalisation=PROFILES[place])
    )
    form = canonical_for(document, endpoint=Endpoint.CHAT, controls=controls, fields=fields)
    expected = number_of(cache_key(RING, form.canonical))
    found = asked(line(fields, headers=headers), line(fields, headers=headers))
    assert [each.keys[place] for each in found] == [(expected,)] * 2


def test_profiles_fold_what_they_fold() -> None:
    """Spellings under `text`, ways to put a home under `property`."""
    plain, spelt, put = (
        one(line(chat(text))).keys
        for text in (HOME, HOME.lower(), "Analyze this property: 12 Oak St, 3BR/2BA, $450k")
    )
    assert len({plain[0], spelt[0], put[0]}) == 3
    assert plain[2] == spelt[2] == put[2]
    assert plain[1] != put[1]


def test_each_input_of_a_batch_has_the_key_it_has_alone() -> None:
    """However it is written."""
    many = one(line({"model": "m", "input": ["a", "b"]}, Endpoint.EMBEDDINGS))
    alone = one(
        line({"model": "m", "input": "b", "encoding_format": "base64"}, Endpoint.EMBEDDINGS)
    )
    assert many.is_batch
    assert not alone.is_batch
    assert many.keys[0][1:] == alone.keys[0]


@pytest.mark.parametrize(
    ("given", "tokens"),
    [
        (line(chat("x" * 40)), (10, 100)),
        (line(chat("x" * 40, max_tokens=7)), (10, 7)),
        (line(chat(), usage={"prompt_tokens": 3, "completion_tokens": 4}), (3, 4)),
        (line(chat(messages=[SILENT])), (0, 100)),
        (line({"model": "m", "prompt": [1, 2, 3]}, Endpoint.COMPLETIONS), (3, 100)),
        (line({"model": "m", "input": "x" * 9}, Endpoint.EMBEDDINGS), (3, 0)),
        (
            line(chat(messages=[{"role": "user", "content": [{"type": "text", "text": "abcd"}]}])),
            (1, 100),
        ),
    ],
)
def test_tokens_are_those_of_the_log_or_estimated(given: bytes, tokens: tuple[int, int]) -> None:
    """By characters, and what the request allows."""
    found = one(given)
    assert (found.prompt_tokens, found.completion_tokens) == tokens


def test_money_is_known_of_models_with_a_price() -> None:
    """In USD, of a generation."""
    usage = {"prompt_tokens": 1000, "completion_tokens": 100}
    found = asked(line(chat(), usage=usage), line(chat(model="other"), usage=usage))
    assert [each.usd for each in found] == [pytest.approx(0.002), None]


@pytest.mark.parametrize(
    ("given", "why"),
    [
        (line(chat()), None),
        (line(chat(web_search_options={})), "web_search"),
        (line(chat("x" * 2000)), "too-large"),
        (line(chat(), said="x" * 2000), None),  # the line has more than the body
    ],
)
def test_what_is_never_stored_says_why(given: bytes, why: str | None) -> None:
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
    keyed, wrong = keying().all_keyed(enumerate((line(chat()), line(fields), line(chat()))))
    assert len(keyed) == 2
    assert [number for number, _ in wrong] == [1]


def test_fields_outside_the_key_are_looked_at_each_time() -> None:
    """For an equal key proves nothing of them."""
    keyed, wrong = keying().all_keyed(enumerate((line(chat()), line(chat(user=5)))))
    assert (len(keyed), len(wrong)) == (1, 1)


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first goes first, and has the same keys when it comes again."""
    monkeypatch.setattr("origin.planning.keying.MAX_REMEMBERED", 3)
    made = keying()
    lines = [line(chat(text)) for text in ("a", "b", "c", "d", "a")]
    keys = [made.keyed(1, each).asked.keys for each in lines]
    assert len(made._known) == 3
    assert keys[0] == keys[-1]
    assert len(set(keys)) == 4
