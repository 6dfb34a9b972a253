"""An edge in workerd with real KV, in front of an origin whose engine the test decides."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from pydantic import SecretStr
from starlette.types import ASGIApp, Receive, Scope, Send

from origin.app import create_app
from origin.control import MEMO_S
from origin.semantic.matcher import Matcher
from origin.settings import Settings
from origin.stores.memory import MemoryStore
from origin.stores.memory_control import MemoryControlStore
from origin.stores.memory_jobs import MemoryJobStore
from shared.control_document import ControlDocument, decode, encode, revised
from shared.keys import edge_bearer, key_ring, make_api_key
from shared.wire import CONTROL_PATH, COUNTERS_PATH, EDGE_AUTHORIZATION
from tests.edge.local_edge import ROOT, Edge, StartEdge
from tests.support.control import control_store
from tests.support.engines import MODEL, ScriptedEngine
from tests.support.ports import free_port
from tests.support.serving import serving

SECRET = "a secret of the tests, long enough"
KEYS = key_ring(SECRET)
API_KEY = make_api_key(KEYS, "acme", bytes(15))
ADMIN_API_KEY = make_api_key(KEYS, "acme", bytes([1] * 15))
OTHER_API_KEY = make_api_key(KEYS, "other", bytes(15))
CHAT = "/v1/chat/completions"
REQUESTS_OF_A_FLUSH = 200
_FLUSH = f"POST {COUNTERS_PATH}"
CRON = "/cdn-cgi/local/scheduled?cron=*/5+*+*+*+*"


class Front:
    """What the edge reaches in the origin's place: notes each request, then lets the origin answer.

    `instead` is an application that answers in its place while it is set.
    """

    def __init__(self, origin: ASGIApp) -> None:
        self._origin = origin
        self.asked: list[str] = []
        self.under_way: list[str] = []
        self.instead: ASGIApp | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._origin(scope, receive, send)
            return
        request = f"{scope['method']} {scope['path']}"
        self.under_way.append(request)
        self.asked.append(request)
        try:
            await (self.instead or self._origin)(scope, receive, send)
        finally:
            self.under_way.remove(request)

    @contextmanager
    def answers_instead(self, answer: ASGIApp, path: str) -> Iterator[None]:
        """For the length of the block `answer` is what answers requests for paths that begin so."""

        async def instead(scope: Scope, receive: Receive, send: Send) -> None:
            chosen = str(scope.get("path", "")).startswith(path)
            await (answer if chosen else self._origin)(scope, receive, send)

        self.instead = instead
        try:
            yield
        finally:
            self.instead = None

    def was_asked(self, start: str) -> int:
        """How many requests began like this."""
        return sum(request.startswith(start) for request in self.asked)


def answering(
    status_code: int | None,
    content_type: str | None,
    body: bytes = b"",
    *,
    left: threading.Event | None = None,
    **headers: str,
) -> ASGIApp:
    """An application that answers with this, whatever it is asked.

    With `left` the answer never ends (without a status it never begins), and `left` is set when
    the edge gives it up.
    """
    if content_type is not None:
        headers["content-type"] = content_type
    raw = [(name.encode(), value.encode()) for name, value in headers.items()]

    async def answer(_scope: Scope, receive: Receive, send: Send) -> None:
        if status_code is not None:
            await send({"type": "http.response.start", "status": status_code, "headers": raw})
            more = left is not None
            await send({"type": "http.response.body", "body": body, "more_body": more})
        if left is not None:
            while (await receive())["type"] != "http.disconnect":
                pass
            left.set()

    return answer


@dataclass(frozen=True, kw_only=True)
class Stack:
    """An edge in production mode, and what stands behind it."""

    edge: Edge
    engine: ScriptedEngine
    store: MemoryStore
    control: MemoryControlStore
    front: Front
    origin_url: str
    client: httpx.Client

    def ask(
        self, text: str, headers: dict[str, str] | None = None, **fields: Any
    ) -> httpx.Response:
        """Send a chat request that no other test sends."""
        body = {"model": MODEL, "messages": [{"role": "user", "content": text}], **fields}
        return self.client.post(CHAT, json=body, headers=headers)

    def document(self, tenant: str = "acme") -> ControlDocument:
        """The control document as the origin has it."""
        return decode(self.control._documents[tenant][1], tenant)

    def revise(self, tenant: str = "acme", **changes: Any) -> ControlDocument:
        """Change the document at the origin, and tell nobody; return when the origin goes by it."""
        document = revised(self.document(tenant), time.time_ns() // 1_000_000, **changes)
        self.control._documents[tenant] = (document.revision, encode(document))
        time.sleep(MEMO_S)
        return document

    def run_cron(self) -> None:
        """Let the cron trigger fire; return when what it runs has ended."""
        assert httpx.get(self.edge.url + CRON, timeout=60).is_success

    def stats(self, api_key: str = API_KEY) -> dict[str, Any]:
        """What `GET /cache/stats` says to a client."""
        headers = {"authorization": f"Bearer {api_key}"}
        response = self.client.get("/cache/stats", headers=headers)
        assert response.status_code == 200
        stats: dict[str, Any] = response.json()
        return stats

    def counted(self, api_key: str = API_KEY) -> dict[str, Any]:
        """What it says of the edge."""
        edge: dict[str, Any] = self.stats(api_key)["edge"]
        return edge

    def flush(self) -> None:
        """Ask until the edge has sent what it had counted before, and the origin has taken it."""
        before = self.front.was_asked(_FLUSH)
        refused = 0
        while self.front.was_asked(_FLUSH) == before:
            self.client.post(CHAT, content=b"")  # a counted error, and quick
            refused += 1
            assert refused <= 2 * REQUESTS_OF_A_FLUSH
        deadline = time.monotonic() + 10
        while _FLUSH in self.front.under_way:
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def end_minute(self) -> None:
        """Let every key be written to KV again, as the origin does a minute after each write."""
        self.store._granted_until_ms.clear()

    def hit(
        self, text: str, headers: dict[str, str] | None = None, **fields: Any
    ) -> httpx.Response:
        """Ask until the edge answers from KV: the entry is put behind the first answer."""
        return until(
            lambda: self.ask(text, headers, **fields),
            is_hit,
        )


def until(
    ask: Callable[[], httpx.Response], good: Callable[[httpx.Response], bool]
) -> httpx.Response:
    """Repeat `ask` until its response is good; fail after ten seconds."""
    deadline = time.monotonic() + 10
    while not good(response := ask()):
        assert time.monotonic() < deadline, (response.status_code, response.headers, response.text)
        time.sleep(0.05)
    return response


def status(response: httpx.Response) -> str:
    """The `Cache-Status` of a response."""
    return str(response.headers.get("cache-status", ""))


def is_hit(response: httpx.Response) -> bool:
    """Whether the edge answered from KV."""
    return status(response).startswith("encore-edge; hit")


def content(response: httpx.Response) -> str:
    """What a plain chat answer says."""
    text: str = response.json()["choices"][0]["message"]["content"]
    return text


def error_of(response: httpx.Response) -> dict[str, Any]:
    """The error object of a response in OpenAI's shape."""
    error: dict[str, Any] = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return error


