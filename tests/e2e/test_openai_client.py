"""The official `openai` clients → edge → origin → model, and back from KV."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.edge.local_edge import node_environment
from tests.support.encore_dev import EncoreDev, encore_dev

MODEL = "encore-demo"


def ask(client: openai.OpenAI, content: str, **fields: Any) -> tuple[str, Any]:
    """(`Cache-Status`, the parsed answer) of one chat request."""
    raw = client.chat.completions.with_raw_response.create(
        model=MODEL, messages=[{"role": "user", "content": content}], **fields
    )
    return raw.headers["cache-status"], raw.parse()


def embed(client: openai.OpenAI, given: str | list[str], **fields: Any) -> tuple[str, Any]:
    """(`Cache-Status`, the parsed answer) of one request for embeddings."""
    raw = client.embeddings.with_raw_response.create(
        model="all-MiniLM-L6-v2", input=given, **fields
    )
    return raw.headers["cache-status"], raw.parse()


def ask_until_hit(client: openai.OpenAI, content: str, **fields: Any) -> tuple[str, Any]:
    """Repeat a request until KV answers: an entry is put there behind the answer."""
    deadline = time.monotonic() + 10
    while True:
        status, answer = ask(client, content, **fields)
        if status.startswith("encore-edge; hit"):
            return status, answer
        assert time.monotonic() < deadline, status
        time.sleep(0.05)


def text_of(stream: Any) -> str:
    """What a stream says, put together."""
    return "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices)


def test_first_call_is_a_miss_and_the_next_a_hit(client: openai.OpenAI) -> None:
    """The main job: identical content, and a coherent answer about the property asked for."""
    prompt = "Analyze this property: 742 Cedar Ave, 4BR/3BA, $615k"
    status, first = ask(client, prompt)
    assert status.endswith("encore-edge; fwd=miss; stored")
    status, second = ask_until_hit(client, prompt)
    assert second == first
    content = first.choices[0].message.content
    assert "742 Cedar Ave" in content
    assert "demo" in content.lower()
    usage = first.usage
    assert 0 <= usage.prompt_tokens_details.cached_tokens < usage.prompt_tokens


@pytest.mark.parametrize("options", [None, {"include_usage": True}], ids=["plain", "usage"])
def test_streamed_request_hits_what_a_plain_one_stored(
    client: openai.OpenAI, options: dict[str, bool] | None
) -> None:
    """The client reassembles the same text, with the usage only where it asked for it."""
    prompt = "Analyze this property: 18 Birch Rd, 2BR/1BA, $310k"
    _, plain = ask_until_hit(client, prompt)
    fields: dict[str, Any] = {"stream": True}
    if options is not None:
        fields["stream_options"] = options
    status, stream = ask(client, prompt, **fields)
    assert status.startswith("encore-edge; hit")
    chunks = list(stream)
    assert text_of(chunks) == plain.choices[0].message.content
    assert [chunk.usage for chunk in chunks if chunk.usage] == ([plain.usage] if options else [])


def test_streamed_miss_is_told_token_by_token_and_kept(client: openai.OpenAI) -> None:
    """A streamed first call fills the entry that plain calls hit."""
    prompt = "Analyze this property: 9 Maple Ct, 5BR/4BA, $980k"
    status, stream = ask(client, prompt, stream=True)
    assert status.endswith("encore-edge; fwd=miss")
    chunks = list(stream)
    assert len([chunk for chunk in chunks if chunk.choices[0].delta.content]) > 5
    _, plain = ask_until_hit(client, prompt)
    assert text_of(chunks) == plain.choices[0].message.content


def test_completions_are_cached(client: openai.OpenAI) -> None:
    """`/v1/completions`, stopped by the request's own limit."""
    statuses, texts = [], set()
    for _ in range(20):
        raw = client.completions.with_raw_response.create(
            model=MODEL, prompt="The house at", max_tokens=12
        )
        statuses.append(raw.headers["cache-status"])
        texts.add(raw.parse().choices[0].text)
        time.sleep(0.05)
    assert statuses[0].endswith("encore-edge; fwd=miss; stored")
    assert statuses[-1].startswith("encore-edge; hit")
    assert len(texts) == 1


