"""Families of questions, read from the text files beside this module.

A family is a set of intents over shared slots. All wordings of one intent with the same slot values
deserve the same answer; another intent, value or constraint does not. The notation of a file:

    @ family                    opens a family; the file's name is its domain
    ~ in_place: fix cost        a list of constraints that may be added, and to which intents
    + intent: one | another     wordings of an intent, which may run over several lines
    + intent sym: ...           an intent that does not care which of two values comes first
    = one | another ! near      a question without slots, and questions that only look like it

In a wording `[a/b/]` is a choice, `{list}`, `{list1}`, `{list2}` a slot, `{list:ing}` its gerund,
and `HOW: verb phrase` (or another name of FRAMES) stands for the usual frames around it.
`lists.txt` holds `name: value=alias; value` lines.
"""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

FOLDER: Final = Path(__file__).parent / "grammar"
SLOT: Final = re.compile(r"\{(?P<name>[a-z_]+)(?P<index>\d?)(?::(?P<form>\w+))?\}")
_CHOICE: Final = re.compile(r"\[([^\[\]]*)\]")

FRAMES: Final[dict[str, tuple[str, ...]]] = {
    "HOW": (
        "How do I {0}{mod}",
        "How can I {0}{mod}",
        "How do you {0}{mod}",
        "How to {0}{mod}",
        "How should I {0}{mod}",
        "How can one {0}{mod}",
        "How would I go about {0:ing}{mod}",
        "What is the best way to {0}{mod}",
        "What is a good way to {0}{mod}",
        "What's the right way to {0}{mod}",
        "Is there a way to {0}{mod}",
        "What should I do to {0}{mod}",
        "What do I need to do to {0}{mod}",
        "What are some ways to {0}{mod}",
        "What steps should I take to {0}{mod}",
        "I want to {0}{mod}. How do I do that",
        "I'm trying to {0}{mod}, what should I do",
        "I would like to know how to {0}{mod}",
        "Need help {0:ing}{mod}",
        "Tips for {0:ing}{mod}",
        "Any advice on {0:ing}{mod}",
        "ways to {0}{mod}",
        "Tell me how to {0}{mod}",
        "Can you explain how to {0}{mod}",
        "{0:ing}{mod}: how",
    ),
    "WHAT": (
        "What is {0}{mod}",
        "What exactly is {0}{mod}",
        "What is meant by {0}{mod}",
        "Can you explain what {0} is{mod}",
        "Explain {0}{mod}",
        "Define {0}{mod}",
        "What is the meaning of {0}{mod}",
        "I don't know what {0} is{mod}. Can you explain",
        "Tell me what {0} is{mod}",
        "What do people mean by {0}{mod}",
    ),
    "BEST": (
        "What is the best {0}{mod}",
        "Which {0} is the best{mod}",
        "What's the best {0} out there{mod}",
        "Which is the best {0}{mod}",
        "Can you recommend a good {0}{mod}",
        "What {0} would you recommend{mod}",
        "Which {0} should I choose{mod}",
        "I'm looking for a good {0}{mod}. Any suggestions",
        "Recommend me a {0}{mod}",
        "Suggest a good {0}{mod}",
        "best {0}{mod}",
        "Any recommendations for a {0}{mod}",
    ),
    "DIFF": (
        "What is the difference between {0} and {1}{mod}",
        "What are the differences between {0} and {1}{mod}",
        "How is {0} different from {1}{mod}",
        "How do {0} and {1} differ{mod}",
        "{0} vs {1}: what is the difference{mod}",
        "In what way does {0} differ from {1}{mod}",
        "difference between {0} and {1}{mod}",
        "What distinguishes {0} from {1}{mod}",
        "Explain the difference between {0} and {1}{mod}",
    ),
    "SHOULD": (
        "Should I {0}{mod}",
        "Is it a good idea to {0}{mod}",
        "Is it worth it to {0}{mod}",
        "Would you advise me to {0}{mod}",
        "I'm thinking about {0:ing}{mod}. Should I",
        "Does it make sense to {0}{mod}",
        "Is {0:ing} worth it{mod}",
        "Do you think I should {0}{mod}",
    ),
    "CAN": (
        "Can I {0}{mod}",
        "Is it possible to {0}{mod}",
        "Am I able to {0}{mod}",
        "Is it possible for me to {0}{mod}",
        "Could I {0}{mod}",
        "I'd like to know whether I can {0}{mod}",
    ),
    "LIKE": (
        "What is it like to {0}{mod}",
        "What does it feel like to {0}{mod}",
        "How does it feel to {0}{mod}",
        "Describe what it's like to {0}{mod}",
        "What is the experience of {0:ing} like{mod}",
    ),
    "DO": (
        "{0}{mod}",
        "Please {0}{mod}",
        "Can you {0}{mod}",
        "Could you {0}{mod}",
        "I need you to {0}{mod}",
        "I want you to {0}{mod}",
        "Would you {0}{mod}",
        "Help me {0}{mod}",
        "I'd like you to {0}{mod}",
    ),
}


