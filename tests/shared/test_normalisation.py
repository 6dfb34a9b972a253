"""Profiles: which text of a request is replaced, what is left alone, and what never collides."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from shared.normalisation import MAX_CONTEXT_CHARACTERS, PROFILES, form, normalise
from shared.requests import Endpoint

PIECES = st.sampled_from(
    [
        *(
            "please ",
            "Please, ",
            "could you ",
            "Can you please ",
            "hello, ",
            "thanks",
            "Thank you.",
        ),
        *("explain ", "Analyze ", "analyse this property: ", "what is ", "You ", "List the "),
        *("123 Main St", "5 N. St James Place", "Apt 4B", ", ", "Reno", "NV", "89501", "; ", "/"),
        *("3BR", "2 1/2 baths", "three beds", "$450k", "EUR 1.2M", "1,200 sq. ft.", "0.25 acres"),
        *("built in 1995", "listed May 1, 2024", " at ", " and ", " the price is ", " lot "),
        *("`", "```", '"', "\u201c", "\u201d", "\u00ab", "'", "\u2019", "don\u2019t", ": ", "\n"),
        *("?", "!", ".", " ", "  ", "\t", "\xa0", "(", ")", "=", "-", " - ", "7", "US", "us"),
        *("\ufb01nd", "e\u0301", "\uff21\uff22\uff23", "translate ", "letters in ", "\r\n", "İ"),
    ]
)
TEXTS = st.one_of(
    st.text(),
    st.lists(PIECES, max_size=12).map("".join),
    st.lists(PIECES, max_size=12).map(" ".join),
)

# Pairs of requests in words of our own, `same` where one answer serves both.
PAIRS = [
    json.loads(line)
    for line in (Path(__file__).parent / "data/adversarial.jsonl").read_text("utf-8").splitlines()
]

# Near-misses: for each frame, values none of which may be taken for another.
NEAR_MISSES = {
    "house number": ("Analyze this property: {} Elm Ave, Salem, 4BR/3BA, $610k", "812 821 8120 81"),
    "street": ("Analyze this property: 12 {}, 4BR/3BA, $610k", "Elm_Ave Elm_St Oak_Ave Elmer_Ave"),
    "direction": ("Analyze this property: 12 {} Ave, 4BR/3BA, $610k", "N_Elm S_Elm NE_Elm Elm"),
    "city": ("Please analyze: 12 Elm Ave, {}, 4BR/3BA", "Salem Eugene Bend Salem,_OR Salem,_MA"),
    "beds": ("Analyze this property: 12 Elm Ave, Salem, {}/3BA, $610k", "4BR 5BR 40BR"),
    "baths": ("Analyze this property: 12 Elm Ave, Salem, 4BR/{}", "3BA 3.5BA 2.5BA 35BA 1/2_BA"),
    "rooms swapped": ("Analyze this property: 12 Elm Ave, Salem, {}", "4BR/3BA 3BR/4BA 4BR 4BA"),
    "price": (
        "Please analyze: 12 Elm Avenue, 4 bedroom 3 bath, asking {}",
        "$610k $710k $615k $610M $610 $61k €610k £610k C$610k $6.10k ¥610k",
    ),
    "area": (
        "Analyze this property: 12 Elm Ave, 4BR/3BA, {}",
        "900_sqft 900_m² 900_acres 9,000_sqft 900_sqft_lot 90.0_m²",
    ),
    "date": (
        "Analyze this property: 12 Elm Ave, 4BR/3BA, {}",
        "built_1995 built_1959 listed_2024-05-01 listed_2024-01-05 2024-05-01",
    ),
    "unit": (
        "Analyze this property: 12 Elm Ave{}, Salem, 4BR/3BA",
        " _Apt_4 _Apt_4B _Unit_4 _#4 _Suite_4",
    ),
    "verb": ("{} this property: 12 Elm Ave, 4BR/3BA", "Analyze Evaluate Appraise Describe"),
    "noun": ("Analyze this {}: 12 Elm Ave, 4BR/3BA", "property house condo home"),
    "negation": (
        "{} analyze this property: 12 Elm Ave, 4BR/3BA",
        "Please Do_not Don't Never Please_don't",
    ),
    "one more word": (
        "Analyze this property: 12 Elm Ave, 4BR/3BA, $610k{}",
        " _firm _or_less _monthly +  ? _if_renovated _not_included",
    ),
    "entity": ("What was {}'s revenue in 2019?", "Apple Intel Boeing"),
    "year": ("What was Intel's revenue in {}?", "2019 2018 Q3_2019 2019-20 1,019"),
    "metric": ("What was Intel's {} in 2019?", "revenue net_income gross_margin"),
    "order of roles": ("Why is {}?", "A_better_than_B B_better_than_A A_worse_than_B A_not_better"),
    "language": ("Translate the menu from {}", "French_to_Dutch Dutch_to_French French_to_Danish"),
    "identifier": ("Sort the list by {}", "user_id userId user_ID order_id user_id_descending"),
    "operator": ("Explain this line: x = {}", "sum(a) max(a) sum(A) sum(a_) sum(_a)"),
    "number": ("How many miles are in {} km?", "86 87 8.6 8,6 860 -86 86.0 ८६"),
    "tense": ("{} I buy bonds when rates rise?", "Should Should_not Shouldn't Could"),
    "case": ("Is {} good?", "US us Polish polish March march WHO who"),
    "sentence": (
        "{}",
        "You_are_ready. You_are_ready? You_are_ready! Are_you_ready? You_aren't_ready",
    ),
    "quotation": ("Define {}", '"US" "us" \'US\' “US” `US` US'),
    "ability": ("{}", "Can_you_swim? Swim. Can_you_write_poems? Write_poems. Can_she_swim?"),
    "sign": ("Explain {}", "C C# C++ C- .NET NET save! save n! n"),
    "address": ("Who lives at {}?", "me@x.org Me@x.org https://x.org/A https://x.org/a"),
    "saint": (
        "best {} breeders",
        "st._bernard St._Bernard street_bernard saint_bernard st_bernard",
    ),
    "letter": ("{} nedir", "I \u0131 İ i"),
}


def chat(content: Any, *before: dict[str, Any]) -> dict[str, Any]:
    """The fields of a chat that ends with a user's message."""
    return {"model": "m", "messages": [*before, {"role": "user", "content": content}]}


