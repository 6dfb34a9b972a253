"""`POST /v1/chat/completions`, `/v1/completions`, `/v1/embeddings`.

A hit leaves as it was stored: to the edge the whole envelope, to a client that accepts gzip the
stored segment, to any other client the segment inflated.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, assert_never

from starlette.types import Receive, Scope, Send

from origin.api.access import Access, Caller
from origin.api.http import (
    BodyReader,
    ClientLeftError,
    adding,
    headers_of,
    send_error,
    send_piece,
    send_response,
    start_response,
    while_connected,
)
from origin.embeddings import BatchAnswer, Batches, is_batch
from origin.engine.contract import Finished
from origin.entries import token_counts
from origin.exact_tier import Hit
from origin.generations import MAX_ANSWER_BYTES
from origin.pipeline import Generating, Pipeline
from origin.queries import Query
from origin.usage import Recorder
from origin.vectors import with_base64
from origin.warming import Warming
from shared import json_text
from shared.cache_headers import (
    ORIGIN,
    entry_headers,
    forward_status,
    hit_status,
    server_timing,
)
from shared.compression import compress, decompress
from shared.control_document import Strategy, strategy_of
from shared.controls import Controls, parse_controls
from shared.counts import CACHED, NO_TOKENS, Outcome
from shared.envelope import (
    MEDIA_TYPE,
    Envelope,
    Header,
    TokenCounts,
    encode,
)
from shared.errors import EncoreError, InternalError, UpstreamError, error_payload
from shared.freshness import is_failure
from shared.keys import short_key
from shared.requests import Endpoint
from shared.sse import DONE_EVENT, encode_event
from shared.streams import chunks, usage_chunk
from shared.wire import CONTROL_REVISION, EDGE_REFRESH, EDGE_STORE, PRIVATE, accepts_gzip

_JSON = "application/json"
_EVENT_STREAM = "text/event-stream; charset=utf-8"
REFRESH_WAIT_S = 5
"""How long the edge is kept waiting for a refresh: it gives up after 10 s."""
_INLINE_BYTES = 64 << 10
"""More than that is packed, or unpacked, beside the event loop: it takes milliseconds and more."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Exchange:
    """One request and what its client can read."""

    pipeline: Pipeline
    query: Query
    receive: Receive
    send: Send
    wants_entry: bool
    is_refresh: bool
    """The edge makes it behind an answer: no request of a client's."""
    gzip: bool
    began_s: float


