"""Whether edge and origin make the same keys: the keys of requests that both know by heart.

The requests have what implementations differ in: numbers, the order of names, Unicode, and what the
normalisation profiles rewrite.
"""

from __future__ import annotations

import hashlib
from typing import Any, Final

from shared.control_document import ControlDocument, Policy, canonical_for
from shared.controls import Controls
from shared.keys import KeyRing, cache_key
from shared.normalisation import PROFILES
from shared.requests import Endpoint

TENANT: Final = "encore-doctor"
_QUESTION: Final = (
    "  Please describe 12 Oak St, 3BR/2BA, $450k: caf\u00e9, cafe\u0301, \U0001f3e0 …  "
)
_REQUESTS: Final[tuple[tuple[Endpoint, dict[str, Any]], ...]] = (
    (
        Endpoint.CHAT,
        {
            "model": "m",
            "messages": [
                {"role": "system", "content": "You\u00a0help.\n"},
                {"role": "user", "content": _QUESTION},
            ],
            "temperature": 0.1,
            "top_p": 1.0,
            "seed": 2**63 - 1,
            "stop": None,
            "stream": True,
            "tools": [
                {"type": "function", "function": {"name": "f", "parameters": {"b": 1, "a": 2}}}
            ],
        },
    ),
    (Endpoint.COMPLETIONS, {"prompt": [_QUESTION, "\u1e9b\u0323"], "model": "m", "max_tokens": 16}),
    (Endpoint.EMBEDDINGS, {"input": [_QUESTION], "model": "m", "dimensions": 3}),
)


def agreement(ring: KeyRing) -> str:
    """A digest, 64 hex characters, over the keys of all requests under every profile.

    It tells nothing of the secret, and is equal where secret and rules are.
    """
    digest = hashlib.sha256()
    for profile in PROFILES:
        document = ControlDocument(tenant=TENANT, revision=0, policy=Policy(normalisation=profile))
        for endpoint, fields in _REQUESTS:
            form = canonical_for(document, endpoint=endpoint, controls=Controls(), fields=fields)
            digest.update(cache_key(ring, form.canonical).encode())
    return digest.hexdigest()
