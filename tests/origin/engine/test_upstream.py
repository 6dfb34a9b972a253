"""The upstream engine against a real server on loopback, faults included."""

from __future__ import annotations

import asyncio
import copy
import json
from contextlib import aclosing
from email.utils import formatdate
from typing import TYPE_CHECKING, Any

import pytest

from origin.engine.contract import Chunk, Event, Finished
from origin.engine.upstream import UpstreamEngine
from origin.engine.upstream_client import UpstreamClient
from shared.errors import ClientError, EncoreError, UpstreamError, error_payload
from shared.requests import Endpoint, Request, validate
from tests.origin.engine.fake_upstream import FakeUpstream, Reply, fake_upstream

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

KEY = "upstream-key-3f9c"
USAGE = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}
CHAT = {"model": "m", "messages": [{"role": "user", "content": "How many rooms?"}]}
ANSWER = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1,
    "model": "m",
    "choices": [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "Two rooms."},
            "finish_reason": "stop",
        }
    ],
    "usage": USAGE,
}


def chunk(**choice: Any) -> dict[str, Any]:
    """A chunk of ANSWER's stream."""
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "m",
        "choices": [{"index": 0, "finish_reason": None, **choice}],
    }


CHUNKS = [
    chunk(delta={"role": "assistant", "content": ""}),
    chunk(delta={"content": "Two "}),
    chunk(delta={"content": "rooms."}),
    chunk(delta={}, finish_reason="stop"),
]
USAGE_CHUNK = chunk() | {"choices": [], "usage": USAGE}


@pytest.fixture(scope="module")
def server() -> Iterator[FakeUpstream]:
    """One server for the module."""
    with fake_upstream() as fake:
        yield fake


@pytest.fixture
def upstream(server: FakeUpstream) -> FakeUpstream:
    """The server as new."""
    server.reset()
    return server


async def at_once(_wait_s: float) -> None:
    """In the place of waiting between attempts."""


def engine_of(url: str, *, max_answer_bytes: int = 64 << 20, **options: Any) -> UpstreamEngine:
    """An engine that waits for nothing between attempts."""
    client = UpstreamClient(url, sleep=at_once, **options)
    return UpstreamEngine(client, max_answer_bytes=max_answer_bytes)


@pytest.fixture
async def engine(upstream: FakeUpstream) -> AsyncIterator[UpstreamEngine]:
    """An engine in front of the server."""
    built = engine_of(upstream.url, api_key=KEY, timeout_s=5.0)
    yield built
    await built.close()


def request(endpoint: Endpoint = Endpoint.CHAT, **fields: Any) -> Request:
    """A validated request."""
    basis: dict[Endpoint, dict[str, Any]] = {
        Endpoint.CHAT: CHAT,
        Endpoint.COMPLETIONS: {"model": "m", "prompt": "The house"},
        Endpoint.EMBEDDINGS: {"model": "m", "input": "The house"},
    }
    return validate(endpoint, basis[endpoint] | fields)


async def events(engine: UpstreamEngine, asked: Request) -> list[Event]:
    """Everything a run says."""
    async with aclosing(engine.run(asked)) as run:
        return [event async for event in run]


async def failure(engine: UpstreamEngine, asked: Request) -> EncoreError:
    """How a run fails, and that it never finished."""
    said: list[Event] = []
    with pytest.raises(EncoreError) as caught:
        async with aclosing(engine.run(asked)) as run:
            said.extend([event async for event in run])
    assert not any(isinstance(event, Finished) for event in said)
    return caught.value


@pytest.mark.parametrize(
    ("endpoint", "answer"),
    [
        (Endpoint.CHAT, ANSWER),
        (Endpoint.COMPLETIONS, ANSWER | {"object": "text_completion", "choices": [{"text": "x"}]}),
        (Endpoint.EMBEDDINGS, {"object": "list", "data": [{"index": 0, "embedding": [0.5, 1.0]}]}),
    ],
)
async def test_a_plain_request_gives_one_finished(
    engine: UpstreamEngine, upstream: FakeUpstream, endpoint: Endpoint, answer: dict[str, Any]
) -> None:
    """The answer is the upstream's, whole, on all three endpoints."""
    upstream.say(answer)
    assert await events(engine, request(endpoint)) == [Finished(answer=answer)]
    assert upstream.seen[0].path == endpoint.value


