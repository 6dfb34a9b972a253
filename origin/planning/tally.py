"""What is compared, and what is counted: settings that stand side by side, a tally for each."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

HOUR_MS = 3_600_000
Outcome = Literal["edge", "l1", "semantic", "joined", "model", "bypass", "refused"]
OUTCOMES: tuple[Outcome, ...] = ("edge", "l1", "semantic", "joined", "model", "bypass", "refused")
"""What answered: KV, L1's exact match, an entry of another question, another request's generation,
a generation; one that the request or a rule kept from the cache; nothing (`only-if-cached`)."""
HITS: tuple[Outcome, ...] = ("edge", "l1", "semantic")
_MISSES: tuple[Outcome, ...] = ("joined", "model")


@dataclass(frozen=True, kw_only=True, slots=True)
class Setting:
    """One way to set the cache. `semantic` is a tenant's policy: `off`, `strict` or a bound."""

    ttl_s: int
    normalisation: str
    admit_after: int
    semantic: str

    def changed(self, base: Setting) -> str | None:
        """The name of what is other than in `base`, the first of several."""
        for name in CHOICES:
            if getattr(self, name) != getattr(base, name):
                return name
        return None


CHOICES = ("ttl_s", "normalisation", "admit_after", "semantic")


@dataclass(kw_only=True, slots=True)
class Tokens:
    """Tokens of prompts and completions, and what they cost in USD where that is known."""

    prompt: float = 0.0
    completion: float = 0.0
    usd: float = 0.0

    def add(self, prompt: float, completion: float, usd: float | None) -> None:
        """Count some."""
        self.prompt += prompt
        self.completion += completion
        if usd is not None:
            self.usd += usd

    @property
    def total(self) -> float:
        """Both kinds."""
        return self.prompt + self.completion


@dataclass(kw_only=True, slots=True)
class Tally:
    """What a replay came to under one setting. Where keys were left out, numbers are estimates."""

    outcomes: dict[Outcome, float] = field(default_factory=lambda: dict.fromkeys(OUTCOMES, 0.0))
    stale: float = 0.0
    """Of the hits at edge and L1, those answered by a stale entry."""
    matched: float = 0.0
    """Of the hits at edge and L1, those answered by an entry that was promoted before."""
    refreshes: float = 0.0
    saved: Tokens = field(default_factory=Tokens)
    spent: Tokens = field(default_factory=Tokens)
    kv_reads: float = 0.0
    kv_writes: float = 0.0
    l1_reads: float = 0.0
    l1_writes: float = 0.0
    hours: dict[int, list[float]] = field(default_factory=dict)
    """By hour since 1970: looked up, and hits."""

    @property
    def requests(self) -> float:
        """All outcomes together."""
        return sum(self.outcomes.values())

    @property
    def hits(self) -> float:
        """What entries answered."""
        return sum(self.outcomes[name] for name in HITS)

    @property
    def hit_rate(self) -> float | None:
        """Hits by hits and misses, as `encore stats` has it; None without any."""
        looked_up = self.hits + sum(self.outcomes[name] for name in _MISSES)
        return self.hits / looked_up if looked_up else None

    def count(self, outcome: Outcome, now_ms: int, weight: float) -> None:
        """Count what answered."""
        self.outcomes[outcome] += weight
        if outcome in _COUNTED:
            hour = self.hours.get(now_ms // HOUR_MS)
            if hour is None:
                hour = self.hours[now_ms // HOUR_MS] = [0.0, 0.0]
            hour[0] += weight
            if outcome in HITS:
                hour[1] += weight


_COUNTED = frozenset((*HITS, *_MISSES))
