"""Entries of a semantic index, in a space of few dimensions."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from origin.semantic.index import Entry, Vector
from origin.semantic.redis_entries import RedisEntries
from origin.stores.redis_store import redis_client

DIMS = 8
NOW_MS = time.time_ns() // 1_000_000 + 3_600_000
"""An hour from now: what Redis ends by its own clock is long over then."""
PATIENT_S = 10.0


def basis(place: int) -> Vector:
    """A unit vector along one axis."""
    vector = np.zeros(DIMS, dtype=np.float32)
    vector[place % DIMS] = 1
    return vector


def toward(place: int, cosine: float) -> Vector:
    """A unit vector of that cosine to `basis(place)`."""
    other = np.float32(np.sqrt(1 - cosine**2))
    return np.float32(cosine) * basis(place) + other * basis(place + 1)


def an_entry(number: int, **changes: Any) -> Entry:
    """The entry of that number: `acme`'s, in partition `p`, over in a minute."""
    given: dict[str, Any] = {
        "tenant": "acme",
        "partition": "p",
        "key": f"k{number}",
        "text": f"question {number}?",
        "form": f"f{number}",
        "vector": basis(number),
        "expires_ms": NOW_MS + 60_000,
    }
    return Entry(**(given | changes))


def entries_client(url: str, identity: str = "m1", **options: Any) -> RedisEntries:
    """What an in-process index keeps in that Redis, asked with patience."""
    client = redis_client(url, timeout_s=PATIENT_S, max_connections=4, wait_s=PATIENT_S)
    return RedisEntries(client, identity=identity, dims=DIMS, **options)
