"""From a row of a log to what a cache needs of it: the real keys, under each profile.

A body that came before has the keys it had then, so what repeats is normalised once: most of a log
is repeats, and a profile takes longer than all the rest. Keys are kept as the first 64 bits of what
the cache goes by; of a million two are equal with a probability of one in forty million.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

from origin.planning.log import Reading, Row, said
from origin.prices import Prices
from shared.canonical import UNPROVEN
from shared.control_document import ControlDocument, Policy, canonical_for
from shared.controls import Controls
from shared.embeddings import elements
from shared.envelope import TokenCounts
from shared.errors import ClientError
from shared.json_text import dumps
from shared.keys import KeyRing, cache_key
from shared.requests import Endpoint, streaming, validate
from shared.storability import request_storability

MAX_REMEMBERED = 150_000
"""Bodies whose keys are remembered, some 600 bytes each."""
CHARACTERS_A_TOKEN = 4
"""What English takes in common vocabularies; for rows whose log does not say what they took."""
_KEY_HEX = 16


class Asked(NamedTuple):
    """A request, as far as a cache cares. `keys` has those of each input, under each profile."""

    time_ms: int
    tenant: str
    location: str
    endpoint: Endpoint
    model: str
    controls: Controls
    keys: tuple[tuple[int, ...], ...]
    is_batch: bool
    """Whether it is answered input by input, at the origin alone."""
    bypass: str | None
    """Why its answer is never stored, None where it may be."""
    prompt_tokens: int
    completion_tokens: int
    usd: float | None
    """What a generation costs, None where the model has no price."""
    fields: dict[str, Any] | None
    """The body, where it is wanted."""


class Keyed(NamedTuple):
    """What one line comes to, by itself."""

    time_ms: int | None
    is_estimated: bool
    asked: Asked


class _Known(NamedTuple):
    keys: tuple[tuple[int, ...], ...]
    unstorable: str | None
    prompt_tokens: int
    completion_tokens: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Rules:
    """By what lines are keyed: under `profiles`, in that order. With `fields` bodies are kept."""

    ring: KeyRing
    profiles: tuple[str, ...]
    reading: Reading
    prices: Prices
    max_body_bytes: int
    answer_tokens: int
    fields: bool = False


class Keying:
    """Keys lines. One a process: it remembers what it has seen."""

    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        self._known: dict[str, _Known] = {}
        self._document = lru_cache(maxsize=4096)(_document)
        self._price = lru_cache(maxsize=1024)(rules.prices.of)

    def keyed(self, number: int, line: bytes) -> Keyed:
        """What a line asks. Raises ClientError where it is no request, or refused."""
        row = self.rules.reading.row(number, line)
        known, bypass = self._read(row)
        prompt, completion = row.tokens or (known.prompt_tokens, known.completion_tokens)
        model = row.fields["model"]
        price = self._price(model)
        asked = Asked(
            0,
            row.tenant,
            row.location,
            row.endpoint,
            model,
            row.controls,
            known.keys,
            len(known.keys[0]) > 1,
            bypass,
            prompt,
            completion,
            None if price is None else price.of(TokenCounts(prompt=prompt, completion=completion)),
            row.fields if self.rules.fields else None,
        )
        return Keyed(row.time_ms, row.tokens is None, asked)

    def all_keyed(
        self, lines: Iterable[tuple[int, bytes]]
    ) -> tuple[list[Keyed], list[tuple[int, str]]]:
        """(what some lines ask, which of them are none)."""
        keyed, wrong = [], []
        for number, line in lines:
            try:
                keyed.append(self.keyed(number, line))
            except ClientError as error:
                wrong.append((number, said(error)))
        return keyed, wrong

    def _read(self, row: Row) -> tuple[_Known, str | None]:
        """What is known of a row's body, and why it passes the cache by. Raises ClientError."""
        fields = row.fields
        streaming(fields)
        parts = elements(row.endpoint, fields) or ()
        exact = self._key(row, "exact", fields)
        known = self._known.get(exact)
        if known is None or not UNPROVEN.isdisjoint(fields):
            request = validate(row.endpoint, fields)
            if known is None:
                known = _Known(
                    tuple(
                        self._numbers(row, profile, exact, parts) for profile in self.rules.profiles
                    ),
                    request_storability(request),
                    *self._estimated(row),
                )
                if len(parts) <= 1:  # others may have thousands of keys
                    if len(self._known) >= MAX_REMEMBERED:
                        del self._known[next(iter(self._known))]
                    self._known[exact] = known
        bypass = known.unstorable
        limit = self.rules.max_body_bytes
        if row.body_bytes > limit and len(dumps(fields)) > limit:
            bypass = "too-large"
        return known, bypass

    def _key(self, row: Row, profile: str, fields: dict[str, Any]) -> str:
        form = canonical_for(
            self._document(row.tenant, profile),
            endpoint=row.endpoint,
            controls=row.controls,
            fields=fields,
        )
        return cache_key(self.rules.ring, form.canonical)

    def _numbers(self, row: Row, profile: str, exact: str, parts: Sequence[Any]) -> tuple[int, ...]:
        if len(parts) > 1:
            each = ({**row.fields, "input": part} for part in parts)
            return tuple(number_of(self._key(row, profile, fields)) for fields in each)
        key = exact if profile == "exact" else self._key(row, profile, row.fields)
        return (number_of(key),)

    def _estimated(self, row: Row) -> tuple[int, int]:
        """Tokens of prompt and completion, by the characters and by what the request allows."""
        fields = row.fields
        told = fields.get("messages") or fields.get("prompt") or fields.get("input")
        prompt = -(-_characters(told) // CHARACTERS_A_TOKEN)
        if row.endpoint is Endpoint.EMBEDDINGS:
            return prompt, 0
        most = fields.get("max_completion_tokens") or fields.get("max_tokens")
        answer = self.rules.answer_tokens
        return prompt, min(answer, most) if type(most) is int else answer


def number_of(key: str) -> int:
    """What a replay knows a cache key by."""
    return int(key[:_KEY_HEX], 16)


def _document(tenant: str, profile: str) -> ControlDocument:
    return ControlDocument(tenant=tenant, revision=1, policy=Policy(normalisation=profile))


def _characters(told: Any) -> int:
    """Of all texts within; a token id counts as one token."""
    if isinstance(told, str):
        return len(told)
    if isinstance(told, list):
        if told and type(told[0]) is int:
            return len(told) * CHARACTERS_A_TOKEN
        return sum(map(_characters, told))
    if isinstance(told, dict):
        return _characters(told.get("content") or told.get("text"))
    return 0
