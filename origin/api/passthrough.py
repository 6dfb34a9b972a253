"""Every other path below `/v1/`: passed through to an upstream, uncached, bodies as they come.

The client's key is good here and goes no further: upstream goes ours, or its tenant's own. Headers
travel by list, both ways; so nothing that is for one hop, and no cookie, gets through.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import suppress
from typing import Any
from urllib.parse import quote

import httpx
from starlette.types import ASGIApp, Receive, Scope, Send

from origin.api.access import Access
from origin.api.http import (
    BodyReader,
    ClientLeftError,
    headers_of,
    refuse_larger,
    send_error,
    send_piece,
    start_response,
    while_connected,
)
from origin.engine.decoding import check_coding, pieces
from origin.engine.turns import Turns
from origin.engine.upstream_client import Body
from origin.engine.upstreams import Upstreams
from origin.failures import describe
from origin.usage import OTHER_ENDPOINT, Recorder
from shared import json_text
from shared.cache_headers import ORIGIN, forward_status
from shared.controls import parse_controls
from shared.counts import Outcome
from shared.errors import ClientError, EncoreError, UpstreamError, not_cached
from shared.paths import is_plain
from shared.wire import (
    PASSED_METHODS,
    PASSED_REQUEST_HEADERS,
    PASSED_RESPONSE_HEADERS,
    PRIVATE,
    announced_bytes,
    end_to_end,
)

DRAIN_TIMEOUT_S = 10.0
_BELOW = "/v1/"
_IN_QUERIES = "!$&'()*+,/:;=?@%"
log = logging.getLogger(__name__)


class Passthrough:
    """The ASGI application of what no route takes; `otherwise` is that of what is not passed on.

    A JSON body is read whole where only its model's name tells who is asked; beyond
    `max_parsed_inline_bytes` it is parsed beside the event loop. Warm-ups see by `turns` that the
    upstream is busy.
    """

    def __init__(
        self,
        *,
        upstreams: Upstreams,
        access: Access,
        recorder: Recorder,
        max_parsed_inline_bytes: int,
        max_body_bytes: int,
        bodies: BodyReader,
        deadline_s: float,
        turns: Turns,
        otherwise: ASGIApp,
    ) -> None:
        self._upstreams = upstreams
        self._access = access
        self._recorder = recorder
        self._max_parsed_inline_bytes = max_parsed_inline_bytes
        self._max_body_bytes = max_body_bytes
        self._bodies = bodies
        self._deadline_s = deadline_s
        self._turns = turns
        self._otherwise = otherwise
        self._large_bodies = asyncio.Semaphore(1)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request. An answer that breaks off is cut off, for it cannot be taken back."""
        if scope["type"] != "http" or not _is_passed(scope):
            await self._otherwise(scope, receive, send)
            return
        began_s = time.perf_counter()
        headers = headers_of(scope)
        upload = _Upload(receive, headers, self._max_body_bytes, self._bodies)
        answer = _Answer(send)
        try:
            async with asyncio.timeout(self._deadline_s), self._turns.beside():
                await self._pass(scope, headers, upload, answer)
        except ClientLeftError:
            return
        except TimeoutError:
            error: EncoreError = UpstreamError(
                f"The answer took longer than {self._deadline_s:g} s.",
                status=504,
                code="deadline_exceeded",
            )
        except EncoreError as exc:
            error = exc
        else:
            self._count(answer, "bypass", began_s)
            return
        self._count(answer, "refused" if error.status < 500 else "error", began_s)
        if not answer.begun:
            if error.status != 413:
                await upload.drain()
            await send_error(send, error)
        else:
            log.warning("passing through broke off: %s", describe(error))

    async def _pass(
        self, scope: Scope, headers: Mapping[str, str], upload: _Upload, answer: _Answer
    ) -> None:
        caller = await self._access.caller(scope, headers)
        answer.tenant = caller.tenant
        if parse_controls(headers).directives.only_if_cached:
            raise not_cached()
        refuse_larger(announced_bytes(headers) or 0, self._max_body_bytes)
        body: bytes | Body | None = upload.body
        model = None
        if self._upstreams.are_several and upload.body is not None and _is_json(headers):
            body = await upload.whole()
            try:
                model = await self._model(body)
            finally:
                self._bodies.let_go(body)
        answer.model = model
        client = self._upstreams.passage(model, tenant=caller.tenant, path=scope["path"])
        exchange = client.exchange(
            scope["method"],
            _target(scope),
            tenant=caller.tenant,
            headers=end_to_end(headers, PASSED_REQUEST_HEADERS) | {"accept-encoding": "identity"},
            body=body,
        )
        try:
            async with while_connected(upload.receive_later), exchange as response:
                await answer.pass_on(response)
        except UpstreamError as error:
            if error.code == "upstream_not_found":
                raise _unknown_url(scope) from error
            raise

    def _count(self, answer: _Answer, outcome: Outcome, began_s: float) -> None:
        self._recorder.count(
            OTHER_ENDPOINT,
            answer.tenant,
            outcome,
            latency_s=time.perf_counter() - began_s,
            model=None if outcome == "refused" else answer.model,
        )

    async def _model(self, body: bytes) -> str | None:
        """The model that a JSON body names. Raises ClientError."""
        if len(body) <= self._max_parsed_inline_bytes:
            fields = json_text.parse_object(body)
        else:
            async with self._large_bodies:
                fields = await asyncio.to_thread(json_text.parse_object, body)
        model: Any = fields.get("model")
        return model if isinstance(model, str) else None


