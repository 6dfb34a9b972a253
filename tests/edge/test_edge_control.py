"""Control documents at the edge: how it gets them, what it does without, and what they decide."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from shared.control_document import decode, encode, revised
from shared.keys import edge_bearer, key_id, key_ring, make_api_key
from shared.wire import CONTROL_PATH, EDGE_AUTHORIZATION
from tests.edge.lab import Lab
from tests.edge.local_edge import StartEdge
from tests.edge.stack import (
    ADMIN_API_KEY,
    API_KEY,
    CHAT,
    KEYS,
    OTHER_API_KEY,
    Stack,
    client_of,
    content,
    error_of,
    is_hit,
    leave_document,
    stacked,
    status,
    until,
    variables,
)
from tests.support.control import document_of

MEMO_S = 1
NEVER_LISTED = make_api_key(KEYS, "acme", bytes([9] * 15))
_BEARER = {EDGE_AUTHORIZATION: f"Bearer {edge_bearer(KEYS)}"}


@pytest.fixture(scope="module")
def forgetful(start_edge: StartEdge, lab_config: Path) -> Iterator[Stack]:
    """A stack whose edge looks at KV again after a second, and whose KV can be looked at."""
    with stacked(start_edge, config=lab_config, ENCORE_CONTROL_MEMO_S=str(MEMO_S)) as stack:
        yield stack


@pytest.fixture(scope="module")
def mindful(start_edge: StartEdge, lab_config: Path) -> Iterator[Stack]:
    """The same with the memo as long as it is by default."""
    with stacked(start_edge, config=lab_config) as stack:
        yield stack


def end_memo() -> None:
    """Wait until the forgetful edge looks at KV again."""
    time.sleep(MEMO_S + 0.05)


def tenant_with_key(stack: Stack, tenant: str) -> dict[str, str]:
    """A tenant that only the origin knows; the header of its client."""
    api_key = make_api_key(KEYS, tenant, bytes(15))
    document = document_of(api_key)
    stack.control._documents[tenant] = (document.revision, encode(document))
    return {"authorization": f"Bearer {api_key}"}


def test_without_a_document_the_origin_answers(forgetful: Stack) -> None:
    """Uncached, and said so; the document is fetched behind the answer and put into KV."""
    lab = Lab(edge=forgetful.edge)
    newcomer = tenant_with_key(forgetful, "newcomer")
    first = forgetful.ask("hello", newcomer)
    assert status(first) == (
        "encore-origin; fwd=miss; stored, encore-edge; fwd=bypass; detail=no-control"
    )
    text = lab.wait_for("ctl:newcomer")
    assert decode(text, "newcomer") == forgetful.document("newcomer")
    hit = forgetful.hit("hello", newcomer)
    assert content(hit) == content(first)


def test_streamed_without_a_document_is_answered(forgetful: Stack) -> None:
    """The stream passes through; the next request may be cached."""
    streaming = tenant_with_key(forgetful, "streaming")
    first = forgetful.ask("hello", streaming, stream=True)
    assert status(first).endswith("encore-edge; fwd=bypass; detail=no-control")
    assert first.text.endswith("data: [DONE]\n\n")
    Lab(edge=forgetful.edge).wait_for("ctl:streaming")
    forgetful.hit("hello", streaming)


def test_without_a_document_nothing_is_served_from_kv(forgetful: Stack) -> None:
    """Though the entry is there: nobody can say whether it has been purged."""
    lab = Lab(edge=forgetful.edge)
    lost = tenant_with_key(forgetful, "lost")
    forgetful.ask("hello", lost)
    forgetful.hit("hello", lost)
    (name,) = lab.names("e:lost:")
    value, metadata = lab.value(name) or (b"", "")
    absent = tenant_with_key(forgetful, "absent")
    lab.put("e:absent:" + name.rpartition(":")[2], value, metadata)
    assert "detail=no-control" in status(forgetful.ask("hello", absent))


def test_document_survives_a_restart(start_edge: StartEdge) -> None:
    """A new isolate finds it in KV: its first request is a hit."""
    with stacked(start_edge) as stack:
        stack.ask("kept")
        stack.hit("kept")
        stack.edge.stop()
        edge = start_edge(variables=variables(stack.origin_url), persist=stack.edge.persist)
        with client_of(edge) as client:
            assert is_hit(replace(stack, edge=edge, client=client).ask("kept"))
        edge.stop()


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {EDGE_AUTHORIZATION: "Bearer x"},
        {EDGE_AUTHORIZATION: f"Bearer {edge_bearer(key_ring('x' * 32))}"},
        {EDGE_AUTHORIZATION: f"Bearer {ADMIN_API_KEY}"},
        {"authorization": f"Bearer {edge_bearer(KEYS)}"},
        {"authorization": f"Bearer {ADMIN_API_KEY}"},
    ],
    ids=["none", "junk", "another secret's", "an API key", "wrong header", "an admin"],
)
def test_only_the_origin_leaves_documents(mindful: Stack, headers: dict[str, str]) -> None:
    """To anybody else the route does not exist."""
    before = Lab(edge=mindful.edge).value("ctl:acme")
    document = encode(revised(mindful.document(), 2**52))
    response = httpx.put(
        mindful.edge.url + CONTROL_PATH + "acme", content=document, headers=headers
    )
    assert (response.status_code, error_of(response)["code"]) == (404, "unknown_url")
    assert Lab(edge=mindful.edge).value("ctl:acme") == before


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE", "PATCH"])
def test_documents_are_not_handed_out(mindful: Stack, method: str) -> None:
    """Not by the edge, whoever asks."""
    response = httpx.request(method, mindful.edge.url + CONTROL_PATH + "acme", headers=_BEARER)
    assert (response.status_code, error_of(response)["code"]) == (404, "unknown_url")


_JUNK: Mapping[str, tuple[str, bytes]] = {
    "nothing": ("acme", b""),
    "not JSON": ("acme", b"\xff\xfe{"),
    "not a document": ("acme", b"{}"),
    "another tenant's": ("acme", encode(document_of(OTHER_API_KEY))),
    "no tenant": ("", encode(document_of(API_KEY))),
    "an illegal tenant": ("Acme:x", encode(document_of(API_KEY))),
}


@pytest.mark.parametrize("case", _JUNK)
def test_what_is_no_document_is_refused(mindful: Stack, case: str) -> None:
    """With a 400; what was there stays."""
    lab = Lab(edge=mindful.edge)
    before = lab.names("ctl:"), lab.value("ctl:acme")
    tenant, text = _JUNK[case]
    response = httpx.put(mindful.edge.url + CONTROL_PATH + tenant, content=text, headers=_BEARER)
    assert (response.status_code, error_of(response)["code"]) == (400, "invalid_document")
    assert (lab.names("ctl:"), lab.value("ctl:acme")) == before


def test_earlier_document_replaces_no_later_one(mindful: Stack) -> None:
    """Pushes may overtake each other; the answer tells which revision rules."""
    early = document_of(make_api_key(KEYS, "ordered", bytes(15)))
    late = revised(early, early.revision + 5)
    assert leave_document(mindful.edge, late).json() == {"revision": late.revision}
    assert leave_document(mindful.edge, early).json() == {"revision": late.revision}
    text, _ = Lab(edge=mindful.edge).value("ctl:ordered") or (b"", "")
    assert decode(text, "ordered") == late


def test_earlier_document_replaces_no_later_one_after_a_restart(start_edge: StartEdge) -> None:
    """The isolate that knew the later one may be gone: KV still has it."""
    early = document_of(API_KEY)
    late = revised(early, early.revision + 5)
    given = variables("http://127.0.0.1:9")
    edge = start_edge(variables=given)
    assert leave_document(edge, late).is_success
    edge.stop()
    edge = start_edge(variables=given, persist=edge.persist)
    assert leave_document(edge, early).json() == {"revision": late.revision}
    edge.stop()


def test_push_that_kv_does_not_take_is_a_503(mindful: Stack) -> None:
    """So that the origin tries again; the same document is then taken."""
    lab = Lab(edge=mindful.edge)
    document = document_of(make_api_key(KEYS, "refused", bytes(15)))
    with lab.failing("put control"):
        response = leave_document(mindful.edge, document)
        assert response.status_code == 503
        assert response.headers["retry-after"] == "1"
        assert error_of(response)["type"] == "server_error"
    assert lab.value("ctl:refused") is None
    assert leave_document(mindful.edge, document).is_success
    assert lab.value("ctl:refused") is not None


def test_undecodable_document_is_as_none(forgetful: Stack) -> None:
    """What is answered is the origin's, uncached, until a good one is there again."""
    lab = Lab(edge=forgetful.edge)
    broken = tenant_with_key(forgetful, "broken")
    lab.put("ctl:broken", b'{"v":99}')
    assert "detail=no-control" in status(forgetful.ask("hello", broken))
    forgetful.edge.wait_for_log("control document of broken:")
    forgetful.hit("hello", broken)
    text, _ = lab.value("ctl:broken") or (b"", "")
    assert decode(text, "broken") == forgetful.document("broken")


