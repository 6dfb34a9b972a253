"""What pairs are made of: questions, their texts, pairs of texts."""

from dataclasses import dataclass

from tools.verifier.grammar import Family, Intent
from tools.verifier.values import Value


@dataclass(frozen=True, kw_only=True)
class Text:
    """One wording of the question that `group` names."""

    text: str
    group: str
    template: str


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two texts and what is known of them; `group` is the first text's."""

    a: Text
    b: Text
    kind: str

    @property
    def same(self) -> bool:
        """Whether one answer serves both."""
        return self.a.group == self.b.group


@dataclass(frozen=True, kw_only=True)
class Question:
    """An intent with its values and, perhaps, a constraint: all that decides the answer."""

    family: Family
    intent: Intent
    slots: dict[str, Value]
    constraint: Value | None = None
    contrast: tuple[int, str] | None = None  # the wording, and that wording with one word changed
    swapped: bool = False

    @property
    def group(self) -> str:
        """The question's name, equal for equal questions."""
        names = [f"{slot}={value.name}" for slot, value in sorted(self.slots.items())]
        if self.intent.symmetric:
            names = sorted(name.partition("=")[2] for name in names)
        if self.constraint:
            names.append(f"+{self.constraint.name}")
        if self.contrast:
            names.append(f"!{self.contrast[1]}")
        return f"{self.family.name}/{self.intent.name}: " + ", ".join(names)
