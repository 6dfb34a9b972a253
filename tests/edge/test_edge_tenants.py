"""Tenants and scopes share nothing, in any route, whatever a client sends; and their policies."""

from __future__ import annotations

import http.client
import json
import posixpath
import re
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from shared.control_document import Policy, encode
from shared.keys import edge_bearer, key_ring, make_api_key
from shared.requests import Endpoint
from shared.wire import (
    CONTROL_PATH,
    CONTROL_REVISION,
    COUNTERS_PATH,
    EDGE_AUTHORIZATION,
    EDGE_STORE,
    ENTRY_PATH,
    FORWARDED_REQUEST_HEADERS,
    WARMING_PATH,
)
from tests.edge.lab import Lab
from tests.edge.local_edge import StartEdge
from tests.edge.stack import (
    ADMIN_API_KEY,
    API_KEY,
    CHAT,
    KEYS,
    OTHER_API_KEY,
    Stack,
    answering,
    content,
    error_of,
    is_hit,
    leave_document,
    stacked,
    status,
    until,
)
from tests.support.control import document_of
from tests.support.engines import MODEL, chat_answer

MINE = {"authorization": f"Bearer {API_KEY}"}
OTHER = {"authorization": f"Bearer {OTHER_API_KEY}"}
SCOPED = {"encore-scope": "user-7"}
CHOICE = {"index": 0, "text": "said", "logprobs": None, "finish_reason": "stop"}
USAGE = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}

BODIES: Mapping[Endpoint, dict[str, Any]] = {
    Endpoint.CHAT: {"messages": [{"role": "user", "content": "the same"}]},
    Endpoint.COMPLETIONS: {"prompt": "the same"},
    Endpoint.EMBEDDINGS: {"input": "the same"},
}
FORMS = [
    (endpoint, stream)
    for endpoint in Endpoint
    for stream in (False, True)
    if not (stream and endpoint is Endpoint.EMBEDDINGS)
]
OTHERS = {
    "another tenant": OTHER,
    "a scope": SCOPED,
    "another scope": {"encore-scope": "user-8"},
    "a scope alike": {"encore-scope": "User-7"},
    "the scope of another tenant": OTHER | SCOPED,
}


@pytest.fixture(scope="module")
def lab_stack(start_edge: StartEdge, lab_config: Path) -> Iterator[Stack]:
    """A stack whose KV can be looked at."""
    with stacked(start_edge, config=lab_config) as stack:
        yield stack


def answer_of(endpoint: Endpoint, said: str) -> dict[str, Any]:
    """A plain answer of an endpoint in which `said` stands."""
    match endpoint:
        case Endpoint.CHAT:
            return chat_answer(said)
        case Endpoint.COMPLETIONS:
            choice = CHOICE | {"text": said}
            fields = {"id": "cmpl-1", "object": "text_completion", "created": 1}
            return {**fields, "model": MODEL, "choices": [choice], "usage": USAGE}
        case Endpoint.EMBEDDINGS:
            datum = {"object": "embedding", "index": 0, "embedding": [float(len(said))]}
            return {"object": "list", "data": [datum], "model": said, "usage": USAGE}


def tenant_with(stack: Stack, tenant: str, **policy: Any) -> dict[str, str]:
    """A tenant with this policy, known on both sides; the header of its client."""
    api_key = make_api_key(KEYS, tenant, bytes(15))
    document = document_of(api_key, policy=Policy(**policy))
    stack.control._documents[tenant] = (document.revision, encode(document))
    assert leave_document(stack.edge, document).is_success
    return {"authorization": f"Bearer {api_key}"}


