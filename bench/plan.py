"""Does caching cut what models cost by 50 to 90 %, as is often said? By what the requests are like.

    .venv/bin/python -m bench.plan [--requests 50000]

Logs of `encore plan --generate` over a week, that differ in one thing each from the first: how
unequal questions are (the exponent of Zipf's law), how many requests are like no other, how many
requests there are for each question. Each is replayed with answers kept for an hour, a day and a
week, under the profiles `exact` and `property`. `cut` is of what all requests would cost at
`PRICES`, after refreshes and KV's own price; `repeats` is the share of requests that were asked
before in the same bytes: no exact cache of whatever size and lifetime hits more.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import Any

from origin.lifetimes import NO_TIERS
from origin.planning.generate import LogPlan, generated, line_of
from origin.planning.keying import Keying, Rules
from origin.planning.log import Bad, Reading
from origin.planning.reading import LogFacts, asked
from origin.planning.replay import Replay
from origin.planning.tally import Setting
from origin.prices import Prices
from shared.freshness import Lifetimes
from shared.keys import key_ring

HOUR_S, DAY_S = 3600, 86_400
PRICES = Prices.parse(
    '{"gpt-4o-mini": {"input": 0.15, "output": 0.6}, "gpt-4o": {"input": 2.5, "output": 10},'
    ' "text-embedding-3-small": {"input": 0.02}}'
)
LIFETIMES = Lifetimes(
    ttl_s=DAY_S, stale_while_revalidate_s=HOUR_S, stale_if_error_s=DAY_S, max_ttl_s=30 * DAY_S
)
SETTINGS = tuple(
    Setting(ttl_s=ttl_s, normalisation=profile, admit_after=1, semantic="off")
    for ttl_s, profile in (
        (HOUR_S, "exact"),
        (DAY_S, "exact"),
        (7 * DAY_S, "exact"),
        (7 * DAY_S, "property"),
    )
)
PER_QUESTION = 10


def variations(requests: int) -> dict[str, LogPlan]:
    """The logs, the one that all others are compared with first."""
    base = LogPlan(requests=requests, questions=requests // PER_QUESTION)

    def few(per_question: int) -> LogPlan:
        return replace(base, questions=max(1, requests // per_question))

    return {
        "exponent 1.0, 20 % like no other, 10 requests a question": base,
        "exponent 0.7": replace(base, zipf=0.7),
        "exponent 1.3": replace(base, zipf=1.3),
        "none like no other": replace(base, unique=0.0),
        "50 % like no other": replace(base, unique=0.5),
        "80 % like no other": replace(base, unique=0.8),
        "2 requests a question": few(2),
        "100 requests a question": few(100),
        "an FAQ: exponent 1.3, 2 % like no other, 100 a question": replace(
            few(100), zipf=1.3, unique=0.02
        ),
        "an assistant: exponent 0.7, 80 % like no other, 2 a question": replace(
            few(2), zipf=0.7, unique=0.8
        ),
    }


def replayed(plan: LogPlan) -> tuple[float, Replay]:
    """(share of repeats, what a log came to)."""
    replay = Replay(SETTINGS, lifetimes=LIFETIMES, tiers=NO_TIERS, generation_ms=2000)
    rules = Rules(
        ring=key_ring("nothing is signed by this, here or elsewhere"),
        profiles=replay.profiles,
        reading=Reading(tenant="bench", model="gpt-4o"),
        prices=PRICES,
        max_body_bytes=1 << 20,
        answer_tokens=250,
    )
    facts, bad = LogFacts(), Bad()
    lines = enumerate(map(line_of, generated(plan)), 1)
    replay.add_all(asked(lines, Keying(rules), facts, bad, interval_ms=1))
    assert not bad.count
    return 1 - replay.places[0].seen / facts.requests, replay


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=50_000)
    requests: Any = parser.parse_args().requests
    print("| log | repeats | 1 h | 1 d | 7 d | 7 d, property |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    for name, plan in variations(requests).items():
        repeats, replay = replayed(plan)
        tallies = [cache.tally for cache in replay.caches]
        cells = (f"{each.hit_rate:.0%} / {each.net_usd / each.usd_without:.0%}" for each in tallies)
        print(f"| {name} | {repeats:.0%} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
