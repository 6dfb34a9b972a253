"""Who is signed in to the dashboard, and that a write is meant by who is.

A browser holds 32 random bytes in a cookie. Redis knows them by an HMAC under a key that is derived
from the secret for nothing else, so whoever reads Redis cannot be anybody, and nothing else that we
hand out is a session. What a session may do is asked at every request: it is its API key's, and a
key that is revoked, or no admin's any more, has none.

Invariants
1. A write comes from a page of ours: its `Sec-Fetch-Site`, or else its `Origin`, says so, and it
   carries the token that the page was given, an HMAC of the session.
2. A session ends `LIFE_S` after it began, `IDLE_S` after it was used last, when it is logged out,
   and when the secret that its API key was made with counts no more.
3. No API key is in a URL, a cookie, a page, a log or the store.
"""

from __future__ import annotations

import hmac
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie
from urllib.parse import urlsplit

from starlette.types import Scope

from origin.api.access import Access, Caller
from origin.api.http import is_loopback
from origin.audit import NOBODY, Act, Denials, placed
from origin.control import Control
from origin.stores.contract import StoreError
from origin.stores.session_contract import WINDOW_S, Session, SessionStore
from shared.errors import ClientError, InternalError
from shared.keys import KeyRing, KeyRings, hkdf_expand, tenant_of

LIFE_S = 8 * 3600
MAX_FAILURES = 10
"""Logins of one address that may fail within `WINDOW_S`."""
_TOKEN_BYTES = 32
_MAX_TOKEN_CHARACTERS = 64


@dataclass(frozen=True, kw_only=True, slots=True)
class SignedIn:
    """A request's session: who it is of now, what its writes must carry, its name in the store."""

    caller: Caller
    csrf: str
    name: str


