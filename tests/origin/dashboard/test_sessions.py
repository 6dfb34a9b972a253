"""Who gets into the dashboard, for how long, and what their browser is told to keep."""

from __future__ import annotations

import json
import time
from http.cookies import SimpleCookie
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from origin.dashboard.sessions import LIFE_S, MAX_FAILURES
from origin.stores.contract import StoreError
from origin.stores.control_contract import COMMON_LOG
from origin.stores.memory_control import MemoryControlStore
from origin.stores.memory_sessions import MemorySessionStore
from origin.stores.redis_sessions import RedisSessionStore
from origin.stores.session_contract import IDLE_S
from shared.keys import DEVELOPMENT_API_KEY, key_id, key_ring, make_api_key
from tests.origin.dashboard.visitor import (
    ADMIN,
    CLIENT,
    COOKIE,
    FROM_PAGE,
    OPERATOR,
    OTHER_ADMIN,
    SECRET,
    Visitor,
    visiting,
)
from tests.support.control import control_store, document_of, put_document
from tests.support.waiting import until


class Ahead:
    """A clock that a test sets forward."""

    def __init__(self) -> None:
        self.ahead_s = 0

    def __call__(self) -> int:
        """Unix time in milliseconds."""
        return time.time_ns() // 1_000_000 + self.ahead_s * 1000


def records(store: MemoryControlStore) -> list[dict[str, Any]]:
    """What the audit log has."""
    return [json.loads(record) for _, record in store._logs.get(COMMON_LOG, ())]


async def test_an_admin_gets_in() -> None:
    """By a cookie that no script reads, no other site sends, and no plain connection carries."""
    async with visiting() as visitor:
        assert not await visitor.is_signed_in()
        response = await visitor.login(ADMIN)
        assert response.status_code == 303
        assert response.headers["location"] == "/dashboard?from=login"
        (morsel,) = SimpleCookie(response.headers["set-cookie"]).values()
        assert morsel.key == COOKIE
        assert len(morsel.value) == 43
        assert (morsel["path"], morsel["domain"], morsel["samesite"]) == ("/", "", "Strict")
        assert morsel["httponly"]
        assert morsel["secure"]
        assert await visitor.is_signed_in()


async def test_a_key_goes_nowhere() -> None:
    """Into no page, header, cookie or store: of whoever gets in, and of whoever does not."""
    sessions, control = MemorySessionStore(), control_store(CLIENT, admins=[ADMIN])
    async with visiting(sessions=sessions, control=control) as visitor:
        told = ""
        for api_key in (CLIENT, ADMIN):
            response = await visitor.login(api_key)
            told += response.text + repr(response.headers) + str(response.url)
        told += await visitor.page() + (await visitor.events()).text
        told += repr(sessions._sessions) + repr(control._logs)
        for api_key in (CLIENT, ADMIN):
            assert api_key not in told
            assert api_key.rsplit("-", 1)[0] not in told
        # Nor does whoever reads the store have what a browser holds.
        assert visitor.client.cookies[COOKIE] not in repr(sessions._sessions)


@pytest.mark.parametrize(
    ("api_key", "status", "reason"),
    [
        (CLIENT, 403, "admin_required"),
        ("", 401, "missing_api_key"),
        ("sk-encore-acme-junk", 401, "invalid_api_key"),
        (make_api_key(key_ring(SECRET), "acme", bytes([7] * 15)), 401, "invalid_api_key"),
        (make_api_key(key_ring("x" * 32), "acme", bytes([1] * 15)), 401, "invalid_api_key"),
        (DEVELOPMENT_API_KEY, 401, "invalid_api_key"),
        (ADMIN + "\r\nx: y", 401, "invalid_api_key"),
        ("\ud800é", 401, "invalid_api_key"),
    ],
)
async def test_nobody_else_gets_in(api_key: str, status: int, reason: str) -> None:
    """They are told why, and it is in the audit log."""
    control = control_store(CLIENT, admins=[ADMIN])
    async with visiting(control=control) as visitor:
        body = "api_key=" + "".join(f"%{byte:02x}" for byte in api_key.encode("utf-8", "replace"))
        headers = FROM_PAGE | {"content-type": "application/x-www-form-urlencoded"}
        response = await visitor.client.post("/dashboard/login", content=body, headers=headers)
        assert response.status_code == status
        assert "set-cookie" not in response.headers
        assert 'role="alert" >' in response.text
        assert not await visitor.is_signed_in()

        async def is_recorded() -> bool:
            return any(
                (record["reason"], record["path"]) == (reason, "/dashboard/login")
                and record["outcome"] == "denied"
                for record in records(control)
                if "reason" in record
            )

        await until(is_recorded)


