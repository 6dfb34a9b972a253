"""The in-process index while Redis is down: it goes on, and agrees again by itself."""

from __future__ import annotations

import asyncio
from pathlib import Path

from origin.metrics import SEMANTIC_INDEX_WRITES
from origin.semantic.local_index import LocalIndex
from tests.support.instruments import value_of
from tests.support.redis_servers import durable_server, programs
from tests.support.semantic import DIMS, NOW_MS, an_entry, basis, entries_client
from tests.support.waiting import until

NOWHERE = "redis://127.0.0.1:1"


def dropped() -> float:
    """How many writes were."""
    return value_of(SEMANTIC_INDEX_WRITES.labels("dropped"))


async def test_without_redis_memory_answers() -> None:
    """Nothing is raised; what is not written in time is counted."""
    before = dropped()
    index = LocalIndex(
        identity="m1", dims=DIMS, entries=entries_client(NOWHERE), patience_s=0.05, max_waiting=2
    )
    await index.start()
    for number in range(4):
        await index.add(an_entry(number), now_ms=NOW_MS)
    await index.remove("acme", ["k1"])
    found = await index.search("acme", "p", basis(2), count=9, now_ms=NOW_MS)
    assert found[0].key == "k2"
    assert len(found) == 3
    await index.clear("other")

    async def all_are_dropped() -> bool:
        return dropped() == before + 6

    await until(all_are_dropped)
    await index.close()
    assert await index.count() == 3


async def test_closing_does_not_wait_for_ever() -> None:
    """Writes that never succeed are given up."""
    index = LocalIndex(identity="m1", dims=DIMS, entries=entries_client(NOWHERE), patience_s=0.05)
    await index.start()
    await index.add(an_entry(1), now_ms=NOW_MS)
    async with asyncio.timeout(10):
        await index.close()


async def test_a_redis_that_comes_back_gets_what_waited(tmp_path: Path) -> None:
    """And processes agree again, on what was there before, too."""
    with durable_server(programs()["bundled"], tmp_path) as server:
        here, there = (
            LocalIndex(identity="m1", dims=DIMS, entries=entries_client(server.url), patience_s=60)
            for _ in range(2)
        )
        await here.start()
        await there.start()
        await here.add(an_entry(1), now_ms=NOW_MS)

        async def has(number: int) -> bool:
            return await there.find("acme", "p", f"f{number}", now_ms=NOW_MS) is not None

        await until(lambda: has(1))
        server.kill()
        await here.add(an_entry(2), now_ms=NOW_MS)
        await here.remove("acme", ["k1"])
        assert await has(1)
        server.start()
        await until(lambda: has(2))

        async def is_gone() -> bool:
            return not await has(1)

        await until(is_gone)
        assert await here.count() == 1
        await here.close()
        await there.close()
