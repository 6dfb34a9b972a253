"""Rules over what only one of two texts has: quantities, names, things of a class, opposites."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from shared.veto.conflict import Conflict
from shared.veto.facts import CODE, NAME, PLAIN, QUANTITY, THING, UNSURE, Facts, Term
from shared.veto.lexicon import BOUNDS, NEGATIVE_PREFIXES, OPPOSITES, STRICT
from shared.veto.words_grammar import CURRENCIES

MAX_LEFT_OVER = 64
"""Texts that differ in more are far apart anyway."""


def left_over(a: Facts, b: Facts) -> list[Term]:
    """The terms of `a` whose like `b` has not, each once; of plain words and others so many."""
    missing = a.keys - b.keys
    if not missing:
        return []
    found = list({term.key: term for term in a.terms if term.key in missing}.values())
    if len(found) <= MAX_LEFT_OVER:
        return found
    plain = [term for term in found if term.sort == PLAIN]
    return [term for term in found if term.sort != PLAIN][:MAX_LEFT_OVER] + plain[:MAX_LEFT_OVER]


def quantities(
    ours: Sequence[Term], theirs: Sequence[Term], a: Facts, b: Facts
) -> Iterator[Conflict]:
    """Numbers, money, units, dates and times that only one side has."""
    left = [term for term in ours if term.sort == QUANTITY]
    right = [term for term in theirs if term.sort == QUANTITY]
    for term in list(left):
        like = next((other for other in right if _same_quantity(term, other)), None)
        if like is not None:
            left.remove(term)
            right.remove(like)
    left = [term for term in left if not _is_soft_one(term, b)]
    right = [term for term in right if not _is_soft_one(term, a)]
    for term in left:
        other = _partner(term, right)
        if other is None:
            yield Conflict(_rule(term, a), term.text, "")
            continue
        right.remove(other)
        yield Conflict(_difference(term, other, a, b), term.text, other.text)
    for term in right:
        yield Conflict(_rule(term, b), "", term.text)


def _same_quantity(one: Term, other: Term) -> bool:
    """Equal values, and units that may be the same: "asking 450k" is "$450k"."""
    if not one.value or one.value != other.value:
        return (
            _number(one) is not None and _number(one) == _number(other) and one.unit == other.unit
        )
    units = {one.unit, other.unit}
    return units <= {"", "usd"} or units == {"", "th"}


def _number(term: Term) -> str | None:
    if not term.key.startswith("# ") or "." not in term.value:
        return None
    return term.value.rstrip("0").rstrip(".") if term.value.count(".") == 1 and term.unit else None


def _is_soft_one(term: Term, other: Facts) -> bool:
    """1 is no number of its own where the other text says "one" or names the unit alone."""
    return term.value == "1" and (other.soft_ones or (term.unit != "" and term.unit in other.keys))


def _partner(term: Term, others: Sequence[Term]) -> Term | None:
    def likeness(other: Term) -> int:
        """How near another quantity is to this one."""
        if not other.key.startswith("#") or not term.key.startswith("#"):
            return 2 if other.rule == term.rule else 0
        if other.value == term.value:
            return 4
        same = other.rule == term.rule
        return 3 if same and other.unit == term.unit else 2 if same else 1

    best = max(others, key=likeness, default=None)
    return best if best is not None and likeness(best) else None


def _difference(one: Term, other: Term, a: Facts, b: Facts) -> str:
    if one.value == other.value and one.unit != other.unit:
        return "currency" if {one.unit, other.unit} & CURRENCIES else "unit"
    rules = _rule(one, a), _rule(other, b)
    return "number" if set(rules) == {"year", "number"} else rules[0] or rules[1] or "number"


def _rule(term: Term, facts: Facts) -> str:
    """What a quantity is called: 1800 may be a year, but not in "under 1800"."""
    before = facts.line[term.place - 1] if term.place else ""
    return "number" if term.rule == "year" and before in BOUNDS else term.rule


def code(ours: Sequence[Term], theirs: Sequence[Term], a: Facts, b: Facts) -> Iterator[Conflict]:
    """Identifiers, flags, file names, addresses on the net, versions of products."""
    left = [t for t in ours if t.sort == CODE and not _spelt_apart(t.key, b)]
    right = [t for t in theirs if t.sort == CODE and not _spelt_apart(t.key, a)]
    yield from _paired("identifier", left, right)


def things(ours: Sequence[Term], theirs: Sequence[Term]) -> Iterator[Conflict]:
    """Members of one class, a different one on either side; of strict classes also on one."""
    left = [term for term in ours if term.groups]
    right = [term for term in theirs if term.groups]
    for term in list(left):
        other = next((each for each in right if each.groups & term.groups), None)
        if other is not None:
            left.remove(term)
            right.remove(other)
            yield Conflict(_class(term, other), term.text, other.text)
    for term in left:
        if term.groups & STRICT or "currency" in term.groups or "unit" in term.groups:
            yield Conflict(_class(term, term), term.text, "")
    for term in right:
        if term.groups & STRICT or "currency" in term.groups or "unit" in term.groups:
            yield Conflict(_class(term, term), "", term.text)


def _class(one: Term, other: Term) -> str:
    return min(one.groups & other.groups)


def opposites(ours: Sequence[Term], theirs: Sequence[Term]) -> Iterator[Conflict]:
    """Antonyms, one on either side."""
    for term in ours:
        against = OPPOSITES.get(term.key)
        if against:
            for other in theirs:
                # "impossible" and "possible" are the negation rule's.
                if other.key in against and not _prefixed_pair(term.key, other.key):
                    yield Conflict("antonym", term.text, other.text)


def names(ours: Sequence[Term], theirs: Sequence[Term], a: Facts, b: Facts) -> Iterator[Conflict]:
    """Names and rare words that the other side has not."""
    left = [t for t in ours if t.sort == NAME and not _has_like(t, b, theirs)]
    right = [t for t in theirs if t.sort == NAME and not _has_like(t, a, ours)]
    if not left or not right:
        # A rare word on one side alone is hardly a name where it has no capital.
        left = [term for term in left if term.rule != UNSURE]
        right = [term for term in right if term.rule != UNSURE]
        left = [term for term in left if not _is_first_name(term, a, b)]
        right = [term for term in right if not _is_first_name(term, b, a)]
    yield from _paired("", left, right)


def _is_first_name(term: Term, own: Facts, other: Facts) -> bool:
    """Whether a name both texts have follows directly: "Donald" before "Trump"."""
    return term.rule == "name" and any(
        each.place == term.place + 1 and each.sort == NAME and each.key in other.keys
        for each in own.terms
    )


def _paired(rule: str, left: list[Term], right: list[Term]) -> Iterator[Conflict]:
    for i in range(max(len(left), len(right))):
        one = left[i] if i < len(left) else None
        other = right[i] if i < len(right) else None
        name = rule or next((each.rule for each in (one, other) if each), "name")
        yield Conflict(name, one.text if one else "", other.text if other else "")


def _has_like(term: Term, other: Facts, leftovers: Sequence[Term]) -> bool:
    """Whether the other text has the word in another form, spelt apart, or mistyped."""
    key = term.key
    if _spelt_apart(key, other):
        return True
    if len(key) < 5:
        return False
    for each in other.terms:
        if each.sort in {NAME, PLAIN, THING} and _is_variant(key, each.key, typo=each.sort != NAME):
            return True
    return any(
        len(key) > 5 and other_key.startswith(key) for other_key in (t.key for t in leftovers)
    )


def _spelt_apart(key: str, other: Facts) -> bool:
    """Such as "saltwater" for "salt water", "user_id" for "user id"."""
    wanted = key.replace("_", "").replace("-", "")
    if len(wanted) < 5:
        return False
    line = other.line
    return any(
        wanted.startswith(line[i]) and line[i] + line[i + 1] == wanted for i in range(len(line) - 1)
    )


def _is_variant(one: str, other: str, *, typo: bool) -> bool:
    """Forms of one word; with `typo` also a word of the lists that was mistyped."""
    if one[0] != other[0]:
        return False
    same = len(_shared_start(one, other))
    if same >= 6 and same >= 0.7 * max(len(one), len(other)):
        return True
    if sorted(one) == sorted(other) and len(one) > 5:
        return True
    if _undoubled(one) == _undoubled(other):
        return True
    return typo and len(one) > 5 and abs(len(one) - len(other)) < 2 and _one_edit(one, other)


def _undoubled(word: str) -> str:
    return "".join(c for c, before in zip(word, " " + word, strict=False) if c != before)


def _shared_start(one: str, other: str) -> str:
    size = 0
    for p, q in zip(one, other, strict=False):
        if p != q:
            break
        size += 1
    return one[:size]


def _one_edit(one: str, other: str) -> bool:
    start = len(_shared_start(one, other))
    a, b = one[start:], other[start:]
    return a[1:] == b[1:] or a[1:] == b or a == b[1:]


def prefixed(ours: Sequence[Term], theirs: Sequence[Term]) -> list[tuple[Term, Term, int]]:
    """Pairs such as (unsafe, safe); 1 where the negative one is ours, -1 where it is theirs."""
    found = []
    for term in ours:
        for other in theirs:
            if _negates(term.key, other.key):
                found.append((term, other, 1))
            elif _negates(other.key, term.key):
                found.append((term, other, -1))
    return found


def _prefixed_pair(one: str, other: str) -> bool:
    return _negates(one, other) or _negates(other, one)


def _negates(negative: str, bare: str) -> bool:
    if negative.endswith(bare):
        return negative[: len(negative) - len(bare)] in NEGATIVE_PREFIXES
    return negative.endswith("less") and (bare in {negative[:-4], negative[:-4] + "ful"})


def degree_opposites(a: Facts, b: Facts) -> bool:
    """Whether "least expensive" on one side is "cheapest" on the other."""
    for one, other in ((a, b), (b, a)):
        for place, word in enumerate(one.line[:-1]):
            if word in {"least", "less"}:
                against = OPPOSITES.get(one.line[place + 1], frozenset())
                if against & other.keys:
                    return True
    return False
