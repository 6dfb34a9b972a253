"""The routes below `/dashboard`: the page, its files, signing in and out, the live stream, a purge.

No build step and no other host: the files beside this module are all there is, and the
Content-Security-Policy lets a page have nothing else. No route takes an API key but the login's
body. Errors of what a script asks for are in OpenAI's shape; who a page shows them to is a person.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from html import escape
from importlib.resources import files
from string import Template
from urllib.parse import parse_qs

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from origin.api.admin import Purges, check_reach
from origin.api.http import STOPPING, ClientLeftError, headers_of, read_body, send_json
from origin.audit import WHY
from origin.dashboard.live import Live
from origin.dashboard.sessions import Sessions, check_site, check_write
from origin.purge_requests import MAX_REQUEST_BYTES
from origin.stores.control_contract import EVERY_TENANT
from shared.control_document import OPERATOR_TENANT
from shared.errors import ClientError, EncoreError, InternalError
from shared.wire import PRIVATE

PATH = "/dashboard"
CSRF = "encore-csrf"
MAX_FORM_BYTES = 4096
_FILES = {
    "charts.js": "text/javascript; charset=utf-8",
    "dashboard.css": "text/css; charset=utf-8",
    "dashboard.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}
HEADERS = {
    "cache-control": PRIVATE,
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
        "img-src 'self' data:; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    ),
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    # Not `no-referrer`: a form's `Origin` would be "null" then.
    "referrer-policy": "same-origin",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}


class Dashboard:
    """The routes, for admins: of a tenant, or of the operator's, who see all tenants.

    Owns `sessions` and `live`.
    """

    def __init__(self, *, sessions: Sessions, live: Live, purges: Purges) -> None:
        self._sessions = sessions
        self._live = live
        self._purges = purges
        static = files(__package__).joinpath("static")
        self._files = {name: static.joinpath(name).read_bytes() for name in _FILES}
        self._page = Template(static.joinpath("index.html").read_text("utf-8"))
        self._login_page = Template(static.joinpath("login.html").read_text("utf-8"))

    async def close(self) -> None:
        """Close the store of sessions, and what is asked for the page's sake."""
        await self._sessions.close()
        await self._live.close()

    def routes(self) -> list[Route]:
        """Where each of them is."""
        return [
            Route(PATH, self.page, methods=["GET"]),
            Route(PATH + "/login", self.login, methods=["POST"]),
            Route(PATH + "/logout", self.logout, methods=["POST"]),
            Route(PATH + "/events", self.events, methods=["GET"]),
            Route(PATH + "/purge", _Purge(self), methods=["POST"]),
            Route(PATH + "/{file}", self.file, methods=["GET"]),
        ]

    async def page(self, request: Request) -> Response:
        """The dashboard, or to who is not signed in the login's form."""
        headers = headers_of(request.scope)
        try:
            signed_in = await self._sessions.signed_in(request.scope, headers)
        except ClientError:
            came_in = request.query_params.get("from") == "login"
            return self._form(
                "Your browser did not keep the session: is this page served over HTTPS?"
                if came_in
                else ""
            )
        except InternalError as error:
            return self._form(error.message, error.status)
        caller = signed_in.caller
        operator = caller.tenant == OPERATOR_TENANT
        page = self._page.substitute(
            csrf=signed_in.csrf,
            tenant=escape(caller.tenant),
            view=EVERY_TENANT if operator else escape(caller.tenant),
            operator="yes" if operator else "no",
        )
        return Response(page, headers=HEADERS, media_type="text/html")

    async def file(self, request: Request) -> Response:
        """What a page is made of; nothing in it is secret."""
        name = request.path_params["file"]
        if name not in self._files:
            raise ClientError(f"There is no {PATH}/{name} here.", status=404, code="unknown_url")
        return Response(self._files[name], headers=HEADERS | {"content-type": _FILES[name]})

    async def login(self, request: Request) -> Response:
        """Sign in with the API key of an admin."""
        headers = headers_of(request.scope)
        try:
            check_site(headers)
            form = await _form_of(request, headers)
            cookie = await self._sessions.login(
                request.scope, headers, form.get("api_key", "").strip()
            )
        except EncoreError as error:
            request.scope[WHY] = error.code or error.type
            return self._form(error.message, error.status, error.retry_after_s)
        return _to_page(cookie, "?from=login")

    async def logout(self, request: Request) -> Response:
        """Sign out."""
        headers = headers_of(request.scope)
        signed_in = await self._sessions.signed_in(request.scope, headers)
        form = await _form_of(request, headers)
        check_write(headers, signed_in, form.get("csrf", ""))
        return _to_page(await self._sessions.logout(request.scope, headers, signed_in))

    async def events(self, request: Request) -> Response:
        """The live stream, of one's own tenant, or for the operator of any or of all."""
        scope, headers = request.scope, headers_of(request.scope)
        caller = (await self._sessions.signed_in(scope, headers)).caller
        operator = caller.tenant == OPERATOR_TENANT
        tenant = request.query_params.get("tenant", EVERY_TENANT if operator else caller.tenant)
        check_reach(caller, tenant, or_every=True)

        async def still() -> bool:
            try:
                await self._sessions.signed_in(scope, headers)
            except ClientError:
                return False
            except InternalError:
                pass  # it was a moment ago; the stream that comes next asks again
            return True

        stopping = scope.get("state", {}).get(STOPPING)
        events = self._live.events(tenant, operator=operator, still=still, stopping=stopping)
        more = {"content-type": "text/event-stream", "x-accel-buffering": "no"}
        # Its beginning is made here: a refusal still has a status of its own.
        first = await anext(events)
        return StreamingResponse(_after(first, events), headers=HEADERS | more)

    async def purge(self, scope: Scope, receive: Receive) -> dict[str, object]:
        """Do what `POST /cache/purge` does."""
        headers = headers_of(scope)
        signed_in = await self._sessions.signed_in(scope, headers)
        check_write(headers, signed_in, headers.get(CSRF, ""))
        body = await read_body(receive, headers, MAX_REQUEST_BYTES)
        return await self._purges.purge(scope, signed_in.caller, body)

    def _form(self, message: str, status: int = 200, retry_after_s: int | None = None) -> Response:
        more = {} if retry_after_s is None else {"retry-after": str(retry_after_s)}
        page = self._login_page.substitute(
            message=escape(message), hidden="" if message else "hidden"
        )
        return Response(page, status, HEADERS | more, media_type="text/html")


