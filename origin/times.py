"""Times as the origin tells them: Unix time in milliseconds, and in words for people."""

from __future__ import annotations

import time
from datetime import UTC, datetime


def unix_ms() -> int:
    """This machine's clock."""
    return time.time_ns() // 1_000_000


def utc(time_ms: int) -> str:
    """A time as `2026-11-22T02:00:00Z`."""
    return datetime.fromtimestamp(time_ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