@pytest.mark.parametrize(
    ("endpoint", "stream"), FORMS, ids=[f"{e.name.lower()}-{s}" for e, s in FORMS]
)
def test_equal_requests_of_others_are_answered_for_themselves(
    lab_stack: Stack, monkeypatch: pytest.MonkeyPatch, endpoint: Endpoint, stream: bool
) -> None:
    """Each other tenant or scope has a miss first, then hits its own answer alone."""
    body = {"model": MODEL, "seed": int(stream), **BODIES[endpoint]}
    streamed = body | ({"stream": True} if stream else {})

    def ask(headers: dict[str, str]) -> httpx.Response:
        return lab_stack.client.post(endpoint, json=streamed, headers=headers)

    askers = {"mine": MINE} | OTHERS
    keys = set()
    for i, (name, headers) in enumerate(askers.items()):
        whole = answer_of(endpoint, f"answer-{i}-")
        monkeypatch.setattr(lab_stack.engine, "whole", whole)
        first = ask(headers)
        assert status(first).split(", ")[-1].startswith("encore-edge; fwd=miss"), name
        assert f"answer-{i}-" in first.text
        hit = until(lambda headers=headers: ask(headers), is_hit)  # type: ignore[misc]
        assert f"answer-{i}-" in hit.text
        keys.add(hit.headers["encore-key"])
    assert len(keys) == len(askers)
    for i, headers in enumerate(askers.values()):
        hit = ask(headers)
        assert is_hit(hit)
        assert f"answer-{i}-" in hit.text


def test_entry_of_another_tenant_is_none(lab_stack: Stack) -> None:
    """Whoever put it into KV under one's name: a miss that says so, and is replaced."""
    lab = Lab(edge=lab_stack.edge)
    lab_stack.ask("planted", OTHER)
    theirs = content(lab_stack.hit("planted", OTHER))
    lab_stack.ask("planted")
    mine = lab_stack.hit("planted")
    key = mine.headers["encore-key"]
    (target,) = (name for name in lab.names("e:acme:") if name.startswith(f"e:acme:{key}"))
    source = lab_stack.ask("planted", OTHER).headers["encore-key"]
    (name,) = (name for name in lab.names("e:other:") if name.startswith(f"e:other:{source}"))
    value, metadata = lab.value(name) or (b"", "")
    for forged in (metadata, metadata.replace('"t":"other"', '"t":"acme"')):
        lab.put(target, value, forged)
        lab_stack.end_minute()
        answer = lab_stack.ask("planted")
        assert status(answer).endswith("encore-edge; fwd=miss; stored; detail=kv-undecodable")
        assert content(answer) == content(mine) != theirs
        lab_stack.hit("planted")


def test_entry_of_another_tenant_from_the_origin_is_refused(lab_stack: Stack) -> None:
    """An origin, or what stands before it, that mixes tenants up is a 502."""
    lab_stack.ask("mixed up", OTHER)
    key = lab_stack.ask("mixed up", OTHER).headers["encore-key"]
    (encoded,) = (
        entry for name, (entry, _) in lab_stack.store._entries.items() if name.startswith(key)
    )
    lab_stack.front.instead = answering(
        200, "application/vnd.encore.entry", encoded, left=None, **{EDGE_STORE: "1"}
    )
    names = Lab(edge=lab_stack.edge).names()
    try:
        refused = lab_stack.ask("mixed up")
    finally:
        lab_stack.front.instead = None
    assert (refused.status_code, error_of(refused)["code"]) == (502, "origin_disagrees")
    assert Lab(edge=lab_stack.edge).names() == names


def raw(
    stack: Stack, method: str, target: str, headers: list[tuple[str, str]], body: bytes = b""
) -> tuple[int, dict[str, Any], bytes]:
    """Send a request as it is written: no client tidies it up."""
    connection = http.client.HTTPConnection(urlsplit(stack.edge.url).netloc, timeout=30)
    connection.putrequest(method, target, skip_accept_encoding=True)
    for name, value in headers:
        connection.putheader(name, value)
    connection.putheader("content-length", str(len(body)))
    connection.endheaders(body)
    response = connection.getresponse()
    answer = response.status, dict(response.headers), response.read()
    connection.close()
    return answer


