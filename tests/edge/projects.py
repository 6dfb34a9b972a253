"""Worker projects for tests: the Worker itself or a fixture, in a folder of its own."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

from tests.edge.local_edge import ROOT

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

    def __init__(self, new_folder: Callable[[], Path]) -> None:
        self._new_folder = new_folder

    def make(self, source: str) -> Path:
        """A project whose main module is `source`; the path of its wrangler.toml."""
        root = self._new_folder()
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

    def counting(self) -> Path:
        """A project of the Worker itself that counts what the variable COUNT says."""
        return self.of_the_worker((FIXTURES / "counting.py").read_text())

    def event_loop(self) -> Path:
        """A project of a Worker that says in which order its event loop does things."""
        return self.of_the_worker((FIXTURES / "event_loop.py").read_text())

    def importing(self) -> Path:
        """A project of a Worker that imports the Worker itself while it serves."""
        return self.of_the_worker((FIXTURES / "importing.py").read_text())
