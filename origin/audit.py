"""The audit log: who changed what, and who was refused. One JSON object a record, without content.

Changes are recorded by the control store in the step that makes them (`ControlStore.replace`), so
none is acknowledged that is not in the log. Refusals are recorded behind the answer, and bounded:
whoever is refused a thousand times a second costs a few records.

A record never has a prompt, an answer, a secret, a name of a tag or whatever else a refused request
said of itself; of an API key it has the first characters of its id.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from starlette.types import Message, Scope, Send

from origin.metrics import AUDIT_DENIALS_LOST
from origin.stores.contract import StoreError
from origin.stores.control_contract import ControlStore
from shared import json_text
from shared.control_document import Purge
from shared.keys import SHOWN_ID_CHARACTERS

FOLD_S = 2.0
"""How long equal refusals are counted as one record."""
MAX_PATH_CHARACTERS = 128
MAX_FOLDED = 1000
"""Different refusals in that time; of more only the number is kept (a metric)."""
WHO = "encore.who"
"""Where a request's scope has the arguments of `actor_of_key`, once a key is known to be ours."""
WHY = "encore.why"
"""Where it has the code of a refusal whose body is no error in OpenAI's shape."""
_DENIALS = frozenset({401, 403})
log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Actor:
    """Who acts. `name` is `key:` and the beginning of a key's id, `cli:USER@HOST`, or a part of us.

    `role` and `tenant` are the key's; `path` is what was asked for, over HTTP or by event, and
    `address` the one that the connection came from: the edge's for who came by it.
    """

    name: str
    role: str | None = None
    tenant: str | None = None
    path: str | None = None
    address: str | None = None


ORIGIN = Actor(name="origin")
NOBODY = Actor(name="unknown")


@dataclass(frozen=True, kw_only=True, slots=True)
class Act:
    """What somebody does. `facts` are JSON; read when it is done, so they may be filled in late."""

    action: str
    actor: Actor = ORIGIN
    facts: Mapping[str, Any] = field(default_factory=dict)

    def record(self, tenant: str | None, *, outcome: str = "done", **facts: Any) -> bytes:
        """The record of it, done to `tenant`."""
        by = {"actor": self.actor.name, "role": self.actor.role, "actor_tenant": self.actor.tenant}
        where = {"path": self.actor.path, "address": self.actor.address}
        fields = {"action": self.action, "outcome": outcome, "tenant": tenant, **by, **where}
        known = {name: value for name, value in fields.items() if value is not None}
        return json_text.dumps({**known, **self.facts, **facts})


def actor_of_key(tenant: str, key_id: str | None, role: str | None) -> Actor:
    """Who holds an API key; without an id it is the development key."""
    name = "development" if key_id is None else key_id[:SHOWN_ID_CHARACTERS]
    return Actor(name=f"key:{name}", role=role, tenant=tenant)


def facts_of(purge: Purge) -> dict[str, Any]:
    """What a record says of a purge: how many names of a kind, of tags their digests."""
    counts = {
        "everything": purge.everything,
        "older_than_s": purge.older_than_s,
        "keys": len(purge.keys),
        "models": len(purge.models),
        "tags": list(purge.tags),
    }
    return {name: value for name, value in counts.items() if value}


def purge_act(purge: Purge, by: Actor) -> Act:
    """A purge, whoever asks for it and however."""
    return Act(action="purge", actor=by, facts=facts_of(purge))


class Denials:
    """Records requests that were refused. One per event loop; `note` never waits."""

    def __init__(self, store: ControlStore) -> None:
        self._store = store
        self._folded: dict[tuple[str, Actor], _Denial] = {}
        self._flushing: asyncio.Task[None] | None = None
        self._closing = asyncio.Event()

    def watching(self, scope: Scope, send: Send) -> Send:
        """A `send` that notes the answer to `scope`'s request if it is a 401 or a 403."""
        denied = False

        async def watched(message: Message) -> None:
            nonlocal denied
            if message["type"] == "http.response.start":
                denied = message["status"] in _DENIALS
            elif denied:
                denied = False
                actor = actor_of_key(*scope[WHO]) if WHO in scope else NOBODY
                reason = scope.get(WHY) or _reason(message.get("body", b""))
                self.note(reason, placed(actor, scope))
            await send(message)

        return watched

    def note(self, reason: str, actor: Actor) -> None:
        """Have a refusal recorded soon. One too many is counted as lost."""
        same = (reason, replace(actor, path=None))
        denial = self._folded.get(same)
        if denial is not None:
            denial.count += 1
        elif len(self._folded) < MAX_FOLDED:
            self._folded[same] = _Denial(reason=reason, actor=actor)
        else:
            AUDIT_DENIALS_LOST.inc()
        if self._flushing is None:
            self._flushing = asyncio.create_task(self._flush_soon())

    async def close(self) -> None:
        """Record what waits."""
        self._closing.set()
        if self._flushing is not None:
            await self._flushing

    async def _flush_soon(self) -> None:
        try:
            while self._folded:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(FOLD_S):
                        await self._closing.wait()
                await self._flush()
        finally:
            self._flushing = None

    async def _flush(self) -> None:
        denials, self._folded = list(self._folded.values()), {}
        try:
            await self._store.record([denial.record() for denial in denials])
        except StoreError as exc:
            count = sum(denial.count for denial in denials)
            log.warning("audit log: %d refusals not recorded: %s", count, exc)
            AUDIT_DENIALS_LOST.inc(count)


@dataclass(kw_only=True, slots=True)
class _Denial:
    """Refusals that differ by their paths at most: that of the first is told."""

    reason: str
    actor: Actor
    count: int = 1

    def record(self) -> bytes:
        facts = {"reason": self.reason, "count": self.count}
        return Act(action="request", actor=self.actor, facts=facts).record(None, outcome="denied")


def placed(actor: Actor, scope: Scope) -> Actor:
    """The actor, with where the request came from and went to."""
    client = scope.get("client")
    path = scope["path"][:MAX_PATH_CHARACTERS]
    return replace(actor, path=path, address=client[0] if client else None)


def _reason(body: bytes) -> str:
    """The code of an error in OpenAI's shape."""
    with contextlib.suppress(ValueError, KeyError, TypeError):
        return str(json.loads(body)["error"]["code"])
    return "unknown"
