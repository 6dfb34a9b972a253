"""Who does what to whom, from where to where: the same words in other places.

Three signs of an exchange, for terms that both texts have:
1. two of them trade the prepositions that govern them ("from X to Y");
2. one stands left of a passive's "by", where the other text has the other one doing it;
3. two of them stand in each other's neighbourhood ("Rome conquer Carthage").
Members of a list ("A and B", "between A and B", "A vs B") may trade places.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from shared.slots import word_list
from shared.veto.conflict import Conflict
from shared.veto.facts import CODE, NAME, PLAIN, QUANTITY, Facts, Term
from shared.veto.order import reordered
from shared.veto.words_grammar import NEGATIONS, PREPOSITIONS

MAX_TERMS = 60
"""Terms looked at from the beginning of a text; order beyond them is not read."""

_STRONG = {
    "from": "from", "to": "to", "into": "to", "onto": "to", "than": "than", "after": "after",
    "against": "against", "over": "over",
}  # fmt: skip
_WEAK = frozenset(
    word_list("""
        of for with by in on at via through during""")
)
_SHORT = 10
_BINDING = frozenset(
    word_list("""
        of for with by""")
)
_JOINS = frozenset({"and", "or", "vs", "versus", ",", "nor", "with", "to", "from", "between"})
_LISTS = frozenset({"and", "or", "vs", "versus", ",", "nor"})
_SYMMETRIC = frozenset(
    word_list("""
        howfar compare difference different similarity similar same vs versus distance
        combine mix relationship""")
)
_CLAUSES = frozenset(
    word_list("""
        that which who if i you how""")
)
_OPPOSED = {"from": "to", "to": "from", "for": "against", "against": "for"}
_COMMON = frozenset(
    word_list("""
        be is are was were do does did has have had can will would should""")
)


def negation_targets(line: Sequence[str], terms: Sequence[Term]) -> tuple[tuple[str, str], ...]:
    """The negating words of a text, each with the key of the term it stands before."""
    places = [i for i, word in enumerate(line) if word in NEGATIONS]
    rest = iter(terms)
    term = next(rest, None)
    if not places:
        return ()
    found: list[tuple[str, str]] = []
    for place in places:
        word = line[place]
        if word == "nor" and line[places[0]] in {"not", "neither"}:
            continue
        while term is not None and term.place < place:
            term = next(rest, None)
        found.append((word, "" if term is None else term.key))
    return tuple(found)


def exchanges(a: Facts, b: Facts) -> Iterator[Conflict]:
    """Conflicts of role and order between two texts. At most one."""
    ours = [term for term in a.terms[:MAX_TERMS] if term.key in b.keys]
    theirs = [term for term in b.terms[:MAX_TERMS] if term.key in a.keys]
    if len(ours) < 1 or not theirs or a.line == b.line:
        return
    found = _traded(a, b, ours, theirs) or _passive(a, b) or _passive(b, a, back=True)
    found = found or _swapped(a, b, ours, theirs) or reordered(a, b, ours, theirs)
    if found is not None:
        yield found


def _traded(a: Facts, b: Facts, ours: list[Term], theirs: list[Term]) -> Conflict | None:
    mine, yours = _governed(a.line, ours), _governed(b.line, theirs)
    # Among many ordinary words a preposition says little.
    long = len(a.terms) > _SHORT or len(b.terms) > _SHORT
    sorts = {term.key: term.sort for term in (*ours, *theirs)}
    symmetric = not _SYMMETRIC.isdisjoint(a.line) and not _SYMMETRIC.isdisjoint(b.line)
    for preposition, left in mine.items():
        right = yours.get(preposition)
        opposed = _OPPOSED.get(preposition, "")
        other = yours.get(opposed)
        if other and not symmetric:
            # "to Tom" against "from Tom".
            for key in left.keys() & other.keys():
                if key not in (right or ()) and key not in mine.get(opposed, ()):
                    return Conflict("order", f"{preposition} {key}", f"{opposed} {key}")
        if not right or (symmetric and preposition in {"to", "from", "with", "in"}):
            continue
        only_left, only_right = left.keys() - right.keys(), right.keys() - left.keys()
        if not only_left or not only_right:
            continue
        if preposition in _WEAK:
            only_left = {x for x in only_left if left[x] == 0}
            only_right = {y for y in only_right if right[y] == 0}
        for x in only_left:
            for y in only_right:
                if preposition in _WEAK and not _mutual(mine, yours, x, y, preposition):
                    continue
                if PLAIN in {sorts[x], sorts[y]} and (long or preposition == "to"):
                    continue
                return Conflict("order", f"{preposition} {x}", f"{preposition} {y}")
    return None


def _mutual(
    mine: dict[str, dict[str, int]], yours: dict[str, dict[str, int]], x: str, y: str, own: str
) -> bool:
    """Whether in the one text `y` stands where in the other `x` stands."""
    y_here = {name for name, keys in mine.items() if y in keys} - {own}
    x_there = {name for name, keys in yours.items() if x in keys} - {own}
    return y_here == x_there and (bool(y_here) or own in _BINDING)


def _governed(line: Sequence[str], terms: list[Term]) -> dict[str, dict[str, int]]:
    """Preposition → the keys it governs, each with how many terms are between."""
    found: dict[str, dict[str, int]] = {}
    for term in terms:
        place, steps = term.place - 1, 0
        while place >= 0 and steps < 3:
            word = line[place]
            if word in _STRONG or word in _WEAK:
                found.setdefault(_STRONG.get(word, word), {}).setdefault(term.key, steps)
                break
            if word in _LISTS:
                place -= 1
                continue
            if word in _COMMON or word in _CLAUSES:
                break
            place, steps = place - 1, steps + 1
    return found


def _passive(a: Facts, b: Facts, *, back: bool = False) -> Conflict | None:
    """`a` has "X verb by Y", `b` has "X verb Y"."""
    if "by" not in a.line or "by" in b.line:
        return None
    line, there = a.line, b.line
    for place, word in enumerate(line):
        if word != "by" or not 0 < place < len(line) - 1:
            continue
        verb, agent = line[place - 1], line[place + 1]
        patients = [w for w in line[: place - 1] if w in b.keys and w != agent]
        if verb in there and agent in there and patients:
            patient = patients[-1]
            if patient in there and there.index(patient) < there.index(verb) < there.index(agent):
                conflict = Conflict("order", f"{verb} by {agent}", f"{verb} {agent}")
                return conflict.swapped() if back else conflict
    return None


def _swapped(a: Facts, b: Facts, ours: list[Term], theirs: list[Term]) -> Conflict | None:
    places = {term.key: place for place, term in enumerate(theirs)}
    order = [places[term.key] for term in ours if term.key in places]
    if order == sorted(order):
        return _pronouns(a, b)
    there = {term.key: term for term in theirs}
    here = {term.key: term for term in ours}
    inner = list(here.values())
    for i, x in enumerate(inner):
        if x.key not in there:
            continue
        for y in inner[i + 1 : i + 9]:
            if y.key not in there or there[y.key].place > there[x.key].place:
                continue
            if y.place - x.place == 1 and there[x.key].place - there[y.key].place == 1:
                continue  # "12 May", "branch main"
            if _listed(a, x.place, y.place) and _listed(b, there[y.key].place, there[x.key].place):
                continue
            xb, yb = there[x.key].place, there[y.key].place
            if _trade_places(a.line, (x.place, y.place), b.line, (xb, yb), alike=_alike(x, y)):
                return Conflict("order", f"{x.text} … {y.text}", f"{y.text} … {x.text}")
    return _pronouns(a, b)


def _alike(x: Term, y: Term) -> bool:
    """Whether two terms could stand in each other's place."""
    if QUANTITY in {x.sort, y.sort}:
        return x.rule == y.rule
    if x.groups and y.groups:
        return not x.groups.isdisjoint(y.groups)
    return x.sort == y.sort or (CODE not in {x.sort, y.sort} and NAME in {x.sort, y.sort})