class _Purge:
    """The ASGI application of the purge."""

    def __init__(self, dashboard: Dashboard) -> None:
        self._dashboard = dashboard

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send_json(send, self._dashboard.purge(scope, receive))


async def _after(first: bytes, rest: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    try:
        yield first
        async for each in rest:
            yield each
    finally:
        await rest.aclose()


async def _form_of(request: Request, headers: Mapping[str, str]) -> dict[str, str]:
    """The fields of a posted form. Raises ClientError."""
    if headers.get("content-type", "").partition(";")[0] != "application/x-www-form-urlencoded":
        raise ClientError("This takes a form.", status=415, code="unsupported_media_type")
    try:
        body = await read_body(request.receive, headers, MAX_FORM_BYTES)
    except ClientLeftError as exc:
        raise ClientError("The request broke off.", code="incomplete_body") from exc
    try:
        fields = parse_qs(body.decode("ascii"), max_num_fields=8)
    except ValueError as exc:
        raise ClientError("This is no form.", code="invalid_form") from exc
    return {name: values[0] for name, values in fields.items() if len(values) == 1}


def _to_page(cookie: str, query: str = "") -> Response:
    """See other (RFC 9110, 15.4.4), by a path: the host is the browser's business."""
    return Response(
        status_code=303, headers=HEADERS | {"location": PATH + query, "set-cookie": cookie}
    )
