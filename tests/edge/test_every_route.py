"""Tenants over every route of the application: nothing of one is seen, counted, purged, warmed or
even guessed at by another, at the origin or through the edge.

Each probe is sent twice: it names what is another tenant's, and then what is nobody's. If the two
answers differ, somebody learns that the first is there. The routes are the application's own list:
one that is added without a probe here fails the first test.
"""  # noqa: D205 - one sentence

from __future__ import annotations

import gzip
import itertools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
from starlette.routing import Route

from shared.envelope import MEDIA_TYPE, SEGMENT_JSON, decode
from shared.keys import edge_bearer, key_id, make_api_key, tag_digest
from shared.requests import Endpoint
from shared.wire import (
    CONTROL_PATH,
    COUNTERS_PATH,
    EDGE_AUTHORIZATION,
    ENTRY_PATH,
    WARMING_PATH,
)
from tests.edge.local_edge import StartEdge
from tests.edge.stack import CHAT, KEYS, Stack, is_hit, stacked, until
from tests.support.control import control_store
from tests.support.engines import MODEL

VICTIM = make_api_key(KEYS, "victim", bytes(15))
CLIENT = make_api_key(KEYS, "other", bytes(15))
ADMIN = make_api_key(KEYS, "other", bytes([1] * 15))
TAG = "a-tag-of-the-victim"
ANSWER = "what the victim was told"
QUESTION = {"messages": [{"role": "user", "content": "what the victim asked"}]}
FROM_PAGE = {"sec-fetch-site": "same-origin", "encore-csrf": "$key"}
EDGE_BEARER = {EDGE_AUTHORIZATION: f"Bearer {edge_bearer(KEYS)}"}


@dataclass(frozen=True, kw_only=True)
class Names:
    """What a probe names: the victim's, or nobody's."""

    tenant: str
    key: str
    tag: str
    text: str


@dataclass(frozen=True, kw_only=True)
class Probe:
    """A request to a route. `$tenant`, `$key`, `$short`, `$tag` and `$text` are of the `Names`."""

    method: str
    path: str
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)

    def send(self, client: httpx.Client, names: Names) -> httpx.Response:
        """Send it."""
        words = {
            "$tenant": names.tenant,
            "$key": names.key,
            "$short": names.key[:16],
            "$tag": names.tag,
            "$text": names.text,
        }

        def filled(value: Any) -> Any:
            if isinstance(value, str):
                for word, text in words.items():
                    value = value.replace(word, text)
                return value
            if isinstance(value, list):
                return [filled(inner) for inner in value]
            if isinstance(value, dict):
                return {name: filled(inner) for name, inner in value.items()}
            return value

        return client.request(
            self.method,
            filled(self.path),
            json=filled(self.body),
            headers=filled(dict(self.headers)),
        )


def asking(path: str, **body: Any) -> list[Probe]:
    """What the victim asked, in every manner of asking a cache."""
    controls: list[dict[str, str]] = [
        {},
        {"cache-control": "only-if-cached"},
        {"cache-control": "only-if-cached, max-stale"},
        {"cache-control": "stale-if-error=600"},
        {"encore-tags": "$tag"},
        {"encore-scope": "$tenant"},
        EDGE_BEARER | {"accept": MEDIA_TYPE},
        {"encore-tenant": "$tenant", "x-tenant": "$tenant"},
    ]
    return [
        Probe(
            method="POST",
            path=path,
            body={"model": MODEL, **body, **more},
            headers=headers,
        )
        for headers, more in itertools.product(controls, [{}, {"user": "$tenant"}])
    ]


