"""What a deploy uploads, and that the local edge runs exactly that. No network is needed."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.edge.local_edge import ROOT, node_environment, run_edge

_SDK_FILES = {"workers/__init__.py", "workers/entrypoints.py", "workers/request.py"}


@pytest.fixture(scope="module")
def uploaded(wrangler: list[str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Module name → SHA-256 of its contents, of `wrangler deploy --dry-run`."""
    folder = tmp_path_factory.mktemp("dry-run")
    subprocess.run(
        [*wrangler, "deploy", "--dry-run", "--outdir", str(folder)],
        cwd=ROOT,
        env=node_environment(),
        check=True,
        capture_output=True,
    )
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file() and path != folder / "README.md"  # wrangler's note on the folder itself
    }


def test_own_modules(uploaded: dict[str, str]) -> None:
    """The Worker's modules are uploaded, and nothing else from the repository."""
    own = {name for name in uploaded if not name.startswith("python_modules/")}
    assert own == {path.name for path in (ROOT / "worker").glob("*.py")}
    assert "entry.py" in own


def test_vendored_modules(uploaded: dict[str, str]) -> None:
    """python_modules carries what the Worker reads of shared/, the official SDK, nothing else."""
    vendored = {name.removeprefix("python_modules/") for name in uploaded} - set(uploaded)
    shared = {path.relative_to(ROOT).as_posix() for path in (ROOT / "shared").rglob("*.py")}
    shared = {name for name in shared if not name.startswith("shared/veto/")}
    shared -= {"shared/compression.py"}
    assert {name for name in vendored if name.startswith("shared/")} == shared
    assert vendored > _SDK_FILES
    assert not [name for name in vendored if name.endswith(".pyc")]
    rest = {name.split("/")[0] for name in vendored} - {"shared"}
    assert all(
        name.startswith(("_", "asgi.py", "workers", "workers_runtime_sdk-")) for name in rest
    ), rest


def test_local_edge_runs_the_same(uploaded: dict[str, str]) -> None:
    """The local edge collects the same modules with the same contents."""
    result = run_edge(ROOT / "wrangler.toml", "--modules")
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout) == uploaded


def test_configuration_holds_no_secret() -> None:
    """The Worker's configuration names no secret: those are set with `wrangler secret put`."""
    config = tomllib.loads((ROOT / "wrangler.toml").read_text())
    assert set(config["vars"]) == {"ENCORE_ORIGIN_URL"}


def _build(project: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(ROOT / "tools/build_worker.py"), str(project)],
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with a shared/ of one module."""
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared/one.py").write_text("ONE = 1\n")
    return tmp_path


def test_build_again_changes_nothing(project: Path) -> None:
    """The second run writes no file."""
    assert _build(project).returncode == 0
    before = {path: path.stat().st_mtime_ns for path in project.rglob("*")}
    result = _build(project)
    assert result.stdout.count("\n") == 1
    assert result.stdout.endswith("; 0 changed\n")
    assert before == {path: path.stat().st_mtime_ns for path in project.rglob("*")}


def test_build_follows_shared(project: Path) -> None:
    """A module that is gone from shared/ is gone from python_modules, a changed one is copied."""
    _build(project)
    (project / "shared/one.py").rename(project / "shared/two.py")
    _build(project)
    assert [path.name for path in (project / "python_modules/shared").iterdir()] == ["two.py"]


def test_build_leaves_what_pywrangler_vendored(project: Path) -> None:
    """Where pywrangler has synced, its SDK and other packages stay as they are."""
    vendor = project / "python_modules"
    (vendor / "workers_runtime_sdk-9.0.dist-info").mkdir(parents=True)
    (vendor / "other").mkdir()
    (vendor / ".synced").write_text("1.17.9")
    assert _build(project).returncode == 0
    assert {path.name for path in vendor.iterdir()} == {
        ".synced",
        "other",
        "shared",
        "workers_runtime_sdk-9.0.dist-info",
    }


def test_build_without_the_sdk(project: Path) -> None:
    """Without the SDK the build says what to install."""
    tools = shutil.copytree(ROOT / "tools", project / "tools")
    result = subprocess.run(
        [sys.executable, "-I", "-S", str(tools / "build_worker.py"), str(project)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 1
    assert "pip install workers-runtime-sdk" in result.stderr
