"""The modes besides the usual one: an edge without L1, and an origin without an edge.

As a user runs them: `encore dev` and `encore origin`, with the official client.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import openai
import pytest
from redis import Redis

from origin.embedded_redis import embedded_redis
from tests.edge.local_edge import require_node
from tests.support.encore_dev import encore_dev
from tests.support.origins import CHAT, Echo, Said, echo, origin, said_in
from tests.support.redis_servers import durable_server, programs

PATIENCE_S = 20
DEV = {"authorization": "Bearer sk-encore-dev"}


@pytest.fixture
def upstream() -> Iterator[Echo]:
    """The model."""
    with echo() as running:
        yield running


def ask(client: httpx.Client, question: str, *, stream: bool = False) -> Said:
    """Ask the model."""
    body = {"model": "m", "messages": [{"role": "user", "content": question}], "stream": stream}
    return said_in(client.post(CHAT, json=body, headers={"encore-tags": "modes"}))


def until_edge_hits(client: httpx.Client, question: str, *, stream: bool = False) -> Said:
    """Ask until KV answers."""
    deadline_s = time.monotonic() + PATIENCE_S
    while not (said := ask(client, question, stream=stream)).status.startswith("encore-edge; hit"):
        assert time.monotonic() < deadline_s, said
        time.sleep(0.05)
    return said


def kinds_in(redis: Redis) -> set[str]:
    """What kinds of names there are, without those of control documents and counters."""
    names = (name.decode() for name in redis.scan_iter("encore:{*"))
    return {name.rsplit("}:", 1)[-1].split(":")[0] for name in names}


def test_edge_caches_without_l1(tmp_path: Path, upstream: Echo) -> None:
    """Plain and streamed answers reach KV; purges hold; no answer lies in Redis."""
    require_node()
    with (
        encore_dev(tmp_path, ENCORE_L1="off", ENCORE_UPSTREAM=upstream.url) as dev,
        httpx.Client(base_url=dev.edge_url, headers=DEV, timeout=30) as client,
    ):
        for stream in (False, True):
            question = f"Without L1, streamed: {stream}?"
            first = ask(client, question, stream=stream)
            assert "fwd=miss" in first.status
            hit = until_edge_hits(client, question, stream=stream)
            assert (hit.question, hit.number) == (question, first.number)
            assert until_edge_hits(client, question, stream=not stream).number == first.number
            purged = client.post("/cache/purge", json={"tags": ["modes"]})
            assert purged.status_code == 200
            assert ask(client, question, stream=stream).number > first.number
        with (
            embedded_redis(tmp_path / ".encore" / "redis") as url,  # the one that runs
            Redis.from_url(url) as redis,
        ):
            assert kinds_in(redis) == {"granted"}


@pytest.mark.parametrize("l1", ["redis", "off"])
def test_origin_caches_without_an_edge(tmp_path: Path, upstream: Echo, l1: str) -> None:
    """The official client is pointed at it; `off` needs no Redis but that of control documents."""
    program = list(programs().values())[-1]
    with durable_server(program, tmp_path / "redis") as redis:
        name = "REDIS_URL" if l1 == "redis" else "ENCORE_CONTROL_REDIS_URL"
        variables = {"ENCORE_L1": l1, name: redis.url}
        with origin(tmp_path, upstream, **variables) as one:
            api_key = one.command("keys", "create", "acme", "--role", "admin")
            one.start()
            with openai.OpenAI(base_url=f"{one.url}/v1", api_key=api_key, max_retries=0) as client:
                messages: list[openai.types.chat.ChatCompletionMessageParam] = [
                    {"role": "user", "content": "Without an edge?"}
                ]
                answers = [
                    client.chat.completions.create(model="m", messages=messages) for _ in range(2)
                ]
                streamed = "".join(
                    chunk.choices[0].delta.content or ""
                    for chunk in client.chat.completions.create(
                        model="m", messages=messages, stream=True
                    )
                    if chunk.choices
                )
            said = {answer.choices[0].message.content for answer in answers} | {streamed}
            assert said == {"Without an edge? #1"}
            hit = said_in(one.ask(api_key, "Without an edge?"))
            assert hit.status.startswith("encore-origin; hit")
            assert one.post("/cache/purge", api_key, {"everything": True}).status_code == 200
            assert said_in(one.ask(api_key, "Without an edge?")).number == 2
            with Redis.from_url(redis.url) as client_of_redis:
                kinds = kinds_in(client_of_redis)
            assert kinds >= {"entry", "lease"} if l1 == "redis" else not kinds
        assert not (tmp_path / ".encore").exists()  # no embedded one was started
