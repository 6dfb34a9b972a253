"""Purges as the edge sees them: from either side, by what is named, and during a generation."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from origin.app import create_app
from origin.embedded_redis import embedded_redis
from origin.settings import Settings
from origin.stores.redis_control import RedisControlStore
from origin.stores.redis_store import RedisStore
from shared.control_document import canonical_for, decode, encode
from shared.controls import Controls
from shared.keys import cache_key, key_ring, make_api_key, short_key
from shared.requests import Endpoint
from tests.edge.lab import Lab
from tests.edge.local_edge import StartEdge
from tests.edge.stack import (
    ADMIN_API_KEY,
    API_KEY,
    CHAT,
    KEYS,
    OTHER_API_KEY,
    SECRET,
    Stack,
    answering,
    client_of,
    content,
    documents_at_edge,
    error_of,
    is_hit,
    leave_document,
    origin_settings,
    stacked,
    status,
    until,
    variables,
)
from tests.support.commands import encore
from tests.support.control import control_store, document_of
from tests.support.engines import MODEL, ScriptedEngine
from tests.support.serving import serving

MAX_PULLS = 20
MEMO_S = 1
OLD_SECRET = "the secret that was there before it"
OPERATOR_API_KEY = make_api_key(KEYS, "operator", bytes(15))
OTHER = {"authorization": f"Bearer {OTHER_API_KEY}"}
TAGGED = {"encore-tags": "listing-7, other-tag"}
Body = dict[str, Any]

KINDS: dict[str, Callable[[httpx.Response], Body]] = {
    "key": lambda miss: {"keys": [miss.headers["encore-key"]]},
    "tag": lambda _: {"tags": ["listing-7"]},
    "model": lambda _: {"models": [MODEL]},
    "tenant": lambda _: {"everything": True},
}
NAMES_ANOTHER: dict[str, Body] = {
    "key": {"keys": ["0" * 16]},
    "tag": {"tags": ["listing-8", "listing-77", "Listing-7"]},
    "model": {"models": [MODEL + "-2", MODEL[:-1]]},
}
STREAMS = pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])


@pytest.fixture(scope="module")
def forgetful(start_edge: StartEdge, lab_config: Path) -> Iterator[Stack]:
    """A stack whose edge looks at KV again after a second; its origin pushes nothing."""
    control = control_store(API_KEY, OTHER_API_KEY, admins=[ADMIN_API_KEY, OPERATOR_API_KEY])
    with stacked(
        start_edge, config=lab_config, control=control, ENCORE_CONTROL_MEMO_S=str(MEMO_S)
    ) as stack:
        yield stack


@pytest.fixture(scope="module")
def told(start_edge: StartEdge, lab_config: Path) -> Iterator[Stack]:
    """A stack whose origin pushes each change to the edge, which remembers documents for long."""
    control = control_store(API_KEY, OTHER_API_KEY, admins=[ADMIN_API_KEY, OPERATOR_API_KEY])
    with stacked(start_edge, config=lab_config, control=control, pushing=True) as stack:
        yield stack


@pytest.fixture(params=["forgetful", "told"])
def either(request: pytest.FixtureRequest) -> Stack:
    """Each of them."""
    stack: Stack = request.getfixturevalue(request.param)
    return stack


def purge(stack: Stack, body: Body, api_key: str = ADMIN_API_KEY) -> httpx.Response:
    """Purge by way of the edge."""
    headers = {"authorization": f"Bearer {api_key}"}
    return stack.client.post("/cache/purge", json=body, headers=headers)


def purge_at_origin(stack: Stack, body: Body, api_key: str = ADMIN_API_KEY) -> Body:
    """Purge past the edge; what the origin says."""
    headers = {"authorization": f"Bearer {api_key}"}
    response = httpx.post(stack.origin_url + "/cache/purge", json=body, headers=headers)
    assert response.status_code == 200, response.text
    said: Body = response.json()
    return said


def end_memo() -> None:
    """Wait until the forgetful edge looks at KV again."""
    time.sleep(MEMO_S + 0.05)


def fill(stack: Stack, text: str, headers: dict[str, str] | None = None) -> httpx.Response:
    """Let KV have the answer; the hit."""
    stack.end_minute()
    stack.ask(text, headers)
    return stack.hit(text, headers)


def check_dead(stack: Stack, text: str, old: httpx.Response) -> None:
    """The entry is a miss that says so, and the new answer stands in its place."""
    stack.end_minute()
    miss = stack.ask(text)
    assert status(miss).endswith("encore-edge; fwd=miss; stored; detail=purged")
    assert content(miss) != content(old)
    assert content(stack.hit(text)) == content(miss)


@pytest.mark.parametrize("kind", KINDS)
def test_purged_at_the_edge_is_a_miss_at_once(either: Stack, kind: str) -> None:
    """However long the memo; what was asked since is hit; other tenants keep theirs."""
    text = f"purged by {kind}"
    theirs = fill(either, text, OTHER | TAGGED)
    old = fill(either, text, TAGGED)
    purged = purge(either, KINDS[kind](old))
    assert purged.status_code == 200
    check_dead(either, text, old)
    kept = either.ask(text, OTHER)
    assert is_hit(kept)
    assert content(kept) == content(theirs)


@pytest.mark.parametrize("kind", KINDS)
def test_purged_at_the_origin_is_a_miss_once_pushed(told: Stack, kind: str) -> None:
    """The origin says that the edge has acknowledged it: at once then."""
    text = f"pushed by {kind}"
    theirs = fill(told, text, OTHER | TAGGED)
    old = fill(told, text, TAGGED)
    assert purge_at_origin(told, KINDS[kind](old))["edge"] == "acknowledged"
    check_dead(told, text, old)
    kept = told.ask(text, OTHER)
    assert is_hit(kept)
    assert content(kept) == content(theirs)


@pytest.mark.parametrize("kind", ["tag", "tenant"])
def test_purge_holds_in_another_isolate_after_the_memo(forgetful: Stack, kind: str) -> None:
    """It finds the document in KV, where whoever was told has put it; nobody asks the origin."""
    text = f"elsewhere by {kind}"
    old = fill(forgetful, text, TAGGED)
    assert purge_at_origin(forgetful, KINDS[kind](old))["edge"] == "not configured"
    Lab(edge=forgetful.edge).put("ctl:acme", encode(forgetful.document()))
    end_memo()
    check_dead(forgetful, text, old)


@pytest.mark.parametrize("kind", NAMES_ANOTHER)
def test_what_is_not_named_stays(told: Stack, kind: str) -> None:
    """Names that look alike are other names."""
    text = f"not named by {kind}"
    old = fill(told, text, TAGGED)
    assert purge(told, NAMES_ANOTHER[kind]).status_code == 200
    kept = told.ask(text)
    assert is_hit(kept)
    assert content(kept) == content(old)


@STREAMS
def test_dead_is_dead_for_every_form(told: Stack, stream: bool) -> None:
    """Also for who accepts what is stale, and for who wants nothing but the cache."""
    text = f"every form {stream}"
    old = fill(told, text)
    purge(told, {"everything": True})
    for directive in ("only-if-cached", "only-if-cached, max-stale"):
        refused = told.ask(text, {"cache-control": directive}, stream=stream)
        assert (refused.status_code, error_of(refused)["code"]) == (504, "only_if_cached")
    told.end_minute()
    miss = told.ask(text, {"cache-control": "max-stale"}, stream=stream)
    assert status(miss).endswith("detail=purged")
    assert content(old) not in miss.text


def test_dead_is_dead_when_the_origin_fails(told: Stack) -> None:
    """`stale-if-error` does not raise it."""
    fill(told, "no way back")
    purge(told, {"everything": True})
    told.front.instead = answering(503, "application/json", b"{}")
    try:
        failed = told.ask("no way back", {"cache-control": "stale-if-error=600"})
    finally:
        told.front.instead = None
    assert failed.status_code == 503


@pytest.mark.parametrize(
    ("api_key", "body", "code"),
    [
        (API_KEY, {"everything": True}, "admin_required"),
        (API_KEY, {"everything": True, "tenant": "other"}, "admin_required"),
        (ADMIN_API_KEY, {"everything": True, "tenant": "other"}, "operator_required"),
        (ADMIN_API_KEY, {"everything": True, "tenant": "*"}, "operator_required"),
    ],
    ids=["a client", "a client, another tenant", "an admin, another tenant", "an admin, all"],
)
def test_who_may_not_purge_is_refused(told: Stack, api_key: str, body: Body, code: str) -> None:
    """With a 403 in OpenAI's shape; nothing dies of it."""
    fill(told, "refused")
    fill(told, "refused", OTHER)
    refused = purge(told, body, api_key)
    error = error_of(refused)
    assert (refused.status_code, error["code"]) == (403, code)
    assert error["type"] == "invalid_request_error"
    assert is_hit(told.ask("refused"))
    assert is_hit(told.ask("refused", OTHER))


