"""The origin's description against the origin: its routes, and what becomes of what fits it or not.

`SCHEMATHESIS_EXAMPLES=2000` in the environment tries so many of each kind.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any, cast

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import SecretStr
from schemathesis import APIOperation, Config, Response
from schemathesis.checks import not_a_server_error
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    positive_data_acceptance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from starlette.routing import Route

from origin.api.description import description
from origin.app import create_app
from origin.settings import Settings
from origin.stores.memory import MemoryStore
from origin.stores.memory_jobs import MemoryJobStore
from shared.control_document import OPERATOR_TENANT
from shared.keys import key_ring, make_api_key
from tests.support.control import control_store
from tests.support.engines import MODEL, ScriptedEngine
from tests.support.serving import serving

SECRET = "a secret of the tests, long enough"
ADMIN = make_api_key(key_ring(SECRET), OPERATOR_TENANT, bytes(15))
EXAMPLES = int(os.environ.get("SCHEMATHESIS_EXAMPLES", "10"))
SCHEMA = schemathesis.openapi.from_dict(
    description(), config=Config.from_dict({"generation": {"with-security-parameters": False}})
)
Operation = APIOperation[Any, Any, Any, Any]
OPERATIONS: dict[str, Operation] = {
    f"{operation.method.upper()} {operation.path}": operation
    for operation in (cast("Any", found).ok() for found in SCHEMA.get_all_operations())
}
TAKING = [
    name
    for name, operation in OPERATIONS.items()
    if operation.body or operation.headers or operation.query
]
"""Those that take something that could not fit."""
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    negative_data_rejection,
    positive_data_acceptance,
]
HELLO = {"model": MODEL, "messages": [{"role": "user", "content": "Hello"}]}


def application() -> Any:
    """The whole application, in memory."""
    return create_app(
        Settings(secret=SecretStr(SECRET)),
        engine=ScriptedEngine(),
        store=MemoryStore(),
        control_store=control_store(admins=[ADMIN]),
        job_store=MemoryJobStore(),
    )


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """Where it is served, by the real server."""
    with ExitStack() as stack:
        yield stack.enter_context(serving(application(), lifespan=True))


def test_every_route_is_described_and_no_other() -> None:
    """But for what is the dashboard page's own, and the edge's."""
    routes: list[Route] = application()._app.routes
    known = {
        f"{method} {route.path.replace(':path', '')}"
        for route in routes
        if not route.path.startswith(("/dashboard", "/internal/"))
        for method in (route.methods or set()) - {"HEAD"}
    }
    assert set(OPERATIONS) == known


def test_it_is_to_be_had_without_a_key(url: str) -> None:
    """As it is in the code."""
    response = httpx.get(url + "/openapi.json")
    assert response.status_code == 200
    assert response.json() == description()


def is_not_said(response: Response) -> bool:
    """Whether a request was refused for what no schema here says."""
    error = response.json().get("error", {}) if response.status_code == 400 else {}
    param = error.get("param") or ""
    return error.get("code") == "invalid_parameter_combination" or (
        # Nothing is named, or everything and something; a body or a URL that does not fit its
        # endpoint.
        (error.get("code"), param) == ("invalid_value", "everything")
        or re.match(r"(requests\[\d+\]\.)?(body|url)\b", param) is not None
    )


@settings(
    max_examples=EXAMPLES,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)
@given(data=st.data())
def send(url: str, operation: Operation, mode: GenerationMode, data: Any) -> None:
    """Send what is made by the description, or against it, and hold the answer against it."""
    case = data.draw(operation.as_strategy(generation_mode=mode))
    if isinstance(case.body, dict):
        # Of any model, and any body of a warm-up, few would be done.
        if isinstance(case.body.get("model"), str) and case.body["model"]:
            case.body["model"] = data.draw(st.sampled_from([case.body["model"], MODEL]))
        if isinstance(case.body.get("body"), dict):
            case.body["body"] = data.draw(st.sampled_from([case.body["body"], HELLO]))
    response = case.call(base_url=url, headers={"authorization": f"Bearer {ADMIN}"})
    case.validate_response(response, checks=CHECKS[: -1 if is_not_said(response) else None])


@pytest.mark.timeout(60 + EXAMPLES)
@pytest.mark.parametrize("name", OPERATIONS)
def test_what_fits_is_done(url: str, name: str) -> None:
    """Or refused in OpenAI's shape for a reason that no schema can give; never a 5xx."""
    send(url, OPERATIONS[name], GenerationMode.POSITIVE)


@pytest.mark.timeout(60 + EXAMPLES)
@pytest.mark.parametrize("name", TAKING)
def test_what_does_not_fit_is_refused(url: str, name: str) -> None:
    """In OpenAI's shape; never by a 5xx."""
    send(url, OPERATIONS[name], GenerationMode.NEGATIVE)
