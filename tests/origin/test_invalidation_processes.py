"""Purges, the edge's debts and the audit log over `encore origin` processes that come and go."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from redis import Redis
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from origin.embedded_redis import embedded_redis
from shared.control_document import decode
from tests.origin.engine.fake_upstream import FakeUpstream, fake_upstream
from tests.support.commands import encore, environ
from tests.support.engines import chat_answer
from tests.support.origins import Origin, origin_process
from tests.support.serving import serving

SECRET = "0123456789abcdef0123456789abcdef"
CHAT = "/v1/chat/completions"


@dataclass(frozen=True, kw_only=True)
class Place:
    """A Redis, an upstream, and an admin of acme."""

    folder: Path
    upstream: FakeUpstream
    redis: Any
    variables: dict[str, str]
    headers: dict[str, str]

    def command(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run a command to its good end."""
        result = encore(self.folder, *arguments, **self.variables, **variables)
        assert result.returncode == 0, result.stderr
        return result

    def cache_status(self, origin: Origin, text: str = "Hello") -> str:
        """How a request is answered."""
        body = {"model": "m", "messages": [{"role": "user", "content": text}]}
        response = httpx.post(origin.url + CHAT, json=body, headers=self.headers, timeout=60)
        assert response.status_code == 200
        return response.headers["cache-status"]

    def warm(self, origin: Origin, text: str = "Hello") -> None:
        """Ask until the answer is a hit."""
        until(lambda: "; hit" in self.cache_status(origin, text))

    def purge(self, origin: Origin, body: dict[str, Any]) -> dict[str, Any]:
        """Purge over HTTP."""
        response = httpx.post(
            origin.url + "/cache/purge", json=body, headers=self.headers, timeout=60
        )
        assert response.status_code == 200, response.text
        fields: dict[str, Any] = response.json()
        return fields

    def audit(self, *options: str) -> list[dict[str, Any]]:
        """What `encore audit` prints."""
        lines = self.command("audit", *options).stdout.splitlines()
        return [json.loads(line) for line in lines]


def until(holds: Callable[[], bool]) -> None:
    """Wait for what comes by itself."""
    deadline_s = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline_s
        time.sleep(0.02)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    """Everything but an origin."""
    with (
        fake_upstream() as upstream,
        embedded_redis(tmp_path / "redis") as url,
        Redis.from_url(url) as redis,
    ):
        upstream.say(chat_answer("One answer.") | {"data": [{"id": "m"}]})
        variables = {"ENCORE_SECRET": SECRET, "REDIS_URL": url, "ENCORE_UPSTREAM": upstream.url}
        variables["ENCORE_SEMANTIC"] = "off"  # it would change documents, which is audited
        created = encore(tmp_path, "keys", "create", "acme", "--role", "admin", **variables)
        yield Place(
            folder=tmp_path,
            upstream=upstream,
            redis=redis,
            variables=variables,
            headers={"authorization": f"Bearer {created.stdout.strip()}"},
        )


def test_events_purge_at_every_process_also_one_that_was_away(place: Place) -> None:
    """By the channel; by the stream while one process is dead, and while all are."""
    event = json.dumps({"tenant": "acme", "models": ["m"]})
    with origin_process(place.folder, **place.variables) as here:
        with origin_process(place.folder, **place.variables) as there:
            place.warm(here)
            place.warm(there)
            until(lambda: place.redis.publish("encore:invalidate", event) == 2)
            until(lambda: "fwd=miss" in place.cache_status(there))
            place.warm(here)
            place.warm(there)
            there.kill()
        place.redis.xadd("encore:invalidations", {"event": event})
        until(lambda: place.redis.xlen("encore:invalidations") == 0)
        with origin_process(place.folder, **place.variables) as again:
            assert "fwd=miss" in place.cache_status(again)
            place.warm(again)
            place.warm(here)
            again.kill()
        here.kill()
    place.redis.xadd("encore:invalidations", {"event": event})
    with origin_process(place.folder, **place.variables) as later:
        until(lambda: place.redis.xlen("encore:invalidations") == 0)
        assert "fwd=miss" in place.cache_status(later)
    by_event = [record for record in place.audit() if record["actor"] == "event"]
    assert {record["path"] for record in by_event} == {"encore:invalidate", "encore:invalidations"}
    assert 3 <= len(by_event) <= 4  # the channel's, by one process or by both


class Edge:
    """An edge that takes control documents."""

    def __init__(self) -> None:
        self.taken: list[bytes] = []
        self.app = Starlette(routes=[Route("/{path:path}", self._take, methods=["PUT"])])

    async def _take(self, request: Request) -> Response:
        self.taken.append(await request.body())
        return Response(status_code=204)


