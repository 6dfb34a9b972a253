"""One OpenAI-compatible API over HTTP: credentials, timeouts, retries, and what failures mean.

It knows no endpoint: `upstream` reads answers, `upstreams` chooses who is asked.

Invariants
1. A request goes with our key or its tenant's own; a client's goes nowhere. No key is logged, and
   whatever looks like one is cut out of words that are carried over. Cookies are not kept: they
   would carry over from one tenant to the next.
2. A request is sent again only where the upstream has done nothing with it: nobody was there, or
   the answer is 429, 502, 503 or 504. Never after a successful status, and never with a body that
   has begun to leave and cannot be had again.
3. Between attempts at least `Retry-After` passes, and some more at random. What would end past the
   deadline is not tried: the client gets the refusal, `Retry-After` included.
4. What goes wrong is translated here, once. The upstream's 4xx about the request is the client's
   (ClientError, its own words carried over); 401, 402 and 403 are about *our* account, so the
   client gets a 502; everything else keeps the upstream's status.
"""

from __future__ import annotations

import asyncio
import logging
import math
import re
import time
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from email.utils import parsedate_to_datetime
from http.cookiejar import DefaultCookiePolicy
from typing import Any
from urllib.parse import urlsplit

import httpx
from tenacity import (
    AsyncRetrying,
    RetryCallState,
    retry_if_exception_type,
    wait_random_exponential,
)

from origin.engine.breaker import Breaker
from origin.engine.decoding import ACCEPTED, pieces
from origin.engine.upstream_json import error_fields, parse
from origin.limits import Room
from origin.metrics import UPSTREAM_SUSPENDED
from shared.errors import ClientError, EncoreError, UpstreamError

ATTEMPTS = 3
MAX_CONNECTIONS = 1024
"""And requests under way, those that wait to be sent again included; more are refused."""
MAX_ERROR_BYTES = 64 << 10
MAX_RETRY_AFTER_S = 86_400
MAX_RETRY_WAIT_S = 30.0
"""Who is asked to wait for longer is told so: a request that sleeps costs a connection."""
CONNECT_TIMEOUT_S = 10.0
KEEP_ALIVE_S = 3.0
"""An idle connection is used no more after that: uvicorn, and so vLLM, hangs up after 5 s."""

_OUR_ACCOUNT = frozenset({401, 402, 403, 407})
_AGAIN = frozenset({429, 502, 503, 504})
_ILL = frozenset({502, 503, 504})
_BACKOFF = wait_random_exponential(multiplier=0.5, max=4.0)  # "full jitter"
_MAX_MESSAGE_CHARACTERS = 2000
_KEY_LIKE = re.compile(r"\b(?:sk|pk|rk)-[\w*.-]{4,}|\bBearer\s+\S+", re.IGNORECASE)
log = logging.getLogger(__name__)


class _TryAgainError(Exception):
    """The upstream has done nothing with the request; `error` is what that means in the end."""

    def __init__(self, error: EncoreError) -> None:
        super().__init__(error.code)
        self.error = error


class Body:
    """A request's body that is sent as it comes; it cannot be sent twice."""

    def __init__(self, pieces: AsyncIterable[bytes], size_bytes: int | None) -> None:
        """`size_bytes` is what was announced, None where nothing was."""
        self._pieces = pieces
        self.size_bytes = size_bytes
        self.begun = False

    async def __aiter__(self) -> AsyncGenerator[bytes, None]:
        """The pieces, once."""
        self.begun = True
        async for piece in self._pieces:
            yield piece


