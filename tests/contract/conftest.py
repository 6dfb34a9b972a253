"""Where each contract is asked: in memory, of the embedded Redis, of the redis-server on PATH."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from redis.asyncio import Redis

from origin.embedded_redis import embedded_redis

SYSTEM_REDIS = shutil.which("redis-server")  # pytest's header says whether there is one


@pytest.fixture(scope="session")
def bundled_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of the embedded default."""
    with embedded_redis(tmp_path_factory.mktemp("bundled")) as url:
        yield url


@pytest.fixture(scope="session")
def system_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of the server that this machine has installed."""
    assert SYSTEM_REDIS is not None
    with embedded_redis(tmp_path_factory.mktemp("system"), server=Path(SYSTEM_REDIS)) as url:
        yield url


@pytest.fixture(params=["memory", "bundled_redis", *(["system_redis"] if SYSTEM_REDIS else [])])
async def server(request: pytest.FixtureRequest) -> AsyncIterator[str | None]:
    """The URL of each server in turn, empty; None where there is to be none."""
    if request.param == "memory":
        yield None
        return
    url = request.getfixturevalue(request.param)
    async with Redis.from_url(url) as client:
        await client.flushall()
    yield url
