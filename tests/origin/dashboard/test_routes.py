"""The dashboard's page, files, stream and purge: what each says, and to whom."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from importlib.resources import files
from typing import Any

import pytest

from origin.dashboard.live import MAX_STREAMS
from origin.dashboard.routes import HEADERS
from origin.stores.memory import MemoryStore
from origin.stores.memory_usage import MemoryUsageStore
from origin.stores.redis_usage import RedisUsageStore
from origin.stores.usage_contract import Usage
from shared.keys import make_api_key
from tests.origin.dashboard.visitor import (
    ADMIN,
    CLIENT,
    FROM_PAGE,
    KEYS,
    OPERATOR,
    OTHER_ADMIN,
    Visitor,
    visiting,
)
from tests.support.waiting import until

STATIC = files("origin.dashboard").joinpath("static")
PAGES = ("index.html", "login.html")
FILES = ("charts.js", "dashboard.css", "dashboard.js", "icon.svg")
CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
OTHER_CLIENT = make_api_key(KEYS, "other", bytes(15))


class Elements(HTMLParser):
    """All elements of a page with their attributes."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.all: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note one."""
        self.all.append((tag, dict(attrs)))

    @property
    def ids(self) -> set[str]:
        """What scripts and labels may name."""
        return {str(attributes["id"]) for _, attributes in self.all if "id" in attributes}


async def stored(visitor: Visitor, text: str, **headers: str) -> str:
    """Have an entry of a text; its key's digest."""
    response = await visitor.ask(text, **headers)
    key: str = response.headers["encore-key"]

    async def is_stored() -> bool:
        return any(each.startswith(key) for each in visitor.store._entries)

    await until(is_stored)
    return key


def counts(store: MemoryStore) -> int:
    """How many entries there are."""
    return len(store._entries)


@pytest.mark.parametrize("path", ["", *(f"/{name}" for name in FILES), "/events"])
@pytest.mark.parametrize("api_key", [None, ADMIN])
async def test_every_answer_is_strict(path: str, api_key: str | None) -> None:
    """Nothing from elsewhere, in no frame, kept by no cache."""
    async with visiting() as visitor:
        if api_key is not None:
            await visitor.login(api_key)
        response = await visitor.client.get("/dashboard" + path)
        if response.status_code != 401:
            assert response.headers["content-security-policy"] == CSP
            assert response.headers["x-content-type-options"] == "nosniff"
            assert response.headers["referrer-policy"] == "same-origin"
        assert response.headers["cache-control"] == "private, no-store"


async def test_logins_and_logouts_are_as_strict() -> None:
    """Redirects and refusals too, and nothing but a path is redirected to."""
    async with visiting() as visitor:
        for response in (
            await visitor.login("x"),
            await visitor.login(ADMIN),
            await visitor.logout(),
        ):
            assert HEADERS.items() <= dict(response.headers).items()
            assert response.headers.get("location", "/dashboard").startswith("/dashboard")


@pytest.mark.parametrize("name", PAGES)
def test_pages_keep_to_their_policy(name: str) -> None:
    """No script, style or handler is in them, and they name no other host."""
    for tag, attributes in Elements(STATIC.joinpath(name).read_text("utf-8")).all:
        assert "style" not in attributes, tag
        assert tag != "style"
        assert not [each for each in attributes if each.startswith("on")], tag
        if tag == "script":
            assert attributes.get("src"), "a script in the page"
        for link in ("src", "href", "action"):
            target = attributes.get(link) or "/dashboard"
            assert target.startswith(("/dashboard", "#")), target


