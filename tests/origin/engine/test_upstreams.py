"""Which upstream is asked for what."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest

from origin.engine.contract import Finished
from origin.engine.upstream import MODELS_MEMO_S, UpstreamEngine
from origin.engine.upstream_client import UpstreamClient
from origin.engine.upstreams import Route, Upstreams
from origin.settings import Settings
from shared.errors import ClientError, UpstreamError
from shared.requests import Endpoint, Request, validate
from tests.origin.engine.fake_upstream import FakeUpstream, fake_upstream

SECRET = "s" * 32
ANSWER = {
    "id": "c",
    "object": "chat.completion",
    "created": 1,
    "model": "m",
    "choices": [
        {"index": 0, "message": {"role": "assistant", "content": "x"}, "finish_reason": "stop"}
    ],
}


@pytest.fixture(scope="module")
def servers() -> Iterator[tuple[FakeUpstream, FakeUpstream]]:
    """Two servers for the module."""
    with fake_upstream() as one, fake_upstream() as two:
        yield one, two


@pytest.fixture
def both(servers: tuple[FakeUpstream, FakeUpstream]) -> tuple[FakeUpstream, FakeUpstream]:
    """The servers as new."""
    for server in servers:
        server.reset()
        server.say(ANSWER)
    return servers


@asynccontextmanager
async def configured(*upstreams: dict[str, Any], **settings: Any) -> AsyncIterator[Upstreams]:
    """The engine that these upstreams' settings make."""
    fields = {"secret": SECRET, "upstreams": upstreams, **settings}
    made = Upstreams.from_settings(Settings.model_validate(fields))
    yield made
    await made.close()


def chat(model: str) -> Request:
    """A request for a model."""
    return validate(
        Endpoint.CHAT, {"model": model, "messages": [{"role": "user", "content": "Hi"}]}
    )


async def asked(engine: Upstreams, model: str, tenant: str | None = None) -> None:
    """Run a request to its end."""
    events = [event async for event in engine.run(chat(model), tenant=tenant)]
    assert events == [Finished(answer=ANSWER)]


@pytest.mark.parametrize(
    ("patterns", "model", "index"),
    [
        ((["gpt-*"], ["*"]), "gpt-4o", 0),
        ((["gpt-*"], ["*"]), "llama", 1),
        ((["*"], ["gpt-*"]), "gpt-4o", 0),
        ((["gpt-4o"], ["gpt-4o-mini"]), "gpt-4o-mini", 1),
        ((["org/*", "x?"], ["*"]), "org/a/b", 0),
        ((["org/*", "x?"], ["*"]), "x1", 0),
        ((["org/*", "x?"], ["*"]), "x", 1),
        ((["GPT-*"], ["*"]), "gpt-4o", 1),
        ((["[ab]-1"], ["*"]), "b-1", 0),
    ],
)
async def test_the_first_that_matches_is_asked(
    both: tuple[FakeUpstream, FakeUpstream],
    patterns: tuple[Sequence[str], Sequence[str]],
    model: str,
    index: int,
) -> None:
    """And nobody else, with its own key."""
    upstreams = [
        {"base_url": server.url, "models": names, "api_key": f"key-of-{i}"}
        for i, (server, names) in enumerate(zip(both, patterns, strict=True))
    ]
    async with configured(*upstreams) as engine:
        await asked(engine, model)
    assert [len(server.seen) for server in both] == [1 - index, index]
    assert both[index].seen[0].headers["authorization"] == f"Bearer key-of-{index}"


async def test_unknown_model_is_a_404() -> None:
    """Where no pattern matches: from the check and the fingerprint, which come before a run."""
    async with configured({"base_url": "http://one", "models": ["gpt-*"]}) as engine:
        with pytest.raises(ClientError) as caught:
            await engine.fingerprint("llama")
        assert (caught.value.status, caught.value.param) == (404, "model")
        with pytest.raises(ClientError):
            engine.check(chat("llama"))


async def test_fingerprint_tells_by_whom_a_model_is_served() -> None:
    """Moving a model to another upstream makes its entries another model's."""
    one, two = {"base_url": "http://one"}, {"base_url": "http://two"}
    async with (
        configured(one | {"models": ["a"]}, two) as a_at_one,
        configured(one | {"models": ["b"]}, two) as a_at_two,
        configured(two) as all_at_two,
    ):
        assert await a_at_one.fingerprint("a") != await a_at_two.fingerprint("a")
        assert await a_at_two.fingerprint("a") == await all_at_two.fingerprint("a")
        assert await a_at_one.fingerprint("b") == await all_at_two.fingerprint("b")


async def test_single_upstream_serves_every_model(
    both: tuple[FakeUpstream, FakeUpstream],
) -> None:
    """ENCORE_UPSTREAM is a list of one."""
    settings = Settings.model_validate(
        {"secret": SECRET, "upstream": both[0].url + "/v1", "upstream_api_key": "single-key"}
    )
    engine = Upstreams.from_settings(settings)
    await asked(engine, "whatever")
    assert not engine.are_several
    assert both[0].seen[0].headers["authorization"] == "Bearer single-key"
    await engine.close()