class Answers:
    """The ASGI application of one cached endpoint."""

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        pipeline: Pipeline,
        batches: Batches,
        access: Access,
        warming: Warming,
        recorder: Recorder,
        max_cached_body_bytes: int,
        bodies: BodyReader,
    ) -> None:
        self._endpoint = endpoint
        self._path = endpoint.value
        self._pipeline = pipeline
        self._batches = batches
        self._access = access
        self._warming = warming
        self._recorder = recorder
        self._max_cached_body_bytes = max_cached_body_bytes
        self._bodies = bodies
        self._large_bodies = asyncio.Semaphore(1)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        began_s = time.perf_counter()
        headers = headers_of(scope)
        caller = exchange = None
        try:
            caller = await self._access.caller(scope, headers)
            if caller.is_edge:
                send = adding(send, CONTROL_REVISION, str(caller.document.revision))
            controls = parse_controls(headers)
            body = await self._bodies.read(receive, headers)
            try:
                query = await self._read(caller, controls, body)
            finally:
                self._bodies.let_go(body)
            exchange = _Exchange(
                pipeline=self._pipeline,
                query=query,
                receive=receive,
                send=send,
                wants_entry=caller.is_edge and MEDIA_TYPE in headers.get("accept", ""),
                is_refresh=caller.is_edge and EDGE_REFRESH in headers,
                gzip=accepts_gzip(headers.get("accept-encoding")),
                began_s=began_s,
            )
            await self._answer(exchange)
        except ClientLeftError:
            return
        except EncoreError as error:
            self._count_failure(caller, exchange, error, began_s)
            await send_error(send, error)
        except Exception:
            self._count_failure(caller, exchange, None, began_s)
            raise

    async def _answer(self, exchange: _Exchange) -> None:
        if is_batch(exchange.query):
            self._count_batch(exchange, await _send_batch(exchange, self._batches))
            return
        answer = await self._pipeline.answer(exchange.query)
        match answer:
            case Hit():
                await _send_hit(exchange, answer)
                entry: Envelope | None = answer.envelope
                self._count_hit(exchange, answer, "stale" if answer.served.ttl_s < 0 else "hit")
            case Generating() if exchange.is_refresh:
                await _send_refresh(exchange, answer)
                entry = answer.flight.entry
            case Generating():
                if await _send_generating(exchange, answer):
                    self._count_generated(exchange, answer)
                elif answer.fallback is not None:
                    self._count_hit(exchange, answer.fallback, "stale_if_error")
                entry = answer.flight.entry
            case _:
                assert_never(answer)
        if exchange.wants_entry and entry is not None:
            self._warming.asked(exchange.query, entry.header)

    def _count_hit(self, exchange: _Exchange, hit: Hit, outcome: Outcome) -> None:
        header = hit.envelope.header
        self._count(
            exchange,
            outcome,
            header.model,
            strategy=strategy_of(exchange.query.strategy, header),
            saved=header.tokens,
            body_bytes=len(hit.encoded if exchange.wants_entry else hit.segment),
            key=header.key,
        )

    def _count_generated(self, exchange: _Exchange, generating: Generating) -> None:
        flight, query = generating.flight, exchange.query
        outcome: Outcome = "miss"
        saved = NO_TOKENS
        if flight.finished is None:  # a stream that broke off
            outcome = "error"
        elif generating.reason == "bypass":
            outcome = "bypass"
        elif generating.collapsed:
            outcome, saved = "collapsed", token_counts(flight.finished.answer)
        key = None if query.controls.directives.no_store else query.key
        self._count(exchange, outcome, query.fields["model"], saved=saved, key=key)

    def _count_batch(self, exchange: _Exchange, answer: BatchAnswer) -> None:
        query, hits = exchange.query, answer.hits
        outcome: Outcome = "miss"
        if answer.served is not None:
            outcome = "stale" if answer.served.ttl_s < 0 else "hit"
        elif answer.failed_status is not None:
            outcome = "stale_if_error"
        elif answer.collapsed:
            outcome = "collapsed"
        model = query.fields["model"]
        self._count(
            exchange,
            outcome,
            model,
            strategy=query.strategy if outcome in CACHED else None,
            saved=TokenCounts(prompt=sum(header.tokens.prompt for header in hits)),
            body_bytes=sum(header.segments[query.segment] for header in hits),
        )
        self._recorder.count_inputs(
            query.tenant,
            model,
            query.controls.content_class,
            keys=answer.keys,
            hits=[header.key for header in hits],
        )

    def _count_failure(
        self,
        caller: Caller | None,
        exchange: _Exchange | None,
        error: EncoreError | None,
        began_s: float,
    ) -> None:
        """`error` is None for one that is a bug of ours."""
        is_refused = error is not None and error.is_refusal
        outcome: Outcome = "refused" if is_refused else "error"
        if exchange is not None:
            # What is refused may name a model that is none.
            model = None if is_refused else exchange.query.fields.get("model")
            self._count(exchange, outcome, model if isinstance(model, str) else None)
        else:
            self._recorder.count(
                self._path,
                None if caller is None else caller.tenant,
                outcome,
                latency_s=time.perf_counter() - began_s,
            )

    def _count(
        self,
        exchange: _Exchange,
        outcome: Outcome,
        model: str | None,
        *,
        strategy: Strategy | None = None,
        saved: TokenCounts = NO_TOKENS,
        body_bytes: int = 0,
        key: str | None = None,
    ) -> None:
        if exchange.is_refresh:
            return
        query = exchange.query
        self._recorder.count(
            self._path,
            query.document.tenant,
            outcome,
            latency_s=time.perf_counter() - exchange.began_s,
            model=model,
            content_class=query.controls.content_class,
            strategy=strategy,
            saved=saved,
            body_bytes=body_bytes,
            key=key,
        )

    async def _read(self, caller: Caller, controls: Controls, body: bytes) -> Query:
        cacheable = len(body) <= self._max_cached_body_bytes
        read = partial(
            self._pipeline.query,
            self._endpoint,
            caller.document,
            controls,
            body,
            ring=caller.ring,
            cacheable=cacheable,
        )
        if cacheable:
            return read()
        # Parsing megabytes takes seconds: one at a time, beside the event loop.
        async with self._large_bodies:
            return await asyncio.to_thread(read)


