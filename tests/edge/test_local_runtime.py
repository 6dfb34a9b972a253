"""The local edge runs a Worker as the platform does: what works, and what is refused."""

from __future__ import annotations

import gzip
import http.client
import json
import socket
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.edge.local_edge import Edge, StartEdge, run_edge
from tests.edge.projects import Projects

# Entropy, network, timers, bindings, threads and processes.
REFUSED_AT_IMPORT = {
    "os.urandom": "OSError",
    "secrets": "OSError",
    "uuid4": "OSError",
    "random.random": "OSError",
    "random.randint, by name": "OSError",
    "random.shuffle": "OSError",
    "random.Random, no seed": "OSError",
    "random.seed": "OSError",
    "SystemRandom": "OSError",
    "getRandomValues": "JsException",
    "randomUUID": "JsException",
    "fetch": "JsException",
    "timer": "JsException",
    "kv": "AttributeError",
    "thread": "RuntimeError",
    "subprocess": "OSError",
}


def ask(
    edge: Edge, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
) -> tuple[http.client.HTTPResponse, bytes]:
    """One request on a connection of its own, nothing added but Host; the body as on the wire."""
    connection = http.client.HTTPConnection(urlsplit(edge.url).netloc, timeout=30)
    try:
        connection.putrequest("POST" if body else "GET", path, skip_accept_encoding=True)
        for name, value in (headers or {}).items():
            connection.putheader(name, value)
        if body:
            connection.putheader("content-length", str(len(body)))
        connection.endheaders(body)
        response = connection.getresponse()
        return response, response.read()
    finally:
        connection.close()


@pytest.fixture(scope="module")
def facts(runtime: Edge) -> dict[str, Any]:
    """What the fixture Worker saw at import and in a handler."""
    response, body = ask(runtime, "/facts")
    assert response.status == 200, runtime.log()
    result: dict[str, Any] = json.loads(body)
    return result


@pytest.mark.parametrize("path", ["/hello", "/raw"])
def test_response_kinds(runtime: Edge, path: str) -> None:
    """A handler may return the SDK's Response or JavaScript's."""
    response, body = ask(runtime, path)
    assert (response.status, body) == (200, b"hello")


@pytest.mark.parametrize("name", sorted(REFUSED_AT_IMPORT))
def test_refused_at_import(facts: dict[str, Any], name: str) -> None:
    """What the platform refuses while a Worker is imported is refused here."""
    assert facts["at_import"][name] == REFUSED_AT_IMPORT[name]


def test_allowed_at_import(facts: dict[str, Any]) -> None:
    """Importing random and drawing from a seeded generator is fine."""
    assert facts["at_import"]["random.Random, seeded"] == "ok"


def test_network_at_import(facts: dict[str, Any]) -> None:
    """No socket opens at import."""
    assert facts["at_import"]["socket"] != "ok"


def test_guards_are_lifted_in_handlers(facts: dict[str, Any]) -> None:
    """In a handler entropy exists; threads and processes never do."""
    refused = {name for name, outcome in facts["in_handler"].items() if outcome != "ok"}
    assert refused == {"thread", "subprocess"}


def test_clock_at_import(facts: dict[str, Any]) -> None:
    """The clock reads 1970 at import, and the time of day in a handler."""
    assert facts["clock_at_import_s"] == 0
    assert facts["clock_s"] > 1_700_000_000


def test_search_path(facts: dict[str, Any]) -> None:
    """Vendored modules come before the Worker's own; the main module has its bare name."""
    assert facts["path"] == [
        "/lib/python314.zip",
        "/lib/python3.14/lib-dynload",
        "/session/metadata/python_modules",
        "/lib/python3.14/site-packages",
        "/session/metadata",
    ]
    assert facts["path_at_import"] == facts["path"]
    assert (facts["python"], facts["name"], facts["package"]) == ([3, 14], "entry", "")


def test_modules_are_read_only(facts: dict[str, Any]) -> None:
    """Nothing below /session/metadata can be changed."""
    assert set(facts["writes"].values()) <= {"PermissionError", "OSError"}


