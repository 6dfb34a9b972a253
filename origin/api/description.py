"""`GET /openapi.json`: the origin's routes for clients, admins and monitors, by OpenAPI 3.1.

Tests hold it against the application: every such route is described and no other, and what
schemathesis makes of it, valid and not, is answered as it says. The dashboard's routes are its
page's own, and internal ones are the edge's: neither is described.

Rules of two fields together (`stream_options` needs `stream`) are not in it: to break one is a 400
of the code `invalid_parameter_combination`.
"""

from __future__ import annotations

from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response

from origin.api.request_schemas import (
    BODIES,
    CONTROLS,
    PURGE,
    TENANT,
    WARM_REQUEST,
    WARM_UP,
    Schema,
)
from shared import json_text
from shared.requests import Endpoint

PATH: Final = "/openapi.json"
Fields = dict[str, Any]

_TEXT: Final[Schema] = {"type": "string"}
_COUNT: Final[Schema] = {"type": "integer"}


def description() -> Fields:
    """The document: one object, made anew."""
    cached = {
        endpoint.value: {"post": _asked(_ANSWERED_BY[endpoint], endpoint)} for endpoint in Endpoint
    }
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Encore, the origin",
            "version": "1",
            "summary": "OpenAI's HTTP API, and what a cache in front of it adds.",
        },
        "security": [{"key": []}],
        "paths": cached | _OTHERS,
        "components": {
            "securitySchemes": {
                "key": {"type": "http", "scheme": "bearer", "bearerFormat": "sk-encore-..."}
            },
            "schemas": {"Error": _ERROR},
        },
    }


class Description:
    """The route. It is the same at every origin and tells nothing of this one: it needs no key."""

    def __init__(self) -> None:
        self._body = json_text.dumps(description())

    async def one(self, _request: Request) -> Response:
        """Answer with the document."""
        return Response(self._body, media_type="application/json")


def _answer(what: str, schema: Schema, media_type: str = "application/json") -> Fields:
    return {"description": what, "content": {media_type: {"schema": schema}}}


def _object(**fields: Schema) -> Schema:
    """An object that has at least these fields."""
    return {"type": "object", "properties": fields, "required": list(fields)}


_ERROR: Final[Schema] = _object(
    error=_object(
        message=_TEXT,
        type=_TEXT,
        param={"type": ["string", "null"]},
        code={"type": ["string", "null"]},
    )
)
_REFUSED: Final[Fields] = {
    "default": _answer("An error in OpenAI's shape.", {"$ref": "#/components/schemas/Error"})
}


def _operation(summary: str, answers: Fields, **more: Any) -> Fields:
    return {"summary": summary, "responses": answers | _REFUSED} | more


def _body(schema: Schema) -> Fields:
    return {"required": True, "content": {"application/json": {"schema": schema}}}


def _in_path(name: str) -> Fields:
    return {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}


_CONTROLS: Final = [
    {"name": name, "in": "header", "description": what, "schema": value}
    for name, (what, value) in CONTROLS.items()
]
_USAGE: Final = {"type": ["object", "null"]}
_CHOICES: Final = {"type": "array", "items": {"type": "object"}}
_ANSWERED_BY: dict[Endpoint, Schema] = {
    Endpoint.CHAT: _object(id=_TEXT, object=_TEXT, model=_TEXT, choices=_CHOICES, usage=_USAGE),
    Endpoint.COMPLETIONS: _object(
        id=_TEXT, object=_TEXT, model=_TEXT, choices=_CHOICES, usage=_USAGE
    ),
    Endpoint.EMBEDDINGS: _object(object=_TEXT, data=_CHOICES, model=_TEXT, usage=_USAGE),
}


def _asked(answer: Schema, endpoint: Endpoint) -> Fields:
    said = _answer("The answer, stored or made; as events where a stream is asked for.", answer)
    if endpoint is not Endpoint.EMBEDDINGS:
        said["content"]["text/event-stream"] = {}
    said["headers"] = {
        "Cache-Status": {"description": "RFC 9211.", "required": True, "schema": _TEXT}
    }
    return _operation(
        f"As OpenAI's POST {endpoint.value}.",
        {"200": said},
        requestBody=_body(BODIES[endpoint]),
        parameters=_CONTROLS,
    )


