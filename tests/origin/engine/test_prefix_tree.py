"""The tree of token prefixes: against a naive one, and rule by rule."""

from __future__ import annotations

import gc
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Self
from weakref import WeakSet

import pytest

from origin.engine.cuts import Cuts
from origin.engine.prefix_tree import Match, PrefixTree
from tests.support.naive_prefixes import Ids, NaiveMatch, NaivePrefixes

TOKEN_BYTES = 10
CUTS = Cuts(((0, 2), (4, 4)))
"""After 2, 4, 8, 12, ... tokens."""

live: WeakSet[Stored] = WeakSet()
"""Every payload that anything refers to."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Stored:
    """A payload that is its token ids."""

    ids: Ids

    def __post_init__(self) -> None:
        live.add(self)

    @property
    def tokens(self) -> int:
        """How many."""
        return len(self.ids)

    @property
    def size_bytes(self) -> int:
        """The same for each."""
        return len(self.ids) * TOKEN_BYTES

    def tail(self, tokens: int) -> Self:
        """The rest."""
        return type(self)(ids=self.ids[tokens:])


@pytest.fixture(autouse=True)
def _no_collector() -> Iterator[None]:
    """What is freed is freed by its last reference, not by the collector of cycles."""
    live.clear()
    gc.disable()
    yield
    gc.enable()


def a_tree(*, tokens: int = 100, at_cuts_only: bool = True) -> PrefixTree[Stored]:
    """A tree with room for so many tokens."""
    return PrefixTree(limit_bytes=tokens * TOKEN_BYTES, cuts=CUTS, at_cuts_only=at_cuts_only)


def add(tree: PrefixTree[Stored], match: Match[Stored], ids: Ids) -> bool:
    """Insert what follows a match."""
    return tree.insert(match, ids, lambda: Stored(ids=ids), len(ids) * TOKEN_BYTES)


def store(tree: PrefixTree[Stored], ids: Ids, root: str = "a") -> bool:
    """Store a prompt's blocks; whether all of it is known then."""
    with tree.match(root, ids) as match:
        while match.tokens < len(ids):
            if not add(tree, match, ids[match.tokens : CUTS.next(match.tokens)]):
                return False
        return True


def known(tree: PrefixTree[Stored], ids: Ids, root: str = "a") -> int:
    """How many of the ids are known."""
    with tree.match(root, ids) as match:
        return match.tokens


def content(match: Match[Stored]) -> Ids:
    """The ids that the parts of a match are of."""
    return tuple(token for payload, used in match.parts for token in payload.ids[:used])


both_modes = pytest.mark.parametrize("at_cuts_only", [True, False])


class Twins:
    """A tree and its oracle, to which the same happens."""

    def __init__(self, seed: int, *, at_cuts_only: bool) -> None:
        self.random = random.Random(seed)  # noqa: S311 - no secret
        self.at_cuts_only = at_cuts_only
        self.tree = a_tree(tokens=30, at_cuts_only=at_cuts_only)
        self.naive = NaivePrefixes(
            limit_bytes=30 * TOKEN_BYTES,
            cuts=CUTS,
            at_cuts_only=at_cuts_only,
            token_bytes=TOKEN_BYTES,
        )
        self.open: list[tuple[Match[Stored], NaiveMatch]] = []

    def step(self) -> None:
        """Something happens to both, with the same result."""
        done = [self.match, self.insert, self.release, self.pin, self.unpin, self.drop]
        act: Callable[[], None] = self.random.choices(done, [20, 40, 20, 3, 3, 1])[0]
        if self.open or act in (self.match, self.unpin, self.drop):
            act()

    def check(self) -> None:
        """The tree is what its oracle is, its bytes are what is held, and below the limit."""
        tree, naive = self.tree, self.naive
        assert tree.bytes == naive.bytes <= tree.limit_bytes
        assert tree.bytes == sum(payload.size_bytes for payload in live)
        assert tree.nodes == len(naive.entries)
        assert tree.pinned_bytes == naive.pinned_bytes
        assert tree.refusals == naive.refusals
        assert dict(tree.evictions) == naive.evictions
        for match, twin in self.open:
            assert content(match) == twin.ids
            assert match.tokens == len(twin.ids)

    def match(self) -> None:
        """A prompt, of few, is looked up."""
        if len(self.open) < 5:
            root, ids = self.root(), self.ids(self.random.randrange(14))
            self.open.append((self.tree.match(root, ids), self.naive.match(root, ids)))

    def insert(self) -> None:
        """Tokens follow a match."""
        match, twin = self.random.choice(self.open)
        room = CUTS.next(match.tokens) - match.tokens
        ids = self.ids(room if self.at_cuts_only else self.random.randint(1, room))
        assert add(self.tree, match, ids) == self.naive.insert(twin, ids)

    def release(self) -> None:
        """A match is over."""
        match, twin = self.open.pop(self.random.randrange(len(self.open)))
        match.release()
        self.naive.release(twin)

    def pin(self) -> None:
        """A match is pinned, under one of two names."""
        match, twin = self.random.choice(self.open)
        name = self.random.choice("xy")
        assert self.tree.pin(match, name) == self.naive.pin(twin, name)

    def unpin(self) -> None:
        """A name is unpinned."""
        root, name = self.root(), self.random.choice("xy")
        assert self.tree.unpin(root, name) == self.naive.unpin(root, name)

    def drop(self) -> None:
        """A root is dropped."""
        root = self.root()
        self.tree.drop(root)
        self.naive.drop(root)

    def root(self) -> str:
        """One of three."""
        return self.random.choice("abc")

    def ids(self, tokens: int) -> Ids:
        """So many of two."""
        return tuple(self.random.choices((7, 8), [3, 1], k=tokens))


