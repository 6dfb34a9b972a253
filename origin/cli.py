"""The `encore` command.

What a user got wrong ends in one red line, the fix in it, and exit status 2; a traceback is a bug
of ours. Heavy imports (the origin and its model) wait until a command needs them, so that
`encore --help` is quick.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import shlex
import signal
import socket
import sys
import tempfile
from functools import partial
from importlib.metadata import version as package_version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer
from rich.console import Console
from rich.panel import Panel
from rich.text import Text
from typer.exceptions import TyperException

from origin.audit_commands import audit
from origin.control_commands import CommandError, keys_app, policy, purge
from origin.dev import Part, PartDiedError, supervise
from origin.doctor_command import doctor
from origin.explain_command import explain_app
from origin.kv_size_command import kv_size
from origin.logs import set_up
from origin.plan_command import plan
from origin.semantic_commands import calibrate, eval_app
from origin.settings import Settings, SettingsError, load_settings, markdown
from origin.stats_commands import stats
from origin.warm_command import warm
from shared.keys import DEVELOPMENT_API_KEY

if TYPE_CHECKING:
    from collections.abc import Iterator

    from origin.departure import Patience

ROOT = Path(__file__).resolve().parent.parent
EDGE_SCRIPT = ROOT / "worker" / "local" / "edge.mjs"
NODE = ROOT / "node_modules" / ".bin" / "node"
QUESTION = "Describe 12 Oak Street: 3 bedrooms, 2 bathrooms, 1,500 sq ft, $450,000."
POLL_S = 0.1
METRICS_FOLDER = "PROMETHEUS_MULTIPROC_DIR"
EDGE_PATIENCE_S = 5.0
WORKER_MARGIN_S = 5.0
"""What the parent waits for a worker beyond the worker's own patience."""
EXIT_USER_ERROR = 2
EXIT_PART_DIED = 1

app = typer.Typer(
    help="Encore: an edge cache for LLM APIs.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(keys_app, name="keys")
app.command("policy")(policy)
app.command("purge")(purge)
app.command("stats")(stats)
app.command("audit")(audit)
app.command("doctor")(doctor)
app.command("calibrate")(calibrate)
app.add_typer(eval_app, name="eval")
app.add_typer(explain_app, name="explain")
app.command("warm")(warm)
app.command("plan")(plan)
app.command("kv-size")(kv_size)
out = Console()
err = Console(stderr=True)


def main() -> None:
    """Run the command line."""
    if sys.argv[1:2] != ["origin"]:
        os.environ.pop(METRICS_FOLDER, None)  # a command's numbers are none of the origin's
    try:
        sys.exit(app(prog_name="encore", standalone_mode=False))
    except (SettingsError, CommandError) as error:
        _refuse(str(error))
    except TyperException as error:  # options and arguments; without a word where help was shown
        if said := error.format_message():
            at = getattr(getattr(error, "ctx", None), "command_path", "encore")
            _refuse(f"{said.rstrip('.')}; see `{at} --help`")
        sys.exit(error.exit_code)
    except ModuleNotFoundError as error:
        if (error.name or "").startswith(("origin", "shared")):
            raise
        _refuse(f"{error.name} is not installed; install encore[local], of which it is a part")
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)


@app.command()
def dev() -> None:
    """Run everything on this machine: Redis, origin and local edge, in one log."""
    from origin.embedded_redis import redis_for  # noqa: PLC0415 - quick start

    settings = load_settings(mode="development")
    _check_free("127.0.0.1", settings.edge_port, "ENCORE_EDGE_PORT")
    _check_free(settings.origin_host, settings.origin_port, "ENCORE_ORIGIN_PORT")
    _edge_command(settings)  # refuses now rather than after the model has loaded
    with redis_for(settings) as redis_url, _terminable():
        parts = [_origin_part(settings, redis_url), _edge_part(settings)]
        try:
            asyncio.run(supervise(parts, out, on_ready=lambda: _print_ready(settings)))
        except PartDiedError as error:
            err.print(Text(f"{error}; see its log above. Everything was stopped.", "bold red"))
            raise typer.Exit(EXIT_PART_DIED) from error
    out.print("Stopped.")


