"""The snippets of docs/clients.md, run as they stand but for the address."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from importlib.util import find_spec

import pytest

from tests.edge.local_edge import node_environment
from tests.support.encore_dev import ROOT, EncoreDev

TEXT = (ROOT / "docs" / "clients.md").read_text("utf-8")
ADDRESS = "http://127.0.0.1:8787"


def snippet(heading: str) -> str:
    """The code under a heading."""
    _, _, section = TEXT.partition(f"\n## {heading}\n")
    (code,) = re.findall(r"```\w+\n(.*?)```", section.partition("\n## ")[0], re.DOTALL)
    assert ADDRESS in code
    return str(code)


def run_until_hit(command: list[str], **options: object) -> str:
    """Run a program until KV has answered it; what it said then, on both outputs."""
    deadline_s = time.monotonic() + 60
    while True:
        run = subprocess.run(  # type: ignore[call-overload]
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60,
            check=False,
            **options,
        )
        assert run.returncode == 0, run.stdout
        if "encore-edge; hit" in run.stdout:
            return str(run.stdout)
        assert "encore-origin; " in run.stdout, run.stdout
        assert time.monotonic() < deadline_s, run.stdout


def test_openai_for_python(dev: EncoreDev) -> None:
    """A stream, and then a hit."""
    code = snippet("Python: openai").replace(ADDRESS, dev.edge_url)
    assert "5 Elm St" in run_until_hit([sys.executable, "-c", code])


def test_openai_for_javascript(dev: EncoreDev) -> None:
    """A miss, and then a hit."""
    code = snippet("JavaScript: openai").replace(ADDRESS, dev.edge_url)
    command = ["node", "--input-type=module", "-e", code]
    assert "7 Elm St" in run_until_hit(command, cwd=ROOT, env=node_environment())


def test_curl(dev: EncoreDev) -> None:
    """A miss, and then a hit."""
    code = snippet("curl").replace(ADDRESS, dev.edge_url)
    assert "8 Elm St" in run_until_hit(["/bin/sh", "-ec", code])


def test_langchain(dev: EncoreDev) -> None:
    """It is Python; where langchain-openai is installed, it answers, and then hits."""
    code = snippet("LangChain").replace(ADDRESS, dev.edge_url)
    compile(code, "clients.md", "exec")
    if find_spec("langchain_openai") is not None:
        assert "6 Elm St" in run_until_hit([sys.executable, "-c", code])


@pytest.mark.parametrize("heading", re.findall(r"\]\(#([\w-]+)\)", TEXT))
def test_links_within_the_page_lead_somewhere(heading: str) -> None:
    """As GitHub names headings."""
    names = {
        re.sub(r"[^\w -]", "", line.lower()).replace(" ", "-")
        for line in re.findall(r"^## (.*)$", TEXT, re.MULTILINE)
    }
    assert heading in names
