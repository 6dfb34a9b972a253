"""A Redis whose replies are no answers: damaged on their way, or another request's.

Every read of every store is given each of them. It fails as an outage does, or it returns what its
contract says; no other error comes of it, and the connection is not used again where a reply could
not be read.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any

import pytest

from origin.semantic.redis_entries import RedisEntries
from origin.stores.contract import StoreError
from origin.stores.job_contract import JobState
from origin.stores.job_contract import Lease as JobLease
from origin.stores.lease_contract import Lease
from origin.stores.redis_control import RedisControlStore
from origin.stores.redis_events import Event, RedisEvents
from origin.stores.redis_facts import RedisFacts, ServerFacts
from origin.stores.redis_jobs import RedisJobStore
from origin.stores.redis_leases import RedisLeases
from origin.stores.redis_sessions import RedisSessionStore
from origin.stores.redis_store import RedisStore, redis_client
from origin.stores.redis_usage import RedisUsageStore
from origin.stores.session_contract import Session
from origin.stores.usage_contract import Kept, Recent

ODD = (
    b"+OK\r\n",
    b":1\r\n",
    b":-7\r\n",
    b"_\r\n",
    b"$-1\r\n",
    b"$0\r\n\r\n",
    b"$3\r\n\xff\xfe\xfd\r\n",
    b'$7\r\n{"a":1}\r\n',
    b",1.5\r\n",
    b"#t\r\n",
    b"*0\r\n",
    b"*1\r\n_\r\n",
    b"*2\r\n:1\r\n$1\r\n\xff\r\n",
    b"*2\r\n$1\r\nx\r\n*1\r\n$1\r\nx\r\n",
    b"*3\r\n$1\r\n1\r\n$1\r\n2\r\n$1\r\n3\r\n",
    b"*4\r\n$1\r\n\xff\r\n$1\r\n2\r\n_\r\n_\r\n",
    b"%1\r\n$1\r\na\r\n:1\r\n",
    b"~1\r\n$1\r\n\xff\r\n",
    b">1\r\n:1\r\n:1\r\n",
    b"-ERR \xff\r\n",
    b"-LOADING\r\n",
    b"?\r\n",
    b"\x00",
    b"$99999999999999999999\r\n",
)
KEY = "a" * 64
TIMEOUT_S = 0.1


class Odd:
    """A server that greets as Redis does, and then says one thing to every command."""

    def __init__(self) -> None:
        self.reply = b""
        self.connections = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        self.connections += 1
        try:
            while head := await reader.readline():
                words = []
                for _ in range(int(head[1:])):
                    size = int((await reader.readline())[1:])
                    words.append((await reader.readexactly(size + 2))[:-2].upper())
                if words[0] == b"HELLO":
                    writer.write(b"%1\r\n$5\r\nproto\r\n:3\r\n")
                elif words[0] == b"CLIENT":
                    writer.write(b"+OK\r\n")
                else:
                    writer.write(self.reply)
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


@pytest.fixture
async def odd() -> AsyncIterator[tuple[Odd, str]]:
    """One, and its URL."""
    server = Odd()
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    yield server, f"redis://127.0.0.1:{port}"
    listening.close()


EVENT = Event(id="1-0", text=b"")
LEASE = Lease(key=KEY, flight="f", token=1, about=b"")
Call = tuple[str, Callable[[Any], Awaitable[object]], Callable[[Any], bool]]


def _is(*kinds: type) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, kinds)


def _never(_value: object) -> bool:
    return False


NONE = type(None)
STORES: dict[str, tuple[Callable[[str], Any], Sequence[Call]]] = {
    "l1": (
        lambda url: RedisStore.from_url(url, timeout_s=TIMEOUT_S),
        [
            ("get", lambda one: one.get(KEY), _is(bytes, NONE)),
            ("get_many", lambda one: one.get_many([KEY]), _is(list)),
            ("put", lambda one: one.put(KEY, b"x", 1), _is(NONE)),
            ("put, fenced", lambda one: one.put(KEY, b"x", 1, token=1), _is(NONE)),
            ("delete", lambda one: one.delete(KEY), _is(NONE)),
            ("grant", lambda one: one.grant(KEY, after=1), _is(bool)),
            ("ping", lambda one: one.ping(), _is(NONE)),
        ],
    ),
    "control": (
        lambda url: RedisControlStore.from_url(url, timeout_s=TIMEOUT_S),
        [
            ("now", lambda one: one.now_ms(), _never),
            ("revision", lambda one: one.revision("acme"), _never),
            ("load", lambda one: one.load("acme"), _never),
            ("replace", lambda one: one.replace("acme", b"x", 2, expected=1), lambda it: not it),
            ("records", lambda one: one.records({"acme": "0-0"}), _is(dict)),
            ("owed", lambda one: one.owed_to_edge(), _is(dict)),
            ("facts", lambda one: one.facts(), _is(dict)),
            ("tenants", lambda one: one.tenants(), _is(frozenset)),
            ("turn", lambda one: one.take_turn("t", "me", 1), _is(bool)),
        ],
    ),
    "leases": (
        lambda url: RedisLeases.from_url(url, timeout_s=TIMEOUT_S),
        [
            ("acquire", lambda one: one.acquire(KEY, "f", b"", insist=False), _is(Lease)),
            ("say", lambda one: one.say(LEASE, 2, b"x"), _is(list, NONE)),
            ("stop", lambda one: one.stop(LEASE), _is(bool)),
            ("follow", lambda one: one.follow(LEASE, "me", b""), _is(float, NONE)),
            ("read", lambda one: one.read(LEASE, 1, wait_s=0.01), _is(list)),
        ],
    ),
    "jobs": (
        lambda url: RedisJobStore.from_url(url, timeout_s=TIMEOUT_S),
        [
            (
                "add",
                lambda one: one.add(
                    "j", tenant="t", sealed=b"", total=1, quiet=False, starts_in_ms=0, life_ms=1
                ),
                _is(JobState, NONE),
            ),
            ("state", lambda one: one.state("j"), _is(JobState, NONE)),
            ("claim", lambda one: one.claim(quiet=False), _is(JobLease, NONE)),
        ],
    ),
    "events": (
        lambda url: RedisEvents.from_url(url, timeout_s=TIMEOUT_S),
        [
            ("take", lambda one: one.take(0.01), _is(list)),
            ("claim", lambda one: one.claim(), _is(list)),
            ("failed", lambda one: one.failed(EVENT, 1), _is(NONE)),
            ("heard", lambda one: one.heard_ms([EVENT]), lambda it: it == {}),
        ],
    ),
    "sessions": (
        lambda url: RedisSessionStore.from_url(url, timeout_s=TIMEOUT_S),
        [
            ("find", lambda one: one.find("n"), _is(Session, NONE)),
            ("failures", lambda one: one.failures("a"), _is(int)),
        ],
    ),
    "usage": (
        lambda url: RedisUsageStore.from_url(url, timeout_s=TIMEOUT_S),
        [
            ("read", lambda one: one.read("t", top=1), _is(Kept)),
            ("recent", lambda one: one.recent("t"), _is(Recent)),
            ("tenants", lambda one: one.tenants(), _is(frozenset)),
        ],
    ),
    "facts": (
        lambda url: RedisFacts.from_url(url, timeout_s=TIMEOUT_S),
        [("read", lambda one: one.read(), _is(ServerFacts, NONE))],
    ),
    "semantic": (
        lambda url: RedisEntries(
            redis_client(url, timeout_s=TIMEOUT_S, max_connections=2), identity="e", dims=4
        ),
        [
            ("position", lambda one: one.position(), _is(str)),
            ("changed", lambda one: one.changed("1-0", 0.01), _is(tuple, NONE)),
            ("read", lambda one: one.read([("t", KEY)]), _is(list)),
        ],
    ),
}


@pytest.mark.parametrize("kind", STORES)
async def test_what_is_no_answer_is_an_outage(odd: tuple[Odd, str], kind: str) -> None:
    """And never another error, nor a value of another kind."""
    server, url = odd
    make, calls = STORES[kind]
    for reply in ODD:
        store = make(url)
        server.reply = reply
        for name, call, is_proper in calls:
            with suppress(StoreError):
                value = await call(store)
                assert is_proper(value), (name, reply, value)
        await store.close()


@pytest.mark.parametrize("reply", [b"*1\r\n:1\r\n", b"?\r\n"])
async def test_connection_that_told_no_answer_is_not_used_again(
    odd: tuple[Odd, str], reply: bytes
) -> None:
    """Whatever it says next may be another request's answer."""
    server, url = odd
    store = RedisStore.from_url(url, timeout_s=5)
    for expected in (1, 2, 3):
        server.reply = reply
        with pytest.raises(StoreError):
            await store.get(KEY)
        assert server.connections == expected
        server.reply = b"$1\r\nx\r\n"
        if expected == 3:
            assert await store.get(KEY) == b"x"
    await store.close()
