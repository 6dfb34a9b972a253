"""A log made up, as real ones are: few questions are asked often, and more by day than by night.

    rank by Zipf's law ──> a tenant's question ──> one of its phrasings ──> one of its spellings

A question is about a home or a common matter, and of one tenant. Its phrasings mean the same in
other words (those about a home are equal under the profile `property`); its spellings are equal
under the profile `text`. Besides, some requests are unlike any other (a document), a few are for
embeddings. A question's answer takes as many tokens each time. The seed alone decides it all.
"""

from __future__ import annotations

import gzip
import json
import math
import random
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import IO, Any

from shared.requests import Endpoint

DAY_S = 86_400
START_S = 1_790_000_000
"""Where the log begins, unless it is told."""
SWING = 0.8
"""How much busier the busiest hour is than the mean, and how much quieter the quietest."""
LOCATIONS = (
    ("fra", 0.30, 1),
    ("iad", 0.25, -5),
    ("lhr", 0.15, 0),
    ("sin", 0.12, 8),
    ("sjc", 0.10, -8),
    ("gru", 0.08, -3),
)
"""Name, share of the traffic, hours ahead of UTC."""
MODELS = (("gpt-4o-mini", 0.7), ("gpt-4o", 0.3))
EMBEDDING_MODEL = "text-embedding-3-small"


