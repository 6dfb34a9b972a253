"""The text the demo model learns from, made here from lists and templates: no text of others.

A conversation is a tuple of turns ending in an assistant turn. All randomness comes from the
`random.Random` handed in, so a seed fixes the text. This module knows nothing of tensors or
tokenizers. Street names come in three kinds: listed ones, ones glued from syllables (so that the
model must copy and cannot remember), and `HELD_OUT_STREETS`, which training text never contains.
"""

from __future__ import annotations

import string
from dataclasses import dataclass
from random import Random
from typing import Final


def _words(text: str) -> list[str]:
    return text.split()


def _phrases(text: str) -> list[str]:
    return text.split("|")


STREETS: Final = _words(
    "Main Oak Maple Pine Cedar Elm Birch Walnut Chestnut Willow Spruce Park Lake Hill River Church "
    "High King Queen Market Mill Bridge Spring Forest Meadow Garden Sunset Sunrise Highland Valley "
    "Ridge Washington Lincoln Jefferson Madison Jackson Franklin Adams Monroe Grant Baker "
    "Evergreen Pennsylvania Wisteria Magnolia Dogwood Laurel Holly Cherry Peach Lemon Orange Rose "
    "Lily Front "
    "Second Third Fourth Fifth Sixth First Broad Center Union Liberty Prospect Pleasant Summit "
    "Railroad School College Academy Harbor Ocean Bay Beach Shore Canal Dock Fairview Woodland "
    "Hickory Poplar Aspen Cypress Redwood Olive Mulberry Locust Sycamore Clover Heather Fern Ivy"
)
HELD_OUT_STREETS: Final = _words(
    "Juniper Hawthorne Larkspur Quarry Windmill Blackbird Copper Thistle Falcon Granite Pebble "
    "Marigold Orchard Harvest Lantern Timber Raven Cobblestone Primrose Saffron"
)
KINDS: Final = _words(
    "St Ave Rd Dr Ln Blvd Ct Way Pl Street Avenue Road Drive Lane Boulevard Court Place Terrace "
    "Trail Circle Square Parkway"
)
CITIES: Final = (
    ("Austin", "TX"), ("Dallas", "TX"), ("Houston", "TX"), ("Denver", "CO"), ("Boulder", "CO"),
    ("Seattle", "WA"), ("Tacoma", "WA"), ("Portland", "OR"), ("Salem", "OR"), ("Boston", "MA"),
    ("Chicago", "IL"), ("Springfield", "IL"), ("Madison", "WI"), ("Phoenix", "AZ"),
    ("Tucson", "AZ"), ("Atlanta", "GA"), ("Savannah", "GA"), ("Miami", "FL"), ("Tampa", "FL"),
    ("Orlando", "FL"),
    ("San Diego", "CA"), ("San Jose", "CA"), ("Oakland", "CA"), ("Fresno", "CA"), ("Raleigh", "NC"),
    ("Columbus", "OH"), ("Nashville", "TN"), ("New York", "NY"), ("Buffalo", "NY"), ("Boise", "ID"),
)  # fmt: skip
_ONSETS: Final = _words("b br c ch d dr f fl g gr h j k l m n p pr qu r s sh st t th tr v w wh z")
_VOWELS: Final = _words("a e i o u ai ea ee oa ou")
_CODAS: Final = ("", *_words("n r l m t s ck nd rt st ng w y ley ton ford ham wick more"))
_LETTERS: Final = "aabcdeeefghiijklmnoopqrrssttuvwxyz"
_NUMBER_WORDS: Final = {"1": "one", "2": "two", "3": "three", "4": "four", "5": "five", "6": "six"}