async def test_logins_and_logouts_are_in_the_audit_log() -> None:
    """With who and from where, and not the key."""
    control = control_store(CLIENT, admins=[ADMIN])
    async with visiting(control=control) as visitor:
        await visitor.login(ADMIN)
        await visitor.logout()
    told = [record for record in records(control) if record["action"] in {"login", "logout"}]
    assert [record["action"] for record in told] == ["login", "logout"]
    for record in told:
        assert record["actor"] == f"key:{key_id(ADMIN)[:12]}"
        assert (record["tenant"], record["role"]) == ("acme", "admin")
        assert record["address"] == "10.0.0.9"


@pytest.mark.parametrize(
    "headers",
    [
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"sec-fetch-site": "none"},
        {"sec-fetch-site": "cross-site", "origin": "https://origin.test"},
        {"origin": "https://evil.test"},
        {"origin": "https://origin.test.evil.test"},
        {"origin": "null"},
        {"origin": "http://["},
        {"origin": ""},
        {},
    ],
)
async def test_no_other_site_signs_anybody_in_or_out(headers: dict[str, str]) -> None:
    """Neither where browsers say which site asks, nor where they name its origin alone."""
    async with visiting() as visitor:
        response = await visitor.client.post(
            "/dashboard/login", data={"api_key": ADMIN}, headers=headers
        )
        assert response.status_code == 403
        assert "set-cookie" not in response.headers
        await visitor.login(ADMIN)
        csrf = await visitor.csrf()
        response = await visitor.client.post(
            "/dashboard/logout", data={"csrf": csrf}, headers=headers
        )
        assert response.status_code == 403
        assert await visitor.is_signed_in()


async def test_an_origin_will_do_where_there_is_no_metadata() -> None:
    """As of plain HTTP: the host that was asked."""
    async with visiting() as visitor:
        response = await visitor.client.post(
            "/dashboard/login",
            data={"api_key": ADMIN},
            headers={"origin": "https://origin.test"},
        )
        assert response.status_code == 303


async def test_a_key_in_the_url_is_none() -> None:
    """It would be in logs and histories."""
    async with visiting() as visitor:
        query = {"api_key": ADMIN}
        got = await visitor.client.get("/dashboard/login", params=query)
        posted = await visitor.client.post(
            "/dashboard/login",
            params=query,
            content="",
            headers=FROM_PAGE | {"content-type": "application/x-www-form-urlencoded"},
        )
        shown = await visitor.client.get("/dashboard", params=query)
        assert (got.status_code, posted.status_code, shown.status_code) == (404, 401, 200)
        assert not any("set-cookie" in each.headers for each in (got, posted, shown))
        assert 'class="login"' in shown.text


@pytest.mark.parametrize(
    ("content_type", "content", "status"),
    [
        ("application/json", b'{"api_key": "x"}', 415),
        ("text/plain", b"api_key=x", 415),
        ("application/x-www-form-urlencoded", b"api_key=" + b"x" * 5000, 413),
        ("application/x-www-form-urlencoded", b"&".join([b"a=1"] * 9), 400),
        ("application/x-www-form-urlencoded", "api_key=ü".encode(), 400),
        ("application/x-www-form-urlencoded", f"api_key={ADMIN}&api_key={ADMIN}".encode(), 401),
    ],
)
async def test_what_is_no_form_is_refused(content_type: str, content: bytes, status: int) -> None:
    """With a page that says so."""
    async with visiting() as visitor:
        headers = FROM_PAGE | {"content-type": content_type}
        response = await visitor.client.post("/dashboard/login", content=content, headers=headers)
        assert response.status_code == status
        assert response.headers["content-type"].startswith("text/html")


async def test_logins_are_not_to_be_tried_out() -> None:
    """After ten that failed not even the right key gets in from there, and the log has it."""
    control, sessions = control_store(admins=[ADMIN]), MemorySessionStore()
    async with visiting(control=control, sessions=sessions) as visitor:
        for _ in range(MAX_FAILURES):
            assert (await visitor.login("sk-encore-acme-guess")).status_code == 401
        response = await visitor.login(ADMIN)
        assert response.status_code == 429
        assert response.headers["retry-after"] == "60"

        async def is_recorded() -> bool:
            return "too_many_logins" in {record.get("reason") for record in records(control)}

        await until(is_recorded)
        async with visiting(control=control, sessions=sessions, address="10.0.0.8") as other:
            assert (await other.login(ADMIN)).status_code == 303