ODD_AUTHORIZATIONS: Mapping[str, tuple[list[tuple[str, str]], bool]] = {
    "mixed case": ([("AuThOrIzAtIoN", f"bEaReR {API_KEY}")], True),
    "spaces": ([("authorization", f"  Bearer    {API_KEY}  ")], True),
    "two tenants": (
        [("authorization", f"Bearer {API_KEY}"), ("Authorization", f"Bearer {OTHER_API_KEY}")],
        False,
    ),
    "two tenants, reversed": (
        [("authorization", f"Bearer {OTHER_API_KEY}"), ("Authorization", f"Bearer {API_KEY}")],
        False,
    ),
    "twice the same": ([("authorization", f"Bearer {API_KEY}")] * 2, False),
    "a list": ([("authorization", f"Bearer {API_KEY}, Bearer {OTHER_API_KEY}")], False),
    "a second word": ([("authorization", f"Bearer {API_KEY} {OTHER_API_KEY}")], False),
    "no scheme": ([("authorization", API_KEY)], False),
    "basic": ([("authorization", f"Basic {API_KEY}")], False),
    "upper case": ([("authorization", f"Bearer {API_KEY.upper()}")], False),
    "another tenant's name": (
        [("authorization", f"Bearer {API_KEY.replace('acme', 'other')}")],
        False,
    ),
    "in another header": ([("x-api-key", API_KEY), ("api-key", API_KEY)], False),
    "beyond ASCII": ([("authorization", f"Bearer {API_KEY}\xe9")], False),
}


@pytest.mark.parametrize("case", ODD_AUTHORIZATIONS)
def test_odd_authorization_is_its_one_tenant_or_nobody(lab_stack: Stack, case: str) -> None:
    """There is never a choice between two."""
    text = "odd authorization"
    for headers in (MINE, OTHER):
        lab_stack.ask(text, headers)
        lab_stack.hit(text, headers)
    mine = lab_stack.hit(text)
    odd, is_accepted = ODD_AUTHORIZATIONS[case]
    body = json.dumps({"model": MODEL, "messages": [{"role": "user", "content": text}]})
    code, _, answer = raw(lab_stack, "POST", CHAT, odd, body.encode())
    if is_accepted:
        assert (code, json.loads(answer)) == (200, mine.json())
    else:
        assert code == 401
        assert set(json.loads(answer)["error"]) == {"message", "type", "param", "code"}


INTERNAL_HEADERS = {
    EDGE_AUTHORIZATION: f"Bearer {edge_bearer(KEYS)}",
    "encore-edge-authorization ": "x",
    CONTROL_REVISION: "9007199254740991",
    EDGE_STORE: "1",
    "accept": "application/vnd.encore.entry",
    "encore-tenant": "other",
    "x-encore-tenant": "other",
    "encore-key": "0" * 16,
    "x-forwarded-for": "127.0.0.1",
    "forwarded": "for=127.0.0.1",
    "host": "localhost",
}


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
@pytest.mark.parametrize("name", INTERNAL_HEADERS)
def test_internal_headers_of_a_client_mean_nothing(
    lab_stack: Stack, name: str, stream: bool
) -> None:
    """The answer is the same as without them, and none of them comes back."""
    text = f"internal {name.strip()} {stream}"
    plain = lab_stack.ask(text, OTHER, stream=stream)
    lab_stack.hit(text, OTHER, stream=stream)
    for _ in range(2):
        answer = lab_stack.ask(text, {name.strip(): INTERNAL_HEADERS[name]}, stream=stream)
        assert answer.status_code == 200
        assert answer.headers["content-type"] == plain.headers["content-type"]
        assert answer.headers["encore-key"] != plain.headers["encore-key"]
        assert not {EDGE_AUTHORIZATION, CONTROL_REVISION, EDGE_STORE} & set(answer.headers)
        lab_stack.hit(text, stream=stream)


