"""Control documents at the origin: read often, changed seldom, one writer at a time.

Invariants
1. A document is used for `MEMO_S` after it was known to rule, then looked at again; so `MEMO_S`
   after a change is durable every origin process goes by it. Only then is it acknowledged.
2. While the store cannot be asked, the document last known is used on; without one the tenant gets
   a 503. An outage is never "no such tenant", and no change is acknowledged in it.
3. A document that cannot be read is refused, and never overwritten.
4. What the store has lost stays dead: a new document cuts off everything before it, and one that
   turns out to be older than what this process knows is replaced likewise.
5. No document is handed out before its `longest_life_ms` covers the entries this process makes.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Self

from origin.edge_push import EdgePush
from origin.metrics import CONTROL_ERRORS
from origin.settings import Settings
from origin.stores.contract import StoreError
from origin.stores.control_contract import ControlStore
from shared.control_document import (
    ControlDocument,
    ControlError,
    Purge,
    decode,
    encode,
    new_document,
    purged,
    revised,
)
from shared.errors import ClientError, EncoreError, InternalError
from shared.keys import DEVELOPMENT_TENANT, KeyRings, tag_digest

MEMO_S = 0.25
MAX_ATTEMPTS = 100
"""How often a change is tried anew because another one came between. One of all wins each time."""
log = logging.getLogger(__name__)

Change = Callable[[ControlDocument, int], ControlDocument]
"""From a document and the store's time (ms) to the next document. May be called repeatedly."""

