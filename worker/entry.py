"""The Worker's main module: what Cloudflare calls. Wiring only.

The platform imports it under its bare name, with its neighbours on `sys.path` and `shared` vendored
beside them; nothing here may touch entropy, network, clock or JavaScript objects at import time.
"""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

import runtime
from edge import Edge
from edge_settings import SettingsError, read_settings
from workers import WorkerEntrypoint

from shared.errors import InternalError

_edge: Edge | None = None


def _edge_of_this_isolate(env: Any) -> Edge:
    """Build the edge at the first request: bindings and secrets exist in a handler only."""
    global _edge  # noqa: PLW0603 - one per isolate, and isolates are the platform's processes
    if _edge is None:
        settings = read_settings(lambda name: runtime.variable(env, name))
        namespace = runtime.binding(env, "KV")
        if namespace is None:
            raise SettingsError(
                'KV is not bound: add [[kv_namespaces]] with binding = "KV" to wrangler.toml'
            )
        runtime.hasten_event_loop()
        _edge = Edge(settings, namespace, runtime.binding(env, "RATE_LIMIT"))
    return _edge


class _Bare:
    """`ctx` and `env` as JavaScript's, not in the SDK's wrappers: a hit needs neither."""

    def __init__(self, ctx: Any, env: Any) -> None:
        self.ctx = ctx
        self.env = env


class Default(_Bare, WorkerEntrypoint):
    """The Worker's default entrypoint."""

    async def fetch(self, request: Any) -> Any:
        """Answer one HTTP request with a JavaScript `Response`."""
        try:
            edge = _edge_of_this_isolate(self.env)
        except SettingsError as error:
            runtime.log(f"not set up: {error}")  # anybody may ask, and it may quote a setting
            return runtime.respond_error(
                InternalError("The edge is not set up; see its log.", code="edge_not_set_up")
            )
        return await edge.fetch(request.js_object, self._wait_until)

    def _wait_until(self, work: Coroutine[Any, Any, None]) -> None:
        """Let `work` go on behind the answer; the SDK keeps it alive until it ends."""
        WorkerEntrypoint(self.ctx, self.env).ctx.waitUntil(work)

    async def scheduled(self, _controller: Any, _env: Any = None, _ctx: Any = None) -> None:
        """Run by the cron trigger: look after the origin, and fetch entries ahead of requests."""
        await _edge_of_this_isolate(self.env).run_scheduled()