@pytest.mark.parametrize("name", FILES)
def test_files_name_no_other_host(name: str) -> None:
    """Nor do scripts write markup."""
    text = STATIC.joinpath(name).read_text("utf-8").replace("http://www.w3.org/2000/svg", "")
    assert "//" not in re.sub(r"(^|[ ;}*])// .*|/\*.*?\*/", "", text, flags=re.MULTILINE)
    assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(", text)


@pytest.mark.parametrize("name", PAGES)
def test_fields_have_labels(name: str) -> None:
    """And labels, and what is named by others, have their fields."""
    elements = Elements(STATIC.joinpath(name).read_text("utf-8"))
    labelled = {attributes.get("for") for tag, attributes in elements.all if tag == "label"}
    fields = {
        attributes.get("id")
        for tag, attributes in elements.all
        if tag in {"input", "select"} and attributes.get("type") != "hidden"
    }
    assert fields == labelled
    for _, attributes in elements.all:
        for link in ("aria-labelledby", "aria-describedby", "list", "for"):
            if attributes.get(link):
                assert attributes[link] in elements.ids


def test_the_script_names_what_is_there() -> None:
    """Every element that it asks for by its id."""
    script = STATIC.joinpath("dashboard.js").read_text("utf-8")
    ids = Elements(STATIC.joinpath("index.html").read_text("utf-8")).ids
    named = set(re.findall(r'(?:\$|show)\("([a-z0-9-]+)"', script))
    assert len(named) > 20
    assert named <= ids


@pytest.mark.parametrize(
    "path", ["nothing.js", "index.html", "..%2froutes.py", "%2e%2e/routes.py", "static/icon.svg"]
)
async def test_other_files_are_not_served(path: str) -> None:
    """Whatever lies beside them."""
    async with visiting() as visitor:
        response = await visitor.client.get(f"/dashboard/{path}")
        assert response.status_code == 404
        assert response.json()["error"]["code"] == "unknown_url"


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", ""),
        ("DELETE", "/events"),
        ("POST", "/events"),
        ("PUT", "/purge"),
        ("PUT", "/login"),
    ],
)
async def test_other_methods_are_refused(method: str, path: str) -> None:
    """By name."""
    async with visiting() as visitor:
        response = await visitor.client.request(method, "/dashboard" + path)
        assert response.status_code == 405


async def test_a_tenants_admin_sees_its_tenant_alone() -> None:
    """No other's figures or names, and nothing of the machines."""
    async with visiting() as visitor:
        await visitor.ask("Hello")
        await visitor.login(OTHER_ADMIN)
        state = await visitor.state()
        assert state["tenant"] == "other"
        assert not state["operator"]
        assert state["redis"] is state["process"] is None
        assert state["counted"]["report"]["origin"]["requests"] == 0
        assert sum(state["counted"]["hour"]["answers"].values()) == 0
        assert "tenants" not in state["counted"]["report"]
        assert "acme" not in json.dumps(state)
        assert (await visitor.state("other")) == state
        for tenant in ("acme", "*", "nobody", ""):
            assert (await visitor.events(tenant)).status_code == 403


async def test_the_operator_sees_all() -> None:
    """Together, or one by one."""
    async with visiting() as visitor:
        await visitor.ask("Hello")
        await visitor.login(OPERATOR)
        every, acme, other = [await visitor.state(name) for name in (None, "acme", "other")]
        assert [each["tenant"] for each in (every, acme, other)] == ["*", "acme", "other"]
        requests = [
            each["counted"]["report"]["origin"]["requests"] for each in (every, acme, other)
        ]
        assert requests == [1, 1, 0]
        hours = [each["counted"]["hour"]["answers"]["generated"] for each in (every, acme, other)]
        assert hours == [1, 1, 0]
        assert every["counted"]["report"]["tenant_names"] == ["acme"]
        assert "process" in every["process"]
        assert (await visitor.events("No Tenant")).status_code == 400