def test_origin_sees_listed_headers_only(lab_stack: Stack) -> None:
    """And the edge's own bearer, whatever bearer the client showed."""
    seen: list[list[tuple[bytes, bytes]]] = []
    origin = lab_stack.front._origin

    async def noting(scope: Any, receive: Any, send: Any) -> None:
        seen.append(list(scope["headers"]))
        await origin(scope, receive, send)

    strange = {
        EDGE_AUTHORIZATION: f"Bearer {edge_bearer(key_ring('x' * 32))}",
        CONTROL_REVISION: "5",
        EDGE_STORE: "1",
        "cookie": "a=b",
        "encore-edge-location": "XYZ",
        "x-forwarded-for": "127.0.0.1",
    }
    lab_stack.front.instead = noting
    try:
        assert lab_stack.ask("listed", strange).status_code == 200
        assert lab_stack.client.get("/cache/stats", headers=strange).status_code == 200
        assert lab_stack.client.get("/v1/models", headers=strange).status_code == 200
    finally:
        lab_stack.front.instead = None
    assert len(seen) == 3
    transport = {"host", "connection", "content-length", "transfer-encoding", "accept", "cf-worker"}
    allowed = {*FORWARDED_REQUEST_HEADERS, *transport, "accept-encoding", EDGE_AUTHORIZATION}
    bearers = []
    for headers in seen:
        names = [name.decode() for name, _ in headers]
        assert set(names) <= allowed, names
        assert len(names) == len(set(names))
        bearers.append(dict(headers).get(EDGE_AUTHORIZATION.encode()))
    # Where a client names the path, the edge's word does not go along.
    assert bearers == [f"Bearer {edge_bearer(KEYS)}".encode(), None, None]


INTERNAL_ROUTES = {
    ENTRY_PATH + "{key}?tenant=acme": "GET",
    CONTROL_PATH + "acme": "GET",
    COUNTERS_PATH: "POST",
    WARMING_PATH: "POST",
}
PREFIXES = (
    "",
    "/",
    "/cache/..",
    "/cache/../",
    "/cache/%2e%2e",
    "/cache/.%2E",
    "/cache/%2e%2e%2f",
    "/cache/..%2f",
    "/cache/..%5c",
    "/cache/%252e%252e",
    "/cache//..//",
    "/cache/./..",
    "/cache/\\..\\..",
    "/cache/purge/..;/..",
    "/v1/..",
    "/v1/models/../..",
    "/v1/models/%2e%2e/%2e%2e",
    "/v1/models/..%2f..",
    "/v1/models/%2e%2e%2f%2e%2e%2f",
    "/v1/chat/completions/../../..",
)


@pytest.mark.parametrize("prefix", PREFIXES)
def test_no_path_leads_to_internal_routes(lab_stack: Stack, prefix: str) -> None:
    """Neither here nor at the origin, nor at one behind a server that decodes and tidies paths."""
    text = "internal paths"
    lab_stack.ask(text)
    short = lab_stack.hit(text).headers["encore-key"]
    (key,) = (key for key in lab_stack.store._entries if key.startswith(short))
    before = len(lab_stack.front.asked)
    bearer = ("encore-edge-authorization", f"Bearer {edge_bearer(KEYS)}")
    for route, method in INTERNAL_ROUTES.items():
        target = prefix + route.format(key=key)
        for api_key in (API_KEY, OTHER_API_KEY, ADMIN_API_KEY):
            headers = [("authorization", f"Bearer {api_key}"), bearer]
            code, _, answer = raw(lab_stack, method, target, headers)
            assert code in (404, 405), (target, code, answer)
            assert set(json.loads(answer)["error"]) == {"message", "type", "param", "code"}
    for asked in lab_stack.front.asked[before:]:
        path = asked.partition(" ")[2]
        tidied = re.sub("/+", "/", posixpath.normpath(path.replace("\\", "/")))
        assert not tidied.startswith("/internal"), asked