async def _send_hit(exchange: _Exchange, hit: Hit) -> None:
    headers = entry_headers(hit.envelope.header, hit.served)
    headers["cache-status"] = hit_status(ORIGIN, hit.served, hit.detail)
    headers["server-timing"] = _timing("l1", exchange)
    await _send_stored(exchange, hit, headers)


async def _send_stored(exchange: _Exchange, hit: Hit, headers: dict[str, str]) -> None:
    if exchange.wants_entry:
        await _send_entry(exchange, hit.envelope.header, hit.encoded, headers)
    else:
        await _send_segment(exchange, hit.segment, headers)


async def _send_entry(
    exchange: _Exchange, header: Header, encoded: bytes, headers: dict[str, str]
) -> None:
    """Send the whole entry to the edge."""
    headers["content-type"] = MEDIA_TYPE
    if await exchange.pipeline.edge_writes.grant(exchange.query.document, header):
        headers[EDGE_STORE] = "1"
    await send_response(exchange.send, 200, headers, encoded)


async def _send_segment(exchange: _Exchange, segment: bytes, headers: dict[str, str]) -> None:
    """Send the answer, a gzip member, to a client."""
    headers["content-type"] = _EVENT_STREAM if exchange.query.stream else _JSON
    headers["vary"] = "accept-encoding"
    if exchange.gzip:
        headers["content-encoding"] = "gzip"
    else:
        segment = await _coded(partial(decompress, max_bytes=MAX_ANSWER_BYTES), segment)
    await send_response(exchange.send, 200, headers, segment)


async def _coded(code: Callable[[bytes], bytes], body: bytes) -> bytes:
    if len(body) <= _INLINE_BYTES:
        return code(body)
    return await asyncio.to_thread(code, body)


async def _send_batch(exchange: _Exchange, batches: Batches) -> BatchAnswer:
    """Answer a request for several embeddings. It has no entry, so no key and no entity tag."""
    async with while_connected(exchange.receive):
        answer = await batches.answer(exchange.query)
        body = answer.body
        if exchange.gzip:
            body = await asyncio.to_thread(compress, body, repetitive=False)
    headers = {
        "cache-control": PRIVATE,
        "content-type": _JSON,
        "vary": "accept-encoding",
        "server-timing": _timing("l1" if answer.served else "engine", exchange),
    }
    if exchange.gzip:
        headers["content-encoding"] = "gzip"
    if answer.served is not None:
        headers["cache-status"] = hit_status(ORIGIN, answer.served, answer.detail)
        headers["age"] = str(answer.served.age_s)
    else:
        headers["cache-status"] = forward_status(
            ORIGIN,
            answer.reason,
            status=answer.failed_status,
            stored=answer.stored and answer.trouble != "l1-error",
            collapsed=answer.collapsed,
            detail=answer.detail,
        )
    await send_response(exchange.send, 200, headers, body)
    return answer


async def _send_generating(exchange: _Exchange, generating: Generating) -> bool:
    """Whether the flight has answered; else the stale entry has."""
    flight = generating.flight
    with flight.joined():
        async with while_connected(exchange.receive):
            try:
                await (flight.begun() if exchange.query.stream else flight.result())
            except EncoreError as error:
                if generating.fallback is None or not is_failure(error.status):
                    raise
                await _send_stale(exchange, generating, generating.fallback, error)
                return False
            if exchange.query.stream:
                await _send_stream(exchange, generating)
            else:
                await _send_plain(exchange, generating)
    return True


async def _send_refresh(exchange: _Exchange, generating: Generating) -> None:
    """Answer the edge with the new entry, or soon that it is being made.

    The platform ends what the edge does behind an answer; what is paid for goes on without it.
    """
    flight = generating.flight
    with flight.joined():
        exchange.pipeline.detach(flight)
        try:
            async with while_connected(exchange.receive), asyncio.timeout(REFRESH_WAIT_S):
                await flight.result()
        except TimeoutError:
            headers = {"cache-control": PRIVATE, "content-type": _JSON}
            await send_response(exchange.send, 202, headers, b'{"status":"refreshing"}')
            return
        await _send_plain(exchange, generating)


