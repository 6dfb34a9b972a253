"""How much a purge would kill now: every entry of L1 is looked at, nothing is changed."""

from __future__ import annotations

import asyncio
from contextlib import aclosing, suppress
from dataclasses import dataclass
from typing import Any

from origin.audit import Act, Actor, facts_of
from origin.control import Control
from origin.stores.contract import Store, StoreError
from shared.control_document import Purge, objection, purged
from shared.envelope import MAX_PREFIX_BYTES, EnvelopeError, decode_prefix
from shared.errors import InternalError

MAX_LOOKED_AT = 1_000_000
MAX_S = 10.0


@dataclass(frozen=True, kw_only=True, slots=True)
class DryRun:
    """`entries` of `size_bytes` in all would die; `is_complete` is whether all were looked at.

    While a secret is being replaced, a purge by key also means the entry under the other secret's
    key, which is not counted.
    """

    entries: int
    size_bytes: int
    is_complete: bool

    def fields(self) -> dict[str, Any]:
        """As it is told and recorded."""
        return {
            "entries": self.entries,
            "bytes": self.size_bytes,
            "complete": self.is_complete,
        }


async def dry_run(
    control: Control,
    store: Store,
    tenant: str,
    purge: Purge,
    by: Actor,
    *,
    max_s: float = MAX_S,
) -> DryRun:
    """What a purge of `tenant`, or of every tenant, would kill now. It is recorded as a dry run.

    Takes some `max_s` seconds at most. Raises ClientError 404 `no_tenant`, InternalError 503.
    """
    documents = await control.documents(tenant)
    try:
        now_ms = await control.now_ms()
        cut_offs = {
            each: purged(document, purge, now_ms).cut_offs for each, document in documents.items()
        }
        dying: dict[int, int] = {}
        looked_at = 0
        is_complete = False
        with suppress(TimeoutError):
            async with (
                asyncio.timeout(max_s),
                aclosing(store.openings(MAX_PREFIX_BYTES)) as openings,
            ):
                async for some in openings:
                    for opening, size_bytes in some:
                        try:
                            header, _ = decode_prefix(opening)
                        except EnvelopeError:
                            continue  # dead already
                        document = documents.get(header.tenant)
                        if (
                            document is not None
                            and cut_offs[header.tenant].name(header)
                            and objection(document, header) is None
                        ):
                            # Keys, some told of twice, are hashes: half of one tells them apart.
                            dying[int(header.key[:32], 16)] = size_bytes
                    looked_at += len(some)
                    if looked_at >= MAX_LOOKED_AT:
                        break
                    await asyncio.sleep(0)
                else:
                    is_complete = True
        found = DryRun(entries=len(dying), size_bytes=sum(dying.values()), is_complete=is_complete)
        act = Act(action="purge", actor=by, facts=facts_of(purge) | found.fields())
        await control.record(act.record(tenant, outcome="dry-run"))
    except StoreError as exc:
        raise InternalError(
            "Redis cannot be asked.", status=503, code="store_unavailable", retry_after_s=1
        ) from exc
    return found
