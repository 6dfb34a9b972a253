"""How much may be under way at once: what is beyond that is refused, it does not wait for ever."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from shared.errors import InternalError

RETRY_AFTER_S = 1


class Places:
    """A number of places. Who finds none is refused: nobody waits for one."""

    def __init__(self, count: int, *, what: str) -> None:
        """`what` are those who take them, for the refusal: `requests`."""
        self._free = count
        self._what = what

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Hold a place within the block. Raises InternalError 503 `overloaded`."""
        if self._free <= 0:
            raise overloaded(f"Too many {self._what} are under way.")
        self._free -= 1
        try:
            yield
        finally:
            self._free += 1


def overloaded(message: str) -> InternalError:
    """What is answered where there is no room: try again soon."""
    return InternalError(message, status=503, code="overloaded", retry_after_s=RETRY_AFTER_S)
