"""What Encore needs of a Redis, looked at when the origin starts.

Only what would make it wrong is refused: an old server, and one that may evict control documents,
whose loss locks every client out. What costs less is a warning. A Redis that cannot be reached now
is one too: the origin starts without it, as it goes on without it later.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import ResponseError

from origin.embedded_redis import OLDEST_VERSION
from origin.settings import Settings, SettingsError
from origin.stores.redis_store import OUTAGES, RedisClient, redis_client

TIMEOUT_S = 2.0
MAX_CLOCK_DIFFERENCE_S = 5.0
FULL = 0.95
"""Of maxmemory, from where on writes are about to fail."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """Something an operator should know, and what to do about it.

    `refused` is what Encore does not start with, `unreachable` a server that nothing is known of.
    """

    text: str
    fix: str = ""
    refused: bool = False
    unreachable: bool = False

    def __str__(self) -> str:
        return f"{self.text}: {self.fix}" if self.fix else self.text


def check_redis_of(settings: Settings) -> list[str]:
    """Warnings about the Redis, or the two, that the settings name; by variable.

    `redis_url` must be set. Raises SettingsError for what is refused.
    """
    found = [
        (variable, finding)
        for variable, (url, keeps_control) in used(settings).items()
        for finding in asyncio.run(check_redis(url, keeps_control=keeps_control))
    ]
    refused = [f"{variable}: Redis {finding}" for variable, finding in found if finding.refused]
    if refused:
        raise SettingsError("\n".join(refused))
    return [f"{variable}: Redis {finding}" for variable, finding in found]


def used(settings: Settings) -> dict[str, tuple[str, bool]]:
    """(URL, whether control documents are kept there) of each Redis that is set, by variable."""
    control, store = settings.control_redis_url, settings.redis_url
    urls = {"REDIS_URL": store, "ENCORE_CONTROL_REDIS_URL": control}
    if store == control or (settings.l1 == "off" and control is not None):
        del urls["REDIS_URL"]  # looked at under its other name, or not used
    return {
        variable: (url.get_secret_value(), control is None or variable != "REDIS_URL")
        for variable, url in urls.items()
        if url is not None
    }


def clock_off(told_s: float, before_s: float, after_s: float) -> str | None:
    """What is wrong with a clock that said `told_s` between two times of ours; None for little."""
    # Only what lies outside of the two is a difference.
    difference_s = told_s - min(max(told_s, before_s), after_s)
    if abs(difference_s) <= MAX_CLOCK_DIFFERENCE_S:
        return None
    where = "ahead of" if difference_s > 0 else "behind"
    return f"has a clock {abs(difference_s):.0f} s {where} this machine's"


async def check_redis(
    url: str, *, keeps_control: bool, clock_s: Callable[[], float] = time.time
) -> list[Finding]:
    """What is to be said about a server, or about any primary of a Cluster. Changes nothing.

    `keeps_control` is whether control documents are kept there; `clock_s` is this machine's clock.
    """
    client = redis_client(url, timeout_s=TIMEOUT_S, max_connections=1)
    found: dict[Finding, None] = {}
    try:
        targets: list[dict[str, Any]] = [{}]
        if not isinstance(client, Redis):
            await client.initialize()
            targets = [{"target_nodes": node} for node in client.get_primaries()]
        for target in targets:
            server = _Server(client, target)
            found |= dict.fromkeys(await _check(server, clock_s, keeps_control=keeps_control))
    except OUTAGES as error:
        text = f"cannot be checked now ({type(error).__name__})"
        found[Finding(text=text, unreachable=True)] = None
    finally:
        await client.aclose()
    return list(found)


@dataclass(frozen=True, slots=True)
class _Server:
    """What is asked of one server; `target` names it where the client is a Cluster's."""

    client: RedisClient
    target: dict[str, Any]

    async def ask(self, method: str, *arguments: str) -> Any:
        """The answer, or None where the command is not permitted."""
        try:
            return await getattr(self.client, method)(*arguments, **self.target)
        except ResponseError:
            return None


