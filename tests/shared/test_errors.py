"""Errors: whose fault, and what a client reads."""

from __future__ import annotations

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from shared.errors import (
    ClientError,
    EncoreError,
    InternalError,
    UpstreamError,
    error_body,
    error_headers,
    error_payload,
    not_cached,
)


@pytest.mark.parametrize(
    ("error", "status", "kind"),
    [
        (ClientError("no"), 400, "invalid_request_error"),
        (ClientError("no", status=404), 404, "invalid_request_error"),
        (UpstreamError("no"), 502, "upstream_error"),
        (UpstreamError("no", status=429, type="requests"), 429, "requests"),
        (InternalError("no"), 500, "server_error"),
    ],
)
def test_an_error_says_whose_fault_it_is(error: EncoreError, status: int, kind: str) -> None:
    """Status and type follow from the class, unless said otherwise."""
    assert (error.status, error.type) == (status, kind)


def test_only_if_cached_in_vain_is_no_failure() -> None:
    """Nor is what a client does wrong; any other 5xx is one."""
    assert not_cached().is_refusal
    assert ClientError("no", status=429).is_refusal
    assert not UpstreamError("no", status=504).is_refusal
    assert not InternalError("no").is_refusal


def test_the_body_has_openai_shape() -> None:
    """All four fields are there, null where nothing is known."""
    error = ClientError("Wrong.", param="messages[0].content", code="invalid_type")
    assert json.loads(error_body(error)) == {
        "error": {
            "message": "Wrong.",
            "type": "invalid_request_error",
            "param": "messages[0].content",
            "code": "invalid_type",
        }
    }
    assert error_payload(InternalError("x"))["error"] == {
        "message": "x",
        "type": "server_error",
        "param": None,
        "code": None,
    }


@example("\ud83d", "\udc00")
@given(st.text(st.characters()), st.text(st.characters()))
def test_any_text_has_a_body(message: str, param: str) -> None:
    """Even half a surrogate pair in a field's name ends in valid UTF-8."""
    json.loads(error_body(ClientError(message, param=param)).decode())


def test_headers_say_when_to_retry_and_how_to_authenticate() -> None:
    """Retry-After and WWW-Authenticate appear where they help; nobody else may keep an error."""
    assert error_headers(ClientError("x")) == {
        "content-type": "application/json",
        "cache-control": "private, no-store",
    }
    assert error_headers(InternalError("x", status=503, retry_after_s=0))["retry-after"] == "0"
    assert "www-authenticate" in error_headers(ClientError("x", status=401))
    assert error_headers(ClientError("x", status=405, allow="GET"))["allow"] == "GET"
