"""`encore doctor`: each planted fault is found, and its fix names what to change."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from redis import Redis
from starlette.applications import Starlette
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.routing import Route

from origin.doctor import Finding, examine
from origin.embedded_redis import embedded_redis
from origin.engine.demo import DEMO_CHECKPOINT
from origin.settings import Settings
from shared.diagnosis import agreement
from shared.keys import key_ring
from tests.origin.engine.fake_upstream import FakeUpstream, fake_upstream
from tests.support.commands import encore
from tests.support.ports import free_port
from tests.support.serving import serving

SECRET = "0123456789abcdef0123456789abcdef"
NOWHERE = "http://127.0.0.1:1"
MODELS = {"data": [{"id": "m"}]}


@pytest.fixture(scope="module")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server that is as it should be."""
    with embedded_redis(tmp_path_factory.mktemp("doctor")) as url:
        yield url


@pytest.fixture
def upstream() -> Iterator[FakeUpstream]:
    """An upstream that lists a model."""
    with fake_upstream() as fake:
        fake.say(MODELS)
        yield fake


def examined(
    settings: dict[str, Any], *, edge_url: str | None = None, ahead_s: float = 0, load: bool = False
) -> list[Finding]:
    """All findings, by settings that say what a test does not look at."""
    base = {"secret": SecretStr(SECRET), "semantic": "off", "origin_port": int(free_port())}

    async def run() -> list[Finding]:
        found = examine(
            Settings(**(base | settings)),
            edge_url=edge_url,
            load=load,
            clock_s=lambda: time.time() + ahead_s,
        )
        return [finding async for finding in found]

    return asyncio.run(run())


def of_part(found: list[Finding], part: str) -> Finding:
    """The worst that is said of a part."""
    ranks = ("ok", "note", "warning", "fault")
    of_it = [finding for finding in found if finding.part.startswith(part)]
    return max(of_it, key=lambda finding: ranks.index(finding.state))


def edge_that_says(said: dict[str, Any] | None) -> Starlette:
    """An edge whose diagnosis is this; without one it knows no such URL."""

    async def healthz(_request: object) -> JSONResponse:
        return JSONResponse({"status": "ok"})

    async def diagnosis(_request: object) -> JSONResponse:
        return JSONResponse(said) if said is not None else JSONResponse({}, 404)

    return Starlette(routes=[Route("/healthz", healthz), Route("/internal/diagnosis", diagnosis)])


def sound(**changes: Any) -> dict[str, Any]:
    """What a sound edge says of itself."""
    return {
        "agreement": agreement(key_ring(SECRET)),
        "clock_ms": time.time_ns() // 1_000_000,
        "origin_status": 200,
        **changes,
    }


def test_nothing_is_wrong_with_a_sound_deployment(redis_url: str, upstream: FakeUpstream) -> None:
    """Real Redis, an upstream that answers, an edge that agrees: no fault and no warning."""
    with serving(edge_that_says(sound())) as edge_url:
        found = examined(
            {"redis_url": redis_url, "upstream": upstream.url, "semantic": "auto"},
            edge_url=edge_url,
        )
    assert [finding for finding in found if finding.state in {"warning", "fault"}] == []
    assert {"REDIS_URL", f"upstream {upstream.url}", "semantic", f"edge {edge_url}"} == {
        finding.part for finding in found if finding.state == "ok"
    }


@pytest.mark.parametrize(
    ("variables", "text", "fix"),
    [
        ({"ENCORE_UPSTRAEM": "x"}, "ENCORE_UPSTRAEM", "ENCORE_UPSTREAM"),
        ({"ENCORE_SECRET": "short"}, "ENCORE_SECRET", "openssl rand -hex 32"),
        ({"REDIS_URL": "localhost:6379"}, "REDIS_URL", "redis://"),
    ],
)
def test_refused_settings_are_named(
    tmp_path: Path, variables: dict[str, str], text: str, fix: str
) -> None:
    """With the status that scripts look at."""
    result = encore(tmp_path, "doctor", **({"ENCORE_SECRET": SECRET} | variables))
    assert result.returncode == 1
    assert text in result.stdout
    assert fix in result.stdout
    assert "1 fault, 0 warnings." in result.stdout
    assert "Traceback" not in result.stderr


