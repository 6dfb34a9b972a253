"""Whether the time of a refusal tells how much of a secret was guessed.

For API keys, the edge's bearer and a page's token: what differs in its first character against what
differs in its last, asked in turns and shuffled. Printed are the medians, the difference with its
95 % interval (bootstrap over blocks), and the share of pairs in which the first took longer, which
is 0.5 where nothing can be told (the U of Mann and Whitney, divided by all pairs). `plain ==` is
what it looks like where something can: the same on texts of 100 kB, whose comparison is long
enough to show.
"""

from __future__ import annotations

import argparse
import hmac
import random
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial

import numpy as np

from shared.errors import ClientError
from shared.keys import authenticate, edge_bearer, key_rings, make_api_key, ring_of_edge

RINGS = key_rings("a secret of the benchmark, long enough")
RESAMPLES = 2000
Check = Callable[[str], object]


def refused(check: Check, text: str) -> None:
    """Have a wrong text refused."""
    with suppress(ClientError):
        check(text)


def wrong_at(text: str, place: int) -> str:
    """The text with another character there."""
    characters = list(text)
    characters[place] = "b" if characters[place] != "b" else "c"
    return "".join(characters)


def measured(check: Check, first: str, last: str, rounds: int) -> tuple[np.ndarray, np.ndarray]:
    """Nanoseconds of refusals of each."""
    dice = random.Random(7)  # noqa: S311 - an order, no secret
    spent: dict[str, list[int]] = {first: [], last: []}
    for _ in range(rounds):
        pair = [first, last]
        dice.shuffle(pair)
        for text in pair:
            begun = time.perf_counter_ns()
            refused(check, text)
            spent[text].append(time.perf_counter_ns() - begun)
    return np.array(spent[first]), np.array(spent[last])


def share_longer(a: np.ndarray, b: np.ndarray) -> float:
    """The share of pairs in which one of `a` took longer than one of `b`; a tie is half."""
    ordered = np.sort(b)
    below = np.searchsorted(ordered, a, "left") + np.searchsorted(ordered, a, "right")
    return float(below.mean() / 2 / len(b))


def interval(a: np.ndarray, b: np.ndarray) -> tuple[float, float]:
    """95 % of the difference of medians, over resampled blocks of neighbours in time."""
    blocks = 50
    size = len(a) // blocks
    found = np.median(a[: blocks * size].reshape(blocks, size), axis=1) - np.median(
        b[: blocks * size].reshape(blocks, size), axis=1
    )
    drawn = np.random.default_rng(7).choice(found, (RESAMPLES, blocks)).mean(axis=1)
    low, high = np.percentile(drawn, [2.5, 97.5])
    return float(low), float(high)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=100_000)
    rounds = parser.parse_args().rounds
    key, bearer = make_api_key(RINGS.current, "acme", bytes(15)), edge_bearer(RINGS.current)
    token, long = "0123456789abcdef" * 4, "a" * 100_000
    start = key.rindex("-") + 1  # of the check, which is what a guesser would guess
    shown = f"Bearer {key}"
    cases: dict[str, tuple[Check, str, str]] = {
        "API key": (
            partial(authenticate, RINGS, development=False),
            wrong_at(shown, len("Bearer ") + start),
            wrong_at(shown, -1),
        ),
        "edge's bearer": (partial(ring_of_edge, RINGS), wrong_at(bearer, 0), wrong_at(bearer, -1)),
        "page's token": (
            lambda text: hmac.compare_digest(text.encode(), token.encode()),
            wrong_at(token, 0),
            wrong_at(token, -1),
        ),
        "plain ==": (lambda text: text == long, wrong_at(long, 0), wrong_at(long, -1)),
    }
    print(
        f"{'compared':15} {'first, ns':>10} {'last, ns':>10} {'difference, 95 %':>20} {'share':>7}"
    )
    for name, (check, first, last) in cases.items():
        a, b = measured(check, first, last, rounds)
        low, high = interval(a, b)
        print(
            f"{name:15} {np.median(a):10.0f} {np.median(b):10.0f} {low:9.1f} to {high:7.1f} "
            f"{share_longer(a, b):7.3f}"
        )


if __name__ == "__main__":
    main()