class _Answer:
    """The response, whether it has begun, and whom it is for, as far as that is known."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.begun = False
        self.tenant: str | None = None
        self.model: str | None = None

    async def pass_on(self, response: httpx.Response) -> None:
        """Send all of it, each piece as it comes. Raises UpstreamError."""
        check_coding(response)
        headers = end_to_end(response.headers, PASSED_RESPONSE_HEADERS)
        headers["cache-control"] = PRIVATE
        headers["cache-status"] = forward_status(ORIGIN, "bypass")
        self.begun = True
        await start_response(self._send, response.status_code, headers)
        async for piece in pieces(response):
            await send_piece(self._send, piece, more=True)
        await send_piece(self._send, b"", more=False)


class _Upload:
    """A request's body, within limits, and word of the client's leaving once it has been read.

    `body` is None where there is none.
    """

    def __init__(
        self,
        receive: Receive,
        headers: Mapping[str, str],
        limit_bytes: int,
        bodies: BodyReader,
    ) -> None:
        self._receive = receive
        self._headers = headers
        self._limit_bytes = limit_bytes
        self._bodies = bodies
        self._read = asyncio.Event()
        self._read_bytes = 0
        size_bytes = announced_bytes(headers)
        self.body: Body | None = None
        if size_bytes or "transfer-encoding" in headers:
            self.body = Body(self._pieces(), size_bytes)
        else:
            self._read.set()

    async def whole(self) -> bytes:
        """All of it."""
        body = await self._bodies.read(self._receive, self._headers)
        self._read.set()
        return body

    async def drain(self) -> None:
        """Read what is left of it, and keep nothing: who is still sending may miss the answer."""
        with suppress(TimeoutError, ClientLeftError, ClientError):
            async with asyncio.timeout(DRAIN_TIMEOUT_S):
                while not self._read.is_set():
                    await self._piece()

    async def receive_later(self) -> Any:
        """The next message after the body."""
        await self._read.wait()
        return await self._receive()

    async def _pieces(self) -> AsyncGenerator[bytes, None]:
        while not self._read.is_set():
            yield await self._piece()

    async def _piece(self) -> bytes:
        message = await self._receive()
        if message["type"] == "http.disconnect":
            raise ClientLeftError
        piece: bytes = message.get("body", b"")
        self._read_bytes += len(piece)
        refuse_larger(self._read_bytes, self._limit_bytes)
        if not message.get("more_body", False):
            self._read.set()
        return piece


def _is_passed(scope: Scope) -> bool:
    return scope["method"] in PASSED_METHODS and (
        scope["path"].startswith(_BELOW) and is_plain(scope["raw_path"].decode("latin-1"))
    )


def _target(scope: Scope) -> str:
    """Path and query as they came, all of it in characters that a URL may have."""
    path, query = scope["raw_path"].decode("ascii"), scope["query_string"]
    return f"{path}?{quote(query, safe=_IN_QUERIES)}" if query else path


def _is_json(headers: Mapping[str, str]) -> bool:
    return headers.get("content-type", "").partition(";")[0].strip().lower() == "application/json"


def _unknown_url(scope: Scope) -> ClientError:
    return ClientError(
        f"There is no {scope['method']} {scope['path']} here.", status=404, code="unknown_url"
    )
