"""How long an answer may be kept, and where, by its model and its content class.

An operator's tiers (`ENCORE_TIERS`), as JSON:

    {"models": {"gpt-4o*": 3600, "faq-*": {"ttl_s": 600, "sliding": true}},
     "classes": {"listing": {"ttl_s": 600}, "contract": {"sensitivity": "confidential"}}}

The first pattern of `models` that matches says how long answers are fresh where the request says
nothing; a number alone is its `ttl_s`. A request's `Encore-Class` can only make that stricter:
`ttl_s` of a class is a maximum, and its sensitivity takes places away:

    public          anywhere
    internal        not at the edge (Workers KV)
    confidential    not at the edge, sealed at the origin, for an hour at most

The rule of classes, in one place:

1. The class is in the key (`shared.canonical`). What is kept by the rules of one class, wherever it
   lies, answers no request of another: neither a stricter nor a laxer one, at the origin or at the
   edge, as an entry or as a generation that is joined. Naming none is a class of its own.
2. A class can only be stricter, unless the tenant's policy lists it (`Policy.lax_classes`): then
   its `ttl_s`, where it has one, takes the place of the model's, also where it is longer.
3. A class that no tier names is not stored: what it was meant to forbid cannot be guessed.
4. Where several requests wait for one answer, the shortest of their wishes rules.
5. A refresh behind an answer is made for the key, and so for the class, of the entry it replaces,
   and lives no longer than that was to.

`sliding` (of a class, else of the model) has a hit in the last half of an entry's freshness begin
that anew (`origin.sliding`). Confidential answers never slide.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import Annotated, Any, Literal, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from shared.controls import CONTENT_CLASS, CONTENT_CLASS_WORDS, Controls
from shared.freshness import Dated, Lifetimes, expiry

MAX_CONFIDENTIAL_TTL_S = 3600
Seconds = Annotated[int, Field(strict=True, ge=0)]
Switch = Annotated[bool, Field(strict=True)]
Sensitivity = Literal["public", "internal", "confidential"]
_STRICT = ConfigDict(frozen=True, extra="forbid")


class ModelTier(BaseModel):
    """How long a model's answers are fresh, in seconds (None: as everywhere), and if they slide."""

    model_config = _STRICT

    ttl_s: Seconds | None = None
    sliding: Switch = False

    @model_validator(mode="before")
    @classmethod
    def _seconds_alone(cls, value: Any) -> Any:
        return {"ttl_s": value} if type(value) is int else value


class ContentClass(BaseModel):
    """What one class may be kept for, in seconds, how sensitive it is, and whether it slides.

    `sliding` is None where the model decides.
    """

    model_config = _STRICT

    ttl_s: Seconds | None = None
    sensitivity: Sensitivity = "public"
    sliding: Switch | None = None

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if self.sliding and self.sensitivity == "confidential":
            raise ValueError("a confidential class does not slide; leave out one of the two")
        return self

    @property
    def max_ttl_s(self) -> int | None:
        """The longest freshness of its answers, None for no limit of its own."""
        if self.sensitivity != "confidential":
            return self.ttl_s
        longest_s = MAX_CONFIDENTIAL_TTL_S
        return longest_s if self.ttl_s is None else min(longest_s, self.ttl_s)


_NO_CLASS = ContentClass()
_NO_TIER = ModelTier()


