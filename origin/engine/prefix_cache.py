"""What an engine keeps of the prompts it has read, so that one which begins alike need not be.

Ties the tree of known prefixes to the keys and values of a model. A prompt is read in blocks that
end at fixed cuts, whether its beginning is known or not.

- `exact`: only whole blocks that end at a cut and are not the prompt's last are kept and taken
  again. Each block is the same pass over the same tensors then, so the same bits come out.
- `fast`: whatever is known of a prompt but its last token is taken, tokens of answers too. Blocks
  may then begin elsewhere than at cuts, and float arithmetic gives nearly the same bits only.
- `off`: nothing is kept; the same passes as `exact`, so the same bits.

Invariants
1. Prefixes are shared within one root only: a tenant's one scope.
2. At least one token of a prompt is read.
3. No more than `limit_bytes` are kept, pinned ones and those in use included.
4. What is kept is a copy: no sequence that goes on writes into it.

Of the engine's thread alone.
"""

from __future__ import annotations

import logging
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, Self

from origin.engine.prefix_tree import Match, PrefixTree
from origin.metrics import PREFIX_BYTES, PREFIX_EVICTIONS, PREFIX_LIMIT_BYTES, PREFIX_NODES

if TYPE_CHECKING:
    from origin.engine.causal_model import CausalModel, State
    from origin.engine.cuts import Cuts
    from origin.engine.kv_cache import KvBlock

logger = logging.getLogger(__name__)

Mode = Literal["exact", "fast", "off"]
PINNED_SHARE: Final = 0.5
"""The most of the limit that pinned prompts may have: the rest is for what is said now."""


@dataclass(frozen=True, slots=True)
class Root:
    """Who shares prefixes with whom. `engine` is the model, its numbers and its cuts."""

    engine: str
    tenant: str | None
    scope: str | None


class PrefixCache:
    """One engine's. `pinned` are token ids that stay, once read, by name."""

    def __init__(
        self,
        model: CausalModel,
        cuts: Cuts,
        *,
        mode: Mode = "exact",
        limit_bytes: int = 0,
        pinned: Mapping[str, Sequence[int]] | None = None,
    ) -> None:
        self.model = model
        self.cuts = cuts
        self.is_fast = mode == "fast"
        self.is_on = mode != "off" and model.layout is not None and limit_bytes > 0
        self.tree: PrefixTree[KvBlock] = PrefixTree(
            limit_bytes=limit_bytes if self.is_on else 0, cuts=cuts, at_cuts_only=not self.is_fast
        )
        self._pinned = {name: tuple(ids) for name, ids in (pinned or {}).items() if ids}
        self._pins: set[tuple[Hashable, str]] = set()
        self._refused: set[str] = set()
        self._evicted = dict.fromkeys(self.tree.evictions, 0)
        PREFIX_LIMIT_BYTES.set(self.tree.limit_bytes)

    def begin(self, root: Root, ids: Sequence[int]) -> Reading:
        """Begin to read a prompt after what is known of it."""
        if not self.is_on:
            return Reading(self, None, self.model.begin(), ids)
        known = len(ids) - 1 if self.is_fast else self.cuts.floor(len(ids) - 1)
        match = self.tree.match(root, ids[:known])
        return Reading(self, match, self.model.begin(match.parts), ids)

    def keep(self, root: Root, ids: Sequence[int], state: State) -> None:
        """Keep what a sequence has read of a prompt and its answer (fast mode)."""
        if not (self.is_on and self.is_fast) or self._slides or state.cache is None:
            return
        ids = ids[: state.cache.tokens]
        with self.tree.match(root, ids) as match:
            while match.tokens < len(ids):
                end = min(self.cuts.next(match.tokens), len(ids))
                if not self.insert(match, ids[match.tokens : end], state):
                    break
        self.report()

    def forget(self, tenant: str | None) -> None:
        """Drop the prefixes of a tenant, or of all."""
        for root in list(self.tree.roots):
            if tenant is None or (isinstance(root, Root) and root.tenant == tenant):
                self.tree.drop(root)
                self._pins -= {(root, name) for name in self._pinned}
        self.report()

    def insert(self, match: Match[KvBlock], ids: Sequence[int], state: State) -> bool:
        """Keep tokens that follow a match and that `state` holds."""
        start, end = match.tokens, match.tokens + len(ids)
        size_bytes = len(ids) * state.cache.token_bytes
        return self.tree.insert(match, ids, lambda: state.cache.block(start, end), size_bytes)

    def pin(self, root: Hashable, ids: Sequence[int]) -> None:
        """Pin what a prompt begins with, where it is to be."""
        for name, begin in self._pinned.items():
            if (root, name) in self._pins or tuple(ids[: len(begin)]) != begin:
                continue
            with self.tree.match(root, begin) as match:
                more = sum(block.size_bytes for block, _ in match.parts)
                if self.tree.pinned_bytes + more > self.tree.limit_bytes * PINNED_SHARE:
                    if name not in self._refused:
                        logger.warning("no room left to pin %r for every tenant", name)
                    self._refused.add(name)
                elif self.tree.pin(match, name):
                    self._pins.add((root, name))

    def report(self) -> None:
        """Say what is kept, for monitoring."""
        tree = self.tree
        PREFIX_BYTES.set(tree.bytes)
        PREFIX_NODES.set(tree.nodes)
        for reason, count in tree.evictions.items():
            PREFIX_EVICTIONS.labels(reason).inc(count - self._evicted[reason])
            self._evicted[reason] = count

    @property
    def _slides(self) -> bool:
        return self.model.layout is not None and self.model.layout.slides


class Reading:
    """A prompt as it is read: a context manager that lets go of what it was taken from.

    `state` is what the model has read of it; `cached` is how many of its tokens were known.
    """

    def __init__(
        self,
        prefixes: PrefixCache,
        match: Match[KvBlock] | None,
        state: State,
        ids: Sequence[int],
    ) -> None:
        self._prefixes = prefixes
        self._match = match
        self._ids = ids
        self.state = state
        self.cached = 0 if match is None else match.tokens
        self._position = self.cached

    @property
    def is_over(self) -> bool:
        """Whether all of it has been read."""
        return self._position == len(self._ids)

    def read_block(self) -> None:
        """Read the next block: one pass of the model. Keeps it where that is right."""
        prefixes, ids = self._prefixes, self._ids
        start = self._position
        cut = prefixes.cuts.next(start)
        end = min(cut, len(ids))
        prefixes.model.read(self.state, ids[start:end])
        self._position = end
        match = self._match
        # A block that could not be kept has none below it.
        if match is not None and match.tokens == start:
            if prefixes.is_fast or end < len(ids):
                prefixes.insert(match, ids[start:end], self.state)
            if self.is_over:
                prefixes.pin(match.root.identity, ids)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._match is not None:
            self._match.release()
            self._prefixes.report()