EdgeState = Literal["acknowledged", "pending", "not configured"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Changed:
    """A change that is durable, at `at_ms` of the store's clock, and what the edge knows of it."""

    document: ControlDocument
    at_ms: int
    edge: EdgeState


@dataclass(frozen=True, kw_only=True, slots=True)
class _Memo:
    document: ControlDocument
    known_s: float
    """When it was asked for, by `clock_s`: it ruled then, or later."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Look:
    began_s: float
    task: asyncio.Task[ControlDocument | None]


class Control:
    """One per process. Safe to call from many tasks of one event loop; owns store and push.

    `longest_life_ms` is the longest life of the entries that this process makes. With `development`
    the tenant of the development key gets its document on demand.
    """

    def __init__(
        self,
        store: ControlStore,
        *,
        longest_life_ms: int,
        development: bool = False,
        push: EdgePush | None = None,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._longest_life_ms = longest_life_ms
        self._development = development
        self._push = push
        self._clock_s = clock_s
        self._memos: dict[str, _Memo] = {}
        self._looks: dict[str, _Look] = {}
        self._tasks: set[asyncio.Task[ControlDocument | None]] = set()
        self._outage = False

    @classmethod
    def from_settings(cls, settings: Settings, store: ControlStore) -> Self:
        """Control over `store` as the settings want it."""
        stale_s = max(settings.stale_while_revalidate_s, settings.stale_if_error_s)
        return cls(
            store,
            longest_life_ms=(settings.max_ttl_s + stale_s) * 1000,
            development=settings.development,
            push=None if settings.edge_url is None else EdgePush(settings.edge_url, settings.keys),
        )

    async def now_ms(self) -> int:
        """The clock that cut-offs are told by: Unix time in milliseconds. Raises StoreError."""
        return await self._store.now_ms()

    async def document(self, tenant: str) -> ControlDocument | None:
        """The document that rules, or None for a tenant without one.

        Raises InternalError 503: `control_unavailable`, `control_unreadable`.
        """
        now_s = self._clock_s()
        memo = self._memos.get(tenant)
        if memo is not None and now_s - memo.known_s < MEMO_S:
            return memo.document
        look = self._looks.get(tenant)
        if look is None or now_s - look.began_s >= MEMO_S:
            look = _Look(began_s=now_s, task=asyncio.create_task(self._look(tenant, now_s)))
            self._looks[tenant] = look
            self._tasks.add(look.task)
            look.task.add_done_callback(lambda task: self._looked(tenant, task))
        # Others wait for the same look: one who leaves must not end it.
        return await asyncio.shield(look.task)

    async def change(self, tenant: str, change: Change, *, create: bool = False) -> Changed:
        """Change a document; returns once it holds at every origin process.

        With `create` a tenant without a document gets one first. Raises ClientError 404
        `no_tenant`, what `change` raises, and InternalError 503 where nothing is acknowledged.
        """
        document, at_ms = await self._commit(tenant, change, create=create)
        await asyncio.sleep(MEMO_S)
        return Changed(document=document, at_ms=at_ms, edge=await self._tell(document))

    async def purge(self, tenant: str, purge: Purge) -> Changed:
        """Purge; see `change`."""
        return await self.change(tenant, lambda document, at_ms: purged(document, purge, at_ms))

    async def purge_everything(self) -> Sequence[Changed]:
        """Purge everything of every tenant; see `change`.

        One tenant's failure leaves out no other; the first is raised once the rest hold.
        """
        everything = Purge(everything=True)
        made: list[tuple[ControlDocument, int]] = []
        failures: list[EncoreError] = []
        for tenant in sorted(await self._tenants()):
            try:
                made.append(
                    await self._commit(
                        tenant, lambda document, at_ms: purged(document, everything, at_ms)
                    )
                )
            except EncoreError as error:
                # One that is listed and has no document (any more) has nothing to serve.
                if error.code != "no_tenant":
                    failures.append(error)
        await asyncio.sleep(MEMO_S)
        edges = await asyncio.gather(*(self._tell(document) for document, _ in made))
        if failures:
            raise failures[0]
        return [
            Changed(document=document, at_ms=at_ms, edge=edge)
            for (document, at_ms), edge in zip(made, edges, strict=True)
        ]

    async def close(self) -> None:
        """Stop what is under way, give up what the edge did not take, close the store."""
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._push is not None:
            await self._push.close()
        await self._store.close()

    async def _tenants(self) -> frozenset[str]:
        try:
            return await self._store.tenants()
        except StoreError as exc:
            raise _unavailable() from exc

    async def _look(self, tenant: str, now_s: float) -> ControlDocument | None:
        """Ask the store, and remember what it says."""
        memo = self._memos.get(tenant)
        try:
            revision = await self._store.revision(tenant)
            if memo is not None and revision == memo.document.revision:
                text = None
            else:
                text = await self._store.load(tenant)
        except StoreError as exc:
            if not self._outage:
                log.warning("control documents: %s; those last known are used on", exc)
            self._outage = True
            CONTROL_ERRORS.inc()
            if memo is None:
                raise _unavailable() from exc
            return self._remember(memo.document, self._clock_s())
        self._outage = False
        if memo is not None and revision == memo.document.revision:
            return self._remember(memo.document, now_s)
        if text is None:
            self._memos.pop(tenant, None)
            if self._development and tenant == DEVELOPMENT_TENANT:
                return (await self.change(tenant, revised, create=True)).document
            return None
        document = _decoded(text, tenant)
        if memo is not None and document.revision < memo.document.revision:
            log.error("control document of %s: the store has lost a later one", tenant)
            document, _ = await self._commit(tenant, _put_back(memo.document))
        elif document.longest_life_ms < self._longest_life_ms:
            document, _ = await self._commit(tenant, revised)
        return self._remember(document, now_s)

    def _looked(self, tenant: str, task: asyncio.Task[ControlDocument | None]) -> None:
        self._tasks.discard(task)
        look = self._looks.get(tenant)
        if look is not None and look.task is task:
            del self._looks[tenant]
        if not task.cancelled():
            task.exception()  # told to those who waited, if any did

    async def _commit(
        self, tenant: str, change: Change, *, create: bool = False
    ) -> tuple[ControlDocument, int]:
        """(the document, the store's time of the change), durable. See `change`."""
        try:
            for _ in range(MAX_ATTEMPTS):
                text = await self._store.load(tenant)
                at_ms = await self._store.now_ms()
                known_s = self._clock_s()
                if text is not None:
                    before = _decoded(text, tenant)
                    expected = before.revision
                elif create:
                    before, expected = new_document(tenant, at_ms), None
                else:
                    raise ClientError(
                        f"There is no tenant {tenant!r} here.",
                        status=404,
                        param="tenant",
                        code="no_tenant",
                    )
                document = change(before, at_ms)
                if document.longest_life_ms < self._longest_life_ms:
                    document = replace(document, longest_life_ms=self._longest_life_ms)
                if await self._store.replace(
                    tenant, encode(document), document.revision, expected=expected
                ):
                    return self._remember(document, known_s), at_ms
        except StoreError as exc:
            raise _unavailable() from exc
        raise _unavailable()

    def _remember(self, document: ControlDocument, known_s: float) -> ControlDocument:
        """The document that rules from now on: a slow look does not undo a later change."""
        memo = self._memos.get(document.tenant)
        if memo is not None and memo.document.revision > document.revision:
            return memo.document
        self._memos[document.tenant] = _Memo(document=document, known_s=known_s)
        return document

    async def _tell(self, document: ControlDocument) -> EdgeState:
        if self._push is None:
            return "not configured"
        return "acknowledged" if await self._push.push(document) else "pending"


def purge_of(
    rings: KeyRings,
    tenant: str,
    *,
    everything: bool = False,
    older_than_s: int = 0,
    models: Iterable[str] = (),
    tags: Iterable[str] = (),
    keys: Iterable[str] = (),
) -> Purge:
    """A purge of what is named, tags by their names. Raises ControlError.

    Entries made before a rotation hold the digests of the previous secret: both are meant.
    """
    return Purge(
        everything=everything,
        older_than_s=older_than_s,
        models=tuple(models),
        tags=tuple(tag_digest(ring, tenant, tag) for tag in tags for ring in rings),
        keys=tuple(keys),
    )


def _put_back(known: ControlDocument) -> Change:
    """What to do about a store that went back in time: what else it lost nobody knows."""

    def change(found: ControlDocument, at_ms: int) -> ControlDocument:
        later = known if known.revision > found.revision else found
        return purged(later, Purge(everything=True), at_ms)

    return change


def _decoded(text: bytes, tenant: str) -> ControlDocument:
    try:
        return decode(text, tenant)
    except ControlError as exc:
        raise InternalError(
            f"The control document of tenant {tenant!r} cannot be read: it is damaged, or a newer "
            "version wrote it. Update the origin, or delete the document and create its keys anew.",
            status=503,
            code="control_unreadable",
        ) from exc


def _unavailable() -> InternalError:
    return InternalError(
        "The control documents cannot be reached.",
        status=503,
        code="control_unavailable",
        retry_after_s=1,
    )
