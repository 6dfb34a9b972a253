"""What was acknowledged and must hold: keys made and revoked, policies, jobs, events."""

from __future__ import annotations

import asyncio
import secrets
import time
from dataclasses import dataclass, field, replace

import httpx
import redis as blocking

from origin.control import Control
from origin.stores.redis_control import RedisControlStore
from shared.control_document import ApiKey, ControlDocument, decode, revised
from shared.errors import EncoreError
from shared.keys import key_id, key_ring, make_api_key
from tests.faults.system import TENANTS, System
from tests.faults.upstream import MODEL
from tests.support.origins import SECRET

TENANT = TENANTS[0]
CHECK_TIMEOUT_S = 20.0


@dataclass(kw_only=True)
class Change:
    """One change of a tenant: a key more, another less, and a policy."""

    api_key: str
    revoked: str | None
    policy: tuple[str, ...]


@dataclass
class Ledger:
    """Acts for a tenant, and checks later that what was acknowledged is so."""

    running: System
    changes: list[Change] = field(default_factory=list)
    """Those that were acknowledged; whatever came behind the last may hold or not."""
    jobs: list[str] = field(default_factory=list)
    _is_sure: bool = True

    def act(self) -> None:
        """Change, start a warm-up, tell of an event; each may fail."""
        api_key = make_api_key(key_ring(SECRET), TENANT, secrets.token_bytes(15))
        revoked = self.changes[-1].api_key if self.changes and self._is_sure else None
        change = Change(api_key=api_key, revoked=revoked, policy=(f"c{secrets.token_hex(4)}",))
        try:
            asyncio.run(self._change(change))
        except EncoreError:
            self._is_sure = False
        else:
            self.changes.append(change)
            self._is_sure = True
        body = {"model": MODEL, "messages": [{"role": "user", "content": change.policy[0]}]}
        try:
            response = httpx.post(
                f"{self.running.balancer.url}/cache/warm",
                json={"requests": [{"body": body}]},
                headers=self._headers(),
                timeout=10,
            )
        except httpx.HTTPError:
            return
        if response.status_code == 202:
            self.jobs.append(response.json()["id"])

    def check(self) -> None:
        """Raise AssertionError unless all of it holds within `CHECK_TIMEOUT_S`."""
        deadline_s = time.monotonic() + CHECK_TIMEOUT_S
        while (wrong := self._wrong()) is not None:
            assert time.monotonic() < deadline_s, wrong
            time.sleep(0.05)

    def _wrong(self) -> str | None:
        for origin in self.running.origins:
            for change in self.changes:
                if change.revoked is not None and self._status(origin.url, change.revoked) != 401:
                    return "a revoked key is let in"
            if self._is_sure and self._status(origin.url, self.changes[-1].api_key) != 200:
                return "a key that was made is refused"
        document = self._document()
        if self._is_sure and document.policy.lax_classes != self.changes[-1].policy:
            return "a policy is not as it was set"
        for job in self.jobs:
            url = f"{self.running.balancer.url}/cache/warm/{job}"
            said = httpx.get(url, headers=self._headers(), timeout=10)
            if said.status_code != 200 or said.json()["status"] != "done":
                return f"a job is not done: {said.text}"
        return None

    async def _change(self, change: Change) -> None:
        id_ = key_id(change.api_key)
        gone = None if change.revoked is None else key_id(change.revoked)

        def make(document: ControlDocument, now_ms: int) -> ControlDocument:
            keys = {name: key for name, key in document.keys.items() if name != gone}
            keys[id_] = ApiKey(id=id_, role="admin", name="", created_ms=now_ms)
            policy = replace(document.policy, lax_classes=change.policy)
            return revised(document, now_ms, keys=keys, policy=policy)

        url = f"redis://127.0.0.1:{self.running.redis_proxy.port}"
        control = Control(RedisControlStore.from_url(url), longest_life_ms=0)
        try:
            await control.change(TENANT, make)
        finally:
            await control.close()

    def _document(self) -> ControlDocument:
        with blocking.Redis(port=self.running.redis.port) as client:
            text = client.hget(f"encore:ctl:{{{TENANT}}}", "document")
        assert isinstance(text, bytes)
        return decode(text, TENANT)

    def _status(self, url: str, api_key: str) -> int:
        headers = {"authorization": f"Bearer {api_key}"}
        return httpx.get(f"{url}/v1/models", headers=headers, timeout=10).status_code

    def _headers(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self.running.keys[TENANT]}"}
