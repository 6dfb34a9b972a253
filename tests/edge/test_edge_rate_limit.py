"""The platform's rate limit where it is bound: who is limited, and what that looks like."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from shared.control_document import Policy, encode
from shared.keys import make_api_key
from tests.edge.lab import Lab
from tests.edge.local_edge import StartEdge
from tests.edge.projects import FIXTURES, Projects
from tests.edge.stack import (
    CHAT,
    KEYS,
    Stack,
    error_of,
    is_hit,
    leave_document,
    stacked,
    status,
)
from tests.support.control import document_of
from tests.support.engines import MODEL

LIMIT = 4
MOST_ALLOWED = 2 * LIMIT
"""The platform counts in windows: a test may see the end of one and the beginning of the next."""
_BINDING = f"""
[[ratelimits]]
name = "RATE_LIMIT"
namespace_id = "1001"
simple = {{ limit = {LIMIT}, period = 60 }}
"""
APP = "https://app.example.com"


@pytest.fixture(scope="module")
def limited(start_edge: StartEdge, projects: Projects) -> Iterator[Stack]:
    """A stack whose edge has the platform's rate limit."""
    config: Path = projects.of_the_worker((FIXTURES / "kv_lab.py").read_text())
    config.write_text(config.read_text() + _BINDING)
    with stacked(start_edge, config=config, ENCORE_CORS_ORIGINS=APP) as stack:
        yield stack


def tenant_with(
    stack: Stack, tenant: str, *, informed: bool = True, **policy: Any
) -> dict[str, str]:
    """A tenant with this policy; the header of its client. The edge knows it if `informed`."""
    api_key = make_api_key(KEYS, tenant, bytes(15))
    document = document_of(api_key, policy=Policy(**policy))
    stack.control._documents[tenant] = (document.revision, encode(document))
    if informed:
        assert leave_document(stack.edge, document).is_success
    return {"authorization": f"Bearer {api_key}"}


def exhaust(stack: Stack, headers: dict[str, str], **fields: Any) -> httpx.Response:
    """Ask until the limit is reached; the first answer beyond it."""
    for _ in range(MOST_ALLOWED + 1):
        response = stack.ask("limited", headers, **fields)
        if response.status_code != 200:
            return response
    pytest.fail("the limit is never reached")


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
def test_beyond_the_limit_is_a_429(limited: Stack, stream: bool) -> None:
    """In OpenAI's shape, with the time to wait; hits count, too, and a page may read it."""
    headers = tenant_with(limited, f"eager-{stream}".lower())
    refused = exhaust(limited, headers, stream=stream)
    assert refused.status_code == 429
    assert int(refused.headers["retry-after"]) > 0
    error = error_of(refused)
    assert (error["type"], error["code"]) == ("rate_limit_error", "rate_limit_exceeded")
    assert refused.headers["content-type"] == "application/json"
    assert refused.headers["cache-control"] == "private, no-store"
    assert exhaust(limited, headers | {"origin": APP}).headers["access-control-allow-origin"] == APP


def test_limit_is_each_tenants_own(limited: Stack) -> None:
    """One that asks too often takes nothing from another."""
    greedy, modest = tenant_with(limited, "greedy"), tenant_with(limited, "modest")
    exhaust(limited, greedy)
    for _ in range(LIMIT):
        assert limited.ask("limited", modest).status_code == 200


def test_keys_of_one_tenant_share_its_limit(limited: Stack) -> None:
    """More keys are not more requests."""
    keys = [make_api_key(KEYS, "many-keys", bytes([i] * 15)) for i in range(MOST_ALLOWED + 1)]
    document = document_of(*keys)
    limited.control._documents["many-keys"] = (document.revision, encode(document))
    assert leave_document(limited.edge, document).is_success
    codes = {limited.ask("limited", {"authorization": f"Bearer {key}"}).status_code for key in keys}
    assert codes == {200, 429}


def test_scopes_of_one_tenant_share_its_limit(limited: Stack) -> None:
    """A client names its scope itself."""
    headers = tenant_with(limited, "many-scopes")
    codes = {
        limited.ask("limited", headers | {"encore-scope": f"user-{i}"}).status_code
        for i in range(MOST_ALLOWED + 1)
    }
    assert codes == {200, 429}


def test_tenant_that_is_not_limited_is_not_counted(limited: Stack) -> None:
    """By its policy; nobody is asked then."""
    headers = tenant_with(limited, "free", rate_limited=False)
    calls = Lab(edge=limited.edge).calls("limit")
    for _ in range(MOST_ALLOWED + 1):
        assert limited.ask("limited", headers).status_code == 200
    assert is_hit(limited.ask("limited", headers))
    assert Lab(edge=limited.edge).calls("limit") == calls


