"""The files of deploy/: what they name is there, and what they set is what Encore asks for."""

from __future__ import annotations

import asyncio
import configparser
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from starlette.types import Receive, Scope, Send

from origin.cli import WORKER_MARGIN_S
from origin.server import KEEP_ALIVE_S
from origin.settings import Settings, load_settings, variable
from origin.stores.redis_checks import check_redis
from tests.support.redis_servers import Node, programs
from tests.support.serving import serving

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
DOCKERFILE = (DEPLOY / "Dockerfile").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
SETTINGS = Settings.model_validate({"secret": "s" * 32})
VARIABLES = {variable(name) for name in Settings.model_fields}
LONGEST_STOP_S = SETTINGS.patience.total_s + WORKER_MARGIN_S
IMAGE_ONLY = {"ENCORE_IMAGE_EXTRAS", "ENCORE_IMAGE_ACCELERATOR"}


@pytest.fixture(scope="module")
def unit() -> configparser.ConfigParser:
    """The systemd unit; of a name that comes again, the last."""
    parsed = configparser.ConfigParser(strict=False, interpolation=None)
    parsed.optionxform = str  # type: ignore[assignment, method-assign]
    parsed.read(DEPLOY / "encore-origin.service")
    return parsed


@pytest.mark.parametrize("path", sorted(DEPLOY.iterdir()), ids=lambda path: path.name)
def test_every_setting_named_exists(path: Path) -> None:
    """In a comment, too."""
    named = set(re.findall(r"\b(?:ENCORE_[A-Z0-9_]+|REDIS_URL)\b", path.read_text()))
    assert named <= VARIABLES | IMAGE_ONLY


