"""The contract of the session store: who is signed in to the dashboard, for all origin processes.

It is given names that are digests, never what a browser holds. A session may vanish at any time
(eviction, a lost Redis): whoever it was of signs in again.

Invariants
1. A session that has ended, by `end`, by its idle time or by its own end, is never found again.
2. Failed logins are counted over a window, by where they came from.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

IDLE_S = 15 * 60
"""A session that nobody uses for so long ends. A page that is open uses it."""
WINDOW_S = 60


@dataclass(frozen=True, kw_only=True, slots=True)
class Session:
    """Whose it is, by the API key's id (None: the development key), and when it ends.

    `ends_ms` is Unix time in milliseconds, by the clock of the origin that began it.
    """

    tenant: str
    key_id: str | None
    ends_ms: int


class SessionStore(Protocol):
    """Safe to call from many tasks of one event loop. All but `close` raise StoreError."""

    async def begin(self, name: str, session: Session) -> None:
        """Keep a session until it is over."""
        ...

    async def find(self, name: str) -> Session | None:
        """Return a session that is not over, whose idle time begins anew."""
        ...

    async def end(self, name: str) -> None:
        """Forget a session; one that is not there is fine."""
        ...

    async def failed(self, address: str) -> None:
        """Count a failed login."""
        ...

    async def failures(self, address: str) -> int:
        """Return the failed logins of the window that the first of them began."""
        ...

    async def close(self) -> None:
        """Free connections. Closing twice is fine; a closed store is not used again."""
        ...
