"""`POST /cache/warm`: have a tenant's answers made ahead of requests; `GET /cache/warm/{id}`.

For a tenant's admins. A 202 says that the job is durable: it goes on after a kill of any process.
"""

from __future__ import annotations

import asyncio
from typing import Any

from starlette.types import Receive, Scope, Send

from origin.api.access import Access
from origin.api.http import headers_of, read_body, send_json
from origin.audit import Act, placed
from origin.control import Control
from origin.stores.contract import StoreError
from origin.times import utc
from origin.warm_jobs import FAILED, JobView, WarmJobs, jobs_unavailable
from origin.warm_requests import WarmRequest, read
from shared import json_text
from shared.checks import array, known_fields, missing, obj, one_of
from shared.errors import ClientError

MAX_REQUESTS = 1000
MAX_BODY_BYTES = 4 << 20
_FIELDS = {"requests": array(obj, low=1, high=MAX_REQUESTS), "when": one_of("now", "quiet")}


class WarmUps:
    """The ASGI application of both routes."""

    def __init__(
        self, *, jobs: WarmJobs, access: Access, control: Control, max_cached_body_bytes: int
    ) -> None:
        self._jobs = jobs
        self._access = access
        self._control = control
        self._max_cached_body_bytes = max_cached_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["method"] == "POST":
            await send_json(send, self._add(scope, receive), status=202)
        else:
            await send_json(send, self._one(scope))

    async def _add(self, scope: Scope, receive: Receive) -> dict[str, Any]:
        headers = headers_of(scope)
        caller = await self._access.admin(scope, headers)
        body = await read_body(receive, headers, MAX_BODY_BYTES)
        requests, quiet = await asyncio.to_thread(self._read, body)
        view = await self._jobs.add(caller.tenant, requests, quiet=quiet)
        facts = {"job": view.id, "requests": len(requests), "when": "quiet" if quiet else "now"}
        act = Act(action="warm", actor=placed(caller.actor, scope), facts=facts)
        try:
            await self._control.record(act.record(caller.tenant))
        except StoreError as exc:  # the job may run: asked for again, it finds what it made
            raise jobs_unavailable() from exc
        return _shown(view)

    async def _one(self, scope: Scope) -> dict[str, Any]:
        caller = await self._access.admin(scope, headers_of(scope))
        return _shown(await self._jobs.view(caller.tenant, scope["path_params"]["job"]))

    def _read(self, body: bytes) -> tuple[list[WarmRequest], bool]:
        """(requests, whether they wait for quiet hours). Raises ClientError naming the field."""
        fields = json_text.parse_object(body)
        known_fields(fields, _FIELDS)
        if "requests" not in fields:
            raise missing("requests")
        requests = [read(one, f"requests[{place}]") for place, one in enumerate(fields["requests"])]
        for place, request in enumerate(requests):
            if len(request.body) > self._max_cached_body_bytes:
                where = f"requests[{place}].body"
                raise ClientError(
                    f"'{where}' is larger than {self._max_cached_body_bytes} bytes: its answer "
                    "would not be kept.",
                    param=where,
                    code="request_too_large",
                )
        return requests, fields.get("when") == "quiet"


def _shown(view: JobView) -> dict[str, Any]:
    """Counts and times: nothing of what was asked."""
    state, counts = view.state, view.state.counts
    failed = {
        name.removeprefix(FAILED): count
        for name, count in counts.items()
        if name.startswith(FAILED)
    }
    status = (
        "done"
        if state.done >= state.total
        else "running"
        if state.is_held
        else "scheduled"
        if view.is_early
        else "waiting"
    )
    return {
        "id": view.id,
        "status": status,
        "when": "quiet" if state.quiet else "now",
        "requests": state.total,
        "done": state.done,
        "cached": counts.get("cached", 0),
        "generated": counts.get("generated", 0),
        "stored": counts.get("stored", 0),
        "tokens": counts.get("tokens", 0),
        "failed": failed,
        "created": utc(state.created_ms),
        "begins": utc(view.begins_ms),
        "ends": utc(state.ends_ms),
    }
