"""How cost grows with the entries of a tenant: 10^3 to 10^6 of them in Redis.

The first entry is made by the origin. All others are copies of it under other keys, put by the
store's own `put`, a thousand in a pipeline. The hits are spread evenly over all of them: those have
the keys of requests.
The index of semantic match is filled likewise, with vectors in random directions: what is looked up
is encoded, compared with all of them, and like none.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from dataclasses import replace

import httpx
import numpy as np
from redis.asyncio import Redis

from bench.growth_stack import (
    ADMIN_API_KEY,
    DOCUMENTS,
    KEYS,
    ORIGIN_HIT,
    ORIGIN_MISS,
    Cost,
    Row,
    Server,
    Stack,
    Timer,
    put_documents,
    stacked,
    used_memory,
)
from bench.origin_hit import API_KEY, PATH, body_of
from origin.semantic.encoder import Encoder
from origin.semantic.index import Entry
from origin.semantic.redis_entries import Change, RedisEntries
from origin.stores.redis_store import RedisStore, redis_client
from shared.control_document import canonical_for
from shared.controls import Controls
from shared.envelope import Envelope, decode, encode
from shared.keys import cache_key
from shared.requests import Endpoint

SIZES = (1_000, 10_000, 100_000, 1_000_000)
MOST_MATCHED = 100_000
"""Beyond it the in-process index drops entries; vector sets are measured in `semantic_index`."""
TAG = "growth"
A_PIPELINE = 1000
NEW = 1_000_000_000
"""From here on nothing has been asked."""
PATIENT_S = 30.0


def measure(upstream_url: str, count: int, requests: int, *, matching: bool = True) -> Row:
    """Everything with so many entries. Hits are `requests`, misses a tenth of that.

    Without `matching` nothing is looked up by meaning: the encoder takes seconds to load.
    """
    with stacked(upstream_url) as stack:
        asyncio.run(put_documents(stack.redis_url, DOCUMENTS))
        with stack.origin() as (origin, _):
            _ask_first(origin)
        bytes_before = asyncio.run(used_memory(stack.redis_url))
        asked = [number * count // requests for number in range(requests)]
        began_s = time.monotonic()
        asyncio.run(_fill(stack.redis_url, count, [*asked, count - 1]))
        row = {"filling (s)": time.monotonic() - began_s}
        grown = asyncio.run(used_memory(stack.redis_url)) - bytes_before
        row["Redis (bytes an entry)"] = grown / max(1, count - 1)
        matching = matching and count <= MOST_MATCHED
        matched = _matched(stack, count, requests) if matching else {}
        return row | _served(stack, asked, count) | matched


def key_of(body: bytes) -> str:
    """The cache key of a request of the tenant's."""
    form = canonical_for(
        DOCUMENTS[0], endpoint=Endpoint.CHAT, controls=Controls(), fields=json.loads(body)
    )
    return cache_key(KEYS, form.canonical)


def _ask_first(origin: Server) -> None:
    """Have the origin make the first entry, and wait until it is in Redis."""
    headers = {"authorization": f"Bearer {API_KEY}", "encore-tags": TAG}
    with httpx.Client(base_url=origin.url, headers=headers, timeout=30) as client:
        for _ in range(2):
            client.post(PATH, content=body_of(0)).raise_for_status()


async def _fill(redis_url: str, count: int, asked: Sequence[int]) -> None:
    """Put copies of the first entry, until there are so many."""
    reader = RedisStore.from_url(redis_url, timeout_s=PATIENT_S)
    stored = await reader.get(key_of(body_of(0)))
    await reader.close()
    assert stored is not None
    first = decode(stored)
    keys = {number: key_of(body_of(number)) for number in asked}
    async with Redis.from_url(redis_url) as client:
        for start in range(1, count, A_PIPELINE):
            pipeline = client.pipeline(transaction=False)
            store = RedisStore(pipeline)
            for number in range(start, min(start + A_PIPELINE, count)):
                header = replace(first.header, key=keys.get(number) or f"{number:064x}")
                entry = encode(Envelope(header=header, payload=first.payload))
                await store.put(header.key, entry, header.expires_ms)
            await pipeline.execute()


def _served(stack: Stack, asked: Sequence[int], count: int) -> Row:
    hits, misses = Cost(), Cost()
    with stack.origin() as (origin, ready_s), Timer(origin) as timer:

        async def load() -> None:
            await origin.warm_up(body_of(0), ORIGIN_HIT)
            await origin.load([body_of(number) for number in asked], ORIGIN_HIT, hits)
            new = [body_of(NEW + number) for number in range(max(1, len(asked) // 10))]
            await origin.load(new, ORIGIN_MISS, misses)

        asyncio.run(load())
        row = {
            "origin ready after (s)": ready_s,
            **hits.row("hit"),
            **misses.row("miss and store"),
            "origin, RSS (MB)": origin.rss_mb(),
        }
        timer.call("statistics", "GET", "/cache/stats", api_key=ADMIN_API_KEY)
        timer.dashboard(ADMIN_API_KEY)
        by_tag = {"tags": [TAG]}
        whole = {"everything": True}
        for name, purge in (
            ("dry run of a purge by tag", by_tag | {"dry_run": True}),
            ("purge by tag", by_tag),
            ("purge of the tenant", whole),
        ):
            timer.call(name, "POST", "/cache/purge", api_key=ADMIN_API_KEY, json=purge)
            dead = "dry_run" not in purge
            asyncio.run(origin.load([body_of(count - 1)], ORIGIN_MISS if dead else ORIGIN_HIT))
        return row | timer.row


def _matched(stack: Stack, count: int, requests: int) -> Row:
    """What a lookup by meaning costs: a miss, its answer stored and indexed."""
    misses = Cost()
    asked = iter(range(2 * NEW, 3 * NEW))
    bodies = [body_of(next(asked)) for _ in range(max(1, requests // 10))]
    with stack.origin(ENCORE_SEMANTIC="on") as (origin, _):
        asyncio.run(origin.load([body_of(next(asked))], ORIGIN_MISS))
        origin.until_quiet()
    asyncio.run(_fill_index(stack.redis_url, count))
    with stack.origin(ENCORE_SEMANTIC="on") as (origin, _):
        read_s = origin.until_quiet()
        asyncio.run(origin.load([body_of(next(asked)) for _ in range(20)], ORIGIN_MISS))
        asyncio.run(origin.load(bodies, ORIGIN_MISS, misses))
        return {
            **misses.row("miss with semantic match"),
            "index read after (s)": read_s,
            "origin with the index, RSS (MB)": origin.rss_mb(),
        }


async def _fill_index(redis_url: str, count: int) -> None:
    """Copies of the entry there, as its origin has written it."""
    encoder = Encoder.load(None)
    client = redis_client(redis_url, timeout_s=PATIENT_S, max_connections=2)
    entries = RedisEntries(client, identity=encoder.identity, dims=encoder.dims)
    names = [name async for some in entries.names() for name in some]
    (first,) = await entries.read(names[:1])
    assert first is not None
    random = np.random.default_rng(1)
    for start in range(1, count, A_PIPELINE):
        numbers = range(start, min(start + A_PIPELINE, count))
        vectors = random.standard_normal((len(numbers), encoder.dims)).astype(np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        copies = [
            replace(first, key=f"{number:064x}", form=f"{number:032x}", vector=vector)
            for number, vector in zip(numbers, vectors, strict=True)
        ]
        await entries.write([_change(copy) for copy in copies])
    await entries.close()


def _change(entry: Entry) -> Change:
    return Change(name=(entry.tenant, entry.key), entry=entry)
