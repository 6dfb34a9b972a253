"""The contract of the control store: one control document per tenant, and what goes with it.

A control store must not know what a document says. It is the one place where changes are put in
order, so it has the one clock that cut-offs are told by. With the documents it keeps what must
survive every origin process: the audit log, what the edge has not been told yet, and what is known
of models.

Invariants
1. A document is there until it is replaced: it never expires.
2. `replace` compares and sets in one step: of concurrent replacements of one revision one is made.
3. What `replace` has confirmed is as durable as the store is (an append-only file, always synced).
4. A tenant is listed before its first document is there: who visits all of them misses none.
5. A replacement is in the audit log, or was not made. Records are kept in the order they came, the
   last `MAX_RECORDS` of each log at least; nothing but that bound ends one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

MAX_RECORDS = 1_000_000
EVERY_TENANT = "*"
"""In the place of a tenant's name: all of them."""
COMMON_LOG = ""
"""The log of what belongs to no tenant, or changed nothing. Every tenant has one of its own, so
that refusals, however many, push no change out."""
Record = tuple[str, bytes]
"""(id, record). An id is `MILLISECONDS-NUMBER`, the time by the store's clock; it only grows."""


class ControlStore(Protocol):
    """Control documents by tenant. Safe to call from many tasks of one event loop.

    Every method raises `origin.stores.contract.StoreError` where the store cannot be asked.
    """

    async def now_ms(self) -> int:
        """The store's own clock: Unix time in milliseconds, later than any cut-off told before."""
        ...

    async def cut_off_ms(self) -> int:
        """The same, but no earlier than any time told before, wherever the clock was set since."""
        ...

    async def revision(self, tenant: str) -> int | None:
        """The revision of the tenant's document, or None where it has none. Changes nothing."""
        ...

    async def load(self, tenant: str) -> bytes | None:
        """The tenant's document, or None where it has none. Changes nothing."""
        ...

    async def replace(
        self,
        tenant: str,
        document: bytes,
        revision: int,
        *,
        expected: int | None,
        record: bytes | None = None,
    ) -> bool:
        """Put `document` in the place of the one of revision `expected` (None: of none).

        In the same step `record` goes to the tenant's log, and all who listen are told
        (`origin.stores.redis_events`). False, with nothing changed, where another is there.
        Repeating a replacement that was made is true again, and records nothing. When this raises,
        the replacement may have been made or not.
        """
        ...

    async def record(self, records: Sequence[bytes]) -> None:
        """Put records into the common log. When this raises, some may be there."""
        ...

    async def records(self, after: Mapping[str, str]) -> Mapping[str, Sequence[Record]]:
        """The next records, at most 1,000 of each log, after an id. Changes nothing.

        Logs are named by tenants and `COMMON_LOG`; those with nothing more are left out.
        """
        ...

    async def owe_edge(self, tenant: str, revision: int) -> None:
        """Keep in mind that the edge is to get this revision of a document, or a later one."""
        ...

    async def edge_has(self, tenant: str, revision: int) -> None:
        """The edge has this revision: only a later one is still owed."""
        ...

    async def owed_to_edge(self) -> Mapping[str, int]:
        """Revisions that the edge is to get, by tenant. Changes nothing."""
        ...

    async def take_turn(self, task: str, holder: str, life_s: float) -> bool:
        """Whether `holder` has the turn at a task, for `life_s` from now; zero gives it back.

        It has it where nobody else does.
        """
        ...

    async def facts(self) -> Mapping[str, str]:
        """All that was kept by `keep_fact`. Changes nothing."""
        ...

    async def keep_fact(self, name: str, value: str) -> None:
        """Keep a fact in the place of the one of that name."""
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
