"""What the Worker does when the origin, KV or its own settings fail it."""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from shared.envelope import MEDIA_TYPE
from shared.errors import UpstreamError
from shared.keys import key_ring, make_api_key
from tests.edge.lab import Lab
from tests.edge.local_edge import StartEdge
from tests.edge.projects import Projects
from tests.edge.stack import (
    API_KEY,
    CHAT,
    SECRET,
    Front,
    Stack,
    answering,
    client_of,
    content,
    error_of,
    is_hit,
    origin_settings,
    stacked,
    status,
    until,
    variables,
)
from tests.support.engines import MODEL

TIMEOUT_S = 1
_PROMPT = "what nobody but the asker may read"
_STRICT = {"cache-control": "max-age=0"}
_JSON = "application/json"
_HTML = "text/html"


@pytest.fixture(scope="module")
def impatient(start_edge: StartEdge) -> Iterator[Stack]:
    """A stack whose edge waits a second for its origin, and may serve stale on its failure."""
    settings = origin_settings(stale_if_error_s=600)
    with stacked(start_edge, settings=settings, ENCORE_ORIGIN_TIMEOUT_S=f"{TIMEOUT_S}") as stack:
        yield stack


@pytest.fixture
def front(impatient: Stack) -> Iterator[Front]:
    """What stands before that origin; it is itself again after the test."""
    yield impatient.front
    impatient.front.instead = None


UNREADABLE = {
    "a load balancer's page": (502, _HTML, b"<h1>Bad gateway</h1>"),
    "a redirect": (302, _JSON, b"{}"),
    "a web site": (200, _HTML, b"<h1>Welcome</h1>"),
    "no type": (200, None, b"hello"),
    "nothing": (204, None, b""),
    "a broken entry": (200, MEDIA_TYPE, b"ENC"),
}


@pytest.mark.parametrize("case", UNREADABLE)
def test_what_is_no_origins_answer_is_a_502(impatient: Stack, front: Front, case: str) -> None:
    """It is not passed on, and stale-if-error may answer instead."""
    impatient.ask("unreadable")
    impatient.hit("unreadable")
    front.instead = answering(*UNREADABLE[case])
    refused = impatient.ask(_PROMPT)
    assert (refused.status_code, error_of(refused)["code"]) == (502, "origin_unreadable")
    stale = impatient.ask("unreadable", _STRICT)
    assert content(stale).startswith("Answer")
    assert status(stale) == (
        f"encore-edge; fwd=request; fwd-status={UNREADABLE[case][0]}; detail=stale-if-error"
    )


@pytest.mark.parametrize("content_type", [_JSON, MEDIA_TYPE])
def test_answer_that_stalls_is_a_504(impatient: Stack, front: Front, content_type: str) -> None:
    """The deadline holds for the whole answer, not for its beginning; the origin is let go."""
    left = threading.Event()
    front.instead = answering(200, content_type, b"{", left=left)
    stalled = impatient.ask(_PROMPT)
    assert (stalled.status_code, error_of(stalled)["code"]) == (504, "origin_timeout")
    assert left.wait(10)


def test_answer_that_is_not_read_is_let_go(impatient: Stack, front: Front) -> None:
    """Neither a page nor the stream of a failure keeps its connection."""
    impatient.ask("let go")
    impatient.hit("let go")
    for content_type, detail in [(_HTML, ""), ("text/event-stream", "stale-if-error")]:
        left = threading.Event()
        front.instead = answering(503, content_type, b"endless", left=left)
        assert detail in status(impatient.ask("let go", _STRICT))
        assert left.wait(10)


def test_failure_without_an_answer_has_no_status(impatient: Stack, front: Front) -> None:
    """`fwd-status` is what was received (RFC 9211 section 2.3): here nothing was."""
    impatient.ask("silence")
    impatient.hit("silence")
    front.instead = answering(None, None, left=threading.Event())
    stale = impatient.ask("silence", _STRICT)
    assert status(stale) == "encore-edge; fwd=request; detail=stale-if-error"


def test_stream_outlives_the_deadline(impatient: Stack) -> None:
    """A stream that began in time may take as long as it takes."""
    impatient.engine.gate.clear()
    body = {"model": MODEL, "messages": [{"role": "user", "content": "slowly"}], "stream": True}
    with impatient.client.stream("POST", CHAT, json=body) as response:
        lines = response.iter_lines()
        next(lines)
        time.sleep(TIMEOUT_S + 0.2)
        impatient.engine.open_gate()
        assert "data: [DONE]" in list(lines)


