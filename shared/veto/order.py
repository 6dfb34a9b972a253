"""The order of what two texts name alike: who before whom, what in what, this rather than that.

Two terms that both texts have stand in another order in the one than in the other. That is a
difference unless each keeps the word that governs it ("in 2014", "to Rome"), or a list joins them.
A passive's agent ("influenced by X") counts as standing first, for it acts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from shared.slots import word_list
from shared.veto.conflict import Conflict
from shared.veto.facts import CODE, NAME, PLAIN, QUANTITY, THING, Facts, Term
from shared.veto.lexicon import OPPOSITES, STRICT

MAX_SHARED = 12
"""Terms compared pair by pair, from the beginning of a text."""
MAX_BETWEEN = 5
"""Words between two terms of one clause."""

_ROLES = {
    **{word: word for word in word_list("""
        to from by for with in at through during until since without use as after not of""")},
    "into": "to", "onto": "to", "than": "than", "gt": "than", "lt": "than", "over": "than",
    "prior_to": "before", "before": "before", "then": "before", "later": "before",
    "instead": "instead", "except": "except", "per": "per", "via": "use",
    # What is acted upon, whatever the verb asks for.
    "on": "", "about": "", "upon": "", "toward": "", "towards": "", "against": "",
}  # fmt: skip
_DIRECTED = frozenset(word_list("than before after instead without as not use"))
"""These set two terms apart whatever they are."""
_LISTS = frozenset({"and", "or", "vs", "versus", ",", "nor", "with"})
_ENDS = frozenset(
    word_list("""
        , be is are was were am do does did has have had can could will would should may might must
        that which who what when where why how howto i you he she it we they if because so but""")
)
_CLAUSES = frozenset(
    word_list("""
        , if when because and or vs versus that which who what how why where so but i you my me""")
)
_SYMMETRIC = frozenset(
    word_list("""
        howfar compare comparison difference different differ similarity similar same vs versus
        distance combine mix mixed relationship relation married marry both together introduce
        connection link choose decide""")
)
_PEOPLE = frozenset({"family", "person"})
_ORDERED = frozenset({"then", "later", "afterwards", "next"})
_COMMON_CLASSES = frozenset({"colour", "length", "tone", "season", "bound", "degree", "unit"})


class _Standing(NamedTuple):
    """A term's place, its rank in order, the role word that governs it, and the word before."""

    place: int
    rank: int
    role: str
    head: str


def reordered(a: Facts, b: Facts, ours: Sequence[Term], theirs: Sequence[Term]) -> Conflict | None:
    """The first two terms of `a` that have traded places in `b`."""
    left, right = _firsts(ours), _firsts(theirs)
    shared = [term for key, term in left.items() if key in right][:MAX_SHARED]
    if len(shared) < 2:
        return None
    if "by" not in a.line and "by" not in b.line:
        places = [right[term.key].place for term in shared]
        if places == sorted(places):
            return None
    here = [_standing(a, term) for term in shared]
    there = [_standing(b, right[term.key]) for term in shared]
    for i, x in enumerate(shared):
        for j in range(i + 1, len(shared)):
            xa, ya, xb, yb = here[i], here[j], there[i], there[j]
            if (xa.rank < ya.rank) == (xb.rank < yb.rank):
                continue
            if abs(xa.place - ya.place) == 1 or abs(xb.place - yb.place) == 1:
                continue
            y = shared[j]
            if _matters(a, b, (x, y), (xa, ya), (xb, yb)):
                one, other = (x, y) if xa.place < ya.place else (y, x)
                return Conflict("order", f"{one.text} … {other.text}", f"{other.text} … {one.text}")
    return None


def _firsts(terms: Sequence[Term]) -> dict[str, Term]:
    """The terms as they first occur, by key; but not those that only order others."""
    found: dict[str, Term] = {}
    for term in terms:
        if term.key not in _ORDERED and term.key != "first":
            found.setdefault(term.key, term)
    return found


def _standing(facts: Facts, term: Term) -> _Standing:
    line, place = facts.line, term.place
    rank, steps, at = place, 0, place - 1
    while at >= 0 and steps < 3:
        word = line[at]
        role = _ROLES.get(word)
        if steps == 2 and word != "by":
            break
        if role == "to" and steps and line[at] == "to":
            break  # an infinitive's: "to convert X"
        if role == "as" and line[at + 1 : at + 3].count("as"):
            role = None
        if role is not None:
            before = line[at - 1] if at else ""
            if before in {"than", "gt", "lt", "instead"}:
                return _Standing(place, rank, _ROLES[before], "")
            if role == "of" and "by" in line:
                role = ""
            if role == "by" and term.sort != QUANTITY and before in facts.keys:
                return _Standing(place, place - len(line), "", before)
            return _Standing(place, rank, role, before)
        if word in _ENDS:
            break
        if word not in {"and", "or"}:
            steps += 1
        at -= 1
    return _Standing(place, rank, "", "")


