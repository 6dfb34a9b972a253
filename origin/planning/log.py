"""A log, read line by line: requests with their times, or a plain list of prompts.

    {"time": 1790000000.5, "tenant": "acme", "location": "fra", "endpoint": "/v1/chat/completions",
     "body": {…}, "headers": {"Encore-TTL": "600"}, "usage": {"prompt_tokens": 9, …}}
    {"timestamp": "2026-11-22T02:00:00Z", "model": "gpt-4o", "messages": […]}
    What does a flat in Oslo cost?

The first form needs `body` alone; `time` may be called `timestamp`, `endpoint` `url`, as in
OpenAI's batch files, and members that mean nothing here are passed over. The second is the body
itself. A log most of whose first lines are no objects is a list of prompts, one a line.

It knows no keys and no settings. Nothing is kept but the line that is read; what is wrong with a
line is said in words that quote nothing of a prompt.
"""

from __future__ import annotations

import gzip
import json
import re
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import chain, islice
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, cast

from shared import json_text
from shared.checks import missing, unsupported_value, wrong_type
from shared.controls import Controls, parse_controls
from shared.errors import ClientError
from shared.keys import check_tenant
from shared.requests import Endpoint

MAX_LINE_BYTES = 32 << 20
GZIP = b"\x1f\x8b"
LOOKED_AT = 20
"""Lines by which a list of prompts is told from requests."""
MAX_LOCATION_CHARACTERS = 64
_HEADER = re.compile(r"cache-control|encore-[a-z]+", re.IGNORECASE)
_ENDPOINTS = {endpoint.value: endpoint for endpoint in Endpoint}
_MILLISECONDS_FROM = 1e11
"""Larger times are milliseconds: as seconds they would be of the year 5138."""
_LATEST_S = 1e11


class LogError(Exception):
    """The log cannot be read (on)."""


class Row(NamedTuple):
    """A request of the log. `time_ms` is None where the log does not say when."""

    number: int
    time_ms: int | None
    tenant: str
    location: str
    endpoint: Endpoint
    controls: Controls
    fields: dict[str, Any]
    body_bytes: int
    """At least as many as the body has."""
    tokens: tuple[int, int] | None
    """Of prompt and completion, as `usage` said."""


@dataclass(kw_only=True)
class Bad:
    """The lines that are no requests: how many, and the first of them."""

    SHOWN = 20

    count: int = 0
    lines: list[tuple[int, str]] = field(default_factory=list)

    def add(self, number: int, why: str) -> None:
        """Note one."""
        self.count += 1
        if len(self.lines) < self.SHOWN:
            self.lines.append((number, why))


@contextmanager
def opened(path: Path, stdin: BinaryIO) -> Iterator[tuple[BinaryIO, BinaryIO]]:
    """(its lines, the file itself, by which one knows how far it is); `-` is `stdin`.

    What is packed by gzip is unpacked. Raises OSError.
    """
    if str(path) == "-":
        yield _unpacked(stdin), stdin
        return
    with path.open("rb") as file:
        yield _unpacked(file), file


@dataclass(frozen=True, kw_only=True, slots=True)
class Reading:
    """How lines are read: whose they are where they do not say, and whom a prompt asks."""

    tenant: str
    model: str
    prompts: bool = False

    def row(self, number: int, line: bytes) -> Row:
        """The request of a line. Raises ClientError."""
        if self.prompts:
            return _prompt(number, line, self.tenant, self.model)
        return _request(number, line, self.tenant)


def numbered(lines: BinaryIO, bad: Bad) -> Iterator[tuple[int, bytes]]:
    """The lines that are not empty; `bad` is told of those that are too long. Raises LogError."""
    number = 0
    for raw in _raw(lines):
        number += 1
        if len(raw) > MAX_LINE_BYTES:
            bad.add(number, f"longer than {MAX_LINE_BYTES} bytes")
            continue
        line = raw.strip()
        if number == 1:
            line = line.removeprefix(b"\xef\xbb\xbf")
        if line:
            yield number, line


def are_prompts(
    lines: Iterator[tuple[int, bytes]],
) -> tuple[bool, Iterator[tuple[int, bytes]]]:
    """(whether it is a list of prompts, all of its lines), told by the first of them."""
    first = list(islice(lines, LOOKED_AT))
    objects = sum(line.startswith(b"{") for _, line in first)
    return bool(first) and 2 * objects < len(first), chain(first, lines)


def said(error: ClientError) -> str:
    """What is wrong with a line, in words that quote nothing of a prompt."""
    return error.message if error.param is None else f"{error.param}: {error.message}"