async def test_the_request_arrives_as_it_was_written(
    engine: UpstreamEngine, upstream: FakeUpstream
) -> None:
    """Every field goes upstream, unknown ones included; the only key is ours."""
    upstream.say(ANSWER)
    asked = request(temperature=0.5, new_field={"a": [1, None]}, user="someone")
    await events(engine, asked)
    (seen,) = upstream.seen
    assert seen.body == dict(asked.fields)
    assert seen.headers["authorization"] == f"Bearer {KEY}"
    assert seen.headers["content-type"] == "application/json"


async def test_without_a_key_none_is_sent(upstream: FakeUpstream) -> None:
    """An upstream on the same machine often needs none."""
    upstream.say(ANSWER)
    engine = engine_of(upstream.url)
    await events(engine, request())
    assert "authorization" not in upstream.seen[0].headers
    await engine.close()


@pytest.mark.parametrize("suffix", ["", "/", "/v1", "/v1/"])
async def test_the_base_url_may_end_in_v1(upstream: FakeUpstream, suffix: str) -> None:
    """All spellings of a base URL mean the same, fingerprint included."""
    upstream.say(ANSWER)
    engine = engine_of(upstream.url + suffix)
    await events(engine, request())
    assert upstream.seen[0].path == "/v1/chat/completions"
    assert await engine.fingerprint("m") == await engine_of(upstream.url).fingerprint("m")
    await engine.close()


async def test_a_base_path_is_kept(upstream: FakeUpstream) -> None:
    """A gateway may serve several APIs below paths of their own."""
    upstream.say(ANSWER)
    engine = engine_of(upstream.url + "/openai/v1")
    await events(engine, request())
    assert upstream.seen[0].path == "/openai/v1/chat/completions"
    await engine.close()


async def test_a_stream_is_passed_on_and_assembled(
    engine: UpstreamEngine, upstream: FakeUpstream
) -> None:
    """Chunks come as they were said, the usage chunk is not one, the answer is the sum."""
    upstream.stream(*(item | {"usage": None} for item in CHUNKS), USAGE_CHUNK, "[DONE]")
    *said, last = await events(engine, request(stream=True))
    assert said == [Chunk(payload=item) for item in CHUNKS]
    assert last == Finished(answer=ANSWER)


async def test_usage_is_always_asked_for(engine: UpstreamEngine, upstream: FakeUpstream) -> None:
    """Usage is needed to store the answer, whether the client wants to see it or not."""
    upstream.stream(*CHUNKS, USAGE_CHUNK, "[DONE]")
    await events(engine, request(stream=True, stream_options={"include_obfuscation": False}))
    body = upstream.seen[0].body
    assert body is not None
    assert body["stream"] is True
    assert body["stream_options"] == {"include_obfuscation": False, "include_usage": True}


async def test_chunks_come_as_they_are_said(engine: UpstreamEngine, upstream: FakeUpstream) -> None:
    """The first chunk is there while the upstream has not gone on."""
    upstream.stream(*CHUNKS[:2], end="never")
    async with asyncio.timeout(5), aclosing(engine.run(request(stream=True))) as run:
        assert await anext(run) == Chunk(payload=CHUNKS[0])
        assert await anext(run) == Chunk(payload=CHUNKS[1])


async def test_closing_a_run_hangs_up(engine: UpstreamEngine, upstream: FakeUpstream) -> None:
    """A run that nobody wants any more ends upstream too."""
    upstream.stream(*CHUNKS[:1], end="never")
    async with aclosing(engine.run(request(stream=True))) as run:
        await anext(run)
    assert await asyncio.to_thread(upstream.left.wait, 5)


async def test_cancelling_a_plain_run_hangs_up(
    engine: UpstreamEngine, upstream: FakeUpstream
) -> None:
    """So does one without a stream."""
    upstream.reply = Reply(end="never")
    task = asyncio.create_task(events(engine, request()))
    assert await asyncio.to_thread(upstream.arrived.wait, 5)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await asyncio.to_thread(upstream.left.wait, 5)


async def test_a_stream_refused_as_a_plain_answer_is_finished(
    engine: UpstreamEngine, upstream: FakeUpstream
) -> None:
    """An upstream that cannot stream answers plainly, which will do."""
    upstream.say(ANSWER)
    assert await events(engine, request(stream=True)) == [Finished(answer=ANSWER)]


async def test_an_ambiguous_stream_is_not_storable(
    engine: UpstreamEngine, upstream: FakeUpstream
) -> None:
    """What cannot be added up without guessing is passed on, and said to be unstorable."""
    odd = [chunk(delta={"mood": "calm"}), chunk(delta={"mood": "glad"})]
    upstream.stream(*CHUNKS[:1], *odd, CHUNKS[-1], "[DONE]")
    last = (await events(engine, request(stream=True)))[-1]
    assert isinstance(last, Finished)
    assert last.unstorable == "ambiguous_delta"


