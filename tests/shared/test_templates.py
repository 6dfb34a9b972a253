"""Templates: registration that names what is wrong, and matching in full, forward only."""

from __future__ import annotations

import copy
from functools import partial
from itertools import permutations
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from shared.canonical import canonical
from shared.errors import ClientError
from shared.json_text import parse_object
from shared.requests import Endpoint
from shared.templates import (
    MAX_MESSAGE_CHARACTERS,
    MAX_SLOTS,
    MAX_TEMPLATES,
    TemplateError,
    Templates,
    match,
    parse_template,
    register,
    templated,
)

LISTING = "Analyze this property: {address:address}, {beds:beds}/{baths:baths}, {price:money}"
TEMPLATES = register(
    {
        "listing@1": LISTING,
        "convert@2": "How many {to:enum(mile|miles|feet)} are in {amount:number} {from:text(12)}?",
        "say@2024-05.1": "Say {{{words:text}}} {times:integer} times",
    }
)


def chat(content: Any, **others: Any) -> dict[str, Any]:
    """The fields of a chat with one message."""
    return {"model": "m", "messages": [{"role": "user", "content": content}], **others}


def slots_of(text: str, templates: Templates = TEMPLATES) -> Any:
    """The label and slots of the template that matches a message, or None."""
    form = form_of(text, templates)
    return form and {name: form[name] for name in ("template", "slots")}


def form_of(text: str, templates: Templates = TEMPLATES) -> Any:
    """What stands for a message in its key, or None where no template matches."""
    fields = templated(templates, Endpoint.CHAT, chat(text))
    return fields and fields["messages"][0]["content"]


@pytest.mark.parametrize(
    "text",
    [
        "Analyze this property: 12 Elm St, Reno, NV 89501, 3BR/2.5BA, $450k",
        "Analyze this property: 12 elm street, reno, nevada 89501, three bd/2 1/2 baths, $450,000",
        "  Analyze this property: 12 Elm St, Reno NV 89501, 3-bed/2½ ba, USD 0.45M\n",
    ],
)
def test_typed_slots_have_one_spelling(text: str) -> None:
    """What differs in the spelling of slots only, has one form."""
    assert slots_of(text) == {
        "template": "listing@1",
        "slots": {
            "address": "12 Elm Street, Reno, NV 89501",
            "beds": "3 beds",
            "baths": "2.5 baths",
            "price": "450000 USD",
        },
    }


@pytest.mark.parametrize(
    "text",
    [
        "Analyze this property: 12 Elm St, 3BR/2BA, $450k.",
        "Analyze this property: 12 Elm St, 3BR/2BA, $450k firm",
        "Analyze this property: 12 Elm St, 3BR/2BA, 450k",
        "Analyze this property: 12 Elm St, 3BR / 2BA, $450k",
        "Analyze this property: 12 Elm St, 2BA/3BR, $450k",
        "analyze this property: 12 Elm St, 3BR/2BA, $450k",
        "Please Analyze this property: 12 Elm St, 3BR/2BA, $450k",
        "Analyze this property: , 3BR/2BA, $450k",
        "Analyze this property: 12 Elm St",
        "How many inches are in 5 km?",
        "How many miles are in 5 of my kilometres?",
        "How many miles are in 5 ?",
        "How many miles are in five km?",
        "Say {x} 2.5 times",
        "",
    ],
)
def test_what_does_not_match_in_full_has_its_ordinary_key(text: str) -> None:
    """One letter more, less or other, a value of another type: no template."""
    assert slots_of(text) is None


def test_an_enum_takes_its_longest_option_and_a_text_ends_at_the_next_literal() -> None:
    """Matching goes forward only."""
    assert slots_of("How many miles are in -1,000.50 km?")["slots"] == {
        "to": "miles",
        "amount": "-1000.5",
        "from": "km",
    }
    assert slots_of("Say {a}} b} 2 times") is None
    assert slots_of("Say {a  B} 1,200 times")["slots"] == {"words": "a  B", "times": "1200"}


@pytest.mark.parametrize("text", ["Sum 1 and 2", "Sum 1 and 02", "Sum 1 and 2 ", "Sum 1 and +2"])
def test_a_value_is_what_is_written(text: str) -> None:
    """A text is kept to the letter."""
    templates = register({"sum@1": "Sum {a:integer} and {b:text}"})
    assert slots_of(text, templates)["slots"] == {"a": "1", "b": text.strip()[10:]}


