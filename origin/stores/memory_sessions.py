"""A session store in this process's memory: of an origin without Redis, and of tests."""

from __future__ import annotations

from collections.abc import Callable

from origin.stores.session_contract import IDLE_S, WINDOW_S, Session
from origin.times import unix_ms


class MemorySessionStore:
    """The contract on dicts. `clock_ms` is Unix time in milliseconds."""

    def __init__(self, *, clock_ms: Callable[[], int] = unix_ms) -> None:
        self._clock_ms = clock_ms
        self._sessions: dict[str, tuple[Session, int]] = {}
        """With the end of its idle time."""
        self._failures: dict[str, tuple[int, int]] = {}
        """(how many, the end of their window)."""

    async def begin(self, name: str, session: Session) -> None:
        """See SessionStore.begin."""
        now_ms = self._clock_ms()
        self._sessions = {
            each: (kept, idle_ms)
            for each, (kept, idle_ms) in self._sessions.items()
            if now_ms < min(kept.ends_ms, idle_ms)
        }
        self._sessions[name] = session, now_ms + IDLE_S * 1000

    async def find(self, name: str) -> Session | None:
        """See SessionStore.find."""
        session, idle_ms = self._sessions.get(name, (None, 0))
        now_ms = self._clock_ms()
        if session is None or now_ms >= min(session.ends_ms, idle_ms):
            return None
        self._sessions[name] = session, now_ms + IDLE_S * 1000
        return session

    async def end(self, name: str) -> None:
        """See SessionStore.end."""
        self._sessions.pop(name, None)

    async def failed(self, address: str) -> None:
        """See SessionStore.failed."""
        now_ms = self._clock_ms()
        self._failures = {
            each: (count, ends_ms)
            for each, (count, ends_ms) in self._failures.items()
            if now_ms < ends_ms
        }
        count, ends_ms = self._failures.get(address, (0, now_ms + WINDOW_S * 1000))
        self._failures[address] = count + 1, ends_ms

    async def failures(self, address: str) -> int:
        """See SessionStore.failures."""
        count, ends_ms = self._failures.get(address, (0, 0))
        return count if self._clock_ms() < ends_ms else 0

    async def close(self) -> None:
        """See SessionStore.close."""
