"""`encore warm`: its parts against an application, the command against a real origin."""

from __future__ import annotations

import asyncio
import io
import json
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from origin import warm_command
from origin.app import create_app
from origin.settings import Settings
from origin.stores.memory import MemoryStore
from origin.warm_command import (
    ATTEMPTS,
    Asker,
    Line,
    Outcome,
    RefusedError,
    Summary,
    lines_of,
    warm_all,
)
from origin.warm_journal import Journal
from origin.warm_requests import WarmRequest, read
from shared.keys import DEVELOPMENT_API_KEY, key_ring, make_api_key
from tests.origin.engine.fake_upstream import FakeUpstream, fake_upstream
from tests.support.commands import encore, environ
from tests.support.control import control_store
from tests.support.engines import MODEL, ScriptedEngine, chat_answer
from tests.support.ports import free_port

SECRET = "0123456789abcdef0123456789abcdef"
API_KEY = make_api_key(key_ring(SECRET), "acme", bytes(15))
CHAT = "/v1/chat/completions"


def line(text: str, **fields: Any) -> dict[str, Any]:
    """A line that asks for a chat."""
    body = {"model": MODEL, "messages": [{"role": "user", "content": text}]}
    return {"body": body, **fields}


def jsonl(*lines: Any) -> bytes:
    """A file of these lines; bytes stand as they are."""
    return b"".join(
        (one if isinstance(one, bytes) else json.dumps(one).encode()) + b"\n" for one in lines
    )


class Watcher:
    """Notes what it is told."""

    def __init__(self) -> None:
        self.seen_lines: list[tuple[int, str]] = []

    def seen(self, line: Line, outcome: Outcome) -> None:
        """See Watcher."""
        self.seen_lines.append((line.number, outcome.kind))


async def no_sleep(_seconds: float) -> None:
    """Time is not what these tests are about."""
    await asyncio.sleep(0)


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    """A client of an application."""
    app = create_app(
        Settings(secret=SecretStr(SECRET)),
        engine=ScriptedEngine(),
        store=MemoryStore(),
        control_store=control_store(API_KEY),
    )
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app),
        base_url="http://origin",
        headers={"authorization": f"Bearer {API_KEY}"},
    ) as client:
        yield client


async def run(
    client: httpx.AsyncClient, content: bytes, *, dry: bool = False, **options: Any
) -> Summary:
    """Warm by the lines of a file."""
    return await warm_all(
        lines_of(io.BytesIO(content)),
        Asker(client, dry=dry, sleep=no_sleep).ask,
        **{"journal": None, "watcher": Watcher(), "concurrency": 2, "sleep": no_sleep, **options},
    )


def answering(*responses: httpx.Response) -> httpx.AsyncClient:
    """A client that gets these in turn, the last one again and again."""
    left = list(responses)

    def answer(_request: httpx.Request) -> httpx.Response:
        return left.pop(0) if len(left) > 1 else left[0]

    return httpx.AsyncClient(transport=httpx.MockTransport(answer), base_url="http://edge")


async def test_summary_adds_up(client: httpx.AsyncClient) -> None:
    """What was known, generated, stored, and what failed by reason."""
    bad_model = line("x")
    bad_model["body"]["model"] = "none"
    summary = await run(client, jsonl(line("a"), line("b"), bad_model), concurrency=1)
    assert summary.kinds == {"generated": 2, "failed": 1}
    assert (summary.stored, summary.tokens, summary.lines) == (2, 10, 3)
    assert summary.reasons == {"404 model_not_found": 1}
    assert (await run(client, jsonl(line("a")))).kinds == {"cached": 1}


async def test_dry_run_generates_nothing(client: httpx.AsyncClient) -> None:
    """It says what is known already, and what is wrong with which line."""
    await run(client, jsonl(line("a")))
    summary = await run(client, jsonl(line("a"), line("b"), {"body": 1}), dry=True)
    assert summary.kinds == {"cached": 1, "absent": 1, "failed": 1}
    again = await run(
        client, jsonl(line("b"), line("b", headers={"Cache-Control": "no-cache"})), dry=True
    )
    assert again.kinds == {"absent": 2}


async def test_headers_go_with_the_request(client: httpx.AsyncClient) -> None:
    """Another bucket is another answer; a `no-cache` makes a new one."""
    assert (
        await run(client, jsonl(line("a"), line("a", headers={"Encore-Bucket": "1"})))
    ).kinds == {"generated": 2}
    anew = line("a", headers={"cache-control": "no-cache"})
    assert (await run(client, jsonl(anew))).kinds == {"generated": 1}