def test_operator_purges_one_tenant(either: Stack) -> None:
    """The one named, and at once at the edge that was asked."""
    old = fill(either, "by the operator")
    fill(either, "by the operator", OTHER)
    body = {"everything": True, "tenant": "acme"}
    assert purge(either, body, OPERATOR_API_KEY).status_code == 200
    check_dead(either, "by the operator", old)
    assert is_hit(either.ask("by the operator", OTHER))


def test_operator_purges_all_tenants(either: Stack) -> None:
    """At once at the edge that was asked."""
    old = fill(either, "all tenants")
    theirs = fill(either, "all tenants", OTHER)
    body = {"everything": True, "tenant": "*"}
    assert purge(either, body, OPERATOR_API_KEY).status_code == 200
    check_dead(either, "all tenants", old)
    either.end_minute()
    miss = either.ask("all tenants", OTHER)
    assert status(miss).endswith("detail=purged")
    assert content(miss) != content(theirs)


def test_operator_purges_more_tenants_than_are_fetched_at_once(forgetful: Stack) -> None:
    """Whose documents are not here yet, theirs go uncached until they are."""
    for number in range(MAX_PULLS + 1):
        api_key = make_api_key(KEYS, f"many-{number}", bytes(15))
        document = document_of(api_key)
        forgetful.control._documents[document.tenant] = (document.revision, encode(document))
        assert leave_document(forgetful.edge, document).is_success
    last = {"authorization": f"Bearer {api_key}"}
    old = fill(forgetful, "many tenants", last)
    body = {"everything": True, "tenant": "*"}
    assert purge(forgetful, body, OPERATOR_API_KEY).status_code == 200
    forgetful.end_minute()
    new = forgetful.ask("many tenants", last)
    assert "detail=no-control" in status(new)
    assert content(new) != content(old)
    assert content(forgetful.hit("many tenants", last)) == content(new)