@dataclass(frozen=True, kw_only=True)
class Intent:
    """One thing asked: its wordings, and whether two values of a list may change places."""

    name: str
    wordings: tuple[str, ...]
    symmetric: bool = False

    @property
    def slots(self) -> tuple[str, ...]:
        """The slots (`city1`, `city2`, ...), the same in every wording."""
        return _slots(self.wordings[0])

    def __post_init__(self) -> None:
        for wording in self.wordings:
            if _slots(wording) != self.slots:
                raise ValueError(f"{self.name}: other slots than {self.slots}: {wording}")


@dataclass(frozen=True, kw_only=True)
class Plain:
    """A question without slots: its wordings, and others that only look like it."""

    wordings: tuple[str, ...]
    near: tuple[str, ...]


@dataclass(kw_only=True)
class Family:
    """What is held out as one in cross-validation."""

    name: str
    domain: str
    constraints: dict[str, tuple[str, ...]] = field(default_factory=dict)
    intents: list[Intent] = field(default_factory=list)
    plain: list[Plain] = field(default_factory=list)

    def constraints_of(self, intent: Intent) -> list[str]:
        """The lists of constraints that suit an intent; one that names no intent suits all."""
        return [
            name
            for name, intents in self.constraints.items()
            if not intents or intent.name in intents
        ]


def slot_name(match: re.Match[str]) -> str:
    """The slot's list and index, without its form."""
    return match["name"] + match["index"]


def read_lists(path: Path = FOLDER / "lists.txt") -> dict[str, tuple[tuple[str, ...], ...]]:
    """Each list's values; a value is its aliases, of which the first is its name."""
    lists: dict[str, list[tuple[str, ...]]] = {}
    name = ""
    for raw in path.read_text(encoding="utf-8").splitlines():
        line = raw.strip()
        if not line or line.startswith("#"):
            continue
        if opened := re.match(r"([a-z_]+):(.*)", line):
            name, line = opened[1], opened[2]
        values = (value.strip() for value in line.split(";"))
        lists.setdefault(name, []).extend(
            tuple(alias.strip() for alias in value.split("=")) for value in values if value
        )
    return {name: tuple(values) for name, values in lists.items()}


def read_families(folder: Path = FOLDER) -> list[Family]:
    """Every family of the domain files (`domain_*.txt`), in the order of their names."""
    families: list[Family] = []
    for path in sorted(folder.glob("domain_*.txt")):
        lines = path.read_text(encoding="utf-8").splitlines()
        for line in _joined(lines):
            mark, rest = line[0], line[1:].strip()
            if mark == "@":
                families.append(Family(name=rest, domain=path.stem.removeprefix("domain_")))
            elif mark == "~":
                constraint, _, intents = rest.partition(":")
                for name in constraint.split():
                    families[-1].constraints[name] = tuple(intents.split())
            elif mark == "+":
                families[-1].intents.append(_intent(rest))
            elif mark == "=":
                families[-1].plain.append(_plain(rest))
            else:
                raise ValueError(f"{path.name}: not understood: {line}")
    return families


def choose(wording: str, draws: list[float]) -> str:
    """The wording with each choice made by the next of `draws` (in [0, 1), recycled)."""
    position = 0
    while match := _CHOICE.search(wording):
        options = match[1].split("/")
        chosen = options[int(draws[position % len(draws)] * len(options))]
        wording = wording[: match.start()] + chosen + wording[match.end() :]
        position += 1
    return wording


def _slots(wording: str) -> tuple[str, ...]:
    names = {slot_name(match) for match in SLOT.finditer(wording)}
    return tuple(sorted(names - {"mod"}))


def _joined(lines: list[str]) -> list[str]:
    """Logical lines: one that starts with a space continues the one above; `#` comments go."""
    joined: list[str] = []
    for line in lines:
        if not line.strip() or line.startswith("#"):
            continue
        if line[0] == " ":
            joined[-1] += " " + line.strip()
        else:
            joined.append(line.strip())
    return joined


def _intent(rest: str) -> Intent:
    head, _, body = rest.partition(":")
    name, _, symmetric = head.partition(" ")
    wordings = [wording for part in body.split("|") for wording in _framed(part.strip())]
    return Intent(name=name, wordings=tuple(wordings), symmetric=symmetric == "sym")


def _plain(rest: str) -> Plain:
    same, _, near = rest.partition("!")
    wordings = [wording for part in same.split("|") for wording in _framed(part.strip())]
    nears = [part.strip() for part in near.split("|") if part.strip()]
    return Plain(wordings=tuple(wordings), near=tuple(nears))


def _framed(part: str) -> list[str]:
    """The wording itself, or a frame's wordings around it."""
    head, colon, body = part.partition(":")
    if not colon or head not in FRAMES:
        return [part]
    phrases = [phrase.strip() for phrase in body.split("&&")]
    return [_fill(frame, phrases) for frame in FRAMES[head]]


def _fill(frame: str, phrases: list[str]) -> str:
    for index, phrase in enumerate(phrases):
        frame = frame.replace(f"{{{index}}}", phrase)
        frame = frame.replace(f"{{{index}:ing}}", f"<ing>{phrase}</ing>")
    return frame
