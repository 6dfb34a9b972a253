"""Control documents at the edge: remembered by this isolate, else in KV, else asked of the origin.

    remembered (≤ 30 s) → KV `ctl:TENANT` → the origin, behind an answer that told of a newer one

The largest revision this isolate has seen rules; what it has seen holds for `UNREADABLE_S` after it
was last confirmed, by KV or by the origin. Without a document nothing is served from KV.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import Any, NamedTuple

import runtime
from origin_client import OriginClient, OriginError

from shared.control_document import ControlDocument, ControlError, decode

KV_CACHE_TTL_S = 30
"""KV's minimum: how long a location may answer from its own cache."""
UNREADABLE_S = 600
PULL_PAUSE_S = 30
"""How long this isolate does not ask the origin again for a tenant's document."""
WRITE_PAUSE_S = 1.1
"""KV takes one write a second of a name; the next one is refused with a 429."""
MAX_REMEMBERED = 1000


@dataclass(slots=True)
class _Memory:
    """Times are of `time.monotonic`, in seconds.

    What `is_doubted` is not decided by, until the origin gives it again or a later one comes.
    """

    document: ControlDocument | None = None
    text: str | None = None
    is_doubted: bool = False
    read_s: float = float("-inf")
    confirmed_s: float = float("-inf")
    pulled_s: float = float("-inf")


class _Fetched(NamedTuple):
    """What the origin gave. `may_store` where it is news here, and granted."""

    document: ControlDocument
    text: str
    may_store: bool


