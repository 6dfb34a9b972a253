"""The page of docs/clients.md, in Chromium; where there is none, its script in Node."""

from __future__ import annotations

import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.edge.local_edge import ROOT, StartEdge, node_environment
from tests.edge.stack import API_KEY, stacked
from tests.support.engines import MODEL

PAGE = re.findall(r"```html\n(.*?)```", (ROOT / "docs" / "clients.md").read_text(), re.DOTALL)[0]
BROWSER = shutil.which("chromium") or shutil.which("google-chrome")


class Quiet(SimpleHTTPRequestHandler):
    """Serves a folder without a log."""

    def log_message(self, *_arguments: Any) -> None:
        """Say nothing."""


@contextmanager
def site(folder: Path) -> Iterator[str]:
    """The origin of a folder's pages."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


def shown(url: str, folder: Path) -> str:
    """What a page shows in the end."""
    assert BROWSER is not None
    run = subprocess.run(
        [
            BROWSER,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            f"--user-data-dir={folder / 'profile'}",
            "--virtual-time-budget=20000",
            "--dump-dom",
            url,
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    (text,) = re.findall(r'<pre id="answer">(.*?)</pre>', run.stdout, re.DOTALL)
    return str(text)


def run_in_node(page: str) -> str:
    """What the page's script would show; Node has `fetch`, but no other origins."""
    (script,) = re.findall(r'<script type="module">(.*?)</script>', page, re.DOTALL)
    before = "const shown = {}; const document = { querySelector: () => shown };"
    run = subprocess.run(
        ["node", "--input-type=module", "-e", f"{before}{script}console.log(shown.textContent)"],
        env=node_environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return run.stdout


def test_page_of_an_allowed_origin_shows_its_answer(start_edge: StartEdge, tmp_path: Path) -> None:
    """In a browser a page of another origin shows nothing: it asks the edge first."""
    with (
        site(tmp_path) as allowed,
        site(tmp_path) as other,
        stacked(start_edge, ENCORE_CORS_ORIGINS=allowed) as stack,
    ):
        page = PAGE.replace("http://127.0.0.1:8787", stack.edge.url)
        page = page.replace("sk-encore-dev", API_KEY).replace("encore-demo", MODEL)
        (tmp_path / "index.html").write_text(page)
        if BROWSER is None:
            assert "encore-origin; fwd=miss" in run_in_node(page)
            return
        assert "encore-origin; fwd=miss" in shown(allowed, tmp_path)
        asked = len(stack.front.asked)
        assert shown(other, tmp_path) == ""
        assert len(stack.front.asked) == asked