PROBES: dict[str, list[Probe]] = {
    Endpoint.CHAT.value: [
        *asking(CHAT, messages=[{"role": "user", "content": "$text"}]),
        *asking(CHAT, messages=[{"role": "user", "content": "$text"}], stream=True),
        *asking(CHAT + "?tenant=$tenant", messages=[{"role": "user", "content": "$text"}]),
    ],
    Endpoint.COMPLETIONS.value: asking(Endpoint.COMPLETIONS.value, prompt="$text"),
    Endpoint.EMBEDDINGS.value: [
        *asking(Endpoint.EMBEDDINGS.value, input="$text"),
        *asking(Endpoint.EMBEDDINGS.value, input=["$text", "$text and more"]),
    ],
    ENTRY_PATH + "{key}": [
        Probe(method="GET", path=ENTRY_PATH + "$key"),
        Probe(method="GET", path=ENTRY_PATH + "$key?tenant=$tenant"),
        Probe(method="GET", path=ENTRY_PATH + "$key", headers=EDGE_BEARER),
        Probe(method="GET", path=ENTRY_PATH + "$key?tenant=$tenant", headers=EDGE_BEARER),
    ],
    # By its bearer alone the edge gets all of them: no probe shows it here.
    CONTROL_PATH + "{tenant}": [
        Probe(method=method, path=CONTROL_PATH + "$tenant") for method in ("GET", "PUT", "DELETE")
    ],
    COUNTERS_PATH: [
        Probe(method="POST", path=COUNTERS_PATH, body={"tenants": {"$tenant": {"hits": 9}}})
    ],
    WARMING_PATH: [Probe(method="POST", path=WARMING_PATH, body={"limit": 5})],
    "/cache/purge": [
        Probe(method="POST", path="/cache/purge", body=body)
        for body in (
            {"keys": ["$key"]},
            {"keys": ["$short"]},
            {"tags": ["$tag"]},
            {"models": [MODEL]},
            {"tags": ["$tag"], "older_than_s": 0, "keys": ["$key"]},
            {"everything": True, "tenant": "$tenant"},
            {"tags": ["$tag"], "tenant": "$tenant"},
            {"everything": True, "tenant": "*"},
            {"everything": True},
        )
    ],
    "/cache/explain": [
        Probe(method="POST", path="/cache/explain", body=body)
        for body in (
            {"body": {"model": MODEL, "messages": [{"role": "user", "content": "$text"}]}, **more}
            for more in ({}, {"headers": {"Encore-Scope": "$tenant"}}, {"tenant": "$tenant"})
        )
    ],
    "/cache/stats": [
        Probe(method="GET", path="/cache/stats"),
        Probe(method="GET", path="/cache/stats?tenant=$tenant"),
        Probe(method="GET", path="/cache/stats?tenant=*"),
    ],
    "/cache/warm": [
        Probe(method="POST", path="/cache/warm", body=body)
        for body in (
            {"requests": [{"body": {"model": MODEL, **QUESTION}}], "tenant": "$tenant"},
            {"requests": [{"body": {"model": "$text"}}]},
            {"requests": [], "when": "$tenant"},
        )
    ],
    "/cache/warm/{job}": [
        Probe(method="GET", path="/cache/warm/$short"),
        Probe(method="GET", path="/cache/warm/$key?tenant=$tenant"),
    ],
    "/dashboard": [
        Probe(method="GET", path="/dashboard"),
        Probe(method="GET", path="/dashboard?tenant=$tenant&api_key=$key"),
        Probe(method="GET", path="/dashboard", headers={"cookie": "__Host-encore-session=$key"}),
    ],
    "/dashboard/login": [
        Probe(method="POST", path="/dashboard/login", body={"api_key": "$key"}, headers=headers)
        for headers in ({}, {"sec-fetch-site": "same-origin"})
    ],
    "/dashboard/logout": [
        Probe(method="POST", path="/dashboard/logout", body={"csrf": "$key"}, headers=FROM_PAGE),
    ],
    "/dashboard/events": [
        Probe(method="GET", path="/dashboard/events?tenant=" + tenant, headers=headers)
        for tenant in ("$tenant", "*")
        for headers in ({}, {"cookie": "__Host-encore-session=$key"}, EDGE_BEARER)
    ],
    "/dashboard/purge": [
        Probe(method="POST", path="/dashboard/purge", body=body, headers=FROM_PAGE)
        for body in ({"keys": ["$key"], "tenant": "$tenant"}, {"everything": True, "tenant": "*"})
    ],
    "/dashboard/{file}": [
        Probe(method="GET", path="/dashboard/" + name) for name in ("$key", "icon.svg")
    ],
    "/metrics": [Probe(method="GET", path="/metrics?tenant=$tenant")],
    "/v1/models": [Probe(method="GET", path="/v1/models?tenant=$tenant")],
    "/v1/models/{model:path}": [
        Probe(method="GET", path="/v1/models/" + MODEL),
        Probe(method="GET", path="/v1/models/$tenant"),
        Probe(method="GET", path="/v1/models/$key"),
    ],
    "/openapi.json": [Probe(method="GET", path="/openapi.json?tenant=$tenant")],
    "/healthz": [Probe(method="GET", path="/healthz?tenant=$tenant")],
    "/readyz": [Probe(method="GET", path="/readyz?tenant=$tenant")],
}
"""By the application's routes."""
CALLERS: dict[str, dict[str, str]] = {
    "client": {"authorization": f"Bearer {CLIENT}"},
    "admin": {"authorization": f"Bearer {ADMIN}"},
    "nobody": {},
    "a made-up key": {"authorization": f"Bearer {VICTIM[:-8]}aaaaaaaa"},
}


@pytest.fixture(scope="module")
def stack(start_edge: StartEdge) -> Iterator[Stack]:
    """A victim that has an entry at the origin and at the edge, and another tenant."""
    with stacked(start_edge, control=control_store(VICTIM, CLIENT, admins=[ADMIN])) as running:
        yield running


