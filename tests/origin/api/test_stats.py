"""`GET /cache/stats`: what requests of every kind come to, and who may read it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from origin.app import create_app
from origin.lifetimes import Tiers
from origin.prices import Prices
from origin.settings import Settings
from origin.stores.memory import MemoryStore
from origin.stores.redis_usage import RedisUsageStore
from origin.stores.usage_contract import UsageStore
from shared.control_document import OPERATOR_TENANT, Policy
from shared.counts import OUTCOMES, Counts
from shared.envelope import MEDIA_TYPE, TokenCounts
from shared.errors import UpstreamError
from shared.keys import edge_bearer, key_ring, make_api_key
from shared.wire import COUNTERS_PATH, EDGE_AUTHORIZATION, EDGE_REFRESH
from tests.support.control import control_store
from tests.support.engines import MODEL, ScriptedEngine

SECRET = "a secret of the tests, long enough"
KEYS = key_ring(SECRET)
ACME = make_api_key(KEYS, "acme", bytes(15))
OTHER = make_api_key(KEYS, "other", bytes(15))
OPERATOR = make_api_key(KEYS, OPERATOR_TENANT, bytes(15))
CHAT = "/v1/chat/completions"
EDGE = {EDGE_AUTHORIZATION: f"Bearer {edge_bearer(KEYS)}"}
AS_EDGE = EDGE | {"accept": MEDIA_TYPE}
USED = TokenCounts(prompt=3, completion=2)
"""What each answer of the engine says it took."""


class Origin:
    """A client of an origin."""

    def __init__(self, client: httpx.AsyncClient, engine: ScriptedEngine) -> None:
        self._client = client
        self.engine = engine

    async def ask(
        self,
        text: str = "Hello",
        headers: dict[str, str] | None = None,
        *,
        api_key: str = ACME,
        **fields: Any,
    ) -> httpx.Response:
        """One chat request."""
        body = {"model": MODEL, "messages": [{"role": "user", "content": text}], **fields}
        headers = {"authorization": f"Bearer {api_key}", **(headers or {})}
        return await self._client.post(CHAT, json=body, headers=headers)

    async def hit(self, text: str = "Hello", *, api_key: str = ACME) -> None:
        """Have an entry of a text: a miss, which is over when it is stored."""
        await self.ask(text, api_key=api_key)
        # Looked for as the edge's refreshes do, so that it is no request.
        wants = {"cache-control": "only-if-cached, max-stale", EDGE_REFRESH: "1", **EDGE}

        async def is_stored() -> bool:
            return (await self.ask(text, wants, api_key=api_key)).status_code == 200

        await until(is_stored)

    async def post(self, path: str, content: bytes, headers: dict[str, str]) -> httpx.Response:
        """One request of the edge."""
        return await self._client.post(path, content=content, headers=headers)

    async def embed(self, *given: str, **fields: Any) -> httpx.Response:
        """One request for embeddings."""
        body = {"model": MODEL, "input": list(given), **fields}
        headers = {"authorization": f"Bearer {ACME}"}
        return await self._client.post("/v1/embeddings", json=body, headers=headers)

    async def stats(
        self, tenant: str | None = None, api_key: str | None = ACME, **others: str
    ) -> httpx.Response:
        """What the route answers."""
        return await self._client.get(
            "/cache/stats",
            params=others if tenant is None else {"tenant": tenant},
            headers={} if api_key is None else {"authorization": f"Bearer {api_key}"},
        )

    async def told(self, tenant: str | None = None, api_key: str = ACME) -> dict[str, Any]:
        """What it tells."""
        answer: dict[str, Any] = (await self.stats(tenant, api_key)).json()
        return answer


@asynccontextmanager
async def origin(
    *,
    admins: Sequence[str] = (),
    usage_store: UsageStore | None = None,
    policy: Policy | None = None,
    **settings: Any,
) -> AsyncIterator[Origin]:
    """An origin on memory."""
    engine = ScriptedEngine()
    app = create_app(
        Settings(secret=SecretStr(SECRET), **settings),
        engine=engine,
        store=MemoryStore(),
        control_store=control_store(
            *({ACME, OTHER, OPERATOR} - set(admins)), admins=admins, policy=policy
        ),
        usage_store=usage_store,
    )
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://origin") as client:
        yield Origin(client, engine)


async def until(happened: Callable[[], Awaitable[bool]]) -> None:
    """Wait for what happens behind an answer."""
    for _ in range(1000):
        if await happened():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("never happened")


def some(outcomes: dict[str, int]) -> dict[str, int]:
    """Those that are not 0."""
    return {name: count for name, count in outcomes.items() if count}


async def test_nothing_counted_is_zeros() -> None:
    """Every member is there, whatever was counted."""
    async with origin() as one:
        response = await one.stats()
        told = response.json()
        await one.ask()
        later = await one.told()
    assert response.headers["cache-control"] == "private, no-store"
    assert told["version"] == 1
    assert told["tenant"] == "acme"
    assert told["since"] is told["hit_rate"] is told["usd"] is None
    assert set(told["origin"]["outcomes"]) == set(OUTCOMES)
    assert set(told["edge"]["outcomes"].values()) == {0}
    assert told["origin"]["latency_ms"]["hit"]["mean"] is None
    assert later["since"].endswith("Z")
    assert later.keys() == told.keys()


async def test_every_outcome_is_counted() -> None:
    """At the origin: whatever answered, or refused."""
    async with origin(ttl_s=1, stale_while_revalidate_s=0, stale_if_error_s=1000) as one:
        await one.hit("fails")
        one.engine.failure = UpstreamError("It broke.", status=503)
        await asyncio.sleep(1.1)
        assert (await one.ask("fails")).status_code == 200
        assert (await one.ask("fails at all")).status_code == 503
        one.engine.failure = RuntimeError("a bug")
        assert (await one.ask("fails oddly")).status_code == 500
        one.engine.failure = None
        assert (await one.ask("bypass", {"cache-control": "no-store"})).status_code == 200
        assert (await one.ask("x", {"cache-control": "only-if-cached"})).status_code == 504
        assert (await one.ask("x", temperature="hot")).status_code == 400
        assert (await one.ask("x", {"authorization": "Bearer none"})).status_code == 401
        told = await one.told()
    outcomes = {"miss": 1, "stale_if_error": 1, "error": 2, "bypass": 1, "refused": 2}
    assert some(told["origin"]["outcomes"]) == outcomes
    assert told["origin"]["requests"] == 7
    # What the client got wrong is no model's.
    assert told["models"][MODEL]["origin"]["error"] == 2
    assert told["models"][MODEL]["origin"]["refused"] == 0
    assert told["origin"]["latency_ms"]["miss"]["count"] == 3
    assert told["origin"]["latency_ms"]["hit"]["count"] == 0


async def test_hits_are_counted() -> None:
    """With their bytes, their keys, and the tokens that they saved, however they are asked for."""
    async with origin() as one:
        await one.hit()
        hits = [
            await one.ask(),
            await one.ask(stream=True),
            await one.ask(headers={"cache-control": "max-stale"}),
            await one.ask(headers=AS_EDGE),
        ]
        assert all("; hit" in hit.headers["cache-status"] for hit in hits)
        told = await one.told()
    assert some(told["origin"]["outcomes"]) == {"hit": 4, "miss": 1}
    assert (told["hits"], told["misses"], told["hit_rate"]) == (4, 1, 0.8)
    assert told["origin"]["hit_rate"] == 0.8
    assert told["tokens"] == {
        "saved": {"prompt": 12, "completion": 8},
        "spent": {"prompt": 3, "completion": 2},
    }
    assert told["origin"]["bytes"] == sum(hit.num_bytes_downloaded for hit in hits)
    (top,) = told["top_keys"]
    assert (top["tenant"], top["hits"]) == ("acme", 4)
    assert top["key"] == hits[0].headers["encore-key"]
    assert told["origin"]["latency_ms"]["hit"]["count"] == 4


async def test_a_stale_answer_is_told_apart() -> None:
    """And its refresh spends tokens that nobody waited for."""
    async with origin(ttl_s=1, stale_while_revalidate_s=1000) as one:
        await one.hit()
        await asyncio.sleep(1.1)
        assert "ttl=-" in (await one.ask()).headers["cache-status"]

        async def is_refreshed() -> bool:
            return bool((await one.told())["tokens"]["spent"]["prompt"] == 6)

        await until(is_refreshed)
        told = await one.told()
    assert some(told["origin"]["outcomes"]) == {"stale": 1, "miss": 1}
    assert told["tokens"]["saved"] == {"prompt": 3, "completion": 2}


async def test_who_joins_a_generation_spends_nothing() -> None:
    """One miss, the others collapsed, and one generation's tokens."""
    async with origin() as one:
        one.engine.gate.clear()
        asked = [asyncio.create_task(one.ask(stream=stream)) for stream in (False, True, False)]
        await asyncio.sleep(0.05)
        one.engine.open_gate()
        assert [(await each).status_code for each in asked] == [200] * 3
        told = await one.told()
    assert some(told["origin"]["outcomes"]) == {"collapsed": 2, "miss": 1}
    assert told["tokens"] == {
        "saved": {"prompt": 6, "completion": 4},
        "spent": {"prompt": 3, "completion": 2},
    }
    assert (told["hits"], told["misses"]) == (0, 3)


