"""The session store in Redis, beside the control documents.

Layout, with an end: `PREFIX:session:NAME` is a session as JSON, `PREFIX:logins:ADDRESS` a count.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any, Self

from origin.stores.redis_store import RedisClient, outages_told, redis_client
from origin.stores.session_contract import IDLE_S, WINDOW_S, Session

DEFAULT_TIMEOUT_S = 1.0
DEFAULT_MAX_CONNECTIONS = 4

# KEYS: count. ARGV: the window's seconds.
_FAILED = """
if redis.call('INCR', KEYS[1]) == 1 then redis.call('EXPIRE', KEYS[1], ARGV[1]) end
"""


class RedisSessionStore:
    """The contract on one `redis.asyncio` client, which it owns."""

    def __init__(
        self,
        client: RedisClient,
        *,
        prefix: str = "encore",
        clock_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self._client = client
        self._prefix = prefix
        self._clock_ms = clock_ms

    @classmethod
    def from_url(
        cls, url: str, *, prefix: str = "encore", timeout_s: float = DEFAULT_TIMEOUT_S
    ) -> Self:
        """Build a store on `url`; see `redis_client`."""
        client = redis_client(url, timeout_s=timeout_s, max_connections=DEFAULT_MAX_CONNECTIONS)
        return cls(client, prefix=prefix)

    async def begin(self, name: str, session: Session) -> None:
        """See SessionStore.begin."""
        with outages_told():
            await self._client.set(self._session(name), json.dumps(asdict(session)), ex=IDLE_S)

    async def find(self, name: str) -> Session | None:
        """See SessionStore.find. One round trip."""
        with outages_told():
            text: Any = await self._client.getex(self._session(name), ex=IDLE_S)
            if text is None:
                return None
            session = Session(**json.loads(text))
            is_over = self._clock_ms() >= session.ends_ms
        if is_over:
            await self.end(name)
            return None
        return session

    async def end(self, name: str) -> None:
        """See SessionStore.end."""
        with outages_told():
            await self._client.delete(self._session(name))

    async def failed(self, address: str) -> None:
        """See SessionStore.failed."""
        with outages_told():
            await self._client.eval(_FAILED, 1, self._logins(address), WINDOW_S)

    async def failures(self, address: str) -> int:
        """See SessionStore.failures."""
        with outages_told():
            return int(await self._client.get(self._logins(address)) or 0)

    async def close(self) -> None:
        """See SessionStore.close."""
        with outages_told():
            await self._client.aclose()

    def _session(self, name: str) -> str:
        return f"{self._prefix}:session:{name}"

    def _logins(self, address: str) -> str:
        return f"{self._prefix}:logins:{address}"