async def test_tenants_key_goes_with_its_requests(
    both: tuple[FakeUpstream, FakeUpstream],
) -> None:
    """To the upstream it is for, and with nobody else's."""
    upstream = {
        "base_url": both[0].url,
        "api_key": "shared",
        "tenant_api_keys": {"acme": "its-own"},
    }
    async with configured(upstream) as engine:
        for tenant in ("acme", "other"):
            await asked(engine, "m", tenant)
    shown = [seen.headers["authorization"] for seen in both[0].seen]
    assert shown == ["Bearer its-own", "Bearer shared"]


def listing(*names: str) -> dict[str, Any]:
    """What `GET /v1/models` says."""
    return {"data": [{"id": name, "created": 1, "owned_by": "them"} for name in names]}


class Listing:
    """Two upstreams whose lists are asked for at a time of the test's."""

    def __init__(self, both: tuple[FakeUpstream, FakeUpstream]) -> None:
        self.now_s = 0.0
        self.engine = Upstreams(
            [
                Route(models=names, engine=UpstreamEngine(client, clock_s=lambda: self.now_s))
                for names, client in (
                    (["a*"], UpstreamClient(both[0].url)),
                    (["*"], UpstreamClient(both[1].url)),
                )
            ]
        )

    async def names(self) -> list[str]:
        """The models' names."""
        return [model.id for model in await self.engine.models()]


@pytest.fixture
async def lists(both: tuple[FakeUpstream, FakeUpstream]) -> AsyncIterator[Listing]:
    """Both upstreams list models, some of them the other's."""
    both[0].say(listing("a1", "b-elsewhere"))
    both[1].say(listing("b1", "a-elsewhere"))
    made = Listing(both)
    yield made
    await made.engine.close()


async def test_models_are_listed_where_they_are_served(lists: Listing) -> None:
    """What another upstream would be asked for is not this one's to list."""
    assert await lists.names() == ["a1", "b1"]


async def test_lists_are_remembered(
    lists: Listing, both: tuple[FakeUpstream, FakeUpstream]
) -> None:
    """Readiness probes and clients that list models do not burden an upstream."""
    for _ in range(20):
        await lists.names()
    assert [len(server.seen) for server in both] == [1, 1]
    both[0].say(listing("a2"))
    lists.now_s = MODELS_MEMO_S
    assert await lists.names() == ["a2", "b1"]


async def test_one_of_them_failing_hides_no_models(
    lists: Listing, both: tuple[FakeUpstream, FakeUpstream]
) -> None:
    """What it had listed is listed still; an outage is not an absence."""
    await lists.names()
    lists.now_s = MODELS_MEMO_S
    both[0].say({"error": {"message": "no"}}, status=500)
    assert await lists.names() == ["a1", "b1"]


async def test_all_of_them_failing_is_an_error(
    lists: Listing, both: tuple[FakeUpstream, FakeUpstream]
) -> None:
    """And the reason why the origin is not ready."""
    for server in both:
        server.say({"error": {"message": "no"}}, status=500)
    with pytest.raises(UpstreamError):
        await lists.names()


async def test_silence_is_noticed_before_the_deadline() -> None:
    """Else the deadline would cancel each request, and nothing be learnt of the upstream."""
    upstream = {"base_url": "http://one", "timeout_s": 600.0}
    async with configured(upstream, request_deadline_s=10.0) as engine:
        client = engine.passage(None, tenant="acme", path="/v1/responses")
        assert client._client.timeout.read == 9.5


@pytest.mark.parametrize("path", ["/v1/files", "/v1/batches", "/v1/fine_tuning/jobs", "/v1/x"])
async def test_paths_of_an_account_are_for_its_owner(path: str) -> None:
    """What tenants keep there is theirs only where the account is."""
    upstream = {"base_url": "http://one", "api_key": "k", "tenant_api_keys": {"acme": "own"}}
    async with configured(upstream) as engine:
        assert engine.passage("m", tenant="acme", path=path)
        with pytest.raises(ClientError) as caught:
            engine.passage("m", tenant="other", path=path)
        assert (caught.value.status, caught.value.code) == (403, "upstream_key_required")


@pytest.mark.parametrize(
    "path", ["/v1/responses", "/v1/responses/resp_1/cancel", "/v1/audio/speech", "/v1/moderations"]
)
async def test_paths_without_an_account_are_for_everybody(path: str) -> None:
    """The operator says which, and these are the ones by default."""
    async with configured({"base_url": "http://one"}) as engine:
        assert engine.passage(None, tenant="other", path=path)
    async with configured({"base_url": "http://one", "shared_paths": ["/v1/x/*"]}) as engine:
        assert engine.passage(None, tenant="other", path="/v1/x/y")
        with pytest.raises(ClientError):
            engine.passage(None, tenant="other", path=path)