@pytest.mark.parametrize("kind", NEAR_MISSES)
@pytest.mark.parametrize("profile", PROFILES)
def test_near_misses_never_collide(profile: str, kind: str) -> None:
    """No two texts that differ in what they ask have one form, under any profile."""
    frame, values = NEAR_MISSES[kind]
    texts = [frame.format(value.replace("_", " ")) for value in values.split(" ")]
    assert len({form(profile, text) for text in texts}) == len(set(texts))


@given(TEXTS, st.sampled_from(PROFILES))
@example("Analyze: 1 Oak St, Unit 4-B # 2, 1BR", "property")
@example("please please explain", "text")
def test_the_form_of_a_form_is_the_form(text: str, profile: str) -> None:
    """Normalising twice is normalising once, for any text, and nothing raises."""
    once = form(profile, text)
    assert form(profile, once) == once


@given(TEXTS, st.sampled_from(PROFILES), st.sampled_from(list(Endpoint)))
@example("A\u0300\u2019A", "text", Endpoint.COMPLETIONS)
@example("0  \ufb00\ufb00A\u0301", "text", Endpoint.COMPLETIONS)
def test_normalised_fields_stay_so(text: str, profile: str, endpoint: Endpoint) -> None:
    """Fields are not changed in place, and normalised fields come back as the same object."""
    fields = {**chat(text), "prompt": text, "input": text}
    before = copy.deepcopy(fields)
    once = normalise(profile, endpoint, fields)
    assert fields == before
    assert normalise(profile, endpoint, once) is once


@given(st.recursive(st.none() | st.integers() | st.text(max_size=3), st.lists), st.booleans())
def test_malformed_fields_are_left_alone(value: Any, in_part: bool) -> None:
    """What is not as documented is somebody else's to refuse."""
    content = [{"type": "text", "text": value}] if in_part else value
    for fields in ({"messages": value}, {"prompt": value}, chat(content, {"content": value})):
        for endpoint in Endpoint:
            assert normalise("text", endpoint, fields) is not None


def test_exact_folds_nothing() -> None:
    """The default profile gives back what it got."""
    fields = chat("  Please  explain this. ")
    assert normalise("exact", Endpoint.CHAT, fields) is fields


def test_an_unknown_profile_is_refused() -> None:
    """A misspelt profile is a mistake, not a default."""
    with pytest.raises(ValueError, match="'Text'"):
        normalise("Text", Endpoint.CHAT, chat("x"))


