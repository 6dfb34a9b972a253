"""What a purge is asked by: one form, over HTTP and in events."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from shared import json_text
from shared.checks import Check, array, boolean, integer, known_fields, string
from shared.controls import TAG
from shared.errors import ClientError

EVERY_TENANT = "*"
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
    """A purge as it is asked for. `named` are the arguments of `origin.control.purge_of`.

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
