"""The golden vectors, read by the Python that runs at the edge."""

from __future__ import annotations

import shutil
from pathlib import Path

import httpx

from tests.edge.local_edge import ROOT, StartEdge
from tests.edge.projects import Projects

VECTORS = ROOT / "tests/vectors"
WORKER = """
import json
import sys
from workers import Response, WorkerEntrypoint
from runner import check_vectors
from vector_texts import TEXTS

class Default(WorkerEntrypoint):
    async def fetch(self, request):
        failures = check_vectors(TEXTS)
        return Response(json.dumps({"python": sys.platform, "failures": failures}))
"""


def test_pyodide_agrees_with_the_golden_vectors(projects: Projects, start_edge: StartEdge) -> None:
    """Every vector gives in Pyodide, inside workerd, what is frozen in the file."""
    config: Path = projects.make(WORKER)
    folder = config.parent
    shutil.copytree(ROOT / "shared", folder / "shared", dirs_exist_ok=True)
    shutil.copy(VECTORS / "runner.py", folder / "worker/runner.py")
    texts = {path.name: path.read_text("utf-8") for path in sorted(VECTORS.glob("*.json"))}
    (folder / "worker/vector_texts.py").write_text(f"TEXTS = {texts!r}\n", "utf-8")
    edge = start_edge(config)
    outcome = httpx.get(edge.url, timeout=60).json()
    edge.stop()
    assert outcome == {"python": "emscripten", "failures": []}