def _matters(
    a: Facts,
    b: Facts,
    terms: tuple[Term, Term],
    here: tuple[_Standing, _Standing],
    there: tuple[_Standing, _Standing],
) -> bool:
    (x, y), (xa, ya), (xb, yb) = terms, here, there
    crossed = _crossed(xa.role, ya.role, xb.role, yb.role)
    if crossed in _DIRECTED:
        return True
    if xa.head and ya.head and xb.head and yb.head and xa.head != ya.head:
        if (xa.head, ya.head) == (yb.head, xb.head):
            return True
        if (xa.head, ya.head) == (xb.head, yb.head):
            return False
    if y.key in OPPOSITES.get(x.key, ()):
        return "to" in _between(a, xa, ya) and "to" in _between(b, xb, yb)
    specific = _alike(x, y) and PLAIN not in {x.sort, y.sort}
    if x.sort == QUANTITY and specific and "between" in a.line and "between" in b.line:
        return a.line[xa.place + 1 : ya.place] == b.line[yb.place + 1 : xb.place] == ("and",)
    ordered = not _ORDERED.isdisjoint(a.line) and not _ORDERED.isdisjoint(b.line)
    if (_joined(a, xa, ya) or _joined(b, xb, yb)) and not ordered:
        return False
    exchanged = xa.role == yb.role and ya.role == xb.role
    if crossed and x.sort == y.sort == THING:
        return _SYMMETRIC.isdisjoint(a.line) and _SYMMETRIC.isdisjoint(b.line)
    if not specific:
        kept = xa.role == xb.role and ya.role == yb.role
        return (ordered and kept) or (exchanged and _same_between(a, b, terms, here, there))
    if not (_SYMMETRIC.isdisjoint(a.line) and _SYMMETRIC.isdisjoint(b.line)):
        return False
    if xa.role == xb.role and ya.role == yb.role:
        return xa.role == ya.role == "" and QUANTITY not in {x.sort, y.sort}
    return bool(crossed)


def _crossed(xa: str, ya: str, xb: str, yb: str) -> str:
    """The role that the one has here and the other there."""
    if ya and ya == xb and ya not in {xa, yb}:
        return ya if ya in _DIRECTED or xa == yb else ""
    if xa and xa == yb and xa not in {ya, xb}:
        return xa if xa in _DIRECTED or ya == xb else ""
    return ""


def _same_between(
    a: Facts,
    b: Facts,
    terms: tuple[Term, Term],
    here: tuple[_Standing, _Standing],
    there: tuple[_Standing, _Standing],
) -> bool:
    """Whether in both texts the same word of content stands between two terms of one clause."""
    if any(term.sort in {QUANTITY, CODE} for term in terms):
        return False
    if any(standing.rank != standing.place for standing in (*here, *there)):
        return False
    one, other = _between(a, *here), _between(b, *there)
    if len(one) > MAX_BETWEEN or len(other) > MAX_BETWEEN:
        return False
    if not (_CLAUSES.isdisjoint(one) and _CLAUSES.isdisjoint(other)):
        return False
    return any(word in a.keys and word in b.keys for word in one if word in other)


def _between(facts: Facts, x: _Standing, y: _Standing) -> Sequence[str]:
    return facts.line[min(x.place, y.place) + 1 : max(x.place, y.place)]


def _joined(facts: Facts, x: _Standing, y: _Standing) -> bool:
    """Whether between two terms there is but a list."""
    between = _between(facts, x, y)
    return (
        len(between) <= 5
        and not _LISTS.isdisjoint(between)
        and all(word in _LISTS or word in facts.keys or word in _ROLES for word in between)
    )


def _alike(x: Term, y: Term) -> bool:
    """Whether two terms could stand in each other's place."""
    if QUANTITY in {x.sort, y.sort} or CODE in {x.sort, y.sort}:
        return x.sort == y.sort and x.rule == y.rule
    if x.sort == y.sort == THING:
        people = not (_PEOPLE.isdisjoint(x.groups) or _PEOPLE.isdisjoint(y.groups))
        return people or not x.groups.isdisjoint(y.groups)
    if x.sort == y.sort == NAME:
        return True
    thing = x if x.sort == THING else y
    return (
        NAME in {x.sort, y.sort}
        and thing.sort == THING
        and (thing.text[0].isupper() or not thing.groups.isdisjoint(STRICT - _COMMON_CLASSES))
    )
