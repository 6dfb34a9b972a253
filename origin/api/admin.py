"""`POST /cache/purge`: purge by key, tag, model or everything, for a tenant's admins.

What counts is the client's own API key; that the edge passes the request on adds nothing to it.
A 200 says that the purge is durable and holds at every origin process.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from starlette.types import Receive, Scope, Send

from origin.api.access import Access, Caller
from origin.api.http import headers_of, read_body, send_json
from origin.audit import placed
from origin.control import Changed, Control
from origin.dry_run import dry_run
from origin.purge_requests import MAX_REQUEST_BYTES, purge_of, read_purge_request
from origin.stores.contract import Store
from origin.stores.control_contract import EVERY_TENANT
from shared.control_document import OPERATOR_TENANT, ControlError, Purge
from shared.errors import ClientError
from shared.keys import KeyRings, check_tenant


class Purges:
    """The ASGI application of the route."""

    def __init__(self, *, control: Control, access: Access, keys: KeyRings, store: Store) -> None:
        self._control = control
        self._access = access
        self._keys = keys
        self._store = store

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        await send_json(send, self._purge(scope, receive))

    async def _purge(self, scope: Scope, receive: Receive) -> dict[str, Any]:
        headers = headers_of(scope)
        caller = await self._access.admin(scope, headers)
        body = await read_body(receive, headers, MAX_REQUEST_BYTES)
        return await self.purge(scope, caller, body)

    async def purge(self, scope: Scope, caller: Caller, body: bytes) -> dict[str, Any]:
        """Do what a body asks for, for an admin; what is answered. Raises EncoreError."""
        asked = read_purge_request(body)
        tenant = asked.tenant or caller.tenant
        check_reach(caller, tenant, or_every=True)
        try:
            purge = purge_of(self._keys, tenant, **asked.named)
        except ControlError as exc:
            raise ClientError(
                f"This is no purge: {exc}.", param="everything", code="invalid_value"
            ) from exc
        actor = placed(caller.actor, scope)
        if asked.dry_run:
            counted = await dry_run(self._control, self._store, tenant, purge, actor)
            return {"tenant": tenant, "dry_run": True, **counted.fields()}
        if tenant == EVERY_TENANT:
            return _all_purged(await self._control.purge_everywhere(purge, actor))
        return _purged(await self._control.purge(tenant, purge, actor), purge)


def check_reach(caller: Caller, tenant: str, *, or_every: bool = False) -> None:
    """Raise ClientError where a tenant is not one, or the caller must not act for it.

    With `or_every` it may be `EVERY_TENANT`.
    """
    if tenant == caller.tenant:
        return
    if caller.tenant != OPERATOR_TENANT or caller.role != "admin":
        raise ClientError(
            f"Only admins of the tenant '{OPERATOR_TENANT}' may name another tenant.",
            status=403,
            param="tenant",
            code="operator_required",
        )
    if not (or_every and tenant == EVERY_TENANT):
        try:
            check_tenant(tenant)
        except ValueError as exc:
            raise ClientError(
                f"Invalid 'tenant': {exc}.", param="tenant", code="invalid_value"
            ) from exc


def _purged(changed: Changed, purge: Purge) -> dict[str, Any]:
    return {
        "tenant": changed.document.tenant,
        "revision": changed.document.revision,
        "cut_off_ms": changed.at_ms - purge.older_than_s * 1000,
        "edge": changed.edge,
    }


def _all_purged(changes: Sequence[Changed]) -> dict[str, Any]:
    """`cut_off_ms` is the earliest, null where there was no tenant; `edge` is the least sure."""
    edges = {changed.edge for changed in changes}
    return {
        "tenant": EVERY_TENANT,
        "tenants": len(changes),
        "cut_off_ms": min((changed.at_ms for changed in changes), default=None),
        "edge": next(
            (edge for edge in ("pending", "not configured") if edge in edges), "acknowledged"
        ),
    }
