"""`npx wrangler dev`, as far as it goes without a network."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from pathlib import Path

from tests.edge.local_edge import ROOT, node_environment

STEPS = (
    r"Running: python3 tools/build_worker\.py",
    r"env\.KV .*KV Namespace +local",
    r"env\.ENCORE_ORIGIN_URL .*Environment Variable",
    r"env\.ENCORE_SECRET \(\"\(hidden\)\"\)",
    r"edge\.py +│ python",
    r"runtime\.py +│ python",
    r"Vendored Modules",
    r"Starting local server",
)


def test_wrangler_dev_takes_the_same_configuration(wrangler: list[str], tmp_path: Path) -> None:
    """It builds, binds KV and variables and attaches the Worker's modules.

    What comes next is a download of Cloudflare's Python, which a test does not wait for.
    """
    log = tmp_path / "log"
    options = ["--port", "0", "--inspector-port", "0", "--persist-to", str(tmp_path / "state")]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*wrangler, "dev", *options, "--var", f"ENCORE_SECRET:{'s' * 40}"],
            cwd=ROOT,
            env=node_environment(),
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        deadline = time.monotonic() + 60
        while True:
            ended = process.poll() is not None  # asked first: what it wrote is then all there
            text = log.read_text("utf-8")
            missing = [step for step in STEPS if not re.search(step, text)]
            if not missing:
                break
            assert not ended, (missing, text)
            assert time.monotonic() < deadline, (missing, text)
            time.sleep(0.1)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