def test_bindings(facts: dict[str, Any]) -> None:
    """A Worker sees what it is configured with, and nothing of the runner."""
    assert facts["bindings"] == ["GREETING", "KV", "OVERRIDDEN", "SECRET"]


def test_variables(runtime: Edge) -> None:
    """Command line over .dev.vars over wrangler.toml."""
    assert json.loads(ask(runtime, "/variable")[1]) == {
        "GREETING": "from wrangler.toml",
        "SECRET": "from-dev-vars",
        "OVERRIDDEN": "from the command line",
    }


def test_kv_round_trip(runtime: Edge) -> None:
    """KV keeps bytes and metadata."""
    ask(runtime, "/put", body=b"\x00\x01\xff")
    response, body = ask(runtime, "/get")
    assert (body, response.headers["metadata"]) == (b"\x00\x01\xff", '{"length":3}')


def test_gzip_leaves_as_it_is(runtime: Edge) -> None:
    """A body marked encodeBody manual is not compressed again, nor opened."""
    stored = gzip.compress(b'{"a": 1}', mtime=0)
    response, body = ask(runtime, "/gzip", body=stored, headers={"accept-encoding": "gzip"})
    assert (response.headers["content-encoding"], body) == ("gzip", stored)


def test_gzip_is_inflated(runtime: Edge) -> None:
    """A client that accepts no gzip gets the plain body."""
    stored = gzip.compress(b'{"a": 1}', mtime=0)
    response, body = ask(runtime, "/gzip", body=stored, headers={"accept-encoding": "identity"})
    assert (response.headers["content-encoding"], body) == (None, b'{"a": 1}')


def test_wait_until(runtime: Edge) -> None:
    """Work handed to waitUntil goes on after the answer."""
    assert ask(runtime, "/later")[1] == b"answered"
    assert _until(runtime, "/late", b"written")


def test_scheduled(runtime: Edge) -> None:
    """The cron handler is reached where Miniflare offers it."""
    response, _ = ask(runtime, "/cdn-cgi/local/scheduled?cron=*/5+*+*+*+*")
    assert response.status == 200
    assert ask(runtime, "/cron")[1] == b"*/5 * * * *"


def test_unhandled_exception(runtime: Edge) -> None:
    """A bug becomes the platform's 500, and its traceback is in the log."""
    response, body = ask(runtime, "/boom")
    assert (response.status, body) == (500, b"error code: 1101\n")
    runtime.wait_for_log("ValueError: boom")
    assert "about to fail\n" in runtime.log()


def test_run_sync(runtime: Edge) -> None:
    """A synchronous call may wait for a promise."""
    assert ask(runtime, "/sync")[1] == b"waited"


def test_state_survives_a_restart(start_edge: StartEdge, runtime_project: Path) -> None:
    """KV entries outlive the edge; random numbers are not those of the run before."""
    first = start_edge(runtime_project)
    ask(first, "/put", body=b"kept")
    number = ask(first, "/random")[1]
    assert first.stop() == 0
    second = start_edge(runtime_project, persist=first.persist)
    assert ask(second, "/get")[1] == b"kept"
    assert ask(second, "/random")[1] != number
    assert second.stop() == 0