def test_memo_goes_on_while_kv_cannot_be_read(forgetful: Stack) -> None:
    """What was known a while ago still decides: an outage of KV is not an outage of hits."""
    forgetful.ask("outage")
    forgetful.hit("outage")
    end_memo()
    with Lab(edge=forgetful.edge).failing("get control"):
        assert is_hit(forgetful.ask("outage"))
    forgetful.edge.wait_for_log("get control failed")


def test_without_memo_and_kv_the_origin_answers(start_edge: StartEdge, lab_config: Path) -> None:
    """Uncached; and with the origin's document the edge goes on."""
    with stacked(start_edge, config=lab_config, informed=False) as stack:
        lab = Lab(edge=stack.edge)
        with lab.failing("get control", "put control"):
            assert "detail=no-control" in status(stack.ask("outage"))
            stack.hit("outage")
        assert lab.value("ctl:acme") is None


def test_document_is_read_once_a_memo(mindful: Stack, forgetful: Stack) -> None:
    """However many hits there are, one read of the document serves them until the memo is over."""
    lab = Lab(edge=mindful.edge)
    mindful.ask("memo")
    mindful.hit("memo")
    before = lab.calls("get control"), lab.calls("get entry")
    for _ in range(20):
        assert is_hit(mindful.ask("memo"))
    assert (lab.calls("get control"), lab.calls("get entry") - 20) == before

    lab = Lab(edge=forgetful.edge)
    forgetful.ask("memo")
    forgetful.hit("memo")
    end_memo()
    reads = lab.calls("get control")
    assert is_hit(forgetful.ask("memo"))
    assert lab.calls("get control") == reads + 1