async def test_a_stream_that_breaks_off_is_an_error() -> None:
    """Though its status was 200."""
    async with origin() as one:
        one.engine.failure_after_chunks = UpstreamError("It broke.", code="broke")
        assert (await one.ask(stream=True)).status_code == 200
        assert some((await one.told())["origin"]["outcomes"]) == {"error": 1}


async def test_a_client_that_leaves_is_not_counted() -> None:
    """It got no answer, and it is nobody's error."""
    async with origin() as one:
        one.engine.gate.clear()
        asked = asyncio.create_task(one.ask())
        await asyncio.sleep(0.05)
        asked.cancel()
        with suppress(asyncio.CancelledError):
            await asked
        assert (await one.told())["origin"]["requests"] == 0


@pytest.mark.parametrize(
    ("text", "strategy"),
    [
        ("where is it?", "exact"),
        ("Please, where is  it?", "normalised"),
        ("Area of Oak Street", "template"),
    ],
)
async def test_the_key_strategy_that_earned_a_hit(text: str, strategy: str) -> None:
    """A template that matched, a profile that changed this request's text, or neither."""
    policy = Policy(normalisation="text", templates={"area@1": "Area of {name:text}"})
    async with origin(policy=policy) as one:
        await one.hit(text)
        await one.ask(text)
        told = await one.told()
    assert {name: sum(tiers.values()) for name, tiers in told["strategies"].items()} == {
        **dict.fromkeys(("exact", "normalised", "template", "semantic"), 0),
        strategy: 1,
    }