class UpstreamClient:
    """Holds connections to one upstream. Safe to call from many tasks of one event loop."""

    def __init__(
        self,
        base_url: str,
        *,
        api_key: str | None = None,
        tenant_api_keys: Mapping[str, str] | None = None,
        timeout_s: float = 60.0,
        deadline_s: float = 120.0,
        breaker: Breaker | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """`base_url` may end in `/v1` or not; `timeout_s` bounds every silence of the upstream.

        `deadline_s` bounds all attempts at one request. A tenant in `tenant_api_keys` goes with its
        own key, all others with `api_key`.
        """
        self.root = base_url.rstrip("/").removesuffix("/v1")
        self._api_key = api_key
        self._tenant_api_keys = dict(tenant_api_keys or {})
        self._deadline_s = deadline_s
        self._breaker = breaker or Breaker()
        self._suspended = UPSTREAM_SUSPENDED.labels(urlsplit(base_url).netloc)
        self._suspended.set(0)
        self._sleep = sleep
        self._room = Room(MAX_CONNECTIONS, _saturated)
        self._client = httpx.AsyncClient(
            headers={"user-agent": "encore-origin", "accept-encoding": ACCEPTED},
            timeout=httpx.Timeout(timeout_s, connect=min(timeout_s, CONNECT_TIMEOUT_S)),
            limits=httpx.Limits(max_connections=MAX_CONNECTIONS, keepalive_expiry=KEEP_ALIVE_S),
        )
        self._client.cookies.jar.set_policy(DefaultCookiePolicy(allowed_domains=[]))

    def has_own_key(self, tenant: str) -> bool:
        """Whether a tenant goes with a key of its own, so that what is there is its own, too."""
        return tenant in self._tenant_api_keys

    def check_healthy(self) -> None:
        """Raise UpstreamError 503 while the upstream is left alone. Asks nobody."""
        self._refuse_for(self._breaker.wait_s)

    @asynccontextmanager
    async def exchange(
        self,
        method: str,
        target: str,
        *,
        tenant: str | None = None,
        headers: Mapping[str, str] | None = None,
        body: bytes | Body | None = None,
    ) -> AsyncGenerator[httpx.Response, None]:
        """Send a request and give its successful response, unread. Translates every failure.

        `target` is a path below the base URL, with its query. Raises EncoreError.
        """
        sent = {**(headers or {}), **self._authorization(tenant)}
        if isinstance(body, Body) and body.size_bytes is not None:
            sent["content-length"] = str(body.size_bytes)
        url = httpx.URL(self.root)
        url = url.copy_with(raw_path=url.raw_path.rstrip(b"/") + target.encode("ascii"))

        async def attempt() -> httpx.Response:
            request = self._client.build_request(method, url, headers=sent, content=body)
            return await self._attempt(request, body)

        self._room.take()
        try:
            response = await self._repeated(attempt)
            try:
                yield response
            finally:
                await response.aclose()
        except httpx.RequestError as error:
            raise _translated(error) from error
        finally:
            self._room.give()

    def failure(
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

    async def close(self) -> None:
        """Close all connections."""
        await self._client.aclose()

    def _authorization(self, tenant: str | None) -> dict[str, str]:
        key = self._api_key if tenant is None else self._tenant_api_keys.get(tenant, self._api_key)
        return {} if key is None else {"authorization": f"Bearer {key}"}

    async def _repeated(self, attempt: Callable[[], Awaitable[httpx.Response]]) -> httpx.Response:
        retrying = AsyncRetrying(
            retry=retry_if_exception_type(_TryAgainError),
            wait=_wait_s,
            stop=self._is_over,
            sleep=self._sleep,
            reraise=True,
        )
        try:
            return await retrying(attempt)
        except _TryAgainError as exc:
            raise exc.error from exc.__cause__

    def _is_over(self, state: RetryCallState) -> bool:
        """Whether an attempt was the last one."""
        wait_s = state.upcoming_sleep
        return (
            state.attempt_number >= ATTEMPTS
            or wait_s > MAX_RETRY_WAIT_S
            or (state.seconds_since_start or 0.0) + wait_s >= self._deadline_s
        )

    async def _attempt(self, request: httpx.Request, body: bytes | Body | None) -> httpx.Response:
        self._refuse_for(self._breaker.admit())
        try:
            response = await self._client.send(request, stream=True)
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            self._failed()
            raise _TryAgainError(_translated(error)) from error
        except httpx.PoolTimeout:  # of our own making
            raise
        except (httpx.TimeoutException, httpx.NetworkError, httpx.RemoteProtocolError):
            self._failed()
            raise
        except (AttributeError, RuntimeError) as error:  # the libraries', of a socket that is gone
            self._failed()
            raise _interrupted() from error
        if response.status_code in _ILL:
            self._failed()
        else:
            self._breaker.succeeded()
            self._suspended.set(0)
        if response.is_success:
            return response
        try:
            refusal = await self._refusal(response)
        finally:
            await response.aclose()
        if response.status_code in _AGAIN and not (isinstance(body, Body) and body.begun):
            raise _TryAgainError(refusal)
        raise refusal

    def _failed(self) -> None:
        self._breaker.failed()
        if wait_s := self._breaker.wait_s:
            self._suspended.set(1)
            log.warning("upstream %s fails: left alone for %.0f s", self.root, wait_s)

    def _refuse_for(self, wait_s: float) -> None:
        if wait_s:
            raise UpstreamError(
                "The upstream has failed again and again and is left alone for now.",
                status=503,
                code="upstream_suspended",
                retry_after_s=math.ceil(wait_s),
            )

    async def _refusal(self, response: httpx.Response) -> EncoreError:
        """Return the error that a response without success means."""
        status = response.status_code
        if status in _OUR_ACCOUNT:
            return UpstreamError(
                "The upstream refused the origin's credentials "
                f"({status}); its operator has to check ENCORE_UPSTREAM_API_KEY or "
                "ENCORE_UPSTREAMS.",
                code="upstream_credentials",
            )
        if status < 400:
            return UpstreamError(
                f"The upstream answered {status}; its operator has to check ENCORE_UPSTREAM or "
                "ENCORE_UPSTREAMS.",
                code="upstream_redirect",
            )
        error = error_fields(await _read_error(response))
        if status in (404, 405) and not error:
            return UpstreamError(
                f"The upstream has no {response.request.url.path} ({status}); its operator has to "
                "check ENCORE_UPSTREAM or ENCORE_UPSTREAMS.",
                code="upstream_not_found",
            )
        fallback = f"The upstream answered {status}."
        return self.failure(
            504 if status == 408 else status, error, fallback, _retry_after_s(response.headers)
        )

    def _redacted(self, words: str) -> str:
        for key in (self._api_key, *self._tenant_api_keys.values()):
            if key:
                words = words.replace(key, "[key]")
        return _KEY_LIKE.sub("[key]", words)[:_MAX_MESSAGE_CHARACTERS]


def _wait_s(state: RetryCallState) -> float:
    """How long to wait before the next attempt: what the upstream asks for, and a random while."""
    failed = None if state.outcome is None else state.outcome.exception()
    asked_s = failed.error.retry_after_s if isinstance(failed, _TryAgainError) else None
    return (asked_s or 0) + _BACKOFF(state)


def _saturated() -> UpstreamError:
    return UpstreamError(
        "Too many requests are under way to the upstream.",
        status=503,
        code="upstream_saturated",
        retry_after_s=1,
    )


def _translated(error: httpx.RequestError) -> UpstreamError:
    match error:
        case httpx.PoolTimeout():
            return _saturated()
        case httpx.TimeoutException():
            return UpstreamError(
                "The upstream did not answer in time.", status=504, code="upstream_timeout"
            )
        case httpx.ConnectError():
            return UpstreamError("The upstream cannot be reached.", code="upstream_unreachable")
        case _:  # the rest: cut off, or not HTTP
            return _interrupted()


def _interrupted() -> UpstreamError:
    return UpstreamError("The connection to the upstream broke.", code="upstream_interrupted")


async def _read_error(response: httpx.Response) -> dict[str, Any]:
    text = b""
    try:
        async for piece in pieces(response):
            text += piece
            if len(text) > MAX_ERROR_BYTES:
                return {}
        return parse(text)
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
