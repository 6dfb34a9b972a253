"""The exact tier: what L1 has under a request's own key, and whether that may answer the request.

While a secret is being replaced a request has two keys. What is found under the other secret's is
put under this one's, so that it is found there from then on.

Invariants
1. A store that fails is said (`l1-error`), and fails no request.
2. Whatever cannot be read, or belongs to somebody else, is a miss.
3. A sealed entry has been opened before it is a hit.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace

from origin.encryption import EncryptionError, open_segment, seal, unsealed
from origin.engine.contract import Engine
from origin.entries import decoded
from origin.metrics import L1_ERRORS
from origin.queries import Query
from origin.stores.contract import Store, StoreError
from shared.cache_headers import source_detail
from shared.control_document import ControlDocument, objection
from shared.envelope import Envelope, EnvelopeError, Header, encode
from shared.errors import EncoreError
from shared.freshness import MISS, Forward, Serve, decide, serve
from shared.keys import KeyRings, short_key

TURN_INPUTS = 32
"""How many inputs of a batch are looked at before other requests have their turn: some 3 ms."""
log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Hit:
    """An entry answers. `encoded` is the whole envelope as it was stored.

    `segment` is the gzip member that answers the request, opened where the entry is sealed.
    """

    envelope: Envelope
    encoded: bytes
    segment: bytes
    served: Serve
    detail: str | None = None


Found = tuple[Hit | None, Serve | Forward, str | None]
"""(entry, decision, trouble)."""


class ExactTier:
    """One per process. Safe to call from many tasks of one event loop.

    `landed` waits for a flight of this process that is storing the entry of a key, and says whether
    there was one. By `clock_ms` entries age.
    """

    def __init__(
        self,
        *,
        store: Store,
        keys: KeyRings,
        engine: Engine,
        landed: Callable[[str], Awaitable[bool]],
        clock_ms: Callable[[], int],
    ) -> None:
        self._store = store
        self._keys = keys
        self._engine = engine
        self._landed = landed
        self._clock_ms = clock_ms

    async def find(self, query: Query) -> Found:
        """What the store has. What cannot answer this request is a miss."""
        if query.key is None:
            return None, MISS, None
        try:
            encoded = await self._store.get(query.key)
            if encoded is None and await self._landed(query.key):
                encoded = await self._store.get(query.key)
            if encoded is None:
                encoded = await self._rekeyed(query)
        except StoreError as exc:
            return _outage(exc)
        return await self.judge(query, encoded)

    async def find_many(self, queries: Sequence[Query]) -> list[Found]:
        """What the store has for each of the queries, which all have keys, in one read."""
        try:
            stored = await self._store.get_many([query.key or "" for query in queries])
            found = []
            for place, (query, encoded) in enumerate(zip(queries, stored, strict=True)):
                if place % TURN_INPUTS == TURN_INPUTS - 1:
                    await asyncio.sleep(0)
                held = await self._rekeyed(query) if encoded is None else encoded
                found.append(await self.judge(query, held))
        except StoreError as exc:
            return [_outage(exc)] * len(queries)
        return found

    async def look(self, query: Query) -> tuple[Header | None, Serve | Forward | None, str | None]:
        """(header, decision, trouble) of what `find` goes by; nothing is stored.

        The header is of what is there, be it fit to answer or not; there is no decision where
        nothing there may answer.
        """
        if query.key is None:
            return None, None, None
        try:
            encoded = await self._store.get(query.key)
            if encoded is None and (other := await self._under_other_key(query)) is not None:
                _, encoded = other
        except StoreError:
            return None, None, "l1-error"
        envelope = None if encoded is None else decoded(encoded, query.key)
        hit, decision, trouble = await self.judge(query, encoded)
        header = None if envelope is None else envelope.header
        return header, None if hit is None else decision, trouble

    async def judge(self, query: Query, encoded: bytes | None) -> Found:
        """Whether what is stored under the query's key may answer it."""
        if query.key is None or encoded is None:
            return None, MISS, None
        envelope = decoded(encoded, query.key)
        if envelope is None or envelope.header.tenant != query.tenant:
            return None, MISS, "l1-undecodable"
        header = envelope.header
        if (why_not := query.objection(header)) is not None:
            return None, MISS, why_not
        if header.fingerprint != await self._fingerprint(query):
            return None, MISS, "model-changed"
        try:
            segment = open_segment(self._keys, envelope, query.segment)
        except EncryptionError as exc:
            log.warning("L1: undecodable entry %s: %s", short_key(query.key), exc)
            return None, MISS, "l1-undecodable"
        if segment is None:
            return None, MISS, None
        now_ms = self._clock_ms()
        decision = decide(header, now_ms, query.controls.directives)
        served = decision if isinstance(decision, Serve) else serve(header, now_ms)
        hit = Hit(
            envelope=envelope,
            encoded=encoded,
            segment=segment,
            served=served,
            detail=source_detail(header),
        )
        return hit, decision, None

    async def entry(self, document: ControlDocument, key: str) -> tuple[Header, bytes] | None:
        """(header, stored envelope) of a key, after a flight that is about to store it has done so.

        None where there is none that the document's tenant may be answered by, fresh and whole.
        Raises StoreError.
        """
        await self._landed(key)
        encoded = await self._store.get(key)
        envelope = None if encoded is None else decoded(encoded, key)
        if encoded is None or envelope is None:
            return None
        header = envelope.header
        if (
            header.tenant != document.tenant
            or objection(document, header) is not None
            or self._clock_ms() > header.fresh_until_ms
        ):
            return None
        try:
            unsealed(self._keys, envelope)
        except EncryptionError as exc:
            log.warning("L1: undecodable entry %s: %s", short_key(key), exc)
            return None
        return header, encoded

    async def _rekeyed(self, query: Query) -> bytes | None:
        """The entry under the other secret's key, as it stands under this one's from now on.

        Raises StoreError where it cannot be read.
        """
        new = await self._under_other_key(query)
        if new is None:
            return None
        header, encoded = new
        try:
            await self._store.put(header.key, encoded, header.expires_ms, only_new=True)
        except StoreError as exc:
            log.warning("L1: not stored %s: %s", short_key(header.key), exc)
        return encoded

    async def _under_other_key(self, query: Query) -> tuple[Header, bytes] | None:
        """(header, envelope) of the entry under the other secret's key, as it would be under this.

        One with tags is left there, for their digests are the other secret's; so is one that is
        purged with its source. Raises StoreError.
        """
        if query.key is None or query.other_key is None:
            return None
        encoded = await self._store.get(query.other_key)
        old = None if encoded is None else decoded(encoded, query.other_key)
        if old is None or old.header.tenant != query.tenant:
            return None
        if old.header.tags or old.header.source is not None or query.objection(old.header):
            return None
        try:
            plain = unsealed(self._keys, old)
            new = Envelope(header=replace(plain.header, key=query.key), payload=plain.payload)
            if old.header.encryption is not None:
                new = seal(new, query.ring)
            return new.header, encode(new)
        except EnvelopeError as exc:
            log.warning("L1: not re-keyed %s: %s", short_key(query.other_key), exc)
            return None

    async def _fingerprint(self, query: Query) -> str | None:
        """The fingerprint of the model asked for, or None where there is no such model now."""
        try:
            return await self._engine.fingerprint(query.fields["model"])
        except EncoreError:
            return None


def _outage(error: StoreError) -> Found:
    L1_ERRORS.labels("read").inc()
    log.warning("L1: %s", error)
    return None, MISS, "l1-error"