async def test_who_logs_out_is_out() -> None:
    """Of every process, whatever the browser still sends."""
    async with visiting() as visitor:
        await visitor.login(ADMIN)
        token, csrf = visitor.client.cookies[COOKIE], await visitor.csrf()
        response = await visitor.logout()
        assert response.status_code == 303
        assert response.headers["location"] == "/dashboard"
        assert "Max-Age=0" in response.headers["set-cookie"]
        visitor.client.cookies.set(COOKIE, token, domain="origin.test")
        assert not await visitor.is_signed_in()
        replayed = await visitor.purge({"everything": True}, csrf=csrf)
        assert replayed.status_code == 401
        assert (await visitor.logout(csrf)).status_code == 401


async def test_a_session_ends() -> None:
    """Where nobody uses it soon, and in any case after a working day."""
    clock = Ahead()
    async with visiting(sessions=MemorySessionStore(clock_ms=clock)) as visitor:
        await visitor.login(ADMIN)
        clock.ahead_s += IDLE_S + 1
        assert not await visitor.is_signed_in()
        clock.ahead_s = 0
        await visitor.login(ADMIN)
        for _ in range(LIFE_S // (IDLE_S - 60)):
            clock.ahead_s += IDLE_S - 60
            assert await visitor.is_signed_in()
        clock.ahead_s += IDLE_S - 60
        assert not await visitor.is_signed_in()


@pytest.mark.parametrize("becomes", [{}, {key_id(ADMIN): "client"}])
async def test_a_session_is_worth_what_its_key_is(becomes: dict[str, str]) -> None:
    """Revoked, or no admin's any more: it ends with the next request."""
    control = control_store(CLIENT, admins=[ADMIN])
    async with visiting(control=control) as visitor:
        await visitor.login(ADMIN)
        assert await visitor.is_signed_in()
        csrf = await visitor.csrf()
        document = document_of(*([CLIENT, ADMIN] if becomes else [CLIENT]))
        await put_document(control, document)
        assert 'class="login"' in await visitor.page()
        for response in (await visitor.events(), await visitor.purge({"tags": ["t"]}, csrf=csrf)):
            assert response.status_code in {401, 403}


async def test_a_replaced_secret_ends_its_sessions() -> None:
    """Not while it is accepted beside the new one."""
    sessions, control = MemorySessionStore(), control_store(CLIENT, admins=[ADMIN])
    kept: dict[str, Any] = {"sessions": sessions, "control": control}
    new = SecretStr("another secret of the tests, long too")
    async with visiting(sessions=sessions, control=control) as visitor:
        await visitor.login(ADMIN)
        cookies = visitor.client.cookies
    async with visiting(**kept, secret=new, previous_secret=SecretStr(SECRET)) as visitor:
        visitor.client.cookies = cookies
        assert await visitor.is_signed_in()
        # A session that begins now is its key's secret's too.
        await visitor.login(ADMIN)
        cookies = visitor.client.cookies
    async with visiting(**kept, secret=new) as visitor:
        visitor.client.cookies = cookies
        assert not await visitor.is_signed_in()


@pytest.mark.parametrize(
    "cookie",
    [
        "",
        f"{COOKIE}=",
        f"{COOKIE}={'a' * 43}",
        f"{COOKIE}={'a' * 5000}",
        f"{COOKIE}=é",
        f"encore-session={'a' * 43}",
        "; ; =;\x00",
        f"{COOKIE}(={'a' * 43}",
        f'{COOKIE}="\\377\\400"',
    ],
)
async def test_made_up_cookies_are_nobodys(cookie: str) -> None:
    """And no error."""
    async with visiting() as visitor:
        headers = [(b"cookie", cookie.encode("latin-1"))]
        response = await visitor.client.get("/dashboard", headers=headers)
        assert response.status_code == 200
        assert 'class="login"' in response.text
        response = await visitor.client.get("/dashboard/events", headers=headers)
        assert response.status_code == 401


async def test_a_cookie_without_the_prefix_does_not_count() -> None:
    """Another host of the same site could have set it."""
    async with visiting() as visitor:
        await visitor.login(ADMIN)
        token = visitor.client.cookies[COOKIE]
        visitor.client.cookies.clear()
        headers = {"cookie": f"encore-session={token}"}
        assert (await visitor.client.get("/dashboard/events", headers=headers)).status_code == 401


async def test_sessions_are_apart() -> None:
    """One's token is no other's, and each sees its own tenant."""
    sessions, control = MemorySessionStore(), control_store(admins=[ADMIN, OTHER_ADMIN])
    async with (
        visiting(sessions=sessions, control=control) as one,
        visiting(sessions=sessions, control=control) as other,
    ):
        await one.login(ADMIN)
        await other.login(OTHER_ADMIN)
        assert await one.csrf() != await other.csrf()
        assert (await one.state())["tenant"] == "acme"
        assert (await other.state())["tenant"] == "other"


async def test_one_login_is_enough_for_all_processes() -> None:
    """And one logout."""
    sessions, control = MemorySessionStore(), control_store(admins=[ADMIN])
    async with (
        visiting(sessions=sessions, control=control) as one,
        visiting(sessions=sessions, control=control) as other,
    ):
        await one.login(ADMIN)
        other.client.cookies = one.client.cookies
        csrf = await one.csrf()
        assert await other.csrf() == csrf
        token = one.client.cookies[COOKIE]
        await other.logout()
        one.client.cookies.set(COOKIE, token, domain="origin.test")
        assert not await one.is_signed_in()


async def test_without_the_store_nobody_is_signed_in() -> None:
    """And the page says why."""
    async with visiting(sessions=RedisSessionStore.from_url("redis://127.0.0.1:1")) as visitor:
        response = await visitor.login(ADMIN)
        assert response.status_code == 503
        assert "sessions cannot be reached" in response.text
        visitor.client.cookies.set(COOKIE, "a" * 43, domain="origin.test")
        assert (await visitor.client.get("/dashboard")).status_code == 503
        assert (await visitor.events()).status_code == 503


async def test_logout_in_an_outage_is_a_503(monkeypatch: pytest.MonkeyPatch) -> None:
    """For the session goes on."""
    async with visiting() as visitor:
        await visitor.login(ADMIN)
        csrf = await visitor.csrf()

        async def fails(*_: object) -> None:
            raise StoreError("no")

        monkeypatch.setattr(MemorySessionStore, "end", fails)
        assert (await visitor.logout(csrf)).status_code == 503
        assert await visitor.is_signed_in()


async def test_a_browser_that_keeps_no_cookie_is_told() -> None:
    """It would meet the form again and again."""
    async with visiting() as visitor:
        response = await visitor.client.get("/dashboard?from=login")
        assert "HTTPS" in response.text


async def signed_in_by_the_development_key(
    base_url: str, address: str
) -> tuple[httpx.Response, Visitor]:
    """The answer to its login."""
    settings: dict[str, Any] = {"base_url": base_url, "address": address}
    async with visiting(mode="development", **settings) as visitor:
        headers = {"origin": base_url}
        response = await visitor.client.post(
            "/dashboard/login", data={"api_key": DEVELOPMENT_API_KEY}, headers=headers
        )
        if response.status_code == 303:
            assert (await visitor.state())["tenant"] == "dev"
        return response, visitor


async def test_the_development_key_needs_no_tls_on_loopback() -> None:
    """There alone its cookie travels without."""
    response, _ = await signed_in_by_the_development_key("http://127.0.0.1:8000", "127.0.0.1")
    cookie = response.headers["set-cookie"]
    assert cookie.startswith("encore-session=")
    assert "Secure" not in cookie
    assert "HttpOnly; SameSite=Strict" in cookie


@pytest.mark.parametrize(
    ("base_url", "address"),
    [("http://127.0.0.1:8000", "10.0.0.9"), ("http://rebound.test", "127.0.0.1")],
)
async def test_the_development_key_is_none_from_elsewhere(base_url: str, address: str) -> None:
    """Nor for a name that was rebound to this machine."""
    response, _ = await signed_in_by_the_development_key(base_url, address)
    assert response.status_code == 401


async def test_its_session_is_none_from_elsewhere_either() -> None:
    """Whoever carries the cookie away."""
    sessions = MemorySessionStore()
    settings: dict[str, Any] = {"mode": "development", "sessions": sessions}
    async with visiting(
        **settings, base_url="http://127.0.0.1:8000", address="127.0.0.1"
    ) as visitor:
        await visitor.client.post(
            "/dashboard/login",
            data={"api_key": DEVELOPMENT_API_KEY},
            headers={"origin": "http://127.0.0.1:8000"},
        )
        token = visitor.client.cookies["encore-session"]
    async with visiting(**settings) as visitor:
        for name in (COOKIE, "encore-session"):
            headers = {"cookie": f"{name}={token}"}
            answer = await visitor.client.get("/dashboard/events", headers=headers)
            assert answer.status_code == 401


async def test_an_operator_is_one_by_its_tenant_alone() -> None:
    """Its page says so."""
    async with visiting() as visitor:
        await visitor.login(OPERATOR)
        page = await visitor.page()
        assert 'data-operator="yes"' in page
        assert 'data-view="*"' in page
        await visitor.login(ADMIN)
        page = await visitor.page()
        assert 'data-operator="no"' in page
        assert 'data-view="acme"' in page
