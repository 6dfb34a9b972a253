"""Control documents pushed to the edge, so that it need not come for them.

What the edge has not taken is kept in mind by the control store (`ControlStore.owe_edge`), so it is
delivered by whichever origin process is there, one at a time, until the edge has it. Meanwhile the
edge fetches a document by itself once an answer of the origin has told it of a newer revision.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from http import HTTPStatus
from typing import Literal

import httpx

from origin.metrics import EDGE_PUSHES
from origin.stores.contract import StoreError
from origin.stores.control_contract import ControlStore
from shared.keys import KeyRings, edge_bearer
from shared.wire import CONTROL_PATH, EDGE_AUTHORIZATION

TIMEOUT_S = 5.0
FIRST_PAUSE_S = 2.0
"""How often it is looked for what the edge is to get."""
LONGEST_PAUSE_S = 60.0
TURN = "edge"
TURN_S = 15.0
"""How long nobody else delivers after a process was last heard of."""
log = logging.getLogger(__name__)

Pushed = Literal["taken", "refused", "unreachable"]


class EdgePush:
    """Leaves documents at the edge of `url`. One per event loop; owns its connections."""

    def __init__(
        self, url: str, keys: KeyRings, *, transport: httpx.AsyncBaseTransport | None = None
    ) -> None:
        self._client = httpx.AsyncClient(
            base_url=url,
            headers={"content-type": "application/json"},
            timeout=TIMEOUT_S,
            transport=transport,
        )
        self._bearers = [edge_bearer(ring) for ring in keys]

    async def push(self, tenant: str, document: bytes) -> Pushed:
        """What the edge did with a tenant's document."""
        pushed: Pushed = "refused"
        try:
            for bearer in self._bearers:
                response = await self._client.put(
                    CONTROL_PATH + tenant,
                    content=document,
                    headers={EDGE_AUTHORIZATION: f"Bearer {bearer}"},
                )
                # An edge that has not heard of the new secret yet hides the route.
                if response.status_code != HTTPStatus.NOT_FOUND:
                    pushed = "taken" if response.is_success else "refused"
                    break
        except httpx.HTTPError:
            pushed = "unreachable"
        if pushed != "taken":
            log.warning("the edge did not take the control document of %s: %s", tenant, pushed)
        return pushed

    async def close(self) -> None:
        """Free the connections."""
        await self._client.aclose()


class EdgeDelivery:
    """Pushes what the edge is owed, as long as it runs; another process goes on where it ends."""

    def __init__(self, store: ControlStore, push: EdgePush) -> None:
        self._store = store
        self._push = push
        self._holder = secrets.token_hex(8)
        self._hurried = asyncio.Event()
        self._unnoted: dict[str, int] = {}
        """By tenant, the revision that is owed and could not be noted."""

    def hurry(self) -> None:
        """There is something new to deliver."""
        self._hurried.set()

    async def owe_edge(self, tenant: str, revision: int) -> None:
        """See ControlStore.owe_edge. What raises StoreError is done later, by `run`."""
        self._unnoted[tenant] = max(revision, self._unnoted.get(tenant, 0))
        await self._store.owe_edge(tenant, revision)
        if self._unnoted.get(tenant, 0) <= revision:
            self._unnoted.pop(tenant, None)

    async def run(self) -> None:
        """Deliver until cancelled. Tries anew after a pause that grows while the edge is away."""
        pause_s = FIRST_PAUSE_S
        try:
            while True:
                try:
                    all_taken = await self._deliver()
                except StoreError:
                    all_taken = False
                pause_s = FIRST_PAUSE_S if all_taken else min(2 * pause_s, LONGEST_PAUSE_S)
                if not all_taken:
                    await asyncio.sleep(pause_s)  # however much there is to say to it
                    continue
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(pause_s):
                        await self._hurried.wait()
                self._hurried.clear()
        finally:
            with contextlib.suppress(StoreError):
                await self._store.take_turn(TURN, self._holder, 0)

    async def _deliver(self) -> bool:
        """Whether nothing was left of it that this process was to deliver. Raises StoreError."""
        for tenant, unnoted in tuple(self._unnoted.items()):
            await self.owe_edge(tenant, unnoted)
        owed = await self._store.owed_to_edge()
        EDGE_PUSHES.set(len(owed))
        all_taken = True
        for tenant in sorted(owed):
            if not await self._store.take_turn(TURN, self._holder, TURN_S):
                return True
            # In this order: the document is of this revision, or of a later one.
            revision = await self._store.revision(tenant)
            document = await self._store.load(tenant)
            if revision is None or document is None:
                await self._store.edge_has(tenant, owed[tenant])  # it is gone, and owed no more
                continue
            pushed = await self._push.push(tenant, document)
            if pushed == "taken":
                log.info("the edge has the control document of %s", tenant)
                await self._store.edge_has(tenant, revision)
                EDGE_PUSHES.dec()
            elif pushed == "unreachable":
                return False
            else:
                all_taken = False
        return all_taken