def test_reload(start_edge: StartEdge, projects: Projects) -> None:
    """A change is served; a broken one is reported while the old Worker goes on."""
    config = projects.copy("runtime_worker.py")
    edge = start_edge(config)
    source = config.parent / "worker/entry.py"
    text = source.read_text()
    source.write_text(text + "\nraise RuntimeError('broken edit')\n")
    edge.wait_for_log("RuntimeError: broken edit")
    edge.wait_for_log("still running what ran before")
    assert ask(edge, "/version")[1] == b"version 1"
    source.write_text(text.replace("version 1", "version 2"))
    edge.wait_for_log("edge reloaded")
    assert ask(edge, "/version")[1] == b"version 2"
    assert edge.log().count("edge ready") == 1
    assert edge.stop() == 0


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("KEPT = js.Headers.new()", "Can't serialize top-level variable: a JavaScript Headers"),
        ("KEPT = create_proxy(print)", "Can't serialize top-level variable"),
        ("import os; os.urandom(1)", "os.urandom() is not available while the Worker is imported"),
        ("import no_such_module", "No module named 'no_such_module'"),
    ],
)
def test_worker_that_would_not_deploy(projects: Projects, statement: str, message: str) -> None:
    """Such a Worker does not start: the reason is printed and the exit status says so."""
    config = projects.make(
        "import js\nfrom pyodide.ffi import create_proxy\nfrom workers import WorkerEntrypoint\n"
        f"{statement}\nclass Default(WorkerEntrypoint):\n    pass\n"
    )
    result = run_edge(config, "--port", "0")
    assert result.returncode == 1
    assert message in result.stderr
    assert "edge ready" not in result.stdout


def test_taken_port(runtime_project: Path) -> None:
    """A taken port is named in one line."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        result = run_edge(runtime_project, "--port", str(port))
    assert result.returncode == 1
    assert result.stderr == (
        f"edge: port {port} on 127.0.0.1 is taken; choose another one with --port\n"
    )


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])  # noqa: S104 - it is refused
def test_development_mode_is_for_this_machine_alone(runtime_project: Path, host: str) -> None:
    """Who says that they are `localhost` might be anywhere, and the development key is public."""
    result = run_edge(
        runtime_project, "--port", "0", "--host", host, "--var", "ENCORE_MODE=development"
    )
    assert result.returncode == 1
    assert result.stderr.startswith(f"edge: --host {host} with ENCORE_MODE=development lets others")
    assert "edge ready" not in result.stdout


class Upstream:
    """A server that streams until told to finish; it sees its client leave."""

    def __init__(self) -> None:
        self._server = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._server.getsockname()[1]}/"
        self.finish = threading.Event()
        self.left = threading.Event()
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        connection, _ = self._server.accept()
        with connection:
            connection.recv(65536)
            connection.sendall(
                b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nfirst\r\n"
            )
            connection.settimeout(0.02)
            while not self.finish.is_set():
                try:
                    if not connection.recv(1):
                        break
                except TimeoutError:
                    connection.sendall(b"4\r\nmore\r\n")
                except OSError:
                    break
            else:
                connection.sendall(b"4\r\nlast\r\n0\r\n\r\n")
                return
            self.left.set()

    def close(self) -> None:
        """Stop listening."""
        self.finish.set()
        self._server.close()


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    """A server for one relayed stream."""
    server = Upstream()
    yield server
    server.close()


def _open_relay(edge: Edge, upstream: Upstream) -> tuple[socket.socket, bytes]:
    client = socket.create_connection((urlsplit(edge.url).hostname, urlsplit(edge.url).port or 80))
    client.settimeout(30)
    client.sendall(f"GET /relay?{upstream.url} HTTP/1.1\r\nhost: e\r\n\r\n".encode())
    seen = b""
    while b"first" not in seen:
        seen += client.recv(65536)
    return client, seen


def test_relay_is_not_buffered(runtime: Edge, upstream: Upstream) -> None:
    """A streamed body reaches the client piece by piece, and a waiting task hears of its end."""
    client, _ = _open_relay(runtime, upstream)
    with client:
        upstream.finish.set()
        seen = b""
        while b"last" not in seen:
            seen += client.recv(65536)
    runtime.wait_for_log("relay finished")


def test_client_that_leaves(runtime: Edge, upstream: Upstream) -> None:
    """When the client leaves mid-stream the upstream connection closes; a task hears of it."""
    client, _ = _open_relay(runtime, upstream)
    client.close()
    assert upstream.left.wait(10)
    runtime.wait_for_log("relay broken")


def _until(edge: Edge, path: str, expected: bytes) -> bool:
    return any(ask(edge, path)[1] == expected for _ in range(200))
