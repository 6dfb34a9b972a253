"""Models whose entries are kept, by fingerprint: another model of the same name has them purged.

Readers at the origin refuse entries of another fingerprint by themselves; the edge knows nothing of
fingerprints, and takes what is purged for dead.

The control store keeps each fingerprint from before the first entry of a model is stored. So what
is compared when a process starts is every model that there can be entries of, also of an upstream
that lists none. With them it keeps the id of the secret, so that the audit log tells of another.
"""

from __future__ import annotations

import asyncio
import logging

from origin.audit import ORIGIN, Act
from origin.control import UNREADABLE, Control
from origin.engine.contract import Engine
from origin.stores.contract import StoreError
from origin.stores.control_contract import EVERY_TENANT, ControlStore
from origin.tasks import until_done
from shared.control_document import ControlError, Purge
from shared.errors import EncoreError
from shared.keys import KeyRings

MAX_MODELS = 10_000
"""Some upstreams answer for any name. Of more than these no change is noticed."""
_MODEL = "model:"
_SECRET = "secret"  # noqa: S105 - the name of a fact
log = logging.getLogger(__name__)


class KnownModels:
    """One per process. Safe to call from many tasks of one event loop."""

    def __init__(
        self, *, store: ControlStore, control: Control, engine: Engine, keys: KeyRings
    ) -> None:
        self._store = store
        self._control = control
        self._engine = engine
        self._keys = keys
        self._noted: dict[str, str] = {}
        self._compared = False
        self._purged_from_ms: int | None = None
        """When it was first tried: who has been purged since is not purged again."""
        self._turn = asyncio.Lock()

    async def compare(self) -> bool:
        """Purge what has changed since it was noted; whether that is done. Once is enough.

        It is, but for tenants whose documents are damaged: nothing of theirs is served meanwhile.
        """
        async with self._turn:
            if not self._compared:
                try:
                    await self._compare()
                except (StoreError, EncoreError) as exc:
                    log.warning("models are not compared yet: %s", exc)
                    return isinstance(exc, EncoreError) and exc.code == UNREADABLE
                self._compared = True
        return True

    async def compare_until_done(self) -> None:
        """Compare, again and again where the control store cannot be asked."""

        async def is_compared() -> bool:
            await self.compare()
            return self._compared

        await until_done(is_compared)

    async def note(self, model: str, fingerprint: str) -> None:
        """Keep the fingerprint of a model of which an entry is about to be stored.

        Raises StoreError.
        """
        if self._noted.get(model) == fingerprint:
            return
        async with self._turn:
            if self._noted.get(model) == fingerprint:
                return
            facts = await self._store.facts()
            if facts.get(_MODEL + model) is None:
                if len(facts) >= MAX_MODELS:
                    log.warning("more than %d models: changes go unnoticed", MAX_MODELS)
                else:
                    await self._store.keep_fact(_MODEL + model, fingerprint)
            if len(self._noted) >= MAX_MODELS:
                self._noted.clear()
            self._noted[model] = fingerprint

    async def _compare(self) -> None:
        facts = await self._store.facts()
        changed: dict[str, str] = {}
        for name, noted in facts.items():
            if not name.startswith(_MODEL):
                continue
            model = name.removeprefix(_MODEL)
            try:
                fingerprint = await self._engine.fingerprint(model)
            except EncoreError:
                continue  # not ours to answer for: perhaps another origin's
            if fingerprint != noted:
                changed[model] = fingerprint
        if changed:
            log.warning("models that have changed are purged: %s", ", ".join(sorted(changed)))
            try:
                purge = Purge(models=tuple(changed))
            except ControlError:  # more than one purge can name
                purge = Purge(everything=True)
            if self._purged_from_ms is None:
                self._purged_from_ms = await self._store.now_ms()
            await self._control.apply(EVERY_TENANT, purge, ORIGIN, heard_ms=self._purged_from_ms)
            # Not before: who dies in between purges again.
            for model, fingerprint in changed.items():
                await self._store.keep_fact(_MODEL + model, fingerprint)
        current = self._keys.current.id
        if facts.get(_SECRET) != current:
            if _SECRET in facts:
                act = Act(action="secret-change", facts={"from": facts[_SECRET], "to": current})
                await self._store.record([act.record(None)])
            await self._store.keep_fact(_SECRET, current)
