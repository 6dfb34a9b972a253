"""Who asks: the client by its API key, the edge by its bearer."""

from __future__ import annotations

from collections.abc import Mapping

from starlette.types import Scope

from origin.api.http import is_loopback
from shared.errors import ClientError
from shared.keys import KeyRings, authenticate, ring_of_edge
from shared.wire import EDGE_AUTHORIZATION


class Access:
    """Reads who asks out of a request's headers. Knows keys, decides nothing else."""

    def __init__(self, keys: KeyRings, *, development: bool) -> None:
        self._keys = keys
        self._development = development

    def tenant(self, scope: Scope, headers: Mapping[str, str]) -> str:
        """The tenant of the client's API key. Raises ClientError 401."""
        return authenticate(
            self._keys,
            headers.get("authorization"),
            development=self._development and is_loopback(scope, headers),
        ).tenant

    def is_edge(self, headers: Mapping[str, str]) -> bool:
        """Whether our edge asks. Raises ClientError 401 for one that says so but is not."""
        presented = headers.get(EDGE_AUTHORIZATION)
        if presented is None:
            return False
        if ring_of_edge(self._keys, presented.removeprefix("Bearer ")) is None:
            raise ClientError(
                "This edge is not known here: do edge and origin share one ENCORE_SECRET?",
                status=401,
                code="edge_not_trusted",
            )
        return True
