"""A request to warm by, as it is written down."""

from __future__ import annotations

import json
from typing import Any

import pytest

from origin.warm_requests import read
from shared.errors import ClientError
from shared.requests import Endpoint

CHAT = {"model": "m", "messages": [{"role": "user", "content": "secret words"}]}


def test_chat_is_what_nothing_else_is_said_of() -> None:
    """A body is enough."""
    request = read({"body": CHAT})
    assert (request.endpoint, json.loads(request.body), request.headers) == (
        Endpoint.CHAT,
        CHAT,
        {},
    )


def test_openai_batch_lines_are_read() -> None:
    """With their id, method and URL."""
    line = {
        "custom_id": "1",
        "method": "POST",
        "url": "/v1/embeddings",
        "body": {"model": "m", "input": "a"},
    }
    assert read(line).endpoint is Endpoint.EMBEDDINGS


def test_streams_are_asked_for_whole() -> None:
    """Their entry is the same one, and only a plain answer says what it took."""
    streamed = {**CHAT, "stream": True, "stream_options": {"include_usage": True}}
    assert json.loads(read({"body": streamed}).body) == CHAT


def test_headers_control_the_cache() -> None:
    """In any case of letters."""
    request = read({"body": CHAT, "headers": {"Encore-TTL": "60", "encore-tags": "a, b"}})
    assert request.headers == {"encore-ttl": "60", "encore-tags": "a, b"}
    assert (request.controls.ttl_s, request.controls.tags) == (60, ("a", "b"))


def test_what_is_read_can_be_kept_and_read_again() -> None:
    """As a job does."""
    request = read({"body": CHAT, "headers": {"Encore-Bucket": "3"}})
    assert read(request.as_fields()) == request


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ([], "at"),
        ({}, "at.body"),
        ({"body": []}, "at.body"),
        ({"body": CHAT, "endpoint": "/v1/responses"}, "at.endpoint"),
        ({"body": CHAT, "endpoint": ["x"]}, "at.endpoint"),
        ({"body": CHAT, "url": "https://elsewhere/v1/chat/completions"}, "at.url"),
        ({"body": CHAT, "endpoint": "x", "url": "/v1/chat/completions"}, "at.endpoint"),
        (
            {"body": CHAT, "endpoint": "/v1/chat/completions", "url": "/v1/completions"},
            "at.url",
        ),
        ({"body": CHAT, "method": "GET"}, "at.method"),
        ({"body": CHAT, "model": "m"}, "at.model"),
        ({"body": {"model": "m"}}, "at.body.messages"),
        ({"body": {**CHAT, "stream": "yes"}}, "at.body.stream"),
        ({"body": CHAT, "headers": []}, "at.headers"),
        ({"body": CHAT, "headers": {"Authorization": "Bearer x"}}, "at.headers"),
        ({"body": CHAT, "headers": {"Encore-TTL": 60}}, "at.headers.Encore-TTL"),
        ({"body": CHAT, "headers": {"Cache-Control": "a\r\nb: c"}}, "at.headers.Cache-Control"),
        ({"body": CHAT, "headers": {"Encore-TTL": "soon"}}, "at.headers.Encore-TTL"),
        ({"body": CHAT, "headers": {"Cache-Control": "no-store"}}, "at.headers.Cache-Control"),
        (
            {"body": CHAT, "headers": {"Cache-Control": "only-if-cached"}},
            "at.headers.Cache-Control",
        ),
    ],
)
def test_what_is_wrong_is_named(fields: Any, param: str) -> None:
    """By its field, in words that quote no prompt."""
    with pytest.raises(ClientError) as refused:
        read(fields, "at")
    assert refused.value.param == param
    assert "secret words" not in refused.value.message