async def _check(
    server: _Server, clock_s: Callable[[], float], *, keeps_control: bool
) -> list[Finding]:
    found: list[Finding] = []
    info = await server.ask("info")  # managed servers forbid CONFIG, hardly ever INFO
    if info is None:
        fix = "version, eviction and persistence are unchecked"
        found.append(Finding(text="does not permit INFO", fix=fix))
    else:
        found += _of_version(info)
        found += _of_memory(info)
        if keeps_control:
            found += _of_eviction(info)
            found += await _of_persistence(server, info)
    return found + await _of_clock(server, clock_s)


def _of_version(info: dict[str, Any]) -> list[Finding]:
    said = str(info.get("redis_version", ""))
    parts = said.split(".")[:2]
    if len(parts) < 2 or not all(part.isdigit() for part in parts):
        return [Finding(text=f"does not say its version ({said!r}): unchecked, 6.2 is needed")]
    if tuple(map(int, parts)) >= OLDEST_VERSION:
        return []
    return [Finding(text=f"version {said} is too old", fix="6.2 or newer is needed", refused=True)]


def _of_memory(info: dict[str, Any]) -> list[Finding]:
    """One that is full and evicts nothing refuses every write."""
    limit_bytes, used_bytes = info.get("maxmemory"), info.get("used_memory")
    if not limit_bytes or not used_bytes or info.get("maxmemory_policy") != "noeviction":
        return []
    if used_bytes < FULL * limit_bytes:
        return []
    return [
        Finding(
            text=f"has used {used_bytes / limit_bytes:.0%} of its maxmemory, and noeviction makes "
            "it refuse what comes then",
            fix="raise maxmemory, or run `redis-cli CONFIG SET maxmemory-policy volatile-lru`",
        )
    ]


def _of_eviction(info: dict[str, Any]) -> list[Finding]:
    policy = info.get("maxmemory_policy")
    if policy is None:
        return [
            Finding(
                text="does not say its maxmemory-policy",
                fix="unchecked; it must be volatile-* or noeviction",
            )
        ]
    if not str(policy).startswith("allkeys-"):
        return []
    return [
        Finding(
            text=f"maxmemory-policy {policy} may evict control documents (API keys, purges)",
            fix="run `redis-cli CONFIG SET maxmemory-policy volatile-lru` and keep it in "
            "redis.conf, or keep them elsewhere (ENCORE_CONTROL_REDIS_URL)",
            refused=True,
        )
    ]


async def _of_persistence(server: _Server, info: dict[str, Any]) -> list[Finding]:
    if info.get("aof_enabled") is None:
        return [Finding(text="does not say whether it keeps an append-only file: unchecked")]
    if not info["aof_enabled"]:
        return [
            Finding(
                text="keeps no append-only file",
                fix="after a restart API keys may be gone and tenants locked out; set `appendonly "
                "yes` and `appendfsync always`",
            )
        ]
    answer = await server.ask("config_get", "appendfsync")
    if answer is None:
        return [Finding(text="does not permit CONFIG: appendfsync is unchecked")]
    if answer.get("appendfsync") == "always":
        return []
    return [
        Finding(
            text=f"has appendfsync {answer.get('appendfsync')}",
            fix="a purge acknowledged just before a power cut may be lost; `appendfsync always` "
            "keeps it",
        )
    ]


async def _of_clock(server: _Server, clock_s: Callable[[], float]) -> list[Finding]:
    before_s = clock_s()
    answer = await server.ask("time")
    after_s = clock_s()
    if answer is None:
        return [Finding(text="does not permit TIME, which purges are told by", refused=True)]
    off = clock_off(int(answer[0]) + int(answer[1]) / 1e6, before_s, after_s)
    if off is None:
        return []
    fix = "entries end and purges are told by it; synchronise both (NTP)"
    return [Finding(text=off, fix=fix)]
