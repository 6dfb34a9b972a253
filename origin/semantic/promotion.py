"""From an entry that answers another question to the entry of this one.

Invariants
1. It ends with its source at the latest, and is purged with it: it has its times, its model and its
   tags, and names its key.
2. It says by what rule it was matched: under another rule it is a miss.
3. It is made of an answer that was generated, never of a promoted one.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from origin.encryption import seal, unsealed
from shared.envelope import MAX_TAGS, Envelope, EnvelopeError, SemanticSource

if TYPE_CHECKING:
    from origin.queries import Query
    from shared.keys import KeyRings


def promoted(
    source: Envelope, query: Query, *, similarity: float, keys: KeyRings, now_ms: int
) -> Envelope:
    """The entry by which `source` answers `query`.

    The request's own wishes narrow it: its tags are added, its `Encore-TTL` may end it sooner. One
    of 0 seconds has it kept nowhere (`is_kept`).
    Raises EnvelopeError where there can be none, EncryptionError where `source` does not open.
    """
    old, rule = source.header, query.document.semantic_rule
    if old.source is not None or query.key is None or rule is None:
        raise EnvelopeError("an entry that cannot be promoted")
    tags = tuple(dict.fromkeys((*old.tags, *query.digests([query.controls]))))
    if len(tags) > MAX_TAGS:
        raise EnvelopeError("more tags than an entry can have")
    sooner_ms = 0
    if query.controls.ttl_s is not None:
        sooner_ms = max(0, old.fresh_until_ms - now_ms - query.controls.ttl_s * 1000)
    plain = unsealed(keys, source)
    header = replace(
        plain.header,
        key=query.key,
        tags=tags,
        fresh_until_ms=old.fresh_until_ms - sooner_ms,
        stale_until_ms=old.stale_until_ms - sooner_ms,
        error_until_ms=old.error_until_ms - sooner_ms,
        source=SemanticSource(similarity=similarity, key=old.key, calibration=rule),
        origin_only=old.origin_only or not is_kept(query),
    )
    entry = Envelope(header=header, payload=plain.payload)
    return entry if old.encryption is None else seal(entry, query.ring)


def is_kept(query: Query) -> bool:
    """Whether what is promoted for a request is stored, too."""
    return query.controls.ttl_s != 0