async def test_what_traffic_does_is_told() -> None:
    """A miss, then hits: of the hour, of all time, by key."""
    async with visiting() as visitor:
        await visitor.login(ADMIN)
        key = await stored(visitor, "Hello")
        for _ in range(3):
            await visitor.ask("Hello")
        counted = (await visitor.state())["counted"]
        assert (
            counted["hour"]["answers"] | {"exact": 3, "generated": 1} == counted["hour"]["answers"]
        )
        assert counted["hour"]["hit_rate"] == 0.75
        assert counted["report"]["hits"] == 3
        assert [(top["key"], top["hits"]) for top in counted["report"]["top_keys"]] == [(key, 3)]
        assert counted["hour"]["tokens"]["saved"] == 15
        health = {part["name"]: part["state"] for part in (await visitor.state())["health"]}
        assert health == {
            "Redis (L1)": "ok",
            "Redis (control)": "ok",
            "Engine": "ok",
            "Models": "ok",
            "Embedder": "off",
            "Edge": "quiet",
        }


async def test_no_prompt_and_no_answer_is_told() -> None:
    """Nor a whole key: its digest."""
    async with visiting() as visitor:
        await visitor.login(ADMIN)
        key = await stored(visitor, "a question that is nobody's business")
        answer = await visitor.ask("a question that is nobody's business")
        told = (await visitor.events()).text
        assert key in told
        assert "business" not in told
        assert answer.json()["choices"][0]["message"]["content"] not in told
        assert not any(each in told for each in visitor.store._entries)


async def test_names_are_text() -> None:
    """Whatever a model is called: the stream stays one line an event, the page markup of ours."""
    usage_store = MemoryUsageStore()
    name = "</script><img>\nevent: x"
    await usage_store.add(
        {"acme": Usage(numbers={(name, None, "requests", "origin", "miss", None): 1})}
    )
    async with visiting(usage_store=usage_store) as visitor:
        await visitor.login(ADMIN)
        text = (await visitor.events()).text
        events = re.findall(r"^event: (.*)$", text, re.MULTILINE)
        assert set(events) <= {"state", "beat"}
        assert (await visitor.state())["counted"]["report"]["models"][0]["name"] == name


async def test_a_stores_outage_is_told() -> None:
    """Not as zeros; the rest is shown."""
    down = RedisUsageStore.from_url("redis://127.0.0.1:1")
    async with visiting(usage_store=down) as visitor:
        await visitor.login(ADMIN)
        state = await visitor.state()
        assert state["counted"] is None
        states = {part["name"]: part["state"] for part in state["health"]}
        assert (states["Engine"], states["Edge"]) == ("ok", "unknown")


async def test_pages_that_are_open_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """One more is refused with a status, and a place that is given back is free."""
    monkeypatch.setattr("origin.dashboard.live.MAX_STREAMS", 0)
    async with visiting() as visitor:
        await visitor.login(ADMIN)
        response = await visitor.events()
        assert response.status_code == 503
        assert response.headers["retry-after"] == "1"
    assert MAX_STREAMS > 0
    monkeypatch.setattr("origin.dashboard.live.MAX_STREAMS", 1)
    async with visiting() as visitor:
        await visitor.login(ADMIN)
        for _ in range(3):
            await visitor.state()


@pytest.mark.parametrize("by", ["tags", "keys", "models", "everything"])
async def test_a_purge_ends_what_it_names(by: str) -> None:
    """After it was looked at: that changes nothing."""
    async with visiting() as visitor:
        await visitor.login(ADMIN)
        key = await stored(visitor, "Hello", **{"encore-tags": "homes"})
        ways: dict[str, dict[str, Any]] = {
            "tags": {"tags": ["homes"]},
            "keys": {"keys": [key]},
            "models": {"models": ["scripted"]},
            "everything": {"everything": True},
        }
        what = ways[by]
        looked = await visitor.purge({**what, "tenant": "acme", "dry_run": True})
        assert looked.status_code == 200
        assert (looked.json()["entries"], looked.json()["complete"]) == (1, True)
        assert "; hit" in (await visitor.ask("Hello")).headers["cache-status"]
        done = await visitor.purge({**what, "tenant": "acme"})
        assert done.status_code == 200
        assert done.json()["edge"] == "not configured"
        assert "; hit" not in (await visitor.ask("Hello")).headers["cache-status"]