def routes_of(stack: Stack) -> list[Route]:
    """The application's own."""
    application: Any = stack.front._origin
    routes: list[Route] = application._app.routes
    return routes


def ask_as_victim(stack: Stack) -> httpx.Response:
    """The victim's request."""
    headers = {"authorization": f"Bearer {VICTIM}", "encore-tags": TAG}
    return stack.client.post(CHAT, json={"model": MODEL, **QUESTION}, headers=headers)


def alike(response: httpx.Response, names: Names) -> tuple[int, dict[str, str], str]:
    """An answer, but for what must differ: what was named, numbers, digests and times."""
    changing = {"date", "server-timing", "content-length", "etag", "encore-key", "age"}
    headers = {n: v for n, v in response.headers.items() if n not in changing}
    if "; hit" in headers.get("cache-status", ""):
        headers["cache-status"] = "hit"  # KV has it a moment later than the origin

    def without_names(text: str) -> str:
        for name in (names.key, names.key[:16], names.tag, names.text, names.tenant):
            text = text.replace(name, "$")
        return re.sub(r"-?[0-9][0-9.e+-]*", "0", re.sub(r"(?<![0-9.])[0-9a-f]{16,}", "$", text))

    text = response.text
    if headers.get("content-type") == MEDIA_TYPE:
        text = gzip.decompress(decode(response.content).segment(SEGMENT_JSON) or b"").decode()
    return (
        response.status_code,
        {name: without_names(value) for name, value in headers.items()},
        without_names(text),
    )


def test_every_route_has_its_probes(stack: Stack) -> None:
    """And no probe is for a route that is not there."""
    assert set(PROBES) == {route.path for route in routes_of(stack)}


@pytest.mark.parametrize("path", [path for path in PROBES if path.startswith("/dashboard")])
def test_the_dashboard_is_the_origins_alone(stack: Stack, path: str) -> None:
    """The edge knows no such path, whoever asks: no session crosses it."""
    before = len(stack.front.asked)
    for method in ("GET", "POST"):
        answer = httpx.request(
            method,
            stack.edge.url + path.replace("{file}", "icon.svg"),
            headers={"authorization": f"Bearer {ADMIN}", "sec-fetch-site": "same-origin"},
        )
        assert answer.status_code == 404
        assert answer.json()["error"]["code"] == "unknown_url"
    assert not [each for each in stack.front.asked[before:] if "/dashboard" in each]


@pytest.mark.parametrize("caller", CALLERS)
@pytest.mark.parametrize("at", ["origin", "edge"])
def test_nothing_of_another_tenant_is_to_be_had(stack: Stack, at: str, caller: str) -> None:
    """Nor to be changed: the victim's entry, document and counts are as they were."""
    stack.engine.text = ANSWER
    ask_as_victim(stack)
    before = until(lambda: ask_as_victim(stack), is_hit)
    (key,) = (key for key in stack.store._entries if key.startswith(before.headers["encore-key"]))
    document = stack.control._documents["victim"]
    entry = stack.store._entries[key]
    runs = stack.engine.runs
    stack.engine.text = None
    secrets = {key, key[:16], key_id(VICTIM), tag_digest(KEYS, "victim", TAG), ANSWER, VICTIM}
    question = str(QUESTION["messages"][0]["content"])
    victims = Names(tenant="victim", key=key, tag=TAG, text=question)
    nobodys = Names(tenant="nobody", key="f" * 64, tag="t" * len(TAG), text="what nobody asked")
    base_url = stack.origin_url if at == "origin" else stack.edge.url
    # workerd hangs up on who was refused before the body was read.
    alone = httpx.Limits(max_keepalive_connections=0)
    with httpx.Client(
        base_url=base_url, headers=CALLERS[caller], timeout=30, limits=alone
    ) as client:
        for route, probes in PROBES.items():
            for probe in probes:
                if caller == "nobody" and EDGE_AUTHORIZATION in probe.headers:
                    continue  # that is the edge itself, which serves every tenant
                named, unnamed = (probe.send(client, names) for names in (victims, nobodys))
                assert alike(named, victims) == alike(unnamed, nobodys), (route, probe)
                told = named.text + repr(named.headers)
                asked = repr(probe.body) + probe.path
                for secret in secrets - {key, key[:16]} if "$key" in asked else secrets:
                    assert secret not in told, (route, probe)
    assert stack.control._documents["victim"] == document
    assert stack.store._entries[key] == entry
    after = ask_as_victim(stack)
    assert is_hit(after)
    assert after.content == before.content
    assert stack.engine.runs == runs or caller in {"client", "admin"}  # their own answers
