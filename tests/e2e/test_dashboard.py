"""The dashboard of a running `encore dev`, which the edge's counters reach."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import openai
import pytest

from tests.origin.dashboard.visitor import state_of
from tests.support.encore_dev import EncoreDev


@pytest.fixture
def visitor(dev: EncoreDev) -> Iterator[httpx.Client]:
    """Who has signed in with the development key, on loopback and without TLS."""
    origin = {"origin": dev.origin_url}
    with httpx.Client(base_url=dev.origin_url, headers=origin, timeout=30) as visitor:
        form = {"api_key": "sk-encore-dev"}
        assert visitor.post("/dashboard/login", data=form).status_code == 303
        yield visitor


def test_it_is_at_the_origin(visitor: httpx.Client, dev: EncoreDev) -> None:
    """With its files; at the edge there is none."""
    assert 'data-tenant="dev"' in visitor.get("/dashboard").text
    for name in ("dashboard.js", "charts.js", "dashboard.css", "icon.svg"):
        assert visitor.get(f"/dashboard/{name}").status_code == 200
    assert httpx.get(f"{dev.edge_url}/dashboard").status_code == 404


def test_it_shows_what_was_asked_through_the_edge(
    visitor: httpx.Client, client: openai.OpenAI
) -> None:
    """All parts are well, the encoder of semantic match too."""
    client.chat.completions.create(
        model="encore-demo",
        messages=[{"role": "user", "content": "What does the dashboard show of this?"}],
    )
    told = ""
    with visitor.stream("GET", "/dashboard/events") as stream:
        for piece in stream.iter_text():
            told += piece
            if "event: state" in told and told.endswith("\n\n"):
                break
    state = state_of(told)
    assert state["tenant"] == "dev"
    assert state["counted"]["hour"]["answers"]["generated"] >= 1
    health = {part["name"]: part["state"] for part in state["health"]}
    assert health.pop("Edge") in {"ok", "quiet"}
    assert set(health.values()) == {"ok"}
    assert "dashboard show" not in told