def test_json_has_every_finding(tmp_path: Path, upstream: FakeUpstream, redis_url: str) -> None:
    """For scripts; a note is no fault."""
    result = encore(
        tmp_path,
        "doctor",
        "--json",
        ENCORE_SECRET=SECRET,
        ENCORE_UPSTREAM=upstream.url,
        ENCORE_SEMANTIC="off",
        REDIS_URL=redis_url,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    found = json.loads(result.stdout)
    assert [finding["state"] for finding in found if finding["part"] == "REDIS_URL"] == ["ok"]
    assert SECRET not in result.stdout


def test_redis_that_is_not_there(upstream: FakeUpstream) -> None:
    """A fault, since nothing is cached without it."""
    finding = of_part(
        examined({"redis_url": "redis://127.0.0.1:1", "upstream": upstream.url}), "REDIS_URL"
    )
    assert finding.state == "fault"
    assert "set REDIS_URL" in finding.fix


@pytest.mark.parametrize(
    ("options", "state", "fix"),
    [
        ({"maxmemory-policy": "allkeys-lru"}, "fault", "CONFIG SET maxmemory-policy volatile-lru"),
        ({"appendonly": "no"}, "warning", "appendonly yes"),
        ({"appendfsync": "everysec"}, "warning", "appendfsync always"),
        ({"maxmemory-policy": "noeviction", "maxmemory": "900000"}, "warning", "raise maxmemory"),
    ],
)
def test_redis_that_is_set_wrongly(
    redis_url: str, upstream: FakeUpstream, options: dict[str, str], state: str, fix: str
) -> None:
    """On a real server that is set so."""
    with Redis.from_url(redis_url, decode_responses=True) as client:
        before = {name: client.config_get(name)[name] for name in options}
        for name, value in options.items():
            client.config_set(name, value)
        try:
            found = examined({"redis_url": redis_url, "upstream": upstream.url})
        finally:
            for name, value in before.items():
                client.config_set(name, value)
    finding = of_part(found, "REDIS_URL")
    assert finding.state == state
    assert fix in finding.fix


def test_clocks_that_differ(redis_url: str, upstream: FakeUpstream) -> None:
    """Redis' and the edge's are each compared with this machine's."""
    with serving(edge_that_says(sound())) as edge_url:
        found = examined(
            {"redis_url": redis_url, "upstream": upstream.url}, edge_url=edge_url, ahead_s=60
        )
    for part in ("REDIS_URL", "edge"):
        finding = of_part(found, part)
        assert "60 s behind" in finding.text
        assert "NTP" in finding.fix


def test_upstream_that_is_not_there(redis_url: str) -> None:
    """Its variable is named."""
    finding = of_part(examined({"redis_url": redis_url, "upstream": NOWHERE}), "upstream")
    assert finding.state == "fault"
    assert "ENCORE_UPSTREAM" in finding.fix


@pytest.mark.parametrize(
    ("key", "text"), [(None, "key is missing"), ("sk-secret-of-ours", "key is refused")]
)
def test_upstream_that_does_not_take_the_key(
    redis_url: str, upstream: FakeUpstream, key: str | None, text: str
) -> None:
    """The key itself is not shown."""
    upstream.say({}, status=401)
    settings = {"redis_url": redis_url, "upstream": upstream.url, "upstream_api_key": key}
    finding = of_part(examined(settings), "upstream")
    assert finding.state == "fault"
    assert text in finding.text
    assert "ENCORE_UPSTREAM_API_KEY" in finding.fix
    assert "secret" not in str(finding)


def test_upstream_that_is_no_api(redis_url: str) -> None:
    """A web page lists no models."""

    async def page(_request: object) -> PlainTextResponse:
        return PlainTextResponse("<html>")

    with serving(Starlette(routes=[Route("/{path:path}", page)])) as url:
        finding = of_part(examined({"redis_url": redis_url, "upstream": url}), "upstream")
    assert finding.state == "warning"
    assert "ENCORE_UPSTREAM" in finding.fix


@pytest.mark.parametrize("files", [(), ("config.json", "tokenizer.json", "tokenizer_config.json")])
def test_model_that_cannot_be_read(tmp_path: Path, redis_url: str, files: tuple[str, ...]) -> None:
    """An empty folder, and one without weights."""
    for name in files:
        (tmp_path / name).write_bytes((DEMO_CHECKPOINT / name).read_bytes())
    finding = of_part(examined({"redis_url": redis_url, "model": str(tmp_path)}), "model")
    assert finding.state == "fault"
    assert "ENCORE_MODEL" in finding.text
    assert "checkpoint" in finding.fix


def test_model_that_loads_says_a_token(redis_url: str) -> None:
    """The demo model does, where that is asked for."""
    finding = of_part(examined({"redis_url": redis_url}, load=True), "model")
    assert finding.state == "ok"


def test_calibration_that_cannot_be_read(
    tmp_path: Path, redis_url: str, upstream: FakeUpstream
) -> None:
    """Its variable is named, and what makes one."""
    file = tmp_path / "calibration.json"
    file.write_text("{}")
    settings = {"redis_url": redis_url, "upstream": upstream.url, "semantic": "auto"}
    finding = of_part(examined(settings | {"semantic_calibration": file}), "semantic")
    assert finding.state == "fault"
    assert "ENCORE_SEMANTIC_CALIBRATION" in finding.text
    assert "encore calibrate" in finding.fix


@pytest.mark.parametrize(
    ("said", "fix"),
    [
        (None, "wrangler secret put ENCORE_SECRET"),
        (sound(agreement="0" * 64), "the same version"),
        (sound(origin_status=0), "ENCORE_ORIGIN_URL"),
        (sound(origin_status=503), "ENCORE_ORIGIN_URL"),
    ],
)
def test_edge_that_does_not_agree(
    redis_url: str, upstream: FakeUpstream, said: dict[str, Any] | None, fix: str
) -> None:
    """Another secret, other keys, no origin."""
    if said is not None:
        said["clock_ms"] = time.time_ns() // 1_000_000
    with serving(edge_that_says(said)) as edge_url:
        settings = {"redis_url": redis_url, "upstream": upstream.url}
        finding = of_part(examined(settings, edge_url=edge_url), "edge")
    assert finding.state == "fault"
    assert fix in finding.fix


def test_edge_that_is_not_there(redis_url: str, upstream: FakeUpstream) -> None:
    """The setting's address is looked at where no other is given."""
    settings = {"redis_url": redis_url, "upstream": upstream.url, "edge_url": NOWHERE}
    finding = of_part(examined(settings), "edge")
    assert finding.state == "fault"
    assert "ENCORE_EDGE_URL" in finding.fix


def test_something_else_at_the_origins_port(redis_url: str, upstream: FakeUpstream) -> None:
    """It is told from an origin that does not run, which is no fault."""
    settings = {"redis_url": redis_url, "upstream": upstream.url}
    assert of_part(examined(settings), "origin").state == "note"
    with serving(edge_that_says(None)) as url:
        finding = of_part(examined(settings | {"origin_url": url}), "origin")
    assert finding.state == "fault"
    assert "ENCORE_ORIGIN_PORT" in finding.fix