def test_purge_that_the_origin_does_not_take_is_never_ok(told: Stack) -> None:
    """It is an error in OpenAI's shape, and the entry stays."""
    fill(told, "not taken")
    try:
        for code, media_type in ((503, "application/json"), (502, "text/html"), (302, "text/html")):
            body = b'{"error":{"message":"no","type":"server_error","param":null,"code":null}}'
            told.front.instead = answering(code, media_type, body)
            failed = purge(told, {"everything": True})
            assert failed.status_code == (503 if code == 503 else 502)
            assert error_of(failed)["type"].endswith("_error")
    finally:
        told.front.instead = None
    assert is_hit(told.ask("not taken"))


def test_purge_holds_here_though_kv_does_not_take_it(forgetful: Stack) -> None:
    """What this isolate knows it goes by, also when it looks at KV's older document again."""
    old = fill(forgetful, "kv refuses")
    lab = Lab(edge=forgetful.edge)
    with lab.failing("put control"):
        assert purge(forgetful, {"everything": True}).status_code == 200
    text, _ = lab.value("ctl:acme") or (b"", "")
    assert decode(text, "acme").revision < forgetful.document().revision
    end_memo()
    check_dead(forgetful, "kv refuses", old)


def test_purge_that_kv_refuses_once_is_in_kv_when_it_is_answered(forgetful: Stack) -> None:
    """KV takes one write a second of a name: two purges at once are two."""
    lab = Lab(edge=forgetful.edge)
    lab.refuse("put control", 1)
    assert purge(forgetful, {"tags": ["refused"]}).status_code == 200
    text, _ = lab.value("ctl:acme") or (b"", "")
    assert decode(text, "acme") == forgetful.document()


def test_later_purge_in_kv_is_not_undone_by_a_write_tried_again(forgetful: Stack) -> None:
    """What another isolate has put there meanwhile stays."""
    lab = Lab(edge=forgetful.edge)
    lab.forget()
    lab.refuse("put control", 1)
    with ThreadPoolExecutor(1) as pool:
        purging = pool.submit(purge, forgetful, {"tags": ["earlier"]})
        deadline = time.monotonic() + 10
        while lab.calls("put control") == 0:
            assert time.monotonic() < deadline, "KV was never written to"
            time.sleep(0.02)
        purge_at_origin(forgetful, {"tags": ["later"]})
        later = forgetful.document()
        lab.put("ctl:acme", encode(later))  # as another isolate would
        assert purging.result().status_code == 200
    assert lab.calls("put control") == 2
    text, _ = lab.value("ctl:acme") or (b"", "")
    assert decode(text, "acme") == later


def test_another_location_learns_from_any_answer(forgetful: Stack, start_edge: StartEdge) -> None:
    """With a KV of its own: whatever the origin answers it there tells of the purge."""
    there = start_edge(variables=variables(forgetful.origin_url))
    documents_at_edge(there, forgetful.control)
    with client_of(there) as client:
        remote = replace(forgetful, edge=there, client=client)
        fill(forgetful, "two locations")
        forgetful.end_minute()
        until(lambda: remote.ask("two locations"), is_hit)
        assert purge(forgetful, {"everything": True}).status_code == 200
        remote.ask("something else")
        miss = until(lambda: remote.ask("two locations"), lambda response: not is_hit(response))
        assert status(miss).endswith("detail=purged")
    there.stop()


