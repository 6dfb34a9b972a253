"""The contract of a store: envelopes by cache key, each with an absolute end.

A store must not know what an envelope says, who asks, or what time a reader thinks it is. Keys are
`shared.keys.cache_key`'s 64 hexadecimal characters.

Invariants
1. An entry ends at `expires_at_ms`, by the store's own clock, whatever is done to it meanwhile:
   nothing restarts or extends it but a `put` with a later end.
2. `get` returns exactly the bytes of the last `put`, or None. It never guesses.
3. An outage is never a miss: what cannot be asked raises StoreError.
4. Entries may vanish at any time (eviction, a lost server). They never come back.

Beside each entry the store keeps count of who asked for it and when the edge was last allowed to
write it to KV, for the platform takes one write per key and second, and bills each.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from typing import Protocol

ASKED_LIFE_S = 86_400
"""How long requests for a key are counted, from the first one."""
GRANT_INTERVAL_S = 60
"""How long after a grant there is none for the same key."""


class StoreError(Exception):
    """The store could not be asked, or refused: unreachable, too slow, out of memory."""


class Store(Protocol):
    """Envelopes by key. Safe to call from many tasks of one event loop."""

    async def get(self, key: str) -> bytes | None:
        """Return the envelope under `key`, or None. Changes nothing. Raises StoreError."""
        ...

    async def get_many(self, keys: Sequence[str]) -> list[bytes | None]:
        """Return what is under each of `keys`, as `get` does, in one round trip a node.

        Changes nothing. Raises StoreError where any of them cannot be asked for.
        """
        ...

    async def put(
        self,
        key: str,
        envelope: bytes,
        expires_at_ms: int,
        *,
        only_new: bool = False,
        token: int | None = None,
        over: bytes | None = None,
    ) -> None:
        """Replace what is under `key`; it ends at `expires_at_ms` (Unix time, milliseconds).

        With `only_new` what is there already stays instead; so it does where a lease of the key
        has been given with a larger token than `token` (`origin.stores.lease_contract`), and where
        what is there does not begin with `over`: an envelope's head names all of it. An end that
        is past or zero leaves nothing under `key`. Of concurrent puts one wins, whole. Raises
        StoreError; the old envelope, the new one or none is there then.
        """
        ...

    async def delete(self, key: str) -> None:
        """Leave nothing under `key`; nothing there is fine. Raises StoreError."""
        ...

    async def grant(self, key: str, *, after: int) -> bool:
        """Count a request for `key`, and say whether its entry may be written to KV by who made it.

        It may be from the `after`th request on, once in `GRANT_INTERVAL_S`. Of concurrent calls,
        from whatever process, one is granted. Raises StoreError; it may have counted then.
        """
        ...

    def openings(self, length: int) -> AsyncGenerator[Sequence[tuple[bytes, int]], None]:
        """Every envelope's first `length` bytes and its whole size in bytes, some at a time.

        One that is there from the first to the last is told of, perhaps more than once; of one that
        comes or goes meanwhile nothing is said. Changes nothing. Raises StoreError.
        """
        ...

    async def ping(self) -> None:
        """Ask whether the store answers. Changes nothing. Raises StoreError."""
        ...

    async def close(self) -> None:
        """Free connections. Closing twice is fine; a closed store is not used again."""
        ...
