"""Control documents pushed to the edge, so that it need not come for them.

A push is a courtesy, not a promise: the edge fetches a document by itself once an answer of the
origin has told it of a newer revision.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from dataclasses import dataclass
from http import HTTPStatus

import httpx

from origin.metrics import EDGE_PUSHES
from shared.control_document import ControlDocument, encode
from shared.keys import KeyRings, edge_bearer
from shared.wire import CONTROL_PATH, EDGE_AUTHORIZATION

TIMEOUT_S = 5.0
FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 60.0
log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Retry:
    revision: int
    task: asyncio.Task[None]


class EdgePush:
    """Leaves documents at the edge of `url`. One per event loop; owns its connections and tasks."""

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
        self._retries: dict[str, _Retry] = {}

    async def push(self, document: ControlDocument) -> bool:
        """Whether the edge has acknowledged the document. If not, tries go on in the background.

        They end with an acknowledgement, a newer document of the tenant, or `close`.
        """
        retry = self._retries.get(document.tenant)
        if retry is not None and retry.revision < document.revision:
            retry.task.cancel()
        if await self._try(document):
            return True
        retry = self._retries.get(document.tenant)
        if retry is None or retry.revision < document.revision:
            log.warning("the edge did not take the control document of %s", document.tenant)
            self._retries[document.tenant] = _Retry(
                revision=document.revision, task=asyncio.create_task(self._go_on(document))
            )
            EDGE_PUSHES.set(len(self._retries))
        return False

    async def close(self) -> None:
        """Give up what is pending, and free the connections."""
        tasks = [retry.task for retry in self._retries.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._client.aclose()

    async def _go_on(self, document: ControlDocument) -> None:
        tenant, pause_s = document.tenant, FIRST_PAUSE_S
        try:
            while True:
                await asyncio.sleep(pause_s)
                if await self._try(document):
                    log.info("the edge has the control document of %s", tenant)
                    return
                pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
        finally:
            retry = self._retries.get(tenant)
            if retry is not None and retry.revision == document.revision:
                del self._retries[tenant]
                EDGE_PUSHES.set(len(self._retries))

    async def _try(self, document: ControlDocument) -> bool:
        content = encode(document)
        with contextlib.suppress(httpx.HTTPError):
            for bearer in self._bearers:
                response = await self._client.put(
                    CONTROL_PATH + document.tenant,
                    content=content,
                    headers={EDGE_AUTHORIZATION: f"Bearer {bearer}"},
                )
                # An edge that has not heard of the new secret yet hides the route.
                if response.status_code != HTTPStatus.NOT_FOUND:
                    return response.is_success
        return False
