"""Everything the Worker asks of JavaScript: the one module that imports `js` and `pyodide`.

Each crossing between Python and JavaScript costs more than the Python around it, so these
functions cross rarely and in bulk, and bodies stay on the JavaScript side: a body is passed on as
the proxy it came as, never copied into Python unless it is to be read.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from contextvars import Context
from functools import cache, lru_cache, partial
from types import SimpleNamespace
from typing import Any, TypeVar

import js
from pyodide.ffi import JsException, create_proxy, jsnull, to_js

from shared.errors import EncoreError, error_body, error_headers

Result = TypeVar("Result")
_NONCE_BYTES = 12


class PlatformError(Exception):
    """A JavaScript call failed: network, KV, a stream. Its text is for the log, not for clients."""


def hasten_event_loop() -> None:
    """Run what becomes ready at once where JavaScript calls in, else as a microtask. For the whole
    isolate.

    Pyodide gives each callback two timers and a WebAssembly stack of its own, and a hit has seven
    callbacks. Here a promise's answer resumes who waits for it within the same call. A callback
    never runs in the middle of a task or another callback, nor of another request's I/O: workerd
    runs microtasks before it leaves the request that queued them. `run_sync` cannot be used in what
    runs this way.
    """  # noqa: D205 - two sentences
    loop = asyncio.get_running_loop()
    ready: deque[asyncio.Handle] = deque()
    is_running = False

    def run_ready() -> None:
        nonlocal is_running
        is_running = True
        try:
            asyncio._set_running_loop(loop)  # noqa: SLF001 - as a loop does before each callback
            while ready:
                handle = ready.popleft()
                if not handle.cancelled():
                    handle._run()  # noqa: SLF001 - as above
        finally:
            is_running = False
            if ready:  # the CPU limit of one request, raised here, must not end the others
                queue(run)

    queue, run = js.queueMicrotask, create_proxy(run_ready)

    def call_soon(
        callback: Callable[..., Any], *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        handle = asyncio.Handle(callback, args, loop, context)
        ready.append(handle)
        if not is_running:
            # A future that fails counts as unheard from after its callbacks are called on.
            failed = args and getattr(args[0], "_exception", None)
            if not failed and asyncio.current_task(loop) is None:
                run_ready()
            elif len(ready) == 1:
                queue(run)
        return handle

    on_timer = loop.call_later

    def call_later(
        delay: float, callback: Callable[..., Any], *args: Any, context: Context | None = None
    ) -> Any:
        return on_timer(delay, partial(call_soon, callback, *args, context=context))

    loop.call_soon = call_soon  # type: ignore[method-assign, assignment]
    loop.call_later = call_later  # type: ignore[method-assign, assignment]


def variable(env: Any, name: str) -> str | None:
    """A variable or secret, or None where it is not bound."""
    value = getattr(env, name, None)
    return value if isinstance(value, str) else None


def binding(env: Any, name: str) -> Any:
    """A binding, or None where there is none of that name."""
    return getattr(env, name, None)


@cache
def _globals() -> SimpleNamespace:
    """The JavaScript functions of a hit, looked up once an isolate: each look-up is a crossing."""
    return SimpleNamespace(
        from_entries=js.Object.fromEntries,
        parse=js.JSON.parse,
        stringify=js.JSON.stringify,
        new_array=js.Uint8Array.new,
        new_response=js.Response.new,
    )


def _object(value: dict[str, Any]) -> Any:
    """A JavaScript object from plain data: one crossing, where `to_js` makes one for each item."""
    return _globals().parse(json.dumps(value))


@cache
def _kv_options(cache_ttl_s: int) -> Any:
    return _object({"type": "arrayBuffer", "cacheTtl": cache_ttl_s})


def headers_of(message: Any) -> dict[str, str]:
    """All headers of a JavaScript Request or Response, names in lower case."""
    to = _globals()
    headers: dict[str, str] = json.loads(to.stringify(to.from_entries(message.headers)))
    return headers


def client_accept_encoding(request: Any, headers: dict[str, str]) -> str | None:
    """The `Accept-Encoding` the client itself sent.

    Cloudflare rewrites the header and keeps the client's own, perhaps empty, in `request.cf`.
    """
    value = getattr(getattr(request, "cf", None), "clientAcceptEncoding", None)
    return value if isinstance(value, str) else headers.get("accept-encoding")


async def body_of(message: Any) -> Any:
    """The whole body of a Request or Response as a JavaScript ArrayBuffer."""
    try:
        return await message.arrayBuffer()
    except JsException as exc:
        raise PlatformError(f"reading a body: {exc}") from exc


async def body_or_stream(message: Any, small_bytes: int) -> tuple[Any, bool]:
    """(body, whether it is whole) where its size is not known: an ArrayBuffer, or a stream of one
    that turns out to be larger, of which no more than that has been read.
    """  # noqa: D205 - one sentence
    stream = message.body
    if not stream:  # null
        return await body_of(message), True
    reader, chunks, size_bytes = stream.getReader(), js.Array.new(), 0
    try:
        while not (step := await reader.read()).done:
            chunks.push(step.value)
            size_bytes += step.value.byteLength
            if size_bytes > small_bytes:
                reader.releaseLock()
                transform = js.IdentityTransformStream.new()
                start(_resume(chunks, stream, transform.writable))
                return transform.readable, False
        return await js.Blob.new(chunks).arrayBuffer(), True
    except JsException as exc:
        raise PlatformError(f"reading a body: {exc}") from exc


async def _resume(chunks: Any, stream: Any, writable: Any) -> None:
    """Write what was read of a stream, then all that is still to come of it."""
    writer = writable.getWriter()
    try:
        for chunk in chunks:
            await writer.write(chunk)
        writer.releaseLock()
        await stream.pipeTo(writable)
    except JsException:  # who reads it has heard of that, or has left
        await cancel(stream)


def to_bytes(buffer: Any) -> bytes:
    """Copy an ArrayBuffer or a Uint8Array into Python."""
    data: bytes = buffer.to_bytes()
    return data


def view(buffer: Any, offset: int, length: int) -> Any:
    """A part of an ArrayBuffer as a Uint8Array; nothing is copied."""
    return _globals().new_array(buffer, offset, length)


def respond(status: int, headers: dict[str, str], body: bytes | None = None) -> Any:
    """A Response with a body made in Python."""
    return respond_with(status, headers, None if body is None else to_js(body))


def respond_error(error: EncoreError) -> Any:
    """A Response with an error in OpenAI's shape."""
    return respond(error.status, error_headers(error), error_body(error))


