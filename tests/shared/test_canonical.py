"""The canonical form: equal bytes if, and only if, one answer may serve both requests."""

from __future__ import annotations

import json
import random
from copy import deepcopy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.canonical import UNKEYED, canonical
from shared.errors import ClientError
from shared.json_text import MAX_DEPTH, dumps, parse_object
from shared.requests import Endpoint

TEXT = st.text(max_size=8)
NUMBERS = st.integers(-(2**64), 2**64) | st.floats(allow_nan=False, allow_infinity=False).filter(
    lambda number: not number.is_integer()
)
SCALARS = st.none() | st.booleans() | NUMBERS | TEXT
JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)
NAMES = st.sampled_from(
    [
        *("model", "messages", "n", "seed", "stop", "logit_bias", "zzz", "o"),
        *("tools", "functions", "response_format", "guided_json", "structured_outputs"),
    ]
)
HOLDERS = st.sampled_from(["tools", "functions", "response_format"])
FIELDS = st.dictionaries(NAMES, JSON, max_size=6)


def form(fields: dict[str, Any], **changes: Any) -> bytes:
    """The canonical bytes of a chat request with these fields."""
    place = {"tenant": "acme", "scope": "", "endpoint": Endpoint.CHAT, "bucket": 0, **changes}
    return canonical(fields=fields, **place)


def same(left: Any, right: Any) -> bool:
    """Whether two JSON values are equal to the type: true is not 1. Python's == cannot tell."""
    return json.dumps(left, sort_keys=True) == json.dumps(right, sort_keys=True)


def shuffled(value: Any, seed: random.Random) -> Any:
    """`value` with the keys of every object in another order."""
    if isinstance(value, dict):
        keys = list(value)
        seed.shuffle(keys)
        return {key: shuffled(value[key], seed) for key in keys}
    if isinstance(value, list):
        return [shuffled(inner, seed) for inner in value]
    return value


def test_normalised_fields_have_keys_of_their_own() -> None:
    """One profile's form of a request is another request where the profile is another."""
    profiles = (None, "text", "property")
    assert len({form({"model": "m"}, profile=profile) for profile in profiles}) == len(profiles)


def test_content_classes_have_keys_of_their_own() -> None:
    """Also beside a profile, and where one is named as the other; no class is one, too."""
    names = (None, "text", "memo")
    forms = {form({"model": "m"}, profile=p, content_class=c) for p in names for c in names}
    assert len(forms) == len(names) ** 2


@given(FIELDS)
def test_the_form_is_utf8_json_and_changes_nothing(fields: dict[str, Any]) -> None:
    """It can be read back, and the request it was made from is as it was."""
    before = deepcopy(fields)
    version, tenant, scope, endpoint, bucket, _ = json.loads(form(fields))
    assert (version, tenant, scope, endpoint, bucket) == (
        "encore-1",
        "acme",
        "",
        "/v1/chat/completions",
        0,
    )
    assert same(fields, before)
    assert list(fields) == list(before)


@given(st.dictionaries(st.sampled_from(["model", "logit_bias", "zzz", "stop"]), JSON), st.randoms())
def test_key_order_outside_schemas_is_nothing(fields: dict[str, Any], seed: random.Random) -> None:
    """Objects are sorted wherever order cannot shape the output."""
    assert form(fields) == form(shuffled(fields, seed))


@given(HOLDERS, st.sampled_from(["parameters", "schema"]), JSON, st.randoms())
def test_key_order_within_schemas_is_kept(
    holder: str, name: str, schema: Any, seed: random.Random
) -> None:
    """Two orders of a schema are two requests; around the schema order is still nothing."""
    other = shuffled(schema, seed)
    left = {holder: [{"type": "function", "function": {"name": "f", name: schema}}]}
    right = {holder: [{"function": {name: other, "name": "f"}, "type": "function"}]}
    equal = json.dumps(schema) == json.dumps(other)
    assert (form(left) == form(right)) == equal


@pytest.mark.parametrize(
    "place",
    [
        '{"tools": [{"type": "function", "function": {"parameters": %s}}]}',
        '{"tools": [{"type": "function", "parameters": %s}]}',
        '{"functions": [{"name": "f", "parameters": %s}]}',
        '{"response_format": {"type": "json_schema", "json_schema": {"schema": %s}}}',
        '{"response_format": {"type": "json_object", "schema": %s}}',
        '{"response_format": {"type": "structural_tag", "structures": [{"schema": %s}]}}',
        '{"guided_json": %s}',
        '{"json_schema": %s}',
        '{"structured_outputs": {"json": %s}}',
    ],
)
def test_every_dialect_of_schema_keeps_its_order(place: str) -> None:
    """OpenAI's, its older one, and those of servers that speak its API."""
    texts = ('{"b": 1, "a": {"d": 1, "c": 2}}', '{"b": 1, "a": {"c": 2, "d": 1}}')
    first, second = (form(parse_object((place % text).encode())) for text in texts)
    assert first != second


def test_the_ordered_form_cannot_be_imitated() -> None:
    """A schema written as the form of another schema is not that schema."""
    schema = {"b": 1, "a": 2}
    imitation = {"o": [["b", 1], ["a", 2]]}
    for place in (
        lambda x: {"guided_json": x},
        lambda x: {"tools": [{"function": {"parameters": x}}]},
        lambda x: {"tools": {"parameters": x}},
    ):
        assert form(place(schema)) != form(place(imitation))