@pytest.mark.parametrize("api_key", [API_KEY, ADMIN_API_KEY], ids=["client", "admin"])
@pytest.mark.parametrize(
    "query",
    [
        "tenant=other",
        "tenant=acme&tenant=other",
        "%74enant=other",
        "tenant=OTHER",
        "tenant=*",
        "tenant=",
        "tenant=other%00",
    ],
)
def test_no_query_names_another_tenant(lab_stack: Stack, api_key: str, query: str) -> None:
    """A 403 at what knows the parameter; elsewhere it means nothing."""
    headers = {"authorization": f"Bearer {api_key}"}
    refused = lab_stack.client.get(f"/cache/stats?{query}", headers=headers)
    assert (refused.status_code, error_of(refused)["code"]) == (403, "operator_required")
    lab_stack.ask("query", OTHER)
    theirs = lab_stack.hit("query", OTHER)
    body = {"model": MODEL, "messages": [{"role": "user", "content": "query"}]}
    mine = lab_stack.client.post(f"{CHAT}?{query}", json=body, headers=headers)
    assert mine.headers["encore-key"] != theirs.headers["encore-key"]


def test_statistics_are_ones_own(lab_stack: Stack) -> None:
    """Of two tenants each sees its own name and counts."""
    for headers, tenant in ((MINE, "acme"), (OTHER, "other")):
        said = lab_stack.client.get("/cache/stats", headers=headers).json()
        assert said["tenant"] == tenant


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
@pytest.mark.parametrize(
    "policy",
    [Policy(residency="origin-only"), Policy(encrypted=True)],
    ids=["origin-only", "encrypted"],
)
def test_policy_that_comes_during_a_generation_rules_its_entry(
    lab_stack: Stack, policy: Policy, stream: bool
) -> None:
    """Once the edge has it, what was begun for KV in clear is not put there."""
    tenant = f"moving-{policy.residency}-{stream}".lower()
    headers, engine = tenant_with(lab_stack, tenant), lab_stack.engine
    runs = engine.runs
    engine.gate.clear()
    with ThreadPoolExecutor(1) as pool:
        asking = pool.submit(lab_stack.ask, "moving", headers, stream=stream)
        try:
            deadline = time.monotonic() + 10
            while engine.runs == runs:
                assert time.monotonic() < deadline, "the engine was never asked"
                time.sleep(0.02)
            later = lab_stack.revise(tenant, policy=policy)
            assert leave_document(lab_stack.edge, later).is_success
        finally:
            engine.open_gate()
        assert asking.result().status_code == 200
    lab = Lab(edge=lab_stack.edge)
    if policy.encrypted:
        lab_stack.end_minute()
        lab_stack.ask("moving", headers)
        lab_stack.hit("moving", headers)
        (put,) = lab.noted("put entry", f"e:{tenant}:")
        assert '"x":' in str(put["metadata"])
    else:
        lab_stack.ask("moving", headers)
        assert lab.noted("put entry", f"e:{tenant}:") == []
        assert lab.names(f"e:{tenant}:") == []


def test_tenant_that_moves_to_the_origin_is_not_served_from_kv(lab_stack: Stack) -> None:
    """What is in KV already stays unread; that the origin answers is said."""
    headers = tenant_with(lab_stack, "moved")
    lab_stack.ask("moved", headers)
    lab_stack.hit("moved", headers)
    later = lab_stack.revise("moved", policy=Policy(residency="origin-only"))
    assert leave_document(lab_stack.edge, later).is_success
    for stream in (False, True):
        answer = lab_stack.ask("moved", headers, stream=stream)
        assert status(answer).endswith("encore-edge; fwd=bypass; detail=origin-only")
        assert status(answer).startswith("encore-origin; hit")


