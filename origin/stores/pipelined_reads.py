"""Reads of many tasks on one Redis connection, sent together and answered in order.

Redis answers the commands of a connection in the order they came (pipelining), so a read needs no
connection of its own: borrowing one from a pool, and giving it back, costs five times the read.
What is asked within one turn of the event loop goes out in one write.

Invariants
1. A reply goes to the read that asked for it, or to nobody: reads and replies are paired by order
   alone, so a connection on which anything went wrong is closed, and what waits on it fails.
2. Who stops waiting disturbs nobody: its reply is dropped when it comes.
3. A server that does not answer within `timeout_s` fails every read that waits for it.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable
from typing import Any

from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import InvalidResponse, RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from origin.tasks import end


class PipelinedReads:
    """Reads by many tasks of one event loop. Connects when it is first asked.

    `make_connection` makes one that is not connected yet, with the timeouts, credentials and
    database to use.
    """

    def __init__(
        self, make_connection: Callable[[], AbstractConnection], *, timeout_s: float
    ) -> None:
        self._make_connection = make_connection
        self._timeout_s = timeout_s
        self._line: _Line | None = None
        self._connecting: asyncio.Task[_Line] | None = None

    async def get(self, name: str) -> bytes | None:
        """The value under `name`, or None. Raises RedisError, OSError.

        Asks a second time where the connection broke: it may have died while nobody used it.
        """
        return await self._ask(_command("GET", name))

    async def evalsha(self, digest: str, key: str, argument: str) -> bytes | None:
        """What a script says that reads one key. As `get`; NoScriptError where it is not there."""
        return await self._ask(_command("EVALSHA", digest, "1", key, argument))

    async def close(self) -> None:
        """Close the connection; what waits fails. Closing twice is fine."""
        if self._connecting is not None:
            await end([self._connecting])
        line, self._line = self._line, None
        if line is not None:
            await line.close()

    async def _ask(self, command: bytes) -> bytes | None:
        try:
            return await self._ask_once(command)
        except RedisConnectionError:
            return await self._ask_once(command)

    async def _ask_once(self, command: bytes) -> bytes | None:
        line = self._line
        if line is None or not line.usable:
            line = await self._connected()
        return await line.ask(command)

    async def _connected(self) -> _Line:
        """A new connection; all who need one wait for the same."""
        if self._connecting is None or self._connecting.done():
            self._connecting = asyncio.create_task(self._connect())
        # Who leaves must not end it for the others.
        return await asyncio.shield(self._connecting)

    async def _connect(self) -> _Line:
        connection = self._make_connection()
        await connection.connect()  # type: ignore[no-untyped-call]
        # From here on each read has its own timeout, and the task that reads waits for ever.
        connection.socket_timeout = None
        self._line = _Line(connection, timeout_s=self._timeout_s)
        return self._line


class _Line:
    """One connection, from when it is connected until it breaks."""

    def __init__(self, connection: AbstractConnection, *, timeout_s: float) -> None:
        self._connection = connection
        self._timeout_s = timeout_s
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[asyncio.Future[Any]] = deque()
        self._unsent: list[bytes] = []
        self._sender: asyncio.Task[None] | None = None
        self.usable = True
        self._reader = asyncio.create_task(self._read())

    async def ask(self, command: bytes) -> bytes | None:
        reply: asyncio.Future[bytes | None] = self._loop.create_future()
        timer = self._loop.call_later(self._timeout_s, self._expire, reply)
        self._waiting.append(reply)
        self._unsent.append(command)
        if self._sender is None:
            self._sender = asyncio.create_task(self._send())
        try:
            return await reply
        finally:
            timer.cancel()

    async def close(self) -> None:
        self._reader.cancel()
        await asyncio.gather(self._reader, return_exceptions=True)
        await self._connection.disconnect(nowait=True)  # where the reader had not begun

    async def _send(self) -> None:
        """Send what is asked for meanwhile. A connection that takes it not is broken."""
        try:
            # What redis-py sends on a connection that was closed it connects anew, for nobody.
            while self._unsent and self.usable:
                commands, self._unsent = b"".join(self._unsent), []
                await self._connection.send_packed_command(commands, check_health=False)
        except (RedisError, OSError, RuntimeError):  # uvloop's for a transport that is closed
            self.usable = False
            self._reader.cancel()
        finally:
            self._sender = None

    async def _read(self) -> None:
        """Hand out replies until the connection breaks."""
        error: BaseException = RedisConnectionError("closed")
        try:
            while True:
                try:
                    reply = await self._connection.read_response(
                        disable_decoding=True, timeout=math.inf
                    )
                except ResponseError as refusal:
                    self._hand_out(error=refusal)
                else:
                    if not (reply is None or isinstance(reply, bytes)):
                        raise InvalidResponse(type(reply).__name__)
                    self._hand_out(reply)
        except Exception as exc:  # noqa: BLE001 - replies that redis-py did not foresee fail alike
            error = exc if isinstance(exc, RedisError | OSError) else InvalidResponse(repr(exc))
        finally:
            self.usable = False
            while self._waiting:
                self._hand_out(error=error)
            await self._connection.disconnect(nowait=True)

    def _hand_out(self, reply: Any = None, *, error: BaseException | None = None) -> None:
        waiting = self._waiting.popleft()
        if waiting.done():  # who asked has left
            return
        if error is None:
            waiting.set_result(reply)
        else:
            waiting.set_exception(error)

    def _expire(self, reply: asyncio.Future[Any]) -> None:
        if not reply.done():
            reply.set_exception(RedisTimeoutError("no reply"))
        self.usable = False
        self._reader.cancel()


def _command(*words: str) -> bytes:
    """As Redis reads it (RESP)."""
    parts = [b"*%d\r\n" % len(words)]
    parts += [b"$%d\r\n%b\r\n" % (len(word), word) for word in map(str.encode, words)]
    return b"".join(parts)