async def test_lines_are_read_one_by_one() -> None:
    """Never the whole file."""
    file = io.BytesIO(jsonl(*(line(str(number)) for number in range(100))))
    lines = lines_of(file)
    for number in range(1, 4):
        assert next(lines).number == number
        assert file.tell() < 1000


@pytest.mark.parametrize(
    ("raw", "wrong"),
    [
        (b"{", "JSON"),
        (b"[]", "object"),
        (b'{"body": {"model": "m"}}', "body.messages"),
        (b'{"body": {}, "path": "x"}', "path"),
        (b"\xff\xfe", "JSON"),
    ],
)
def test_bad_line_is_named_by_number(raw: bytes, wrong: str) -> None:
    """With what is wrong; the others are read all the same."""
    before, bad, after = lines_of(io.BytesIO(jsonl(line("a"), b"", raw, line("b"))))
    assert before.request is not None
    assert after.request is not None
    assert (bad.number, after.number) == (3, 4)
    assert bad.wrong is not None
    assert wrong in bad.wrong


def test_longest_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is longer is wrong, and is not kept in memory."""
    monkeypatch.setattr(warm_command, "MAX_LINE_BYTES", 300)
    long, short = lines_of(io.BytesIO(jsonl(line("x" * 1000), line("b"))))
    assert long.wrong is not None
    assert (long.raw, short.number) == (b"", 2)


def test_a_byte_order_mark_is_no_mistake() -> None:
    """Some editors leave one; what they leave at the ends of lines is none, either."""
    (one,) = lines_of(io.BytesIO(b"\xef\xbb\xbf" + json.dumps(line("a")).encode() + b"\r\n"))
    assert one.request is not None


async def test_retry_after_is_respected() -> None:
    """At least so long is waited, and it works in the end."""
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    busy = httpx.Response(503, json={"error": {"code": "overloaded"}}, headers={"retry-after": "7"})
    done = httpx.Response(200, json={}, headers={"cache-status": "encore-origin; fwd=miss; stored"})
    async with answering(busy, busy, done) as client:
        outcome = await Asker(client, sleep=sleep).ask(read(line("a")))
    assert outcome == Outcome(kind="generated", stored=True)
    assert len(slept) == 2
    assert min(slept) >= 7


@pytest.mark.parametrize(
    ("response", "attempts"),
    [
        (httpx.Response(400, json={"error": {"code": "bad"}}), 1),
        (httpx.Response(500, json={"error": {"code": "bad"}}), 1),
        (httpx.Response(502, json={"error": {"code": "bad"}}), ATTEMPTS),
        (httpx.Response(429, json={"error": {"code": "bad"}}, headers={"retry-after": "9999"}), 1),
    ],
)
async def test_what_fails_is_tried_again_where_that_may_help(
    response: httpx.Response, attempts: int
) -> None:
    """So often and no more."""
    asked = 0

    def answer(_request: httpx.Request) -> httpx.Response:
        nonlocal asked
        asked += 1
        return response

    transport = httpx.MockTransport(answer)
    async with httpx.AsyncClient(transport=transport, base_url="http://edge") as client:
        outcome = await Asker(client, sleep=no_sleep).ask(read(line("a")))
    assert (outcome.kind, outcome.reason) == ("failed", f"{response.status_code} bad")
    assert asked == attempts


async def test_who_goes_away_costs_a_line() -> None:
    """It is tried again, and told by its name."""
    asked = 0

    def fail(request: httpx.Request) -> httpx.Response:
        nonlocal asked
        asked += 1
        if asked == 1:
            return httpx.Response(400)
        raise httpx.ConnectError("secret words", request=request)

    transport = httpx.MockTransport(fail)
    async with httpx.AsyncClient(transport=transport, base_url="http://edge") as client:
        asker = Asker(client, sleep=no_sleep)
        await asker.ask(read(line("a")))
        outcome = await asker.ask(read(line("b")))
    assert outcome == Outcome(kind="failed", reason="no connection")
    assert asked == 1 + ATTEMPTS


async def test_who_was_never_there_ends_the_run() -> None:
    """A long file would fail line by line for hours otherwise."""

    def fail(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("secret words", request=request)

    transport = httpx.MockTransport(fail)
    async with httpx.AsyncClient(transport=transport, base_url="http://edge") as client:
        with pytest.raises(RefusedError, match="nobody answers there"):
            await Asker(client, sleep=no_sleep).ask(read(line("a")))


async def test_message_of_an_error_is_not_printed() -> None:
    """It may quote the request, and so may what a stranger puts into its code."""
    response = httpx.Response(400, json={"error": {"message": "secret", "code": "secret words"}})
    async with answering(response) as client:
        outcome = await Asker(client, sleep=no_sleep).ask(read(line("a")))
    assert outcome.reason == "400"


@pytest.mark.parametrize(
    ("status", "kind", "stored"),
    [
        ("encore-edge; hit; ttl=5", "cached", False),
        ("encore-origin; hit, encore-edge; fwd=miss; stored", "cached", False),
        ("encore-origin; fwd=miss; stored, encore-edge; fwd=miss", "generated", True),
        ('encore-origin; fwd=bypass; detail="no-store"', "generated", False),
        ("", "generated", False),
    ],
)
async def test_cache_status_says_what_became_of_it(status: str, kind: str, stored: bool) -> None:
    """Whichever cache it comes from."""
    async with answering(httpx.Response(200, json={}, headers={"cache-status": status})) as client:
        outcome = await Asker(client, sleep=no_sleep).ask(read(line("a")))
    assert outcome == Outcome(kind=kind, stored=stored)


async def test_refused_key_ends_the_run() -> None:
    """No other line would fare better."""
    response = httpx.Response(401, json={"error": {"code": "invalid_api_key"}})
    async with answering(response) as client:
        with pytest.raises(RefusedError, match="401 invalid_api_key"):
            await run(client, jsonl(line("a"), line("b")))


async def test_fail_fast_ends_at_the_first_failure(client: httpx.AsyncClient) -> None:
    """Without it the rest goes on."""
    content = jsonl(line("a"), b"{", line("b"), line("c"))
    assert (await run(client, content, fail_fast=True, concurrency=1)).lines == 2
    assert (await run(client, content, concurrency=1)).lines == 4


async def test_so_many_at_once() -> None:
    """And no more."""
    now = most = 0
    go = asyncio.Event()

    async def ask(_request: WarmRequest) -> Outcome:
        nonlocal now, most
        now += 1
        most = max(most, now)
        if now == 3:
            go.set()
        await go.wait()
        now -= 1
        return Outcome(kind="cached")

    lines = lines_of(io.BytesIO(jsonl(*(line(str(number)) for number in range(20)))))
    await warm_all(lines, ask, journal=None, watcher=Watcher(), concurrency=3)
    assert most == 3


async def test_rate_is_kept(client: httpx.AsyncClient) -> None:
    """By waiting between requests, not between lines that need none."""
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    content = jsonl(line("a"), b"{", line("b"), line("c"))
    await run(client, content, concurrency=1, rate=0.001, sleep=sleep)
    assert len(slept) == 2
    assert 900 < slept[0] <= 1000
    assert 1900 < slept[1] <= 2000


async def test_what_the_journal_has_is_passed_over(
    client: httpx.AsyncClient, tmp_path: Path
) -> None:
    """What failed is not in it, and an edited line is asked for."""
    path = tmp_path / "journal"
    journal = Journal(path, run="r", resume=False)
    bad_model = line("x")
    bad_model["body"]["model"] = "none"
    await run(client, jsonl(line("a"), line("b"), bad_model), journal=journal)
    journal.close()
    again = Journal(path, run="r", resume=True)
    summary = await run(
        client, jsonl(line("a"), line("b", custom_id="1"), bad_model), journal=again
    )
    assert summary.kinds == {"done before": 1, "cached": 1, "failed": 1}
    again.close()


# The command.


class Origin:
    """A running `encore origin`, whose upstream the test decides."""

    def __init__(self, folder: Path, upstream: FakeUpstream) -> None:
        self.folder = folder
        self.upstream = upstream
        self.port = str(free_port())
        self.url = f"http://127.0.0.1:{self.port}"
        self.variables = {
            "ENCORE_MODE": "development",
            "ENCORE_SECRET": SECRET,
            "ENCORE_ORIGIN_PORT": self.port,
            "ENCORE_UPSTREAM": upstream.url,
        }
        self.start()

    def start(self) -> None:
        """Run it until it is ready."""
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "origin.cli", "origin"],
                cwd=self.folder,
                env=environ(**self.variables),
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        until(lambda: httpx.get(self.url + "/readyz").is_success)

    def warm(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run the command in the origin's folder."""
        return encore(self.folder, "warm", *arguments, **self.variables)

    def generations(self) -> int:
        """How often the upstream was asked for an answer."""
        return sum(seen.path == CHAT for seen in self.upstream.seen)


