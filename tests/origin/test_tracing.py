"""Traces of requests, as OpenTelemetry's SDK has them."""

from __future__ import annotations

import asyncio

import httpx
import pytest
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from pydantic import SecretStr

import origin.tracing
from origin.app import create_app
from origin.settings import Settings
from origin.stores.memory import MemoryStore
from shared.keys import key_ring, make_api_key
from tests.support.control import control_store
from tests.support.engines import MODEL, ScriptedEngine

SECRET = "a secret of the tests, long enough"
API_KEY = make_api_key(key_ring(SECRET), "acme", bytes(15))
CHAT = "/v1/chat/completions"
TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = "b7ad6b7169203331"


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> InMemorySpanExporter:
    """What is exported; there are no traces any more afterwards."""
    monkeypatch.setattr(origin.tracing, "_tracer", None)
    return InMemorySpanExporter()


async def ask(exporter: InMemorySpanExporter | None, texts: list[str]) -> list[httpx.Response]:
    """Ask one question after the other, each with a `traceparent`."""
    app = create_app(
        Settings(secret=SecretStr(SECRET)),
        engine=ScriptedEngine(),
        store=MemoryStore(),
        control_store=control_store(API_KEY),
    )
    if exporter is not None:
        app = origin.tracing.traced(app, SimpleSpanProcessor(exporter))
    headers = {
        "authorization": f"Bearer {API_KEY}",
        "traceparent": f"00-{TRACE}-{PARENT}-01",
    }
    answers = []
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app), base_url="http://origin", headers=headers
    ) as client:
        for text in texts:
            body = {"model": MODEL, "messages": [{"role": "user", "content": text}]}
            answers.append(await client.post(CHAT, json=body))
            await asyncio.sleep(0.05)
    return answers


async def test_a_trace_goes_on_where_the_client_says(spans: InMemorySpanExporter) -> None:
    """The request is a child of the client's span, and what it did are children of the request."""
    (answer,) = await ask(spans, ["a secret question"])
    found = {span.name: span for span in spans.get_finished_spans()}
    assert set(found) == {f"POST {CHAT}", "l1", "generate"}
    request = found[f"POST {CHAT}"]
    assert request.context is not None
    assert f"{request.context.trace_id:032x}" == TRACE
    assert request.parent is not None
    assert f"{request.parent.span_id:016x}" == PARENT
    for name in ("l1", "generate"):
        parent = found[name].parent
        assert parent is not None
        assert parent.span_id == request.context.span_id
    assert request.attributes is not None
    assert request.attributes["http.response.status_code"] == 200
    assert request.attributes["encore.key"] == answer.headers["encore-key"]
    assert "secret" not in "".join(span.to_json() for span in spans.get_finished_spans())


async def test_a_hit_has_no_generation(spans: InMemorySpanExporter) -> None:
    """And says that it is one."""
    await ask(spans, ["same", "same"])
    names = [span.name for span in spans.get_finished_spans()]
    assert names.count("generate") == 1
    last = spans.get_finished_spans()[-1]
    assert last.attributes is not None
    assert "hit" in str(last.attributes["cache.status"])


def test_without_an_endpoint_there_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """The application is served as it is."""
    for name in origin.tracing._ENDPOINTS:
        monkeypatch.delenv(name, raising=False)
    app = create_app(
        Settings(secret=SecretStr(SECRET)),
        engine=ScriptedEngine(),
        store=MemoryStore(),
        control_store=control_store(API_KEY),
    )
    assert origin.tracing.traced(app) is app
    assert origin.tracing.span("x") is origin.tracing.span("y")


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/v1/chat/completions", "/v1/chat/completions"),
        ("/v1/responses/resp_123/input_items", "/v1"),
        ("/internal/entries/0123", "/internal"),
        ("/", "/"),
        ("", "/"),
    ],
)
def test_names_are_few(path: str, name: str) -> None:
    """What clients put into a path is in no name."""
    assert origin.tracing._route(path) == name