def _trade_places(
    a: Sequence[str],
    here: tuple[int, int],
    b: Sequence[str],
    there: tuple[int, int],
    *,
    alike: bool,
) -> bool:
    """Whether `x` and `y` each stand between the neighbours of the other."""
    (xa, ya), (xb, yb) = here, there
    x_here, y_here = _around(a, xa, a[ya]), _around(a, ya, a[xa])
    x_there, y_there = _around(b, xb, b[yb]), _around(b, yb, b[xb])
    crossed = sum(p == q for p, q in zip(x_here + y_here, y_there + x_there, strict=True))
    kept = sum(p == q for p, q in zip(x_here + y_here, x_there + y_there, strict=True))
    if alike and crossed >= 3 and crossed > kept:
        return True
    # Subject, verb, object: the same word between them, in both.
    verb = x_here[1] == y_there[1] == y_here[0] == x_there[0]
    return verb and kept <= 1 and x_here[1] != "*" and x_here[1] not in PREPOSITIONS | _JOINS


def _around(line: Sequence[str], place: int, other: str) -> tuple[str, str]:
    left = line[place - 1] if place else "^"
    right = line[place + 1] if place + 1 < len(line) else "$"
    return ("*" if left == other else left), ("*" if right == other else right)


def _listed(facts: Facts, first: int, second: int) -> bool:
    """Whether between two places there is but a list: names, commas, "and"."""
    between = facts.line[first + 1 : second]
    if _LISTS.isdisjoint(between):
        joined = "with" in between or "to" in between or "from" in between
        return joined and len(between) < 4 and not _SYMMETRIC.isdisjoint(facts.line)
    if len(between) > 5:
        return False
    before = ""
    for word in between:
        repeated = before in _LISTS and word in PREPOSITIONS  # "in March or in April"
        if not (repeated or word in _LISTS or word in facts.keys):
            return False
        before = word
    return True


def _pronouns(a: Facts, b: Facts) -> Conflict | None:
    """Who acts on whom: "I … x" against "x … me"."""
    for one, other, back in ((a, b, False), (b, a, True)):
        acting, acted = _actor(one, "i"), _acted(other)
        if acting is not None and acting == acted:
            conflict = Conflict("order", f"I {acting[0]} {acting[1]}", f"{acting[1]} {acted[0]} me")
            return conflict.swapped() if back else conflict
    return None


def _actor(facts: Facts, pronoun: str) -> tuple[str, str] | None:
    """For "i verb x": (verb, x)."""
    line = facts.line
    for place, word in enumerate(line[:-2]):
        if word == pronoun and line[place + 1] in facts.keys and line[place + 2] in facts.keys:
            return line[place + 1], line[place + 2]
    return None


def _acted(facts: Facts) -> tuple[str, str] | None:
    """For "x verb me": (verb, x)."""
    line = facts.line
    for place, word in enumerate(line[2:], start=2):
        if word == "me" and line[place - 1] in facts.keys and line[place - 2] in facts.keys:
            return line[place - 1], line[place - 2]
    return None