def until(works: Callable[[], object]) -> None:
    """Wait for something to be true."""
    deadline_s = time.monotonic() + 60
    while True:
        try:
            if works():
                return
        except httpx.HTTPError:
            pass
        assert time.monotonic() < deadline_s
        time.sleep(0.02)


@contextmanager
def running(tmp_path: Path) -> Iterator[Origin]:
    """An origin for the length of the block."""
    with fake_upstream() as upstream:
        upstream.say(chat_answer("One answer.") | {"data": [{"id": "m"}]})
        origin = Origin(tmp_path, upstream)
        try:
            yield origin
        finally:
            origin.process.terminate()
            origin.process.wait(60)


@pytest.fixture
def origin(tmp_path: Path) -> Iterator[Origin]:
    """A running origin."""
    with running(tmp_path) as origin:
        yield origin


def test_command_from_its_first_to_its_last_word(origin: Origin) -> None:
    """Dry run, run with a bad line, run again: exit statuses, and nothing of a prompt."""
    file = origin.folder / "requests.jsonl"
    file.write_bytes(jsonl(line("secret words"), line("other words"), line("secret words")))
    dry = origin.warm("requests.jsonl", "--dry-run")
    assert dry.returncode == 0
    assert "would be generated" in dry.stdout
    assert origin.generations() == 0
    assert list(origin.folder.glob("*.journal")) == []
    first = origin.warm("requests.jsonl", "--concurrency", "1")
    assert first.returncode == 0, first.stderr
    assert origin.generations() == 2
    assert list(origin.folder.glob("*.journal")) == []
    with file.open("ab") as opened:
        opened.write(b"secret {\n")
    again = origin.warm("requests.jsonl")
    assert again.returncode == 1
    assert "requests.jsonl:4:" in again.stderr
    assert origin.generations() == 2
    for result in (dry, first, again):
        assert "secret" not in result.stdout + result.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["missing.jsonl"], "missing.jsonl"),
        (["requests.jsonl", "--base-url", "ftp://x"], "--base-url"),
        (["requests.jsonl", "--base-url", "http://example.invalid"], "ENCORE_API_KEY"),
        (["requests.jsonl", "--api-key", "sk-encore-acme-x-y"], "invalid_api_key"),
    ],
)
def test_what_cannot_be_begun_is_refused(origin: Origin, arguments: list[str], said: str) -> None:
    """With the fix, and exit status 2."""
    (origin.folder / "requests.jsonl").write_bytes(jsonl(line("a")))
    result = origin.warm(*arguments)
    assert result.returncode == 2
    assert said in result.stderr
    assert "Traceback" not in result.stderr