@pytest.mark.parametrize(
    ("kind", "one", "same", "other"),
    [
        ("text", "a b", "a b", "a  b"),
        ("integer", "1,200", "1200", "1201"),
        ("number", "0.50", "0.5", "0.05"),
        ("money", "$1.2M", "1,200,000 dollars", "€1.2M"),
        ("address", "1 n oak ave", "1 North Oak Avenue", "1 N Oak St"),
        ("beds", "3BR", "three bedrooms", "4BR"),
        ("baths", "2.5BA", "2 1/2 baths", "2 baths"),
        ("area", "90 m²", "90 sqm", "90 sqft"),
        ("date", "May 1, 2024", "2024-05-01", "2024-01-05"),
        ("enum(a|b)", "a", "a", "b"),
    ],
)
def test_every_type(kind: str, one: str, same: str, other: str) -> None:
    """Equal values have one form, other values another."""
    template = parse_template("t@1", f"<{{x:{kind}}}>")
    values = [match(template, f"<{text}>") for text in (one, same, other)]
    assert values[0] is not None
    assert values[0] == values[1] != values[2] is not None


def test_the_most_literal_template_wins_in_any_order() -> None:
    """Of several that match, literal characters decide, then the label."""
    patterns = {
        "any@1": "{x:text}",
        "b@1": "Explain {x:text}",
        "a@1": "Explain {y:text}",
        "exact@1": "Explain {x:enum(tries)} now",
    }
    for order in permutations(patterns):
        templates = register({label: patterns[label] for label in order})
        assert slots_of("Explain tries now", templates)["template"] == "exact@1"
        assert slots_of("Explain trees", templates)["template"] == "a@1"
        assert slots_of("Describe trees", templates)["template"] == "any@1"


@pytest.mark.parametrize(
    ("label", "pattern", "words"),
    [
        ("Listing", "{x:text}", "template 'Listing': a label is name@version"),
        ("l@1", "no slots", "template 'l@1': a pattern has 1 to"),
        ("l@1", " ".join(f"{{x{i}:text}}" for i in range(MAX_SLOTS + 1)), "a pattern has 1 to"),
        ("l@1", "x" * 5000, "template 'l@1': a pattern has at most"),
        ("l@1", "a {x:text", "template 'l@1': a lone '{' at 2"),
        ("l@1", "{x:text} }", "template 'l@1': a lone '}' at 9"),
        ("l@1", "{x}", "template 'l@1', slot 'x': a slot is name:type"),
        ("l@1", "{x:text}{y:text}", "template 'l@1', slot 'y': it follows another slot"),
        ("l@1", "{x:text} {x:beds}", "template 'l@1', slot 'x': the name is used twice"),
        ("l@1", "{x:colour}", "template 'l@1', slot 'x': there is no type 'colour'"),
        ("l@1", "{x:beds(3)}", "template 'l@1', slot 'x': the type 'beds' takes no argument"),
        ("l@1", "{x:enum}", "template 'l@1', slot 'x': an enum is enum(a|b)"),
        ("l@1", "{x:enum(a|a)}", "template 'l@1', slot 'x': an enum is enum(a|b)"),
        ("l@1", "{x:enum(a|)}", "template 'l@1', slot 'x': an enum is enum(a|b)"),
        ("l@1", "{x:text(0)}", "template 'l@1', slot 'x': a text has 1 to"),
        ("l@1", "{x:text(9999)}", "template 'l@1', slot 'x': a text has 1 to"),
        ("l@1", "{x:text(many)}", "template 'l@1', slot 'x': a text has 1 to"),
    ],
)
def test_registration_names_template_and_slot(label: str, pattern: str, words: str) -> None:
    """An operator is told where the mistake is."""
    with pytest.raises(TemplateError) as caught:
        register({label: pattern})
    assert words in str(caught.value)


def test_a_name_has_one_version_at_a_time() -> None:
    """Which of two versions would win must never be a question."""
    with pytest.raises(TemplateError, match="'l@2': the name is registered as 'l@1'"):
        register({"l@1": "a {x:text}", "l@2": "b {x:text}"})


def test_templates_are_bounded_in_number() -> None:
    """Each message may be held against all of them."""
    with pytest.raises(TemplateError, match="at most"):
        register({f"l{i}@1": "{x:text}" for i in range(MAX_TEMPLATES + 1)})


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=40))
@example("a}}{{b")
def test_braces_are_escaped(literal: str) -> None:
    """Any literal can be registered, and matches itself."""
    pattern = "<" + literal.replace("{", "{{").replace("}", "}}") + "{x:integer}>"
    assert match(parse_template("t@1", pattern), f"<{literal}7>") in ({"x": "7"}, None)
    if literal.isalpha():
        assert match(parse_template("t@1", pattern), f"<{literal}7>") == {"x": "7"}


@given(st.text(max_size=60), st.text(max_size=60))
def test_any_text_is_matched_or_not(one: str, two: str) -> None:
    """Nothing raises, and what matches is stated by its slots in full."""
    templates = register({"t@1": "{a:text(60)} and {b:text(60)}"})
    for text in (one, two, f"{one} and {two}"):
        found = slots_of(text, templates)
        if found is not None:
            assert " and ".join(found["slots"].values()) == text.strip(" \t\r\n")