def test_revoked_key_gets_nothing_from_kv_after_the_memo(forgetful: Stack) -> None:
    """A 401 at each request, for what others still hit, though this edge got no push itself."""
    api_key = make_api_key(KEYS, "acme", bytes([2] * 15))
    revoked = {"authorization": f"Bearer {api_key}"}
    before = forgetful.document()
    granted = forgetful.revise(keys={**before.keys, **document_of(api_key).keys})
    leave_document(forgetful.edge, granted)
    forgetful.ask("revoked", revoked)
    forgetful.hit("revoked", revoked)
    later = forgetful.revise(keys=before.keys)
    # As another isolate would leave it: this one still goes by what it knows.
    Lab(edge=forgetful.edge).put("ctl:acme", encode(later))
    end_memo()
    for headers in (revoked, revoked | {"cache-control": "max-stale"}):
        refused = forgetful.ask("revoked", headers)
        assert (refused.status_code, error_of(refused)["code"]) == (401, "invalid_api_key")
    assert is_hit(forgetful.ask("revoked"))


def test_revoked_key_gets_nothing_at_once_where_the_document_was_left(mindful: Stack) -> None:
    """The push does not wait for the memo to be over."""
    api_key = make_api_key(KEYS, "acme", bytes([3] * 15))
    pushed = {"authorization": f"Bearer {api_key}"}
    before = mindful.document()
    leave_document(mindful.edge, mindful.revise(keys={**before.keys, **document_of(api_key).keys}))
    mindful.ask("pushed", pushed)
    mindful.hit("pushed", pushed)
    leave_document(mindful.edge, mindful.revise(keys=before.keys))
    assert mindful.ask("pushed", pushed).status_code == 401
    assert is_hit(mindful.ask("pushed"))


