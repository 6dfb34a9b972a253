"""The path of a request, from edge to model, with rules in the place of parts.

What decides is what decides in earnest: `shared.freshness` whether an entry may answer,
`origin.lifetimes` how long one is kept and where, `origin.edge_writes` what is written to KV,
`origin.sliding` what slides, `origin.semantic.matcher` what means the same. What is different:

- An entry is its times, in arrays, so that a million keys fit into memory.
- Every answer is complete and may be stored; nothing fails, nothing is purged or evicted.
- A generation takes a fixed time, in which others join it; one behind an answer takes none.
- Each location is one isolate that knows all control documents.

A replay keeps no request, and reads no clock.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

from origin.edge_writes import is_for_edge
from origin.lifetimes import Storing, Tiers
from origin.planning.keying import Asked
from origin.planning.kv import KvModel, Locations
from origin.planning.l1 import BYTES_A_TOKEN, ENTRY_BYTES, VECTOR_BYTES, L1Model
from origin.planning.places import Places
from origin.planning.tally import Outcome, Setting, Tally, Tokens
from origin.sliding import later_by_ms
from shared.controls import Controls
from shared.freshness import Forward, Lifetimes, Serve, decide
from shared.requests import Endpoint

if TYPE_CHECKING:
    from origin.planning.semantic import SemanticReplay

MEMORY_BYTES = 640 << 20
"""What keys and their state may take in all, at most."""
_KEY_BYTES = 128
_STATE_BYTES = 80
_NO_WISHES: tuple[int | None, ...] = (None,)


class Replay:
    """Settings side by side, over one log. Those of one profile share its keys."""

    def __init__(
        self,
        settings: Sequence[Setting],
        *,
        lifetimes: Lifetimes,
        tiers: Tiers,
        generation_ms: int,
        semantic: Sequence[SemanticReplay | None] = (),
        memory_bytes: int = MEMORY_BYTES,
    ) -> None:
        self.profiles = tuple(dict.fromkeys(each.normalisation for each in settings))
        each_bytes = len(self.profiles) * _KEY_BYTES + len(settings) * _STATE_BYTES
        limit = memory_bytes // each_bytes
        self.places = [Places(limit) for _ in self.profiles]
        self.locations = Locations()
        self.caches = [
            CacheReplay(
                setting,
                self.places[self.profiles.index(setting.normalisation)],
                lifetimes=Lifetimes(
                    ttl_s=setting.ttl_s,
                    stale_while_revalidate_s=lifetimes.stale_while_revalidate_s,
                    stale_if_error_s=lifetimes.stale_if_error_s,
                    max_ttl_s=max(lifetimes.max_ttl_s, setting.ttl_s),
                ),
                tiers=tiers,
                generation_ms=generation_ms,
                semantic=semantic[number] if semantic else None,
            )
            for number, setting in enumerate(settings)
        ]
        self._groups = [
            [each for each in self.caches if each.setting.normalisation == profile]
            for profile in self.profiles
        ]

    def add(self, asked: Asked) -> None:
        """Let one request be answered under each setting."""
        location = self.locations.number(asked.location)
        for keys, places, caches in zip(asked.keys, self.places, self._groups, strict=True):
            for key in keys:
                place = places.place(key)
                if place is None:
                    continue
                weight = places.weight
                if place == len(caches[0].l1):  # it is new, and dense
                    for cache in caches:
                        cache.grow()
                for cache in caches:
                    cache.add(asked, place, location, weight, 1 / len(keys))
            freed = places.thin()
            if freed:
                for cache in caches:
                    cache.forget(freed)

    def add_all(self, asked: Iterable[Asked]) -> None:
        """Let them all be answered, in order."""
        for each in asked:
            self.add(each)


class _Entry:
    """The times of an entry, and whether it stays at the origin: what headers say of them.

    One for all entries, filled anew for each decision.
    """

    __slots__ = (
        "created_ms",
        "error_until_ms",
        "expires_ms",
        "fresh_until_ms",
        "origin_only",
        "stale_until_ms",
    )

    def __init__(self) -> None:
        self.created_ms = self.fresh_until_ms = self.stale_until_ms = self.error_until_ms = 0
        self.expires_ms = 0
        self.origin_only = False


class CacheReplay:
    """One setting. `tally` is what it came to so far."""

    def __init__(
        self,
        setting: Setting,
        places: Places,
        *,
        lifetimes: Lifetimes,
        tiers: Tiers,
        generation_ms: int,
        semantic: SemanticReplay | None,
    ) -> None:
        self.setting = setting
        self.tally = Tally()
        self.kv = KvModel()
        self.l1 = L1Model()
        self.semantic = semantic
        self._places = places
        self._lifetimes = lifetimes
        self._tiers = tiers
        self._generation_ms = generation_ms
        self._slides = tiers.any_slides
        self._stale_ms = lifetimes.stale_while_revalidate_s * 1000
        self._error_ms = lifetimes.stale_if_error_s * 1000
        self._at_edge = _Entry()
        self._at_origin = _Entry()
        self._sources: dict[int, float] = {}
        """Similarities of entries that were promoted, by place."""
        self._storing = lru_cache(maxsize=1024)(self._storing_of)

    def grow(self) -> None:
        """Make room for one place more."""
        self.l1.grow()
        self.kv.grow()

    def add(self, asked: Asked, place: int, location: int, weight: int, share: float) -> None:
        """Let one input of a request, a `share` of it, be answered."""
        counted = weight * share
        outcome = self._outcome(asked, place, location, weight, share)
        self.tally.count(outcome, asked.time_ms, counted)
        if outcome in ("model", "bypass"):
            _count(self.tally.spent, asked, counted)
        elif outcome != "refused":
            _count(self.tally.saved, asked, counted)

    def forget(self, places: Iterable[int]) -> None:
        """Leave nothing at places that were given up."""
        for place in places:
            self.l1.forget(place)
            self.kv.forget(place)
            self._sources.pop(place, None)
        self.kv.forget_reads()

    def _outcome(
        self, asked: Asked, place: int, location: int, weight: int, share: float
    ) -> Outcome:
        now_ms, controls = asked.time_ms, asked.controls
        if controls.directives.no_store or asked.bypass == "too-large":
            return "bypass"
        if not asked.is_batch:
            self.tally.kv_reads += weight
            entry = self._found(self._at_edge, *self.kv.read(place, location, now_ms))
            if entry is not None and not self._refused(place, controls):
                decision = decide(entry, now_ms, controls.directives)
                if isinstance(decision, Serve):
                    self._count_hit(decision, place, weight * share)
                    if decision.revalidate:
                        self._refresh_edge(asked, place, location, weight, share)
                    return "edge"
        if asked.bypass is not None:
            return "bypass"
        return self._at_the_origin(asked, place, location, weight, share)

    def _at_the_origin(
        self, asked: Asked, place: int, location: int, weight: int, share: float
    ) -> Outcome:
        now_ms, controls = asked.time_ms, asked.controls
        self.tally.l1_reads += weight
        created_ms = self.l1.created[place]
        is_being_made = created_ms > now_ms
        entry = None
        if not is_being_made:
            entry = self._found(self._at_origin, created_ms, self.l1.fresh[place])
        if entry is not None and (entry.expires_ms < now_ms or self._refused(place, controls)):
            entry = None
        decision: Serve | Forward | None = None
        if entry is not None:
            decision = decide(entry, now_ms, controls.directives)
            if isinstance(decision, Serve):
                self._count_hit(decision, place, weight * share)
                if decision.revalidate:
                    self._refresh(asked, place, weight, share)
                else:
                    self._slide(asked, place, weight)
                    self._write(asked, place, location, weight)
                return "l1"
        if (
            self.semantic is not None
            and entry is None
            and not is_being_made
            and not controls.directives.no_cache
            and self._match(asked, place, weight)
        ):
            self._write(asked, place, location, weight)
            return "semantic"
        if controls.directives.only_if_cached:
            return "refused"
        if is_being_made and not controls.directives.no_cache:
            return "joined"
        # What there is goes on answering others meanwhile.
        is_there = entry is not None and now_ms <= entry.stale_until_ms
        created_ms = now_ms + (0 if is_there or is_being_made else self._generation_ms)
        if self._store(asked, place, weight, created_ms, controls):
            self._write(asked, place, location, weight)
        return "model"

    def _found(self, entry: _Entry, created_ms: int, fresh_ms: int) -> _Entry | None:
        """An entry of these times, None where there is none."""
        if not created_ms:
            return None
        entry.created_ms, entry.fresh_until_ms = created_ms, fresh_ms
        entry.stale_until_ms = fresh_ms + self._stale_ms
        entry.error_until_ms = fresh_ms + self._error_ms
        entry.expires_ms = max(entry.stale_until_ms, entry.error_until_ms)
        return entry

    def _refused(self, place: int, controls: Controls) -> bool:
        """Whether it is the answer to another question, and not wanted."""
        similarity = self._sources.get(place) if self._sources else None
        return similarity is not None and controls.refuses(similarity)

    def _count_hit(self, served: Serve, place: int, weight: float) -> None:
        if served.revalidate or served.ttl_s < 0:
            self.tally.stale += weight
        if self._sources and place in self._sources:
            self.tally.matched += weight

    def _refresh_edge(
        self, asked: Asked, place: int, location: int, weight: int, share: float
    ) -> None:
        """What the edge does behind a stale answer: it asks the origin, and takes what is new."""
        self.tally.l1_reads += weight
        now_ms = asked.time_ms
        entry = self._found(self._at_origin, self.l1.created[place], self.l1.fresh[place])
        if entry is None or now_ms > entry.fresh_until_ms:
            is_servable = entry is not None and now_ms <= entry.stale_until_ms
            self._refresh(asked, place, weight, share)
            if is_servable:
                return  # it was told the stale one again, and takes the new one the next time
        self._write(asked, place, location, weight)

    def _refresh(self, asked: Asked, place: int, weight: int, share: float) -> None:
        """Make a new entry behind a stale answer."""
        self.tally.refreshes += weight * share
        _count(self.tally.refreshed, asked, weight * share)
        old = self._found(self._at_origin, self.l1.created[place], self.l1.fresh[place])
        ttl_s = None
        if old is not None:
            content_class = asked.controls.content_class
            ttl_s = self._tiers.refresh_ttl_s(self._lifetimes, asked.model, content_class, old)
        self._store(asked, place, weight, asked.time_ms, Controls(ttl_s=ttl_s))

    def _store(
        self, asked: Asked, place: int, weight: int, created_ms: int, wishes: Controls
    ) -> bool:
        """Keep what was generated, if it is to be kept."""
        content_class = asked.controls.content_class
        storing = self._storing(asked.model, content_class, wishes.ttl_s)
        if storing is None:
            return False
        fresh_ms, stale_ms, error_ms = (created_ms + each for each in storing.expiry_ms)
        self._sources.pop(place, None)
        self._put(
            place,
            asked,
            weight,
            created_ms=created_ms,
            fresh_ms=fresh_ms,
            expires_ms=max(stale_ms, error_ms),
            size_bytes=_size_bytes(asked),
        )
        if self.semantic is not None:
            self.semantic.learn(asked, fresh_ms)
        return True

    def _put(
        self,
        place: int,
        asked: Asked,
        weight: int,
        *,
        created_ms: int,
        fresh_ms: int,
        expires_ms: int,
        size_bytes: int,
    ) -> None:
        self.tally.l1_writes += weight
        self.l1.put(
            place,
            asked.time_ms,
            created_ms=created_ms,
            fresh_ms=fresh_ms,
            expires_ms=expires_ms,
            size_bytes=size_bytes,
            weight=weight,
        )

    def _write(self, asked: Asked, place: int, location: int, weight: int) -> None:
        """Let the edge put what L1 has into KV, if that is granted."""
        if asked.is_batch:
            return
        created_ms, fresh_ms = self.l1.created[place], self.l1.fresh[place]
        entry = self._found(self._at_origin, created_ms, fresh_ms)
        if entry is None:
            return
        at_ms = max(asked.time_ms, created_ms)
        storing = self._storing(asked.model, asked.controls.content_class, None)
        entry.origin_only = storing is None or not storing.edge
        if is_for_edge(entry, at_ms) and self.l1.grant(
            place, at_ms, after=self.setting.admit_after
        ):
            self.tally.kv_writes += weight
            self.kv.write(place, location, asked.time_ms, created_ms, fresh_ms)

    def _slide(self, asked: Asked, place: int, weight: int) -> None:
        """Move the end of an entry that was hit, where it slides."""
        if not self._slides or place in self._sources:
            return
        ttl_s = self._tiers.sliding_s(self._lifetimes, asked.model, asked.controls.content_class)
        entry = self._found(self._at_origin, self.l1.created[place], self.l1.fresh[place])
        if ttl_s is None or entry is None:
            return
        moved_ms = later_by_ms(
            entry,
            asked.time_ms,
            ttl_s=ttl_s,
            wish_s=asked.controls.ttl_s,
            max_ttl_s=self._lifetimes.max_ttl_s,
        )
        if moved_ms > 0:
            self._put(
                place,
                asked,
                weight,
                created_ms=entry.created_ms,
                fresh_ms=entry.fresh_until_ms + moved_ms,
                expires_ms=entry.expires_ms + moved_ms,
                size_bytes=self.l1.size_of(place),
            )

    def _match(self, asked: Asked, place: int, weight: int) -> bool:
        """Whether the entry of another question answers; it is then this one's, too."""
        now_ms = asked.time_ms
        if self.semantic is None:
            return False
        for key, similarity in self.semantic.matches(asked):
            source = self._places.find(key)
            if source is None or source in self._sources:
                continue
            entry = self._found(self._at_origin, self.l1.created[source], self.l1.fresh[source])
            if entry is None or entry.created_ms > now_ms or entry.expires_ms < now_ms:
                continue
            decision = decide(entry, now_ms, asked.controls.directives)
            if not isinstance(decision, Serve) or decision.revalidate:
                continue
            fresh_ms, wish_s = entry.fresh_until_ms, asked.controls.ttl_s
            sooner_ms = 0 if wish_s is None else max(0, fresh_ms - now_ms - wish_s * 1000)
            self._sources[place] = similarity
            self._put(
                place,
                asked,
                weight,
                created_ms=entry.created_ms,
                fresh_ms=fresh_ms - sooner_ms,
                expires_ms=entry.expires_ms - sooner_ms,
                size_bytes=self.l1.size_of(source),
            )
            return True
        return False

    def _storing_of(
        self, model: str, content_class: str | None, ttl_s: int | None
    ) -> Storing | None:
        """How an answer is kept, its end counted from when it is made."""
        wishes = _NO_WISHES if ttl_s is None else (ttl_s,)
        return self._tiers.storing(self._lifetimes, model, content_class, wishes, 0)


def _count(tokens: Tokens, asked: Asked, weight: float) -> None:
    usd = None if asked.usd is None else asked.usd * weight
    tokens.add(asked.prompt_tokens * weight, asked.completion_tokens * weight, usd)


def _size_bytes(asked: Asked) -> int:
    if asked.endpoint is Endpoint.EMBEDDINGS:
        return VECTOR_BYTES
    return ENTRY_BYTES + round(asked.completion_tokens * BYTES_A_TOKEN)