def test_only_the_last_user_message_is_replaced() -> None:
    """Earlier messages, later answers of tools and every other field stay as they are."""
    fields = chat("Please explain it.", {"role": "user", "content": "Please wait."})
    fields["messages"].append({"role": "tool", "content": "Please  see.", "tool_call_id": "1"})
    fields["stop"] = ["Please."]
    folded = normalise("text", Endpoint.CHAT, fields)
    assert folded["messages"][1] == {"role": "user", "content": "explain it"}
    others = [0, 2]
    assert [folded["messages"][i] for i in others] == [fields["messages"][i] for i in others]
    assert folded["stop"] == ["Please."]


def test_the_text_part_is_replaced() -> None:
    """Beside an image, the one text part is folded and the image stays."""
    image = {"type": "image_url", "image_url": {"url": "data:,Please"}}
    fields = chat([image, {"type": "text", "text": "Please explain this picture."}])
    folded = normalise("text", Endpoint.CHAT, fields)
    assert folded["messages"][0]["content"] == [
        image,
        {"type": "text", "text": "explain this picture"},
    ]


def test_several_text_parts_stay() -> None:
    """A quotation may open in one part and close in the next."""
    parts = [{"type": "text", "text": "Please explain `a"}, {"type": "text", "text": "b ` now."}]
    fields = chat(parts)
    assert normalise("text", Endpoint.CHAT, fields) is fields


@pytest.mark.parametrize(
    "instruction",
    [
        "Proofread what the user writes.",
        "You are a translator into Dutch.",
        "Answer with the number of capitalised words.",
        "x" * (MAX_CONTEXT_CHARACTERS + 1),
    ],
)
@pytest.mark.parametrize("as_part", [False, True])
def test_instructions_about_form_switch_folding_off(instruction: str, as_part: bool) -> None:
    """Where the spelling of the message may be the question, it is kept."""
    content = [{"type": "text", "text": instruction}] if as_part else instruction
    fields = chat("Please explain.", {"role": "system", "content": content})
    assert normalise("property", Endpoint.CHAT, fields) is fields


def test_a_usual_instruction_does_not() -> None:
    """An ordinary system message leaves the profile at work, and takes part in the key."""
    fields = chat("Please explain it.", {"role": "system", "content": "Be brief and polite."})
    assert normalise("text", Endpoint.CHAT, fields)["messages"][1]["content"] == "explain it"


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("Please  explain  it. ", "Please explain it. "),
        ("The answer is", "The answer is"),
        ("The answer  is.  ", "The answer is.  "),
        ("Say  `a  b`  now  ", "Say `a  b` now  "),
        (
            "Please analyze: 1 Oak St, 3BR, $450k.\n",
            "analyze this property: 1 Oak Street; 3 beds; 450000 USD.\n",
        ),
    ],
)
def test_the_end_of_a_completed_prompt_stays(prompt: str, expected: str) -> None:
    """The answer of a completion goes on where its prompt ends, so the end is kept."""
    fields = {"model": "m", "prompt": prompt}
    assert normalise("property", Endpoint.COMPLETIONS, fields) == {"model": "m", "prompt": expected}


@pytest.mark.parametrize(
    "fields",
    [
        {"prompt": "Please  explain it.", "echo": True},
        {"prompt": "Please  explain it.", "suffix": "!"},
        {"prompt": ["Please explain it."]},
        {"prompt": [1, 2]},
    ],
)
def test_prompts_that_come_back_or_are_several_stay(fields: dict[str, Any]) -> None:
    """A prompt that is part of the answer, or is not one text, is not folded."""
    assert normalise("text", Endpoint.COMPLETIONS, fields) is fields


def test_embeddings_are_of_the_spelling() -> None:
    """The vector of a text is that of its letters; nothing is folded."""
    fields = {"model": "m", "input": "Please explain it."}
    assert normalise("property", Endpoint.EMBEDDINGS, fields) is fields


@pytest.mark.parametrize("profile", PROFILES)
def test_pairs_that_want_two_answers_never_collide(profile: str) -> None:
    """Not one pair that wants two answers; of the others a profile need not know all."""
    different = [pair for pair in PAIRS if not pair["same"]]
    assert len(different) == 314
    collided = [pair for pair in different if form(profile, pair["a"]) == form(profile, pair["b"])]
    assert collided == []


def test_profiles_know_paraphrases() -> None:
    """The pairs are not told apart by a profile that folds nothing."""
    same = [pair for pair in PAIRS if pair["same"]]
    known = {
        profile: sum(form(profile, pair["a"]) == form(profile, pair["b"]) for pair in same)
        for profile in PROFILES
    }
    assert known == {"exact": 0, "text": 10, "property": 58}
