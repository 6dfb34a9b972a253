"""Template keys: requests that say one thing in an operator's own words, with typed slots.

An operator registers `name@version` with a pattern:

    Analyze this property: {address:address}, {beds:beds}/{baths:baths}, {price:money}

A chat whose last user message matches a pattern in full gets its key from the template's label and
pattern, the slots in their one spelling, and all other fields; any other request gets its ordinary
key. Slots
are `text` (as written; `text(500)` sets its limit), `integer`, `number`, `money`, `address`,
`beds`, `baths`, `area`, `date` and `enum(a|b)`; `{{` and `}}` stand for braces.

Invariants
1. Matching is deterministic and goes forward only, in time linear in the message: a typed slot is
   read as far as a value of its type goes (an address takes its city, state and ZIP code with it),
   an enum takes its longest option, a text ends before the next literal. Nothing is tried twice.
2. Literals match to the letter; only space around the message is ignored.
3. Where several templates match, the one with the most literal characters is taken, then the one
   whose label comes first. The order of registration plays no part.
4. A client cannot name a key: the form that takes the place of the message is an object, which no
   request may hold there.
5. A key never changes its meaning: a template with another pattern makes other keys.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from shared.addresses import read_address
from shared.checks import wrong_type
from shared.normalisation import last_user_message, with_user_text
from shared.requests import Endpoint
from shared.slots import (
    Reader,
    Token,
    read_area,
    read_baths,
    read_beds,
    read_date,
    read_integer,
    read_money,
    read_number,
    tokenise,
)

MAX_PATTERN_CHARACTERS = 4_096
MAX_SLOTS = 32
MAX_TEMPLATES = 256
MAX_MESSAGE_CHARACTERS = 16_384
DEFAULT_TEXT_CHARACTERS = 200
MAX_TEXT_CHARACTERS = 8_192


class TemplateError(ValueError):
    """A template cannot be registered. The message names the template, and the slot if any."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Slot:
    """A place for a value. `options` are an enum's, the longest first; `limit` is a text's."""

    name: str
    type: str
    options: tuple[str, ...] = ()
    limit: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Template:
    """A pattern cut up: a literal, and then slots, each with the literal behind it."""

    label: str
    pattern: str
    head: str
    slots: tuple[tuple[Slot, str], ...]

    @property
    def literal_characters(self) -> int:
        """How much of the pattern is fixed."""
        return len(self.head) + sum(len(literal) for _, literal in self.slots)


@dataclass(frozen=True, kw_only=True, slots=True)
class Templates:
    """A tenant's templates, in the order in which they are tried."""

    ordered: tuple[Template, ...] = ()


def register(patterns: Mapping[str, str]) -> Templates:
    """The templates of `patterns` (`name@version` → pattern).

    Raises TemplateError, naming template and slot, for one that is malformed, and for a name that
    is registered with two versions.
    """
    if len(patterns) > MAX_TEMPLATES:
        raise TemplateError(f"at most {MAX_TEMPLATES} templates, not {len(patterns)}")
    templates = [parse_template(label, pattern) for label, pattern in patterns.items()]
    labels: dict[str, str] = {}
    for template in templates:
        name = template.label.partition("@")[0]
        other = labels.setdefault(name, template.label)
        if other != template.label:
            raise TemplateError(
                f"template {template.label!r}: the name is registered as {other!r} already"
            )
    ordered = sorted(templates, key=lambda each: (-each.literal_characters, each.label))
    return Templates(ordered=tuple(ordered))


def parse_template(label: str, pattern: str) -> Template:
    """Read one pattern. Raises TemplateError."""
    if _LABEL.fullmatch(label) is None:
        raise TemplateError(f"template {label[:80]!r}: a label is name@version, in lower case")
    if len(pattern) > MAX_PATTERN_CHARACTERS:
        raise _error(label, f"a pattern has at most {MAX_PATTERN_CHARACTERS} characters")
    pieces: list[str | Slot] = [""]
    for match in _PIECE.finditer(pattern.strip(_SPACES)):
        if match["slot"] is not None:
            slot = _slot(label, match["slot"])
            if any(slot.name == each.name for each in pieces if isinstance(each, Slot)):
                raise _error(label, "the name is used twice", slot=slot.name)
            if pieces[-1] == "" and len(pieces) > 1:
                raise _error(label, "it follows another slot without a literal", slot=slot.name)
            pieces += [slot, ""]
        elif match[0] in {"{", "}"}:
            raise _error(label, f"a lone {match[0]!r} at {match.start()}; write it twice")
        else:
            pieces[-1] = f"{pieces[-1]}{match[0][0] if match[0] in {'{{', '}}'} else match[0]}"
    slots = tuple(
        (slot, literal)
        for slot, literal in zip(pieces[1::2], pieces[2::2], strict=True)
        if isinstance(slot, Slot) and isinstance(literal, str)
    )
    if not 0 < len(slots) <= MAX_SLOTS:
        raise _error(label, f"a pattern has 1 to {MAX_SLOTS} slots, not {len(slots)}")
    return Template(label=label, pattern=pattern, head=str(pieces[0]), slots=slots)