@pytest.mark.parametrize(
    ("token", "headers", "code"),
    [
        ("", FROM_PAGE, "csrf_token"),
        ("0" * 64, FROM_PAGE, "csrf_token"),
        ("theirs", FROM_PAGE, "csrf_token"),
        ("ours", {}, "cross_site"),
        ("ours", {"sec-fetch-site": "cross-site"}, "cross_site"),
        ("ours", {"sec-fetch-site": "same-site", "origin": "https://origin.test"}, "cross_site"),
        ("ours", {"origin": "https://evil.test"}, "cross_site"),
    ],
)
async def test_no_write_that_is_not_meant(token: str, headers: dict[str, str], code: str) -> None:
    """Without the page's own token, or from another site: nothing is purged, nobody logged out."""
    async with visiting() as visitor:
        await visitor.login(ADMIN)
        theirs = await visitor.csrf()
        await visitor.login(ADMIN)
        sent = {"theirs": theirs, "ours": await visitor.csrf()}.get(token, token)
        await stored(visitor, "Hello")
        purged = await visitor.purge({"everything": True}, csrf=sent, headers=headers)
        assert purged.status_code == 403
        assert purged.json()["error"]["code"] == code
        left = await visitor.client.post("/dashboard/logout", data={"csrf": sent}, headers=headers)
        assert left.status_code == 403
        assert "; hit" in (await visitor.ask("Hello")).headers["cache-status"]
        assert await visitor.is_signed_in()


@pytest.mark.parametrize("tenant", ["other", "*", "nobody"])
async def test_no_tenants_admin_purges_anothers(tenant: str) -> None:
    """Nor looks what there is of it."""
    async with visiting(admins=[ADMIN, OTHER_ADMIN]) as visitor:
        await visitor.login(OTHER_ADMIN)
        await stored(visitor, "Hello")
        body: dict[str, Any] = {"everything": True, "tenant": tenant}
        if tenant == "other":
            body["tenant"] = "acme"
        for dry_run in (True, False):
            body["dry_run"] = dry_run
            assert (await visitor.purge(body)).status_code == 403
        assert (await visitor.purge({"everything": True})).json()["tenant"] == "other"
        assert "; hit" in (await visitor.ask("Hello")).headers["cache-status"]


async def test_the_operator_purges_anybodys() -> None:
    """It says whose."""
    async with visiting() as visitor:
        await visitor.login(OPERATOR)
        await stored(visitor, "Hello")
        done = await visitor.purge({"everything": True, "tenant": "acme"})
        assert done.json()["tenant"] == "acme"
        assert "; hit" not in (await visitor.ask("Hello")).headers["cache-status"]


async def test_an_api_key_is_no_session() -> None:
    """And a session is none of an API key: each opens its own doors."""
    async with visiting() as visitor:
        bearer = {"authorization": f"Bearer {ADMIN}"}
        for path in ("/dashboard/events", "/dashboard/purge"):
            method = "POST" if path.endswith("purge") else "GET"
            response = await visitor.client.request(method, path, headers=FROM_PAGE | bearer)
            assert response.status_code == 401
        await visitor.login(ADMIN)
        for path in ("/cache/stats", "/metrics"):
            assert (await visitor.client.get(path)).status_code == 401
        assert (await visitor.client.post("/cache/purge", json={})).status_code == 401


async def test_a_client_of_the_tenant_is_counted_for_it() -> None:
    """And for no other."""
    async with visiting() as visitor:
        await visitor.ask("Hello", CLIENT)
        refused = await visitor.ask("Hello", OTHER_CLIENT)
        assert refused.status_code == 401
        await visitor.login(ADMIN)
        answers = (await visitor.state())["counted"]["hour"]["answers"]
        assert sum(answers.values()) == 1
