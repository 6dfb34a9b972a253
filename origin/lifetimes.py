"""How long an answer may be kept, and where, by its model and its content class.

An operator's tiers (`ENCORE_TIERS`), as JSON:

    {"models": {"gpt-4o*": 3600},
     "classes": {"listing": {"ttl_s": 600}, "contract": {"sensitivity": "confidential"}}}

The first pattern of `models` that matches says how long answers are fresh where the request says
nothing. A request's `Encore-Class` can only make that stricter: `ttl_s` of a class is a maximum,
and its sensitivity takes places away:

    public          anywhere
    internal        not at the edge (Workers KV)
    confidential    not at the edge, sealed at the origin, for an hour at most

A class that no tier names is not stored: what it was meant to forbid cannot be guessed. Where
several requests wait for one answer, the strictest of them rules.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import Annotated, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from shared.controls import Controls
from shared.freshness import Lifetimes, expiry

MAX_CONFIDENTIAL_TTL_S = 3600
Seconds = Annotated[int, Field(strict=True, ge=0)]
Sensitivity = Literal["public", "internal", "confidential"]
_STRICT = ConfigDict(frozen=True, extra="forbid")


class ContentClass(BaseModel):
    """What one class may be kept for, in seconds, and how sensitive it is."""

    model_config = _STRICT

    ttl_s: Seconds | None = None
    sensitivity: Sensitivity = "public"

    @property
    def max_ttl_s(self) -> int | None:
        """The longest freshness of its answers, None for no limit of its own."""
        if self.sensitivity != "confidential":
            return self.ttl_s
        longest_s = MAX_CONFIDENTIAL_TTL_S
        return longest_s if self.ttl_s is None else min(longest_s, self.ttl_s)


class Tiers(BaseModel):
    """The operator's tiers: seconds by a pattern of model names, and content classes."""

    model_config = _STRICT

    models: dict[str, Seconds] = Field(default_factory=dict)
    classes: dict[str, ContentClass] = Field(default_factory=dict)

    def __str__(self) -> str:
        return self.model_dump_json(exclude_defaults=True)

    @classmethod
    def parse(cls, text: str) -> Tiers:
        """Read the JSON of the setting. Raises ValueError."""
        return cls.model_validate_json(text)

    def knows(self, controls: Controls) -> bool:
        """Whether a request names no class, or one of these."""
        return controls.content_class is None or controls.content_class in self.classes

    def seals(self, controls: Controls) -> bool:
        """Whether what a request with these is told is sealed wherever it lies."""
        content_class = self.classes.get(controls.content_class or "")
        return content_class is not None and content_class.sensitivity == "confidential"

    def storing(
        self, lifetimes: Lifetimes, model: str, wishes: Iterable[Controls], created_ms: int
    ) -> Storing | None:
        """How an answer of `model`, made at `created_ms`, is kept; None where one wants it not.

        `lifetimes` are those that hold without tiers, `wishes` the requests that wait for it.
        """
        ttl_s = self._ttl_s(model, lifetimes.ttl_s)
        expiries: list[tuple[int, int, int]] = []
        sensitivities: set[Sensitivity] = set()
        for wish in wishes:
            if not self.knows(wish):
                return None
            content_class = self.classes.get(wish.content_class or "", ContentClass())
            limit_s = content_class.max_ttl_s
            max_ttl_s = lifetimes.max_ttl_s if limit_s is None else limit_s
            own = replace(lifetimes, ttl_s=ttl_s, max_ttl_s=min(lifetimes.max_ttl_s, max_ttl_s))
            until = expiry(own, wish.ttl_s, created_ms)
            if until is None:
                return None
            expiries.append(until)
            sensitivities.add(content_class.sensitivity)
        if not expiries:
            return None
        return Storing(
            expiry_ms=min(expiries),
            edge=sensitivities == {"public"},
            sealed="confidential" in sensitivities,
        )

    def default_ttl_s(self, lifetimes: Lifetimes, model: str, content_class: str | None) -> int:
        """How long answers are fresh where the request names no time of its own."""
        limit_s = self.classes.get(content_class or "", ContentClass()).max_ttl_s
        ttl_s = min(self._ttl_s(model, lifetimes.ttl_s), lifetimes.max_ttl_s)
        return ttl_s if limit_s is None else min(ttl_s, limit_s)

    def _ttl_s(self, model: str, default_s: int) -> int:
        matching = (s for pattern, s in self.models.items() if fnmatchcase(model, pattern))
        return next(matching, default_s)


class Storing(NamedTuple):
    """How an answer is kept: its end as `shared.freshness.expiry` gives it, whether the edge may
    have it, whether it is sealed whatever its tenant's policy.
    """  # noqa: D205 - one sentence

    expiry_ms: tuple[int, int, int]
    edge: bool
    sealed: bool