async def test_an_unfinished_choice_is_not_storable(
    engine: UpstreamEngine, upstream: FakeUpstream
) -> None:
    """`[DONE]` without a finish reason is an end, but not of a whole answer."""
    upstream.stream(*CHUNKS[:2], "[DONE]")
    last = (await events(engine, request(stream=True)))[-1]
    assert isinstance(last, Finished)
    assert last.unstorable == "incomplete"


@pytest.mark.parametrize("end", ["whole", "cut"])
@pytest.mark.parametrize("count", range(len(CHUNKS) + 1))
async def test_a_stream_without_done_never_finishes(
    engine: UpstreamEngine, upstream: FakeUpstream, count: int, end: str
) -> None:
    """Wherever a stream ends early, properly or not, it is an error and nothing to keep."""
    upstream.stream(*CHUNKS[:count], end=end)
    error = await failure(engine, request(stream=True))
    assert isinstance(error, UpstreamError)
    assert (error.status, error.code) == (502, "upstream_interrupted")


@pytest.mark.parametrize(
    ("event", "message"),
    [
        ({"error": {"message": "overloaded", "type": "server_error"}}, "overloaded"),
        ({"error": "out of memory"}, "out of memory"),
        ({"object": "error", "message": "bad luck", "code": 500}, "bad luck"),
        ({"error": {}}, "The upstream broke its stream off."),
    ],
)
async def test_an_error_event_is_an_error(
    engine: UpstreamEngine, upstream: FakeUpstream, event: dict[str, Any], message: str
) -> None:
    """An error after the first chunks ends the run, even if `[DONE]` follows."""
    upstream.stream(*CHUNKS[:2], event, "[DONE]")
    error = await failure(engine, request(stream=True))
    assert isinstance(error, UpstreamError)
    assert error.message == message


@pytest.mark.parametrize(
    "data",
    [
        *("{", "[]", "1", '{"x": NaN}', '{"x": 1e999}', '{"x": "\\ud800"}', "[" * 100_000),
        f'{{"x": {"[" * 980}0{"]" * 980}}}',
    ],
)
async def test_garbage_is_the_upstreams_fault(
    engine: UpstreamEngine, upstream: FakeUpstream, data: str
) -> None:
    """What is not JSON, or could not be written again, is a 502 in a stream and alone."""
    upstream.stream(data, "[DONE]")
    assert (await failure(engine, request(stream=True))).code == "upstream_garbage"
    upstream.reply = Reply(pieces=[data.encode()])
    error = await failure(engine, request())
    assert (error.status, error.code) == (502, "upstream_garbage")


async def test_a_stream_of_nothing_is_garbage(
    engine: UpstreamEngine, upstream: FakeUpstream
) -> None:
    """`[DONE]` alone is no answer."""
    upstream.stream("[DONE]")
    assert (await failure(engine, request(stream=True))).code == "upstream_garbage"


@pytest.mark.parametrize("answer", [{}, {"choices": None}, {"data": []}])
async def test_an_answer_of_another_kind_is_garbage(
    engine: UpstreamEngine, upstream: FakeUpstream, answer: dict[str, Any]
) -> None:
    """A 200 is not an answer by itself."""
    upstream.say(answer)
    assert (await failure(engine, request())).code == "upstream_garbage"


async def test_a_200_may_carry_an_error(engine: UpstreamEngine, upstream: FakeUpstream) -> None:
    """Some gateways say 200 and mean an error."""
    upstream.say({"error": {"message": "no provider", "code": 502}})
    error = await failure(engine, request())
    assert (error.status, error.message) == (502, "no provider")


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, ClientError),
        (404, ClientError),
        (413, ClientError),
        (422, ClientError),
        (429, UpstreamError),
        (500, UpstreamError),
        (503, UpstreamError),
        (529, UpstreamError),
    ],
)
async def test_the_upstreams_refusal_is_carried_over(
    engine: UpstreamEngine, upstream: FakeUpstream, status: int, kind: type[EncoreError]
) -> None:
    """Status, message, type, param and code are the upstream's, whoever's fault it is."""
    payload = {"error": {"message": "No.", "type": "some_error", "param": "model", "code": "c"}}
    upstream.say(payload, status=status)
    error = await failure(engine, request())
    assert type(error) is kind
    assert error.status == status
    assert error_payload(error) == payload


