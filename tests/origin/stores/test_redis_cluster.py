"""A Cluster that hangs: its nodes are stopped, not killed."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from origin.stores.contract import StoreError
from origin.stores.redis_store import RedisStore, redis_client
from tests.support.redis_servers import cluster, programs
from tests.support.waiting import until

KEYS = [f"{number:064x}" for number in range(60)]
END_MS = 2**42
PATIENCE_S = 10


async def test_a_client_that_is_closed_while_it_looks_leaves_nothing_open(tmp_path: Path) -> None:
    """Though nobody waits any more for what it sees."""
    with cluster(list(programs().values())[-1], tmp_path) as (url, _):
        client: Any = redis_client(url, timeout_s=PATIENCE_S, max_connections=1)
        asking = asyncio.create_task(client.ping())
        await asyncio.sleep(0)
        look = client._look
        asking.cancel()
        await client.aclose()
        await asyncio.wait([look])
        assert client._initialize


async def test_many_wait_for_a_cluster_that_hangs_no_longer_than_one(tmp_path: Path) -> None:
    """Each that looked for a node in its turn would have the last of them wait for most of a
    minute. When the Cluster goes on, so do they.
    """  # noqa: D205 - one sentence
    with cluster(list(programs().values())[-1], tmp_path) as (url, nodes):
        store = RedisStore.from_url(url)
        for key in KEYS:
            await store.put(key, b"entry", END_MS)
        for node in nodes:
            node.freeze()
        for _ in range(2):
            async with asyncio.timeout(PATIENCE_S):
                found = await asyncio.gather(*map(store.get, KEYS), return_exceptions=True)
            assert {type(one) for one in found} == {StoreError}
        for node in nodes:
            node.thaw()

        async def all_answer() -> bool:
            found = await asyncio.gather(*map(store.get, KEYS), return_exceptions=True)
            return set(found) == {b"entry"}

        await until(all_answer)
        await store.close()
