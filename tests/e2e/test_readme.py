"""The README's own commands and snippets, run."""

from __future__ import annotations

import re
import subprocess
import sys

from tests.support.encore_dev import ROOT, EncoreDev

README = (ROOT / "README.md").read_text("utf-8")


def test_python_snippet_prints_a_miss_and_a_hit(dev: EncoreDev) -> None:
    """What the README says is printed is printed, but for times and the answer's freshness."""
    (snippet,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    (shown,) = re.findall(r"```text\n(.*?)```", README, re.DOTALL)
    pointed = snippet.replace("http://127.0.0.1:8787", dev.edge_url)
    assert pointed != snippet
    # KV takes the entry behind the first answer: give it a moment, as a reader's typing does.
    pointed = "import time\n" + pointed + "    time.sleep(1)\n"
    run = subprocess.run(
        [sys.executable, "-c", pointed], capture_output=True, text=True, timeout=60, check=False
    )
    assert run.returncode == 0, run.stderr
    assert comparable(run.stdout) == comparable(shown)


def comparable(text: str) -> str:
    """Without the seconds of freshness left, and without what the model adds to the facts.

    Another processor may round another way, and so choose another of its remarks.
    """
    return re.sub(r"ttl=\d+", "ttl=", re.sub(r"(\$450k\.).*", r"\1", text))


def test_commands_named_in_the_readme_exist() -> None:
    """`make` knows each target that the README names."""
    makefile = (ROOT / "Makefile").read_text()
    for target in set(re.findall(r"^make (\w+)", README, re.MULTILINE)):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_links_lead_somewhere() -> None:
    """Every relative link in README and docs is a file of the repository."""
    for path in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", path.read_text("utf-8")):
            assert (path.parent / target).exists(), f"{path.name}: {target}"
