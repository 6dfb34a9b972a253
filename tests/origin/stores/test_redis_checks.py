"""What is said of a Redis when the origin starts: each on a real server that is set so."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from origin.embedded_redis import embedded_redis
from origin.settings import Settings, SettingsError
from origin.stores.redis_checks import (
    _of_eviction,
    _of_persistence,
    _of_version,
    check_redis,
    check_redis_of,
    used,
)
from tests.support.redis_servers import redis_server

SECRET = "s" * 32
NOWHERE = "redis://127.0.0.1:1"


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server as the embedded one is set."""
    with embedded_redis(tmp_path_factory.mktemp("checked")) as running:
        yield running


@pytest.fixture
def server(url: str) -> Iterator[Redis]:
    """A client of it, for a test to set it otherwise; what it set is undone."""
    with Redis.from_url(url, decode_responses=True) as client:
        before = client.config_get("maxmemory-policy") | client.config_get("append*")
        before = {name: before[name] for name in ("maxmemory-policy", "appendonly", "appendfsync")}
        yield client
        for name, value in before.items():
            client.config_set(name, value)


def texts(url: str, *, keeps_control: bool = True, clock_ahead_s: float = 0) -> list[str]:
    """What is said, with a mark on what is refused."""
    found = asyncio.run(
        check_redis(url, keeps_control=keeps_control, clock_s=lambda: time.time() + clock_ahead_s)
    )
    return [("refused: " if finding.refused else "") + str(finding) for finding in found]


@pytest.mark.usefixtures("server")
def test_the_embedded_server_is_as_it_should_be(url: str) -> None:
    """Nothing is said of it."""
    assert texts(url) == []


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("maxmemory-policy", "allkeys-lru", "refused: maxmemory-policy allkeys-lru may evict"),
        ("maxmemory-policy", "allkeys-random", "refused: maxmemory-policy allkeys-random may"),
        ("appendonly", "no", "keeps no append-only file"),
        ("appendfsync", "everysec", "has appendfsync everysec"),
    ],
)
def test_what_endangers_control_data_is_said(
    server: Redis, url: str, name: str, value: str, said: str
) -> None:
    """Of a server that keeps control data; where it keeps entries alone they may vanish."""
    server.config_set(name, value)
    (text,) = texts(url)
    assert text.startswith(said)
    assert texts(url, keeps_control=False) == []


def test_a_full_server_is_said(server: Redis, url: str) -> None:
    """It refuses what comes next."""
    server.config_set("maxmemory-policy", "noeviction")
    server.config_set("maxmemory", int(server.info("memory")["used_memory"]))
    try:
        (text,) = texts(url)
    finally:
        server.config_set("maxmemory", 0)
    assert "of its maxmemory" in text


async def test_a_server_that_says_nothing_is_said_to() -> None:
    """Some managed ones leave fields out of INFO."""
    assert "does not say" in str(*_of_eviction({}))
    server: Any = None  # not asked
    assert "does not say" in str(*await _of_persistence(server, {}))


def test_one_redis_for_both_is_looked_at_once() -> None:
    """Under the name of what is worth more; that of a tier that is off not at all."""
    both = Settings(secret=SECRET, redis_url=NOWHERE, control_redis_url=NOWHERE)
    other = both.replace(redis_url=NOWHERE + "/1", l1="off")
    for settings in (both, other):
        assert used(settings) == {"ENCORE_CONTROL_REDIS_URL": (NOWHERE, True)}


@pytest.mark.parametrize("policy", ["noeviction", "volatile-lru", "volatile-ttl"])
def test_policies_that_spare_what_has_no_end_are_fine(server: Redis, url: str, policy: str) -> None:
    """Control documents have none."""
    server.config_set("maxmemory-policy", policy)
    assert texts(url) == []


@pytest.mark.parametrize(
    ("ahead_s", "said"),
    [(0, []), (3, []), (-3, []), (60, ["60 s behind"]), (-60, ["60 s ahead of"])],
)
def test_a_clock_that_differs_is_said_with_its_difference(
    url: str, ahead_s: float, said: list[str]
) -> None:
    """From this machine's, by more than seconds."""
    found = texts(url, clock_ahead_s=ahead_s)
    assert len(found) == len(said)
    assert all(part in text for part, text in zip(said, found, strict=True))


@pytest.mark.parametrize(
    ("version", "said"),
    [
        ("6.2.0", []),
        ("7.0.15", []),
        ("8.0.2", []),
        ("10.0.0", []),
        ("6.0.16", ["refused"]),
        ("5.0.14", ["refused"]),
        ("", ["said"]),
        ("unknown", ["said"]),
        (None, ["said"]),
    ],
)
def test_a_server_without_pxat_is_refused(version: str | None, said: list[str]) -> None:
    """6.2 brought it; a version that nobody tells is only mentioned."""
    found = _of_version({} if version is None else {"redis_version": version})
    assert ["refused" if finding.refused else "said" for finding in found] == said


@pytest.mark.parametrize(
    ("forbidden", "said"),
    [
        (["-config"], ["does not permit CONFIG: appendfsync is unchecked"]),
        (["-info"], ["does not permit INFO: version, eviction and persistence are unchecked"]),
        (["-time"], ["refused: does not permit TIME, which purges are told by"]),
    ],
)
def test_what_may_not_be_asked_is_said(
    server: Redis, url: str, forbidden: list[str], said: list[str]
) -> None:
    """Managed servers forbid some commands."""
    allowed = ["+@all", *forbidden]
    server.acl_setuser(
        "limited", enabled=True, reset=True, passwords=["+pw"], keys=["*"], commands=allowed
    )
    assert texts(url.replace("unix://", "unix://limited:pw@")) == said


def test_a_server_that_is_away_stops_nobody() -> None:
    """The origin starts without it, as it goes on without it."""
    assert texts(NOWHERE) == ["cannot be checked now (ConnectionError)"]
    assert texts(NOWHERE.replace("redis:", "redis+cluster:"))[0].startswith("cannot be checked now")


def test_every_primary_of_a_cluster_is_looked_at(tmp_path: Path) -> None:
    """What is true of several is said once."""
    with redis_server("cluster", tmp_path) as cluster:
        (text,) = texts(cluster)
        assert text.startswith("keeps no append-only file")
        port = int(cluster.rpartition(":")[2])
        with Redis(port=port) as node:
            node.config_set("maxmemory-policy", "allkeys-lru")
        assert any(text.startswith("refused: maxmemory-policy") for text in texts(cluster))


def test_a_refusal_names_the_variable_and_the_fix(server: Redis, url: str) -> None:
    """Where control data has a Redis of its own, that of L1 may evict as it likes."""
    server.config_set("maxmemory-policy", "allkeys-lru")
    settings = Settings(secret=SECRET, redis_url=url)
    with pytest.raises(SettingsError, match=r"^REDIS_URL: Redis maxmemory-policy .*CONFIG SET"):
        check_redis_of(settings)
    with pytest.raises(SettingsError, match=r"^ENCORE_CONTROL_REDIS_URL: Redis maxmemory"):
        check_redis_of(settings.replace(redis_url=NOWHERE, control_redis_url=url))
    assert check_redis_of(settings.replace(control_redis_url=NOWHERE)) == [
        "ENCORE_CONTROL_REDIS_URL: Redis cannot be checked now (ConnectionError)"
    ]
