"""A TCP proxy on loopback whose connections can be cut, stalled, slowed and damaged, on purpose.

    with tcp_proxy(port_of_redis) as proxy:
        connect_to(proxy.port)
        with proxy.misbehaving(Fault(silent=True)):
            ...

With several targets it spreads connections over those that take them, as a load balancer does.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import socket
import struct
import threading
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from random import Random
from weakref import WeakSet

CHUNK_BYTES = 16_384


@dataclass(frozen=True, kw_only=True)
class Fault:
    """What is wrong with the network between a client and its server."""

    resetting: bool = False
    """Every connection ends with a RST, and so does each new one."""
    silent: bool = False
    """Nothing gets through in either direction; connections stay, and new ones are taken."""
    delay_s: float = 0.0
    """How long each piece takes, in each direction."""
    reset_after_bytes: int | None = None
    """After so many bytes of answers a connection ends with a RST."""
    close_after_bytes: int | None = None
    """After so many bytes of answers a connection ends as if it had been closed in good order."""
    bytes_per_s: float | None = None
    """How many bytes of answers a connection gets through."""
    flips: float = 0.0
    """The share of pieces of answers in which one bit is another."""
    garbles: float = 0.0
    """The share of pieces of answers in which one byte is 0xFF, which no UTF-8 has."""
    flips_requests: float = 0.0
    """The share of pieces of requests in which one bit is another."""


SOUND = Fault()


class TcpProxy:
    """Runs in a thread with an event loop of its own. `fault` may be set from any thread."""

    def __init__(self, *targets: int, port: int = 0) -> None:
        self.aim(*targets)
        self._random = Random(1)  # noqa: S311 - seeded on purpose
        self._listener = socket.create_server(("127.0.0.1", port))
        self.port: int = self._listener.getsockname()[1]
        self.connections = 0
        self._writers = WeakSet[asyncio.StreamWriter]()
        self._fault = SOUND
        self._changed = asyncio.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._run(),))
        self._over = asyncio.Event()
        self._thread.start()

    def aim(self, *targets: int) -> None:
        """Take these ports for the servers' from now on."""
        self._targets, self._turns = targets, itertools.cycle(targets)

    @property
    def url(self) -> str:
        """Where HTTP clients find it."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def fault(self) -> Fault:
        """What is wrong just now."""
        return self._fault

    def misbehave(self, fault: Fault) -> None:
        """Let this be wrong from now on, with connections that are open too."""
        self._fault = fault
        self._loop.call_soon_threadsafe(self._changed.set)

    @contextmanager
    def misbehaving(self, fault: Fault) -> Iterator[None]:
        """Let this be wrong for the length of the block."""
        self.misbehave(fault)
        try:
            yield
        finally:
            self.misbehave(SOUND)

    def close(self) -> None:
        """End every connection."""
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join()
        self._loop.close()

    async def _run(self) -> None:
        server = await asyncio.start_server(self._accept, sock=self._listener)
        await self._over.wait()
        server.close()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for writer in self._writers:
            _reset(writer)
        await asyncio.gather(*(w.wait_closed() for w in self._writers), return_exceptions=True)

    def _accept(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> Coroutine[None, None, None]:
        self.connections += 1
        self._writers.add(writer)  # at once: its task may be cancelled before it begins
        return self._serve(reader, writer)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers = [writer]
        with contextlib.suppress(OSError, asyncio.CancelledError):
            try:
                target = None if self._fault.resetting else await self._connect()
                if target is not None:
                    writers.append(target[1])
                    await self._join((reader, writer), target)
            finally:  # it may have been cancelled while it closed them
                for one in writers:
                    if not one.is_closing():
                        _reset(one)

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        for _ in self._targets:
            with contextlib.suppress(OSError):
                reader, writer = await asyncio.open_connection("127.0.0.1", next(self._turns))
                self._writers.add(writer)
                return reader, writer
        return None

    async def _join(
        self,
        client: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        server: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    ) -> None:
        pumps = [
            asyncio.create_task(self._pump(client[0], server[1], of_answers=False)),
            asyncio.create_task(self._pump(server[0], client[1], of_answers=True)),
        ]
        cut = asyncio.create_task(self._until_resetting())
        try:
            await asyncio.wait([*pumps, cut], return_when=asyncio.FIRST_COMPLETED)
            if pumps[0].done() and not pumps[1].done() and not cut.done():
                # The client has said all; it may still be listening.
                await asyncio.wait([pumps[1], cut], return_when=asyncio.FIRST_COMPLETED)
        finally:
            failed = cut.done() or any(
                pump.done() and not pump.cancelled() and pump.exception() for pump in pumps
            )
            for task in (*pumps, cut):
                task.cancel()
            await asyncio.gather(*pumps, cut, return_exceptions=True)
            for writer in (client[1], server[1]):
                if failed:
                    _reset(writer)
                else:
                    writer.close()

    async def _until_resetting(self) -> None:
        while not self._fault.resetting:
            await self._next_fault()

    async def _until_it_speaks(self) -> None:
        while self._fault.silent:
            await self._next_fault()

    async def _next_fault(self) -> None:
        self._changed.clear()
        await self._changed.wait()

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, of_answers: bool
    ) -> None:
        """Pass pieces on until the end; ConnectionResetError where the fault says so."""
        passed = 0
        while piece := await reader.read(CHUNK_BYTES):
            await self._until_it_speaks()
            fault = self._fault
            if fault.delay_s:
                await asyncio.sleep(fault.delay_s)
            limit = fault.reset_after_bytes
            if limit is None:
                limit = fault.close_after_bytes
            if of_answers and limit is not None and passed + len(piece) > limit:
                writer.write(piece[: max(limit - passed, 0)])
                await writer.drain()
                if fault.reset_after_bytes is not None:
                    raise ConnectionResetError
                return
            passed += len(piece)
            if of_answers and fault.bytes_per_s:
                await asyncio.sleep(len(piece) / fault.bytes_per_s)
            writer.write(self._damaged(piece, fault, of_answers=of_answers))
            await writer.drain()
        await self._until_it_speaks()
        if writer.can_write_eof():
            writer.write_eof()

    def _damaged(self, piece: bytes, fault: Fault, *, of_answers: bool) -> bytes:
        flips = fault.flips if of_answers else fault.flips_requests
        damaged = bytearray(piece)
        at = self._random.randrange(len(piece))
        if self._random.random() < flips:
            damaged[at] ^= 1 << self._random.randrange(8)
        elif of_answers and self._random.random() < fault.garbles:
            damaged[at] = 0xFF
        return bytes(damaged)


@contextmanager
def tcp_proxy(*targets: int, port: int = 0) -> Iterator[TcpProxy]:
    """A running one."""
    proxy = TcpProxy(*targets, port=port)
    try:
        yield proxy
    finally:
        proxy.close()


def _reset(writer: asyncio.StreamWriter) -> None:
    """End a connection with a RST."""
    raw = writer.get_extra_info("socket")
    with contextlib.suppress(OSError):
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
