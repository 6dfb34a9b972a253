"""Fixtures of the tests that run the Worker in workerd."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.edge.local_edge import ROOT, Edge, StartEdge, edges, node_environment, require_node
from tests.edge.stack import Stack, stacked

FIXTURES = Path(__file__).parent / "fixtures"
_WRANGLER_TOML = f"""\
name = "fixture"
main = "worker/entry.py"
compatibility_date = "2026-11-01"
compatibility_flags = ["python_workers", "python_workers_20260610"]

[build]
command = "{sys.executable} {ROOT / "tools/build_worker.py"} ."
watch_dir = ["worker", "shared"]

[[kv_namespaces]]
binding = "KV"
id = "00000000000000000000000000000000"

[vars]
GREETING = "from wrangler.toml"
OVERRIDDEN = "from wrangler.toml"
"""


class Projects:
    """Makes Worker projects in folders of their own."""

    def __init__(self, factory: pytest.TempPathFactory) -> None:
        self._factory = factory

    def make(self, source: str) -> Path:
        """A project whose main module is `source`; the path of its wrangler.toml."""
        root = self._factory.mktemp("project")
        (root / "worker").mkdir()
        (root / "worker/entry.py").write_text(source)
        (root / "shared").mkdir()
        (root / "wrangler.toml").write_text(_WRANGLER_TOML)
        return root / "wrangler.toml"

    def copy(self, fixture: str) -> Path:
        """A project of the fixture file of that name."""
        return self.make((FIXTURES / fixture).read_text())

    def of_the_worker(self, entry: str | None = None) -> Path:
        """A project of the Worker itself. `entry` is a main module around `entry_of_encore`."""
        config = self.make(entry or "from entry_of_encore import Default\n")
        for module in (ROOT / "worker").glob("*.py"):
            name = "entry_of_encore.py" if module.name == "entry.py" else module.name
            shutil.copy(module, config.parent / "worker" / name)
        shutil.copytree(ROOT / "shared", config.parent / "shared", dirs_exist_ok=True)
        return config

    def with_kv_faults(self) -> Path:
        """A project of the Worker itself, whose KV fails as the variable FAULT says."""
        return self.of_the_worker((FIXTURES / "kv_faults.py").read_text())


@pytest.fixture(scope="session")
def projects(tmp_path_factory: pytest.TempPathFactory) -> Projects:
    """The maker of Worker projects."""
    require_node()
    return Projects(tmp_path_factory)


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