async def test_classes_are_told_apart() -> None:
    """By the request's own word."""
    tiers = Tiers.parse('{"classes": {"listing": {}, "contract": {}}}')
    async with origin(tiers=tiers) as one:
        for name in ("listing", "contract", "listing"):
            await one.ask(name, {"encore-class": name, "cache-control": "no-cache"})
        classes = (await one.told())["classes"]
    assert {name: some(each["origin"]) for name, each in classes.items()} == {
        "listing": {"miss": 2},
        "contract": {"miss": 1},
    }


async def test_batches_of_embeddings() -> None:
    """A request is one outcome; what its inputs saved, spent and hit is counted by input."""
    async with origin() as one:
        await one.embed("one", "four")

        async def is_known() -> bool:
            await one.embed("four", "one", "four")
            return bool((await one.told())["hits"])

        await until(is_known)
        before = await one.told()
        await one.embed("one", "eleven")
        told = await one.told()
    known = before["hits"]
    assert some(told["origin"]["outcomes"]) == {"hit": known, "miss": told["misses"]}
    # An input costs a token a character, and is known once however often it is asked for.
    assert told["tokens"]["spent"] == {"prompt": 3 + 4 + 6, "completion": 0}
    saved = told["tokens"]["saved"]["prompt"] - before["tokens"]["saved"]["prompt"]
    assert saved == 3
    assert sorted(top["hits"] for top in told["top_keys"]) == [known, known + 1]
    assert told["origin"]["bytes"] > before["origin"]["bytes"]


async def test_money_is_told_where_there_is_a_price() -> None:
    """By each model's price; a model without one is named."""
    prices = Prices.parse('{"scripted": {"input": 1000000, "output": 10}, "gpt-*": {"input": 1}}')
    async with origin(prices=prices) as one:
        await one.hit()
        await one.ask()
        counts = Counts()
        counts.count("acme", "hit", latency_ms=1, model="unpriced", saved=USED)
        counts.count("acme", "hit", latency_ms=1, model="gpt-4", saved=USED)
        await one.post(COUNTERS_PATH, counts.take() or b"", EDGE)
        told = await one.told()
    assert told["models"][MODEL]["usd"] == {"saved": 3.00002, "spent": 3.00002}
    assert told["models"]["unpriced"]["usd"] is None
    assert told["usd"] == {
        "saved": 3.000023,
        "spent": 3.00002,
        "models_without_price": ["unpriced"],
    }