def test_dockerfile_copies_what_the_package_is_made_of() -> None:
    """What is copied exists, passes the ignore file, and is what setuptools wants."""
    copied = set(re.findall(r"^COPY (?!--)(.*) \S+$", DOCKERFILE, re.MULTILINE))
    sources = {source for line in copied for source in line.split()}
    allowed = {
        line[1:]
        for line in (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines()
        if line.startswith("!")
    }
    assert sources == allowed
    assert all((ROOT / source).exists() for source in sources)
    project = (ROOT / "pyproject.toml").read_text()
    assert {"origin", "shared", "README.md", "LICENSE", "pyproject.toml"} <= sources
    assert 'include = ["origin*", "shared*"]' in project


def test_image_does_not_run_as_root_and_asks_whether_it_is_ready() -> None:
    """Of its last stage."""
    last = DOCKERFILE.rpartition("\nFROM ")[2]
    assert re.search(r"^USER [1-9]\d+$", last, re.MULTILINE)
    assert re.search(r"^HEALTHCHECK .*\\\n.*/readyz", last, re.MULTILINE)
    assert 'ENTRYPOINT ["encore"]' in last  # the exec form: signals reach it


def test_compose_starts_redis_first_and_lets_the_origin_finish() -> None:
    """And the settings it passes on exist."""
    origin = COMPOSE["services"]["origin"]
    assert origin["depends_on"] == {"redis": {"condition": "service_healthy"}}
    assert "healthcheck" in COMPOSE["services"]["redis"]
    assert set(origin["environment"]) <= VARIABLES
    assert int(origin["stop_grace_period"].removesuffix("s")) >= LONGEST_STOP_S
    assert (DEPLOY / origin["build"]["context"] / origin["build"]["dockerfile"]).exists()
    arguments = set(re.findall(r"^ARG (\w+)", DOCKERFILE, re.MULTILINE))
    assert set(origin["build"]["args"]) == arguments
    volumes = {
        mount.partition(":")[0] for s in COMPOSE["services"].values() for mount in s["volumes"]
    }
    assert volumes == set(COMPOSE["volumes"])


def test_settings_of_compose_are_understood_with_only_a_secret_given(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """What the caller leaves out arrives empty, and counts as unset."""
    monkeypatch.chdir(tmp_path)
    for name, value in COMPOSE["services"]["origin"]["environment"].items():
        given = "s" * 32 if name == "ENCORE_SECRET" else ""
        monkeypatch.setenv(name, re.sub(r"\$\{.*\}", given, value))
    settings = load_settings()
    assert (settings.upstream, settings.model, settings.previous_secret) == (None, None, None)
    assert settings.redis_url is not None


@pytest.mark.parametrize(("status", "is_healthy"), [(200, True), (503, False)])
def test_health_of_the_image_is_its_readiness(status: int, is_healthy: bool) -> None:
    """By the very command of the Dockerfile, asked of a server."""
    (command,) = re.findall(r"^    CMD (\[.*\])$", DOCKERFILE, re.MULTILINE)
    python, *arguments = json.loads(command)
    assert python == "python"
    asked: list[str] = []

    async def app(scope: Scope, _receive: Receive, send: Send) -> None:
        asked.append(scope["path"])
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    with serving(app) as url:
        port = url.rpartition(":")[2]
        run = subprocess.run(
            [sys.executable, *arguments],
            env={**os.environ, "ENCORE_ORIGIN_PORT": port},
            capture_output=True,
            timeout=60,
            check=False,
        )
    assert (run.returncode == 0) is is_healthy
    assert asked == ["/readyz"]


def test_nothing_is_said_of_the_redis_of_compose(tmp_path: Path) -> None:
    """A real server with its options is as `encore doctor` wants it."""
    program, *options = COMPOSE["services"]["redis"]["command"]
    assert program == "redis-server"
    named = {
        name.removeprefix("--").replace("-", "_"): value
        for name, value in zip(options[::2], options[1::2], strict=True)
    }
    available = programs()
    node = Node(available.get("redis8", available["bundled"]), tmp_path, **named)
    try:
        node.until_ready()
        assert asyncio.run(check_redis(node.url, keeps_control=True)) == []
    finally:
        node.kill()


def test_unit_waits_for_streams_and_tells_the_main_process_alone(
    unit: configparser.ConfigParser,
) -> None:
    """The parent of workers ends them itself."""
    service = unit["Service"]
    assert (service["KillSignal"], service["KillMode"]) == ("SIGTERM", "mixed")
    assert int(service["TimeoutStopSec"]) >= LONGEST_STOP_S
    assert service["RestartPreventExitStatus"] == "2"


@pytest.mark.parametrize("name", ["Caddyfile", "nginx.conf"])
def test_proxies_let_the_origin_be_the_last_to_end_connections_and_answers(name: str) -> None:
    """They drop idle ones sooner, and wait longer than an answer may take."""
    text = (DEPLOY / name).read_text()
    (idle_s,) = re.findall(r"\bkeepalive(?:_timeout)? (\d+)s", text)
    (answer_s,) = re.findall(r"(?:proxy_read_timeout|response_header_timeout) (\d+)s", text)
    assert int(idle_s) < KEEP_ALIVE_S
    assert int(answer_s) > SETTINGS.request_deadline_s


def test_no_client_says_where_it_comes_from() -> None:
    """Its own `X-Forwarded-For` would be believed of nginx; Caddy drops it by itself."""
    given = r"^\s*proxy_set_header X-Forwarded-For (.*);$"
    assert re.findall(given, (DEPLOY / "nginx.conf").read_text(), re.MULTILINE) == ["$remote_addr"]
    assert "trusted_proxies" not in (DEPLOY / "Caddyfile").read_text()


def test_systemd_understands_the_unit(tmp_path: Path) -> None:
    """Where there is systemd; elsewhere every line is at least a name and a value."""
    text = (DEPLOY / "encore-origin.service").read_text()
    lines = [line for line in text.splitlines() if line and line[0] not in "#["]
    assert all(re.fullmatch(r"[A-Z]\w+=.*", line) for line in lines)
    if shutil.which("systemd-analyze") is None:
        return
    copy = tmp_path / "encore-origin.service"
    copy.write_text(text.replace("/opt/encore/bin/encore", sys.executable))
    said = subprocess.run(
        ["systemd-analyze", "verify", "--recursive-errors=no", str(copy)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (said.returncode, said.stderr) == (0, "")
