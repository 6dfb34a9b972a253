"""Several upstreams behind one engine: who is asked is told by the name of the model.

The first upstream, in the operator's order, of whose patterns one matches the name is asked, and no
other in its place: another one's model of the same name may answer differently.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Self

from origin.engine.contract import Event, ModelInfo
from origin.engine.upstream import UpstreamEngine
from origin.engine.upstream_client import UpstreamClient
from origin.failures import describe
from origin.settings import Settings
from shared.errors import ClientError, EncoreError
from shared.requests import Request

_SEEN_SILENT = 0.95
"""Of a request's deadline: an upstream's silence is noticed before its request is cancelled."""
log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Route:
    """An upstream and which models it serves: names, or patterns with `*`, `?` and `[…]`."""

    models: Sequence[str]
    engine: UpstreamEngine
    shared_paths: Sequence[str] = ()
    """Patterns of paths that tenants without a key of their own may have passed through."""

    def serves(self, model: str) -> bool:
        """Whether a model's name matches, upper and lower case told apart."""
        return any(fnmatchcase(model, pattern) for pattern in self.models)


class Upstreams:
    """The engine contract over all of an operator's upstreams, at least one."""

    def __init__(self, routes: Sequence[Route]) -> None:
        self._routes = routes
        self._listed: dict[Route, Sequence[ModelInfo]] = {}

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        """The upstreams that the settings name."""
        deadline_s = settings.request_deadline_s
        return cls(
            [
                Route(
                    models=upstream.models,
                    shared_paths=upstream.shared_paths,
                    engine=UpstreamEngine(
                        UpstreamClient(
                            upstream.base_url,
                            api_key=None if key is None else key.get_secret_value(),
                            tenant_api_keys={
                                tenant: own.get_secret_value()
                                for tenant, own in upstream.tenant_api_keys.items()
                            },
                            timeout_s=min(upstream.timeout_s, deadline_s * _SEEN_SILENT),
                            deadline_s=deadline_s,
                        )
                    ),
                )
                for upstream, key in ((each, each.api_key) for each in settings.all_upstreams)
            ]
        )

    @property
    def are_several(self) -> bool:
        """Whether it takes a model's name to tell who is asked."""
        return len(self._routes) > 1

    async def models(self) -> Sequence[ModelInfo]:
        """Every upstream's models, each where requests for it go.

        What an upstream that fails had listed before is listed still. Raises what the first one
        does, where all fail.
        """
        answers = await asyncio.gather(
            *(route.engine.models() for route in self._routes), return_exceptions=True
        )
        failures = []
        for route, answer in zip(self._routes, answers, strict=True):
            if isinstance(answer, EncoreError):
                log.warning("listing an upstream's models: %s", describe(answer))
                failures.append(answer)
            elif isinstance(answer, BaseException):
                raise answer
            else:
                self._listed[route] = answer
        if len(failures) == len(self._routes):
            raise failures[0]
        return [
            model
            for route, models in self._listed.items()
            for model in models
            if self._route(model.id) is route
        ]

    async def fingerprint(self, model: str) -> str:
        """That of `model` at the upstream that serves it. Raises ClientError 404."""
        return await self._serving(model).engine.fingerprint(model)

    def check(self, request: Request) -> None:
        """Raise ClientError 404 for a model that no upstream serves."""
        self._serving(request.model).engine.check(request)

    def run(
        self, request: Request, *, tenant: str | None = None, scope: str | None = None
    ) -> AsyncGenerator[Event, None]:
        """Ask the upstream that serves the request's model."""
        return self._serving(request.model).engine.run(request, tenant=tenant, scope=scope)

    def passage(self, model: str | None, *, tenant: str, path: str) -> UpstreamClient:
        """Whom to ask for `path`: who serves `model`, the first one where a request names none.

        Raises ClientError 404 `model_not_found`, 403 where other tenants' files, batches and the
        like are in the account that would be asked.
        """
        route = self._routes[0] if model is None else self._serving(model)
        client = route.engine.client
        shared = any(fnmatchcase(path, pattern) for pattern in route.shared_paths)
        if not (shared or client.has_own_key(tenant)):
            raise ClientError(
                f"{path} is passed through for tenants with an upstream key of their own only.",
                status=403,
                code="upstream_key_required",
            )
        return client

    def forget(self, tenant: str | None = None) -> None:
        """Nothing is kept here."""

    async def close(self) -> None:
        """Close all connections."""
        await asyncio.gather(*(route.engine.close() for route in self._routes))

    def _route(self, model: str) -> Route | None:
        return next((route for route in self._routes if route.serves(model)), None)

    def _serving(self, model: str) -> Route:
        route = self._route(model)
        if route is None:
            raise ClientError(
                "There is no model of that name here.",
                status=404,
                param="model",
                code="model_not_found",
            )
        return route
