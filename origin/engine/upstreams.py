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
                    engine=UpstreamEngine(
                        UpstreamClient(
                            upstream.base_url,
                            api_key=upstream.api_key and upstream.api_key.get_secret_value(),
                            tenant_api_keys={
                                tenant: key.get_secret_value()
                                for tenant, key in upstream.tenant_api_keys.items()
                            },
                            timeout_s=min(upstream.timeout_s, deadline_s * _SEEN_SILENT),
                            deadline_s=deadline_s,
                        )
                    ),
                )
                for upstream in settings.all_upstreams
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
        return await self._engine(model).fingerprint(model)

    def check(self, request: Request) -> None:
        """Raise ClientError 404 for a model that no upstream serves."""
        self._engine(request.model).check(request)

    def run(self, request: Request, *, tenant: str | None = None) -> AsyncGenerator[Event, None]:
        """Ask the upstream that serves the request's model."""
        return self._engine(request.model).run(request, tenant=tenant)

    def client_for(self, model: str | None) -> UpstreamClient:
        """The upstream that serves `model`; the first one for a request that names none.

        Raises ClientError 404.
        """
        engine = self._routes[0].engine if model is None else self._engine(model)
        return engine.client

    async def close(self) -> None:
        """Close all connections."""
        await asyncio.gather(*(route.engine.close() for route in self._routes))

    def _route(self, model: str) -> Route | None:
        return next((route for route in self._routes if route.serves(model)), None)

    def _engine(self, model: str) -> UpstreamEngine:
        route = self._route(model)
        if route is None:
            raise ClientError(
                "There is no model of that name here.",
                status=404,
                param="model",
                code="model_not_found",
            )
        return route.engine
