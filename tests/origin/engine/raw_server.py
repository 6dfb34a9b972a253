"""A server on loopback that says just these bytes, HTTP or not, and may reset the connection."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing, suppress
from dataclasses import dataclass

_RESET = struct.pack("ii", 1, 0)  # SO_LINGER without waiting: closing sends RST


@dataclass
class RawServer:
    """How often it was asked, and where it is."""

    url: str
    connections: int = 0


@asynccontextmanager
async def raw_server(says: bytes = b"", *, reset: bool = False) -> AsyncIterator[RawServer]:
    """Run it for the length of the block, in this event loop."""
    state = RawServer(url="")

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        state.connections += 1
        with closing(writer), suppress(ConnectionResetError, asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(says)
            await writer.drain()
            if reset:
                connection: socket.socket = writer.get_extra_info("socket")
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        state.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        yield state