def test_origin_that_does_not_begin_is_a_504(impatient: Stack) -> None:
    """Its generation ends, too."""
    impatient.engine.gate.clear()
    before = impatient.engine.cancelled
    slow = impatient.ask("too slow")
    assert (slow.status_code, error_of(slow)["code"]) == (504, "origin_timeout")
    deadline = time.monotonic() + 10
    while impatient.engine.cancelled == before:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    impatient.engine.open_gate()


@pytest.mark.parametrize("directive", ["max-age=0", "min-fresh=1000000000", "no-cache", "no-store"])
def test_only_if_cached_gets_nothing_it_forbade(
    impatient: Stack, front: Front, directive: str
) -> None:
    """A 504 of its own, whether the origin has nothing acceptable, fails, or is no origin."""
    impatient.ask("strictly cached")
    impatient.hit("strictly cached")
    strict = {"cache-control": f"only-if-cached, {directive}"}
    for instead in (
        None,
        answering(503, _JSON, b"{}"),
        answering(502, _HTML),
        answering(None, None, left=threading.Event()),
    ):
        front.instead = instead
        refused = impatient.ask("strictly cached", strict)
        assert (refused.status_code, error_of(refused)["code"]) == (504, "only_if_cached")
    assert is_hit(impatient.ask("strictly cached", {"cache-control": "only-if-cached"}))


@pytest.mark.parametrize("code", [429, 500, 502, 503, 504])
def test_stale_entry_stands_in_for_every_failure(impatient: Stack, code: int) -> None:
    """Of the origin, or of what it passes on; not for what is wrong with the request."""
    impatient.ask("stands in")
    impatient.hit("stands in")
    with impatient.front.answers_instead(answering(code, _JSON, b"{}"), CHAT):
        stale = impatient.ask("stands in", _STRICT)
        assert stale.status_code == 200
        assert status(stale).endswith(f"fwd-status={code}; detail=stale-if-error")
        assert impatient.ask(f"never asked {code}").status_code == code
    with impatient.front.answers_instead(answering(400, _JSON, b"{}"), CHAT):
        assert impatient.ask("stands in", _STRICT).status_code == 400