@app.command()
def origin(
    *,
    workers: Annotated[
        int, typer.Option(min=1, max=256, help="Processes on the one port, each with its engine.")
    ] = 1,
    listener_fd: Annotated[
        int | None, typer.Option(hidden=True, help="Be a worker on this socket.")
    ] = None,
) -> None:
    """Run the origin: the service that answers what the edge does not have."""
    from origin.embedded_redis import redis_for  # noqa: PLC0415 - quick start
    from origin.stores.redis_checks import check_redis_of  # noqa: PLC0415

    settings = load_settings()
    folder = os.environ.get(METRICS_FOLDER)
    if workers == 1 and folder is not None and not Path(folder).is_dir():
        raise SettingsError(f"{METRICS_FOLDER}={folder!r}: there is no such folder; make it empty")
    many = workers > 1 or listener_fd is not None
    set_up(settings.log_format, settings.log_level, many=many)
    if listener_fd is not None:
        with socket.socket(fileno=listener_fd) as listener, _terminable():
            _serve(settings, listener)
        return
    listener = _listen(settings.origin_host, settings.origin_port, "ENCORE_ORIGIN_PORT")
    with listener, redis_for(settings) as redis_url, _terminable():
        settings = settings.replace(redis_url=redis_url)
        for warning in check_redis_of(settings):
            logging.getLogger(__name__).warning(warning)
        if workers > 1:
            _serve_by_workers(workers, listener, redis_url, settings.patience)
        else:
            _serve(settings, listener)


def _serve(settings: Settings, listener: socket.socket) -> None:
    from origin.app import build_app  # noqa: PLC0415 - quick start
    from origin.departure import Departure  # noqa: PLC0415
    from origin.server import server as server_of  # noqa: PLC0415

    departure = Departure()
    server = server_of(build_app(settings, departure), departure, settings.patience)
    with contextlib.suppress(KeyboardInterrupt):
        server.run(sockets=[listener])
    if not server.started:
        raise typer.Exit(EXIT_PART_DIED)


def _serve_by_workers(
    count: int, listener: socket.socket, redis_url: str, patience: Patience
) -> None:
    from prometheus_client.multiprocess import mark_process_dead  # noqa: PLC0415 - quick start

    from origin.workers import WorkerRefusedError, run_workers  # noqa: PLC0415

    command = [sys.executable, "-m", "origin.cli", "origin"]
    command += ["--listener-fd", str(listener.fileno())]
    with tempfile.TemporaryDirectory(prefix="encore-metrics-") as metrics:
        environ = {**os.environ, "REDIS_URL": redis_url, METRICS_FOLDER: metrics}
        try:
            asyncio.run(
                run_workers(
                    command,
                    count,
                    environ=environ,
                    listener=listener,
                    stop_timeout_s=patience.total_s + WORKER_MARGIN_S,
                    on_death=partial(mark_process_dead, path=metrics),
                )
            )
        except WorkerRefusedError as error:
            raise typer.Exit(EXIT_USER_ERROR) from error


@app.command()
def edge() -> None:
    """Run the edge on this machine: the Worker in workerd, with a KV namespace of its own."""
    settings = load_settings()
    _check_free("127.0.0.1", settings.edge_port, "ENCORE_EDGE_PORT")
    command = _edge_command(settings)
    sys.stdout.flush()
    os.execve(command[0], command, _edge_environ(settings))  # noqa: S606 - no shell is wanted


@app.command("settings")
def show_settings(
    *,
    as_markdown: Annotated[
        bool, typer.Option("--markdown", help="Print the reference, docs/configuration.md.")
    ] = False,
) -> None:
    """Check the settings, and print them without their secrets."""
    if as_markdown:
        sys.stdout.write(markdown())
        return
    for name, value in load_settings():
        if isinstance(value, tuple):
            value = ", ".join(map(str, value)) or None  # noqa: PLW2901
        out.print(f"{name} = {value}", markup=False, soft_wrap=True)


@app.command()
def version() -> None:
    """Print the version."""
    out.print(package_version("encore"), highlight=False)


def _refuse(message: str) -> NoReturn:
    for line in message.splitlines():
        err.print(Text(f"encore: {line}", "bold red"), soft_wrap=True)
    sys.exit(EXIT_USER_ERROR)


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """Make SIGTERM unwind like Ctrl-C, so that what was started is stopped."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _listen(host: str, port: int, variable: str) -> socket.socket:
    """Return a bound socket, or raise SettingsError naming the port's variable."""
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except OSError as error:
        raise SettingsError(
            f"ENCORE_ORIGIN_HOST={host!r}: not an address of this machine ({error.strerror})"
        ) from error
    listener = socket.socket(family, kind)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(2048)
    except OSError as error:
        listener.close()
        raise SettingsError(
            f"{variable}={port}: cannot listen on {host}:{port} ({error.strerror}); "
            f"stop what uses it, or set {variable} to another port"
        ) from error
    return listener


def _check_free(host: str, port: int, variable: str) -> None:
    _listen(host, port, variable).close()


def _edge_url(settings: Settings) -> str:
    return f"http://127.0.0.1:{settings.edge_port}"


