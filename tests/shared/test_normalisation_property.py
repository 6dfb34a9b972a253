"""The property profile: all ways to state one property have one form, and no two properties do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from shared.addresses import find_address, read_address
from shared.normalisation import form
from shared.property_form import MAX_CHARACTERS, property_form
from shared.slots import (
    Reader,
    decimal,
    read_area,
    read_baths,
    read_beds,
    read_date,
    read_money,
    tokenise,
)

SAME = [
    [
        "Analyze this property: 123 Main St, 3BR/2BA, $450k",
        "Analyze this property: 123 Main Street, 3 bedroom 2 bath, $450,000",
        "Please analyze: 123 Main St, 3BR/2BA, asking $450k",
        "analyse the property at 123 MAIN ST. - 3-bed / two-bath, priced at USD 450,000.00",
        (
            "Can you analyze the property at 123 Main Street? It has three bedrooms and two baths "
            "and the price is 450 thousand dollars."
        ),
        "Hi, could you please analyze this property: $0.45M; 2 baths; 3 bd; 123 main st? Thanks!",
        "analyze this property:\n123 Main St\n3 br\n2 ba\nfour hundred fifty thousand dollars",
    ],
    [
        "Evaluate this home: 12 N Oak Ave NW Apt 4B, St. Paul, MN 55101, 2.5 baths, 1,200 sq ft",
        (
            "evaluate the home at 12 North Oak Avenue Northwest, Apartment 4b, St Paul, Minnesota "
            "55101; 2 1/2 bath; 1200 sqft"
        ),
        (
            "Please evaluate this home: 12 n. oak av. nw., apt. 4B, St. Paul MN 55101, two and a "
            "half bathrooms, 1,200 square feet."
        ),
        "evaluate this home: 1200 SF, 2½ BA, 12 N Oak Ave NW Apt 4B, St Paul, MN, 55101",
    ],
    [
        "Assess this listing: 5 St James Place, 90 m², 0.5 acres, built in 1995, listed 2024-05-21",
        (
            "assess the listing: 5 st james pl, 90 square metres on a 1/2 acre lot, "
            "year built: 1995, listed on May 21st, 2024"
        ),
        "Assess this listing: 5 St James Place; 90 sqm; ½ acre; built 1995; listed 21 May 2024",
        "Assess this listing: 5 St James Place; 90 m2; lot 0.50 acre; built 1995; listed 5/21/2024",
    ],
]
NOT_UNDERSTOOD = [
    "best st. bernard breeders",
    "Analyze 12 Angry Men",
    "Analyze: 500 Startups, $450k",
    "Analyze this property: 3BR/2BA, $450k",
    "Analyze this property: 123 Main St, 3BR/2BA, $450k, great view",
    "Analyze this property: 123 Main St, 3BR/2BA, $450k?",
    "Analyze this property: 123 Main St, not 3BR/2BA",
    "Analyze this property: 123 Main St, 3BR/2BA, $450k or $460k",
    "Analyze this property: 123 Main St, 3-4 beds",
    "Analyze this property: 123 Main St, .5 baths",
    "Analyze this property: 123 Main St, 2.5 beds",
    "Analyze this property: 123 Main St, 3BR, $450.000",
    "Analyze this property: 123 Main St, 3BR, $1,2345",
    "Analyze this property: 123 Main St, 3BR, 450k",
    "Analyze this property: 123 Main St, 3BR, $450k/month",
    "Analyze this property: 123 Main St, 3BR, listed 3/4/2024",
    "Analyze this property: 123 Main St, 3BR, listed February 30, 2024",
    "Analyze this property: 12 Oak Avenue West Palm Beach, 3BR",
    "Analyze this property: 12 Oak Avenue Lake Drive, 3BR",
    "Analyze this property: 12 Bath Rd, 3BR",
    "Analyze this property: 12 Oak St, 3BR, sold for $450k",
    "Analyze this property: 12 Oak St, 3BR, on 5,000 sq ft",
    "Analyze this property: 12 Oak St, 3BR with",
    "Analyze this property and sell it: 12 Oak St, 3BR",
    "Analyze this property: 12 Oak St, 3BR and 14 Oak St, 3BR",
    "Analyze Dr. Smith's property: 12 Oak St, 3BR",
    'Analyze this property: "12 Oak St", 3BR',
    "3BR formerly. Analyze this property: 12 Oak St",
    "Analyze this property: 3BR/2BA at 12 Oak Street Reno $450k",
    "Analyze this property: 12 Oak Street Reno $450k 3BR",
    "Analyze this thing: 12 Oak St, 3BR",
    "Analyze this property: 12 Old Elm Hill Side, 3BR",
    "Analyze this property: 12 Old Big Elm Hill Side Lake View West North St, 3BR",
    "Analyze this property: 12 Oak St Apt ?, 3BR",
    "Analyze this property: 12 Oak St Apt 1-2-3-4-5, 3BR",
    "Analyze this property: 12 Oak St, Reno, NV 89501-12, 3BR",
    "Analyze this property: 12 Oak St, price lot 3 acres",
    "Analyze this property: " + "1" * MAX_CHARACTERS,
]


@pytest.mark.parametrize("texts", SAME, ids=["whole", "address", "areas"])
def test_ways_to_state_one_property_have_one_form(texts: list[str]) -> None:
    """Addresses, rooms, areas, dates and prices are read whatever their spelling and order."""
    (only,) = {form("property", text) for text in texts}
    assert property_form(only) == only


@pytest.mark.parametrize("text", NOT_UNDERSTOOD)
def test_a_text_that_is_not_wholly_understood_is_only_a_text(text: str) -> None:
    """One word that is not understood, or two readings, and the text profile is all there is."""
    assert form("property", text) == form("text", text)


@dataclass(frozen=True, kw_only=True)
class Listing:
    """A property; amounts in units of a half (baths), of a hundredth (price)."""

    number: int
    direction: str
    street: str
    suffix: str
    unit: str
    city: str
    state: str
    code: str
    beds: int
    half_baths: int
    area: int
    area_unit: str
    price_cents: int
    currency: str
    year: int
    day: int


SPELLINGS: dict[str, list[str]] = {
    "N": ["N", "North", "n.", "north"],
    "SW": ["SW", "Southwest"],
    "Street": ["St", "street", "St."],
    "Avenue": ["Ave", "AVENUE", "av."],
    "Way": ["Way", "way"],
    "Apt 4B": [" Apt 4B", ", apt. 4b", " Apartment 4B"],
    "Unit 4": [" Unit 4", ", unit 4"],
    "# 4": [" #4", " # 4"],
    "NV": ["NV", "Nevada"],
    "NY": ["NY", "New York"],
    "sqft": ["sq ft", "sqft", "SF", "square feet", "sq. ft."],
    "sqm": ["m²", "sqm", "square metres", "m2"],
}
LISTINGS = st.builds(
    Listing,
    number=st.integers(1, 99_999),
    direction=st.sampled_from(["", "N", "SW"]),
    street=st.sampled_from(["Main", "St James", "O'Brien", "Old Mill", "42nd", "Martin-Luther"]),
    suffix=st.sampled_from(["Street", "Avenue", "Way"]),
    unit=st.sampled_from(["", "Apt 4B", "Unit 4", "# 4"]),
    city=st.sampled_from(["Reno", "St Louis", "New York"]),
    state=st.sampled_from(["NV", "NY"]),
    code=st.sampled_from(["", "89501", "89501-1234", "00501"]),
    beds=st.integers(1, 20),
    half_baths=st.integers(1, 20),
    area=st.integers(1, 99_999),
    area_unit=st.sampled_from(["sqft", "sqm"]),
    price_cents=st.integers(1, 10**11),
    currency=st.sampled_from(["USD", "EUR", "CAD"]),
    year=st.integers(1800, 2030),
    day=st.integers(1, 28),
)


def spelt(listing: Listing, pick: Callable[[list[str]], str]) -> str:
    """One of the ways to state a listing, chosen by `pick`."""

    def some(value: str) -> str:
        return pick(SPELLINGS.get(value, [value]))

    whole, half = divmod(listing.half_baths, 2)
    ending = [" 1/2", ".5", "½", " and a half"] if whole else ["1/2", "½"]
    baths = f"{whole or ''}{pick(ending) if half else ''}".strip()
    area = f"{pick([f'{listing.area:,}', str(listing.area)])} {some(listing.area_unit)}"
    slots = [
        f"{pick(['', 'with ', 'has '])}{listing.beds}{pick(['BR', ' beds', '-bedroom', ' bd'])}",
        f"{baths} {pick(['BA', 'baths', 'bathrooms'])}",
        area,
        f"{pick(['built', 'built in', 'year built'])} {listing.year}",
        f"listed {pick([f'2024-05-{listing.day:02}', f'May {listing.day}, 2024'])}",
        f"{pick(['', 'asking ', 'price: ', 'at ', 'listed for '])}{money(listing, pick)}",
    ]
    if pick(["keep", "turn"]) == "turn":
        slots.reverse()
    verb = pick(
        ["Analyze this property: ", "please analyse the property at ", "Analyze property: "]
    )
    between = pick([", ", "; ", " - "])
    return f"{verb}{address(listing, some)}{between}" + between.join(slots)


def address(listing: Listing, some: Callable[[str], str]) -> str:
    """The address of a listing, up to its ZIP code."""
    direction = f"{some(listing.direction)} " if listing.direction else ""
    unit = some(listing.unit)
    street = f"{listing.number} {direction}{listing.street} {some(listing.suffix)}{unit}"
    return f"{street}, {listing.city}, {some(listing.state)} {listing.code}".strip()


def money(listing: Listing, pick: Callable[[list[str]], str]) -> str:
    """The price of a listing, exact to the cent."""
    units, cents = divmod(listing.price_cents, 100)
    fraction = f".{cents:02}" if cents else pick(["", ".00"])
    amounts = [f"{units:,}{fraction}", f"{units}{fraction}"]
    if cents == 0 and units % 1000 == 0:
        amounts += [f"{units // 1000}k", f"{units // 1000:,} thousand"]
    if cents == 0 and units % 100_000 == 0:
        amounts += [f"{units // 10**6}.{units // 10**5 % 10}M"]
    sign = {"USD": "$", "EUR": "€", "CAD": "C$"}[listing.currency]
    amount = pick(amounts)
    return pick([f"{sign}{amount}", f"{listing.currency} {amount}", f"{amount} {listing.currency}"])


@given(LISTINGS, st.data())
def test_every_way_to_state_a_listing_has_its_form(listing: Listing, data: st.DataObject) -> None:
    """However a listing is written, its form is that of its plainest spelling."""
    text = spelt(listing, lambda options: data.draw(st.sampled_from(options)))
    plain = property_form(spelt(listing, lambda options: options[0]))
    assert plain is not None
    assert form("property", text) == plain


@given(LISTINGS, LISTINGS, st.sampled_from([field.name for field in fields(Listing)]), st.data())
def test_one_other_part_is_another_form(
    listing: Listing, other: Listing, name: str, data: st.DataObject
) -> None:
    """A change of any one part of a listing changes the form, whatever the spelling."""
    changes: dict[str, Any] = {name: getattr(other, name)}
    changed = replace(listing, **changes)
    assume(changed != listing)

    def pick(options: list[str]) -> str:
        return data.draw(st.sampled_from(options))

    assert form("property", spelt(listing, pick)) != form("property", spelt(changed, pick))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("5 St James Place", "5 St James Place"),
        ("12 Dr Smith Rd", "12 Dr Smith Road"),
        ("123 E St NW", "123 E Street NW"),
        ("123 North St", "123 North Street"),
        ("123 n w st", "123 N W Street"),
        ("9 Avenue N", "9 Avenue N"),
        ("9 Avenue North", "9 Avenue North"),
        ("12 Court St", "12 Court Street"),
        ("100 E Broadway, Reno", "100 E Broadway, Reno"),
        ("12-34 42ND ave", "12-34 42nd Avenue"),
        ("12 1/2 Elm Ct", "12 1/2 Elm Court"),
        ("12b Elm Ct Unit b-2", "12B Elm Court Unit B-2"),
        ("896 Lake Drive Reno", "896 Lake Drive, Reno"),
        ("896 Lake Drive Reno NV 89501", "896 Lake Drive, Reno, NV 89501"),
        ("896 Lake Dr, Kansas City, Missouri", "896 Lake Drive, Kansas City, MO"),
        ("896 Lake Dr, New York, New York", "896 Lake Drive, New York, NY"),
        ("896 Lake Dr, wilkes-barre, pa", "896 Lake Drive, Wilkes-Barre"),
        ("896 Lake Dr, NV", "896 Lake Drive, NV"),
        ("896 Lake Dr, 89501", "896 Lake Drive, 89501"),
        ("896 Lake Dr, Peña Blanca", "896 Lake Drive, Peña Blanca"),
        ("896 Lake Dr, not Reno", "896 Lake Drive"),
        ("896 Lake Dr, May 1, 2024", "896 Lake Drive"),
        ("896 Lake Dr 12500 sqft", "896 Lake Drive"),
        ("5 Old St James", "5 Old St James"),
        ("12 Oak Avenue West Palm Beach", None),
        ("12 Oak Avenue reno", None),
        ("0123 Oak Ave", None),
        ("1,234 Oak Ave", None),
        ("3BR Oak Ave", None),
        ("12 the Oak Ave", None),
        ("12 İstanbul Ave", None),
        ("Oak Ave", None),
        ("12", None),
    ],
)
def test_addresses(text: str, expected: str | None) -> None:
    """Only suffixes, directionals and states are rewritten, and only in their places."""
    reading = read_address(tokenise(text), 0)
    assert (reading and reading[0]) == expected


def test_a_free_word_may_belong_to_what_follows() -> None:
    """A last word that nothing parts off is reported, for it may be no city at all."""
    for text, expected in (("12 Oak Street Gutted 3BR", True), ("12 Oak Street Reno, 3BR", False)):
        found = find_address(tokenise(text), 0)
        assert found is not None
        assert found[0].open_ended is expected


@pytest.mark.parametrize(
    ("read", "text", "expected"),
    [
        (read_money, "$450k", "450000 USD"),
        (read_money, "$450K", "450000 USD"),
        (read_money, "US$1.25mm", "1250000 USD"),
        (read_money, "$1.0005k", "1000.5 USD"),
        (read_money, "$0.0001", "0.0001 USD"),
        (read_money, "usd 3 million", "3000000 USD"),
        (read_money, "two hundred and five thousand dollars", "205000 USD"),
        (read_money, "twenty-one euros", "21 EUR"),
        (read_money, "three hundred dollars", "300 USD"),
        (read_money, "two thousand three million dollars", None),
        (read_money, "$5 CAD", "5 CAD"),
        (read_money, "¥5", "5 ¥"),
        (read_money, "€5 USD", None),
        (read_money, "5", None),
        (read_money, "$0450", None),
        (read_money, "$1,23", None),
        (read_money, "$1.250", None),
        (read_money, "$1.250M", None),
        (read_money, "$", None),
        (read_money, "two thousand million dollars", "2000000000 USD"),
        (read_beds, "3 bdrm", "3 beds"),
        (read_beds, "twenty-one bedrooms", "21 beds"),
        (read_beds, "1/2 bed", None),
        (read_beds, "3 bananas", None),
        (read_baths, "1¼ ba", "1.25 baths"),
        (read_baths, "3/2 ba", None),
        (read_baths, "2.50 ba", "2.5 baths"),
        (read_area, "1,200-square-foot", "1200 sqft"),
        (read_area, "1200 ft2", "1200 sqft"),
        (read_area, "1200 ft 2", None),
        (read_area, "0.250 acres", "0.25 acres"),
        (read_area, "3 hectares", "3 hectares"),
        (read_area, "1.200 m²", None),
        (read_area, "12 ft", None),
        (read_date, "2024-02-29", "2024-02-29"),
        (read_date, "2023-02-29", None),
        (read_date, "2024-13-01", None),
        (read_date, "Sept. 3rd, 2024", "2024-09-03"),
        (read_date, "1st of May, 2024", "2024-05-01"),
        (read_date, "31 Dec 2024", "2024-12-31"),
        (read_date, "31 June 2024", None),
        (read_date, "13/5/2024", "2024-05-13"),
        (read_date, "5/6/2024", None),
        (read_date, "24-05-01", None),
        (read_date, "12345/5/13", None),
        (read_date, "2024 - 05 - 01", None),
        (read_date, "May 2024", None),
    ],
)
def test_readers(read: Reader, text: str, expected: str | None) -> None:
    """Each reader gives one spelling of an exact value, or nothing."""
    reading = read(tokenise(text), 0)
    assert (reading and reading[0]) == expected


READERS = (read_address, read_area, read_baths, read_beds, read_date, read_money)


@given(st.text(alphabet="0123456789.,/-½ $€kMBRAftm²sq'#\nelo StAeNV", max_size=30))
def test_readers_never_raise_and_read_their_own_spelling(text: str) -> None:
    """At any token of any text; and what was read is read again as the same."""
    tokens = tokenise(text)
    for i in range(len(tokens)):
        for read in READERS:
            reading = read(tokens, i)
            if reading is not None:
                assert i < reading[1] < len(tokens)
                again = tokenise(reading[0])
                assert read(again, 0) == (reading[0], len(again) - 1)


@given(st.decimals(0, 10**9, places=4))
def test_decimals_keep_their_value(value: Any) -> None:
    """The one spelling of a number is equal to it."""
    text = f"{value:,}"
    spelling = decimal(text)
    assert spelling is not None
    assert type(value)(spelling) == value