class ControlDocuments:
    """One per isolate. `memo_s` is how long a document is used without looking at KV again."""

    def __init__(self, namespace: Any, origin: OriginClient, memo_s: float) -> None:
        self._kv = namespace
        self._origin = origin
        self._memo_s = memo_s
        self._memories: dict[str, _Memory] = {}

    def remembered(self, tenant: str) -> ControlDocument | None:
        """The document if this isolate has looked at it lately: without waiting, for a hit."""
        memory = self._memories.get(tenant)
        now_s = time.monotonic()
        if memory is None or now_s - memory.read_s >= self._memo_s:
            return None
        return _usable(memory, now_s)

    def last_known(self, tenant: str) -> ControlDocument | None:
        """The document as this isolate knows it, however old: to guess with, not to decide by."""
        memory = self._memories.get(tenant)
        return None if memory is None else memory.document

    def revisions(self) -> dict[str, int]:
        """By tenant, the revision of the document that may be decided by."""
        usable = ((tenant, _usable(memory)) for tenant, memory in self._memories.items())
        return {tenant: document.revision for tenant, document in usable if document is not None}

    def revision(self, tenant: str) -> int:
        """That of one tenant, 0 where there is none."""
        memory = self._memories.get(tenant)
        document = None if memory is None else _usable(memory)
        return 0 if document is None else document.revision

    def doubt_all(self) -> None:
        """Go by no document known now before it is confirmed: each may have changed."""
        for memory in self._memories.values():
            memory.is_doubted = memory.document is not None
            memory.pulled_s = float("-inf")

    async def read(self, tenant: str) -> ControlDocument | None:
        """The document by a look at KV. None where there is none that may be decided by."""
        memory = self._memory(tenant)
        try:
            text = await runtime.kv_get_text(self._kv, _name(tenant), KV_CACHE_TTL_S)
            if text is not None:
                _take(memory, _decoded(memory, text, tenant), text)
        except (runtime.PlatformError, ControlError) as exc:
            runtime.log(f"control document of {tenant}: {exc}")
        memory.read_s = time.monotonic()
        return _usable(memory)

    async def pull(
        self, tenant: str, *, at_once: bool = False, keep: bool = True
    ) -> ControlDocument | None:
        """The document as the origin has it, put into KV where it is news and the origin grants it.

        Once in a while per tenant, unless `at_once`: a tenant without documents must not cause a
        request to the origin with each of its own. Without `keep` KV is known to have it. None
        where the origin does not give it.
        """
        memory = self._memory(tenant)
        now_s = time.monotonic()
        if now_s - memory.pulled_s < PULL_PAUSE_S and not at_once:
            return _usable(memory)
        memory.pulled_s = now_s
        fetched = await self._fetch(memory, tenant)
        if fetched is not None and fetched.may_store and keep:
            await self._keep(memory, fetched)
        return _usable(memory)

    async def put(self, tenant: str, text: str) -> int:
        """Take a document that the origin has sent; the revision that rules then.

        Raises ControlError for one that is none, PlatformError where KV does not take it.
        """
        document = decode(text, tenant)
        if self.remembered(tenant) is None:
            await self.read(tenant)  # another isolate may have put a later one into KV
        memory = self._memory(tenant)
        if memory.document is None or document.revision >= memory.document.revision:
            _take(memory, document, text, of_origin=True)
            memory.read_s = time.monotonic()
            await runtime.kv_put_text(self._kv, _name(tenant), text)
        return document.revision if memory.document is None else memory.document.revision

    async def _fetch(self, memory: _Memory, tenant: str) -> _Fetched | None:
        """The document as the origin has it, remembered; None where the origin does not give it."""
        try:
            pulled = await self._origin.control_document(tenant)
            document = None if pulled is None else _decoded(memory, pulled[0], tenant)
        except (OriginError, ControlError) as exc:
            runtime.log(f"control document of {tenant}: {exc}")
            return None
        if document is None or pulled is None:
            return None
        known, (text, is_granted) = _usable(memory), pulled
        _take(memory, document, text, of_origin=True)
        memory.read_s = time.monotonic()
        is_news = known is None or known.revision < document.revision
        return _Fetched(document, text, is_granted and is_news)

    async def _keep(self, memory: _Memory, fetched: _Fetched) -> None:
        """Put a document into KV; where KV does not take it, once more what is the document then.

        In the pause another isolate may have put a later one there, which this must not undo.
        """
        if await self._write(memory, fetched):
            return
        await asyncio.sleep(WRITE_PAUSE_S)
        latest = await self._fetch(memory, fetched.document.tenant)
        if latest is not None:
            await self._write(memory, latest)

    async def _write(self, memory: _Memory, fetched: _Fetched) -> bool:
        """Whether KV has it, or a later one is known here, whose own write that is."""
        document = fetched.document
        if memory.document is not None and memory.document.revision > document.revision:
            return True
        try:
            await runtime.kv_put_text(self._kv, _name(document.tenant), fetched.text)
        except runtime.PlatformError as exc:
            runtime.log(f"control document of {document.tenant}: {exc}")
            return False
        return True

    def _memory(self, tenant: str) -> _Memory:
        memory = self._memories.get(tenant)
        if memory is None:
            if len(self._memories) >= MAX_REMEMBERED:
                del self._memories[next(iter(self._memories))]
            memory = self._memories[tenant] = _Memory()
        return memory


def _decoded(memory: _Memory, text: str, tenant: str) -> ControlDocument:
    """The document of a text; what is known already is not decoded again. Raises ControlError."""
    known = memory.document
    return known if known is not None and text == memory.text else decode(text, tenant)


def _take(
    memory: _Memory, document: ControlDocument, text: str, *, of_origin: bool = False
) -> None:
    """Remember a document unless a later one is known: KV may lag behind."""
    known = memory.document
    if known is not None:
        if document.revision < known.revision:
            return
        if memory.is_doubted and document.revision == known.revision and not of_origin:
            return
    memory.document, memory.text = document, text
    memory.is_doubted = False
    memory.confirmed_s = time.monotonic()


def _usable(memory: _Memory, now_s: float | None = None) -> ControlDocument | None:
    if memory.is_doubted or (now_s or time.monotonic()) - memory.confirmed_s >= UNREADABLE_S:
        return None
    return memory.document


def _name(tenant: str) -> str:
    return f"ctl:{tenant}"