async def test_the_flat_error_shape_is_read(engine: UpstreamEngine, upstream: FakeUpstream) -> None:
    """Older vLLM writes the fields at the top."""
    upstream.say(
        {"object": "error", "message": "too long", "type": "BadRequestError", "code": 400},
        status=400,
    )
    error = await failure(engine, request())
    assert (error.message, error.type, error.code) == ("too long", "BadRequestError", None)


@pytest.mark.parametrize("status", [401, 402, 403, 407])
async def test_refused_credentials_are_ours(
    engine: UpstreamEngine, upstream: FakeUpstream, status: int
) -> None:
    """The client's key is not what the upstream disliked, so it gets a 502 that says whose was."""
    upstream.say({"error": {"message": f"Incorrect API key: {KEY}"}}, status=status)
    error = await failure(engine, request())
    assert (error.status, error.code) == (502, "upstream_credentials")
    assert "ENCORE_UPSTREAM_API_KEY" in error.message
    assert KEY not in error.message


async def test_credentials_in_words_are_cut_out(
    engine: UpstreamEngine, upstream: FakeUpstream
) -> None:
    """Our key never reaches a client, in no field and no shape."""
    words = f"key {KEY} or sk-proj-abc*****xyz or Bearer abc.def was used"
    upstream.say({"error": {"message": words, "param": KEY, "code": KEY, "type": KEY}}, status=400)
    error = await failure(engine, request())
    assert error.message == "key [key] or [key] or [key] was used"
    assert KEY not in json.dumps(error_payload(error))


@pytest.mark.parametrize("body", [b"", b"<html>Bad gateway</html>", b"[]", b"x" * 100_000])
async def test_a_refusal_without_json_says_its_status(
    engine: UpstreamEngine, upstream: FakeUpstream, body: bytes
) -> None:
    """A proxy's error page is not shown to anyone."""
    upstream.reply = Reply(status=503, pieces=[body])
    error = await failure(engine, request())
    assert (error.status, error.message) == (503, "The upstream answered 503.")


@pytest.mark.parametrize(
    ("status", "code"), [(404, "upstream_not_found"), (307, "upstream_redirect")]
)
async def test_a_wrong_address_is_the_operators(
    engine: UpstreamEngine, upstream: FakeUpstream, status: int, code: str
) -> None:
    """A path that is not there means ENCORE_UPSTREAM is wrong, not the client."""
    upstream.reply = Reply(status=status)
    error = await failure(engine, request())
    assert (error.status, error.code) == (502, code)
    assert "ENCORE_UPSTREAM" in error.message


@pytest.mark.parametrize(
    ("header", "low", "high"),
    [
        ("7", 7, 7),
        ("999999999999", 86_400, 86_400),
        (formatdate(4102444800, usegmt=True), 86_400, 86_400),
        (formatdate(0, usegmt=True), 0, 0),
    ],
)
async def test_retry_after_is_carried_over(
    engine: UpstreamEngine, upstream: FakeUpstream, header: str, low: int, high: int
) -> None:
    """Seconds and dates are read, within a day."""
    upstream.say({"error": {"message": "slow down"}}, status=429, retry_after=header)
    error = await failure(engine, request())
    assert error.status == 429
    assert error.retry_after_s is not None
    assert low <= error.retry_after_s <= high


@pytest.mark.parametrize("header", ["soon", "-1", "", "1.5"])
async def test_an_odd_retry_after_is_dropped(
    engine: UpstreamEngine, upstream: FakeUpstream, header: str
) -> None:
    """What cannot be read is not repeated."""
    upstream.say({"error": {"message": "slow down"}}, status=429, retry_after=header)
    assert (await failure(engine, request())).retry_after_s is None


@pytest.mark.parametrize("stream", [False, True])
async def test_silence_is_a_504(upstream: FakeUpstream, *, stream: bool) -> None:
    """An upstream that says nothing for too long is given up."""
    engine = engine_of(upstream.url, timeout_s=0.1)
    upstream.reply = Reply(end="never")
    if stream:
        upstream.stream(CHUNKS[0], end="never")
    error = await failure(engine, request(stream=stream))
    assert (error.status, error.code) == (504, "upstream_timeout")
    await engine.close()


async def test_an_upstreams_408_is_a_504(engine: UpstreamEngine, upstream: FakeUpstream) -> None:
    """The client was not slow; the upstream was."""
    upstream.say({"error": {"message": "Timed out"}}, status=408)
    assert (await failure(engine, request())).status == 504


