"""`POST /cache/explain` and `encore explain REQUEST.json`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from origin.app import create_app
from origin.settings import Settings
from origin.stores.memory import MemoryStore
from origin.stores.memory_jobs import MemoryJobStore
from shared.keys import key_ring, make_api_key
from tests.support.commands import encore
from tests.support.control import control_store
from tests.support.engines import MODEL, ScriptedEngine
from tests.support.serving import serving

SECRET = "a secret of the tests, long enough"
KEYS = key_ring(SECRET)
ADMIN = make_api_key(KEYS, "acme", bytes(15))
CLIENT = make_api_key(KEYS, "acme", bytes(14) + b"x")
CHAT = "/v1/chat/completions"
BODY = {"model": MODEL, "messages": [{"role": "user", "content": "Why?"}], "user": "someone"}


@dataclass(frozen=True, kw_only=True)
class Running:
    """An origin, and a client of it with the admin's key."""

    engine: ScriptedEngine
    client: httpx.Client

    def explain(self, **fields: Any) -> dict[str, Any]:
        """What is said of a request."""
        response = self.client.post("/cache/explain", json={"body": BODY, **fields})
        assert response.status_code == 200, response.text
        told: dict[str, Any] = response.json()
        return told


@pytest.fixture
def running() -> Iterator[Running]:
    """It has answered nothing yet."""
    engine = ScriptedEngine()
    app = create_app(
        Settings(secret=SecretStr(SECRET)),
        engine=engine,
        store=MemoryStore(),
        control_store=control_store(CLIENT, admins=[ADMIN]),
        job_store=MemoryJobStore(),
    )
    headers = {"authorization": f"Bearer {ADMIN}"}
    with serving(app) as url, httpx.Client(base_url=url, headers=headers) as client:
        yield Running(engine=engine, client=client)


def test_key_and_tiers_are_those_of_the_request_itself(running: Running) -> None:
    """Before and after it is asked; to explain makes nothing."""
    before = running.explain()
    assert before["answered_by"] == "engine"
    assert running.engine.runs == 0
    asked = running.client.post(CHAT, json=BODY)
    assert asked.headers["encore-key"] == before["short_key"]
    assert before["in_key"] == ["messages", "model"]
    assert before["left_out"] == ["user"]
    assert "Why?" in before["canonical"]
    while (after := running.explain())["answered_by"] != "l1":
        assert after["answered_by"] == "engine"  # it is stored behind the answer
    assert after["key"] == before["key"]
    assert [tier["would"] for tier in after["tiers"]][1] == "hit"
    assert after["tiers"][1]["entry"]["fresh_for_s"] > 0
    assert running.engine.runs == 1


def test_controls_take_part(running: Running) -> None:
    """A scope is in the key; what may not be stored is said."""
    plain = running.explain()
    scoped = running.explain(headers={"Encore-Scope": "one"})
    assert scoped["key"] != plain["key"]
    assert running.explain(headers={"Cache-Control": "no-store"})["unstorable"] == "no-store"


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "body"),
        ({"body": {"model": MODEL}}, "body.messages"),
        ({"body": BODY, "headers": {"Authorization": "x"}}, "headers"),
        ({"body": BODY, "headers": {"Encore-TTL": "soon"}}, "headers"),
        ({"body": BODY, "endpoint": "/v1/other"}, "endpoint"),
        ({"body": BODY, "tenant": "other"}, "tenant"),
    ],
)
def test_what_is_wrong_is_named(running: Running, body: Any, param: str) -> None:
    """By its field."""
    response = running.client.post("/cache/explain", json=body)
    assert response.status_code == 400
    assert response.json()["error"]["param"].startswith(param)


def test_only_admins_are_told(running: Running) -> None:
    """It quotes what others of the tenant asked."""
    headers = {"authorization": f"Bearer {CLIENT}"}
    response = running.client.post("/cache/explain", json={"body": BODY}, headers=headers)
    assert response.json()["error"]["code"] == "admin_required"


def test_the_command_says_it_in_one_screen(running: Running, tmp_path: Path) -> None:
    """A bare body is enough; its endpoint is told by its fields."""
    (tmp_path / "request.json").write_text(json.dumps(BODY))
    url = str(running.client.base_url)
    arguments = ("explain", "request.json", "--base-url", url)
    header = ("--header", "Cache-Control: no-store")
    result = encore(tmp_path, *arguments, *header, ENCORE_API_KEY=ADMIN)
    assert result.returncode == 0, result.stderr
    assert "answered by the model" in result.stdout
    assert "its answer is not kept: no-store" in result.stdout
    assert len(result.stdout.splitlines()) < 25
    as_json = encore(tmp_path, *arguments, "--json", ENCORE_API_KEY=ADMIN)
    assert json.loads(as_json.stdout)["short_key"] in result.stdout


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "this is not JSON"),
        ("[]", "a request is a JSON object"),
        ("{}", "there is no 'messages'"),
        ('{"messages": 1}', "body.model: Missing"),
    ],
)
def test_a_bad_file_is_one_line(running: Running, tmp_path: Path, content: str, said: str) -> None:
    """And status 2."""
    (tmp_path / "request.json").write_text(content)
    url = str(running.client.base_url)
    result = encore(tmp_path, "explain", "request.json", "--base-url", url, ENCORE_API_KEY=ADMIN)
    assert result.returncode == 2
    assert said in result.stderr
    assert "Traceback" not in result.stderr
