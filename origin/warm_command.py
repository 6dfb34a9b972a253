"""`encore warm`: make the answers to a file of requests before anybody asks for them.

It is a client like any other: over HTTP, with an API key, of an edge or an origin. The file is read
line by line, never whole. Nothing that it prints quotes a request.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO, Protocol

import typer
from rich.console import Console
from rich.table import Table

from origin.client_target import client_target
from origin.control_commands import CommandError
from origin.warm_journal import Journal, JournalError
from origin.warm_requests import WarmRequest, read
from shared import json_text
from shared.errors import ClientError

if TYPE_CHECKING:
    import httpx

MAX_LINE_BYTES = 32 << 20
ATTEMPTS = 5
MAX_RETRY_WAIT_S = 300.0
TIMEOUT_S = 300.0
SHOWN_FAILURES = 20
EXIT_FAILED = 1
NO_CONNECTION = "no connection"
_AGAIN = frozenset({408, 429, 502, 503, 504})
_REFUSED = frozenset({401, 403})
out = Console()
err = Console(stderr=True)


class RefusedError(Exception):
    """No other line would fare better: the API key is refused, or nobody is there at all."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Line:
    """A line of the file. `wrong` says what is, where it is no request."""

    number: int
    raw: bytes
    request: WarmRequest | None = None
    wrong: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What became of a line: `cached`, `generated`, `absent` (dry run), or why it failed."""

    kind: str
    stored: bool = False
    tokens: int = 0
    reason: str | None = None


@dataclass(kw_only=True)
class Summary:
    """What a run came to."""

    kinds: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    stored: int = 0
    tokens: int = 0
    elapsed_s: float = 0.0

    @property
    def lines(self) -> int:
        """All that were looked at."""
        return self.kinds.total()

    def add(self, outcome: Outcome) -> None:
        """Count one."""
        self.kinds[outcome.kind] += 1
        self.stored += outcome.stored
        self.tokens += outcome.tokens
        if outcome.reason is not None:
            self.reasons[outcome.reason] += 1


class Watcher(Protocol):
    """Who is told how a run goes."""

    def seen(self, line: Line, outcome: Outcome) -> None:
        """A line is done with."""


def warm(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE", help="Requests, one JSON object a line; OpenAI's batch files too."
        ),
    ],
    *,
    base_url: Annotated[
        str | None, typer.Option(help="Edge or origin; by default ENCORE_EDGE_URL or the origin.")
    ] = None,
    api_key: Annotated[
        str | None, typer.Option(envvar="ENCORE_API_KEY", help="The tenant's API key.")
    ] = None,
    concurrency: Annotated[int, typer.Option(min=1, max=1000, help="Requests at once.")] = 4,
    rate: Annotated[float | None, typer.Option(min=0.001, help="Most requests a second.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check the lines and what is known; generate nothing.")
    ] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on where the last run of this file was cut off.")
    ] = False,
    fail_fast: Annotated[bool, typer.Option("--fail-fast", help="End at the first failure.")] = (
        False
    ),
) -> None:
    """Ask for every request in FILE, so that its answer is known when somebody else asks.

    Exit status: 0 where every line is warm, 1 where some are not, 2 where nothing could be begun.
    """
    url, key = client_target(base_url, api_key)
    journal: Journal | None = None
    try:
        with file.open("rb") as opened, _watching(file, opened) as watcher:
            if not dry_run:
                # Of one address and tenant: what is done for another is not done for this one.
                run = f"{url} {key.rsplit('-', 2)[0]}"
                journal = Journal(file.with_name(file.name + ".journal"), run=run, resume=resume)
            summary = asyncio.run(
                _run(
                    opened,
                    url=url,
                    key=key,
                    journal=journal,
                    watcher=watcher,
                    concurrency=concurrency,
                    rate=rate,
                    dry_run=dry_run,
                    fail_fast=fail_fast,
                )
            )
    except KeyboardInterrupt:
        if journal is not None:
            err.print("Interrupted. With --resume the same command goes on from here.")
        raise
    except JournalError as error:
        raise CommandError(str(error)) from error
    except OSError as error:
        raise CommandError(f"{error.filename or file}: {error.strerror or error}") from error
    except RefusedError as error:
        raise CommandError(f"{url}: {error}") from error
    finally:
        if journal is not None:
            journal.close()
    _show(summary, dry_run=dry_run)
    if summary.kinds["failed"]:
        raise typer.Exit(EXIT_FAILED)
    if journal is not None:
        journal.remove()


async def warm_all(
    lines: Iterator[Line],
    ask: Callable[[WarmRequest], Awaitable[Outcome]],
    *,
    journal: Journal | None,
    watcher: Watcher,
    concurrency: int,
    rate: float | None = None,
    fail_fast: bool = False,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> Summary:
    """Ask for each line, `concurrency` at a time, `rate` a second at most.

    Lines that the journal has are passed over. Raises what `ask` does.
    """
    summary = Summary()
    began_s = time.monotonic()
    pace = _Pace(rate, sleep)
    failed = False

    async def work() -> None:
        nonlocal failed
        while not (failed and fail_fast) and (line := next(lines, None)) is not None:
            if line.request is None:
                outcome = Outcome(kind="failed", reason="bad line")
            elif journal is not None and line.raw in journal:
                outcome = Outcome(kind="done before")
            else:
                await pace.wait()
                outcome = await ask(line.request)
                if journal is not None and outcome.kind != "failed":
                    journal.add(line.raw)
            failed = failed or outcome.kind == "failed"
            summary.add(outcome)
            watcher.seen(line, outcome)

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(concurrency):
                group.create_task(work())
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from None
    summary.elapsed_s = time.monotonic() - began_s
    return summary


def lines_of(file: BinaryIO) -> Iterator[Line]:
    """The lines of a file that are not empty, read on as they are asked for."""
    number = 0
    while raw := file.readline(MAX_LINE_BYTES + 1):
        number += 1
        if len(raw) > MAX_LINE_BYTES:
            while raw and not raw.endswith(b"\n"):
                raw = file.readline(MAX_LINE_BYTES)
            yield Line(number=number, raw=b"", wrong=f"longer than {MAX_LINE_BYTES} bytes")
            continue
        raw = raw.strip()
        if number == 1:
            raw = raw.removeprefix(b"\xef\xbb\xbf")
        if not raw:
            continue
        try:
            request = read(json_text.parse_object(raw))
        except ClientError as error:
            wrong = error.message if error.param is None else f"{error.param}: {error.message}"
            yield Line(number=number, raw=raw, wrong=wrong)
        else:
            yield Line(number=number, raw=raw, request=request)


class Asker:
    """Asks an edge or an origin. `dry` asks for what is known only."""

    def __init__(
        self,
        client: httpx.AsyncClient,
        *,
        dry: bool = False,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._client = client
        self._dry = dry
        self._sleep = sleep
        self._is_there = False

    async def ask(self, request: WarmRequest) -> Outcome:
        """What became of it, after as many attempts as it takes. Raises RefusedError."""
        import httpx  # noqa: PLC0415 - quick start
        from tenacity import (  # noqa: PLC0415
            AsyncRetrying,
            RetryCallState,
            retry_if_result,
            stop_after_attempt,
            wait_random_exponential,
        )

        backoff = wait_random_exponential(multiplier=0.5, max=10.0)
        asked_s = 0.0

        async def attempt() -> Outcome | str:
            nonlocal asked_s
            asked_s = 0.0
            try:
                response = await self._send(request)
            except httpx.ConnectError:
                return NO_CONNECTION
            except httpx.HTTPError as error:
                return type(error).__name__
            self._is_there = True
            outcome = self._outcome(response)
            if outcome.kind != "failed" or response.status_code not in _AGAIN:
                return outcome
            asked_s = _seconds(response.headers.get("retry-after"))
            return outcome if asked_s > MAX_RETRY_WAIT_S else outcome.reason or "failed"

        def wait_s(state: RetryCallState) -> float:
            return asked_s + backoff(state)

        retrying = AsyncRetrying(
            retry=retry_if_result(lambda result: isinstance(result, str)),
            stop=stop_after_attempt(ATTEMPTS),
            wait=wait_s,
            sleep=self._sleep,
            retry_error_callback=lambda state: state.outcome and state.outcome.result(),
        )
        result: Outcome | str = await retrying(attempt)
        if result == NO_CONNECTION and not self._is_there:
            raise RefusedError("nobody answers there; is it running, and --base-url right?")
        return Outcome(kind="failed", reason=result) if isinstance(result, str) else result

    async def _send(self, request: WarmRequest) -> httpx.Response:
        headers = {**request.headers, "content-type": "application/json"}
        if self._dry:
            said = headers.get("cache-control")
            headers["cache-control"] = ", ".join(filter(None, (said, "only-if-cached")))
        return await self._client.post(
            request.endpoint.value, content=request.body, headers=headers
        )

    def _outcome(self, response: httpx.Response) -> Outcome:
        status = response.headers.get("cache-status", "")
        if response.is_success:
            members = [member.split(";") for member in status.split(",")]
            parts = [[part.strip() for part in member] for member in members]
            if any("hit" in member for member in parts):
                return Outcome(kind="cached")
            stored = any("stored" in member for member in parts)
            return Outcome(kind="generated", stored=stored, tokens=_tokens(response))
        code = _code(response)
        if response.status_code in _REFUSED:
            raise RefusedError(f"the API key is refused ({response.status_code} {code})")
        if self._dry and response.status_code == 504 and code == "only_if_cached":
            return Outcome(kind="absent")
        return Outcome(kind="failed", reason=f"{response.status_code} {code}".strip())


class _Pace:
    """Lets so many through a second, evenly."""

    def __init__(self, rate: float | None, sleep: Callable[[float], Awaitable[None]]) -> None:
        self._step_s = 0.0 if rate is None else 1 / rate
        self._sleep = sleep
        self._next_s = time.monotonic()

    async def wait(self) -> None:
        now_s = time.monotonic()
        at_s = max(now_s, self._next_s)
        self._next_s = at_s + self._step_s
        if at_s > now_s:
            await self._sleep(at_s - now_s)


async def _run(
    file: BinaryIO, *, url: str, key: str, journal: Journal | None, dry_run: bool, **options: Any
) -> Summary:
    import httpx  # noqa: PLC0415 - quick start

    headers = {"authorization": f"Bearer {key}"}
    limits = httpx.Limits(max_connections=options["concurrency"])
    async with httpx.AsyncClient(
        base_url=url, headers=headers, timeout=TIMEOUT_S, limits=limits
    ) as client:
        ask = Asker(client, dry=dry_run).ask
        return await warm_all(lines_of(file), ask, journal=journal, **options)


@contextmanager
def _watching(path: Path, file: BinaryIO) -> Iterator[Watcher]:
    """A progress bar on a terminal, else a line now and then; failures in any case."""
    if not err.is_terminal:
        yield _Lines(path.name)
        return
    from origin.progress import file_bar  # noqa: PLC0415 - quick start

    with file_bar(err, path.name, file, "{task.percentage:>3.0f} %") as move:
        yield _Bar(path.name, move)


class _Lines:
    """Says what failed, so many times, and how far it is."""

    EVERY = 1000

    def __init__(self, name: str) -> None:
        self._name = name
        self._lines = 0
        self._failures = 0

    def seen(self, line: Line, outcome: Outcome) -> None:
        """See Watcher."""
        self._lines += 1
        if outcome.kind == "failed":
            self._failures += 1
            if self._failures <= SHOWN_FAILURES:
                self._say(f"{self._name}:{line.number}: {line.wrong or outcome.reason}")
            elif self._failures == SHOWN_FAILURES + 1:
                self._say(f"{self._name}: more failures are counted and not shown")
        self._advance()

    def _advance(self) -> None:
        if self._lines % self.EVERY == 0:
            self._say(f"{self._name}: {self._lines} lines")

    def _say(self, text: str) -> None:
        err.print(text, markup=False, highlight=False, soft_wrap=True)


class _Bar(_Lines):
    def __init__(self, name: str, advance: Callable[[], None]) -> None:
        super().__init__(name)
        self._move = advance

    def _advance(self) -> None:
        self._move()


def _show(summary: Summary, *, dry_run: bool) -> None:
    kinds = summary.kinds
    rows = [("lines", summary.lines), ("already cached", kinds["cached"])]
    if dry_run:
        rows.append(("would be generated", kinds["absent"]))
    else:
        rows += [
            ("generated", kinds["generated"]),
            ("stored", summary.stored),
            ("done before", kinds["done before"]),
            ("tokens", summary.tokens),
        ]
    rows.append(("failed", kinds["failed"]))
    rows += [(f"  {reason}", count) for reason, count in sorted(summary.reasons.items())]
    table = Table.grid(padding=(0, 2))
    table.add_column()
    table.add_column(justify="right")
    for name, count in rows:
        table.add_row(name, f"{count:,}")
    asked = summary.lines - kinds["done before"]
    rate = asked / summary.elapsed_s if summary.elapsed_s else 0.0
    table.add_row("elapsed", f"{summary.elapsed_s:.1f} s")
    table.add_row("rate", f"{rate:.1f} lines/s")
    out.print(table, highlight=False)
    sys.stdout.flush()


def _tokens(response: httpx.Response) -> int:
    try:
        usage = response.json().get("usage")
        total = usage.get("total_tokens") if isinstance(usage, dict) else None
    except (ValueError, AttributeError):
        return 0
    return total if type(total) is int else 0


def _code(response: httpx.Response) -> str:
    """The error's code or type: a word of ours, never a message, which may quote the request."""
    try:
        error = response.json()["error"]
        code = error.get("code") or error.get("type") or ""
    except (ValueError, KeyError, TypeError, AttributeError):
        return ""
    word = str(code)[:60]
    return word if word.replace("_", "").replace("-", "").isalnum() else ""


def _seconds(retry_after: str | None) -> float:
    """`Retry-After` in seconds; what is no number of them counts as none."""
    text = (retry_after or "").strip()
    return float(text[:9]) if text.isascii() and text.isdigit() else 0.0
