"""The load generator reads answers as they are framed, however they come in pieces."""

from __future__ import annotations

import asyncio
import itertools
from contextlib import closing, suppress

import pytest

from bench.client import Body, send

OK = b"HTTP/1.1 200 OK\r\nCache-Status: x; hit\r\n"
LENGTH = OK + b"Content-Length: 5\r\n\r\nhello"
CHUNKS = (
    OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n10;a=b\r\n0123456789abcdef\r\n0\r\n\r\n"
)
EMPTY = OK + b"Content-Length: 0\r\n\r\n"


async def answered(answers: list[bytes], pieces: int, connections: int) -> tuple[int, list[str]]:
    """(answers that were right, errors) of one request for each answer, sent in pieces so long."""
    given = iter(answers)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with closing(writer), suppress(ConnectionResetError):
            while await reader.read(4) == b"ask\n":
                answer = next(given)
                for start in range(0, len(answer), pieces):
                    writer.write(answer[start : start + pieces])
                    await writer.drain()
                    await asyncio.sleep(0)
                if b"hang up" in answer:
                    break

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        address = server.sockets[0].getsockname()
        requests = itertools.repeat(b"ask\n", len(answers))
        sent = await send(address, requests, connections, b"; hit")
    return len(sent.latencies_ms), [str(error) for error in sent.errors]


@pytest.mark.parametrize("pieces", [1, 2, 3, 7, 1000])
@pytest.mark.parametrize("connections", [1, 3])
async def test_every_answer_is_read_whole(pieces: int, connections: int) -> None:
    """By its length or by its chunks."""
    answers = [LENGTH, CHUNKS, EMPTY] * 3
    assert await answered(answers, pieces, connections) == (9, [])


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n", "500 No"),
        (b"HTTP/1.1 200 OK\r\nCache-Status: x; fwd=miss\r\nContent-Length: 0\r\n\r\n", "fwd=miss"),
        (OK + b"X: hang up\r\n", "closed"),
        (LENGTH + b"more", "behind the end"),
    ],
)
async def test_answer_that_is_wrong_is_one_error(wrong: bytes, said: str) -> None:
    """The requests after it are sent all the same."""
    right, errors = await answered([LENGTH, wrong, LENGTH, LENGTH], 1000, 1)
    assert right == 3
    assert len(errors) == 1
    assert said in errors[0]


async def test_request_that_nobody_answers_is_an_error() -> None:
    """Each of them, and no more."""
    sent = await send(("127.0.0.1", 1), [b"a", b"b", b"c"], 2, b"")
    assert len(sent.errors) == 3
    with pytest.raises(OSError, match="Connect"):
        sent.checked()


def test_body_of_a_chunk_line_in_two_pieces() -> None:
    """A length is read once its line is whole."""
    body = Body(None)
    pieces = (b"1", b"0\r\n" + b"x" * 16, b"\r\n0\r\n\r\n")
    assert [body.is_whole_after(piece) for piece in pieces] == [False, False, True]