def variables(origin_url: str, **more: str) -> dict[str, str]:
    """The variables of an edge in front of `origin_url`."""
    return {"ENCORE_SECRET": SECRET, "ENCORE_ORIGIN_URL": origin_url} | more


def client_of(edge: Edge, api_key: str = API_KEY) -> httpx.Client:
    """An HTTP client of an edge. Each request has a connection of its own.

    For workerd hangs up on who was refused before the body was read.
    """
    return httpx.Client(
        base_url=edge.url,
        headers={"authorization": f"Bearer {api_key}"},
        timeout=30,
        limits=httpx.Limits(max_keepalive_connections=0),
    )


def origin_settings(**changes: Any) -> Settings:
    """Settings of the origin behind the edge."""
    return Settings(secret=SecretStr(SECRET), **changes)


def leave_document(edge: Edge, document: ControlDocument) -> httpx.Response:
    """Leave a control document at the edge, as the origin does."""
    return httpx.put(
        edge.url + CONTROL_PATH + document.tenant,
        content=encode(document),
        headers={EDGE_AUTHORIZATION: f"Bearer {edge_bearer(KEYS)}"},
    )


def documents_at_edge(edge: Edge, store: MemoryControlStore) -> None:
    """Leave every document of a control store at the edge, so that it may decide by them."""
    for tenant, (_, text) in store._documents.items():
        assert leave_document(edge, decode(text, tenant)).status_code == 200


@contextmanager
def stacked(
    start_edge: StartEdge,
    *,
    config: Path | None = None,
    settings: Settings | None = None,
    control: MemoryControlStore | None = None,
    informed: bool = True,
    pushing: bool = False,
    matcher: Matcher | None = None,
    **more: str,
) -> Iterator[Stack]:
    """A stack of one's own; `more` are further variables of the edge.

    The edge has the control documents already, unless it is not to be `informed`. With `pushing`
    the origin leaves later ones there; with `matcher` it matches by meaning.
    """
    engine, store = ScriptedEngine(), MemoryStore()
    control = control or control_store(API_KEY, OTHER_API_KEY, admins=[ADMIN_API_KEY])
    settings = settings or origin_settings()
    with ExitStack() as exits:

        def start(origin_url: str) -> Edge:
            edge = start_edge(
                config or ROOT / "wrangler.toml", variables=variables(origin_url, **more)
            )
            exits.callback(edge.stop)
            return edge

        port = free_port() if pushing else 0
        edge = start(f"http://127.0.0.1:{port}") if pushing else None
        if edge is not None:
            settings = settings.model_copy(update={"edge_url": edge.url})
        origin = create_app(
            settings,
            engine=engine,
            store=store,
            control_store=control,
            job_store=MemoryJobStore(),
            matcher=matcher,
        )
        front = Front(origin)
        url = exits.enter_context(serving(front, port, lifespan=pushing))
        edge = edge or start(url)
        if informed:
            documents_at_edge(edge, control)
        client = exits.enter_context(client_of(edge))
        yield Stack(
            edge=edge,
            engine=engine,
            store=store,
            control=control,
            front=front,
            origin_url=url,
            client=client,
        )
