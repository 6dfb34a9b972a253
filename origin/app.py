"""The origin's ASGI application: the parts, put together, and their routes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.routing import Route
from starlette.types import ASGIApp

from origin.api.access import Access
from origin.api.admin import Purges
from origin.api.answers import Answers
from origin.api.boundary import HANDLERS, Boundary
from origin.api.control import ControlDocuments
from origin.api.counters import Counters
from origin.api.description import PATH as DESCRIPTION_PATH
from origin.api.description import Description
from origin.api.entries import Entries
from origin.api.explain import Explanations
from origin.api.health import Health
from origin.api.http import BodyReader
from origin.api.metrics import Metrics
from origin.api.models import Models
from origin.api.passthrough import Passthrough
from origin.api.stats import Stats
from origin.api.warm_jobs import WarmUps
from origin.api.warming import WarmingRuns
from origin.audit import Denials
from origin.control import Control
from origin.dashboard.live import Live
from origin.dashboard.routes import Dashboard
from origin.dashboard.sessions import Sessions
from origin.departure import Departure
from origin.embeddings import Batches
from origin.engine.contract import Engine
from origin.engine.metered import MeteredEngine
from origin.engine.turns import OrderlyEngine, Turns
from origin.engine.upstreams import Upstreams
from origin.invalidation import Invalidation
from origin.known_models import KnownModels
from origin.pipeline import Pipeline
from origin.relay import Relay
from origin.settings import Settings, SettingsError
from origin.stores.contract import Store
from origin.stores.control_contract import ControlStore
from origin.stores.handover import HandoverStore
from origin.stores.job_contract import JobStore
from origin.stores.lease_contract import Leases
from origin.stores.memory_sessions import MemorySessionStore
from origin.stores.memory_usage import MemoryUsageStore
from origin.stores.redis_control import RedisControlStore
from origin.stores.redis_events import RedisEvents
from origin.stores.redis_facts import RedisFacts
from origin.stores.redis_jobs import RedisJobStore
from origin.stores.redis_leases import RedisLeases
from origin.stores.redis_sessions import RedisSessionStore
from origin.stores.redis_store import RedisStore
from origin.stores.redis_usage import RedisUsageStore
from origin.stores.session_contract import SessionStore
from origin.stores.usage_contract import UsageStore
from origin.tasks import end, kept_up
from origin.tracing import traced
from origin.usage import Recorder
from origin.usage_report import Terms
from origin.warm_jobs import WarmJobs
from origin.warming import Warming
from shared.requests import Endpoint
from shared.wire import CONTROL_PATH, COUNTERS_PATH, ENTRY_PATH, WARMING_PATH

if TYPE_CHECKING:
    from origin.semantic.matcher import Matcher

log = logging.getLogger(__name__)


def create_app(
    settings: Settings,
    *,
    engine: Engine,
    store: Store,
    control_store: ControlStore,
    leases: Leases | None = None,
    usage_store: UsageStore | None = None,
    events: RedisEvents | None = None,
    job_store: JobStore | None = None,
    turns: Turns | None = None,
    matcher: Matcher | None = None,
    departure: Departure | None = None,
    session_store: SessionStore | None = None,
    redis_facts: RedisFacts | None = None,
) -> ASGIApp:
    """The application over parts that are ready; it closes them when it shuts down.

    Without `leases` generations are shared in this process alone, without `usage_store` what is
    counted is kept in memory, without `events` nothing but requests and commands purges. With
    `job_store` there are warm-up jobs. `turns` are the engine's places. Without `matcher` there is
    no semantic match. Once `departure` has begun the origin is not ready any more. Without
    `session_store` a login counts at this process alone; the dashboard shows the operator
    `redis_facts`.
    """
    recorder = Recorder(usage_store or MemoryUsageStore(), prices=settings.prices)
    lifetimes = settings.lifetimes
    keys = settings.keys
    calibration = "" if matcher is None else matcher.version
    control = Control.from_settings(
        settings, control_store, calibration=calibration, purged=engine.forget
    )
    access = Access(keys, control, development=settings.development)
    denials = Denials(control_store)
    known_models = KnownModels(store=control_store, control=control, engine=engine, keys=keys)
    turns = turns or Turns()
    metered = MeteredEngine(OrderlyEngine(engine, turns), recorder)
    pipeline = Pipeline(
        keys=keys,
        store=store,
        engine=metered,
        lifetimes=lifetimes,
        tiers=settings.tiers,
        max_entry_bytes=settings.max_entry_bytes,
        deadline_s=settings.request_deadline_s,
        store_clock=control.now_ms,
        relay=None if leases is None else Relay(leases, keys),
        admit_after=settings.admit_after,
        ruling=control.known,
        note_model=known_models.note,
        matcher=matcher,
    )
    batches = Batches(pipeline, metered)
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
    purges = Purges(control=control, access=access, keys=keys, store=store)
    terms = Terms(prices=settings.prices, tiers=settings.tiers, lifetimes=lifetimes)
    stats = Stats(recorder=recorder, access=access, terms=terms)
    health = Health(
        store=store,
        control_store=control_store,
        engine=engine,
        known_models=known_models,
        departure=departure or Departure(),
    )
    dashboard = Dashboard(
        sessions=Sessions(
            session_store or MemorySessionStore(),
            access=access,
            control=control,
            keys=keys,
            denials=denials,
            development=settings.development,
        ),
        live=Live(
            recorder=recorder,
            terms=terms,
            health=health,
            control_store=control_store,
            matcher=matcher,
            facts=redis_facts,
            pushes=settings.edge_url is not None,
        ),
        purges=purges,
    )
    detached = {
        "comparing models": known_models.compare_until_done,
        "calibrating": control.calibrate,
        "delivering to the edge": control.deliver,
    }
    if events is not None:
        invalidation = Invalidation(events, control, keys)
        detached |= {
            "listening for events": invalidation.listen,
            "reading events": invalidation.consume,
        }

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        async with AsyncExitStack() as closing:
            parts = (store, leases, recorder, control, engine, matcher, pipeline, denials, events)
            for part in (*parts, dashboard):
                if part is not None:
                    closing.push_async_callback(part.close)
            if matcher is not None:
                matcher.tell = recorder.count_semantic
                await matcher.start()
            recorder.start()
            tasks = [asyncio.create_task(kept_up(run, what)) for what, run in detached.items()]
            closing.push_async_callback(end, tasks)
            if jobs is not None:
                jobs.start()
                closing.push_async_callback(jobs.close)
            yield

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
            recorder=recorder,
            max_cached_body_bytes=settings.max_cached_body_bytes,
            bodies=bodies,
        )
        for endpoint in Endpoint
    }
    app = Starlette(
        routes=[
            *_warm_ups(jobs, access, control, settings),
            *(Route(path, answer, methods=["POST"]) for path, answer in answers.items()),
            Route(
                ENTRY_PATH + "{key}",
                Entries(pipeline=pipeline, access=access, control=control),
                methods=["GET"],
            ),
            Route(CONTROL_PATH + "{tenant}", documents.one, methods=["GET"]),
            Route(
                COUNTERS_PATH,
                Counters(recorder=recorder, warming=warming, control=control, access=access),
                methods=["POST"],
            ),
            Route(WARMING_PATH, WarmingRuns(warming=warming, access=access), methods=["POST"]),
            Route("/cache/purge", purges, methods=["POST"]),
            Route(
                "/cache/explain",
                Explanations(
                    pipeline=pipeline,
                    matcher=matcher,
                    access=access,
                    max_cached_body_bytes=settings.max_cached_body_bytes,
                ),
                methods=["POST"],
            ),
            Route("/cache/stats", stats.one, methods=["GET"]),
            Route("/v1/models", models.list, methods=["GET"]),
            Route("/v1/models/{model:path}", models.one, methods=["GET"]),
            *dashboard.routes(),
            Route(DESCRIPTION_PATH, Description().one, methods=["GET"]),
            Route("/metrics", Metrics(access=access, recorder=recorder).all, methods=["GET"]),
            Route("/healthz", health.live, methods=["GET"]),
            Route("/readyz", health.ready, methods=["GET"]),
        ],
        exception_handlers=HANDLERS,
        lifespan=lifespan,
    )
    # A redirect would name the host that the client's own Host header names.
    app.router.redirect_slashes = False
    if isinstance(engine, Upstreams):
        app.router.default = Passthrough(
            upstreams=engine,
            access=access,
            recorder=recorder,
            max_parsed_inline_bytes=settings.max_cached_body_bytes,
            max_body_bytes=settings.max_body_bytes,
            bodies=bodies,
            deadline_s=settings.request_deadline_s,
            turns=turns,
            otherwise=app.router.default,
        )
    return traced(Boundary(app, answers, denials, max_requests=settings.max_requests))


def build_app(settings: Settings, departure: Departure | None = None) -> ASGIApp:
    """The application over the parts that the settings ask for, loaded (which may take a while).

    `settings.redis_url` must be set. Raises SettingsError where a part cannot be had.
    """
    if settings.redis_url is None:
        raise SettingsError("REDIS_URL is not set")
    url, prefix = settings.redis_url.get_secret_value(), settings.key_prefix
    control_url = settings.control_url(url)
    store: Store
    if settings.l1 == "off":
        url, leases = control_url, None  # the other one is asked nothing
        store = HandoverStore(RedisStore.from_url(url, prefix=prefix))
    else:
        store = RedisStore.from_url(url, prefix=prefix)
        leases = RedisLeases.from_url(url, prefix=prefix)
    return create_app(
        settings,
        engine=_load_engine(settings),
        store=store,
        control_store=RedisControlStore.from_url(control_url, prefix=prefix),
        leases=leases,
        usage_store=RedisUsageStore.from_url(url, prefix=prefix),
        events=RedisEvents.from_url(control_url, prefix=prefix),
        job_store=RedisJobStore.from_url(control_url, prefix=prefix),
        turns=_turns(settings),
        matcher=_matcher(settings, url),
        departure=departure,
        session_store=RedisSessionStore.from_url(control_url, prefix=prefix),
        redis_facts=RedisFacts.from_url(url),
    )


def _warm_ups(
    jobs: WarmJobs | None, access: Access, control: Control, settings: Settings
) -> list[Route]:
    if jobs is None:
        return []
    max_bytes = settings.max_cached_body_bytes
    warm_up = WarmUps(jobs=jobs, access=access, control=control, max_cached_body_bytes=max_bytes)
    return [
        Route("/cache/warm", warm_up, methods=["POST"]),
        Route("/cache/warm/{job}", warm_up, methods=["GET"]),
    ]


def _turns(settings: Settings) -> Turns:
    if settings.all_upstreams:
        return Turns()
    return Turns(settings.engine_concurrency, queue_limit=settings.engine_queue_limit)


def _matcher(settings: Settings, redis_url: str) -> Matcher | None:
    if settings.semantic == "off" or settings.l1 == "off":
        return None
    missing: Exception
    try:
        # Imported here: without semantic match an origin needs none of it.
        from origin.semantic.loading import MissingError, load_matcher  # noqa: PLC0415
    except ImportError as exc:
        missing = exc
    else:
        try:
            return load_matcher(settings, redis_url)
        except MissingError as exc:
            missing = exc
    if settings.semantic == "on":
        raise SettingsError(f"ENCORE_SEMANTIC=on: {missing}; install encore[local]") from missing
    log.warning("no semantic match: %s", missing)
    return None


def _load_engine(settings: Settings) -> Engine:
    if settings.all_upstreams:
        return Upstreams.from_settings(settings)
    try:
        # Imported here: an origin in front of an upstream needs neither torch nor transformers.
        from origin.engine.local import load_local_engine  # noqa: PLC0415
    except ModuleNotFoundError as exc:
        raise SettingsError(
            f"no ENCORE_UPSTREAM is set, and a model of this machine's needs {exc.name}; set it, "
            "or install encore[local]"
        ) from exc
    return load_local_engine(settings)
