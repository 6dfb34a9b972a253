"""Which token prefixes are known, and what is stored of each: a radix tree with a hard byte limit.

Must not know: tensors, models, clocks. What is stored of a node's tokens is its payload; here that
is a number of tokens and bytes. Not thread-safe: of the engine's thread alone (the counters may be
read by others).

    root   |--- A: [0, 64) ---|--- B: [64, 128) ---|     two prompts that share 100 tokens, to be
                                     |- C: [100, 128) -|   reused at any token: A, 36 tokens of B, C

Reused at cuts only, a node is one whole interval between cuts, and a child stands below the end of
its parent. Reused at any token, a node may be shorter, and a child may stand below any token of its
parent: nothing is split or copied for it, and a parent's further tokens live as long as its
children. Either way nothing spans a cut.

Invariants
1. Token ids are compared, whole; a hash only leads to what they are compared with.
2. A node's tokens and payload never change. Reused at any token, a prefix is stored once.
3. What is below one root is never found below another.
4. `bytes <= limit_bytes`, always: the payloads of all nodes, those dropped while in use included
   until they are released. A node's own kilobyte does not count.
5. A node in use or pinned is never evicted, nor is any above it: who holds a node holds its path.
6. `_idle`, the nodes that nobody holds, is in the order of their last release, a child before its
   parent. So the first of them is a leaf, and the least recently used one: eviction is O(1).
7. After a drop nothing is added for a match made before it: a purge is not undone by a generation
   that it overtook.
8. No reference cycles among what has left the tree, and a released match refers to no payload: so
   storage is freed at once.
"""

from __future__ import annotations

from array import array
from collections import OrderedDict
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from types import MappingProxyType, TracebackType
from typing import Generic, Protocol, Self, TypeVar

from origin.engine.cuts import Cuts

_ID_BYTES = array("I").itemsize


class Payload(Protocol):
    """What is stored of a node's tokens; immutable."""

    @property
    def size_bytes(self) -> int:
        """Its real storage."""
        ...

    @property
    def tokens(self) -> int:
        """How many tokens it is of."""
        ...

    def tail(self, tokens: int, /) -> Self:
        """All after its first `tokens`, with storage of its own and less of it.

        Called only where reuse is at any token, and rarely: when the first tokens became known
        between a match and its insert.
        """
        ...


P = TypeVar("P", bound=Payload)