async def test_nobody_there_is_a_502() -> None:
    """A refused connection says so without saying where."""
    engine = engine_of("http://127.0.0.1:1", api_key=KEY)
    error = await failure(engine, request())
    assert (error.status, error.code) == (502, "upstream_unreachable")
    assert "127.0.0.1" not in error.message
    await engine.close()


async def test_a_plain_answer_cut_short_is_a_502(
    engine: UpstreamEngine, upstream: FakeUpstream
) -> None:
    """Half an answer is none."""
    upstream.reply = Reply(pieces=[json.dumps(ANSWER).encode()[:50]], end="cut")
    assert (await failure(engine, request())).code == "upstream_interrupted"


@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_beyond_the_limit_is_refused(
    upstream: FakeUpstream, *, stream: bool
) -> None:
    """Memory is bounded, whatever the upstream sends."""
    engine = engine_of(upstream.url, max_answer_bytes=1000)
    upstream.say(ANSWER | {"padding": "x" * 2000})
    if stream:
        upstream.stream(*CHUNKS * 10, "[DONE]")
    assert (await failure(engine, request(stream=stream))).code == "upstream_too_large"
    await engine.close()


async def test_models_are_the_upstreams(engine: UpstreamEngine, upstream: FakeUpstream) -> None:
    """Ids, dates and limits are taken over; odd entries are left out."""
    upstream.say(
        {
            "data": [
                {"id": "a", "created": 5, "owned_by": "them", "max_model_len": 4096},
                {"id": "b", "created": None},
                {"name": "c"},
                "d",
            ]
        }
    )
    one, two = await engine.models()
    assert (one.id, one.created, one.owned_by, one.max_tokens) == ("a", 5, "them", 4096)
    assert (two.id, two.created, two.owned_by, two.max_tokens) == ("b", 0, "upstream", None)
    assert one.fingerprint == await engine.fingerprint("a")
    assert (upstream.seen[0].method, upstream.seen[0].path) == ("GET", "/v1/models")


async def test_models_fail_like_anything(engine: UpstreamEngine, upstream: FakeUpstream) -> None:
    """An upstream that cannot list its models raises UpstreamError."""
    upstream.say({"models": []})
    with pytest.raises(UpstreamError, match="cannot be read"):
        await engine.models()


async def test_fingerprints_tell_models_and_upstreams_apart() -> None:
    """At most 32 characters, and no address in them."""
    one, two = engine_of("http://one"), engine_of("http://two")
    prints = {
        await one.fingerprint("a"),
        await one.fingerprint("b"),
        await two.fingerprint("a"),
    }
    assert len(prints) == 3
    assert all(len(text) <= 32 and "one" not in text for text in prints)
    await one.close()
    await two.close()


async def test_connections_are_reused(engine: UpstreamEngine, upstream: FakeUpstream) -> None:
    """Sequential requests, streamed or not, share one connection."""
    for _ in range(2):
        upstream.say(ANSWER)
        await events(engine, request())
        upstream.stream(*CHUNKS, "[DONE]")
        await events(engine, request(stream=True))
    assert len({seen.connection for seen in upstream.seen}) == 1


async def test_an_idle_connection_is_used_no_more(
    upstream: FakeUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its server might hang up just when a request is sent."""
    monkeypatch.setattr("origin.engine.upstream_client.KEEP_ALIVE_S", 0.01)
    engine = engine_of(upstream.url)
    upstream.say(ANSWER)
    for _ in range(2):
        await events(engine, request())
        await asyncio.sleep(0.1)
    await engine.close()
    assert len({seen.connection for seen in upstream.seen}) == 2


async def test_an_upstream_that_lingers_after_done_is_finished(
    engine: UpstreamEngine, upstream: FakeUpstream
) -> None:
    """`[DONE]` is the end, whether the connection ends or not."""
    upstream.stream(*CHUNKS, "[DONE]", end="never")
    assert isinstance((await events(engine, request(stream=True)))[-1], Finished)
    assert await asyncio.to_thread(upstream.left.wait, 5)


@pytest.mark.parametrize("stream", [False, True])
async def test_the_request_is_left_as_it_was(
    engine: UpstreamEngine, upstream: FakeUpstream, *, stream: bool
) -> None:
    """Who asks the same later is read once and shares it."""
    upstream.say(ANSWER)
    asked = request(stream=stream, stop=["x"], metadata={"a": "b"})
    before = copy.deepcopy(asked.fields)
    await events(engine, asked)
    assert asked.fields == before
