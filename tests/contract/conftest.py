"""Where each contract is asked: in memory, of each kind of Redis on this machine, of a Cluster."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack

import pytest

from tests.support.redis_servers import KINDS, emptied, redis_server


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], str]]:
    """From a kind of server to its URL; each is started when it is first asked for."""
    urls: dict[str, str] = {}
    with ExitStack() as running:

        def url_of(kind: str) -> str:
            if kind not in urls:
                folder = tmp_path_factory.mktemp(kind)
                urls[kind] = running.enter_context(redis_server(kind, folder))
            return urls[kind]

        yield url_of


@pytest.fixture(scope="session")
def bundled_redis(redis_url: Callable[[str], str]) -> str:
    """The URL of the embedded default."""
    return redis_url("bundled")


@pytest.fixture(params=["memory", *KINDS])
async def server(
    request: pytest.FixtureRequest, redis_url: Callable[[str], str]
) -> AsyncIterator[str | None]:
    """The URL of each server in turn, empty; None where there is to be none."""
    if request.param == "memory":
        yield None
        return
    url = redis_url(request.param)
    async with emptied(url):
        yield url