_MODEL: Final = _object(id=_TEXT, object={"const": "model"}, created=_COUNT, owned_by=_TEXT)
_JOB: Final = _object(
    id=_TEXT,
    status={"enum": ["waiting", "scheduled", "running", "done"]},
    when={"enum": ["now", "quiet"]},
    requests=_COUNT,
    done=_COUNT,
    cached=_COUNT,
    generated=_COUNT,
    stored=_COUNT,
    tokens=_COUNT,
    failed={"type": "object"},
    created=_TEXT,
    begins=_TEXT,
    ends=_TEXT,
)
_STATS: Final = _object(
    version=_COUNT,
    tenant=_TEXT,
    since={"type": ["string", "null"]},
    edge={"type": "object"},
    origin={"type": "object"},
    models={"type": "object"},
    tokens={"type": "object"},
)
_EXPLAINED: Final = _object(
    tenant=_TEXT,
    endpoint=_TEXT,
    key={"type": ["string", "null"]},
    strategy=_TEXT,
    canonical=_TEXT,
    tiers={"type": "array"},
    answered_by={"type": ["string", "null"]},
)
_READY: Final = _object(status=_TEXT, parts={"type": "object"})
_FOR_ADMINS: Final = "For admins: "
_OTHERS: Fields = {
    "/v1/models": {
        "get": _operation(
            "Every model that can be asked for.",
            {
                "200": _answer(
                    "The models.", _object(object=_TEXT, data={"type": "array", "items": _MODEL})
                )
            },
        )
    },
    "/v1/models/{model}": {
        "get": _operation(
            "One model. Its name may have slashes.",
            {"200": _answer("The model.", _MODEL)},
            parameters=[_in_path("model")],
        )
    },
    "/cache/purge": {
        "post": _operation(
            _FOR_ADMINS + "purge by key, tag, model, or everything of the tenant.",
            {"200": _answer("It is durable, and holds.", _object(tenant=_TEXT))},
            requestBody=_body(PURGE),
        )
    },
    "/cache/explain": {
        "post": _operation(
            _FOR_ADMINS + "why a request is answered as it is.",
            {"200": _answer("Its key, and what each tier would do.", _EXPLAINED)},
            requestBody=_body(WARM_REQUEST),
        )
    },
    "/cache/stats": {
        "get": _operation(
            "What the cache has done for the tenant.",
            {"200": _answer("The report.", _STATS)},
            parameters=[
                {
                    "name": "tenant",
                    "in": "query",
                    "description": "Another tenant, or all (`*`): for the operator's admins.",
                    "schema": TENANT,
                }
            ],
        )
    },
    "/cache/warm": {
        "post": _operation(
            _FOR_ADMINS + "have answers made ahead of requests.",
            {"202": _answer("The job is durable.", _JOB)},
            requestBody=_body(WARM_UP),
        )
    },
    "/cache/warm/{job}": {
        "get": _operation(
            _FOR_ADMINS + "how far a job is.",
            {"200": _answer("The job.", _JOB)},
            parameters=[_in_path("job")],
        )
    },
    "/metrics": {
        "get": _operation(
            "For admins of the operator's tenant: Prometheus' exposition.",
            {"200": {"description": "All instruments.", "content": {"text/plain": {}}}},
        )
    },
    "/healthz": {
        "get": _operation(
            "Whether the process lives.", {"200": _answer("It does.", _object(status=_TEXT))}
        )
        | {"security": []}
    },
    "/readyz": {
        "get": _operation(
            "Whether every part can answer.",
            {"200": _answer("All can.", _READY), "503": _answer("Which cannot.", _READY)},
        )
        | {"security": []}
    },
    PATH: {
        "get": _operation("This document.", {"200": _answer("It.", {"type": "object"})})
        | {"security": []}
    },
}