@both_modes
@pytest.mark.parametrize("seed", range(2))
def test_10_000_random_operations_agree_with_the_oracle(seed: int, *, at_cuts_only: bool) -> None:
    """After each: results, contents, bytes held; at the end the limit and drops have evicted."""
    twins = Twins(seed, at_cuts_only=at_cuts_only)
    for _ in range(10_000):
        twins.step()
        twins.check()
    assert min(twins.tree.refusals, *twins.tree.evictions.values()) > 50
    while twins.open:
        twins.release()
    for root in "abc":
        twins.tree.drop(root)
    assert (twins.tree.bytes, twins.tree.nodes, twins.tree.pinned_bytes) == (0, 0, 0)
    assert not live


@both_modes
def test_foreign_root_finds_nothing_of_an_equal_prefix(*, at_cuts_only: bool) -> None:
    """And stores its own: no payload is of both."""
    tree, ids = a_tree(at_cuts_only=at_cuts_only), tuple(range(12))
    store(tree, ids, "a")
    assert known(tree, ids, "b") == 0
    store(tree, ids, "b")
    with tree.match("a", ids) as a, tree.match("b", ids) as b:
        assert a.tokens == b.tokens == 12
        assert not {id(payload) for payload, _ in a.parts} & {id(payload) for payload, _ in b.parts}


def test_whole_blocks_are_found_at_cuts_only() -> None:
    """Neither a part of a block nor a block with another token."""
    tree = a_tree()
    store(tree, (1, 2, 3, 4, 5, 6, 7, 8))
    assert [known(tree, tuple(range(1, length + 1))) for length in range(9)] == (
        [0, 0, 2, 2, 4, 4, 4, 4, 8]
    )
    assert known(tree, (1, 2, 3, 4, 5, 6, 7, 9)) == 4
    assert known(tree, (1, 9, 3, 4)) == 0


def test_any_token_may_end_a_match_in_fast_mode() -> None:
    """Also inside a node, below which more is then stored without a copy."""
    tree = a_tree(at_cuts_only=False)
    store(tree, (1, 2, 3, 4, 5, 6, 7, 8))
    store(tree, (1, 2, 3, 4, 5, 9, 9, 9))
    assert known(tree, (1, 2, 3, 4, 5, 6, 9)) == 6
    with tree.match("a", (1, 2, 3, 4, 5, 9, 9, 0)) as match:
        assert [(payload.ids, used) for payload, used in match.parts] == (
            [((1, 2), 2), ((3, 4), 2), ((5, 6, 7, 8), 1), ((9, 9, 9), 2)]
        )
    assert tree.nodes == 4


@pytest.mark.parametrize(
    ("first", "second", "stored"),
    [
        ((1, 2, 3, 4), (1, 2, 3, 4), [(1, 2, 3, 4)]),
        ((1, 2, 3, 4), (1, 2), [(1, 2, 3, 4)]),
        ((1, 2), (1, 2, 3, 4), [(1, 2), (3, 4)]),
        ((1, 2, 3, 4), (1, 2, 5), [(1, 2, 3, 4), (5,)]),
        ((1, 2, 3, 4), (5, 6), [(1, 2, 3, 4), (5, 6)]),
    ],
)
def test_what_became_known_meanwhile_is_taken(first: Ids, second: Ids, stored: list[Ids]) -> None:
    """Two matches end at one place, and what both insert below it is stored once."""
    tree = a_tree(at_cuts_only=False)
    store(tree, (0, 0, 0, 0))
    one, other = (tree.match("a", (0, 0, 0, 0)) for _ in range(2))
    assert add(tree, one, first)
    assert add(tree, other, second)
    assert content(other) == (0, 0, 0, 0, *second)
    assert sorted(payload.ids for payload in live) == sorted([(0, 0), (0, 0), *stored])
    assert tree.bytes == sum(payload.size_bytes for payload in live)