class PrefixTree(Generic[P]):
    """Known token prefixes by root (tenant, scope, model, ...), least recently used out first."""

    def __init__(self, *, limit_bytes: int, cuts: Cuts, at_cuts_only: bool = True) -> None:
        """Reuse at cuts only, or at any token."""
        if limit_bytes < 0:
            raise ValueError(f"limit_bytes: {limit_bytes} is negative")
        self.limit_bytes = limit_bytes
        self.bytes = 0
        self.nodes = 0
        self.pinned_bytes = 0
        self.refusals = 0
        self._evictions = {"limit": 0, "dropped": 0}
        self._cuts = cuts
        self._at_cuts_only = at_cuts_only
        self._roots: dict[Hashable, _Root[P]] = {}
        self._idle: OrderedDict[_Node[P], None] = OrderedDict()
        self._idle_bytes = 0

    @property
    def evictions(self) -> Mapping[str, int]:
        """How many nodes have left the tree, by reason: `limit`, `dropped`."""
        return MappingProxyType(self._evictions)

    @property
    def roots(self) -> Collection[Hashable]:
        """The identities of the roots that something is known below, or that are in use."""
        return self._roots.keys()

    def match(self, root: Hashable, ids: Sequence[int]) -> Match[P]:
        """The longest known prefix of the ids below a root, held until the match is released.

        Leave out of `ids` what is to be computed anyhow. ValueError: an id is not in 0..2³²-1.
        """
        packed = _packed(ids)
        branch = self._roots.get(root)
        if branch is None:
            branch = self._roots[root] = _Root(root)
        branch.holders += 1
        found = Match(self, branch)
        self._extend(found, self._walk(branch, 0, 0, packed))
        return found

    def insert(
        self, match: Match[P], ids: Sequence[int], make: Callable[[], P], size_bytes: int
    ) -> bool:
        """Add tokens that follow a match, none beyond the next cut; the match then ends after them.

        What is known of them already is taken instead; `make` is called, for the payload of all
        `ids`, only once there is room for `size_bytes`. False: it would not fit beside what is in
        use, or the root was dropped since; nothing was evicted and the match is as it was. Should
        `make` raise, the match has gained at most tokens that were known.
        ValueError: the match was released, or the tokens, their number or the payload do not fit.
        """
        packed = _packed(ids)
        self._check(match)
        room = self._cuts.next(match.tokens) - match.tokens
        if not (room if self._at_cuts_only else 1) <= len(ids) <= room:
            raise ValueError(f"ids: {len(ids)} at {match.tokens}, {room} before the next cut")
        if match.root.is_dropped:
            return False
        branch, offset = match.end()
        more = _common(branch.ids[offset * _ID_BYTES :], packed)
        below = self._walk(branch, offset + more, match.tokens + more, packed[more * _ID_BYTES :])
        known = more + sum(used for _, used in below)
        if known < len(ids):
            idle = sum(node.payload.size_bytes for node, _ in below if not node.holders)
            in_use = self.bytes - self._idle_bytes + idle
            if in_use + size_bytes > self.limit_bytes:
                self.refusals += 1
                return False
        match.lengthen(more)
        self._extend(match, below)
        if known < len(ids):
            self._evict(self.limit_bytes - size_bytes)
            payload = make()
            if (payload.tokens, payload.size_bytes) != (len(ids), size_bytes):
                raise ValueError(
                    f"payload: {payload.tokens} tokens of {payload.size_bytes} bytes, "
                    f"not {len(ids)} of {size_bytes}"
                )
            self._add(match, packed[known * _ID_BYTES :], payload.tail(known) if known else payload)
        return True

    def pin(self, match: Match[P], name: Hashable) -> bool:
        """Keep what a match found, under a name of its root, until `unpin`, a new pin or a drop.

        Whole nodes are kept, and their bytes count in the limit. False: there is nothing to keep.
        ValueError: the match was released.
        """
        self._check(match)
        root, nodes = match.root, [node for node, _ in match.path]
        if root.is_dropped or not nodes:
            return False
        self._hold(nodes)
        for node in nodes:
            self.pinned_bytes += 0 if node.pins else node.payload.size_bytes
            node.pins += 1
        self._end_pin(root, root.pins.pop(name, ()))
        root.pins[name] = nodes
        return True

    def unpin(self, root: Hashable, name: Hashable) -> bool:
        """Let what was pinned under a name be evicted again; False: nothing was."""
        branch = self._roots.get(root)
        if branch is None or name not in branch.pins:
            return False
        self._end_pin(branch, branch.pins.pop(name))
        return True

    def drop(self, root: Hashable) -> None:
        """Forget all below a root, its pins too. What is in use goes when it is released."""
        branch = self._roots.pop(root, None)
        if branch is None:
            return
        branch.is_dropped = True
        below: list[_Branch[P]] = [branch]
        while below:
            leaving = below.pop()
            below.extend(leaving.children.values())
            leaving.children.clear()
            if isinstance(leaving, _Node):
                self._evictions["dropped"] += 1
                if not leaving.holders:
                    self._take_idle(leaving)
                    self._forget(leaving)
        for nodes in branch.pins.values():
            self._end_pin(branch, nodes)
        branch.pins.clear()

    def _check(self, match: Match[P]) -> None:
        if match.tree is not self or match.is_released:
            raise ValueError("match: it was released, or is of another tree")

    def _walk(
        self, branch: _Branch[P], offset: int, position: int, packed: bytes
    ) -> list[tuple[_Node[P], int]]:
        """The nodes that hold the longest known start of the ids, and how many tokens of each.

        Begins below the first `offset` tokens of a branch, which end at a position of the prompt.
        """
        path: list[tuple[_Node[P], int]] = []
        begin = 0
        while True:
            step = self._cuts.next(position) - position if self._at_cuts_only else 1
            key = packed[begin : begin + step * _ID_BYTES]
            node = branch.children.get((offset, key))
            if node is None:
                return path
            whole = packed[begin : begin + len(node.ids)]
            offset = step if self._at_cuts_only else _common(node.ids, whole)
            path.append((node, offset))
            begin += offset * _ID_BYTES
            position += offset
            branch = node

    def _add(self, match: Match[P], packed: bytes, payload: P) -> None:
        """Store a payload below a match's end."""
        parent, offset = match.end()
        key = (offset, packed if self._at_cuts_only else packed[:_ID_BYTES])
        node = parent.children[key] = _Node(parent, key, packed, payload)
        self.bytes += payload.size_bytes
        self.nodes += 1
        self._put_idle(node)
        self._extend(match, [(node, payload.tokens)])

    def _extend(self, match: Match[P], path: Sequence[tuple[_Node[P], int]]) -> None:
        self._hold(node for node, _ in path)
        match.path.extend(path)
        match.tokens += sum(used for _, used in path)

    def _hold(self, nodes: Iterable[_Node[P]]) -> None:
        for node in nodes:
            if not node.holders:
                self._take_idle(node)
            node.holders += 1

    def _let_go(self, root: _Root[P], nodes: Sequence[_Node[P]]) -> None:
        """Hold the nodes of one path no more, the deepest first."""
        for node in reversed(nodes):
            node.holders -= 1
            if not node.holders:
                if root.is_dropped:
                    self._forget(node)
                else:
                    self._put_idle(node)

    def _release(self, match: Match[P]) -> None:
        self._let_go(match.root, [node for node, _ in match.path])
        match.root.holders -= 1
        self._tidy(match.root)

    def _end_pin(self, root: _Root[P], nodes: Sequence[_Node[P]]) -> None:
        for node in nodes:
            node.pins -= 1
            self.pinned_bytes -= 0 if node.pins else node.payload.size_bytes
        self._let_go(root, nodes)

    def _evict(self, limit_bytes: int) -> None:
        """Evict the least recently used leaves until no more bytes than this are stored."""
        while self.bytes > limit_bytes:
            node = next(iter(self._idle))
            self._take_idle(node)
            self._forget(node)
            self._evictions["limit"] += 1
            del node.parent.children[node.key]
            if isinstance(node.parent, _Root):
                self._tidy(node.parent)

    def _tidy(self, root: _Root[P]) -> None:
        """Forget a root that is empty and that nobody holds."""
        if not (root.holders or root.children or root.is_dropped):
            del self._roots[root.identity]

    def _put_idle(self, node: _Node[P]) -> None:
        self._idle[node] = None
        self._idle_bytes += node.payload.size_bytes

    def _take_idle(self, node: _Node[P]) -> None:
        del self._idle[node]
        self._idle_bytes -= node.payload.size_bytes

    def _forget(self, node: _Node[P]) -> None:
        self.bytes -= node.payload.size_bytes
        self.nodes -= 1