def respond_gzip(headers: dict[str, str], stored: Any, *, inflate: bool) -> Any:
    """A 200 whose body is stored gzip: sent as it is, or inflated by the platform for a client that
    does not accept gzip.
    """  # noqa: D205 - one sentence
    if inflate:
        stream = js.Response.new(stored).body.pipeThrough(js.DecompressionStream.new("gzip"))
        return respond_with(200, headers, stream)
    # Without "manual" the platform would compress what is compressed already.
    options = {"headers": {**headers, "content-encoding": "gzip"}, "encodeBody": "manual"}
    return _globals().new_response(stored, _object(options))


def respond_with(status: int, headers: dict[str, str], body: Any) -> Any:
    """A Response with a JavaScript body: a buffer or a stream."""
    return _globals().new_response(body, _object({"status": status, "headers": headers}))


def pass_through(body: Any) -> tuple[Any, Any]:
    """(readable, done): a stream that carries `body` to the client without touching Python, and a
    promise that settles when all of it went through, or rejects when either side broke off.
    """  # noqa: D205 - one sentence
    # A plain TransformStream's pipe resolves when the client leaves; this one rejects.
    transform = js.IdentityTransformStream.new()
    return transform.readable, body.pipeTo(transform.writable)


async def drain(stream: Any) -> None:
    """Read a stream to its end and keep nothing. Raises PlatformError where it breaks off."""
    try:
        await stream.pipeTo(js.WritableStream.new())
    except JsException as exc:
        raise PlatformError(f"reading a stream: {exc}") from exc


async def cancel(stream: Any) -> None:
    """Let go of a body that nobody will read, so that its connection is free again."""
    if stream:  # null, where there is no body, is falsy
        with suppress(JsException):
            await stream.cancel()


@asynccontextmanager
async def deadline(timeout_s: float) -> AsyncIterator[Any]:
    """An AbortSignal for what is fetched within the block, which must end in time.

    Raises TimeoutError where it does not; what was fetched is then aborted.
    """
    abort = js.AbortController.new()
    try:
        async with asyncio.timeout(timeout_s):
            yield abort.signal
    except TimeoutError:
        abort.abort()
        raise


