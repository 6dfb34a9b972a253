"""Known prefixes as a plain list, searched whole each time: the oracle of the prefix tree."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable
from dataclasses import dataclass, field

from origin.engine.cuts import Cuts

Ids = tuple[int, ...]


@dataclass(eq=False)
class Entry:
    """The tokens of one prompt from `start` on; `ids` are all from its beginning."""

    root: object
    ids: Ids
    start: int
    size_bytes: int
    holders: int = 0
    pins: int = 0
    released_at: int = 0


@dataclass(eq=False)
class NaiveMatch:
    """A known prefix and the entries which it holds."""

    root: object
    ids: Ids
    held: list[Entry] = field(default_factory=list)


class NaivePrefixes:
    """What `PrefixTree` does, without a tree; a token takes `token_bytes`."""

    def __init__(
        self, *, limit_bytes: int, cuts: Cuts, at_cuts_only: bool, token_bytes: int
    ) -> None:
        self.limit_bytes = limit_bytes
        self.cuts = cuts
        self.at_cuts_only = at_cuts_only
        self.token_bytes = token_bytes
        self.entries: list[Entry] = []
        self.roots: dict[Hashable, object] = {}
        self.pins: dict[tuple[object, Hashable], list[Entry]] = {}
        self.evictions = {"limit": 0, "dropped": 0}
        self.refusals = 0
        self.now = 0

    @property
    def bytes(self) -> int:
        """What all entries take."""
        return sum(entry.size_bytes for entry in self.entries)

    @property
    def pinned_bytes(self) -> int:
        """What the pinned ones take."""
        return sum(entry.size_bytes for entry in self.entries if entry.pins)

    def match(self, root: Hashable, ids: Ids) -> NaiveMatch:
        """The longest prefix that an entry has."""
        found = NaiveMatch(self.roots.setdefault(root, object()), ())
        self.extend(found, self.known(found.root, ids))
        return found

    def insert(self, match: NaiveMatch, ids: Ids) -> bool:
        """Add an entry of those of the ids that are not known."""
        whole, size_bytes = match.ids + ids, len(ids) * self.token_bytes
        if match.root not in self.roots.values():
            return False
        known = self.known(match.root, whole)
        if known != whole:
            kept = [
                entry
                for entry in self.entries
                if entry.holders or self.used(entry, match.root, known)
            ]
            if sum(entry.size_bytes for entry in kept) + size_bytes > self.limit_bytes:
                self.refusals += 1
                return False
        self.extend(match, known)
        if known != whole:
            while self.bytes + size_bytes > self.limit_bytes:
                idle = [entry for entry in self.entries if not entry.holders]
                leaves = [entry for entry in idle if not self.has_children(entry)]
                self.entries.remove(min(leaves, key=lambda entry: entry.released_at))
                self.evictions["limit"] += 1
            stored_bytes = (len(whole) - len(known)) * self.token_bytes
            self.entries.append(Entry(match.root, whole, len(known), stored_bytes))
            self.extend(match, whole)
        return True

    def release(self, match: NaiveMatch) -> None:
        """Hold no more what it holds."""
        self.let_go(match.held)
        match.held = []

    def pin(self, match: NaiveMatch, name: Hashable) -> bool:
        """Hold it once more, under a name."""
        if match.root not in self.roots.values() or not match.held:
            return False
        self.end_pin(self.pins.pop((match.root, name), []), match.held)
        self.pins[match.root, name] = list(match.held)
        return True

    def unpin(self, root: Hashable, name: Hashable) -> bool:
        """Hold it no more."""
        pin = (self.roots.get(root), name)
        if pin not in self.pins:
            return False
        self.end_pin(self.pins.pop(pin), [])
        return True

    def drop(self, root: Hashable) -> None:
        """Forget a root: what is held of it stays in `entries`, where nothing finds it."""
        dropped = self.roots.pop(root, None)
        self.evictions["dropped"] += Counter(entry.root for entry in self.entries)[dropped]
        for pin in [pin for pin in self.pins if pin[0] is dropped]:
            self.end_pin(self.pins.pop(pin), [])
        self.entries = [
            entry for entry in self.entries if entry.root is not dropped or entry.holders
        ]

    def known(self, root: object, ids: Ids) -> Ids:
        """The longest start of the ids that an entry has: whole, or in common."""
        found = 0
        for entry in self.entries:
            common = self.common(entry.ids, ids)
            if entry.root is root and (common == len(entry.ids) or not self.at_cuts_only):
                found = max(found, common)
        return ids[:found]

    def extend(self, match: NaiveMatch, ids: Ids) -> None:
        """Hold what holds the ids, and end after them."""
        for entry in self.entries:
            if entry not in match.held and self.used(entry, match.root, ids):
                entry.holders += 1
                match.held.append(entry)
        match.ids = ids

    def used(self, entry: Entry, root: object, ids: Ids) -> bool:
        """Whether some of the ids are this entry's."""
        common = self.common(entry.ids, ids)
        enough = len(entry.ids) if self.at_cuts_only else entry.start + 1
        return entry.root is root and common >= enough

    def has_children(self, entry: Entry) -> bool:
        """Whether another entry begins after some of this one's tokens."""
        return any(
            other.root is entry.root
            and entry.start < other.start <= len(entry.ids)
            and other.ids[: other.start] == entry.ids[: other.start]
            for other in self.entries
        )

    def end_pin(self, old: list[Entry], new: list[Entry]) -> None:
        """Pin new entries, then end the pins of old ones."""
        for entry in new:
            entry.pins += 1
            entry.holders += 1
        for entry in old:
            entry.pins -= 1
        self.let_go(old)

    def let_go(self, held: list[Entry]) -> None:
        """Hold entries no more; those of a dropped root go with their last holder."""
        self.now += 1
        for entry in held:
            entry.holders -= 1
            if not entry.holders:
                entry.released_at = self.now
                if entry.root not in self.roots.values():
                    self.entries.remove(entry)

    @staticmethod
    def common(known: Ids, asked: Ids) -> int:
        """How many ids two prompts have in common at their start."""
        length = 0
        while length < min(len(known), len(asked)) and known[length] == asked[length]:
            length += 1
        return length