async def _send_stale(
    exchange: _Exchange, generating: Generating, stale: Hit, error: EncoreError
) -> None:
    """Answer from the entry that `stale-if-error` allows, and say so."""
    headers = entry_headers(stale.envelope.header, stale.served)
    headers["cache-status"] = forward_status(
        ORIGIN, generating.reason, status=error.status, detail="stale-if-error"
    )
    await _send_stored(exchange, stale, headers)


async def _send_plain(exchange: _Exchange, generating: Generating) -> None:
    flight = generating.flight
    finished = await flight.result()
    entry = flight.entry
    headers = {
        "cache-control": PRIVATE,
        "cache-status": forward_status(
            ORIGIN,
            generating.reason,
            stored=entry is not None and generating.detail != "l1-error",
            collapsed=generating.collapsed,
            detail=generating.detail or finished.unstorable,
        ),
        "server-timing": _timing("engine", exchange),
        **_key_header(exchange),
    }
    if entry is not None:
        headers |= entry_headers(entry.header, None)
        if exchange.wants_entry:
            await _send_entry(exchange, entry.header, encode(entry), headers)
            return
        segment = exchange.pipeline.segment(exchange.query, entry)
        if segment is None:
            raise InternalError("The entry lacks what was asked for.")
        await _send_segment(exchange, segment, headers)
        return
    query, answer = exchange.query, finished.answer
    body = json_text.dumps(with_base64(answer) if query.base64 else answer)
    headers["content-type"] = _JSON
    headers["vary"] = "accept-encoding"
    if exchange.gzip:
        headers["content-encoding"] = "gzip"
        body = await _coded(compress, body)
    await send_response(exchange.send, 200, headers, body)


async def _send_stream(exchange: _Exchange, generating: Generating) -> None:
    """Send the flight's chunks as they come. A failure after the first one becomes an error event
    and a stream without `[DONE]`, as OpenAI's clients expect.
    """  # noqa: D205 - one sentence
    query, flight, send = exchange.query, generating.flight, exchange.send
    headers = {
        "content-type": _EVENT_STREAM,
        "cache-control": PRIVATE,
        **_key_header(exchange),
        "cache-status": forward_status(
            ORIGIN,
            generating.reason,
            collapsed=generating.collapsed,
            detail=generating.detail,
        ),
        "server-timing": _timing("engine", exchange),
    }
    if flight.finished is not None and not flight.chunks:
        _whole(query, flight.finished)  # an answer that cannot be streamed is refused in time
    await start_response(send, 200, headers)
    last: list[bytes] = []
    has_said = False
    try:
        async for payload in flight.listen():
            has_said = True
            await send_piece(send, _event(payload, exchange), more=True)
        finished = await flight.result()
        if not has_said:
            # The run was asked for without streaming: its answer is streamed now that it is whole.
            last += [_event(chunk, exchange) for chunk in _whole(query, finished)]
    except EncoreError as error:
        await send_piece(send, encode_event(json_text.dumps(error_payload(error))), more=False)
        return
    usage = usage_chunk(query.endpoint, finished.answer)
    if query.include_usage and usage is not None:
        last.append(encode_event(json_text.dumps(usage)))
    await send_piece(send, b"".join((*last, DONE_EVENT)), more=False)


def _whole(query: Query, finished: Finished) -> list[dict[str, Any]]:
    """The chunks of an answer. Raises UpstreamError."""
    try:
        return chunks(query.endpoint, finished.answer)
    except ValueError as exc:
        raise UpstreamError("The answer cannot be streamed.", code="answer_not_streamable") from exc


def _event(payload: dict[str, Any], exchange: _Exchange) -> bytes:
    if exchange.query.include_usage:
        # OpenAI's streams then have the field on every chunk, null on all but the last.
        payload = {**payload, "usage": None}
    return encode_event(json_text.dumps(payload))


def _key_header(exchange: _Exchange) -> dict[str, str]:
    key = exchange.query.key
    return {} if key is None else {"encore-key": short_key(key)}


def _timing(part: str, exchange: _Exchange) -> str:
    return server_timing({part: (time.perf_counter() - exchange.began_s) * 1000})