def test_insert_goes_on_in_the_node_where_its_match_ends() -> None:
    """The tokens that this node has next are not stored again."""
    tree = a_tree(at_cuts_only=False)
    store(tree, (1, 2, 3, 4, 5, 6, 7, 8))
    with tree.match("a", (1, 2, 3, 4, 5)) as match:
        assert add(tree, match, (6, 9))
        assert [(payload.ids, used) for payload, used in match.parts][2:] == (
            [((5, 6, 7, 8), 2), ((9,), 1)]
        )
        assert match.tokens == 7


def test_nothing_is_made_of_what_is_known_or_does_not_fit() -> None:
    """`make` clones; so it is asked only for what will be stored."""
    tree = a_tree(tokens=2)

    def make() -> Stored:
        raise AssertionError

    store(tree, (1, 2))
    with tree.match("a", ()) as match:
        assert tree.insert(match, (1, 2), make, 2 * TOKEN_BYTES)
        assert not tree.insert(match, (3, 4), make, 2 * TOKEN_BYTES)
        assert content(match) == (1, 2)
    assert tree.refusals == 1


def test_refusal_evicts_nothing() -> None:
    """Where even all that nobody uses would not be enough."""
    tree = a_tree(tokens=8)
    store(tree, (1, 2))
    store(tree, (3, 4, 5, 6))
    with tree.match("a", (3, 4, 5, 6)) as match:
        assert not tree.insert(match, (7, 8, 9, 10), lambda: Stored(ids=(0,) * 4), 50)
    assert (tree.nodes, tree.evictions["limit"]) == (3, 0)


def test_failed_make_leaves_the_tree_whole() -> None:
    """What was evicted for it stays out; nothing else changes."""
    tree = a_tree(tokens=2)
    store(tree, (1, 2))

    def make() -> Stored:
        raise MemoryError

    with tree.match("a", (3, 4)) as match, pytest.raises(MemoryError):
        tree.insert(match, (3, 4), make, 2 * TOKEN_BYTES)
    assert (tree.bytes, tree.nodes, tree.evictions["limit"]) == (0, 0, 1)
    assert store(tree, (3, 4))


def test_least_recently_used_leaf_goes_first() -> None:
    """A match is a use of the whole path; a parent goes after its children."""
    tree = a_tree(tokens=8)
    store(tree, (1, 2, 3, 4))
    store(tree, (5, 6))
    known(tree, (1, 2, 3, 4))
    store(tree, (7, 8))
    store(tree, (9, 9))
    assert [known(tree, ids) for ids in [(1, 2, 3, 4), (5, 6)]] == [4, 0]
    store(tree, (5, 6, 5, 6))
    assert [known(tree, ids) for ids in [(7, 8), (9, 9), (1, 2, 3, 4)]] == [0, 0, 4]
    store(tree, (7, 8))
    assert [known(tree, ids) for ids in [(5, 6, 5, 6), (1, 2, 3, 4)]] == [2, 4]


def test_what_is_in_use_is_not_evicted() -> None:
    """From a match until its release."""
    tree = a_tree(tokens=4)
    store(tree, (1, 2, 3, 4))
    match = tree.match("a", (1, 2, 3, 4))
    assert not store(tree, (5, 6))
    match.release()
    assert store(tree, (5, 6))
    assert known(tree, (1, 2, 3, 4)) == 2


def test_pinned_prompt_stays_until_unpinned() -> None:
    """Its bytes count; a name pinned anew lets the earlier one go."""
    tree = a_tree(tokens=4)
    store(tree, (1, 2, 3, 4))
    with tree.match("a", (1, 2, 3, 4)) as match:
        assert tree.pin(match, "system")
    assert tree.pinned_bytes == tree.bytes == tree.limit_bytes
    assert not store(tree, (5, 6))
    with tree.match("a", (1, 2)) as match:
        assert tree.pin(match, "system")
    assert tree.pinned_bytes == 2 * TOKEN_BYTES
    assert store(tree, (5, 6))
    assert not tree.unpin("b", "system")
    assert tree.unpin("a", "system")
    assert not tree.unpin("a", "system")
    assert store(tree, (7, 8, 9, 0))