def test_all_other_fields_stay_in_the_key() -> None:
    """The message alone is replaced; the fields given are not changed."""
    fields = chat("Say {hi} 2 times", temperature=0.5, user="u")
    fields["messages"].insert(0, {"role": "system", "content": "Say {hi} 2 times"})
    before = copy.deepcopy(fields)
    changed = templated(TEMPLATES, Endpoint.CHAT, fields)
    assert fields == before
    assert changed is not None
    assert changed["messages"][0] == before["messages"][0]
    assert {**changed, "messages": None} == {**before, "messages": None}


def test_a_text_part_is_matched_and_its_image_kept() -> None:
    """Parts are held apart from a plain text: a template states no more than the text."""
    image = {"type": "image_url", "image_url": {"url": "data:,"}}
    fields = chat([{"type": "text", "text": "Say {hi} 2 times"}, image])
    changed = templated(TEMPLATES, Endpoint.CHAT, fields)
    assert changed is not None
    content = changed["messages"][0]["content"]
    assert content[1] == image
    assert content[0]["text"]["template"] == "say@2024-05.1"


@pytest.mark.parametrize("templates", [TEMPLATES, Templates()])
@pytest.mark.parametrize("as_part", [False, True])
def test_a_client_cannot_name_a_key(templates: Templates, as_part: bool) -> None:
    """The form of a template is refused where a client writes it, templates registered or not."""
    form = form_of("Say {hi} 2 times")
    content = [{"type": "text", "text": form}] if as_part else form
    with pytest.raises(ClientError) as caught:
        templated(templates, Endpoint.CHAT, chat(content))
    expected = "messages[0].content[0].text" if as_part else "messages[0].content"
    assert caught.value.param == expected


def test_a_spelt_out_form_is_another_key() -> None:
    """The JSON of a form, sent as a text, is only a text."""
    fields = templated(TEMPLATES, Endpoint.CHAT, chat("Say {hi} 2 times"))
    assert fields is not None
    write = partial(canonical, tenant="t", scope="", endpoint=Endpoint.CHAT, bucket=0)
    made = write(fields=fields)
    spelt = chat(str(fields["messages"][0]["content"]))
    assert templated(TEMPLATES, Endpoint.CHAT, spelt) is None
    assert write(fields=spelt) != made
    assert b'"slots":{"times":"2","words":"hi"},"template":"say@2024-05.1"}' in made


def test_another_pattern_makes_other_keys() -> None:
    """An operator may change a template's words and keep its label."""
    praise, criticise = (register({"a@1": f"{verb} {{it:text}}"}) for verb in ("Praise", "Blame"))
    assert slots_of("Praise it", praise) == slots_of("Blame it", criticise)
    assert form_of("Praise it", praise) != form_of("Blame it", criticise)


@pytest.mark.parametrize("body", ['{"messages": 1}', '{"messages": [1]}', '{"messages": []}', "{}"])
def test_malformed_fields_match_nothing(body: str) -> None:
    """What is not as documented is refused elsewhere."""
    assert templated(TEMPLATES, Endpoint.CHAT, parse_object(body.encode())) is None


@pytest.mark.parametrize("endpoint", [Endpoint.COMPLETIONS, Endpoint.EMBEDDINGS])
def test_templates_are_for_chats(endpoint: Endpoint) -> None:
    """A prompt goes on where it ends: no template can say in full what it asks."""
    fields = {**chat("Say {hi} 2 times"), "prompt": "Say {hi} 2 times"}
    assert templated(TEMPLATES, endpoint, fields) is None


def test_matching_never_goes_back() -> None:
    """Hostile messages and patterns cost one pass: many texts between equal literals."""
    pattern = "".join(f"{{x{i}:text(8192)}}a" for i in range(MAX_SLOTS)) + "b"
    templates = register({f"t{i}@1": pattern for i in range(MAX_TEMPLATES)})
    assert slots_of("a" * MAX_MESSAGE_CHARACTERS, templates) is None
    typed = "".join(f"{{x{i}:address}}, " for i in range(MAX_SLOTS)) + "b"
    templates = register({f"t{i}@1": typed for i in range(MAX_TEMPLATES)})
    assert slots_of("1 Oak St, " * 1600, templates) is None


def test_a_long_message_is_not_looked_at() -> None:
    """Beyond the limit a message has its ordinary key."""
    templates = register({"t@1": "a {x:text}"})
    assert slots_of("a b", templates) is not None
    assert slots_of("a " + "b" * MAX_MESSAGE_CHARACTERS, templates) is None