def test_revocation_is_learned_from_an_answer(mindful: Stack) -> None:
    """Without a push: whatever the origin answers this tenant tells of the later document."""
    api_key = make_api_key(KEYS, "tolder", bytes(15))
    stays = make_api_key(KEYS, "tolder", bytes([1] * 15))
    document = document_of(api_key, stays)
    mindful.control._documents["tolder"] = (document.revision, encode(document))
    leave_document(mindful.edge, document)
    told = {"authorization": f"Bearer {api_key}"}
    mindful.ask("told", told)
    mindful.hit("told", told)
    mindful.revise("tolder", keys=document_of(stays).keys)
    mindful.ask("something else", {"authorization": f"Bearer {stays}"})
    until(lambda: mindful.ask("told", told), lambda response: response.status_code == 401)
    assert is_hit(mindful.ask("told", {"authorization": f"Bearer {stays}"}))


def test_key_made_after_the_document_works_at_once(mindful: Stack) -> None:
    """The origin knows it; hits begin when the document is here."""
    api_key = make_api_key(KEYS, "newer", bytes(15))
    added = make_api_key(KEYS, "newer", bytes([1] * 15))
    document = document_of(api_key)
    mindful.control._documents["newer"] = (document.revision, encode(document))
    leave_document(mindful.edge, document)
    old, new = ({"authorization": f"Bearer {key}"} for key in (api_key, added))
    mindful.ask("newer", old)
    mindful.hit("newer", old)
    mindful.revise("newer", keys=document_of(api_key, added).keys)
    first = mindful.ask("newer", new)
    assert content(first).startswith("Answer")
    assert status(first).endswith("encore-edge; fwd=bypass; detail=key-not-listed")
    mindful.hit("newer", new)


def test_key_that_was_never_listed_is_refused(mindful: Stack) -> None:
    """That its check is right does not make it one that exists; `only-if-cached` neither."""
    mindful.ask("unlisted")
    mindful.hit("unlisted")
    headers = {"authorization": f"Bearer {NEVER_LISTED}"}
    for more in ({}, {"cache-control": "only-if-cached"}):
        refused = mindful.ask("unlisted", headers | more)
        assert (refused.status_code, error_of(refused)["code"]) == (401, "invalid_api_key")
    assert mindful.client.get("/v1/models", headers=headers).status_code == 401
    assert mindful.client.get("/cache/stats", headers=headers).status_code == 401


@pytest.mark.parametrize(
    ("api_key", "code"), [(API_KEY, 403), (ADMIN_API_KEY, 200), (NEVER_LISTED, 401)]
)
def test_role_is_the_clients_own(mindful: Stack, api_key: str, code: int) -> None:
    """What the edge passes on it does not raise."""
    response = mindful.client.post(
        "/cache/purge",
        json={"tags": ["none-such"]},
        headers={"authorization": f"Bearer {api_key}"},
    )
    assert response.status_code == code


@pytest.mark.parametrize("path", ["/cache/purge", "/cache/stats", CHAT, "/v1/models"])
def test_bearer_of_the_edge_opens_nothing(mindful: Stack, path: str) -> None:
    """It says that the edge asks, not for whom."""
    method = "POST" if path in ("/cache/purge", CHAT) else "GET"
    for name in ("authorization", EDGE_AUTHORIZATION):
        headers = {name: f"Bearer {edge_bearer(KEYS)}"}
        for url in (mindful.edge.url, mindful.origin_url):
            response = httpx.request(method, url + path, headers=headers, json={})
            assert response.status_code == 401
            assert error_of(response)["code"] in ("missing_api_key", "invalid_api_key")


def test_role_taken_away_holds_at_once(mindful: Stack) -> None:
    """The origin decides by its own document, whatever the edge remembers."""
    api_key = make_api_key(KEYS, "demoted", bytes(15))
    document = document_of(admins=[api_key])
    mindful.control._documents["demoted"] = (document.revision, encode(document))
    leave_document(mindful.edge, document)
    demoted = {"authorization": f"Bearer {api_key}"}
    purge = {"everything": True}
    assert mindful.client.post("/cache/purge", json=purge, headers=demoted).status_code == 200
    client = replace(document.keys[key_id(api_key)], role="client")
    mindful.revise("demoted", keys={client.id: client})
    refused = mindful.client.post("/cache/purge", json=purge, headers=demoted)
    assert (refused.status_code, error_of(refused)["code"]) == (403, "admin_required")