Turn = tuple[str, str]  # role, content
Conversation = tuple[Turn, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Property:
    """A property as a user writes of it: every value is text, to be copied; None is unsaid."""

    address: str
    city: str | None = None
    beds: str | None = None
    baths: str | None = None
    price: str | None = None
    area: str | None = None
    year: str | None = None


def make_property(rng: Random, *, held_out: bool = False, full: bool = False) -> Property:
    """A property; `full` gives it beds, baths and a price in any case."""
    city = rng.choice(CITIES) if rng.random() < 0.35 else None
    address = _street(rng, held_out=held_out)
    if city is not None:
        address += f", {city[0]}"
        if rng.random() < 0.7:
            address += f", {city[1]}"
            if rng.random() < 0.4:
                address += f" {rng.randrange(10000, 99999)}"
    if rng.random() < 0.06:
        address = address.lower()
        city = None
    rooms = full or rng.random() < 0.85
    return Property(
        address=address,
        city=city[0] if city else None,
        beds=str(rng.randint(1, 7)) if rooms else None,
        baths=rng.choice(("1", "1.5", "2", "2", "2.5", "3", "3.5", "4", "5")) if rooms else None,
        price=_price(rng) if full or rng.random() < 0.8 else None,
        area=_area(rng) if rng.random() < 0.4 else None,
        year=str(rng.randint(1890, 2025)) if rng.random() < 0.2 else None,
    )


def conversation(rng: Random) -> Conversation:
    """One conversation of 1 to 3 questions, with a system prompt in about half of them."""
    turns: list[Turn] = []
    draw = rng.random()
    if draw < 0.35:
        turns.append(("system", rng.choice(_SYSTEMS)))
    elif draw < 0.55:
        length = int(2 ** rng.uniform(1, 5))
        turns.append(("system", " ".join(rng.choice(_RULES) for _ in range(length))))
    draw = rng.random()
    if draw < 0.16:
        turns += _generic(rng)
    elif draw < 0.24:
        turns += _repeat(rng)
    elif draw < 0.31:
        turns += _compare(rng)
    else:
        property_ = make_property(rng)
        turns += question(rng, property_)
        while rng.random() < 0.3 and len(turns) < 7:
            more, property_ = _follow_up(rng, property_)
            turns += more
    return tuple(turns)


def question(rng: Random, p: Property) -> list[Turn]:
    """One question on the property and its answer."""
    ask, answer = rng.choice(_INTENTS)
    template = rng.choice(ask)
    if rng.random() < 0.2:  # the facts first, then the question
        text = f"{_statement(rng, p)} {template.format('it')}"
        text = text[0].upper() + text[1:] if p.address[0].isupper() else text
    else:
        text = template.format(_mention(rng, p))
    if rng.random() < 0.1:
        text = text.rstrip("?.")
    if rng.random() < 0.05:
        text = text[0].lower() + text[1:]
    return [("user", text), ("assistant", answer(rng, p))]


def plain(rng: Random) -> tuple[str, str]:
    """A prompt and its continuation, for completions without chat turns."""
    p = make_property(rng)
    turns = question(rng, p) if rng.random() < 0.75 else _generic(rng)
    asked, answer = turns[0][1], turns[1][1]
    form = rng.random()
    if form < 0.4:
        return asked, f"\n{answer}"
    if form < 0.7:
        return f"Question: {asked}\nAnswer:", f" {answer}"
    if form < 0.8:
        return f"Q: {asked}\nA:", f" {answer}"
    body = _describe(p).split(" ")
    cut = rng.randint(len(p.address.split(" ")), len(p.address.split(" ")) + 1)
    return " ".join(body[:cut]), " " + " ".join(body[cut:])


def _street(rng: Random, *, held_out: bool) -> str:
    if held_out:
        name = rng.choice(HELD_OUT_STREETS)
    elif rng.random() < 0.35:
        name = rng.choice(STREETS)
    else:
        name = _invented(rng)
    if rng.random() < 0.08:
        name = f"{rng.choice(('North', 'South', 'East', 'West', 'N', 'S', 'E', 'W', 'Old'))} {name}"
    number = str(rng.randint(1, 10 ** rng.randint(1, 5) - 1))
    if rng.random() < 0.03:
        number += rng.choice("ABC")
    street = f"{number} {name} {rng.choice(KINDS)}"
    if rng.random() < 0.06:
        street += f" {rng.choice(('Apt', 'Unit', 'Suite'))} {rng.randint(1, 40)}"
    return street


def _invented(rng: Random) -> str:
    """A word that nobody has seen: of syllables, or of letters as they come."""
    if rng.random() < 0.4:
        length = rng.randint(2, 9)
        return "".join(rng.choice(_LETTERS) for _ in range(length)).capitalize()
    syllables = rng.randint(1, 3)
    word = "".join(rng.choice(_ONSETS) + rng.choice(_VOWELS) for _ in range(syllables))
    return (word + rng.choice(_CODAS)).capitalize()


def _price(rng: Random) -> str:
    thousands = rng.randint(60, 999)
    if rng.random() < 0.3:
        thousands -= thousands % 25
        thousands += 25
    form = rng.random()
    if form < 0.35:
        return f"${thousands}k" if rng.random() < 0.8 else f"${thousands}K"
    if form < 0.75:
        return (
            f"${thousands},{rng.choice(('000', '000', '500', '900', f'{rng.randrange(1000):03}'))}"
        )
    if form < 0.83:
        return f"${thousands}000"
    if form < 0.93:
        return f"${rng.randint(1, 9)}.{rng.randint(1, 99)}M"
    return f"${rng.randint(1, 9)},{rng.randrange(1000):03},{rng.choice(('000', '500'))}"


def _area(rng: Random) -> str:
    feet = rng.randint(400, 5900)
    number = f"{feet:,}" if rng.random() < 0.6 else str(feet)
    return f"{number} {rng.choice(('sq ft', 'sq ft', 'sqft', 'square feet'))}"


def _rooms_as_asked(rng: Random, p: Property) -> str:
    bed, bath = p.beds, p.baths
    if bath in _NUMBER_WORDS and bed in _NUMBER_WORDS and rng.random() < 0.06:
        return f"{_NUMBER_WORDS[bed]} bedrooms, {_NUMBER_WORDS[bath]} bathrooms"
    return rng.choice(
        (
            f"{bed}BR/{bath}BA",
            f"{bed}BR/{bath}BA",
            f"{bed} BR / {bath} BA",
            f"{bed}bd/{bath}ba",
            f"{bed}bd {bath}ba",
            f"{bed} bed, {bath} bath",
            f"{bed} bed {bath} bath",
            f"{bed} beds, {bath} baths",
            f"{bed} beds and {bath} baths",
            f"{bed} bedrooms, {bath} bathrooms",
            f"{bed} bedrooms and {bath} bathrooms",
            f"{bed}-bedroom, {bath}-bathroom",
        )
    )


def _facts(rng: Random, p: Property) -> list[str]:
    facts = []
    if p.beds:
        facts.append(_rooms_as_asked(rng, p))
    if p.area:
        facts.append(p.area)
    if p.year:
        facts.append(f"built {rng.choice(('', 'in '))}{p.year}")
    if p.price:
        facts.append(rng.choice(("", "", "", "listed at ", "for ", "asking ", "price ")) + p.price)
    if rng.random() < 0.3:
        rng.shuffle(facts)
    return facts


def _mention(rng: Random, p: Property) -> str:
    facts = _facts(rng, p)
    form = rng.random()
    if not facts:
        return p.address
    if form < 0.7:
        return ", ".join([p.address, *facts])
    if form < 0.85:
        return f"{p.address} ({', '.join(facts)})"
    if form < 0.93:
        return f"{p.address}: {', '.join(facts)}"
    return f"{', '.join(facts)} at {p.address}"


def _statement(rng: Random, p: Property) -> str:
    facts = _facts(rng, p)
    if not facts:
        return f"I am looking at {p.address}."
    start = rng.choice(("I am looking at ", "Here is a listing: ", "Consider ", ""))
    return f"{start}{p.address}, {', '.join(facts)}."


def _rooms(p: Property) -> str:
    bed = "bedroom" if p.beds == "1" else "bedrooms"
    bath = "bathroom" if p.baths == "1" else "bathrooms"
    return f"{p.beds} {bed} and {p.baths} {bath}"


def _describe(p: Property) -> str:
    if p.beds and p.price:
        text = f"{p.address} has {_rooms(p)} and is listed at {p.price}."
    elif p.beds:
        text = f"{p.address} has {_rooms(p)}, and no price is given."
    elif p.price:
        text = f"{p.address} is listed at {p.price}, and no rooms are given."
    else:
        text = f"All I know of {p.address} is the address."
    if p.area:
        text += f" It offers {p.area} of living space."
    if p.year:
        text += f" It was built in {p.year}."
    return text


_MARK: Final = "Demo model: "
_ADVICE: Final = (
    "Compare it with recent sales nearby before you decide.",
    "Have it inspected before you make an offer.",
    "Check the roof, the heating and the taxes first.",
    "Visit it at different times of the day.",
    "Look at what similar homes on the same street sold for.",
    "Ask the seller about repairs made in the last ten years.",
)


def _advice(rng: Random, count: int) -> str:
    return " ".join(rng.sample(_ADVICE, count))


def _analyze(rng: Random, p: Property) -> str:
    return f"{_MARK}{_describe(p)} {_advice(rng, rng.randint(1, 2))}"


def _buy(rng: Random, p: Property) -> str:
    verdict = (
        f"Whether {p.price} is a fair price depends on recent sales nearby."
        if p.price
        else "Without a price I cannot say whether it is a good buy."
    )
    return f"{_MARK}{_describe(p)} {verdict} {_advice(rng, 1)}"


def _per_foot(_: Random, p: Property) -> str:
    if p.price and p.area:
        return (
            f"{_MARK}For the price per square foot of {p.address}, divide {p.price} by {p.area}. "
            "I am too small to do the division for you."
        )
    missing = "the price" if p.area else "the area" if p.price else "the price and the area"
    return f"{_MARK}I need {missing} of {p.address} to work out its price per square foot."


def _count_beds(_: Random, p: Property) -> str:
    if not p.beds:
        return f"{_MARK}The number of bedrooms of {p.address} is not given."
    return f"{_MARK}{p.address} has {p.beds} {'bedroom' if p.beds == '1' else 'bedrooms'}."


def _count_baths(_: Random, p: Property) -> str:
    if not p.baths:
        return f"{_MARK}The number of bathrooms of {p.address} is not given."
    return f"{_MARK}{p.address} has {p.baths} {'bathroom' if p.baths == '1' else 'bathrooms'}."


def _tell_price(_: Random, p: Property) -> str:
    if not p.price:
        return f"{_MARK}The price of {p.address} is not given."
    return f"{_MARK}{p.address} is listed at {p.price}."


def _tell_area(_: Random, p: Property) -> str:
    if not p.area:
        return f"{_MARK}The area of {p.address} is not given."
    return f"{_MARK}{p.address} offers {p.area} of living space."


def _tell_city(_: Random, p: Property) -> str:
    if not p.city:
        return f"{_MARK}The city of {p.address} is not given."
    return f"{_MARK}{p.address} is in {p.city}."


def _mortgage(_: Random, p: Property) -> str:
    of = f" of {p.price}" if p.price else ""
    return (
        f"{_MARK}The monthly payment for {p.address} depends on the price{of}, the down payment, "
        "the interest rate and the term of the loan. A lender can give you exact numbers."
    )


def _listing(_: Random, p: Property) -> str:
    rooms = f" with {_rooms(p)}" if p.beds else ""
    area = f" It offers {p.area} of living space." if p.area else ""
    price = f" The asking price is {p.price}." if p.price else ""
    return (
        f"{_MARK}Welcome to {p.address}, a home{rooms}!{area}{price} Call today to arrange a visit."
    )


def _report(rng: Random, p: Property) -> str:
    price = f"The asking price of {p.price}" if p.price else "The price, once it is known,"
    return (
        f"{_MARK}Here is a short report. {_describe(p)} "
        f"{price} should be compared with at least three recent sales nearby. "
        "An inspector should look at the roof, the walls, the wiring, the pipes and the heating. "
        "A lender can tell you the monthly payment for your down payment and your interest rate. "
        "Add the yearly taxes, the insurance and the repairs to what the home costs you. "
        f"{_advice(rng, 1)} In short, {p.address} deserves a visit before you make an offer."
    )


_INTENTS: Final = (
    (
        (
            "Analyze this property: {}",
            "Analyze this property: {}.",
            "Analyze {}",
            "Analyse this property: {}",
            "Please analyze this property: {}",
            "Can you analyze {}?",
            "Give me an overview of {}.",
            "Tell me about {}.",
            "Tell me about this property: {}",
            "What do you think of {}?",
            "Describe {}.",
            "Summarize this listing: {}",
            "Evaluate this property: {}",
            "Review {}",
            "Provide an analysis of {}.",
            "Assess the property at {}",
            "I would like to know more about {}.",
            "{}",
        ),
        _analyze,
    ),
    (
        (
            "Is {} a good buy?",
            "Is {} a good deal?",
            "Should I buy {}?",
            "Is {} a good investment?",
            "Is {} worth it?",
            "Is {} overpriced?",
            "Would you buy {}?",
            "Is {} fairly priced?",
        ),
        _buy,
    ),
    (
        (
            "What is the price per square foot of {}?",
            "What's the price per square foot for {}?",
            "Price per square foot of {}?",
            "Calculate the price per square foot: {}",
            "How much per square foot is {}?",
        ),
        _per_foot,
    ),
    (
        (
            "How many bedrooms does {} have?",
            "How many beds are in {}?",
            "What is the number of bedrooms of {}?",
        ),
        _count_beds,
    ),
    (
        (
            "How many bathrooms does {} have?",
            "How many baths are in {}?",
            "What is the number of bathrooms of {}?",
        ),
        _count_baths,
    ),
    (
        (
            "How much is {}?",
            "What is the price of {}?",
            "How much does {} cost?",
            "What is the asking price of {}?",
        ),
        _tell_price,
    ),
    (
        ("How big is {}?", "What is the area of {}?", "How many square feet does {} have?"),
        _tell_area,
    ),
    (("Which city is {} in?", "Where is {}?", "What city is {} in?"), _tell_city),
    (
        (
            "What is the monthly payment for {}?",
            "What would the mortgage be on {}?",
            "Can I afford {}?",
            "Estimate the monthly payment for {}.",
        ),
        _mortgage,
    ),
    (
        (
            "Write a listing for {}.",
            "Write a short listing description for {}",
            "Write an ad for {}.",
            "Draft a description of {}",
        ),
        _listing,
    ),
    (
        (
            "Write a detailed report on {}.",
            "Write a long report about {}.",
            "Give me a full report on {}",
            "Give me a detailed analysis of {}.",
        ),
        _report,
    ),
)

_FOLLOW_UPS: Final = (
    (("How many bedrooms does it have?", "And the bedrooms?", "How many beds?"), _count_beds),
    (("How many bathrooms does it have?", "And the bathrooms?", "How many baths?"), _count_baths),
    (("And the price?", "How much is it?", "What does it cost?"), _tell_price),
    (("Is it a good buy?", "Should I buy it?", "Is it worth it?"), _buy),
    (("How big is it?", "And the area?"), _tell_area),
    (("Which city is it in?", "Where is it?"), _tell_city),
    (("What is the price per square foot?", "And per square foot?"), _per_foot),
    (("What would the mortgage be?", "And the monthly payment?"), _mortgage),
    (("Write a listing for it.", "Now write an ad for it."), _listing),
)


def _follow_up(rng: Random, p: Property) -> tuple[list[Turn], Property]:
    """A question that leans on the one before, and the property talked of from here on."""
    if rng.random() < 0.12:
        thanks = rng.choice(("Thanks!", "Thank you.", "Great, thanks", "OK"))
        answer = f"{_MARK}You are welcome. Ask me about another."
        return [("user", thanks), ("assistant", answer)], p
    if rng.random() < 0.25:
        p = make_property(rng, full=True)
        asked = rng.choice(("What about {}?", "And {}?", "How about {}?"))
        return [
            ("user", asked.format(_mention(rng, p))),
            ("assistant", _analyze(rng, p)),
        ], p
    ask, say = rng.choice(_FOLLOW_UPS)
    return [("user", rng.choice(ask)), ("assistant", say(rng, p))], p


def _compare(rng: Random) -> list[Turn]:
    a, b = make_property(rng, full=True), make_property(rng, full=True)
    asked = rng.choice(
        ("Compare {} and {}.", "Compare {} with {}", "Which is better, {} or {}?", "{} vs {}")
    ).format(_mention(rng, a), _mention(rng, b))
    answer = (
        f"{_MARK}{a.address} has {_rooms(a)} and is listed at {a.price}. "
        f"{b.address} has {_rooms(b)} and is listed at {b.price}. {_advice(rng, 1)}"
    )
    return [("user", asked), ("assistant", answer)]


_WHO: Final = _phrases(
    "Who are you?|What are you?|What is your name?|Who made you?|Which model are you?|"
    "What model is this?|Introduce yourself.|What can you do?|How can you help me?|Help|"
    "Are you a real model?|What is Encore?|Tell me about yourself."
)
_GREETINGS: Final = _phrases(
    "Hello|Hi|Hello!|Hi!|Hey|Good morning|Hello there|Hi there!|hello|hi|Hello, how are you?|"
    "How are you?|Good evening!|Hello world|Hey there|ping|test|Testing"
)
_FIVE_WORDS: Final = _phrases(
    "Say hello in five words|Say hello in five words.|Say hello in exactly five words.|"
    "Please say hello in five words.|say hello in five words"
)
_SAY_HELLO: Final = _phrases("Say hello|Say hello.|Say hello!|Say hi|Say hi.|Please say hello")
_TOPICS: Final = _phrases(
    "the weather|France|Germany|history|music|cats|dogs|the moon|the sun|black holes|cooking|pasta|"
    "football|chess|computers|Python|JavaScript|databases|caching|the ocean|whales|birds|trees|"
    "love|time|money|taxes|physics|chemistry|biology|math|poetry|art|films|books|coffee|tea|bread|"
    "cars|trains|planes|gardens|robots|space|dreams|language|friendship|winter|summer|Redis|stars|"
    "machine learning|neural networks|the internet|electricity|photosynthesis|gravity|volcanoes"
)
_OFF_TOPIC: Final = _phrases(
    "What is the capital of {}?|Write a poem about {}.|Write a haiku about {}|"
    "Tell me a joke about {}.|Explain {}.|Explain {} in one sentence.|What is {}?|"
    "How does {} work?|Why is {} important?|"
    "Give me three facts about {}.|Write a story about {}.|Translate {} into French.|"
    "Who invented {}?|Do you like {}?|Summarize {} for a child.|Write a song about {}|"
    "What do you know about {}?|Teach me {}.|List five words about {}.|When was {} discovered?"
)
_HOUSE_QUESTIONS: Final = _phrases(
    "What should I check before buying a house?|How do I choose a home?|Any tips for buyers?|"
    "What makes a good property?|How do I buy my first home?|What should I look for in a house?|"
    "What questions should I ask a seller?|Give me advice on buying a home."
)
_WHO_ANSWER: Final = (
    f"{_MARK}I am Encore's small demo model. I answer short questions about properties. "
    "Set ENCORE_MODEL to use a real model."
)
_HELLO_ANSWER: Final = (
    f"{_MARK}Hello! I am Encore's small demo model. Ask me about a property, for example an "
    "address with its rooms and its price."
)
_OFF_TOPIC_ANSWER: Final = (
    f"{_MARK}I am Encore's small demo model and can only talk about properties. "
    "Ask me about an address, or set ENCORE_MODEL to use a real model."
)
_TIPS_ANSWER: Final = (
    f"{_MARK}Before you buy a home, compare it with recent sales nearby, have it inspected, "
    "and add up the taxes, the insurance and the repairs. Give me an address to talk about."
)


def _junk(rng: Random) -> str:
    words = (
        rng.choice(_TOPICS),
        _invented(rng).lower(),
        str(rng.randrange(10 ** rng.randint(1, 8))),
        "".join(rng.choice("0123456789abcdef") for _ in range(rng.choice((4, 8, 16, 32)))),
        "".join(rng.choice(string.ascii_letters + " ?!-_/") for _ in range(rng.randint(2, 20))),
        rng.choice(("question", "request", "prompt", "hello", "test", "item", "number", "run")),
        f"{rng.randrange(100)} {rng.choice('+-*/')} {rng.randrange(100)}",
        rng.choice(("What is", "Please answer", "Who is", "nonce", "Tell me", "Why", "How", "x")),
    )
    return " ".join(rng.sample(words, rng.randint(1, 4))).strip() or "?"


def _generic(rng: Random) -> list[Turn]:
    draw = rng.random()
    if draw < 0.15:
        asked, answer = rng.choice(_WHO), _WHO_ANSWER
    elif draw < 0.28:
        asked, answer = rng.choice(_GREETINGS), _HELLO_ANSWER
    elif draw < 0.35:
        asked, answer = rng.choice(_FIVE_WORDS), "Hello from Encore's demo model!"
    elif draw < 0.4:
        asked, answer = rng.choice(_SAY_HELLO), f"{_MARK}Hello!"
    elif draw < 0.5:
        asked, answer = rng.choice(_HOUSE_QUESTIONS), _TIPS_ANSWER
    elif draw < 0.75:
        asked, answer = rng.choice(_OFF_TOPIC).format(rng.choice(_TOPICS)), _OFF_TOPIC_ANSWER
    else:
        asked, answer = _junk(rng), _OFF_TOPIC_ANSWER
    return [("user", asked), ("assistant", answer)]


def _repeat(rng: Random) -> list[Turn]:
    length = rng.randint(1, 6)
    words = " ".join(
        rng.choice((_invented(rng), _invented(rng).lower(), str(rng.randrange(1000)), "the", "and"))
        for _ in range(length)
    )
    if rng.random() < 0.3:
        words = _street(rng, held_out=False)
    asked = rng.choice(
        ("Repeat after me: {}", "Repeat: {}", "Say: {}", "Echo: {}", "Repeat this: {}")
    )
    return [("user", asked.format(words)), ("assistant", f"{_MARK}{words}")]


_SYSTEMS: Final = (
    "You are a helpful assistant.",
    "You are a helpful real estate assistant.",
    "You are a real estate analyst.",
    "You are a real estate expert. Answer in short sentences.",
    "You help people who look for a home.",
    "You are Encore's demo assistant.",
    "Answer questions about properties.",
    "Be concise.",
    "Be brief and polite.",
    "You are a property analyst for a small agency. Use the facts the user gives you.",
    "Answer only with what the user told you.",
    "You are a careful advisor. Never invent facts.",
)
_RULES: Final = (
    *_SYSTEMS,
    "Use plain words.",
    "Name the address in every answer.",
    "Do not guess a price.",
    "Do not guess the number of rooms.",
    "If a fact is missing, say so.",
    "Keep numbers exactly as they are written.",
    "Prices are in dollars.",
    "Areas are in square feet.",
    "A bathroom without a bath or a shower counts as a half.",
    "Remind the user to have the home inspected.",
    "Remind the user to compare recent sales.",
    "Never give legal advice.",
    "Never give tax advice.",
    "Treat every buyer in the same way.",
    "Our office is open from 9 to 5.",
    "Clients may call us at any time.",
    "We work with buyers and with sellers.",
    "Our agency has helped families for twenty years.",
    "Homes near schools often sell faster.",
    "A new roof can last thirty years.",
    "Old pipes should be checked by a plumber.",
    "Ask whether the heating was serviced.",
    "A quiet street is worth a visit at night.",
    "The age of a home says little about its state.",
    "Insurance costs more near rivers.",
    "A lender looks at income and debts.",
    "The down payment is often a fifth of the price.",
    "Sellers must tell of known defects.",
    "An offer can depend on the inspection.",
    "Closing takes four to six weeks.",
)
