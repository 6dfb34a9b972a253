"""Semantic match in a replay: the real matcher, its index in this process's memory alone.

Its clock is the log's. A question is encoded once where it comes again soon (`Batcher`), so what
this costs is some milliseconds for each request that exact match has nothing for.
"""

from __future__ import annotations

import asyncio
from functools import lru_cache
from typing import TYPE_CHECKING

from origin.planning.keying import Asked, number_of
from origin.queries import Query
from origin.semantic.batcher import Batcher
from origin.semantic.local_index import LocalIndex
from origin.semantic.matcher import Matcher
from shared.control_document import ControlDocument, Form, Policy, canonical_for
from shared.envelope import Header
from shared.keys import KeyRing, cache_key

if TYPE_CHECKING:
    from origin.lifetimes import Tiers
    from origin.semantic.calibration import Calibration
    from origin.semantic.encoder import Encoder
    from origin.semantic.verifier import Verifier

PATIENCE_S = 60.0
"""A replay waits for the encoder; a live request would not."""


class Decider:
    """What all settings of a replay share: an encoder, a verifier, a calibration, and a loop."""

    def __init__(
        self,
        encoder: Encoder,
        verifier: Verifier,
        calibration: Calibration,
        *,
        ring: KeyRing,
        tiers: Tiers,
        max_entries: int,
    ) -> None:
        self.runner = asyncio.Runner()
        self.encoder = encoder
        self.batcher = Batcher(encoder)
        self.verifier = verifier
        self.calibration = calibration
        self.ring = ring
        self.tiers = tiers
        self.max_entries = max_entries

    def close(self) -> None:
        """Free the encoder's thread."""
        self.runner.run(self.batcher.close())
        self.runner.close()


class SemanticReplay:
    """Of one setting: its own index. `semantic` is a policy's, `off` excepted."""

    def __init__(self, decider: Decider, *, semantic: str, normalisation: str) -> None:
        self._decider = decider
        self._now_ms = 0
        self._matcher = Matcher(
            encoder=decider.batcher,
            index=LocalIndex(
                identity=decider.encoder.identity,
                dims=decider.encoder.dims,
                max_entries=decider.max_entries,
            ),
            verifier=decider.verifier,
            calibration=decider.calibration,
            deadline_s=PATIENCE_S,
            tiers=decider.tiers,
            clock_ms=lambda: self._now_ms,
        )
        policy = Policy(normalisation=normalisation, semantic=semantic)
        version = decider.calibration.version

        def document(tenant: str) -> ControlDocument:
            return ControlDocument(tenant=tenant, revision=1, policy=policy, calibration=version)

        self._document = lru_cache(maxsize=4096)(document)
        self._last: tuple[Asked, Query] | None = None

    def matches(self, asked: Asked) -> list[tuple[int, float]]:
        """(number of a key, similarity) of what may answer, best first."""
        query = self._query(asked)
        self._now_ms = asked.time_ms
        found = self._decider.runner.run(self._matcher.matches(query))
        return [(number_of(match.key), match.similarity) for match in found]

    def learn(self, asked: Asked, fresh_until_ms: int) -> None:
        """Index what was generated, and is fresh until then."""
        query = self._query(asked)
        if query.key is None:
            return
        self._now_ms = asked.time_ms
        header = Header(
            key=query.key,
            tenant=asked.tenant,
            generation_started_ms=asked.time_ms,
            created_ms=asked.time_ms,
            fresh_until_ms=fresh_until_ms,
            stale_until_ms=fresh_until_ms,
            error_until_ms=fresh_until_ms,
            etag="plan",
            model=asked.model,
            fingerprint="",
            segments={"json": 1},
        )
        self._decider.runner.run(self._learn(query, header))

    async def _learn(self, query: Query, header: Header) -> None:
        self._matcher.learn(query, header)
        await self._matcher.learned()

    def _query(self, asked: Asked) -> Query:
        if self._last is not None and self._last[0] is asked:
            return self._last[1]
        fields = asked.fields or {}
        document = self._document(asked.tenant)
        form: Form = canonical_for(
            document, endpoint=asked.endpoint, controls=asked.controls, fields=fields
        )
        ring = self._decider.ring
        query = Query(
            endpoint=asked.endpoint,
            document=document,
            ring=ring,
            controls=asked.controls,
            fields=fields,
            key=cache_key(ring, form.canonical),
            other_key=None,
            strategy=form.strategy,
            stream=False,
            include_usage=False,
        )
        self._last = (asked, query)
        return query
