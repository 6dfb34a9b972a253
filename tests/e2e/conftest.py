"""One `encore dev` for all end-to-end tests, as a user starts it."""

from __future__ import annotations

from collections.abc import Iterator

import openai
import pytest

from tests.edge.local_edge import require_node
from tests.support.encore_dev import EncoreDev, encore_dev


@pytest.fixture(scope="session")
def dev(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EncoreDev]:
    """The running system."""
    require_node()
    with encore_dev(tmp_path_factory.mktemp("encore-dev")) as running:
        yield running


@pytest.fixture(scope="session")
def client(dev: EncoreDev) -> Iterator[openai.OpenAI]:
    """The official client, pointed at the edge."""
    with openai.OpenAI(
        base_url=f"{dev.edge_url}/v1", api_key="sk-encore-dev", max_retries=0
    ) as client:
        yield client
