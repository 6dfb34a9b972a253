"""How cost grows with the body: answers, and separately requests, of 1 kB to 1 MB.

Answers are noise in base64, so that an entry is about as large as its answer. The sizes are taken
in turn, in several rounds.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field

from bench.growth_stack import (
    DOCUMENTS,
    EDGE_HIT,
    ORIGIN_HIT,
    ORIGIN_MISS,
    Cost,
    Row,
    Server,
    put_documents,
    sized,
    stacked,
)

SIZES = (1_000, 10_000, 100_000, 1_000_000)
ROUNDS = 3


@dataclass(kw_only=True)
class _Kind:
    """One column: answers or requests of one size. Of each there is one entry, and misses."""

    answer: int = 1000
    prompt: int = 0
    hit: Cost = field(default_factory=Cost)
    miss: Cost = field(default_factory=Cost)
    edge: Cost = field(default_factory=Cost)

    def body(self, number: int = 0) -> bytes:
        return sized(number, answer=self.answer, prompt=self.prompt)

    def row(self) -> Row:
        return {
            **self.hit.row("hit at the origin"),
            **self.edge.row("hit at the edge"),
            **self.miss.row("miss"),
        }


def measure(upstream_url: str, sizes: Sequence[int], requests: int) -> tuple[list[Row], list[Row]]:
    """(answers, requests), of each size. Hits are `requests`, misses a tenth of that."""
    answers = [_Kind(answer=size) for size in sizes]
    prompts = [_Kind(prompt=size) for size in sizes]
    with stacked(upstream_url) as stack:
        asyncio.run(put_documents(stack.redis_url, DOCUMENTS))
        with stack.origin() as (origin, _):
            edge = stack.edge(origin, DOCUMENTS)
            asyncio.run(_load(origin, edge, [*answers, *prompts], max(1, requests // ROUNDS)))
    return [kind.row() for kind in answers], [kind.row() for kind in prompts]


async def _load(origin: Server, edge: Server, kinds: Sequence[_Kind], requests: int) -> None:
    numbers = itertools.count(1)
    for kind in kinds:
        await edge.warm_up(kind.body(), EDGE_HIT)
        await origin.warm_up(kind.body(), ORIGIN_HIT)
    for _ in range(ROUNDS):
        for kind in kinds:
            await origin.load([kind.body()] * requests, ORIGIN_HIT, kind.hit)
            await edge.load([kind.body()] * requests, EDGE_HIT, kind.edge)
            new = [kind.body(next(numbers)) for _ in range(max(1, requests // 10))]
            await origin.load(new, ORIGIN_MISS, kind.miss)
