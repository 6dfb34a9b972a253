"""Fixtures of the tests that run the Worker in workerd."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.edge.local_edge import Edge, StartEdge, edges, node_environment, require_node
from tests.edge.projects import FIXTURES, Projects
from tests.edge.stack import Stack, stacked


@pytest.fixture(scope="session")
def projects(tmp_path_factory: pytest.TempPathFactory) -> Projects:
    """The maker of Worker projects."""
    require_node()
    return Projects(lambda: tmp_path_factory.mktemp("project"))


@pytest.fixture(scope="session")
def lab_config(projects: Projects) -> Path:
    """The Worker itself, whose KV `tests.edge.lab.Lab` opens; built and imported once."""
    return projects.of_the_worker((FIXTURES / "kv_lab.py").read_text())


@pytest.fixture(scope="session")
def start_edge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartEdge]:
    """Start local edges, on free ports with a new state each; all stop with the session."""
    require_node()
    with edges(lambda: tmp_path_factory.mktemp("edge")) as start:
        yield start


@pytest.fixture(scope="session")
def stack(start_edge: StartEdge) -> Iterator[Stack]:
    """One edge and one origin for the tests that leave them as they are."""
    with stacked(start_edge) as running:
        yield running


@pytest.fixture(scope="session")
def runtime_project(projects: Projects) -> Path:
    """The configuration of the Worker in fixtures/runtime_worker.py."""
    return projects.copy("runtime_worker.py")


@pytest.fixture(scope="session")
def runtime(start_edge: StartEdge, runtime_project: Path) -> Edge:
    """A running edge with that Worker."""
    secret = runtime_project.parent / ".dev.vars"
    secret.write_text("SECRET=from-dev-vars\n")
    return start_edge(runtime_project, variables={"OVERRIDDEN": "from the command line"})


@pytest.fixture(scope="session")
def wrangler() -> list[str]:
    """The pinned wrangler, runnable with `node_environment()`."""
    program = shutil.which("wrangler", path=node_environment()["PATH"])
    assert program is not None
    return [program]
