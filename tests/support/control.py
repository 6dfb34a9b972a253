"""Control documents for tests that are about something else."""

from __future__ import annotations

import time
from collections.abc import Sequence

from origin.stores.control_contract import ControlStore
from origin.stores.memory_control import MemoryControlStore
from shared.control_document import ApiKey, ControlDocument, Policy, encode, new_document, revised
from shared.keys import key_id

AGE_MS = 60_000
"""How old the documents are: what a test starts now is not cut off by them."""


def tenant_of_key(api_key: str) -> str:
    """The tenant that stands in an API key."""
    return api_key.removeprefix("sk-encore-").rsplit("-", 2)[0]


def document_of(
    *clients: str, admins: Sequence[str] = (), policy: Policy | None = None
) -> ControlDocument:
    """The document of the one tenant that these API keys belong to."""
    (tenant,) = {tenant_of_key(api_key) for api_key in (*clients, *admins)}
    made_ms = time.time_ns() // 1_000_000 - AGE_MS
    roles = dict.fromkeys(clients, "client") | dict.fromkeys(admins, "admin")
    keys = [
        ApiKey(id=key_id(api_key), role=role, name="", created_ms=made_ms)
        for api_key, role in roles.items()
    ]
    return revised(
        new_document(tenant, made_ms),
        made_ms,
        keys={key.id: key for key in keys},
        policy=policy or Policy(),
        longest_life_ms=365 * 86_400_000,
    )


async def put_document(store: ControlStore, document: ControlDocument) -> None:
    """Put a document in the place of the one that is there."""
    expected = await store.revision(document.tenant)
    assert await store.replace(
        document.tenant, encode(document), document.revision, expected=expected
    )


def control_store(
    *clients: str, admins: Sequence[str] = (), policy: Policy | None = None
) -> MemoryControlStore:
    """A store in which each of these keys counts, each tenant with `policy`."""
    store = MemoryControlStore()
    for tenant in {tenant_of_key(api_key) for api_key in (*clients, *admins)}:
        document = document_of(
            *(api_key for api_key in clients if tenant_of_key(api_key) == tenant),
            admins=[api_key for api_key in admins if tenant_of_key(api_key) == tenant],
            policy=policy,
        )
        store._documents[tenant] = (document.revision, encode(document))
    return store
