"""What a purge is asked by, over HTTP, in events and by command, and the purge that it comes to."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from origin.stores.control_contract import EVERY_TENANT
from shared import json_text
from shared.checks import Check, array, boolean, integer, known_fields, string
from shared.control_document import ControlError, Purge
from shared.controls import TAG, TAG_WORDS
from shared.errors import ClientError
from shared.keys import KeyRings, tag_digest

MAX_NAMES = 250
"""Of each kind in one purge: of tags there are two digests while a secret is being replaced."""
MAX_REQUEST_BYTES = 1 << 20

_FIELDS: dict[str, Check] = {
    "keys": array(string(pattern="[0-9a-f]{16}(?:[0-9a-f]{48})?"), high=MAX_NAMES),
    "tags": array(string(pattern=TAG.pattern), high=MAX_NAMES),
    "models": array(string(pattern=r"[^\x00-\x1f\x7f]{1,1024}"), high=MAX_NAMES),
    "everything": boolean,
    "older_than_s": integer(low=0, high=2**40),
    "tenant": string(),
    "dry_run": boolean,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class PurgeRequest:
    """A purge as it is asked for. `named` are the arguments of `purge_of`.

    `tenant` is None where none is named, `EVERY_TENANT` for all of them.
    """

    tenant: str | None
    dry_run: bool
    named: dict[str, Any]


def read_purge_request(text: bytes) -> PurgeRequest:
    """The request, each field checked. Raises ClientError naming the field."""
    fields = json_text.parse_object(text)
    known_fields(fields, _FIELDS)
    tenant, dry_run = fields.pop("tenant", None), fields.pop("dry_run", False)
    if tenant == EVERY_TENANT and fields != {"everything": True}:
        raise ClientError(
            "Of all tenants everything can be purged, and nothing else.",
            param="everything",
            code="invalid_value",
        )
    return PurgeRequest(tenant=tenant, dry_run=dry_run, named=fields)


def purge_of(
    rings: KeyRings,
    tenant: str,
    *,
    everything: bool = False,
    older_than_s: int = 0,
    models: Iterable[str] = (),
    tags: Iterable[str] = (),
    keys: Iterable[str] = (),
) -> Purge:
    """A purge of what is named, tags by their names. Raises ControlError.

    Entries made before a rotation hold the digests of the previous secret: both are meant.
    """
    tags = tuple(tags)
    for tag in tags:
        if TAG.fullmatch(tag) is None:
            raise ControlError(f"tag: {TAG_WORDS}, as in Encore-Tags")
    return Purge(
        everything=everything,
        older_than_s=older_than_s,
        models=tuple(models),
        tags=tuple(tag_digest(ring, tenant, tag) for tag in tags for ring in rings),
        keys=tuple(keys),
    )