ONE_PROPERTY = (
    "Analyze this property: 123 Main St, 3BR/2BA, $450k",
    "Analyze this property: 123 Main Street, 3 bedroom 2 bath, $450,000",
    "Please analyze: 123 Main St, 3BR/2BA, asking $450k",
)
OTHER_PROPERTIES = (
    "Analyze this property: 124 Main St, 3BR/2BA, $450k",
    "Analyze this property: 123 N Main St, 3BR/2BA, $450k",
    "Analyze this property: 123 Main Ave, 3BR/2BA, $450k",
    "Analyze this property: 123 Main St Apt 4, 3BR/2BA, $450k",
    "Analyze this property: 123 Main St, 4BR/2BA, $450k",
    "Analyze this property: 123 Main St, 3BR/2.5BA, $450k",
    "Analyze this property: 123 Main St, 3BR/2BA, $455k",
    "Analyze this property: 123 Main St, 3BR/2BA, $450M",
    "Analyze this property: 123 Main St, 3BR/2BA, €450k",
)


def test_property_profile_gives_one_entry(lab_stack: Stack) -> None:
    """Three ways to ask are one question, streamed or not; what differs is another."""
    headers = tenant_with(lab_stack, "estates", normalisation="property")
    first = lab_stack.ask(ONE_PROPERTY[0], headers)
    hit = lab_stack.hit(ONE_PROPERTY[0], headers)
    runs = lab_stack.engine.runs
    for text in ONE_PROPERTY:
        again = lab_stack.ask(text, headers)
        assert is_hit(again)
        assert content(again) == content(hit) == content(first)
        assert is_hit(lab_stack.ask(text, headers, stream=True))
    assert lab_stack.engine.runs == runs
    keys = {hit.headers["encore-key"]}
    for text in OTHER_PROPERTIES:
        other = lab_stack.ask(text, headers)
        assert "encore-edge; fwd=miss" in status(other), text
        keys.add(other.headers["encore-key"])
    assert len(keys) == 1 + len(OTHER_PROPERTIES)


def test_without_a_profile_each_wording_is_its_own(lab_stack: Stack) -> None:
    """The default is exact."""
    keys = {lab_stack.ask(text).headers["encore-key"] for text in ONE_PROPERTY}
    assert len(keys) == len(ONE_PROPERTY)


def test_template_gives_one_entry(lab_stack: Stack) -> None:
    """Of one tenant: slots that mean the same share it, others and what does not match do not."""
    templates = {"listing@1": "Analyze {place:address}, {price:money}"}
    headers = tenant_with(lab_stack, "templated", templates=templates)
    lab_stack.ask("Analyze 123 Main St, $450k", headers)
    hit = lab_stack.hit("Analyze 123 Main St, $450k", headers)
    same = lab_stack.ask("Analyze 123 Main Street, $450,000", headers)
    assert is_hit(same)
    assert content(same) == content(hit)
    for text in (
        "Analyze 123 Main St, $451k",
        "Analyze 124 Main St, $450k",
        "analyze please 123 Main St, $450k",
    ):
        other = lab_stack.ask(text, headers)
        assert other.headers["encore-key"] != hit.headers["encore-key"]
    mine = [
        lab_stack.ask(text).headers["encore-key"]
        for text in ("Analyze 123 Main St, $450k", "Analyze 123 Main Street, $450,000")
    ]
    assert len({*mine, hit.headers["encore-key"]}) == 3


def test_profile_that_changes_changes_keys(lab_stack: Stack) -> None:
    """The first request after the document came goes by the new one, on both sides."""
    headers = tenant_with(lab_stack, "changing")
    lab_stack.ask(ONE_PROPERTY[0], headers)
    lab_stack.hit(ONE_PROPERTY[0], headers)
    later = lab_stack.revise("changing", policy=Policy(normalisation="property"))
    assert leave_document(lab_stack.edge, later).is_success
    miss = lab_stack.ask(ONE_PROPERTY[0], headers)
    assert status(miss).endswith("encore-edge; fwd=miss; stored")
    hit = lab_stack.hit(ONE_PROPERTY[1], headers)
    assert content(hit) == content(miss)
