"""Keys and purges over everything behind the edge: the command, two origins, one real Redis."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from pydantic import SecretStr
from redis import Redis

from origin.app import create_app
from origin.embedded_redis import embedded_redis
from origin.settings import Settings
from origin.stores.redis_control import RedisControlStore
from origin.stores.redis_store import RedisStore
from shared.keys import key_id
from tests.support.commands import encore
from tests.support.engines import MODEL, ScriptedEngine
from tests.support.serving import serving

SECRET = "a secret of the tests, long enough"
CHAT = "/v1/chat/completions"


@dataclass(frozen=True, kw_only=True)
class Origins:
    """Two origins on one Redis; the engine is the first one's."""

    clients: tuple[httpx.Client, httpx.Client]
    engine: ScriptedEngine
    folder: Path
    redis_url: str

    def command(self, *arguments: str) -> str:
        """What an `encore` command prints."""
        result = encore(self.folder, *arguments, ENCORE_SECRET=SECRET, REDIS_URL=self.redis_url)
        assert result.returncode == 0, result.stderr
        return result.stdout.strip()

    def ask(self, which: int, api_key: str, text: str, tag: str = "news") -> httpx.Response:
        """Send a chat request to one of them."""
        return self.clients[which].post(
            CHAT,
            json={"model": MODEL, "messages": [{"role": "user", "content": text}]},
            headers={"authorization": f"Bearer {api_key}", "encore-tags": tag},
        )

    def hit(self, which: int, api_key: str, text: str) -> httpx.Response:
        """Ask until the answer is a hit."""
        deadline_s = time.monotonic() + 10
        while "hit" not in (response := self.ask(which, api_key, text)).headers["cache-status"]:
            assert time.monotonic() < deadline_s, response.headers
        return response

    def hit_at_both(self, api_key: str, text: str) -> httpx.Response:
        """Ask until both have the same answer: the one that made it has it before Redis has."""
        deadline_s = time.monotonic() + 10
        while (one := self.hit(0, api_key, text)).json() != self.hit(1, api_key, text).json():
            assert time.monotonic() < deadline_s
        return one

    def purge(self, which: int, api_key: str, body: dict[str, object]) -> None:
        """Purge over HTTP."""
        headers = {"authorization": f"Bearer {api_key}"}
        response = self.clients[which].post("/cache/purge", json=body, headers=headers)
        assert response.status_code == 200, response.text


@pytest.fixture(scope="module")
def origins(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Origins]:
    """The running origins."""
    folder = tmp_path_factory.mktemp("origins")
    engines = (ScriptedEngine(), ScriptedEngine())
    with ExitStack() as stack:
        redis_url = stack.enter_context(embedded_redis(folder / "redis"))
        clients = []
        for engine in engines:
            app = create_app(
                Settings(secret=SecretStr(SECRET)),
                engine=engine,
                store=RedisStore.from_url(redis_url),
                control_store=RedisControlStore.from_url(redis_url),
            )
            url = stack.enter_context(serving(app, lifespan=True))
            clients.append(stack.enter_context(httpx.Client(base_url=url, timeout=30)))
        yield Origins(
            clients=(clients[0], clients[1]),
            engine=engines[0],
            folder=folder,
            redis_url=redis_url,
        )


@pytest.mark.parametrize(
    "body", [{"everything": True}, {"tags": ["news"]}, {"models": [MODEL]}, {"keys": []}]
)
def test_acknowledged_purge_holds_at_the_other_origin(
    origins: Origins, body: dict[str, object]
) -> None:
    """At its next request, however recently it has looked."""
    admin = origins.command("keys", "create", "acme", "--role", "admin")
    text = f"purged by {body}"
    hit = origins.hit_at_both(admin, text)
    if "keys" in body:
        body = {"keys": [hit.headers["encore-key"]]}
    origins.purge(0, admin, body)
    assert "fwd=miss" in origins.ask(1, admin, text).headers["cache-status"]


def test_purge_by_command_holds_at_every_origin(origins: Origins) -> None:
    """When the command has ended."""
    key = origins.command("keys", "create", "acme")
    other = origins.command("keys", "create", "other")
    for api_key in (key, other):
        origins.hit_at_both(api_key, "purged by command")
    origins.command("purge", "acme", "--tag", "news")
    for which in (0, 1):
        response = origins.ask(which, other, "purged by command")
        assert "hit" in response.headers["cache-status"]
    assert "fwd=miss" in origins.ask(1, key, "purged by command").headers["cache-status"]


def test_purge_during_a_generation_wins(origins: Origins) -> None:
    """What began before it is answered, and is never a hit."""
    admin = origins.command("keys", "create", "acme", "--role", "admin")
    answers: list[httpx.Response] = []
    runs = origins.engine.runs
    origins.engine.gate.clear()
    asking = threading.Thread(target=lambda: answers.append(origins.ask(0, admin, "in between")))
    asking.start()
    deadline_s = time.monotonic() + 10
    while origins.engine.runs == runs:
        assert time.monotonic() < deadline_s
        time.sleep(0.01)
    origins.purge(1, admin, {"tags": ["news"]})
    origins.engine.open_gate()
    asking.join()
    assert answers[0].status_code == 200
    for which in (1, 0):
        after = origins.ask(which, admin, "in between")
        assert "fwd=miss" in after.headers["cache-status"]
        origins.purge(which, admin, {"tags": ["news"]})


def test_revoked_key_is_refused_at_once(origins: Origins) -> None:
    """By every origin, when the command has ended; other keys go on."""
    keys = [origins.command("keys", "create", "acme") for _ in range(2)]
    origins.hit_at_both(keys[0], "revoked")
    said = origins.command("keys", "revoke", "acme", key_id(keys[0])[:12])
    assert "refused by the origin now" in said
    for which in (0, 1):
        refused = origins.ask(which, keys[0], "revoked")
        assert refused.status_code == 401
        assert refused.json()["error"]["code"] == "invalid_api_key"
        assert "hit" in origins.ask(which, keys[1], "revoked").headers["cache-status"]
    listed = json.loads(origins.command("keys", "list", "acme", "--json"))
    assert key_id(keys[0]) not in {row["id"] for row in listed}


def test_what_was_there_before_control_data_was_lost_is_dead(origins: Origins) -> None:
    """Redis is flushed, a key is created, and an entry turns up again: it is no hit."""
    old = origins.command("keys", "create", "lossy")
    origins.hit_at_both(old, "lost")
    with Redis.from_url(origins.redis_url) as redis:
        kept = {name: redis.dump(name) for name in redis.scan_iter("*:entry")}
        assert kept
        redis.flushall()
        deadline_s = time.monotonic() + 10
        while origins.ask(0, old, "lost").status_code != 401:  # what it remembered has to end
            assert time.monotonic() < deadline_s
        new = origins.command("keys", "create", "lossy")
        for name, value in kept.items():
            redis.restore(name, 3_600_000, value, replace=True)
    assert origins.ask(0, old, "lost").status_code == 401
    assert "fwd=miss" in origins.ask(0, new, "lost").headers["cache-status"]
