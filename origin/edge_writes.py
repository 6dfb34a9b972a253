"""Who may write an entry to Workers KV, and which entries the edge has yet to fetch.

The platform takes one write per key and second, and bills each: writes are granted by the store,
which all origin processes share.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from origin.metrics import L1_ERRORS
from origin.stores.contract import GRANT_INTERVAL_S, Store, StoreError
from shared.control_document import ControlDocument
from shared.envelope import Header
from shared.freshness import Dated, is_lasting

MAX_PENDING = 10_000
log = logging.getLogger(__name__)


class Writable(Dated, Protocol):
    """What an entry's header says of this: its times, and whether it may leave the origin."""

    @property
    def origin_only(self) -> bool:
        """Whether it is kept out of KV, whoever comes upon it."""
        ...


def is_for_edge(header: Writable, now_ms: int) -> bool:
    """Whether an entry is fresh, lasts long enough for KV and may lie there."""
    return not header.origin_only and now_ms <= header.fresh_until_ms and is_lasting(header, now_ms)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Pending:
    """An entry that replaced, at `since_ms`, one that the edge may have just written."""

    header: Header
    since_ms: int

    def is_due(self, now_ms: int) -> bool:
        """Whether KV may be written again: the last grant, if any, was no later than `since_ms`.

        A clock that was set back since keeps nothing waiting.
        """
        return not self.since_ms <= now_ms < self.since_ms + GRANT_INTERVAL_S * 1000


class EdgeWrites:
    """One per process. `admit_after` is the number of the edge's requests from which on it writes.

    By `clock_ms` entries age.
    """

    def __init__(self, store: Store, *, admit_after: int, clock_ms: Callable[[], int]) -> None:
        self._store = store
        self.admit_after = admit_after
        self._clock_ms = clock_ms
        self._pending: dict[str, _Pending] = {}

    async def grant(self, document: ControlDocument, header: Header) -> bool:
        """Whether the edge, which gets this entry now, may write it to KV. Counts the request.

        A store that cannot be asked grants nothing.
        """
        if document.policy.residency == "origin-only" or not is_for_edge(header, self._clock_ms()):
            return False
        try:
            granted = await self._store.grant(header.key, after=self.admit_after)
        except StoreError as exc:
            L1_ERRORS.labels("grant").inc()
            log.warning("L1: no grant: %s", exc)
            return False
        pending = self._pending.get(header.key)
        if granted and pending is not None and pending.header.created_ms <= header.created_ms:
            del self._pending[header.key]
        return granted

    def expect(self, document: ControlDocument, header: Header) -> None:
        """Remember an entry for the edge to fetch, unless it is granted a write before."""
        if document.policy.residency == "origin-only" or header.origin_only:
            return
        known = self._pending.get(header.key)
        since_ms = self._clock_ms() if known is None else known.since_ms
        if known is None and len(self._pending) >= MAX_PENDING:
            del self._pending[next(iter(self._pending))]
        self._pending[header.key] = _Pending(header=header, since_ms=since_ms)

    def pending(self, limit: int) -> list[tuple[str, str]]:
        """(tenant, key) of at most `limit` entries that KV should get now, each told once.

        They replaced others at a client's wish (`no-cache`), when KV had been written to just
        before.
        """
        now_ms = self._clock_ms()
        due = [key for key, pending in self._pending.items() if pending.is_due(now_ms)]
        return [(self._pending.pop(key).header.tenant, key) for key in due[: max(0, limit)]]
