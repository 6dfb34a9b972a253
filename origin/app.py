"""The origin's ASGI application: the parts, put together, and their routes."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from origin.api.access import Access
from origin.api.admin import Purges
from origin.api.answers import Answers
from origin.api.control import ControlDocuments
from origin.api.counters import Counters
from origin.api.entries import Entries
from origin.api.health import Health
from origin.api.http import BodyReader, send_error
from origin.api.models import Models
from origin.api.passthrough import Passthrough
from origin.api.stats import Stats
from origin.api.warm_jobs import WarmUps
from origin.api.warming import WarmingRuns
from origin.control import Control
from origin.edge_counters import EdgeCounters, MemoryEdgeCounters, RedisEdgeCounters
from origin.embeddings import Batches
from origin.engine.contract import Engine
from origin.engine.turns import OrderlyEngine, Turns
from origin.engine.upstreams import Upstreams
from origin.failures import describe
from origin.limits import Room
from origin.pipeline import Pipeline
from origin.relay import Relay
from origin.settings import Settings, SettingsError
from origin.stores.contract import Store
from origin.stores.control_contract import ControlStore
from origin.stores.job_contract import JobStore
from origin.stores.lease_contract import Leases
from origin.stores.redis_control import RedisControlStore
from origin.stores.redis_jobs import RedisJobStore
from origin.stores.redis_leases import RedisLeases
from origin.stores.redis_store import RedisStore
from origin.warm_jobs import WarmJobs
from origin.warming import Warming
from shared.errors import ClientError, EncoreError, InternalError, error_body, error_headers
from shared.freshness import Lifetimes
from shared.requests import Endpoint
from shared.wire import CONTROL_PATH, COUNTERS_PATH, ENTRY_PATH, WARMING_PATH

_PROBES = frozenset({"/healthz", "/readyz", "/metrics"})
log = logging.getLogger(__name__)


def create_app(
    settings: Settings,
    *,
    engine: Engine,
    store: Store,
    control_store: ControlStore,
    leases: Leases | None = None,
    edge_counters: EdgeCounters | None = None,
    job_store: JobStore | None = None,
    turns: Turns | None = None,
) -> ASGIApp:
    """The application over parts that are ready; it closes them when it shuts down.

    Without `leases` generations are shared in this process alone, without `edge_counters` what the
    edge counts is kept in memory. With `job_store` there are warm-up jobs. `turns` are the engine's
    places.
    """
    counters = edge_counters or MemoryEdgeCounters()
    keys = settings.keys
    control = Control.from_settings(settings, control_store)
    access = Access(keys, control, development=settings.development)
    turns = turns or Turns()
    orderly = OrderlyEngine(engine, turns)
    pipeline = Pipeline(
        keys=keys,
        store=store,
        engine=orderly,
        lifetimes=Lifetimes(
            ttl_s=settings.ttl_s,
            stale_while_revalidate_s=settings.stale_while_revalidate_s,
            stale_if_error_s=settings.stale_if_error_s,
            max_ttl_s=settings.max_ttl_s,
        ),
        tiers=settings.tiers,
        max_entry_bytes=settings.max_entry_bytes,
        deadline_s=settings.request_deadline_s,
        store_clock=control.now_ms,
        relay=None if leases is None else Relay(leases, keys),
        admit_after=settings.admit_after,
    )
    batches = Batches(pipeline, orderly)
    warming = Warming(pipeline, control, limit=settings.warm_limit, turns=turns)
    jobs = None
    if job_store is not None:
        jobs = WarmJobs(
            job_store,
            pipeline=pipeline,
            batches=batches,
            control=control,
            keys=keys,
            turns=turns,
            quiet_hours=settings.quiet_hours,
        )
    models = Models(engine=engine, access=access)
    documents = ControlDocuments(control=control, access=access, store=store)
    purges = Purges(control=control, access=access, keys=keys)
    stats = Stats(counters=counters, access=access)
    health = Health(store=store, control_store=control_store, engine=engine)

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        if jobs is not None:
            jobs.start()
        try:
            yield
        finally:
            if jobs is not None:
                await jobs.close()
            await pipeline.close()
            await engine.close()
            await control.close()
            await counters.close()
            if leases is not None:
                await leases.close()
            await store.close()

    bodies = BodyReader(
        limit_bytes=settings.max_body_bytes,
        large_bytes=min(settings.max_cached_body_bytes, 1 << 20),
        deadline_s=settings.request_deadline_s,
    )
    answers = {
        endpoint.value: Answers(
            endpoint,
            pipeline=pipeline,
            batches=batches,
            access=access,
            warming=warming,
            max_cached_body_bytes=settings.max_cached_body_bytes,
            bodies=bodies,
        )
        for endpoint in Endpoint
    }
    warm_ups: list[Route] = []
    if jobs is not None:
        max_bytes = settings.max_cached_body_bytes
        warm_up = WarmUps(jobs=jobs, access=access, max_cached_body_bytes=max_bytes)
        warm_ups = [
            Route("/cache/warm", warm_up, methods=["POST"]),
            Route("/cache/warm/{job}", warm_up, methods=["GET"]),
        ]
    app = Starlette(
        routes=[
            *warm_ups,
            *(Route(path, answer, methods=["POST"]) for path, answer in answers.items()),
            Route(
                ENTRY_PATH + "{key}",
                Entries(pipeline=pipeline, access=access, control=control),
                methods=["GET"],
            ),
            Route(CONTROL_PATH + "{tenant}", documents.one, methods=["GET"]),
            Route(
                COUNTERS_PATH,
                Counters(counters=counters, warming=warming, control=control, access=access),
                methods=["POST"],
            ),
            Route(WARMING_PATH, WarmingRuns(warming=warming, access=access), methods=["POST"]),
            Route("/cache/purge", purges, methods=["POST"]),
            Route("/cache/stats", stats.one, methods=["GET"]),
            Route("/v1/models", models.list, methods=["GET"]),
            Route("/v1/models/{model:path}", models.one, methods=["GET"]),
            Route("/healthz", health.live, methods=["GET"]),
            Route("/readyz", health.ready, methods=["GET"]),
        ],
        exception_handlers={
            EncoreError: _encore_error,
            HTTPException: _http_error,
            Exception: _unexpected_error,
        },
        lifespan=lifespan,
    )
    # A redirect would name the host that the client's own Host header names.
    app.router.redirect_slashes = False
    if isinstance(engine, Upstreams):
        app.router.default = Passthrough(
            upstreams=engine,
            access=access,
            max_parsed_inline_bytes=settings.max_cached_body_bytes,
            max_body_bytes=settings.max_body_bytes,
            bodies=bodies,
            deadline_s=settings.request_deadline_s,
            turns=turns,
            otherwise=app.router.default,
        )
    return _Boundary(app, answers, max_requests=settings.max_requests)


def build_app(settings: Settings) -> ASGIApp:
    """The application over the parts that the settings ask for, loaded (which may take a while).

    `settings.redis_url` must be set. Raises SettingsError where a part cannot be had.
    """
    if settings.redis_url is None:
        raise SettingsError("REDIS_URL is not set")
    url, prefix = settings.redis_url.get_secret_value(), settings.key_prefix
    control_url = (settings.control_redis_url or settings.redis_url).get_secret_value()
    return create_app(
        settings,
        engine=_load_engine(settings),
        store=RedisStore.from_url(url, prefix=prefix),
        control_store=RedisControlStore.from_url(control_url, prefix=prefix),
        leases=RedisLeases.from_url(url, prefix=prefix),
        edge_counters=RedisEdgeCounters.from_url(url, prefix=prefix),
        job_store=RedisJobStore.from_url(control_url, prefix=prefix),
        turns=_turns(settings),
    )


def _turns(settings: Settings) -> Turns:
    if settings.all_upstreams:
        return Turns()
    return Turns(settings.engine_concurrency, queue_limit=settings.engine_queue_limit)


def _load_engine(settings: Settings) -> Engine:
    if settings.all_upstreams:
        return Upstreams.from_settings(settings)
    # Imported here: an origin in front of an upstream needs neither torch nor transformers.
    from origin.engine.local import load_local_engine  # noqa: PLC0415

    return load_local_engine(settings)


class _Boundary:
    """Routes what comes, and logs what nobody handled, without its text, which may quote a prompt.

    `direct` are POST routes that answer errors themselves: Starlette's middleware would cost a hit
    a tenth more. The rest is Starlette's, which answers a failure and raises it again; the server
    would log all of it.

    More than `max_requests` at once are refused; who asks how the process is never is.
    """

    def __init__(self, app: Starlette, direct: Mapping[str, ASGIApp], *, max_requests: int) -> None:
        self._app = app
        self._direct = direct
        self._room = Room(max_requests)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        takes_room = scope["path"] not in _PROBES
        try:
            self._room.take(takes_room)
        except EncoreError as error:
            await send_error(send, error)
            return
        direct = self._direct.get(scope["path"]) if scope["method"] == "POST" else None
        try:
            await (direct or self._app)(scope, receive, send)
        except Exception as exc:  # noqa: BLE001 - the last to see it
            log.error("unexpected failure in %s: %s", scope["path"], describe(exc))  # noqa: TRY400
            if direct is not None:
                # Refused where an answer has begun; the server then closes the connection.
                with suppress(RuntimeError):
                    await send_error(send, _failed())
        finally:
            self._room.give(takes_room)


def _failed() -> InternalError:
    return InternalError("The origin failed to handle this request.")


async def _encore_error(_request: Request, exc: Exception) -> Response:
    error = exc if isinstance(exc, EncoreError) else InternalError("The request failed.")
    return Response(error_body(error), error.status, error_headers(error))


async def _http_error(request: Request, exc: Exception) -> Response:
    """Translate the router's own 404 and 405."""
    status = exc.status_code if isinstance(exc, HTTPException) else 500
    path, method = request.url.path, request.method
    if status == 405:
        error = ClientError(
            f"{path} does not take {method}.",
            status=405,
            code="method_not_allowed",
            allow=(getattr(exc, "headers", None) or {}).get("Allow"),
        )
    else:
        error = ClientError(f"There is no {method} {path} here.", status=status, code="unknown_url")
    return await _encore_error(request, error)


async def _unexpected_error(request: Request, _exc: Exception) -> Response:
    return await _encore_error(request, _failed())