async def fetch(url: str, *, method: str, headers: dict[str, str], body: Any, signal: Any) -> Any:
    """Send a request; `body` is JavaScript's (buffer or stream) or None, `signal` an AbortSignal.

    Raises PlatformError where nobody can be reached.
    """
    options: dict[str, Any] = {
        "method": method,
        "headers": headers,
        "redirect": "manual",
        "signal": signal,
    }
    if body is not None:
        options["body"] = body
    try:
        return await js.fetch(url, to_js(options, dict_converter=js.Object.fromEntries))
    except JsException as exc:
        raise PlatformError(f"fetching {method} {url}: {exc}") from exc


async def kv_get(kv: Any, name: str, cache_ttl_s: int) -> tuple[Any, str] | None:
    """(value as ArrayBuffer, metadata as JSON text) of a KV entry, or None where there is none."""
    try:
        found = await kv.getWithMetadata(name, _kv_options(cache_ttl_s))
    except JsException as exc:
        raise PlatformError(f"reading KV: {exc}") from exc
    value = found.value
    if value is jsnull:  # an empty value is something, if falsy
        return None
    return value, _globals().stringify(found.metadata)


async def kv_get_text(kv: Any, name: str, cache_ttl_s: int) -> str | None:
    """A text in KV, or None where there is none. Raises PlatformError."""
    try:
        text = await kv.get(name, _object({"type": "text", "cacheTtl": cache_ttl_s}))
    except JsException as exc:
        raise PlatformError(f"reading KV: {exc}") from exc
    return text if isinstance(text, str) else None


async def kv_put_text(kv: Any, name: str, text: str) -> None:
    """Write a text that does not expire. Raises PlatformError."""
    try:
        await kv.put(name, text)
    except JsException as exc:
        raise PlatformError(f"writing KV: {exc}") from exc


async def kv_put(kv: Any, name: str, value: Any, metadata: str, expiration_s: int) -> None:
    """Write a KV entry: `metadata` is JSON text, `expiration_s` seconds since the epoch."""
    options = {"expiration": expiration_s, "metadata": json.loads(metadata)}
    try:
        await kv.put(name, value, _object(options))
    except JsException as exc:
        raise PlatformError(f"writing KV: {exc}") from exc


@lru_cache(maxsize=64)
def _raw_key(key: bytes) -> Any:
    """AES key bytes as JavaScript's, copied once."""
    return to_js(key)


async def decrypt(key: bytes, sealed: Any, associated_data: bytes) -> Any:
    """AES-256-GCM by WebCrypto: the plain bytes as an ArrayBuffer, never seen by Python.

    `sealed` is a Uint8Array of nonce (12 bytes), ciphertext and tag. Raises PlatformError where it
    does not open.
    """
    subtle = js.crypto.subtle
    try:
        imported = await subtle.importKey(
            "raw",
            _raw_key(key),
            "AES-GCM",
            False,  # noqa: FBT003 - extractable; WebCrypto's own parameter
            _usages(),
        )
        options = js.Object.new()
        options.name = "AES-GCM"
        options.iv = sealed.subarray(0, _NONCE_BYTES)
        options.additionalData = to_js(associated_data)
        return await subtle.decrypt(options, imported, sealed.subarray(_NONCE_BYTES))
    except JsException as exc:
        raise PlatformError(f"opening a sealed segment: {exc}") from exc


@cache
def _usages() -> Any:
    return to_js(["decrypt"])


async def is_allowed(limiter: Any, name: str) -> bool:
    """Whether the platform's rate limit has room for one more of `name`. Raises PlatformError."""
    try:
        outcome = await limiter.limit(_object({"key": name}))
    except JsException as exc:
        raise PlatformError(f"asking the rate limit: {exc}") from exc
    return bool(outcome.success)


def add_headers(response: Any, headers: dict[str, str]) -> None:
    """Append to the headers of a Response that Python made."""
    for name, value in headers.items():
        response.headers.append(name, value)


def to_buffer(data: bytes) -> Any:
    """Bytes as JavaScript's, to be sent."""
    return to_js(data)


def start(work: Coroutine[Any, Any, Result]) -> asyncio.Task[Result]:
    """Let `work` begin now; what it gives is awaited later."""
    return asyncio.ensure_future(work)


def log(line: str) -> None:
    """Write a line to the Worker's log."""
    print(line)  # noqa: T201 - that is what the platform's log is
