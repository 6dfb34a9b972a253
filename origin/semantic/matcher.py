"""Semantic match: what was asked before, in other words, in the same partition.

    text ──> equal form? ──> encoder ──> index: the likest few ──> veto, verifier ──> matches

What it gives are keys, best first; whoever asks reads their entries. All of it is optional: what
fails, or takes longer than its deadline, is no match.

Invariants
1. A match was decided by the tenant's bound, on exact similarities.
2. Nothing is indexed but what was generated for its very question, and is stored.
3. Nothing here fails a request, or makes it wait longer than the deadline.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from origin.failures import describe
from origin.lifetimes import NO_TIERS, Tiers
from origin.metrics import SEMANTIC, SEMANTIC_ENTRIES, SEMANTIC_SECONDS
from origin.semantic.batcher import Batcher
from origin.semantic.calibration import Calibration
from origin.semantic.decision import Decision, Verdict, is_unmatched, refusal
from origin.semantic.encoder import EncoderError
from origin.semantic.index import Entry, SemanticIndex
from origin.semantic.questions import Question, question_of
from origin.semantic.verifier import Reading, Verifier
from origin.stores.contract import StoreError
from origin.tasks import end, kept_up
from shared.veto import Conflict, Facts, conflicts, read

if TYPE_CHECKING:
    from origin.queries import Query
    from shared.control_document import ControlDocument, Policy
    from shared.envelope import Header

CANDIDATES = 4
"""How many of the likest are looked at: the best is not always the one that means the same."""
ROUNDING = 0.03
"""How far a cosine of an index that rounds is off at most, with room to spare."""
LEARN_TIMEOUT_S = 10.0
MAX_LEARNING = 1000
SWEEP_INTERVAL_S = 60.0
PURGE_FOLLOWED_MS = 60_000
MAX_READ = 4096
log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Neighbour:
    """A question near one that is asked, and what would be decided about the two.

    `verdict` is None where the two are of equal form, which decides; `conflicts` are the veto's.
    """

    key: str
    text: str
    verdict: Verdict | None
    conflicts: tuple[Conflict, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Match:
    """A question whose answer may be given: the key of its entry, and the cosine of the two."""

    key: str
    similarity: float


Tell = Callable[[str, str, float | None], None]
"""Of a decision: the tenant, what came of it (as in `origin.metrics.SEMANTIC`), the cosine."""


class Matcher:
    """One per process. Safe to call from many tasks of one event loop; owns encoder and index.

    `deadline_s` is how long a request waits for it at most; `tiers` say which classes are sealed.
    """

    tell: Tell | None = None
    """Told of every decision, once what came of it is known."""

    def __init__(
        self,
        *,
        encoder: Batcher,
        index: SemanticIndex,
        verifier: Verifier,
        calibration: Calibration,
        deadline_s: float,
        tiers: Tiers = NO_TIERS,
        clock_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self._encoder = encoder
        self._index = index
        self._verifier = verifier
        self._calibration = calibration
        self._decisions: dict[float, Decision] = {}
        self._deadline_s = deadline_s
        self._tiers = tiers
        self._clock_ms = clock_ms
        self._behind: set[asyncio.Task[None]] = set()
        self._sweeping: asyncio.Task[None] | None = None
        self._documents: dict[str, ControlDocument] = {}
        """By tenant the newest that a request came with: a generation may end with an older one."""
        self._clearing = asyncio.Lock()
        """One at a time: all of Redis is looked through for a tenant's."""

    @property
    def version(self) -> str:
        """Of all that decides: 12 hexadecimal characters."""
        return self._calibration.version

    async def start(self) -> None:
        """Begin to follow what other processes index."""
        await self._index.start()
        self._sweeping = asyncio.create_task(kept_up(self._sweep, "semantic index"))

    async def close(self) -> None:
        """Stop; what is not indexed yet is not."""
        await end(self._behind | ({self._sweeping} if self._sweeping else set()))
        await self._index.close()
        await self._encoder.close()

    async def matches(self, query: Query) -> list[Match]:
        """What may answer, best first. Empty where nothing may, or it cannot be known in time."""
        if query.controls.semantic_off or query.document.semantic_rule is None:
            return []
        if query.document.calibration != self.version:
            return []  # another origin process rules: a match would bear its version
        question = question_of(query)
        if question is None:
            return []
        self._follow(query.document)
        began_s = time.perf_counter()
        outcome = "failed"
        similarity: float | None = None
        try:
            async with asyncio.timeout(self._deadline_s):
                found, outcome, similarity = await self._matches(query, question)
        except TimeoutError:
            outcome = "late"
            return []
        except (EncoderError, StoreError) as exc:
            log.warning("semantic match: %s", exc)
            return []
        except Exception as exc:  # noqa: BLE001 - a bug of ours costs a match, and no request
            log.error("semantic match: %s", describe(exc))  # noqa: TRY400
            return []
        finally:
            SEMANTIC_SECONDS.observe(time.perf_counter() - began_s)
            if outcome != "hit":  # that is known when the entry is read
                self.count(query.tenant, outcome, similarity)
        return found

    async def neighbours(self, query: Query, count: int) -> list[Neighbour] | str:
        """The likest questions, best first, or why none are looked for. For an explanation.

        Raises StoreError, EncoderError and TimeoutError.
        """
        if query.controls.semantic_off:
            return "the request says Encore-Semantic: off"
        if query.document.policy.semantic == "off":
            return "the tenant's policy is off"
        if query.document.calibration != self.version:
            return "another origin process rules, which has another calibration"
        question = question_of(query)
        if question is None:
            return "only the text of a chat's last user message is matched, without tools"
        reading = await self._read(question.text)
        if reading is None:
            return "the text is longer than the encoder's window"
        where = question.tenant, question.partition
        now_ms, private = self._clock_ms(), self._is_private(query)
        same = await self._index.find(*where, question.form, now_ms=now_ms, private=private)
        candidates = await self._index.search(
            *where, reading.encoding.vector, count=count, now_ms=now_ms, private=private
        )
        decision = self._decision(query.document.policy)
        least = query.controls.semantic_threshold or 0.0
        found = []
        shown = {query.key}
        if same is not None and same.key not in shown:
            found.append(Neighbour(key=same.key, text=same.text, verdict=None))
            shown.add(same.key)
        for candidate in candidates:
            other = None if candidate.key in shown else await self._read(candidate.text)
            if other is None:
                continue
            verdict = decision.decide(reading, other, min_similarity=least)
            found.append(
                Neighbour(
                    key=candidate.key,
                    text=candidate.text,
                    verdict=verdict,
                    conflicts=conflicts(reading.facts, other.facts),
                )
            )
        return found

    def count(self, tenant: str, outcome: str, similarity: float | None = None) -> None:
        """Count what came of a request: `similarity` is the likest question's, where one is."""
        SEMANTIC.labels(outcome).inc()
        if self.tell is not None:
            self.tell(tenant, outcome, similarity)

    async def check(self) -> str:
        """How the encoder does now: ok, late or failed."""
        try:
            await self._encoder.encode(f"Is anybody there? {self._clock_ms()}", self._deadline_s)
        except TimeoutError:
            return "late"
        except EncoderError:
            return "failed"
        return "ok"

    def learn(self, query: Query, header: Header) -> None:
        """Index, behind the answer, what was generated and stored."""
        if query.document.policy.semantic == "off" or header.source is not None:
            return
        question = question_of(query)
        if question is None:
            return
        self._follow(query.document)
        if len(self._behind) >= MAX_LEARNING:
            SEMANTIC_ENTRIES.labels("dropped").inc()
            return
        self._do_behind(self._learn(question, header, private=self._is_private(query)))

    async def forget(self, tenant: str, key: str) -> None:
        """Take out what has no entry any more."""
        try:
            await self._index.remove(tenant, [key])
        except StoreError as exc:
            log.warning("semantic index: %s", exc)

    async def learned(self) -> None:
        """Wait until all that was learnt so far is indexed."""
        if self._behind:
            await asyncio.wait(self._behind)

    def _is_private(self, query: Query) -> bool:
        """Whether nothing of a question may leave this process: its answer is sealed at rest."""
        return (
            query.document.policy.encrypted
            or self._tiers.sensitivity(query.controls) == "confidential"
        )

    def _follow(self, document: ControlDocument) -> None:
        """Clear what a purge of everything has ended, and what must not be in Redis any more.

        Purged entries are dead without this, too. A purge that is long known elsewhere is left to
        who knew: they have indexed since.
        """
        tenant, known = document.tenant, self._documents.get(document.tenant)
        if known is not None and document.revision < known.revision:
            return
        self._documents[tenant] = document
        purged_ms = document.cut_offs.all_ms
        is_purged = (
            known is not None
            and purged_ms > known.cut_offs.all_ms
            and self._clock_ms() - purged_ms < PURGE_FOLLOWED_MS
        )
        # Before this process began it may have been indexed in clear.
        was_encrypted = known is not None and known.policy.encrypted
        if is_purged or (document.policy.encrypted and not was_encrypted):
            self._do_behind(self._clear(tenant))

    def _do_behind(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._behind.add(task)
        task.add_done_callback(self._behind.discard)

    async def _clear(self, tenant: str) -> None:
        try:
            async with self._clearing:
                await self._index.clear(tenant)
        except StoreError as exc:
            log.warning("semantic index: %s", exc)

    async def _matches(
        self, query: Query, question: Question
    ) -> tuple[list[Match], str, float | None]:
        """(matches, what came of it, the likest question's cosine where one was looked at)."""
        now_ms = self._clock_ms()
        tenant, partition = question.tenant, question.partition
        private = self._is_private(query)
        same = await self._index.find(
            tenant, partition, question.form, now_ms=now_ms, private=private
        )
        if same is not None and same.key != query.key:
            return [Match(key=same.key, similarity=1.0)], "hit", 1.0
        decision = self._decision(query.document.policy)
        if decision.threshold is None:
            return [], "refused", None
        # The encoder first: what is past its window is not for the veto, which reads on this loop.
        reading = await self._read(question.text)
        if reading is None:
            return [], "unread", None
        if is_unmatched(reading.facts):
            return [], "refused", None
        candidates = await self._index.search(
            tenant,
            partition,
            reading.encoding.vector,
            count=CANDIDATES,
            now_ms=now_ms,
            private=private,
        )
        least = query.controls.semantic_threshold or 0.0
        rounding = 0.0 if self._index.is_exact else ROUNDING
        floor = decision.floor(reading.facts) - rounding
        scored: list[tuple[float, Match]] = []
        for candidate in candidates:
            if candidate.key == query.key:
                continue
            # Cheap before dear: what no score can save, what the words forbid, then the encoder.
            if candidate.similarity < floor:
                continue
            facts = _facts(candidate.text)
            if candidate.similarity < decision.floor(reading.facts, facts) - rounding:
                continue
            if refusal(reading.facts, facts, in_order=decision.in_order):
                continue
            other = await self._read(candidate.text)
            if other is None:
                continue
            verdict = decision.decide(reading, other, min_similarity=least)
            if verdict.hit:
                match = Match(key=candidate.key, similarity=verdict.similarity)
                scored.append((verdict.score or 0.0, match))
        scored.sort(key=lambda each: each[0], reverse=True)
        outcome = "hit" if scored else "refused" if candidates else "none"
        others = (each.similarity for each in candidates if each.key != query.key)
        return [match for _, match in scored], outcome, max(others, default=None)

    async def _read(self, text: str) -> Reading | None:
        """A text, read for the decision; None where the encoder's window is too short for it."""
        encoding = await self._encoder.encode(text, self._deadline_s)
        if encoding is None:
            return None
        return Reading(text=text, facts=_facts(text), encoding=encoding)

    def _decision(self, policy: Policy) -> Decision:
        """What decides by a policy, which allows semantic match."""
        bound = policy.semantic_bound or 0.0
        if bound not in self._decisions:
            self._decisions[bound] = Decision.end_to_end(self._verifier, self._calibration, bound)
            if self._decisions[bound].threshold is None:
                log.warning("semantic match: that at most %g is wrong cannot be shown", bound)
        return self._decisions[bound]

    async def _learn(self, question: Question, header: Header, *, private: bool) -> None:
        try:
            encoding = await self._encoder.encode(question.text, LEARN_TIMEOUT_S)
            if encoding is None:
                SEMANTIC_ENTRIES.labels("unread").inc()
                return
            entry = Entry(
                tenant=question.tenant,
                partition=question.partition,
                key=header.key,
                text=question.text,
                form=question.form,
                vector=encoding.vector,
                # Stale answers are for who asked the very question.
                expires_ms=header.fresh_until_ms,
            )
            # As late as can be: the tenant may have been encrypted since its request came.
            newest = self._documents.get(question.tenant)
            private = private or (newest is not None and newest.policy.encrypted)
            await self._index.add(entry, now_ms=self._clock_ms(), private=private)
        except (TimeoutError, EncoderError, StoreError) as exc:
            SEMANTIC_ENTRIES.labels("failed").inc()
            log.warning("not indexed: %s", exc or "too late")
        except Exception as exc:  # noqa: BLE001 - as above
            SEMANTIC_ENTRIES.labels("failed").inc()
            log.error("not indexed: %s", describe(exc))  # noqa: TRY400
        else:
            SEMANTIC_ENTRIES.labels("indexed").inc()

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_INTERVAL_S)
            try:
                await self._index.sweep(self._clock_ms())
            except StoreError as exc:
                log.warning("semantic index: %s", exc)


@lru_cache(maxsize=MAX_READ)
def _facts(text: str) -> Facts:
    """What the veto goes by: the likest are read again and again."""
    return read(text)
