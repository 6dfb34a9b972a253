"""Slot values that are made, not listed: amounts, dates, addresses, identifiers.

Each is a `Value`: equal ways to write one thing, the first its name. `vary` gives the values that
must never be taken for it, each with the kind of its difference.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeAlias

MONTHS: Final = (
    "January", "February", "March", "April", "May", "June",
    "July", "August", "September", "October", "November", "December",
)  # fmt: skip
_NUMBERS_TEXT: Final = "zero one two three four five six seven eight nine ten eleven twelve"
_NUMBERS: Final = tuple(_NUMBERS_TEXT.split())
_CURRENCIES: Final = {
    "$": ("USD", "dollars"),
    "€": ("EUR", "euros"),
    "£": ("GBP", "pounds"),
    "₹": ("INR", "rupees"),
    "¥": ("JPY", "yen"),
}
_STREETS_TEXT: Final = (
    "Oak Maple Cedar Pine Elm Walnut Birch Main Park Church Mill River Sunset Highland Washington "
    "Lincoln Jefferson Franklin Chestnut Willow Spruce Hickory Magnolia Juniper Meadow Harbor "
    "Prospect Forest Laurel Poplar Kingsley Ashford Bayview Orchard Vineyard Canyon"
)
_STREETS: Final = tuple(_STREETS_TEXT.split())
_WAYS: Final = (
    ("St", "Street"),
    ("Ave", "Avenue"),
    ("Rd", "Road"),
    ("Blvd", "Boulevard"),
    ("Ln", "Lane"),
    ("Dr", "Drive"),
    ("Ct", "Court"),
    ("Pl", "Place"),
)
_OBJECTS_TEXT: Final = (
    "order user invoice customer product session account payment message event item ticket device "
    "employee vendor report shipment booking token comment campaign student course score"
)
_OBJECTS: Final = tuple(_OBJECTS_TEXT.split())
_FIELDS_TEXT: Final = (
    "id name date price status count total amount email type size code key age rank label"
)
_FIELDS: Final = tuple(_FIELDS_TEXT.split())


@dataclass(frozen=True, kw_only=True)
class Value:
    """Equal ways to write one thing."""

    forms: tuple[str, ...]
    parts: tuple[str | int, ...] = ()

    @property
    def name(self) -> str:
        """The form that names it."""
        return self.forms[0]


def make(kind: str, rng: random.Random) -> Value:
    """A value of a kind in MADE."""
    return MADE[kind][1](*MADE[kind][0](rng))


def vary(kind: str, value: Value, rng: random.Random) -> tuple[str, Value]:
    """(the kind of the difference, another value that looks like this one)."""
    parts = list(value.parts)
    name, changed = MADE[kind][2](parts, rng)
    return name, MADE[kind][1](*changed)


def number(count: int) -> tuple[str, ...]:
    """A count in figures, in words where they are short, with thousands set off."""
    forms = [str(count)]
    if count >= 1000:
        forms = [f"{count:,}", str(count)]
        if count % 1000 == 0 and count < 1_000_000:
            forms += [f"{count // 1000}k", f"{count // 1000} thousand"]
    elif count < len(_NUMBERS) and count > 1:
        forms.append(_NUMBERS[count])
    return tuple(forms)


_Parts: TypeAlias = list[str | int]
_Made: TypeAlias = tuple[
    Callable[[random.Random], _Parts],
    Callable[..., Value],
    Callable[[_Parts, random.Random], tuple[str, _Parts]],
]


def _int(part: str | int) -> int:
    return int(part)


def _shift(count: int, rng: random.Random, least: int = 1) -> int:
    """Another count like this one: a step, one digit changed, two digits swapped, or ten times."""
    digits = str(count)
    place = rng.randrange(len(digits))
    options = [count + 1, count - 1, count + rng.randint(2, 9), count * 2]
    options.append(int(digits[:place] + str(rng.randint(1, 9)) + digits[place + 1 :]))
    if len(digits) > 1:
        options.append(int(digits[:-2] + digits[-1] + digits[-2]))
    options = [option for option in options if option != count and option >= least]
    return rng.choice(options)


def _money_new(rng: random.Random) -> _Parts:
    thousands = rng.choice([rng.randint(2, 99), rng.randint(10, 199) * 5])
    unit = rng.choice([1, 1, 1000, 1000, 1000, 1000, 1000, 1_000_000])
    return [thousands * unit if unit > 1 else rng.randint(3, 999), rng.choice("$$$$€£₹")]


def _money(amount: int, sign: str) -> Value:
    code, plural = _CURRENCIES[sign]
    forms = [f"{sign}{amount:,}", f"{amount:,} {plural}", f"{amount:,} {code}", f"{sign}{amount}"]
    if amount % 1_000_000 == 0:
        millions = amount // 1_000_000
        forms += [f"{sign}{millions}M", f"{sign}{millions} million", f"{millions} million {plural}"]
    elif amount % 1000 == 0 and amount < 1_000_000:
        forms += [
            f"{sign}{amount // 1000}k",
            f"{sign}{amount // 1000}K",
            f"{amount // 1000}k {code}",
        ]
    return Value(forms=tuple(forms), parts=(amount, sign))


def _money_near(parts: _Parts, rng: random.Random) -> tuple[str, _Parts]:
    amount, sign = _int(parts[0]), str(parts[1])
    choice = rng.random()
    if choice < 0.25:
        return "currency", [amount, rng.choice([other for other in _CURRENCIES if other != sign])]
    if choice < 0.45:
        return "scale", [amount * rng.choice([10, 100, 1000]), sign]
    unit = 1_000_000 if amount % 1_000_000 == 0 else 1000 if amount % 1000 == 0 else 1
    return "amount", [_shift(amount // unit, rng) * unit, sign]


def _count_near(parts: _Parts, rng: random.Random) -> tuple[str, _Parts]:
    return "number", [_shift(_int(parts[0]), rng)]


def _year_near(parts: _Parts, rng: random.Random) -> tuple[str, _Parts]:
    return "year", [_int(parts[0]) + rng.choice([-10, -3, -2, -1, 1, 2, 3, 10])]


def _period(year: int, quarter: int) -> Value:
    if not quarter:
        return Value(forms=(f"{year}", f"the year {year}"), parts=(year, quarter))
    words = ("first", "second", "third", "fourth")
    forms = (
        f"Q{quarter} {year}",
        f"the {words[quarter - 1]} quarter of {year}",
        f"Q{quarter} of {year}",
        f"{year} Q{quarter}",
    )
    return Value(forms=forms, parts=(year, quarter))


def _period_near(parts: _Parts, rng: random.Random) -> tuple[str, _Parts]:
    year, quarter = _int(parts[0]), _int(parts[1])
    if rng.random() < 0.5:
        return "year", [year + rng.choice([-2, -1, 1, 2]), quarter]
    others = [other for other in range(5) if other != quarter]
    return "quarter", [year, rng.choice(others)]


def _percent(tenths: int) -> Value:
    text = f"{tenths / 10:g}"
    return Value(forms=(f"{text}%", f"{text} percent", f"{text} per cent"), parts=(tenths,))


def _percent_near(parts: _Parts, rng: random.Random) -> tuple[str, _Parts]:
    tenths = _int(parts[0])
    if rng.random() < 0.4:
        return "percent", [tenths * 10 if tenths < 100 else tenths // 10]
    return "percent", [_shift(tenths // 10, rng) * 10 + tenths % 10]


def _decimal(hundredths: int) -> Value:
    return Value(forms=(f"{hundredths / 100:g}",), parts=(hundredths,))


def _decimal_near(parts: _Parts, rng: random.Random) -> tuple[str, _Parts]:
    hundredths = _int(parts[0])
    if rng.random() < 0.5:
        return "decimal", [hundredths * 10]
    return "decimal", [_shift(hundredths, rng)]


def _day(day: int, month: int, year: int) -> Value:
    name, short = MONTHS[month], MONTHS[month][:3]
    ending = "th" if 10 < day < 20 else {1: "st", 2: "nd", 3: "rd"}.get(day % 10, "th")
    forms = (
        f"{name} {day}, {year}",
        f"{day} {name} {year}",
        f"{short} {day}, {year}",
        f"{name} {day}{ending}, {year}",
        f"the {day}{ending} of {name} {year}",
        f"{year}-{month + 1:02}-{day:02}",
    )
    return Value(forms=forms, parts=(day, month, year))


def _day_near(parts: _Parts, rng: random.Random) -> tuple[str, _Parts]:
    day, month, year = (_int(part) for part in parts)
    choice = rng.randrange(3)
    if choice == 0:
        return "date", [day % 28 + 1, month, year]
    if choice == 1:
        return "month", [day, (month + rng.choice([1, 2, 6])) % 12, year]
    return "year", [day, month, year + rng.choice([-1, 1])]


def _clock(minutes: int) -> Value:
    hour, minute = divmod(minutes, 60)
    half = "am" if hour < 12 else "pm"
    short = f"{(hour - 1) % 12 + 1}" + (f":{minute:02}" if minute else "")
    forms = [f"{short} {half}", f"{short}{half}", f"{hour:02}:{minute:02}"]
    return Value(forms=tuple(forms), parts=(minutes,))


def _clock_near(parts: _Parts, rng: random.Random) -> tuple[str, _Parts]:
    return "time", [(_int(parts[0]) + rng.choice([720, 60, 30, -60, 120])) % 1440]


def _address(house: int, street: int, way: int) -> Value:
    name = _STREETS[street]
    return Value(
        forms=tuple(f"{house} {name} {form}" for form in _WAYS[way]), parts=(house, street, way)
    )


def _address_near(parts: _Parts, rng: random.Random) -> tuple[str, _Parts]:
    house, street, way = (_int(part) for part in parts)
    choice = rng.random()
    if choice < 0.5:
        return "house_number", [_shift(house, rng), street, way]
    if choice < 0.8:
        return "street", [house, (street + rng.randrange(1, len(_STREETS))) % len(_STREETS), way]
    return "street", [house, street, (way + rng.randrange(1, len(_WAYS))) % len(_WAYS)]


def _rooms(beds: int, baths: int) -> Value:
    forms = (
        f"{beds}BR/{baths}BA",
        f"{beds} bedroom {baths} bath",
        f"{beds} bed, {baths} bath",
        f"{beds}bd/{baths}ba",
        f"{_NUMBERS[beds]} bedrooms and {_NUMBERS[baths]} bath{'s' if baths > 1 else ''}",
    )
    return Value(forms=forms, parts=(beds, baths))


def _rooms_near(parts: _Parts, rng: random.Random) -> tuple[str, _Parts]:
    beds, baths = _int(parts[0]), _int(parts[1])
    choice = rng.randrange(3)
    if choice == 0 and beds != baths:
        return "swap", [baths, beds]
    if choice == 1:
        return "rooms", [beds, baths + 1]
    return "rooms", [beds + rng.choice([1, 2]), baths]


def _identifier(owner: int, field: int) -> Value:
    return Value(forms=(f"{_OBJECTS[owner]}_{_FIELDS[field]}",), parts=(owner, field))


def _identifier_near(parts: _Parts, rng: random.Random) -> tuple[str, _Parts]:
    owner, field = _int(parts[0]), _int(parts[1])
    if rng.random() < 0.5:
        return "identifier", [(owner + rng.randrange(1, len(_OBJECTS))) % len(_OBJECTS), field]
    return "identifier", [owner, (field + rng.randrange(1, len(_FIELDS))) % len(_FIELDS)]


def _version(major: int, minor: int) -> Value:
    return Value(forms=(f"{major}.{minor}", f"v{major}.{minor}"), parts=(major, minor))


def _version_near(parts: _Parts, rng: random.Random) -> tuple[str, _Parts]:
    major, minor = _int(parts[0]), _int(parts[1])
    return "version", rng.choice([[major + 1, minor], [major, minor + 1], [major, minor + 10]])


def _reference_near(parts: _Parts, rng: random.Random) -> tuple[str, _Parts]:
    return "reference", [_shift(_int(parts[0]), rng, 1000)]


def _reference(count: int) -> Value:
    return Value(forms=(f"#{count}", f"{count}", f"number {count}", f"no. {count}"), parts=(count,))


def _count(count: int) -> Value:
    return Value(forms=number(count), parts=(count,))


def _plain_number(count: int) -> Value:
    return Value(forms=(str(count),), parts=(count,))


MADE: Final[dict[str, _Made]] = {
    "money": (_money_new, _money, _money_near),
    "few": (lambda rng: [rng.randint(2, 12)], _count, _count_near),
    "count": (lambda rng: [rng.choice([rng.randint(2, 99), rng.randint(1, 90) * 1000])],
              _count, _count_near),
    "integer": (lambda rng: [rng.randint(3, 990)], _plain_number, _count_near),
    "digit": (lambda rng: [rng.randint(2, 12)], _plain_number, _count_near),
    "age": (lambda rng: [rng.randint(5, 75)], _plain_number, _count_near),
    "year": (lambda rng: [rng.randint(1975, 2028)], _plain_number, _year_near),
    "old_year": (lambda rng: [rng.randint(1200, 1970)], _plain_number, _year_near),
    "period": (lambda rng: [rng.randint(2008, 2027), rng.choice([0, 0, 1, 2, 3, 4])],
               _period, _period_near),
    "percent": (lambda rng: [rng.choice([rng.randint(1, 95) * 10, rng.randint(11, 99)])],
                _percent, _percent_near),
    "decimal": (lambda rng: [rng.randint(11, 9999)], _decimal, _decimal_near),
    "day": (lambda rng: [rng.randint(1, 28), rng.randrange(12), rng.randint(1990, 2029)],
            _day, _day_near),
    "clock": (lambda rng: [rng.randint(12, 44) * 30], _clock, _clock_near),
    "address": (lambda rng: [rng.randint(11, 9800), rng.randrange(len(_STREETS)),
                             rng.randrange(len(_WAYS))], _address, _address_near),
    "rooms": (lambda rng: [rng.randint(2, 6), rng.randint(1, 4)], _rooms, _rooms_near),
    "identifier": (lambda rng: [rng.randrange(len(_OBJECTS)), rng.randrange(len(_FIELDS))],
                   _identifier, _identifier_near),
    "version": (lambda rng: [rng.randint(1, 21), rng.randint(0, 15)], _version, _version_near),
    "reference": (lambda rng: [rng.randint(10_000, 999_999)], _reference, _reference_near),
}  # fmt: skip
