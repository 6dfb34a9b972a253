"""Control documents for tests that are about something else."""

from __future__ import annotations

import time

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
    *api_keys: str, role: str = "client", policy: Policy | None = None
) -> ControlDocument:
    """The document of the one tenant that these API keys belong to."""
    (tenant,) = {tenant_of_key(api_key) for api_key in api_keys}
    made_ms = time.time_ns() // 1_000_000 - AGE_MS
    keys = {
        key_id(api_key): ApiKey(id=key_id(api_key), role=role, name="", created_ms=made_ms)
        for api_key in api_keys
    }
    return revised(
        new_document(tenant, made_ms),
        made_ms,
        keys=keys,
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
    *api_keys: str, role: str = "client", policy: Policy | None = None
) -> MemoryControlStore:
    """A store in which each of these keys counts, each tenant with `policy`."""
    store = MemoryControlStore()
    for tenant in {tenant_of_key(api_key) for api_key in api_keys}:
        own = [api_key for api_key in api_keys if tenant_of_key(api_key) == tenant]
        document = document_of(*own, role=role, policy=policy)
        store._documents[tenant] = (document.revision, encode(document))
    return store
