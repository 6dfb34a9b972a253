"""The hours of low traffic that an operator names: a daily window, in UTC."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Self

_DAY_MS = 86_400_000
_WINDOW = re.compile(r"([01]\d|2[0-3]):([0-5]\d)-([01]\d|2[0-3]):([0-5]\d)", re.ASCII)


@dataclass(frozen=True, kw_only=True, slots=True)
class QuietHours:
    """From `start_ms` to `end_ms` of every day, the end not included; it may pass midnight."""

    start_ms: int
    end_ms: int

    def __post_init__(self) -> None:
        if self.start_ms == self.end_ms:
            raise ValueError("begins when it ends")

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `02:00-05:00`. Raises ValueError."""
        match = _WINDOW.fullmatch(text.strip())
        if match is None:
            raise ValueError("not two times of day such as 02:00-05:00 (UTC)")
        hours = [int(part) for part in match.groups()]
        start, end = ((h * 60 + m) * 60_000 for h, m in (hours[:2], hours[2:]))
        return cls(start_ms=start, end_ms=end)

    def __str__(self) -> str:
        minutes = [time // 60_000 for time in (self.start_ms, self.end_ms)]
        return "-".join(f"{minute // 60:02}:{minute % 60:02}" for minute in minutes)

    def wait_ms(self, now_ms: int) -> int:
        """How long it is until they are: 0 within them. `now_ms` is Unix time."""
        since_ms = (now_ms - self.start_ms) % _DAY_MS
        length_ms = (self.end_ms - self.start_ms) % _DAY_MS
        return 0 if since_ms < length_ms else _DAY_MS - since_ms
