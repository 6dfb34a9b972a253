"""A semantic match whose verdict the test decides: only to make what follows happen on purpose."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from origin.semantic.matcher import Match, Matcher
from origin.semantic.questions import question_of

if TYPE_CHECKING:
    from origin.queries import Query
    from shared.envelope import Header

VERSION = "0123456789ab"
SIMILARITY = 0.9375


async def _at_once() -> None:
    pass


class LooseMatcher(Matcher):
    """Takes all questions of a partition to mean the same; the one learnt last is the best match.

    `step` is awaited wherever the real one would wait.
    """

    def __init__(self, step: Callable[[], Awaitable[None]] = _at_once) -> None:
        self._step = step
        self.asked = 0
        self.learnt: dict[tuple[str, str], list[str]] = {}

    @property
    def version(self) -> str:
        """See Matcher.version."""
        return VERSION

    async def start(self) -> None:
        """See Matcher.start."""

    async def close(self) -> None:
        """See Matcher.close."""

    async def matches(self, query: Query) -> list[Match]:
        """See Matcher.matches."""
        question = question_of(query)
        if question is None or query.controls.refuses(SIMILARITY):
            return []
        self.asked += 1
        await self._step()
        keys = self.learnt.get((question.tenant, question.partition), [])
        return [Match(key=key, similarity=SIMILARITY) for key in reversed(keys) if key != query.key]

    def learn(self, query: Query, header: Header) -> None:
        """See Matcher.learn."""
        question = question_of(query)
        if question is not None:
            keys = self.learnt.setdefault((question.tenant, question.partition), [])
            keys[:] = [*(key for key in keys if key != header.key), header.key]

    async def forget(self, tenant: str, key: str) -> None:
        """See Matcher.forget."""
        await self._step()
        for (owner, _), keys in self.learnt.items():
            if owner == tenant and key in keys:
                keys.remove(key)
