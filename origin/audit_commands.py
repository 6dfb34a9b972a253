"""`encore audit`: the audit log as JSON lines, for people and for a SIEM."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from heapq import merge
from typing import TYPE_CHECKING, Annotated, Any

import typer

from origin.control_commands import NO_REDIS, TIMEOUT_S, CommandError, duration_s
from origin.settings import Settings, load_settings
from origin.stores.control_contract import COMMON_LOG, Record
from shared.keys import check_tenant

if TYPE_CHECKING:
    from origin.stores.control_contract import ControlStore

POLL_S = 1.0


def audit(
    *,
    tenant: Annotated[
        str | None,
        typer.Option(metavar="TENANT", help="Only what it did, and what was done to it."),
    ] = None,
    since: Annotated[
        str | None,
        typer.Option(metavar="24h", help="A number and s, m, h or d; or a time in ISO 8601."),
    ] = None,
    follow: Annotated[
        bool, typer.Option("--follow", help="Go on with what is recorded from now on.")
    ] = False,
) -> None:
    """Print the audit log, one JSON object a line, in the order of time."""
    from origin.embedded_redis import redis_for  # noqa: PLC0415 - quick start
    from origin.stores.contract import StoreError  # noqa: PLC0415

    settings = load_settings()
    if tenant is not None:
        try:
            check_tenant(tenant)
        except ValueError as error:
            raise CommandError(f"--tenant: {error}") from error
    try:
        with redis_for(settings) as url:
            asyncio.run(_print(settings, url, tenant=tenant, since=since, follow=follow))
    except StoreError as error:
        raise CommandError(NO_REDIS) from error
    except BrokenPipeError:  # who read has left
        sys.stderr.close()


async def _print(
    settings: Settings, redis_url: str, *, tenant: str | None, since: str | None, follow: bool
) -> None:
    from origin.stores.redis_control import RedisControlStore  # noqa: PLC0415 - quick start

    url = settings.control_url(redis_url)
    store = RedisControlStore.from_url(url, prefix=settings.key_prefix, timeout_s=TIMEOUT_S)
    try:
        after = "0-0" if since is None else _id_before(since, await store.now_ms())
        async for id_, record in records_of(store, after, follow=follow):
            line = line_of(id_, record)
            if tenant is None or tenant in (line.get("tenant"), line.get("actor_tenant")):
                sys.stdout.write(json.dumps(line, ensure_ascii=False) + "\n")
                sys.stdout.flush()
    finally:
        await store.close()


async def records_of(store: ControlStore, after: str, *, follow: bool) -> AsyncIterator[Record]:
    """The records of all logs after an id, in the order of time. Raises StoreError.

    With `follow` without end, looking for more every `POLL_S`.
    """
    reached: dict[str, str] = {}
    waiting: dict[str, list[Record]] = {}
    while True:
        logs = (COMMON_LOG, *await store.tenants())
        dry = {log: reached.get(log, after) for log in logs if log not in waiting}
        found = await store.records(dry)
        reached |= {log: records[-1][0] for log, records in found.items()}
        waiting |= {log: list(records) for log, records in found.items()}
        if waiting:
            # Beyond the end of one there may be more of it.
            horizon = min(_place(records[-1]) for records in waiting.values())
            due = [
                record
                for record in merge(*waiting.values(), key=_place)
                if _place(record) <= horizon
            ]
            for record in due:
                yield record
            rest = {
                log: [record for record in records if _place(record) > horizon]
                for log, records in waiting.items()
            }
            waiting = {log: records for log, records in rest.items() if records}
        elif follow:
            await asyncio.sleep(POLL_S)
        else:
            return


def line_of(id_: str, record: bytes) -> dict[str, Any]:
    """A record as it is printed: its time (UTC) and id, and what it says."""
    time_ms = int(id_.partition("-")[0])
    time = datetime.fromtimestamp(time_ms / 1000, UTC).isoformat(timespec="milliseconds")
    try:
        said = json.loads(record)
    except ValueError:
        said = {"action": "unreadable"}
    return {"time": time.replace("+00:00", "Z"), "id": id_, **said}


def _place(record: Record) -> tuple[int, ...]:
    return tuple(map(int, record[0].split("-")))


def _id_before(since: str, now_ms: int) -> str:
    """An id before which everything is too old. Raises CommandError."""
    try:
        time = datetime.fromisoformat(since)
    except ValueError:
        ago_s = duration_s("--since", since, else_="; or a time in ISO 8601")
        since_ms = now_ms - ago_s * 1000
    else:
        since_ms = round(time.replace(tzinfo=time.tzinfo or UTC).timestamp() * 1000)
    return f"{max(0, since_ms - 1)}-{2**63}"
