"""The contract of the control store: one control document per tenant, with its revision.

A control store must not know what a document says. It is the one place where changes are put in
order, so it has the one clock that cut-offs are told by.

Invariants
1. A document is there until it is replaced: it never expires.
2. `replace` compares and sets in one step: of concurrent replacements of one revision one is made.
3. What `replace` has confirmed is as durable as the store is (an append-only file, always synced).
4. A tenant is listed before its first document is there: who visits all of them misses none.
"""

from __future__ import annotations

from typing import Protocol


class ControlStore(Protocol):
    """Control documents by tenant. Safe to call from many tasks of one event loop.

    Every method raises `origin.stores.contract.StoreError` where the store cannot be asked.
    """

    async def now_ms(self) -> int:
        """The store's own clock: Unix time in milliseconds. Changes nothing."""
        ...

    async def revision(self, tenant: str) -> int | None:
        """The revision of the tenant's document, or None where it has none. Changes nothing."""
        ...

    async def load(self, tenant: str) -> bytes | None:
        """The tenant's document, or None where it has none. Changes nothing."""
        ...

    async def replace(
        self, tenant: str, document: bytes, revision: int, *, expected: int | None
    ) -> bool:
        """Put `document` in the place of the one of revision `expected` (None: of none).

        False, with nothing changed, where another is there. Repeating a replacement that was made
        is true again. When this raises, the replacement may have been made or not.
        """
        ...

    async def tenants(self) -> frozenset[str]:
        """Every tenant that has, or was about to get, a document. Changes nothing."""
        ...

    async def ping(self) -> None:
        """Ask whether the store answers. Changes nothing."""
        ...

    async def close(self) -> None:
        """Free connections. Closing twice is fine; a closed store is not used again."""
        ...
