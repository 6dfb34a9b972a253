"""The engine that asks another OpenAI-compatible API: OpenAI, vLLM, SGLang and the like.

A request goes upstream as its client wrote it, with our key, never the client's, and with the usage
chunk asked for whenever it streams. Retries belong elsewhere: one run is one request.

What goes wrong is translated here, once. The upstream's 4xx about the request is the client's
(ClientError, its own words carried over); 401, 402 and 403 are about *our* account, so the client
gets a 502; everything else keeps the upstream's status. Whatever looks like a key is cut out of
words that are carried over. A stream is finished by `[DONE]` and by nothing else.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import math
import re
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Self

import httpx

from origin.engine.contract import Chunk, Event, Finished, ModelInfo
from shared.errors import ClientError, EncoreError, UpstreamError
from shared.json_text import dumps
from shared.requests import Endpoint, Request
from shared.sse import DONE, SSEEvent, SSEParser
from shared.streams import Assembler

if TYPE_CHECKING:
    from origin.settings import Settings

MAX_ANSWER_BYTES = 64 << 20
MAX_ERROR_BYTES = 64 << 10
MAX_CONNECTIONS = 1024
MAX_RETRY_AFTER_S = 86_400
CONNECT_TIMEOUT_S = 10.0
DRAIN_TIMEOUT_S = 0.05

_OUR_ACCOUNT = frozenset({401, 402, 403, 407})
_MAX_MESSAGE_CHARACTERS = 2000
_KEY_LIKE = re.compile(r"\b(?:sk|pk|rk)-[\w*.-]{4,}|\bBearer\s+\S+", re.IGNORECASE)
_HUGE_EXPONENT = re.compile(r"\d[eE]\+?\d{3}")
_SURROGATE_ESCAPE = re.compile(r"\\u[dD][89a-fA-F]")


class UpstreamEngine:
    """The engine contract over HTTP. Keeps connections open between requests."""

    def __init__(
        self,
        base_url: str,
        *,
        api_key: str | None = None,
        timeout_s: float = 60.0,
        max_answer_bytes: int = MAX_ANSWER_BYTES,
    ) -> None:
        """`base_url` may end in `/v1` or not; `timeout_s` bounds every silence of the upstream."""
        self._root = base_url.rstrip("/").removesuffix("/v1")
        self._api_key = api_key
        self._max_answer_bytes = max_answer_bytes
        headers = {"user-agent": "encore-origin"}
        if api_key is not None:
            headers["authorization"] = f"Bearer {api_key}"
        self._client = httpx.AsyncClient(
            headers=headers,
            timeout=httpx.Timeout(timeout_s, connect=min(timeout_s, CONNECT_TIMEOUT_S)),
            limits=httpx.Limits(max_connections=MAX_CONNECTIONS),
        )

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        """Build the engine for `settings.upstream`, which must be set."""
        if settings.upstream is None:
            raise ValueError("no upstream is set")
        key = settings.upstream_api_key
        return cls(
            settings.upstream,
            api_key=key.get_secret_value() if key else None,
            timeout_s=settings.upstream_timeout_s,
        )

    async def models(self) -> Sequence[ModelInfo]:
        """Ask `GET /v1/models`. Raises UpstreamError."""
        async with self._exchange("GET", "/v1/models") as response:
            listed = _parse(await self._body(response)).get("data")
        if not isinstance(listed, list):
            raise _garbage("its list of models has no 'data'")
        return [
            ModelInfo(
                id=model["id"],
                created=_integer(model.get("created")) or 0,
                owned_by=str(model.get("owned_by") or "upstream"),
                fingerprint=self._fingerprint(model["id"]),
                max_tokens=_integer(model.get("max_model_len")),
            )
            for model in listed
            if isinstance(model, dict) and isinstance(model.get("id"), str)
        ]

    async def fingerprint(self, model: str) -> str:
        """Hash the upstream's address and `model`.

        Names no model unknown: an upstream may serve models that it does not list, and says so
        itself when it does not.
        """
        return self._fingerprint(model)

    def check(self, request: Request) -> None:
        """Refuse nothing: what the upstream cannot honour it refuses itself."""

    async def run(self, request: Request) -> AsyncGenerator[Event, None]:
        """Ask upstream; see Engine.run."""
        body = dict(request.fields)
        if request.stream:
            body["stream_options"] = {**(body.get("stream_options") or {}), "include_usage": True}
        path = request.endpoint.value
        async with self._exchange("POST", path, dumps(body)) as response:
            kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
            if kind == "text/event-stream":
                async with aclosing(self._stream(request.endpoint, response)) as events:
                    async for event in events:
                        yield event
            else:  # also where a stream was asked for, and the upstream cannot
                answer = _parse(await self._body(response))
                yield Finished(answer=self._checked(request.endpoint, answer))

    async def close(self) -> None:
        """Close all connections."""
        await self._client.aclose()

    def _fingerprint(self, model: str) -> str:
        return hashlib.sha256(json.dumps([self._root, model]).encode()).hexdigest()[:32]

    async def _stream(
        self, endpoint: Endpoint, response: httpx.Response
    ) -> AsyncGenerator[Event, None]:
        assembler = Assembler(endpoint)
        async with aclosing(self._events(response)) as events:
            async for event in events:
                if event.data == DONE:
                    await _drain(events)
                    yield Finished(answer=assembler.answer(), unstorable=assembler.unstorable)
                    return
                if event.event == "ping":
                    continue
                chunk = _parse(event.data.encode())
                error = _error_fields(chunk)
                if error or event.event == "error":
                    raise self._failure(502, error, "The upstream broke its stream off.")
                assembler.feed(chunk)
                if chunk.get("choices") or chunk.get("usage") is None:
                    yield Chunk(payload={k: v for k, v in chunk.items() if k != "usage"})
        raise UpstreamError(
            "The upstream's stream ended before it was complete.", code="upstream_interrupted"
        )

    async def _events(self, response: httpx.Response) -> AsyncGenerator[SSEEvent, None]:
        parser = SSEParser()
        async with aclosing(self._pieces(response)) as pieces:
            async for piece in pieces:
                for event in parser.feed(piece):
                    yield event
        for event in parser.close():
            yield event

    async def _pieces(self, response: httpx.Response) -> AsyncGenerator[bytes, None]:
        """Yield the body, decoded, up to the limit."""
        size_bytes = 0
        async for piece in response.aiter_bytes():
            size_bytes += len(piece)
            if size_bytes > self._max_answer_bytes:
                raise UpstreamError(
                    f"The upstream's answer is larger than {self._max_answer_bytes} bytes.",
                    code="upstream_too_large",
                )
            yield piece

    @asynccontextmanager
    async def _exchange(
        self, method: str, path: str, body: bytes | None = None
    ) -> AsyncGenerator[httpx.Response, None]:
        """Send a request and give its successful response, unread; translate every failure."""
        headers = {} if body is None else {"content-type": "application/json"}
        try:
            async with self._client.stream(
                method, self._root + path, content=body, headers=headers
            ) as response:
                if response.status_code != 200:
                    raise await self._refusal(response)
                yield response
        except httpx.PoolTimeout as error:
            raise UpstreamError(
                "Too many requests are waiting for the upstream.",
                status=503,
                code="upstream_saturated",
                retry_after_s=1,
            ) from error
        except httpx.TimeoutException as error:
            raise UpstreamError(
                "The upstream did not answer in time.", status=504, code="upstream_timeout"
            ) from error
        except httpx.ConnectError as error:
            raise UpstreamError(
                "The upstream cannot be reached.", code="upstream_unreachable"
            ) from error
        except httpx.RequestError as error:  # the rest: cut off, or not HTTP
            raise UpstreamError(
                "The connection to the upstream broke.", code="upstream_interrupted"
            ) from error

    async def _body(self, response: httpx.Response) -> bytes:
        return b"".join([piece async for piece in self._pieces(response)])

    def _checked(self, endpoint: Endpoint, answer: dict[str, Any]) -> dict[str, Any]:
        if error := _error_fields(answer):  # some gateways say 200 and mean an error
            raise self._failure(502, error, "The upstream failed.")
        content = "data" if endpoint is Endpoint.EMBEDDINGS else "choices"
        if not isinstance(answer.get(content), list):
            raise _garbage(f"it has no '{content}'")
        return answer

    async def _refusal(self, response: httpx.Response) -> EncoreError:
        """Return the error that a response other than 200 means."""
        status = response.status_code
        if status in _OUR_ACCOUNT:
            return UpstreamError(
                "The upstream refused the origin's credentials "
                f"({status}); its operator has to check ENCORE_UPSTREAM_API_KEY.",
                code="upstream_credentials",
            )
        if status < 400:
            return UpstreamError(
                f"The upstream answered {status}; its operator has to check ENCORE_UPSTREAM.",
                code="upstream_redirect",
            )
        error = _error_fields(await _read_error(response))
        if status in (404, 405) and not error:
            return UpstreamError(
                f"The upstream has no {response.request.url.path} ({status}); its operator has to "
                "check ENCORE_UPSTREAM.",
                code="upstream_not_found",
            )
        fallback = f"The upstream answered {status}."
        return self._failure(
            504 if status == 408 else status, error, fallback, _retry_after_s(response.headers)
        )

    def _failure(
        self,
        status: int,
        error: Mapping[str, Any],
        fallback: str,
        retry_after_s: int | None = None,
    ) -> EncoreError:
        """Return an error with the upstream's words, where it has any, without credentials."""
        text = {
            name: self._redacted(value)
            for name in ("message", "type", "param", "code")
            if isinstance(value := error.get(name), str) and value
        }
        whose = ClientError if 400 <= status < 500 and status != 429 else UpstreamError
        return whose(
            text.get("message", fallback),
            status=status,
            type=text.get("type"),
            param=text.get("param"),
            code=text.get("code"),
            retry_after_s=retry_after_s,
        )

    def _redacted(self, words: str) -> str:
        if self._api_key:
            words = words.replace(self._api_key, "[key]")
        return _KEY_LIKE.sub("[key]", words)[:_MAX_MESSAGE_CHARACTERS]