def _edge_command(settings: Settings) -> list[str]:
    if not EDGE_SCRIPT.is_file():
        raise SettingsError(
            "the local edge is not part of the installed package; run `encore` from a checkout of "
            "Encore's repository"
        )
    if not NODE.exists():
        raise SettingsError(f"{NODE} is missing; run `make setup`")
    command = [str(NODE), str(EDGE_SCRIPT), "--port", str(settings.edge_port)]
    command += ["--config", str(ROOT / "wrangler.toml"), "--persist", ".wrangler/state"]
    for name in _edge_variables(settings):
        command += ["--var", name]  # its value comes from the environment, unseen by `ps`
    return command


def _edge_variables(settings: Settings) -> dict[str, str]:
    previous = settings.previous_secret
    rotating = {} if previous is None else {"ENCORE_PREVIOUS_SECRET": previous.get_secret_value()}
    return rotating | {
        "ENCORE_MODE": settings.mode,
        "ENCORE_SECRET": settings.secret.get_secret_value(),
        "ENCORE_ORIGIN_URL": settings.origin_url or settings.local_origin_url,
        "ENCORE_MAX_CACHED_BODY_BYTES": str(settings.max_cached_body_bytes),
        "ENCORE_MAX_BODY_BYTES": str(settings.max_body_bytes),
        # The origin's own 504 comes first, and says more.
        "ENCORE_ORIGIN_TIMEOUT_S": str(settings.request_deadline_s + EDGE_PATIENCE_S),
    }


def _edge_environ(settings: Settings) -> dict[str, str]:
    # The Worker's build command runs `python3`: this one, which has the SDK it stages.
    tools = [str(Path(sys.executable).parent), str(NODE.parent), os.environ.get("PATH", "")]
    return {**os.environ, "PATH": os.pathsep.join(tools), **_edge_variables(settings)}


def _origin_part(settings: Settings, redis_url: str) -> Part:
    environ = {
        **os.environ,
        "PYTHONUNBUFFERED": "1",
        "ENCORE_MODE": settings.mode,
        "ENCORE_SECRET": settings.secret.get_secret_value(),
        "ENCORE_EDGE_URL": settings.edge_url or _edge_url(settings),
        "REDIS_URL": redis_url,
        "ENCORE_DRAIN_S": "0",  # nobody spreads requests here
    }
    return Part(
        name="origin",
        style="green",
        command=[sys.executable, "-m", "origin.cli", "origin"],
        environ=environ,
        ready=lambda: _until_ok(f"{settings.local_origin_url}/readyz"),
    )


def _edge_part(settings: Settings) -> Part:
    return Part(
        name="edge",
        style="magenta",
        command=_edge_command(settings),
        environ=_edge_environ(settings),
        ready=lambda: _until_ok(f"{_edge_url(settings)}/healthz"),
    )


async def _until_ok(url: str) -> None:
    import httpx  # noqa: PLC0415 - quick start

    async with httpx.AsyncClient(trust_env=False, timeout=1.0) as client:
        while True:
            with contextlib.suppress(httpx.HTTPError):
                if (await client.get(url)).is_success:
                    return
            await asyncio.sleep(POLL_S)


async def _print_ready(settings: Settings) -> None:
    edge_url = _edge_url(settings)
    body = {
        "model": await _first_model(settings),
        "messages": [{"role": "user", "content": QUESTION}],
    }
    curl = (
        f"curl -i {edge_url}/v1/chat/completions -H 'Authorization: Bearer {DEVELOPMENT_API_KEY}' "
        f"-H 'Content-Type: application/json' -d {shlex.quote(json.dumps(body))}"
    )
    lines = (
        f"edge    {edge_url}/v1   (the base_url for your OpenAI client)\n"
        f"origin  {settings.local_origin_url}/v1   (and /dashboard, which the key opens)\n"
        f"key     {DEVELOPMENT_API_KEY}   (this machine only)\n\n"
        "Paste this twice; the second answer comes from the edge (see Cache-Status). Ctrl-C stops."
    )
    out.print(Panel(Text(lines), title="Encore is ready", border_style="bold green", expand=False))
    out.print(Text(curl), soft_wrap=True)  # outside the panel, to be copied whole


async def _first_model(settings: Settings) -> str:
    import httpx  # noqa: PLC0415 - quick start

    headers = {"Authorization": f"Bearer {DEVELOPMENT_API_KEY}"}
    async with httpx.AsyncClient(trust_env=False, timeout=settings.request_deadline_s) as client:
        response = await client.get(f"{settings.local_origin_url}/v1/models", headers=headers)
    models = response.json().get("data", []) if response.is_success else []
    return str(models[0]["id"]) if models else "MODEL"


if __name__ == "__main__":
    main()
