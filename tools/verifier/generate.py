"""Writes synthetic pairs of questions: the same answer, or another one.

    python -m tools.verifier.generate PAIRS.jsonl [--entries ENTRIES.jsonl.gz] [--seed 1]

Deterministic from the seed; standard library only. A pair is `same` only where both texts are
wordings of one question (same family, intent, values and constraint). A near-miss differs in
exactly one of those, in the same wording or in another, so that the share of common words says
little about the label.
"""

import argparse
import gzip
import json
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import chain, combinations, pairwise
from pathlib import Path
from typing import Final

from tools.verifier import corpora, values, words
from tools.verifier.grammar import (
    SLOT,
    Family,
    choose,
    read_families,
    read_lists,
    slot_name,
)
from tools.verifier.questions import Pair, Question, Text
from tools.verifier.surface import typed
from tools.verifier.values import Value

PAIRS: Final = 48_000
_NEAR_PER_QUESTION: Final = 4
_DRAWS: Final = 12


@dataclass(kw_only=True)
class Generator:
    """Draws questions and pairs; the same seed gives the same pairs."""

    seed: int
    rng: random.Random = field(init=False)
    lists: dict[str, tuple[tuple[str, ...], ...]] = field(default_factory=read_lists)
    families: list[Family] = field(default_factory=read_families)

    def __post_init__(self) -> None:
        self.rng = random.Random(self.seed)  # noqa: S311 (a reproducible draw, no secret)

    def pairs(self, count: int = PAIRS) -> Iterator[Pair]:
        """About `count` pairs: every family in turn, then pairs of unlike questions."""
        share = count // len(self.families)
        texts: dict[str, list[Text]] = {}
        for family in self.families:
            self.rng = random.Random(f"{self.seed} {family.name}")  # noqa: S311
            made = list(self._intent_pairs(family, share)) + list(self._plain_pairs(family, share))
            yield from made
            texts.setdefault(family.domain, []).extend(pair.a for pair in made)
        self.rng = random.Random(f"{self.seed} others")  # noqa: S311
        yield from self._other_pairs(texts, count // 12)

    # Families with slots

    def _intent_pairs(self, family: Family, share: int) -> Iterator[Pair]:
        if not family.intents:
            return
        seen: set[str] = set()
        questions = []
        for _ in range(share // 2):
            question = self._draw(family)
            if question.group not in seen:
                seen.add(question.group)
                questions.append(question)
        per_question = max(1.0, share / max(1, len(questions)) / 7)
        for question in questions[: share // 7]:
            yield from self._question_pairs(question, per_question)

    def _question_pairs(self, question: Question, weight: float) -> Iterator[Pair]:
        count = self._whole(3 * weight)
        turns = list(range(len(question.intent.wordings)))
        self.rng.shuffle(turns)
        texts = [self._text(question, wording=turn) for turn in turns[: count + 1]]
        texts += [self._text(question) for _ in range(count + 1 - len(texts))]
        for first, second in pairwise(texts):
            yield Pair(a=first, b=second, kind="paraphrase")
        for _ in range(self._whole(1.2 * weight)):
            turn = self.rng.choice(turns)
            first, second = (self._text(question, wording=turn) for _ in range(2))
            yield Pair(a=first, b=second, kind="surface")
        if question.intent.symmetric and len(question.slots) >= 2:
            turned = self._swap(question)
            yield Pair(a=texts[0], b=self._text(turned), kind="symmetry")
        for _ in range(self._whole(_NEAR_PER_QUESTION * weight)):
            near = self._near(question)
            if near is None:
                continue
            kind, other = near
            if other.group == question.group:
                continue
            if self.rng.random() < 0.5:
                yield self._alike(question, other, kind)
            else:
                yield Pair(a=self.rng.choice(texts), b=self._text(other), kind=kind)
            if other.contrast and self.rng.random() < 0.2:
                first, second = self._text(other), self._text(other)
                yield Pair(a=first, b=second, kind="paraphrase")

    def _draw(self, family: Family) -> Question:
        intent = self.rng.choice(family.intents)
        slots: dict[str, Value] = {}
        for slot in intent.slots:
            slots[slot] = self._value(slot.rstrip("0123456789"), list(slots.values()))
        constraint = None
        constraints = family.constraints_of(intent)
        if constraints and self.rng.random() < 0.35:
            constraint = self._value(self.rng.choice(constraints), [])
        return Question(family=family, intent=intent, slots=slots, constraint=constraint)

    def _value(self, name: str, taken: list[Value]) -> Value:
        names = {value.name for value in taken}
        for _ in range(100):
            if name in values.MADE:
                value = values.make(name, self.rng)
            else:
                value = Value(forms=self.rng.choice(self.lists[name]))
            if value.name not in names:
                return value
        raise ValueError(f"list {name} is too short")

    def _near(self, question: Question) -> tuple[str, Question] | None:
        """A question that differs in one thing, and the kind of that thing."""
        ways = ["contrast"] * 2
        ways += ["slot"] * min(7, 4 * len(question.slots))
        ways += ["intent"] * min(2, len(question.family.intents) - 1)
        ways += ["swap"] * (3 if _swappable(question) else 0)
        ways += ["constraint"] * (2 if question.family.constraints_of(question.intent) else 0)
        way = self.rng.choice(ways)
        if way == "slot":
            return self._near_slot(question)
        if way == "intent":
            return self._near_intent(question)
        if way == "swap":
            return "swap", self._swap(question)
        if way == "constraint":
            return self._near_constraint(question)
        return self._near_contrast(question)

    def _near_slot(self, question: Question) -> tuple[str, Question]:
        slot = self.rng.choice(list(question.slots))
        name = slot.rstrip("0123456789")
        value = question.slots[slot]
        if name in values.MADE:
            kind, other = values.vary(name, value, self.rng)
            taken = [held.name for key, held in question.slots.items() if key != slot]
            if other.name in taken:
                other = self._value(name, list(question.slots.values()))
        else:
            kind, other = name, self._value(name, list(question.slots.values()))
        return kind, replace(question, slots=question.slots | {slot: other})

    def _near_intent(self, question: Question) -> tuple[str, Question] | None:
        others = [
            intent
            for intent in question.family.intents
            if intent.slots == question.intent.slots and intent.name != question.intent.name
        ]
        if question.constraint:
            others = [one for one in others if question.family.constraints_of(one)]
        if not others:
            return None
        return "aspect", replace(question, intent=self.rng.choice(others))

    def _near_constraint(self, question: Question) -> tuple[str, Question]:
        if question.constraint and self.rng.random() < 0.5:
            return "constraint_dropped", replace(question, constraint=None)
        taken = [question.constraint] if question.constraint else []
        constraints = question.family.constraints_of(question.intent)
        other = self._value(self.rng.choice(constraints), taken)
        kind = "constraint_changed" if question.constraint else "constraint_added"
        return kind, replace(question, constraint=other)

    def _near_contrast(self, question: Question) -> tuple[str, Question] | None:
        index = self.rng.randrange(len(question.intent.wordings))
        wording = choose(question.intent.wordings[index], self._draws(self.rng))
        changed = words.contrasting(wording, self.rng)
        if changed is None:
            return None
        kind, text = changed
        return kind, replace(question, contrast=(index, text))

    def _swap(self, question: Question) -> Question:
        names = _twins(question)
        first, second = names[0], names[1]
        slots = question.slots | {
            first: question.slots[second],
            second: question.slots[first],
        }
        return replace(question, slots=slots, swapped=not question.swapped)

    def _alike(self, question: Question, other: Question, kind: str) -> Pair:
        """Both in the same wording, so that little but the difference differs."""
        seed = self.rng.random()
        if other.contrast:
            wording = other.contrast[0]
        else:
            wording = self.rng.randrange(len(question.intent.wordings))
        noise = self.rng.choice([0.0, 0.0, 0.5, 1.0])
        texts = []
        for one in (question, other):
            draws = random.Random(seed)  # noqa: S311
            texts.append(self._text(one, draws, wording=wording, noise=noise, reworded=False))
        return Pair(a=texts[0], b=texts[1], kind=kind)

    # Families of plain questions

    def _plain_pairs(self, family: Family, share: int) -> Iterator[Pair]:
        if not family.plain:
            return
        weight = 2 * share / len(family.plain) / 6
        for index, plain in enumerate(family.plain):
            group = f"{family.name}/{index}"
            options = list(plain.wordings)
            texts = []
            for couple in self._couples(options, self._whole(3 * weight)):
                one, same = (self._plain_text(family, group, wording) for wording in couple)
                texts += [one, same]
                yield Pair(a=one, b=same, kind="paraphrase")
            for _ in range(self._whole(weight)):
                wording = self.rng.choice(options)
                one, same = (self._plain_text(family, group, wording) for _ in range(2))
                yield Pair(a=one, b=same, kind="surface")
            nears = [
                self._plain_text(family, f"{group}!{number}", near)
                for number, near in enumerate(plain.near)
            ]
            for near in nears:
                yield Pair(a=self.rng.choice(texts), b=near, kind="neighbour")
            if len(nears) > 1:
                first, second = self.rng.sample(nears, 2)
                yield Pair(a=first, b=second, kind="neighbour")
            for _ in range(self._whole(max(1.0, weight))):
                yield from self._plain_contrast(family, group, options)

    def _couples(self, options: list[str], count: int) -> list[tuple[str, str]]:
        """At least one couple of unlike wordings, and no couple twice."""
        couples = list(combinations(options, 2))
        return self.rng.sample(couples, min(len(couples), max(1, count)))

    def _plain_contrast(self, family: Family, group: str, options: list[str]) -> Iterator[Pair]:
        wording = choose(self.rng.choice(options), self._draws(self.rng))
        changed = words.contrasting(wording, self.rng)
        if changed is None:
            return
        kind, text = changed
        first = self._plain_text(family, group, wording, share=0.0)
        second = self._plain_text(family, f"{group}!{text}", text, share=0.0)
        if self.rng.random() < 0.4:
            first = self._plain_text(family, group, self.rng.choice(options))
        yield Pair(a=first, b=second, kind=kind)

    def _plain_text(self, family: Family, group: str, wording: str, share: float = 0.3) -> Text:
        text = choose(wording, self._draws(self.rng))
        text = words.reword(text, self.rng, share=share)
        text = _finished(text.replace("{mod}", ""))
        return Text(text=typed(text, self.rng, noise=1.0), group=group, template=family.name)

    # Pairs of unlike questions

    def _other_pairs(self, texts: dict[str, list[Text]], count: int) -> Iterator[Pair]:
        domains = sorted(texts)
        for _ in range(count):
            domain = self.rng.choice(domains)
            first, second = self.rng.sample(texts[domain], 2)
            if first.group.partition(":")[0] != second.group.partition(":")[0]:
                yield Pair(a=first, b=second, kind="topic")
            other = self.rng.choice([name for name in domains if name != domain])
            yield Pair(a=first, b=self.rng.choice(texts[other]), kind="random")

    # Texts

    def _text(
        self,
        question: Question,
        rng: random.Random | None = None,
        *,
        wording: int | None = None,
        noise: float = 1.0,
        reworded: bool = True,
    ) -> Text:
        rng = rng or self.rng
        draws = self._draws(rng)
        options = question.intent.wordings
        if question.contrast:
            text = question.contrast[1]
        else:
            text = choose(options[_pick(options, wording, draws[0])], draws)
        if not question.contrast and reworded:
            text = words.reword(text, rng, share=0.4)
        if "{mod}" not in text:
            text += "{mod}"
        added = ""
        if question.constraint:
            forms = question.constraint.forms
            added = " " + forms[int(draws[1] * len(forms))]
        text = text.replace("{mod}", added)
        position = iter(range(2, 2 + 40))

        def fill(match: re.Match[str]) -> str:
            forms = question.slots[slot_name(match)].forms
            draw = draws[next(position) % len(draws)]
            form = forms[0] if draw < 0.4 else forms[int((draw - 0.4) / 0.6 * len(forms))]
            return _shaped(form, match["form"])

        text = _finished(SLOT.sub(fill, text))
        return Text(
            text=typed(text, rng, noise=noise),
            group=question.group,
            template=question.family.name,
        )

    def _draws(self, rng: random.Random) -> list[float]:
        return [rng.random() for _ in range(_DRAWS)]

    def _whole(self, amount: float) -> int:
        return int(amount) + (self.rng.random() < amount % 1)


def rows(pairs: Iterator[Pair]) -> Iterator[dict[str, str | int]]:
    """The pairs as JSON rows: each text pair once, and no text in two groups."""
    groups: dict[str, str] = {}
    seen: set[tuple[str, str]] = set()
    for pair in pairs:
        first, second = _bare(pair.a.text), _bare(pair.b.text)
        if first == second:  # equal normalised text never reaches the verifier
            continue
        known = [groups.setdefault(first, pair.a.group), groups.setdefault(second, pair.b.group)]
        key = (min(first, second), max(first, second))
        if known != [pair.a.group, pair.b.group] or key in seen:
            continue
        seen.add(key)
        yield {
            "a": pair.a.text,
            "b": pair.b.text,
            "same": int(pair.same),
            "source": "synthetic",
            "kind": pair.kind,
            "template": pair.a.template,
            "group": pair.a.group,
            "other_group": pair.b.group,
        }


def main() -> None:
    """Writes the files that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pairs", type=Path)
    parser.add_argument("--entries", type=Path)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=PAIRS)
    options = parser.parse_args()
    entries: dict[str, tuple[str, str, str]] = {}
    made = rows(Generator(seed=options.seed).pairs(options.count))
    with options.pairs.open("w", encoding="utf-8") as out:
        for row in chain(made, corpora.rows(options.seed)):
            out.write(json.dumps(row, ensure_ascii=False) + "\n")
            if row["source"] != "synthetic":
                continue  # no one has said which of these ask the same
            for text, group in (("a", "group"), ("b", "other_group")):
                entry = (str(row[text]), str(row[group]), str(row["template"]))
                entries.setdefault(_bare(entry[0]), entry)
    if options.entries:
        with gzip.open(options.entries, "wt", encoding="utf-8") as out:
            for text, group, template in entries.values():
                entry_row = {"text": text, "group": group, "template": template}
                out.write(json.dumps(entry_row, ensure_ascii=False) + "\n")


def _bare(text: str) -> str:
    return re.sub(r"[\s?.!,]+", " ", text.lower()).strip()


def _pick(options: tuple[str, ...], wording: int | None, draw: float) -> int:
    return int(draw * len(options)) if wording is None else wording % len(options)


def _twins(question: Question) -> list[str]:
    """Slots of one list."""
    names = list(question.slots)
    return [name for name in names if name[-1].isdigit()]


def _swappable(question: Question) -> bool:
    return len(_twins(question)) >= 2 and not question.intent.symmetric


def _shaped(form: str, shape: str | None) -> str:
    if shape == "ing":
        return words.gerund(form)
    if shape == "pl":
        return words.plural(form)
    return form


def _finished(text: str) -> str:
    """The text with its verb phrases in -ing, where a frame asks for that."""
    text = text.replace("s's", "s'")
    return re.sub(r"<ing>(.*?)</ing>", lambda match: words.gerund(match[1]), text)


if __name__ == "__main__":
    main()
