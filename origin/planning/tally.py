"""What is compared, and what is counted: settings that stand side by side, a tally for each."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

HOUR_MS = 3_600_000
KV_READ_USD, KV_WRITE_USD = 0.5e-6, 5e-6
"""Workers' paid plan: https://developers.cloudflare.com/kv/platform/pricing/."""
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
    """What the answers from entries, and of joined generations, would have taken."""
    spent: Tokens = field(default_factory=Tokens)
    """What generations took that requests waited for."""
    refreshed: Tokens = field(default_factory=Tokens)
    """What those behind stale answers took."""
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

    @property
    def usd_without(self) -> float:
        """What all requests would cost without a cache."""
        return self.saved.usd + self.spent.usd

    @property
    def usd_kv(self) -> float:
        """What reads and writes of entries cost, beyond what a plan includes."""
        return self.kv_reads * KV_READ_USD + self.kv_writes * KV_WRITE_USD

    @property
    def net_usd(self) -> float:
        """What is saved after all that the cache itself costs but storage and machines."""
        return self.saved.usd - self.refreshed.usd - self.usd_kv

    @property
    def net_tokens(self) -> float:
        """What is saved, in tokens."""
        return self.saved.total - self.refreshed.total

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
