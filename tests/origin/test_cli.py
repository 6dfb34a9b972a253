"""The `encore` command, run as users run it."""

from __future__ import annotations

import json
import re
import shlex
import signal
import socket
import subprocess
import sys
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

from origin.cli import NODE
from shared.keys import authenticate, key_rings
from tests.origin.engine.fake_upstream import FakeUpstream, fake_upstream
from tests.support.commands import ROOT, encore, environ
from tests.support.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator

SECRET = "0123456789abcdef0123456789abcdef"
NOWHERE = "redis://127.0.0.1:1"
ANSWER = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1,
    "model": "m",
    "choices": [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "Two rooms."},
            "finish_reason": "stop",
        }
    ],
    "usage": {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7},
}


@contextmanager
def started(tmp_path: Path, *arguments: str, **variables: str) -> Iterator[subprocess.Popen[str]]:
    """Run a command for the length of the block."""
    with subprocess.Popen(
        [sys.executable, "-m", "origin.cli", *arguments],
        cwd=tmp_path,
        env=environ(**variables),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.terminate()


@pytest.fixture
def taken() -> Iterator[str]:
    """A port on which someone else listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield str(listener.getsockname()[1])


@pytest.fixture
def upstream() -> Iterator[FakeUpstream]:
    """An upstream that answers everything with ANSWER and lists one model."""
    with fake_upstream() as fake:
        fake.say(ANSWER | {"data": [{"id": "m"}]})
        yield fake


def listens(port: str) -> bool:
    """Whether anything accepts connections on a port."""
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", int(port))) == 0


def test_help_names_every_command(tmp_path: Path) -> None:
    """It also loads nothing that takes long."""
    result = encore(tmp_path, "--help")
    assert result.returncode == 0
    for command in (
        "dev",
        "origin",
        "edge",
        "keys",
        "policy",
        "purge",
        "stats",
        "audit",
        "settings",
        "version",
        "warm",
        "kv-size",
    ):
        assert re.search(rf"\b{command}\b", result.stdout)


def test_nothing_heavy_is_loaded_before_it_is_needed() -> None:
    """A model, a server or Redis is loaded by the command that runs it."""
    code = (
        "import sys, origin.cli\n"
        "print({'torch', 'transformers', 'uvicorn', 'starlette', 'redis', 'httpx', 'numpy'}"
        " & set(sys.modules))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "set()"


def test_a_created_key_opens_the_door(tmp_path: Path) -> None:
    """It is alone on standard output, and belongs to the tenant."""
    result = encore(tmp_path, "keys", "create", "acme", ENCORE_SECRET=SECRET)
    (key,) = result.stdout.splitlines()
    client = authenticate(key_rings(SECRET), f"Bearer {key}", development=False)
    assert client.tenant == "acme"
    again = encore(tmp_path, "keys", "create", "acme", ENCORE_SECRET=SECRET)
    assert again.stdout != result.stdout
    assert key.encode() not in b"".join(
        path.read_bytes() for path in (tmp_path / ".encore").rglob("*") if path.is_file()
    )


@pytest.mark.parametrize(
    ("arguments", "variables", "said"),
    [
        (["origin"], {}, "encore: ENCORE_SECRET is not set"),
        (["foo"], {}, "encore: No such command 'foo'; see `encore --help`"),
        (
            ["origin"],
            {"ENCORE_SECRET": SECRET, "PROMETHEUS_MULTIPROC_DIR": "/nowhere"},
            "PROMETHEUS_MULTIPROC_DIR='/nowhere': there is no such folder",
        ),
        (["warm"], {}, "encore: Missing argument 'FILE'; see `encore warm --help`"),
        (["origin", "--workers", "0"], {}, "encore: Invalid value for '--workers'"),
        (
            ["audit", "--since", "5w"],
            {"ENCORE_SECRET": SECRET},
            "encore: --since '5w': a number and",
        ),
        (["audit", "--tenant", "A_B"], {"ENCORE_SECRET": SECRET}, "encore: --tenant: "),
        (["edge"], {}, "encore: ENCORE_SECRET is not set"),
        (["keys", "create", "acme"], {}, "encore: ENCORE_SECRET is not set"),
        (["keys", "create", "A_B"], {"ENCORE_SECRET": SECRET}, "encore: TENANT: "),
        (["purge", "A_B", "--everything"], {"ENCORE_SECRET": SECRET}, "encore: TENANT: "),
        (["purge"], {"ENCORE_SECRET": SECRET}, "encore: TENANT is missing"),
        (["purge", "acme"], {"ENCORE_SECRET": SECRET}, "--everything"),
        (["purge", "acme", "--everything", "--tag", "x"], {"ENCORE_SECRET": SECRET}, "or else by"),
        (["purge", "acme", "--older-than", "7"], {"ENCORE_SECRET": SECRET}, "--older-than '7'"),
        (["purge", "--all-tenants"], {"ENCORE_SECRET": SECRET}, "goes with --everything"),
        (
            ["purge", "acme", "--all-tenants", "--everything"],
            {"ENCORE_SECRET": SECRET},
            "nothing else",
        ),
        (["policy", "acme", "--template", "x"], {"ENCORE_SECRET": SECRET}, "NAME@VERSION=PATTERN"),
        (["keys", "create", "acme"], {"ENCORE_SECRET": SECRET, "REDIS_URL": NOWHERE}, "REDIS_URL"),
        (["keys", "list", "acme"], {"ENCORE_SECRET": SECRET, "REDIS_URL": NOWHERE}, "REDIS_URL"),
        (
            ["purge", "--all-tenants", "--everything"],
            {"ENCORE_SECRET": SECRET, "REDIS_URL": NOWHERE},
            "REDIS_URL",
        ),
        (["settings"], {"ENCORE_SECRETT": "x"}, "did you mean ENCORE_SECRET?"),
        (["dev"], {"ENCORE_ORIGIN_PORT": "x"}, "encore: ENCORE_ORIGIN_PORT='x': "),
        (["dev"], {"ENCORE_ORIGIN_HOST": "0.0.0.0"}, "ENCORE_ORIGIN_HOST='0.0.0.0'"),  # noqa: S104
    ],
)
def test_a_users_mistake_is_one_line_and_status_2(
    tmp_path: Path, arguments: list[str], variables: dict[str, str], said: str
) -> None:
    """The line names what is wrong; there is no traceback."""
    result = encore(tmp_path, *arguments, **variables)
    assert result.returncode == 2
    assert said in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert result.stdout == ""


WITHOUT_LOCAL = """import sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"torch", "transformers", "tokenizers", "onnxruntime"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Missing())
"""
"""What hides the packages of encore[local] that others are imported after."""


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (["kv-size", "encore-demo"], 2),
        (["eval", "semantic", "rows.jsonl"], 2),
        (["explain", "semantic", "One", "Another"], 2),
        (["origin"], 2),
        (["doctor", "--load"], 1),
    ],
)
def test_what_needs_more_than_is_installed_says_so(
    tmp_path: Path, arguments: list[str], status: int
) -> None:
    """An origin in front of an upstream is installed without models."""
    (tmp_path / "sitecustomize.py").write_text(WITHOUT_LOCAL)
    (tmp_path / "rows.jsonl").write_text('{"a": "One", "b": "Another", "same": 0}\n')
    result = encore(
        tmp_path,
        *arguments,
        ENCORE_SECRET=SECRET,
        ENCORE_ORIGIN_PORT=str(free_port()),
        PYTHONPATH=f"{tmp_path}:{ROOT}",
    )
    said = result.stdout + result.stderr
    assert result.returncode == status, said
    assert "encore[local]" in said
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("command", "name"),
    [
        ("origin", "ENCORE_ORIGIN_PORT"),
        ("edge", "ENCORE_EDGE_PORT"),
        ("dev", "ENCORE_EDGE_PORT"),
        ("dev", "ENCORE_ORIGIN_PORT"),
    ],
)
def test_a_taken_port_is_named(tmp_path: Path, taken: str, command: str, name: str) -> None:
    """Together with the variable that chooses another."""
    others = {"ENCORE_ORIGIN_PORT": str(free_port()), "ENCORE_EDGE_PORT": str(free_port())}
    result = encore(tmp_path, command, ENCORE_SECRET=SECRET, **(others | {name: taken}))
    assert result.returncode == 2
    assert result.stderr.startswith(f"encore: {name}={taken}: cannot listen on 127.0.0.1:{taken}")


def test_settings_are_shown_without_secrets(tmp_path: Path) -> None:
    """What is in force, for a look before a start."""
    result = encore(tmp_path, "settings", ENCORE_SECRET=SECRET, ENCORE_ORIGIN_PORT="9000")
    assert "origin_port = 9000" in result.stdout
    assert SECRET not in result.stdout


def test_the_origin_serves_until_it_is_told_to_stop(tmp_path: Path, upstream: FakeUpstream) -> None:
    """With an upstream and the embedded Redis: a miss, a hit, and a clean end."""
    port = str(free_port())
    key = encore(tmp_path, "keys", "create", "acme", ENCORE_SECRET=SECRET).stdout.strip()
    variables = {
        "ENCORE_SECRET": SECRET,
        "ENCORE_ORIGIN_PORT": port,
        "ENCORE_UPSTREAM": upstream.url,
    }
    with (
        started(tmp_path, "origin", **variables) as process,
        httpx.Client(
            base_url=f"http://127.0.0.1:{port}",
            headers={"authorization": f"Bearer {key}"},
            transport=httpx.HTTPTransport(retries=10),
        ) as client,
    ):
        assert client.get("/readyz").status_code == 200
        body = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
        answers = [client.post("/v1/chat/completions", json=body) for _ in range(2)]
        process.send_signal(signal.SIGTERM)
        said, _ = process.communicate(timeout=30)
    assert process.returncode == 0, said
    assert answers[0].json() == answers[1].json()
    assert "fwd=miss" in answers[0].headers["cache-status"]
    assert "hit" in answers[1].headers["cache-status"]
    assert "Traceback" not in said
    assert not (tmp_path / ".encore" / "redis" / "redis.sock").exists()


@pytest.mark.skipif(not NODE.exists(), reason="node_modules is missing (make setup)")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_dev_runs_everything_until_one_signal(
    tmp_path: Path, upstream: FakeUpstream, number: signal.Signals
) -> None:
    """It says what to paste, which works, and leaves nothing running."""
    ports = {"ENCORE_ORIGIN_PORT": str(free_port()), "ENCORE_EDGE_PORT": str(free_port())}
    with started(tmp_path, "dev", ENCORE_UPSTREAM=upstream.url, **ports) as process:
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            lines.append(line)
            if line.startswith("curl "):
                break
        said = "".join(lines)
        assert "Encore is ready" in said
        assert f"http://127.0.0.1:{ports['ENCORE_EDGE_PORT']}/v1" in said
        secret = (tmp_path / ".encore" / "dev-secret").read_bytes().strip()
        assert not any(secret in words for words in arguments_of_all())
        url, headers, body = pasted(lines[-1])
        statuses = [
            httpx.post(url, headers=headers, json=body).headers["cache-status"] for _ in range(2)
        ]
        process.send_signal(number)
        rest, _ = process.communicate(timeout=60)
    assert process.returncode == 0, rest
    assert statuses[0].startswith("encore-origin; fwd=miss")
    assert statuses[1].startswith("encore-edge; hit")
    assert not any(listens(port) for port in ports.values())
    assert not (tmp_path / ".encore" / "redis" / "redis.sock").exists()


@pytest.mark.skipif(not NODE.exists(), reason="node_modules is missing (make setup)")
def test_dev_stops_when_a_part_cannot_start(tmp_path: Path) -> None:
    """The status is not 0, and the part and its own words are there to read."""
    ports = {"ENCORE_ORIGIN_PORT": str(free_port()), "ENCORE_EDGE_PORT": str(free_port())}
    result = encore(tmp_path, "dev", ENCORE_MODEL=str(tmp_path / "no-model"), **ports)
    assert result.returncode == 1
    assert "origin stopped by itself (exit status 2)" in result.stderr
    assert "ENCORE_MODEL" in result.stdout
    assert not any(listens(port) for port in ports.values())


def arguments_of_all() -> Iterator[bytes]:
    """The command lines of every process here, as anyone may read them."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):  # it has just ended
            yield path.read_bytes()


def pasted(line: str) -> tuple[str, dict[str, str], dict[str, object]]:
    """Read a curl line: URL, headers, JSON body."""
    words = shlex.split(line)
    headers = [words[index + 1] for index, word in enumerate(words) if word == "-H"]
    body = json.loads(words[words.index("-d") + 1])
    return words[2], dict(header.split(": ", 1) for header in headers), body