def test_an_edge_that_was_down_gets_the_purge_after_all(place: Place) -> None:
    """Of an origin that has died meanwhile, and of a command that knew no edge."""
    with serving(Edge().app) as url:
        port = int(url.rpartition(":")[2])
    edge_url = {"ENCORE_EDGE_URL": url}
    with origin_process(place.folder, **place.variables, **edge_url) as origin:
        assert place.purge(origin, {"tags": ["first"]})["edge"] == "pending"
        origin.kill()
    place.command("purge", "acme", "--model", "second")
    edge = Edge()
    with (
        serving(edge.app, port),
        origin_process(place.folder, **place.variables, **edge_url),
    ):
        until(lambda: place.redis.hlen("encore:ctl:edge") == 0)
    cut_offs = decode(edge.taken[-1], "acme").cut_offs
    assert len(cut_offs.tags) == 1
    assert set(cut_offs.models) == {"second"}


def test_what_was_acknowledged_is_in_the_audit_log(place: Place) -> None:
    """Also where the origin is killed as it answers."""
    with origin_process(place.folder, **place.variables) as origin:
        revision = place.purge(origin, {"everything": True})["revision"]
        origin.kill()
    records = place.audit("--tenant", "acme")
    assert [record["action"] for record in records] == ["key-create", "purge"]
    assert records[1]["revision"] == revision
    assert records[0]["actor"].startswith("cli:")
    assert records[0]["key"] == records[1]["actor"].removeprefix("key:")


def test_the_audit_log_is_printed_in_the_order_of_time(place: Place) -> None:
    """Of all tenants and what belongs to none; by tenant and since a time."""
    place.command("keys", "create", "other")
    place.command("policy", "acme", "--residency", "origin-only")
    with origin_process(place.folder, **place.variables) as origin:
        assert httpx.post(origin.url + CHAT).status_code == 401
    place.command("purge", "other", "--everything")
    place.command("purge", "--all-tenants", "--everything", "--dry-run")
    records = place.audit()
    assert [(record["action"], record["outcome"]) for record in records] == [
        ("key-create", "done"),
        ("key-create", "done"),
        ("policy-change", "done"),
        ("request", "denied"),
        ("purge", "done"),
        ("purge", "dry-run"),
    ]
    times = [record["time"] for record in records]
    assert times == sorted(times)
    assert records[2]["residency"] == "origin-only"
    assert place.audit("--tenant", "other") == [records[1], records[4]]
    assert place.audit("--since", records[3]["time"]) == records[3:]
    assert place.audit("--since", "1h") == records
    assert place.audit("--since", "0s") == []
    bad = encore(place.folder, "audit", "--since", "yesterday", **place.variables)
    assert bad.returncode == 2
    assert "--since 'yesterday'" in bad.stderr


def test_the_audit_log_can_be_followed(place: Place) -> None:
    """Line by line, as it grows."""
    with subprocess.Popen(
        [sys.executable, "-m", "origin.cli", "audit", "--follow"],
        cwd=place.folder,
        env=environ(**place.variables),
        stdout=subprocess.PIPE,
        text=True,
    ) as following:
        assert following.stdout is not None
        assert json.loads(following.stdout.readline())["action"] == "key-create"
        place.command("purge", "acme", "--everything")
        assert json.loads(following.stdout.readline())["action"] == "purge"
        following.terminate()


def test_a_dry_run_by_command_counts_what_is_stored(place: Place) -> None:
    """And leaves it there."""
    with origin_process(place.folder, **place.variables) as origin:
        for text in ("One", "Two"):
            place.warm(origin, text)
        said = place.command("purge", "acme", "--model", "m", "--dry-run").stdout
        assert "Would purge 2 entries of acme" in said
        said = place.command("purge", "acme", "--model", "n", "--dry-run").stdout
        assert "Would purge 0 entries of acme, 0 bytes" in said
        assert "; hit" in place.cache_status(origin, "One")
        found = place.purge(origin, {"everything": True, "dry_run": True})
        assert (found["entries"], found["complete"]) == (2, True)
        place.command("purge", "acme", "--model", "m")
        said = place.command("purge", "acme", "--model", "m", "--dry-run").stdout
        assert "Would purge 0 entries" in said


def test_a_model_that_moved_is_purged_before_the_origin_is_ready(place: Place) -> None:
    """An upstream lists what it likes: what counts is what there can be entries of."""
    with origin_process(place.folder, **place.variables) as origin:
        place.warm(origin)
    with fake_upstream() as moved:
        moved.say(chat_answer("Another answer.") | {"data": []})
        variables = place.variables | {"ENCORE_UPSTREAM": moved.url}
        with origin_process(place.folder, **variables):
            document = place.redis.hget("encore:ctl:{acme}", "document")
            assert set(decode(document, "acme").cut_offs.models) == {"m"}
        with origin_process(place.folder, **variables):
            assert place.redis.hget("encore:ctl:{acme}", "document") == document