def _unpacked(file: BinaryIO) -> BinaryIO:
    peek = getattr(file, "peek", None)
    if peek is not None and peek(2)[:2] == GZIP:
        return cast("BinaryIO", gzip.GzipFile(fileobj=file))
    return file


def _raw(lines: BinaryIO) -> Iterable[bytes]:
    """Lines; of one that is too long no more than is needed to tell."""
    try:
        while raw := lines.readline(MAX_LINE_BYTES + 1):
            yield raw
            while len(raw) > MAX_LINE_BYTES and not raw.endswith(b"\n"):
                raw = lines.readline(MAX_LINE_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise LogError(str(error) or type(error).__name__) from error


def _prompt(number: int, line: bytes, tenant: str, model: str) -> Row:
    fields = {"model": model, "messages": [{"role": "user", "content": _text(line)}]}
    return Row(number, None, tenant, "", Endpoint.CHAT, _NO_CONTROLS, fields, len(line), None)


def _text(line: bytes) -> str:
    """What a line of a list says: itself, or what it is the JSON of."""
    try:
        text = line.decode()
    except UnicodeDecodeError as error:
        raise ClientError(f"The line is not UTF-8 (byte {error.start}).") from None
    if text.startswith('"') and text.endswith('"'):
        try:
            told = json.loads(text)
        except ValueError:
            return text
        if isinstance(told, str):
            return told
    return text


def _request(number: int, line: bytes, tenant: str) -> Row:
    told = json_text.parse_object(line)
    if "body" in told:
        fields = told["body"]
        if not isinstance(fields, dict):
            raise wrong_type(fields, "body", "an object")
        name = told.get("endpoint", told.get("url", Endpoint.CHAT.value))
        endpoint = _ENDPOINTS.get(name) if isinstance(name, str) else None
        if endpoint is None:
            raise unsupported_value("endpoint", list(_ENDPOINTS))
        if told.get("tenant") is not None:
            tenant = _tenant(told["tenant"])
        return Row(
            number,
            _time_ms(told),
            tenant,
            _location(told.get("location")),
            endpoint,
            _controls(told.get("headers")),
            fields,
            len(line),
            _tokens(told.get("usage")),
        )
    fields = {name: value for name, value in told.items() if name not in _TIMES}
    return Row(
        number,
        _time_ms(told),
        tenant,
        "",
        _endpoint_of(fields),
        _NO_CONTROLS,
        fields,
        len(line),
        None,
    )


_TIMES = ("time", "timestamp")
_NO_CONTROLS = Controls()


def _endpoint_of(fields: dict[str, Any]) -> Endpoint:
    """The endpoint that a body alone must be for."""
    for name, endpoint in (
        ("messages", Endpoint.CHAT),
        ("prompt", Endpoint.COMPLETIONS),
        ("input", Endpoint.EMBEDDINGS),
    ):
        if name in fields:
            return endpoint
    raise missing("body")


def _tenant(value: Any) -> str:
    if not isinstance(value, str):
        raise wrong_type(value, "tenant", "a string")
    try:
        return check_tenant(value)
    except ValueError as error:
        raise ClientError(f"{error}.", param="tenant") from None


def _location(value: Any) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise wrong_type(value, "location", "a string")
    return value[:MAX_LOCATION_CHARACTERS]


def _controls(headers: Any) -> Controls:
    """What the headers ask of the cache; others, which logs have, are passed over."""
    if not headers:
        return _NO_CONTROLS
    if not isinstance(headers, dict):
        raise wrong_type(headers, "headers", "an object")
    ours = {name.lower(): value for name, value in headers.items() if _HEADER.fullmatch(name)}
    for name, value in ours.items():
        if not isinstance(value, str):
            raise wrong_type(value, f"headers.{name}", "a string")
    return parse_controls(ours)


def _time_ms(told: dict[str, Any]) -> int | None:
    value = told.get("time")
    if value is None:
        value = told.get("timestamp")
    if value is None:
        return None
    if isinstance(value, str):
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            raise ClientError("It is no time by ISO 8601.", param="time") from None
        moment = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
        return max(0, round(moment.timestamp() * 1000))
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise wrong_type(value, "time", "seconds since 1970, or a string by ISO 8601")
    seconds = value / 1000 if value > _MILLISECONDS_FROM else value
    if not 0 <= seconds <= _LATEST_S:
        raise ClientError("It is out of range.", param="time")
    return round(seconds * 1000)


def _tokens(usage: Any) -> tuple[int, int] | None:
    """What a logged answer took, where the log says so; what makes no sense says nothing."""
    if not isinstance(usage, dict):
        return None
    prompt, completion = usage.get("prompt_tokens"), usage.get("completion_tokens", 0)
    if type(prompt) is not int or type(completion) is not int or prompt < 0 or completion < 0:
        return None
    return prompt, completion