async def test_both_tiers_are_one_cache() -> None:
    """What the edge had not, the origin was asked for: it counts once."""
    async with origin() as one:
        await one.hit()  # as the edge's miss, say
        await one.ask()  # and another
        counts = Counts()
        for _ in range(2):
            counts.count("acme", "miss", latency_ms=9, model=MODEL)
        for latency_ms in (1.5, 2, 3):
            counts.count(
                "acme",
                "hit",
                latency_ms=latency_ms,
                body_bytes=100,
                model=MODEL,
                strategy="exact",
                saved=USED,
                short_key="0" * 16,
                trouble="put",
            )
        await one.post(COUNTERS_PATH, counts.take() or b"", EDGE)
        told = await one.told()
    assert (told["hits"], told["misses"], told["hit_rate"]) == (4, 1, 0.8)
    assert told["edge"]["hit_rate"] == 0.6
    assert told["origin"]["hit_rate"] == 0.5
    assert told["edge"]["bytes"] == 300
    assert told["edge"]["troubles"]["put"] == 3
    latency = told["edge"]["latency_ms"]["hit"]
    assert (latency["count"], latency["sum"], latency["p50"], latency["p99"]) == (3, 6.5, 2, 5)
    assert latency["mean"] == pytest.approx(6.5 / 3)
    assert some(latency["buckets"]) == {"2": 2, "5": 1}
    assert told["tokens"]["saved"] == {"prompt": 12, "completion": 8}
    assert told["strategies"]["exact"] == {"edge": 3, "origin": 1}
    assert (told["top_keys"][0]["key"], told["top_keys"][0]["hits"]) == ("0" * 16, 3)
    model = told["models"][MODEL]
    assert (model["hits"], model["misses"]) == (4, 1)


async def test_refreshes_of_the_edge_are_no_requests() -> None:
    """Nobody waits for them; from anybody else the word means nothing."""
    async with origin() as one:
        await one.ask(headers={EDGE_REFRESH: "1", **AS_EDGE})
        await one.ask("more", {EDGE_REFRESH: "1"})
        told = await one.told()
    assert told["origin"]["requests"] == 1
    assert told["tokens"]["spent"]["prompt"] == 6


async def test_an_admin_of_the_operator_sees_all() -> None:
    """One tenant, or all of them together and one by one."""
    async with origin(admins=[OPERATOR]) as one:
        for key in (ACME, OTHER):
            await one.hit(api_key=key)
        await one.ask()
        own = await one.told("acme", OPERATOR)
        every = await one.told("*", OPERATOR)
        theirs = await one.told("other", OTHER)
    assert own["tenant"] == "acme"
    assert own["origin"]["requests"] == 2
    assert every["tenant"] == "*"
    assert every["origin"]["requests"] == 3
    assert every["tenants"] == {
        "acme": {"hits": 1, "misses": 1, "hit_rate": 0.5},
        "other": {"hits": 0, "misses": 1, "hit_rate": 0},
    }
    assert theirs["origin"]["requests"] == 1
    assert "tenants" not in theirs


@pytest.mark.parametrize(
    ("api_key", "admins", "tenant", "status"),
    [
        (None, [], None, 401),
        (ACME, [], "acme", 200),
        (OTHER, [], "acme", 403),
        (OTHER, [OTHER], "acme", 403),
        (OTHER, [OTHER], "*", 403),
        (OPERATOR, [], "acme", 403),
        (OPERATOR, [], "*", 403),
        (OPERATOR, [OPERATOR], "No Tenant", 400),
        (OPERATOR, [OPERATOR], "*", 200),
    ],
)
async def test_who_may_read(
    api_key: str | None, admins: list[str], tenant: str | None, status: int
) -> None:
    """One's own tenant by any of its keys; others by the operator's admins alone."""
    async with origin(admins=admins) as one:
        assert (await one.stats(tenant, api_key)).status_code == status


async def test_an_unknown_parameter_is_refused() -> None:
    """A misspelt one would tell of another tenant than was meant."""
    async with origin(admins=[OPERATOR]) as one:
        response = await one.stats(api_key=OPERATOR, tennant="acme")
    assert response.status_code == 400
    assert response.json()["error"]["param"] == "tennant"


async def test_an_outage_is_a_503() -> None:
    """Not zeros; requests are answered."""
    down = RedisUsageStore.from_url("redis://127.0.0.1:1")
    async with origin(usage_store=down) as one:
        assert (await one.ask()).status_code == 200
        for tenant in ("acme", None):
            response = await one.stats(tenant)
            assert response.status_code == 503
            assert json.loads(response.text)["error"]["code"] == "counters_unavailable"
            assert response.headers["retry-after"] == "1"