@dataclass(frozen=True, kw_only=True, slots=True)
class LogPlan:
    """What a log is to be like. Shares are from 0 to 1.

    `zipf` is the exponent: the question of rank r is asked in proportion to r to the power of its
    negative. `questions` is how many there are of all tenants; `unique` the share of requests that
    are like no other; `reworded` the share of the others that are asked in other words than the
    first, `respelt` in another spelling. `bypass` ask for a fresh answer or none to be kept.
    """

    requests: int
    seed: int = 1
    zipf: float = 1.0
    questions: int | None = None
    unique: float = 0.2
    reworded: float = 0.3
    respelt: float = 0.2
    embeddings: float = 0.03
    bypass: float = 0.01
    tenants: int = 5
    locations: int = len(LOCATIONS)
    days: float = 7.0
    start_s: float = START_S

    def __post_init__(self) -> None:
        for name in ("unique", "reworded", "respelt", "embeddings", "bypass"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be from 0 to 1, not {getattr(self, name):g}")
        for name in ("requests", "tenants"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")
        if not 1 <= self.locations <= len(LOCATIONS):
            raise ValueError(f"locations must be from 1 to {len(LOCATIONS)}, not {self.locations}")
        if not (0 <= self.zipf <= 10 and 0 < self.days <= 3660):
            raise ValueError("the exponent must be from 0 to 10, the days more than 0")

    @property
    def pool(self) -> int:
        """How many questions there are: one for ten requests where nothing is said."""
        return self.questions or max(20, self.requests // 10)


def generated(plan: LogPlan) -> Iterator[dict[str, Any]]:
    """The rows of a log, in order of time, as `origin.planning.log` reads them."""
    draw = random.Random(plan.seed)  # noqa: S311 - no secret
    ranks = list(accumulate((rank + 1) ** -plan.zipf for rank in range(plan.pool)))
    locations = LOCATIONS[: plan.locations]
    weights = [share for _, share, _ in locations]
    tenants = list(accumulate(1 / (number + 1) for number in range(plan.tenants)))
    now_s = plan.start_s
    mean_s = plan.days * DAY_S / plan.requests
    for number in range(plan.requests):
        now_s += draw.expovariate(1.0) * mean_s / _rate(now_s, locations)
        place = draw.choices(locations, weights)[0]
        row: dict[str, Any] = {"time": round(now_s, 3)}
        if draw.random() < plan.unique:
            tenant = bisect_right(tenants, draw.random() * tenants[-1])
            row |= _unlike_any_other(draw, number, tenant)
        else:
            rank = bisect_right(ranks, draw.random() * ranks[-1])
            row |= _question(draw, plan, min(rank, plan.pool - 1), tenants)
        row["location"] = place[0]
        if draw.random() < plan.bypass:
            value = draw.choice(("no-cache", "no-store"))
            row["headers"] = {"Cache-Control": value}
        yield row


@contextmanager
def writing(path: Path) -> Iterator[IO[bytes]]:
    """A file for a log; packed where its name ends in `.gz`. Raises OSError."""
    with path.open("wb") as file:
        if path.suffix == ".gz":
            with gzip.GzipFile(fileobj=file, mode="wb", compresslevel=6, mtime=0) as packed:
                yield packed  # type: ignore[misc]
        else:
            yield file


def line_of(row: dict[str, Any]) -> bytes:
    """A row as it is written down."""
    return json.dumps(row, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def _rate(now_s: float, locations: tuple[tuple[str, float, int], ...]) -> float:
    """How busy it is, in proportion to the mean: the locations' days, each in its own time."""
    total = sum(share for _, share, _ in locations)
    busy = 0.0
    for _, share, ahead_h in locations:
        hour = (now_s / 3600 + ahead_h) % 24
        busy += share / total * (1 + SWING * math.sin((hour - 9) / 24 * 2 * math.pi))
    return busy


def _question(
    draw: random.Random, plan: LogPlan, rank: int, tenants: Sequence[float]
) -> dict[str, Any]:
    """A request for the question of a rank; `tenants` are their weights, added up."""
    own = random.Random(f"{plan.seed}/{rank}")  # noqa: S311 - what is fixed about the question
    tenant = bisect_right(tenants, own.random() * tenants[-1])
    kind = _KINDS[own.randrange(len(_KINDS))]
    values = _values(own)
    model = _model(own)
    is_embedding = own.random() < plan.embeddings
    completion = min(1500, max(10, round(own.lognormvariate(5.2, 0.7))))
    system = _SYSTEMS[tenant % len(_SYSTEMS)]
    phrasing = 0
    if draw.random() < plan.reworded:
        phrasing = draw.randrange(1, len(kind))
    text = kind[phrasing].format(**values)
    if draw.random() < plan.respelt:
        text = _respelt(draw, text)
    if is_embedding:
        return _row(
            tenant,
            {"model": EMBEDDING_MODEL, "input": text},
            len(text) // 4 + 1,
            0,
            embeddings=True,
        )
    body: dict[str, Any] = {
        "model": model,
        "messages": [{"role": "system", "content": system}, {"role": "user", "content": text}],
        "temperature": 0,
    }
    if draw.random() < 0.3:
        body["stream"] = True
    return _row(tenant, body, (len(system) + len(text)) // 4 + 8, completion)


def _unlike_any_other(draw: random.Random, number: int, tenant: int) -> dict[str, Any]:
    """A request that nobody makes again: a document with a question about it."""
    words = [draw.choice(_WORDS) for _ in range(draw.randrange(20, 120))]
    text = f"Note {number}-{draw.randrange(10**6)}: {' '.join(words)}. What follows from this?"
    completion = min(1500, max(10, round(draw.lognormvariate(5.2, 0.7))))
    body = {"model": _model(draw), "messages": [{"role": "user", "content": text}]}
    return _row(tenant, body, len(text) // 4 + 4, completion)


def _row(
    tenant: int, body: dict[str, Any], prompt: int, completion: int, *, embeddings: bool = False
) -> dict[str, Any]:
    usage = {"prompt_tokens": prompt, "completion_tokens": completion}
    row: dict[str, Any] = {"tenant": f"tenant-{tenant + 1}", "body": body, "usage": usage}
    if embeddings:
        row["endpoint"] = Endpoint.EMBEDDINGS.value
    return row


def _model(draw: random.Random) -> str:
    return MODELS[0][0] if draw.random() < MODELS[0][1] else MODELS[1][0]


def _values(own: random.Random) -> dict[str, Any]:
    price_k = own.randrange(150, 2000)
    return {
        "number": own.randrange(1, 999),
        "street": f"{own.choice(_NAMES)} Street",
        "city": own.choice(_CITIES),
        "beds": own.randrange(2, 7),
        "baths": own.randrange(2, 5),
        "price": price_k * 1000,
        "price_k": price_k,
        "area": own.randrange(60, 400) * 10,
        "topic": f"{own.choice(_ADJECTIVES)} {own.choice(_NOUNS)}",
        "other": f"{own.choice(_ADJECTIVES)} {own.choice(_NOUNS)}",
        "count": own.randrange(2, 60),
    }


def _respelt(draw: random.Random, text: str) -> str:
    """The text as the profile `text` reads it just the same."""
    match draw.randrange(3):
        case 0:
            return text[0].lower() + text[1:]
        case 1:
            return text.replace(" ", "  ", 2)
        case _:
            return f" {text}\n"


_SYSTEMS = (
    "You are the assistant of an estate agency. Answer in one paragraph.",
    "You are a helpful assistant.",
    "You answer questions of our customers about our products, briefly and kindly.",
)
_KINDS = (
    (
        "Analyze this property: {number} {street}, {beds} bedrooms, {baths} bathrooms, ${price:,}",
        "Analyze this property: {number} {street}, {beds}BR/{baths}BA, ${price_k}k",
        "Analyze this property: {number} {street}, {beds} beds, {baths} baths, ${price_k}k",
    ),
    (
        "What does a flat of {area} sq ft in {city} cost to rent near {street}?",
        "How much is the rent of a flat of {area} sq ft in {city} near {street}?",
        "What is the rent for a flat of {area} sq ft near {street} in {city}?",
    ),
    (
        "How do I clean the {topic} after {count} days in {city}?",
        "What is the best way to clean the {topic} after {count} days in {city}?",
        "How should I clean the {topic} after {count} days in {city}?",
    ),
    (
        "What is the difference between a {topic} and a {other}, model {count}?",
        "How does a {topic} differ from a {other}, model {count}?",
        "In what do a {topic} and a {other} differ, model {count}?",
    ),
    (
        "Can I return the {topic} number {number} within {count} days in {city}?",
        "Is it possible to return the {topic} number {number} within {count} days in {city}?",
        "Am I allowed to return the {topic} number {number} within {count} days in {city}?",
    ),
)
_CITIES = (
    *("Oslo", "Lyon", "Porto", "Graz", "Ghent", "Turin", "Leeds", "Basel", "Cork", "Malaga"),
    *("Aarhus", "Bergen", "Bremen", "Lille", "Gdansk", "Utrecht", "Verona", "Zagreb", "Vilnius"),
)
_NAMES = (
    *("Oak", "Maple", "Cedar", "Elm", "Birch", "Walnut", "Chestnut", "Willow", "Ash", "Hazel"),
    *("Church", "Mill", "Station", "Bridge", "Harbour", "Garden", "Castle", "Market", "Abbey"),
)
_ADJECTIVES = (
    *("small", "large", "green", "white", "wooden", "electric", "folding", "silent", "portable"),
    *("cordless", "foldable", "waterproof", "heavy", "compact", "round", "narrow", "tall", "blue"),
)
_NOUNS = (
    *("kettle", "lamp", "chair", "table", "fridge", "oven", "heater", "mower", "drill", "ladder"),
    *("bicycle", "tent", "printer", "speaker", "camera", "mirror", "carpet", "curtain", "desk"),
)
_WORDS = (
    *("report", "meeting", "invoice", "project", "budget", "river", "garden", "market", "letter"),
    *("train", "station", "morning", "evening", "winter", "summer", "house", "kitchen", "office"),
    *("plan", "result", "change", "reason", "answer", "question", "number", "paper", "window"),
)