class Match(Generic[P]):
    """A known prefix, in use until released; a context manager.

    `tokens` is the position where it ends, and where the next insert goes. It grows with inserts
    and outlives the release. `tree`, `root`, `path`, `end` and `lengthen` are the tree's own.
    """

    def __init__(self, tree: PrefixTree[P], root: _Root[P]) -> None:
        self.tree = tree
        self.root = root
        self.path: list[tuple[_Node[P], int]] = []
        self.tokens = 0
        self.is_released = False

    @property
    def parts(self) -> Sequence[tuple[P, int]]:
        """The payloads in order, and how many first tokens of each; nothing once released.

        All of a payload's tokens where reuse is at cuts only; else any part may be used in part.
        """
        return [(node.payload, used) for node, used in self.path]

    def end(self) -> tuple[_Branch[P], int]:
        """Where it ends: a branch, and how many tokens of it."""
        return self.path[-1] if self.path else (self.root, 0)

    def lengthen(self, tokens: int) -> None:
        """Let it end so many tokens later, in the node in which it ends."""
        if tokens:
            node, used = self.path[-1]
            self.path[-1] = (node, used + tokens)
            self.tokens += tokens

    def release(self) -> None:
        """Use it no more. A second time does nothing."""
        if not self.is_released:
            self.is_released = True
            self.tree._release(self)  # noqa: SLF001 - the two classes are one mechanism
            self.path.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()


class _Branch(Generic[P]):
    """What has children: by the number of this branch's tokens that they follow, and their ids.

    Of their ids all where reuse is at cuts only, so that they are as long as the interval; else the
    first one, in which they differ from one another and from the token that this branch has there.
    """

    __slots__ = ("children", "holders", "ids")

    def __init__(self, ids: bytes = b"") -> None:
        self.ids = ids
        self.children: dict[tuple[int, bytes], _Node[P]] = {}
        self.holders = 0


class _Root(_Branch[P]):
    """One root: held by every match below it; in the tree while it is held or has children."""

    __slots__ = ("identity", "is_dropped", "pins")

    def __init__(self, identity: Hashable) -> None:
        super().__init__()
        self.identity = identity
        self.is_dropped = False
        self.pins: dict[Hashable, Sequence[_Node[P]]] = {}


class _Node(_Branch[P]):
    """Some tokens, and what is stored of them; held by matches and pins."""

    __slots__ = ("key", "parent", "payload", "pins")

    def __init__(self, parent: _Branch[P], key: tuple[int, bytes], ids: bytes, payload: P) -> None:
        super().__init__(ids)
        self.parent = parent
        self.key = key
        self.payload = payload
        self.pins = 0


def _packed(ids: Sequence[int]) -> bytes:
    """Token ids as bytes, which are sliced, hashed (with a secret seed) and compared at C speed."""
    try:
        return array("I", ids).tobytes()
    except (OverflowError, TypeError) as exc:
        raise ValueError(f"ids: a token id is a whole number of 32 bits: {exc}") from exc


def _common(known: bytes, asked: bytes) -> int:
    """How many ids two packed sequences have in common at their start."""
    if known == asked:
        return len(known) // _ID_BYTES
    low, high = 0, min(len(known), len(asked)) // _ID_BYTES
    while low < high:
        middle = (low + high + 1) // 2
        if known[: middle * _ID_BYTES] == asked[: middle * _ID_BYTES]:
            low = middle
        else:
            high = middle - 1
    return low
