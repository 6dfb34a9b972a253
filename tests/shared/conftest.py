"""What tests of the core share: every way of cutting bytes into pieces."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture(scope="session")
def cuts() -> Callable[[bytes], Iterator[list[bytes]]]:
    """Yield a byte string whole, byte by byte, in small pieces, and cut once at every place."""
    return _cuts


def _cuts(data: bytes) -> Iterator[list[bytes]]:
    yield [data]
    yield [data[i : i + 1] for i in range(len(data))]
    for size in (2, 3, 7):
        yield [data[i : i + size] for i in range(0, len(data), size)]
    for middle in range(len(data) + 1):
        yield [data[:middle], data[middle:]]
        yield [data[:middle], b"", data[middle:]]