class Sessions:
    """Begins, finds and ends sessions. Owns its store."""

    def __init__(
        self,
        store: SessionStore,
        *,
        access: Access,
        control: Control,
        keys: KeyRings,
        denials: Denials,
        development: bool,
        clock_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self._store = store
        self._access = access
        self._control = control
        self._keys = keys
        self._denials = denials
        self._development = development
        self._clock_ms = clock_ms

    async def login(self, scope: Scope, headers: Mapping[str, str], api_key: str) -> str:
        """Begin a session; the value of `Set-Cookie`.

        Raises ClientError 401 and 403 for a key that is no admin's, 429 after too many of them, and
        InternalError 503.
        """
        client = scope.get("client")
        address = client[0] if client else "unknown"
        shown = {"authorization": f"Bearer {api_key}", "host": headers.get("host", "")}
        try:
            if await self._store.failures(address) >= MAX_FAILURES:
                self._denials.note("too_many_logins", placed(NOBODY, scope))
                raise ClientError(
                    "Too many logins failed. Try again in a minute.",
                    status=429,
                    code="too_many_logins",
                    retry_after_s=WINDOW_S,
                )
            try:
                caller = await self._access.admin(scope, shown)
            except ClientError:
                await self._store.failed(address)
                raise
            token = secrets.token_urlsafe(_TOKEN_BYTES)
            ends_ms = self._clock_ms() + LIFE_S * 1000
            session = Session(tenant=caller.tenant, key_id=caller.key_id, ends_ms=ends_ms)
            # In the log first: a login that is in force is in it.
            act = Act(action="login", actor=placed(caller.actor, scope))
            await self._control.record(act.record(caller.tenant))
            await self._store.begin(_name(self._ring_of(api_key), token), session)
        except StoreError as exc:
            raise _unavailable() from exc
        return self._cookie(scope, headers, token)

    async def signed_in(self, scope: Scope, headers: Mapping[str, str]) -> SignedIn:
        """The session of a request. Raises ClientError 401 `not_signed_in`, InternalError 503."""
        token = self._token(scope, headers)
        if token is None:
            raise _not_signed_in()
        for ring in self._keys:
            name = _name(ring, token)
            try:
                session = await self._store.find(name)
            except StoreError as exc:
                raise _unavailable() from exc
            if session is not None:
                caller = await self._access.admin_again(
                    scope, headers, tenant=session.tenant, key_id=session.key_id
                )
                return SignedIn(caller=caller, csrf=_csrf(ring, token), name=name)
        raise _not_signed_in()

    async def logout(self, scope: Scope, headers: Mapping[str, str], signed_in: SignedIn) -> str:
        """End a session; the value of `Set-Cookie`. Raises InternalError 503."""
        try:
            await self._store.end(signed_in.name)
            act = Act(action="logout", actor=placed(signed_in.caller.actor, scope))
            await self._control.record(act.record(signed_in.caller.tenant))
        except StoreError as exc:
            raise _unavailable() from exc
        return self._cookie(scope, headers, "") + "; Max-Age=0"

    async def close(self) -> None:
        """Close the store."""
        await self._store.close()

    def _ring_of(self, api_key: str) -> KeyRing:
        """The ring of the secret that an API key was made with: with it the session ends."""
        rings = (r for r in self._keys if tenant_of(r, api_key, development=False) is not None)
        return next(rings, self._keys.current)

    def _is_plain(self, scope: Scope, headers: Mapping[str, str]) -> bool:
        """Whether the cookie may travel without TLS: in development, on this machine."""
        return self._development and is_loopback(scope, headers)

    def _cookie(self, scope: Scope, headers: Mapping[str, str], token: str) -> str:
        plain = self._is_plain(scope, headers)
        secure = "" if plain else "; Secure"
        return f"{_cookie_name(plain=plain)}={token}; Path=/; HttpOnly; SameSite=Strict{secure}"

    def _token(self, scope: Scope, headers: Mapping[str, str]) -> str | None:
        cookies = SimpleCookie()
        try:
            # HTTP/2 may split the header; `headers_of` joins it by commas.
            cookies.load(headers.get("cookie", "").replace(", ", "; "))
        except CookieError:
            return None
        morsel = cookies.get(_cookie_name(plain=self._is_plain(scope, headers)))
        if morsel is None or not 0 < len(morsel.value) <= _MAX_TOKEN_CHARACTERS:
            return None
        return morsel.value if morsel.value.isascii() else None


def check_site(headers: Mapping[str, str]) -> None:
    """Raise ClientError 403 unless a page of ours sends this request.

    Browsers say so on every request to a trustworthy origin (`Sec-Fetch-Site`, W3C Fetch Metadata);
    elsewhere it is `Origin`, whose host must be the one that was asked.
    """
    site = headers.get("sec-fetch-site")
    if site is None:
        try:
            host = urlsplit(headers.get("origin", "")).netloc
        except ValueError:  # of no host that can be
            host = ""
        ours = bool(host) and host == headers.get("host")
    else:
        ours = site == "same-origin"
    if not ours:
        raise ClientError(
            "This has to come from the dashboard's own page.", status=403, code="cross_site"
        )


def check_write(headers: Mapping[str, str], signed_in: SignedIn, csrf: str) -> None:
    """Raise ClientError 403 unless a write is meant by the session's page."""
    check_site(headers)
    if not hmac.compare_digest(csrf.encode("utf-8", "surrogatepass"), signed_in.csrf.encode()):
        raise ClientError(
            "The page is of another session; load it anew.", status=403, code="csrf_token"
        )


def _cookie_name(*, plain: bool) -> str:
    """With the prefix no other host, and no page without TLS, can set it (RFC 6265bis, 4.1.3)."""
    return "encore-session" if plain else "__Host-encore-session"


def _name(ring: KeyRing, token: str) -> str:
    return _mac(ring, b"dashboard session", token)


def _csrf(ring: KeyRing, token: str) -> str:
    return _mac(ring, b"dashboard csrf", token)


def _mac(ring: KeyRing, purpose: bytes, token: str) -> str:
    return hmac.digest(hkdf_expand(ring.api, purpose), token.encode(), "sha256").hex()


def _not_signed_in() -> ClientError:
    return ClientError("You are not signed in.", status=401, code="not_signed_in")


def _unavailable() -> InternalError:
    return InternalError(
        "The sessions cannot be reached.", status=503, code="sessions_unavailable", retry_after_s=1
    )
