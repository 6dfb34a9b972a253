"""What the origin and its commands alone read, as targets: see `targets`."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, BinaryIO, cast

import httpx
import numpy as np
from starlette.types import Scope

from origin.api.http import headers_of, is_loopback
from origin.dashboard.sessions import Sessions, check_site
from origin.encryption import EncryptionError, open_bytes, seal_bytes
from origin.engine.contract import Finished
from origin.engine.upstream_client import _retry_after_s
from origin.engine.upstream_json import error_fields, parse
from origin.planning.log import Bad, LogError, Reading, are_prompts, numbered, opened
from origin.semantic.index import Entry
from origin.semantic.redis_entries import _decoded, _encoded
from origin.vectors import by_input, with_base64
from shared import json_text
from shared.compression import compress, decompress
from shared.embeddings import elements
from shared.errors import ClientError, UpstreamError
from shared.keys import key_ring, key_rings, ring_of_edge
from shared.paths import is_plain
from shared.requests import Endpoint
from shared.wire import announced_bytes

SECRET = "a secret of the fuzzer, long enough"
_KEYS = key_rings(SECRET)
_MOST_BYTES = 100_000
_INPUTS = elements(Endpoint.EMBEDDINGS, {"model": "m", "input": ["a", "b"]})
_SESSIONS = Sessions(
    *(cast("Any", None),),
    **dict.fromkeys(("access", "control", "keys", "denials"), cast("Any", None)),
    development=True,
)
_HEADS = ("host", "origin", "sec-fetch-site", "cookie", "content-length", "connection")


def heads(data: bytes) -> None:
    """The head of a request: who asks, from which page, how much comes, where to."""
    path, *lines = data.split(b"\n")
    raw = [(name.encode(), value) for name, value in zip(_HEADS, lines, strict=False)]
    scope: Scope = {"type": "http", "client": ("127.0.0.1", 1), "headers": raw + raw[:1]}
    headers = headers_of(scope)
    assert set(headers) == {name.decode() for name, _ in raw}
    assert (announced_bytes(headers) or 0) >= 0
    is_loopback(scope, headers)
    token = _SESSIONS._token(scope, headers)
    assert token is None or 0 < len(token) <= 64
    with contextlib.suppress(ClientError):
        check_site(headers)
    assert ring_of_edge(_KEYS, path.decode("latin-1")) is None
    is_plain(path.decode("latin-1"))


def upstreams(data: bytes) -> None:
    """What an upstream answers is refused, or can be written again, with every vector in it."""
    _retry_after_s(httpx.Headers([(b"retry-after", data[:64])]))
    try:
        answer = parse(data)
    except UpstreamError:
        return
    error_fields(answer)
    assert parse(json_text.dumps(answer)) == answer
    json_text.dumps(with_base64(answer))
    with contextlib.suppress(UpstreamError):
        for each in by_input(Finished(answer=answer), _INPUTS or ()):
            json_text.dumps(with_base64(each))


def logs(data: bytes) -> None:
    """A log of `encore plan` and `encore warm`: each line is a request, a prompt, or named bad."""
    bad = Bad()
    file = cast("BinaryIO", io.BufferedReader(cast("Any", io.BytesIO(data))))
    with opened(Path("-"), file) as (lines, _), contextlib.suppress(LogError):
        prompts, rest = are_prompts(numbered(lines, bad))
        reading = Reading(tenant="t", model="m", prompts=prompts)
        for number, line in rest:
            with contextlib.suppress(ClientError):
                row = reading.row(number, line)
                assert row.time_ms is None or row.time_ms >= 0
                json_text.dumps(row.fields)


def kept(data: bytes) -> None:
    """What lies in Redis: a question of the index, a sealed text, a gzip member."""
    found = _decoded(data, 2)
    assert found is None or _decoded(_encoded(found), 2) is not None
    with contextlib.suppress(EncryptionError):
        open_bytes(_KEYS, "t", b"about", data)
    with contextlib.suppress(ValueError):
        assert len(decompress(data, max_bytes=_MOST_BYTES)) <= _MOST_BYTES


_UNIT = Entry(
    tenant="t",
    partition="p",
    key="k",
    text="What?",
    form="f",
    vector=np.array([0.6, 0.8], dtype=np.float32),
    expires_ms=5,
)
ORIGIN_TARGETS: Mapping[str, Callable[[bytes], None]] = MappingProxyType(
    {target.__name__: target for target in (heads, upstreams, logs, kept)}
)
ORIGIN_SEEDS: Mapping[str, tuple[bytes, ...]] = MappingProxyType(
    {
        "heads": (
            b"/v1/files/%2e%2e;a\nlocalhost:80\nhttp://[::1]:80\ncross-site\nencore-session=ab\n5",
            b'Bearer x\n[::1]:8787\nnull\n\n__Host-encore-session="a\\054b"\n00\nclose, host',
        ),
        "upstreams": (
            (
                b'{"object":"list","data":[{"object":"embedding","index":1,"embedding":[1,2e3]},'
                b'{"index":0,"embedding":"AACAPwAAAEA="}],"usage":{"prompt_tokens":2}}'
            ),
            b'{"error":{"message":"no","type":"t","code":null}}',
            b"Sun, 22 Nov 2026 05:00:00 GMT",
        ),
        "logs": (
            (
                b'{"time":1790000000.5,"tenant":"t","location":"fra","body":{"model":"m","prompt":"a"},'
                b'"headers":{"Encore-TTL":"6"},"usage":{"prompt_tokens":9}}\n'
                b'{"timestamp":"2026-11-22T02:00:00Z","model":"m","messages":[]}\n'
            ),
            b'What does a flat cost?\n"A \\u0041"\n\n',
            compress(b'{"timestamp":"0001-01-01T00:00:00+14:00","input":"a"}\n'),
        ),
        "kept": (
            _encoded(_UNIT),
            seal_bytes(key_ring(SECRET), "t", b"about", b"text"),
            compress(b"a" * 200_000),
        ),
    }
)