async def _drain(events: AsyncGenerator[SSEEvent, None]) -> None:
    """Read what little follows `[DONE]`, so that the connection can be used again."""
    with suppress(TimeoutError, httpx.RequestError, UpstreamError):
        async with asyncio.timeout(DRAIN_TIMEOUT_S):
            async for _ in events:
                pass


def _parse(text: bytes) -> dict[str, Any]:
    """Read a JSON object as the upstream wrote it, or raise UpstreamError if it is none.

    Numbers and strings that could not be written again are refused too.
    """
    try:
        decoded = text.decode()
        parse_float = _finite if _HUGE_EXPONENT.search(decoded) else None
        value = json.loads(decoded, parse_constant=_finite, parse_float=parse_float)
        if _SURROGATE_ESCAPE.search(decoded):
            dumps(value)
    except (ValueError, RecursionError):
        raise _garbage("it is not JSON") from None
    if not isinstance(value, dict):
        raise _garbage("it is not a JSON object")
    return value


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError("not finite")
    return value


def _error_fields(payload: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the error of a payload, in OpenAI's shape or vLLM's older flat one; {} for none."""
    error = payload.get("error")
    if isinstance(error, dict):
        return error or {"message": None}
    if isinstance(error, str) and error:
        return {"message": error}
    return payload if payload.get("object") == "error" else {}


async def _read_error(response: httpx.Response) -> dict[str, Any]:
    text = b""
    async for piece in response.aiter_bytes():
        text += piece
        if len(text) > MAX_ERROR_BYTES:
            return {}
    try:
        return _parse(text)
    except UpstreamError:
        return {}


def _retry_after_s(headers: httpx.Headers) -> int | None:
    """Read `Retry-After`, seconds or a date (RFC 9110, 10.2.3)."""
    text = headers.get("retry-after", "").strip()
    if text.isascii() and text.isdigit():
        return min(int(text[:10]), MAX_RETRY_AFTER_S)
    try:
        wait_s = math.ceil(parsedate_to_datetime(text).timestamp() - time.time())
    except (ValueError, OverflowError):
        return None
    return min(max(wait_s, 0), MAX_RETRY_AFTER_S)


def _integer(value: Any) -> int | None:
    return value if type(value) is int else None


def _garbage(why: str) -> UpstreamError:
    return UpstreamError(f"The upstream's answer cannot be read: {why}.", code="upstream_garbage")