def test_run_that_was_killed_is_resumed(origin: Origin) -> None:
    """`kill -9` in the midst: what was done is not asked for again, the rest is."""
    count = 200
    file = origin.folder / "requests.jsonl"
    file.write_bytes(jsonl(*(line(f"Question {number}") for number in range(count))))
    command = subprocess.Popen(
        [sys.executable, "-m", "origin.cli", "warm", file.name, "--concurrency", "1"],
        cwd=origin.folder,
        env=environ(**origin.variables),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    journal = origin.folder / "requests.jsonl.journal"
    until(lambda: journal.exists() and len(journal.read_bytes().splitlines()) > 64)
    command.send_signal(signal.SIGKILL)
    command.wait()
    known = len(journal.read_bytes().splitlines()) - 1
    assert 64 <= known < count
    result = origin.warm(file.name, "--resume")
    assert result.returncode == 0, result.stderr
    said = {
        name.strip(): value
        for name, _, value in (row.rpartition("  ") for row in result.stdout.splitlines())
    }
    assert int(said["done before"]) == known
    # What was under way when it was killed was stopped, or is a hit.
    assert count <= origin.generations() <= count + 1
    assert not journal.exists()


def test_job_survives_a_kill_of_its_origin(origin: Origin) -> None:
    """It was acknowledged: the next origin goes on with it, and none of it is lost."""
    origin.upstream.reply = replace(origin.upstream.reply, waits=True)
    headers = {"authorization": f"Bearer {DEVELOPMENT_API_KEY}"}
    body = {"requests": [line(f"Question {number}") for number in range(20)]}
    response = httpx.post(origin.url + "/cache/warm", json=body, headers=headers)
    assert response.status_code == 202
    job = response.json()["id"]
    until(origin.upstream.arrived.is_set)
    origin.process.kill()
    origin.process.wait()
    origin.upstream.go_on.set()
    origin.start()

    def status() -> Any:
        return httpx.get(f"{origin.url}/cache/warm/{job}", headers=headers).json()

    assert status()["requests"] == 20
    until(lambda: status()["status"] == "done")
    state = status()
    assert state["cached"] + state["generated"] == 20
    assert state["failed"] == {}
    before = origin.generations()
    for request in body["requests"]:
        hit = httpx.post(origin.url + CHAT, json=request["body"], headers=headers)
        assert hit.headers["cache-status"].startswith("encore-origin; hit")
    assert origin.generations() == before
