"""A browser, as far as the dashboard can tell, at an origin on memory."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import httpx
from pydantic import SecretStr

from origin.app import create_app
from origin.semantic.matcher import Matcher
from origin.settings import Settings
from origin.stores.memory import MemoryStore
from origin.stores.memory_control import MemoryControlStore
from origin.stores.memory_sessions import MemorySessionStore
from origin.stores.session_contract import SessionStore
from origin.stores.usage_contract import UsageStore
from shared.control_document import OPERATOR_TENANT
from shared.keys import key_ring, make_api_key
from tests.support.control import control_store
from tests.support.engines import MODEL, ScriptedEngine

SECRET = "a secret of the tests, long enough"
KEYS = key_ring(SECRET)
CLIENT = make_api_key(KEYS, "acme", bytes(15))
ADMIN = make_api_key(KEYS, "acme", bytes([1] * 15))
OTHER_ADMIN = make_api_key(KEYS, "other", bytes([1] * 15))
OPERATOR = make_api_key(KEYS, OPERATOR_TENANT, bytes(15))
URL = "https://origin.test"
FROM_PAGE = {"sec-fetch-site": "same-origin", "origin": URL}
COOKIE = "__Host-encore-session"


class Visitor:
    """One browser: it keeps cookies, and says where its requests come from as browsers do."""

    def __init__(self, client: httpx.AsyncClient, store: MemoryStore) -> None:
        self.client = client
        self.store = store

    async def login(self, api_key: str, **headers: str) -> httpx.Response:
        """Post the login's form."""
        return await self.client.post(
            "/dashboard/login", data={"api_key": api_key}, headers=FROM_PAGE | headers
        )

    async def page(self) -> str:
        """What it shows."""
        return (await self.client.get("/dashboard")).text

    async def csrf(self) -> str:
        """What the page's writes carry."""
        found = re.search(r'name="encore-csrf" content="([0-9a-f]{64})"', await self.page())
        assert found is not None
        return found[1]

    async def is_signed_in(self) -> bool:
        """Whether the page shows figures, and what it asks for is answered."""
        shown = 'id="main"' in await self.page()
        status = (await self.client.get("/dashboard/events")).status_code
        assert status == (200 if shown else 401)
        return shown

    async def state(self, tenant: str | None = None) -> dict[str, Any]:
        """What the stream says first."""
        response = await self.events(tenant)
        assert response.status_code == 200
        return state_of(response.text)

    async def events(self, tenant: str | None = None) -> httpx.Response:
        """The stream, to its end."""
        params = {} if tenant is None else {"tenant": tenant}
        return await self.client.get("/dashboard/events", params=params)

    async def purge(
        self,
        body: dict[str, Any],
        *,
        csrf: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> httpx.Response:
        """Ask for a purge as the page does."""
        token = await self.csrf() if csrf is None else csrf
        sent = (FROM_PAGE if headers is None else headers) | {"encore-csrf": token}
        return await self.client.post("/dashboard/purge", json=body, headers=sent)

    async def logout(self, csrf: str | None = None, **headers: str) -> httpx.Response:
        """Post the form of the button."""
        data = {"csrf": await self.csrf() if csrf is None else csrf}
        return await self.client.post("/dashboard/logout", data=data, headers=FROM_PAGE | headers)

    async def ask(self, text: str, api_key: str = CLIENT, **headers: str) -> httpx.Response:
        """A client's chat request, which is none of the browser's."""
        return await self.client.post(
            "/v1/chat/completions",
            json={"model": MODEL, "messages": [{"role": "user", "content": text}]},
            headers={"authorization": f"Bearer {api_key}", "cookie": "", **headers},
        )


def state_of(stream: str) -> dict[str, Any]:
    """The first state in a stream of events."""
    (data,) = re.findall(r"^event: state\ndata: (.*)$", stream, re.MULTILINE)[:1]
    state: dict[str, Any] = json.loads(data)
    return state


@asynccontextmanager
async def visiting(
    *,
    control: MemoryControlStore | None = None,
    sessions: SessionStore | None = None,
    usage_store: UsageStore | None = None,
    matcher: Matcher | None = None,
    admins: Sequence[str] = (ADMIN, OTHER_ADMIN, OPERATOR),
    base_url: str = URL,
    address: str = "10.0.0.9",
    **settings: Any,
) -> AsyncIterator[Visitor]:
    """A visitor who is not signed in."""
    store = MemoryStore()
    app = create_app(
        Settings(**{"secret": SecretStr(SECRET), **settings}),
        engine=ScriptedEngine(),
        store=store,
        control_store=control or control_store(CLIENT, admins=admins),
        usage_store=usage_store,
        session_store=sessions or MemorySessionStore(),
        matcher=matcher,
    )
    transport = httpx.ASGITransport(app, raise_app_exceptions=False, client=(address, 1))
    async with httpx.AsyncClient(transport=transport, base_url=base_url) as client:
        yield Visitor(client, store)