def test_nothing_known_is_nothing_to_pin() -> None:
    """An empty match keeps nothing, and takes no name."""
    tree = a_tree()
    with tree.match("a", (1, 2)) as match:
        assert not tree.pin(match, "system")
    assert not tree.unpin("a", "system")


def test_dropped_root_goes_with_its_pins_and_later_with_its_users() -> None:
    """What is in use counts until released, and is found no more."""
    tree = a_tree(tokens=6)
    store(tree, (1, 2, 3, 4))
    store(tree, (5, 6))
    with tree.match("a", (5, 6)) as match:
        tree.pin(match, "system")
    match = tree.match("a", (1, 2))
    tree.drop("a")
    assert dict(tree.evictions) == {"limit": 0, "dropped": 3}
    assert (tree.bytes, tree.pinned_bytes, tree.nodes) == (2 * TOKEN_BYTES, 0, 1)
    assert known(tree, (1, 2)) == 0
    assert not store(tree, (1, 2, 3, 4, 5, 6, 7, 8))
    assert content(match) == (1, 2)
    match.release()
    assert store(tree, (1, 2, 3, 4))


@pytest.mark.parametrize("found", [(), (1, 2)])
def test_nothing_is_added_for_a_match_from_before_a_drop(found: Ids) -> None:
    """Else a generation would undo the purge that came while it ran."""
    tree = a_tree()
    store(tree, (1, 2))
    match = tree.match("a", found)
    tree.drop("a")
    store(tree, (1, 2))
    assert not add(tree, match, (3, 4))
    assert not tree.pin(match, "system")
    match.release()
    assert known(tree, (1, 2, 3, 4)) == 2


def test_released_match_is_of_no_more_use() -> None:
    """It refers to no payload, is released once only, and keeps its length."""
    tree = a_tree()
    store(tree, (1, 2))
    with tree.match("a", (1, 2)) as other:
        match = tree.match("a", (1, 2))
        match.release()
        match.release()
        assert (match.tokens, match.parts) == (2, [])
        assert content(other) == (1, 2)
        with pytest.raises(ValueError, match="match"):
            add(tree, match, (3, 4))
        with pytest.raises(ValueError, match="match"):
            tree.pin(match, "system")


def test_match_of_another_tree_is_refused() -> None:
    """Its nodes are not this one's."""
    with a_tree().match("a", ()) as match, pytest.raises(ValueError, match="match"):
        add(a_tree(), match, (1, 2))


@pytest.mark.parametrize(
    ("at_cuts_only", "ids"), [(True, (1,)), (True, (1,) * 3), (False, (1,) * 3), (False, ())]
)
def test_tokens_that_span_a_cut_or_are_no_block_are_refused(
    ids: Ids, *, at_cuts_only: bool
) -> None:
    """A whole interval at cuts only, else at least one token of it."""
    tree = a_tree(at_cuts_only=at_cuts_only)
    with tree.match("a", ()) as match, pytest.raises(ValueError, match="ids"):
        add(tree, match, ids)


@pytest.mark.parametrize("ids", [(-1, 1), (2**32, 1), (0.5, 1), ("a", 1)])
def test_what_is_no_token_id_is_refused(ids: tuple[int, int]) -> None:
    """Before anything is held."""
    tree = a_tree()
    with pytest.raises(ValueError, match="ids"):
        tree.match("a", ids)
    with tree.match("a", ()) as match, pytest.raises(ValueError, match="ids"):
        add(tree, match, ids)
    assert not tree._roots


@pytest.mark.parametrize(("ids", "size_bytes"), [((1, 2), 19), ((1, 2, 3), 30)])
def test_payload_that_is_not_what_was_admitted_is_refused(ids: Ids, size_bytes: int) -> None:
    """Neither other bytes nor other tokens: the count would be wrong from then on."""
    tree = a_tree()
    with tree.match("a", ()) as match, pytest.raises(ValueError, match="payload"):
        tree.insert(match, (1, 2), lambda: Stored(ids=ids), size_bytes)
    assert (tree.bytes, tree.nodes) == (0, 0)


def test_negative_limit_is_refused() -> None:
    """It is a mistake; 0 means nothing is stored."""
    with pytest.raises(ValueError, match="limit_bytes"):
        a_tree(tokens=-1)
    assert not store(a_tree(tokens=0), (1, 2))


def test_empty_roots_are_forgotten() -> None:
    """However many tenants and scopes ask: by release, by eviction, by drop."""
    tree = a_tree(tokens=2)
    for scope in range(9):
        known(tree, (1, 2), f"asked {scope}")
        store(tree, (1, 2), f"stored {scope}")
    assert len(tree._roots) == 1
    tree.drop("stored 8")
    assert not tree._roots
