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
6. What has changed is told to the edge until it has it, by whichever process can.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Self, TypeVar

from origin.audit import ORIGIN, Act, Actor, purge_act
from origin.edge_push import EdgeDelivery, EdgePush
from origin.metrics import CONTROL_ERRORS
from origin.settings import Settings
from origin.stores.contract import StoreError
from origin.stores.control_contract import EVERY_TENANT, ControlStore
from origin.tasks import end, until_done
from shared.control_document import (
    ControlDocument,
    ControlError,
    CutOffs,
    Purge,
    decode,
    encode,
    new_document,
    purged,
    revised,
)
from shared.errors import ClientError, EncoreError, InternalError
from shared.keys import DEVELOPMENT_TENANT, short_key

MEMO_S = 0.25
MAX_ATTEMPTS = 100
"""How often a change is tried anew because another one came between. One of all wins each time."""
CONCURRENCY = 16
"""How many tenants' documents a change of all is under way for at once: each waits for a disk."""
UNREADABLE = "control_unreadable"
"""The code of the failure that a damaged document is: of its tenant nothing is served."""
CHANGE = Act(action="change")
_CALIBRATION = "calibration"
T = TypeVar("T")
log = logging.getLogger(__name__)

Change = Callable[[ControlDocument, int], ControlDocument]
"""From a document and the store's time (ms) to the next document, or back to the same one.

May be called repeatedly."""

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

    `longest_life_ms` is the longest life of the entries that this process makes, `calibration` the
    version of its semantic match, empty without one, None where it answers nobody. With
    `development` the tenant of the development key gets its document on demand. `purged` is told a
    tenant all of whose entries were purged, once this process knows of it.
    """

    def __init__(
        self,
        store: ControlStore,
        *,
        longest_life_ms: int,
        calibration: str | None = None,
        development: bool = False,
        push: EdgePush | None = None,
        purged: Callable[[str], None] | None = None,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._longest_life_ms = longest_life_ms
        self._calibration = calibration
        self._calibrated: set[str] = set()
        """Tenants whose documents said what this process goes by, once: later ones win."""
        self._development = development
        self._push = push
        self._delivery = None if push is None else EdgeDelivery(store, push)
        self._purged = purged
        self._clock_s = clock_s
        self._memos: dict[str, _Memo] = {}
        self._looks: dict[str, _Look] = {}
        self._tasks: set[asyncio.Task[ControlDocument | None]] = set()
        self._outage = False

    @classmethod
    def from_settings(
        cls,
        settings: Settings,
        store: ControlStore,
        *,
        calibration: str | None = None,
        purged: Callable[[str], None] | None = None,
    ) -> Self:
        """Control over `store` as the settings want it."""
        stale_s = max(settings.stale_while_revalidate_s, settings.stale_if_error_s)
        return cls(
            store,
            longest_life_ms=(settings.max_ttl_s + stale_s) * 1000,
            calibration=calibration,
            development=settings.development,
            push=None if settings.edge_url is None else EdgePush(settings.edge_url, settings.keys),
            purged=purged,
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

    async def documents(self, tenant: str) -> Mapping[str, ControlDocument]:
        """The documents of a tenant, or of `EVERY_TENANT`, by tenant.

        Raises ClientError 404 `no_tenant`, InternalError 503.
        """
        if tenant == EVERY_TENANT:
            found, failures = await self._everywhere(self.document)
            if failures:
                raise failures[0]
            return {each.tenant: each for each in found if each is not None}
        document = await self.document(tenant)
        if document is None:
            raise _no_tenant(tenant)
        return {tenant: document}

    async def record(self, record: bytes) -> None:
        """Put what changed nothing into the audit log. Raises StoreError."""
        await self._store.record([record])

    def known(self, tenant: str) -> ControlDocument | None:
        """The document as this process knows it: at most `MEMO_S` behind where somebody asks."""
        memo = self._memos.get(tenant)
        return None if memo is None else memo.document

    async def refresh(self, tenant: str) -> None:
        """Look at a tenant's document anew, where one is remembered. Raises InternalError 503."""
        if tenant in self._memos:
            await self._look(tenant, self._clock_s())

    async def refresh_all(self) -> None:
        """Look at all documents that are remembered anew: changes may have gone unheard."""
        for tenant in tuple(self._memos):
            with contextlib.suppress(EncoreError):  # told to who asks for it
                await self.refresh(tenant)

    async def change(
        self,
        tenant: str,
        change: Change,
        *,
        create: bool = False,
        act: Act = CHANGE,
    ) -> Changed:
        """Change a document; returns once it holds at every origin process.

        With `create` a tenant without a document gets one first. `act` is what the audit log says
        of it. Raises ClientError 404 `no_tenant`, what `change` raises, and InternalError 503 where
        nothing is acknowledged.
        """
        document, at_ms = await self._commit(tenant, change, act, create=create)
        await asyncio.sleep(MEMO_S)
        return Changed(document=document, at_ms=at_ms, edge=await self._tell(document))

    async def purge(self, tenant: str, purge: Purge, by: Actor = ORIGIN) -> Changed:
        """Purge; see `change`."""
        return await self.change(
            tenant,
            lambda document, at_ms: purged(document, purge, at_ms),
            act=purge_act(purge, by),
        )

    async def purge_everywhere(self, purge: Purge, by: Actor = ORIGIN) -> Sequence[Changed]:
        """Purge something of every tenant; see `change`.

        One tenant's failure leaves out no other; the first is raised once the rest hold.
        """
        act = purge_act(purge, by)

        def change(document: ControlDocument, at_ms: int) -> ControlDocument:
            return purged(document, purge, at_ms)

        made, failures = await self._everywhere(lambda each: self._commit(each, change, act))
        await asyncio.sleep(MEMO_S)
        edges = await asyncio.gather(*(self._tell(document) for document, _ in made))
        if failures:
            raise failures[0]
        return [
            Changed(document=document, at_ms=at_ms, edge=edge)
            for (document, at_ms), edge in zip(made, edges, strict=True)
        ]

    async def apply(
        self, tenant: str, purge: Purge, by: Actor, *, heard_ms: int | None = None
    ) -> bool:
        """Purge what an event names, unless it is purged already; whether it was not.

        It is where cut-offs of `heard_ms` or later name everything: of many who hear the event one
        acts, and who tries again acts where it failed. By default that is now, by `now_ms`.
        `EVERY_TENANT` is each of them. Returns once the purge is durable; other processes and the
        edge hear of it behind that. Raises as `change` does, and StoreError; of several failures
        `control_unreadable` last.
        """
        if heard_ms is None:
            heard_ms = await self._store.now_ms()
        act = purge_act(purge, by)
        acted = False

        def change(document: ControlDocument, at_ms: int) -> ControlDocument:
            nonlocal acted
            if covers(document.cut_offs, purge, heard_ms):
                return document
            acted = True
            return purged(document, purge, at_ms)

        if tenant == EVERY_TENANT:
            _, failures = await self._everywhere(lambda each: self._commit(each, change, act))
            if failures:
                raise min(failures, key=lambda failure: failure.code == UNREADABLE)
        else:
            await self._commit(tenant, change, act)
        if acted and self._delivery is not None:
            self._delivery.hurry()
        return acted

    async def calibrate(self) -> None:
        """Let every tenant's document say by what this process matches, the edge's copies too."""
        await until_done(self._calibrate)

    async def deliver(self) -> None:
        """Tell the edge what it has not been told, whoever could not; until cancelled."""
        if self._delivery is not None:
            await self._delivery.run()

    async def close(self) -> None:
        """Stop what is under way, leave what the edge did not take to others, close the store."""
        await end(self._tasks)
        if self._push is not None:
            await self._push.close()
        await self._store.close()

    async def _everywhere(
        self, act: Callable[[str], Awaitable[T]]
    ) -> tuple[Sequence[T], Sequence[EncoreError]]:
        """(results, failures) of an act on every tenant."""
        room = asyncio.Semaphore(CONCURRENCY)

        async def one(tenant: str) -> T | EncoreError:
            async with room:
                try:
                    return await act(tenant)
                except EncoreError as error:
                    return error

        try:
            tenants = sorted(await self._store.tenants())
        except StoreError as exc:
            raise _unavailable() from exc
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(tenant)) for tenant in tenants]
        made, failures = [], []
        for task in tasks:
            result = task.result()
            if not isinstance(result, EncoreError):
                made.append(result)
            elif result.code != "no_tenant":
                # One that is listed and has no document (any more) has nothing to serve.
                failures.append(result)
        return made, failures

    async def _calibrate(self) -> bool:
        """Whether every document that can be read is looked at."""
        if self._calibration is None:
            return True
        try:
            facts = await self._store.facts()
            if facts.get(_CALIBRATION, "") != self._calibration:
                await self.documents(EVERY_TENANT)
                await self._store.keep_fact(_CALIBRATION, self._calibration)
        except (StoreError, EncoreError) as exc:
            # Of a tenant whose document cannot be read nothing is served.
            if isinstance(exc, StoreError) or exc.code != UNREADABLE:
                log.warning("not every control document is looked at yet: %s", exc)
                return False
        return True

    def _is_calibrated(self, document: ControlDocument) -> bool:
        return (
            self._calibration in (None, document.calibration) or document.tenant in self._calibrated
        )

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
            # By when it was asked: what others have changed since may be known to them to hold.
            return self._remember(memo.document, now_s)
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
            act = Act(action="purge", facts={"everything": True, "reason": "control data lost"})
            document, _ = await self._commit(tenant, _put_back(memo.document), act)
        elif document.longest_life_ms < self._longest_life_ms or not self._is_calibrated(document):
            document, _ = await self._commit(tenant, revised, CHANGE)
        self._calibrated.add(tenant)
        return self._remember(document, now_s)

    def _looked(self, tenant: str, task: asyncio.Task[ControlDocument | None]) -> None:
        self._tasks.discard(task)
        look = self._looks.get(tenant)
        if look is not None and look.task is task:
            del self._looks[tenant]
        if not task.cancelled():
            task.exception()  # told to those who waited, if any did

    async def _commit(
        self, tenant: str, change: Change, act: Act, *, create: bool = False
    ) -> tuple[ControlDocument, int]:
        """(the document, the store's time of the change), durable. See `change`.

        A change that gives the document back changes nothing.
        """
        try:
            for _ in range(MAX_ATTEMPTS):
                known_s = self._clock_s()
                text = await self._store.load(tenant)
                at_ms = await self._store.cut_off_ms()
                if text is not None:
                    before = _decoded(text, tenant)
                    expected = before.revision
                elif create:
                    before, expected = new_document(tenant, at_ms), None
                else:
                    raise _no_tenant(tenant)
                document = change(before, at_ms)
                if document is before:
                    if self._push is not None:  # who made it may have ended before it owed it
                        await self._owe(tenant, document.revision)
                    return self._remember(document, known_s), at_ms
                if document.longest_life_ms < self._longest_life_ms:
                    document = replace(document, longest_life_ms=self._longest_life_ms)
                if self._calibration is not None and not self._is_calibrated(document):
                    document = replace(document, calibration=self._calibration)
                if await self._store.replace(
                    tenant,
                    encode(document),
                    document.revision,
                    expected=expected,
                    record=act.record(tenant, revision=document.revision),
                ):
                    self._remember(document, known_s)
                    self._calibrated.add(tenant)
                    await self._owe(tenant, document.revision)
                    return document, at_ms
        except StoreError as exc:
            raise _unavailable() from exc
        raise _unavailable()

    async def _owe(self, tenant: str, revision: int) -> None:
        owed_by = self._store if self._delivery is None else self._delivery
        await owed_by.owe_edge(tenant, revision)

    def _remember(self, document: ControlDocument, known_s: float) -> ControlDocument:
        """The document that rules from now on: a slow look does not undo a later change."""
        memo = self._memos.get(document.tenant)
        if memo is not None and memo.document.revision > document.revision:
            return memo.document
        self._memos[document.tenant] = _Memo(document=document, known_s=known_s)
        if (
            self._purged is not None
            and memo is not None
            and memo.document.cut_offs.all_ms < document.cut_offs.all_ms
        ):
            self._purged(document.tenant)
        return document

    async def _tell(self, document: ControlDocument) -> EdgeState:
        if self._push is None:
            return "not configured"
        if await self._push.push(document.tenant, encode(document)) != "taken":
            return "pending"
        with contextlib.suppress(StoreError):  # then it is told once more
            await self._store.edge_has(document.tenant, document.revision)
        return "acknowledged"


def covers(cut_offs: CutOffs, purge: Purge, at_ms: int) -> bool:
    """Whether everything that a purge at `at_ms` would name is cut off at that time or later."""
    at_ms = max(0, at_ms - purge.older_than_s * 1000)
    if cut_offs.all_ms >= at_ms:
        return True
    groups = (
        (cut_offs.models, purge.models),
        (cut_offs.tags, purge.tags),
        (cut_offs.keys, map(short_key, purge.keys)),
    )
    return not purge.everything and all(
        times.get(name, -1) >= at_ms for times, names in groups for name in names
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
            code=UNREADABLE,
        ) from exc


def _no_tenant(tenant: str) -> ClientError:
    return ClientError(
        f"There is no tenant {tenant!r} here.", status=404, param="tenant", code="no_tenant"
    )


def _unavailable() -> InternalError:
    return InternalError(
        "The control documents cannot be reached.",
        status=503,
        code="control_unavailable",
        retry_after_s=1,
    )