def test_embeddings_are_cached(client: openai.OpenAI) -> None:
    """`/v1/embeddings`: the same vector from the model and from KV, in either encoding.

    The client asks for base64 unless it is told otherwise.
    """
    answers = []
    for _ in range(20):
        status, answer = embed(client, "a house")
        answers.append((status, answer.data))
        time.sleep(0.05)
    assert answers[-1][0].startswith("encore-edge; hit")
    assert answers[0][1] == answers[-1][1]
    assert len(answers[0][1][0].embedding) == 384
    status, answer = embed(client, "a house", encoding_format="float")
    assert status.startswith("encore-edge; hit")
    assert answer.data == answers[0][1]


def test_embeddings_are_cached_by_input(client: openai.OpenAI) -> None:
    """A batch makes what is not known, and fills the entries of its inputs."""
    _, alone = embed(client, "a known house")
    status, batch = embed(client, ["a new house", "a known house", "a newer house"])
    assert 'fwd=miss; stored; detail="elements=1/3"' in status
    assert [datum.index for datum in batch.data] == [0, 1, 2]
    assert batch.data[1].embedding == alone.data[0].embedding
    status, again = embed(client, ["a newer house", "a new house"], encoding_format="float")
    assert 'detail="elements=2/2"' in status
    assert again.data[0].embedding == batch.data[2].embedding
    tokens = [embed(client, text)[1].usage.prompt_tokens for text in ("a new house", "a house")]
    assert tokens == [5, 4]


def test_errors_reach_the_client_as_its_own_types(client: openai.OpenAI) -> None:
    """Unknown model, unsupported parameter, unknown key."""
    with pytest.raises(openai.NotFoundError) as missing:
        client.chat.completions.create(model="nope", messages=[{"role": "user", "content": "x"}])
    assert missing.value.param == "model"
    with pytest.raises(openai.BadRequestError) as unsupported:
        ask(client, "x", tools=[{"type": "function", "function": {"name": "f"}}])
    assert unsupported.value.param == "tools"
    with pytest.raises(openai.AuthenticationError):
        ask(client.with_options(api_key="sk-encore-nobody"), "x")


def test_models_are_listed(client: openai.OpenAI) -> None:
    """The language model and the embedder."""
    assert {model.id for model in client.models.list()} == {MODEL, "all-MiniLM-L6-v2"}


def test_javascript_client_sees_the_same(dev: EncoreDev) -> None:
    """The official Node client: a miss, a hit, and a streamed hit with usage."""
    run = subprocess.run(
        [
            "node",
            str(Path(__file__).with_name("openai_client.mjs")),
            f"{dev.edge_url}/v1",
            "Analyze this property: 31 Elm St, 3BR/2BA, $505k",
        ],
        env=node_environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    first, *_, hit, streamed = json.loads(run.stdout)
    assert first["status"].endswith("encore-edge; fwd=miss; stored")
    assert hit["status"].startswith("encore-edge; hit")
    assert streamed["status"].startswith("encore-edge; hit")
    assert first["text"] == hit["text"] == streamed["text"]
    assert streamed["usage"]["total_tokens"] > 0


def test_ready_block_says_how_to_begin(dev: EncoreDev) -> None:
    """URLs, the development key and a line to paste."""
    assert dev.edge_url in dev.log()
    assert "sk-encore-dev" in dev.log()
    assert "curl" in dev.log()


def test_restart_keeps_what_the_edge_had(tmp_path: Path) -> None:
    """Stopping and starting again loses neither KV nor Redis; one Ctrl-C ends everything."""
    prompt = "Analyze this property: 5 Pine St, 1BR/1BA, $199k"
    answers = []
    for _ in range(2):
        with (
            encore_dev(tmp_path) as running,
            openai.OpenAI(base_url=f"{running.edge_url}/v1", api_key="sk-encore-dev") as client,
        ):
            answers.append(ask(client, prompt))
            ask_until_hit(client, prompt)
        assert running.process.returncode == 0, running.log()
    assert "fwd=miss" in answers[0][0]
    assert answers[1][0].startswith("encore-edge; hit")
    assert answers[1][1] == answers[0][1]
