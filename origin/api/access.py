"""Who asks: the client by its API key, the edge by its bearer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache, partial

from starlette.types import Scope

from origin.api.http import is_loopback
from origin.audit import WHO, Actor, actor_of_key
from origin.control import Control
from shared.control_document import ControlDocument
from shared.errors import ClientError
from shared.keys import (
    Client,
    KeyRing,
    KeyRings,
    authenticate,
    ring_of_edge,
    unknown_api_key,
)
from shared.wire import EDGE_AUTHORIZATION

MAX_REMEMBERED_KEYS = 10_000
"""API keys whose check is not computed again. Whether they still count is asked every time."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Caller:
    """A client whose API key counts, and the edge it came by, if any.

    `document` is its tenant's, as it ruled when the request came. `ring` is the one the edge makes
    cache keys with, the current one for who came without it. `key_id` is None for the development
    key.
    """

    tenant: str
    key_id: str | None
    role: str
    document: ControlDocument
    ring: KeyRing
    is_edge: bool

    @property
    def actor(self) -> Actor:
        """Who that is to the audit log."""
        return actor_of_key(self.tenant, self.key_id, self.role)


class Access:
    """Reads who asks out of a request's headers, by keys and control documents."""

    def __init__(self, keys: KeyRings, control: Control, *, development: bool) -> None:
        self._keys = keys
        self._control = control
        self._development = development
        # Only what was accepted is remembered: a refusal raises.
        self._authenticate = lru_cache(MAX_REMEMBERED_KEYS)(partial(authenticate, keys))

    async def caller(self, scope: Scope, headers: Mapping[str, str]) -> Caller:
        """The client that asks. Its role is its API key's: by the edge it becomes no more.

        Raises ClientError 401, InternalError 503 where its tenant's document cannot be had.
        """
        edge = self._edge_ring(headers)
        client = self._authenticate(
            headers.get("authorization"),
            development=self._development and is_loopback(scope, headers),
        )
        return await self._caller(scope, client, edge)

    async def _caller(self, scope: Scope, client: Client, edge: KeyRing | None) -> Caller:
        document = await self._control.document(client.tenant)
        role = None
        if document is not None:
            # Only the development key has no id: it is in no document.
            role = "admin" if client.key_id is None else document.role_of(client.key_id)
        scope[WHO] = client.tenant, client.key_id, role
        if document is None or role is None:
            raise unknown_api_key()
        return Caller(
            tenant=client.tenant,
            key_id=client.key_id,
            role=role,
            document=document,
            ring=edge or self._keys.current,
            is_edge=edge is not None,
        )

    async def admin(self, scope: Scope, headers: Mapping[str, str]) -> Caller:
        """The client that asks, which must be an admin. Raises as `caller`, and ClientError 403."""
        return _checked_admin(await self.caller(scope, headers))

    async def admin_again(
        self, scope: Scope, headers: Mapping[str, str], *, tenant: str, key_id: str | None
    ) -> Caller:
        """An admin whose API key was shown before: by its id (None: the development key).

        Raises as `admin`: what the key may do is what it may now.
        """
        if key_id is None and not (self._development and is_loopback(scope, headers)):
            raise unknown_api_key()
        client = Client(tenant=tenant, key_id=key_id)
        return _checked_admin(await self._caller(scope, client, None))

    def require_edge(self, scope: Scope, headers: Mapping[str, str]) -> None:
        """Hide an internal route from all but our edge.

        Raises ClientError 404, and 401 for one that says it is the edge but is not.
        """
        if self._edge_ring(headers) is None:
            path = scope["path"]
            raise ClientError(f"There is no {path} here.", status=404, code="unknown_url")

    def _edge_ring(self, headers: Mapping[str, str]) -> KeyRing | None:
        presented = headers.get(EDGE_AUTHORIZATION)
        if presented is None:
            return None
        ring = ring_of_edge(self._keys, presented.removeprefix("Bearer "))
        if ring is None:
            raise ClientError(
                "This edge is not known here: do edge and origin share one ENCORE_SECRET?",
                status=401,
                code="edge_not_trusted",
            )
        return ring


def _checked_admin(caller: Caller) -> Caller:
    if caller.role != "admin":
        raise ClientError(
            "This needs an API key of the role 'admin'.", status=403, code="admin_required"
        )
    return caller