@STREAMS
@pytest.mark.parametrize("kind", KINDS)
def test_purge_during_a_generation_wins(told: Stack, stream: bool, kind: str) -> None:
    """Who had asked is answered; nobody after the purge is, and KV does not get the answer."""
    text, engine = f"racing {kind} {stream}", told.engine
    lab = Lab(edge=told.edge)
    key = told.ask(text, {"cache-control": "no-store"}).headers["encore-key"]
    engine.gate.clear()
    writes = lab.calls("put entry")
    runs = engine.runs
    with ThreadPoolExecutor(1) as pool:
        asking = pool.submit(told.ask, text, TAGGED, stream=stream)
        try:
            deadline = time.monotonic() + 10
            while engine.runs == runs:
                assert time.monotonic() < deadline, "the engine was never asked"
                time.sleep(0.02)
            body = {"keys": [key]} if kind == "key" else KINDS[kind](httpx.Response(200))
            assert purge(told, body).status_code == 200
        finally:
            engine.open_gate()
        first = asking.result()
    assert first.status_code == 200
    dead = f"Answer {runs + 1}"
    assert dead in "".join(said(first))
    told.end_minute()
    new = told.ask(text)
    assert content(new) != dead
    hit = told.hit(text)
    assert content(hit) == content(new)
    assert dead not in "".join(said(told.hit(text, stream=True)))
    assert lab.calls("put entry") == writes + 1


def said(response: httpx.Response) -> Iterator[str]:
    """The pieces of text in an answer."""
    if response.headers["content-type"].startswith("application/json"):
        yield content(response)
        return
    for event in response.text.split("\n\n"):
        data = event.removeprefix("data: ")
        if data and data != "[DONE]":
            for choice in httpx.Response(200, content=data).json()["choices"]:
                yield choice["delta"].get("content") or ""


def test_purge_by_either_key_while_the_secret_is_replaced(start_edge: StartEdge) -> None:
    """What a client was told before, as Encore-Key, still names the entry."""
    old_ring = key_ring(OLD_SECRET)
    settings = Settings(secret=SecretStr(SECRET), previous_secret=SecretStr(OLD_SECRET))
    with stacked(start_edge, settings=settings, ENCORE_PREVIOUS_SECRET=OLD_SECRET) as stack:
        for text, is_old in (("by the old key", True), ("by the new key", False)):
            old = fill(stack, text)
            fields = {"model": MODEL, "messages": [{"role": "user", "content": text}]}
            form = canonical_for(
                stack.document(), endpoint=Endpoint.CHAT, controls=Controls(), fields=fields
            )
            key = cache_key(old_ring if is_old else KEYS, form.canonical)
            assert (short_key(key) == old.headers["encore-key"]) is not is_old
            assert purge(stack, {"keys": [key]}).status_code == 200
            check_dead(stack, text, old)
        assert is_hit(stack.ask(text))


def test_purge_by_command_holds_at_the_edge(start_edge: StartEdge, tmp_path: Path) -> None:
    """`encore purge` on a real Redis tells the edge of ENCORE_EDGE_URL itself."""
    engine = ScriptedEngine()
    with embedded_redis(tmp_path / "redis") as redis_url:
        given = {"ENCORE_SECRET": SECRET, "REDIS_URL": redis_url}
        app = create_app(
            origin_settings(),
            engine=engine,
            store=RedisStore.from_url(redis_url, prefix="encore"),
            control_store=RedisControlStore.from_url(redis_url, prefix="encore"),
        )
        with serving(app, lifespan=True) as url:
            edge = start_edge(variables=variables(url))
            given["ENCORE_EDGE_URL"] = edge.url
            created = encore(tmp_path, "keys", "create", "acme", **given)
            assert created.returncode == 0, created.stderr
            body = {"model": MODEL, "messages": [{"role": "user", "content": "by command"}]}

            with client_of(edge, created.stdout.split()[-1]) as client:

                def ask() -> httpx.Response:
                    return client.post(CHAT, json=body, headers={"encore-tags": "listing-7"})

                old = until(ask, is_hit)
                result = encore(tmp_path, "purge", "acme", "--tag", "listing-7", **given)
                assert result.returncode == 0, result.stderr
                miss = ask()
            edge.stop()
    assert status(miss).endswith("detail=purged")
    assert content(miss) != content(old)