def test_tenant_whose_document_is_unknown_is_limited(limited: Stack) -> None:
    """Until the edge has learned that its policy does not want it."""
    headers = tenant_with(limited, "unknown", informed=False, rate_limited=False)
    lab = Lab(edge=limited.edge)
    calls = lab.calls("limit")
    assert limited.ask("limited", headers).status_code == 200
    assert lab.calls("limit") == calls + 1
    lab.wait_for("ctl:unknown")
    limited.hit("limited", headers)
    calls = lab.calls("limit")
    for _ in range(MOST_ALLOWED + 1):
        assert limited.ask("limited", headers).status_code == 200
    assert lab.calls("limit") == calls


def test_policy_that_changes_rules_the_next_request(limited: Stack) -> None:
    """In both directions."""
    headers = tenant_with(limited, "changing", rate_limited=False)
    for _ in range(MOST_ALLOWED + 1):
        assert limited.ask("limited", headers).status_code == 200
    leave_document(limited.edge, limited.revise("changing", policy=Policy()))
    assert exhaust(limited, headers).status_code == 429
    leave_document(limited.edge, limited.revise("changing", policy=Policy(rate_limited=False)))
    assert limited.ask("limited", headers).status_code == 200


def test_binding_that_fails_limits_nobody(limited: Stack) -> None:
    """The log says so; who is over the limit is answered, too."""
    headers = tenant_with(limited, "unlimited")
    exhaust(limited, headers)
    with Lab(edge=limited.edge).failing("limit"):
        for stream in (False, True):
            assert limited.ask("limited", headers, stream=stream).status_code == 200
        assert is_hit(limited.ask("limited", headers))
    limited.edge.wait_for_log("rate limit: asking the rate limit: ")


@pytest.mark.parametrize(
    "authorization", ["", "Bearer x", f"Bearer {make_api_key(KEYS, 'victim', bytes(15))[:-1]}x"]
)
def test_who_is_nobody_uses_up_nobodys_limit(limited: Stack, authorization: str) -> None:
    """A made-up key is refused before it counts."""
    calls = Lab(edge=limited.edge).calls("limit")
    response = limited.ask("limited", {"authorization": authorization})
    assert response.status_code == 401
    assert Lab(edge=limited.edge).calls("limit") == calls


def test_revoked_key_uses_up_its_own_limit_alone(limited: Stack) -> None:
    """However often it is shown: the tenant it belonged to asks on."""
    headers = tenant_with(limited, "robbed")
    revoked = make_api_key(KEYS, "robbed", bytes([1] * 15))
    codes = {
        limited.ask("limited", {"authorization": f"Bearer {revoked}"}).status_code
        for _ in range(MOST_ALLOWED + 1)
    }
    assert codes == {401, 429}
    for _ in range(LIMIT):
        assert limited.ask("limited", headers).status_code == 200


def test_what_the_tenant_asks_of_the_cache_is_not_limited(limited: Stack) -> None:
    """A purge cannot be kept off by asking a lot."""
    api_key = make_api_key(KEYS, "purging", bytes(15))
    document = document_of(admins=[api_key])
    limited.control._documents["purging"] = (document.revision, encode(document))
    assert leave_document(limited.edge, document).is_success
    headers = {"authorization": f"Bearer {api_key}"}
    exhaust(limited, headers)
    purged = limited.client.post("/cache/purge", json={"everything": True}, headers=headers)
    assert purged.status_code == 200
    assert limited.client.get("/v1/models", headers=headers).status_code == 200


def test_refusals_are_counted(limited: Stack) -> None:
    """As errors, and as what they are."""
    headers = tenant_with(limited, "counted")
    exhaust(limited, headers)
    limited.flush()
    api_key = headers["authorization"].removeprefix("Bearer ")
    assert limited.counted(api_key)["troubles"]["rate-limited"] >= 1


def test_without_the_binding_nobody_is_limited(stack: Stack) -> None:
    """As the project is delivered."""
    stack.ask("unbound")
    stack.hit("unbound")
    body = {"model": MODEL, "messages": [{"role": "user", "content": "unbound"}]}
    for _ in range(MOST_ALLOWED + 1):
        response = stack.client.post(CHAT, json=body)
        assert response.status_code == 200
        assert status(response).startswith("encore-edge; hit")