class Tiers(BaseModel):
    """The operator's tiers, by a pattern of model names, and content classes."""

    model_config = _STRICT

    models: dict[str, ModelTier] = Field(default_factory=dict)
    classes: dict[str, ContentClass] = Field(default_factory=dict)

    @field_validator("classes")
    @classmethod
    def _can_be_named(cls, value: dict[str, ContentClass]) -> dict[str, ContentClass]:
        for name in value:
            if CONTENT_CLASS.fullmatch(name) is None:
                raise ValueError(f"{name!r} can be in no Encore-Class: {CONTENT_CLASS_WORDS}")
        return value

    def __str__(self) -> str:
        return self.model_dump_json(exclude_defaults=True)

    @classmethod
    def parse(cls, text: str) -> Tiers:
        """Read the JSON of the setting. Raises ValueError."""
        return cls.model_validate_json(text)

    @property
    def any_slides(self) -> bool:
        """Whether there is a sliding tier at all."""
        models, classes = self.models.values(), self.classes.values()
        return any(tier.sliding for tier in models) or any(tier.sliding for tier in classes)

    def knows(self, controls: Controls) -> bool:
        """Whether a request names no class, or one of these."""
        return controls.content_class is None or controls.content_class in self.classes

    def sensitivity(self, controls: Controls) -> Sensitivity:
        """How sensitive what a request with these is told is."""
        return self._class(controls.content_class).sensitivity

    def storing(
        self,
        lifetimes: Lifetimes,
        model: str,
        content_class: str | None,
        ttls_s: Iterable[int | None],
        created_ms: int,
        *,
        lax_classes: Collection[str] = (),
    ) -> Storing | None:
        """How an answer of `model`, made at `created_ms`, is kept; None where it is not to be.

        `lifetimes` are those that hold without tiers, `ttls_s` the wishes (`Encore-TTL`) of the
        requests that wait for it, `lax_classes` those that the tenant's policy lists.
        """
        if content_class is not None and content_class not in self.classes:
            return None
        own = self._lifetimes(lifetimes, model, content_class, lax_classes)
        expiries = [expiry(own, ttl_s, created_ms) for ttl_s in ttls_s]
        least = [one for one in expiries if one is not None]
        if not least or len(least) < len(expiries):
            return None
        sensitivity = self._class(content_class).sensitivity
        return Storing(
            expiry_ms=min(least),
            edge=sensitivity == "public",
            sealed=sensitivity == "confidential",
        )

    def default_ttl_s(
        self,
        lifetimes: Lifetimes,
        model: str,
        content_class: str | None,
        *,
        lax_classes: Collection[str] = (),
    ) -> int:
        """How long answers are fresh where the request names no time of its own."""
        own = self._lifetimes(lifetimes, model, content_class, lax_classes)
        return min(own.ttl_s, own.max_ttl_s)

    def refresh_ttl_s(
        self,
        lifetimes: Lifetimes,
        model: str,
        content_class: str | None,
        replaced: Dated,
        *,
        lax_classes: Collection[str] = (),
    ) -> int:
        """How long a refresh is fresh: as long as what it replaces was, at most by default.

        What was fresh for longer was so by its clients' wish, or by hits that moved its end.
        """
        default_s = self.default_ttl_s(lifetimes, model, content_class, lax_classes=lax_classes)
        life_ms = replaced.fresh_until_ms - replaced.created_ms
        return min(default_s, max(1, life_ms // 1000))

    def sliding_s(
        self,
        lifetimes: Lifetimes,
        model: str,
        content_class: str | None,
        *,
        lax_classes: Collection[str] = (),
    ) -> int | None:
        """How long an answer is fresh anew after a hit, None where it does not slide."""
        named = self._class(content_class)
        slides = self._tier(model).sliding if named.sliding is None else named.sliding
        if not slides or named.sensitivity == "confidential":
            return None
        return self.default_ttl_s(lifetimes, model, content_class, lax_classes=lax_classes)

    def _lifetimes(
        self,
        lifetimes: Lifetimes,
        model: str,
        content_class: str | None,
        lax_classes: Collection[str],
    ) -> Lifetimes:
        """Those that hold for answers of a model and a class that is known, or none."""
        named, tier = self._class(content_class), self._tier(model)
        ttl_s = lifetimes.ttl_s if tier.ttl_s is None else tier.ttl_s
        limit_s = named.max_ttl_s
        if limit_s is None:
            return replace(lifetimes, ttl_s=ttl_s)
        if content_class in lax_classes and named.ttl_s is not None:
            ttl_s = limit_s
        return replace(lifetimes, ttl_s=ttl_s, max_ttl_s=min(lifetimes.max_ttl_s, limit_s))

    def _class(self, name: str | None) -> ContentClass:
        return self.classes.get(name or "", _NO_CLASS)

    def _tier(self, model: str) -> ModelTier:
        matching = (tier for pattern, tier in self.models.items() if fnmatchcase(model, pattern))
        return next(matching, _NO_TIER)


NO_TIERS = Tiers()


class Storing(NamedTuple):
    """How an answer is kept: its end as `shared.freshness.expiry` gives it, whether the edge may
    have it, whether it is sealed whatever its tenant's policy.
    """  # noqa: D205 - one sentence

    expiry_ms: tuple[int, int, int]
    edge: bool
    sealed: bool