@given(FIELDS, FIELDS)
def test_different_requests_have_different_forms(
    left: dict[str, Any], right: dict[str, Any]
) -> None:
    """Equal forms mean equal fields, once what is folded on purpose is taken away."""

    def folded(fields: dict[str, Any]) -> dict[str, Any]:
        kept = {name: value for name, value in fields.items() if value is not None}
        if same(kept.get("n"), 1):
            del kept["n"]
        if isinstance(messages := kept.get("messages"), list):
            kept["messages"] = [
                {k: v for k, v in m.items() if v is not None} if isinstance(m, dict) else m
                for m in messages
            ]
        return kept

    if form(left) == form(right):
        assert same(folded(left), folded(right))


@given(FIELDS, NAMES.filter(lambda name: name not in {"messages", "n"}), JSON)
def test_any_change_of_a_keyed_field_changes_the_form(
    fields: dict[str, Any], name: str, value: Any
) -> None:
    """What is written alike has one form; what differs in more than order has two."""
    before = fields.get(name)
    changed = {**fields, name: value}
    if json.dumps(before) == json.dumps(value):
        assert form(changed) == form(fields)
    elif not same(before, value):
        assert form(changed) != form(fields)


@given(FIELDS, st.dictionaries(st.sampled_from(sorted(UNKEYED)), JSON))
def test_what_is_not_keyed_never_counts(fields: dict[str, Any], unkeyed: dict[str, Any]) -> None:
    """How an answer is sent, billed or filed does not change what it says."""
    assert form({**unkeyed, **fields}) == form(fields)


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ('{"n": 1}', "{}"),
        ('{"n": 1.0}', "{}"),
        ('{"n": null}', "{}"),
        ('{"stop": null, "seed": null}', "{}"),
        ('{"temperature": 1}', '{"temperature": 1.0}'),
        ('{"temperature": 1}', '{"temperature": 10e-1}'),
        ('{"temperature": 0}', '{"temperature": -0.0}'),
        ('{"top_p": 0.1}', '{"top_p": 1e-1}'),
        ('{"messages": [{"role": "a", "content": null}]}', '{"messages": [{"role": "a"}]}'),
        ('{"stop": "\\u00e9"}', '{"stop": "é"}'),
        ('{"stop": "\\/"}', '{"stop": "/"}'),
    ],
)
def test_two_spellings_of_one_request_are_equal(left: str, right: str) -> None:
    """Each folding that is meant."""
    assert form(parse_object(left.encode())) == form(parse_object(right.encode()))


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ('{"n": true}', "{}"),
        ('{"n": "1"}', "{}"),
        ('{"n": 2}', "{}"),
        ('{"n": 0}', "{}"),
        ('{"x": true}', '{"x": 1}'),
        ('{"x": false}', '{"x": 0}'),
        ('{"x": "1"}', '{"x": 1}'),
        ('{"x": {"y": null}}', '{"x": {}}'),
        ('{"x": [null]}', '{"x": []}'),
        ('{"x": []}', '{"x": {}}'),
        ('{"x": ""}', "{}"),
        ('{"x": "null"}', "{}"),
        ('{"temperature": 1}', "{}"),
        ('{"seed": 9007199254740992}', '{"seed": 9007199254740993}'),
        ('{"seed": 18446744073709551615}', '{"seed": 18446744073709551614}'),
        ('{"stop": "é"}', '{"stop": "e\\u0301"}'),
        ('{"stop": ["a", "b"]}', '{"stop": ["b", "a"]}'),
        ('{"stop": ["a,b"]}', '{"stop": ["a", "b"]}'),
        ('{"messages": [{"content": "a"}]}', '{"messages": [{"content": ["a"]}]}'),
        ('{"messages": [{"a": {"b": null}}]}', '{"messages": [{"a": {}}]}'),
        ('{"max_tokens": 5}', '{"max_completion_tokens": 5}'),
    ],
)
def test_requests_that_only_look_alike_are_not_equal(left: str, right: str) -> None:
    """In doubt nothing is folded."""
    assert form(parse_object(left.encode())) != form(parse_object(right.encode()))


@given(
    st.lists(
        st.tuples(TEXT, TEXT, st.sampled_from(list(Endpoint)), st.integers(0, 9999)),
        min_size=2,
        max_size=2,
        unique=True,
    )
)
def test_tenant_scope_endpoint_and_bucket_keep_apart(
    places: list[tuple[str, str, Endpoint, int]],
) -> None:
    """Wherever one ends and the next begins."""
    names = ("tenant", "scope", "endpoint", "bucket")
    left, right = (form({}, **dict(zip(names, place, strict=True))) for place in places)
    assert left != right


@given(FIELDS)
def test_a_body_and_its_fields_have_one_form(fields: dict[str, Any]) -> None:
    """Writing a request and reading it again changes nothing: edge and origin agree."""
    assert form(parse_object(dumps(fields))) == form(fields)


def test_the_deepest_body_has_a_form() -> None:
    """The ordered form is deeper than the body; it must not exhaust the stack."""
    depth = MAX_DEPTH - 1
    body = '{"guided_json": ' + '{"a":' * depth + "1" + "}" * depth + "}"
    assert form(parse_object(body.encode())).count(b'{"o":[["a",') == depth


def test_a_lone_surrogate_is_the_clients_fault() -> None:
    """It has no UTF-8 form."""
    with pytest.raises(ClientError, match="surrogate"):
        form({"stop": "\ud83d"})