def templated(
    templates: Templates, endpoint: Endpoint, fields: dict[str, Any]
) -> dict[str, Any] | None:
    """The fields a key is made of where a template matches, else None.

    `fields` is not changed. Raises ClientError where the last user message holds an object in
    place of its text, so that no client can write the form of a template there.
    """
    if endpoint is not Endpoint.CHAT:
        return None
    _refuse_objects(fields)
    if not templates.ordered:
        return None
    changed = with_user_text(fields, lambda text: _form(templates, text) or text)
    return None if changed is fields else changed


def match(template: Template, text: str) -> dict[str, str] | None:
    """The slots of `text`, each in its one spelling, or None where it does not match in full."""
    return _match(template, text.strip(_SPACES), [])


_SPACES = " \t\r\n"
_LABEL = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}@[a-z0-9][a-z0-9.-]{0,15}")
_PIECE = re.compile(r"\{\{|\}\}|\{(?P<slot>[^{}]*)\}|[^{}]+|[{}]")
_SLOT = re.compile(r"(?P<name>[a-z_][a-z0-9_]{0,31}):(?P<type>[a-z]+)(?:\((?P<argument>.*)\))?")
_READERS: dict[str, Reader] = {
    "address": read_address,
    "area": read_area,
    "baths": read_baths,
    "beds": read_beds,
    "date": read_date,
    "integer": read_integer,
    "money": read_money,
    "number": read_number,
}


def _slot(label: str, text: str) -> Slot:
    found = _SLOT.fullmatch(text)
    if found is None:
        raise _error(label, "a slot is name:type", slot=text)
    name, kind, argument = found["name"], found["type"], found["argument"]
    fail = partial(_error, label, slot=name)
    if kind == "enum":
        options = (argument or "").split("|")
        if "" in options or len(set(options)) < len(options):
            raise fail("an enum is enum(a|b), its options are not empty and differ")
        return Slot(name=name, type=kind, options=tuple(sorted(options, key=len, reverse=True)))
    if kind == "text":
        limit = argument or str(DEFAULT_TEXT_CHARACTERS)
        if re.fullmatch(r"[1-9][0-9]{0,3}", limit) is None or int(limit) > MAX_TEXT_CHARACTERS:
            raise fail(f"a text has 1 to {MAX_TEXT_CHARACTERS} characters, not {limit!r}")
        return Slot(name=name, type=kind, limit=int(limit))
    if kind not in _READERS:
        raise fail(f"there is no type {kind!r}")
    if argument is not None:
        raise fail(f"the type {kind!r} takes no argument")
    return Slot(name=name, type=kind)


def _error(label: str, words: str, *, slot: str | None = None) -> TemplateError:
    where = "" if slot is None else f", slot {slot[:40]!r}"
    return TemplateError(f"template {label!r}{where}: {words}")


def _refuse_objects(fields: Mapping[str, Any]) -> None:
    messages = fields.get("messages")
    place = last_user_message(messages) if type(messages) is list else None
    if type(messages) is not list or place is None:
        return
    content, path = messages[place].get("content"), f"messages[{place}].content"
    if type(content) is dict:
        raise wrong_type(content, path, "a string or an array")
    for i, part in enumerate(content if type(content) is list else ()):
        if type(part) is dict and type(part.get("text")) is dict:
            raise wrong_type(part["text"], f"{path}[{i}].text", "a string")


def _form(templates: Templates, text: str) -> dict[str, Any] | None:
    stripped = text.strip(_SPACES)
    if len(stripped) > MAX_MESSAGE_CHARACTERS:
        return None
    tokens: list[Token] = []
    for template in templates.ordered:
        slots = _match(template, stripped, tokens)
        if slots is not None:
            return {"template": template.label, "pattern": template.pattern, "slots": slots}
    return None


def _match(template: Template, text: str, tokens: list[Token]) -> dict[str, str] | None:
    """`tokens` are those of `text`, cut when the first typed slot needs them."""
    if not text.startswith(template.head):
        return None
    place, values, index = len(template.head), {}, 0
    for slot, literal in template.slots:
        if slot.type in _READERS:
            if not tokens:
                tokens += tokenise(text)
            while tokens[index].start < place:
                index += 1
            found = _READERS[slot.type](tokens, index) if tokens[index].start == place else None
            if found is None:
                return None
            value, index = found
            end = tokens[index - 1].end
        else:
            value = _untyped(slot, literal, text, place)
            if not value:
                return None
            end = place + len(value)
        if not text.startswith(literal, end):
            return None
        values[slot.name], place = value, end + len(literal)
    return values if place == len(text) else None


def _untyped(slot: Slot, literal: str, text: str, place: int) -> str:
    """The value of an enum or a text at `place`; empty where there is none."""
    if slot.type == "enum":
        return next((each for each in slot.options if text.startswith(each, place)), "")
    last = place + slot.limit
    end = text.find(literal, place + 1, last + len(literal)) if literal else len(text)
    return text[place:end] if place < end <= last else ""