def test_stale_if_error(impatient: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    """The entry answers for a failing origin, unless the request says that it must not."""
    impatient.ask("errors")
    impatient.hit("errors")
    monkeypatch.setattr(impatient.engine, "failure", UpstreamError("broken"))
    failed = impatient.ask("errors", _STRICT)
    assert failed.status_code == 200
    assert "fwd-status=502; detail=stale-if-error" in status(failed)
    refused = impatient.ask("never asked")
    assert (refused.status_code, error_of(refused)["message"]) == (502, "broken")


def test_error_within_a_stream_reaches_the_client(
    impatient: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The official client raises what the origin says after the first token."""
    broken = UpstreamError("broke off", code="upstream_broken")
    monkeypatch.setattr(impatient.engine, "failure_after_chunks", broken)
    with openai.OpenAI(
        base_url=f"{impatient.edge.url}/v1", api_key=API_KEY, max_retries=0
    ) as client:
        messages: list[openai.types.chat.ChatCompletionMessageParam] = [
            {"role": "user", "content": _PROMPT}
        ]
        stream = client.chat.completions.create(model=MODEL, messages=messages, stream=True)
        with stream, pytest.raises(openai.APIError, match="broke off") as raised:
            for _ in stream:
                pass
    assert raised.value.code == "upstream_broken"
    monkeypatch.undo()
    assert "fwd=miss" in status(impatient.ask(_PROMPT))


def test_stale_entries_are_refreshed_by_the_origin(start_edge: StartEdge) -> None:
    """Stale-while-revalidate: the stale answer at once, and a new entry soon after."""
    settings = origin_settings(ttl_s=1, stale_while_revalidate_s=600)
    with stacked(start_edge, settings=settings) as stack:
        first = content(stack.ask("stale"))
        stack.hit("stale")
        stack.end_minute()
        until(lambda: stack.ask("stale"), lambda answer: content(answer) != first)


def test_edge_that_is_not_set_up_says_why_in_its_log_alone(start_edge: StartEdge) -> None:
    """Anybody may ask it, and what is wrong may be a place or a name inside."""
    edge = start_edge(variables=variables("ftp://inside.example.com"))
    response = httpx.get(f"{edge.url}/healthz")
    assert (response.status_code, error_of(response)["code"]) == (500, "edge_not_set_up")
    assert error_of(response)["message"] == "The edge is not set up; see its log."
    edge.wait_for_log("not set up: ENCORE_ORIGIN_URL must be")
    assert "inside.example.com" in edge.log()
    edge.stop()


def test_origin_that_is_down_is_a_502(start_edge: StartEdge) -> None:
    """In OpenAI's shape, naming no address; to only-if-cached it is a 504 like any other."""
    edge = start_edge(variables=variables("http://127.0.0.1:9"))
    body = {"model": MODEL, "messages": [{"role": "user", "content": _PROMPT}]}
    with client_of(edge) as client:
        response = client.post(CHAT, json=body)
        cached = client.post(CHAT, json=body, headers={"cache-control": "only-if-cached"})
    assert (response.status_code, error_of(response)["code"]) == (502, "origin_unreachable")
    assert status(response) == "encore-edge; fwd=bypass; detail=origin-error"
    assert "127.0.0.1" not in response.text
    assert (cached.status_code, error_of(cached)["code"]) == (504, "only_if_cached")
    edge.stop()


@pytest.mark.parametrize(
    ("response", "headers", "member"),
    [
        ((503, _JSON, b'{"error":{"message":"busy"}}'), {}, "fwd=miss; detail=origin-error"),
        ((503, _HTML), {}, "fwd=miss; fwd-status=503; detail=origin-error"),
        ((302, _HTML), {}, "fwd=miss; fwd-status=302; detail=origin-error"),
        (
            (500, _HTML),
            {"cache-control": "no-store"},
            "fwd=bypass; fwd-status=500; detail=origin-error",
        ),
    ],
)
def test_failure_of_the_origin_is_named(
    impatient: Stack, front: Front, response: Any, headers: dict[str, str], member: str
) -> None:
    """`Cache-Status` tells an error of the origin's from the client's own."""
    front.instead = answering(*response)
    answer = impatient.ask(f"failing {member}", headers)
    assert answer.status_code >= 500
    assert status(answer) == f"encore-edge; {member}"


def test_job_that_the_origin_takes_is_a_202(impatient: Stack, front: Front) -> None:
    """A warm-up through the edge is acknowledged as the origin acknowledged it."""
    front.instead = answering(202, "application/json", b'{"id": "1"}')
    response = impatient.client.post("/cache/warm", json={"requests": []})
    front.instead = None
    assert (response.status_code, response.json()) == (202, {"id": "1"})
    assert status(response) == "encore-edge; fwd=bypass"


def test_edge_of_another_secret_is_a_502(impatient: Stack, start_edge: StartEdge) -> None:
    """The operator's mistake is not shown to clients as theirs."""
    other = "another secret of the tests, long enough"
    edge = start_edge(variables=variables(impatient.origin_url, ENCORE_SECRET=other))
    with client_of(edge, make_api_key(key_ring(other), "acme", bytes(15))) as client:
        body = {"model": MODEL, "messages": [{"role": "user", "content": "x"}]}
        response = client.post(CHAT, json=body)
    assert (response.status_code, error_of(response)["code"]) == (502, "edge_not_trusted")
    edge.stop()


def test_failing_kv_is_a_miss(start_edge: StartEdge, lab_config: Path) -> None:
    """Every request is answered; `Cache-Status` names a failed read, the log both."""
    with stacked(start_edge, config=lab_config) as stack:
        for fault in ("get entry", "put entry"):
            text = f"{_PROMPT}: {fault}"
            with Lab(edge=stack.edge).failing(fault):
                first = content(stack.ask(text))
                for _ in range(2):
                    stack.end_minute()  # what was not written is written again
                    answer = stack.ask(text)
                    assert content(answer) == first
                    assert ("detail=kv-error" in status(answer)) == (fault == "get entry")
                    assert "; stored" in status(answer).split(", ")[-1]
                streamed = stack.ask(text, stream=True)
                assert streamed.text.endswith("data: [DONE]\n\n")
                stack.edge.wait_for_log(f"{fault} failed")
        log = stack.edge.log()
    assert _PROMPT not in log
    assert API_KEY not in log


def test_log_has_no_prompt_and_no_key(impatient: Stack, front: Front) -> None:
    """Whatever fails, and however: the log says what, and quotes nobody."""
    front.instead = answering(200, MEDIA_TYPE, b"ENC")
    impatient.ask(_PROMPT)
    impatient.ask(_PROMPT, stream=True)
    impatient.ask(_PROMPT, n="many")
    impatient.ask(_PROMPT, {"authorization": f"Bearer {API_KEY}x"})
    impatient.client.post(CHAT, content=json.dumps({"messages": _PROMPT})[:-1])
    log = impatient.edge.log()
    assert "edge ready" in log
    for secret in (_PROMPT, API_KEY, SECRET, key_ring(SECRET).edge.hex()):
        assert secret not in log


def test_cron_says_that_the_origin_is_not_ready(impatient: Stack, front: Front) -> None:
    """An outage is in the Worker's log before a client meets it; a ready origin is no news."""
    impatient.run_cron()
    assert impatient.front.asked[-2:] == ["GET /readyz", "POST /internal/warming"]
    assert "not ready" not in impatient.edge.log()
    front.instead = answering(503, _JSON, b"{}")
    impatient.run_cron()
    impatient.edge.wait_for_log("origin not ready: status 503")
    front.instead = answering(502, _HTML)
    impatient.run_cron()
    impatient.edge.wait_for_log("origin not ready: What the origin answered")


def test_missing_settings_are_named(start_edge: StartEdge) -> None:
    """In the log alone: without its settings the edge answers that, to monitors too."""
    edge = start_edge(variables={"ENCORE_ORIGIN_URL": "http://127.0.0.1:9"})
    for response in (httpx.post(edge.url + CHAT), httpx.get(f"{edge.url}/healthz")):
        assert (response.status_code, error_of(response)["code"]) == (500, "edge_not_set_up")
        assert "ENCORE" not in response.text
    edge.wait_for_log("ENCORE_SECRET")
    edge.stop()


def test_missing_binding_is_named(start_edge: StartEdge, projects: Projects) -> None:
    """With the lines that are missing from wrangler.toml."""
    config = projects.of_the_worker()
    text = config.read_text()
    start = text.index("[[kv_namespaces]]")
    config.write_text(text[:start] + text[text.index("[vars]") :])
    edge = start_edge(config, variables=variables("http://127.0.0.1:9"))
    response = httpx.get(f"{edge.url}/healthz")
    assert (response.status_code, error_of(response)["code"]) == (500, "edge_not_set_up")
    edge.wait_for_log("KV is not bound: add [[kv_namespaces]]")
    edge.stop()


def corrupt(persist: Path) -> None:
    """Overwrite the metadata of every KV entry on disk."""
    changed = 0
    for path in persist.rglob("*.sqlite"):
        with sqlite3.connect(path) as database:
            tables = {row[0] for row in database.execute("SELECT name FROM sqlite_master")}
            if "_mf_entries" in tables:
                changed += database.execute(
                    "UPDATE _mf_entries SET metadata = ?", (json.dumps({"v": 99}),)
                ).rowcount
        database.close()
    assert changed


def test_entries_survive_a_restart_and_corrupt_ones_are_replaced(start_edge: StartEdge) -> None:
    """Restarting keeps KV; an entry that cannot be decoded is a named miss, then a hit again."""
    with stacked(start_edge) as stack:
        stack.ask("kept")
        kept = stack.hit("kept")
        stack.edge.stop()
        again = variables(stack.origin_url)
        edge = start_edge(variables=again, persist=stack.edge.persist)
        with client_of(edge) as client:
            response = replace(stack, edge=edge, client=client).ask("kept")
            assert is_hit(response)
            assert response.content == kept.content
        edge.stop()
        corrupt(edge.persist)
        edge = start_edge(variables=again, persist=edge.persist)
        with client_of(edge) as client:
            mended = replace(stack, edge=edge, client=client)
            stack.end_minute()
            assert "detail=kv-undecodable" in status(mended.ask("kept"))
            mended.hit("kept")
        edge.stop()
